@ Exception vectors. Every exception continues in Supervisor mode on the interrupted stack with a frame of sixteen words
@ (exception.rs `Frame`): r0-r12, lr_svc, return address, SPSR.

        .arch_extension virt
        .arm

        .text
        .balign 32
        .global vectors, take_undefined, take_supervisor_call, take_prefetch_abort
vectors:
        b       .                           @ reset: not used
        b       take_undefined
        b       take_supervisor_call
        b       take_prefetch_abort
        b       take_data_abort
        b       .                           @ hyp trap: not used at PL1
        b       take_interrupt
        b       .                           @ FIQ: the virtual GIC never signals it here

@ SRS keeps the exception's own LR and SPSR; then lr is free to carry the CPSR as the hypervisor (or the core) set it,
@ which the handler compares with what the architecture demands (DDI 0406C.d B1.9).
        .macro  take name, kind, banked_lr
\name:
        srsdb   sp!, #0x13
        mrs     lr, cpsr
        cps     #0x13
        push    {r0-r12, lr}
        mov     r0, #\kind
        mrs     r1, \banked_lr
        b       enter_rust
        .endm

        take    take_undefined, 1, lr_und
        take    take_prefetch_abort, 3, lr_abt
        take    take_data_abort, 4, lr_abt

take_supervisor_call:                       @ already in Supervisor mode: its lr is lost, SVC is only used from user mode
        srsdb   sp!, #0x13
        mrs     lr, cpsr
        push    {r0-r12, lr}
        mov     r0, #2
        mov     r1, lr

enter_rust:
        mov     r2, sp
        bic     sp, sp, #7                  @ AAPCS: the interrupted code may be between aligned states
        push    {r2, r3}
        bl      exception_main              @ (kind, cpsr at entry, &mut Frame)
        pop     {r2, r3}
        mov     sp, r2
        pop     {r0-r12, lr}
        rfeia   sp!

take_interrupt:
        sub     lr, lr, #4
        srsdb   sp!, #0x13
        cps     #0x13
        push    {r0-r12, lr}
        mov     r2, sp
        bic     sp, sp, #7
        push    {r2, r3}
        bl      interrupt_main
        pop     {r2, r3}
        mov     sp, r2
        pop     {r0-r12, lr}
        clrex                               @ an exclusive pair must not span an interrupt (DDI 0406C.d A3.4.4)
        rfeia   sp!

@ u32 catch_call(function, a, b, &mut sp): calls function(a, b). An exception within it comes back through
@ catch_landing, as if the call had returned; exception.rs says whether it did.
        .global catch_call
catch_call:
        push    {r4-r12, lr}
        str     sp, [r3]
        mov     r12, r0
        mov     r0, r1
        mov     r1, r2
        blx     r12
        pop     {r4-r12, pc}

@ exception_main sets r0 to the sp that catch_call recorded.
        .global catch_landing
catch_landing:
        mov     sp, r0
        pop     {r4-r12, pc}
