// HYP exception vectors and guest entry (DDI 0406C.d B1.8.1, B1.9).
//
// While a guest runs, SP_hyp points just past the general registers of its GuestContext, so that one push on an exception
// saves them there. An exception taken in HYP itself uses other vectors and its own stack; it is a bug, or a probe.
//
// GuestContext (arch/src/guest.rs) begins: r0-r12, lr_usr, pc, cpsr, hypervisor's sp.

    .syntax unified
    .arch armv7-a
    .arch_extension virt
    .arm

    .equ EXIT_TRAP, 0
    .equ EXIT_IRQ,  1
    .equ EXIT_FIQ,  2

    .section .text.vectors, "ax"
    .align  5
    .global hyp_vectors
hyp_vectors:
    b       hyp_halt                    // 0x00: never taken in HYP
    b       hyp_undefined
    b       hyp_call
    b       hyp_prefetch_abort
    b       hyp_data_abort
    b       guest_trap                  // 0x14: all traps of a guest
    b       guest_irq
    b       guest_fiq

// Vectors that flush the branch predictor, which a guest may have trained, before the first indirect branch.
    .macro hardened_vectors name
    .align  5
    .global hyp_vectors_\name
hyp_vectors_\name:
    b       hyp_halt
    b       hyp_undefined
    b       hyp_call
    b       hyp_prefetch_abort
    b       hyp_data_abort
    b       guest_trap_\name
    b       guest_irq_\name
    b       guest_fiq_\name
    .endm

// Cortex-A15: by ICIALLU, if firmware has set ACTLR.IBE (docs/boot.md).
    hardened_vectors iciallu
// Cortex-A12 and A17: by BPIALL.
    hardened_vectors bpiall

    .irp    exit, guest_trap, guest_irq, guest_fiq
\exit\()_bpiall:
    mcr     p15, 0, r0, c7, c5, 6       // BPIALL
    isb
    b       \exit
    .endr

guest_trap_iciallu:
    mcr     p15, 0, r0, c7, c5, 0       // ICIALLU
    isb
guest_trap:
    push    {{r0-r12, lr}}
    mov     r0, #EXIT_TRAP
leave_guest:
    mrs     r1, elr_hyp
    mrs     r2, spsr
    str     r1, [sp, #{PC}]
    str     r2, [sp, #{CPSR}]
    ldr     sp, [sp, #{HOST_SP}]
    pop     {{r4-r11, pc}}

guest_irq_iciallu:
    mcr     p15, 0, r0, c7, c5, 0
    isb
guest_irq:
    push    {{r0-r12, lr}}
    mov     r0, #EXIT_IRQ
    b       leave_guest

guest_fiq_iciallu:
    mcr     p15, 0, r0, c7, c5, 0
    isb
guest_fiq:
    push    {{r0-r12, lr}}
    mov     r0, #EXIT_FIQ
    b       leave_guest

// u32 guest_enter(GuestContext *): runs the guest until its next exit. Returns EXIT_*.
    .global guest_enter
    .type   guest_enter, %function
guest_enter:
    push    {{r4-r11, lr}}
    str     sp, [r0, #{HOST_SP}]
    ldr     r1, [r0, #{PC}]
    ldr     r2, [r0, #{CPSR}]
    add     sp, r0, #{PC}
    msr     elr_hyp, r1
    msr     spsr_cxsf, r2
    ldr     lr, [r0, #{LR}]
    ldm     r0, {{r0-r12}}
    eret
    dsb     sy                          // no speculation past eret with guest registers
    isb

// An exception taken in HYP. SP may be invalid (after a stack overflow) and no register is free: r0 is saved in HTPIDR,
// which the report restores. All CPUs share one fault stack: two simultaneous faults garble the report.
    .macro hyp_fault kind
    mcr     p15, 4, r0, c13, c0, 2      // HTPIDR
    mov     r0, sp
    ldr     sp, =__fault_stack_start + 0x1000 + 0x8000
    push    {{r1-r12, lr}}
    mov     r1, #\kind
    b       hyp_fault_common
    .endm

hyp_halt:           hyp_fault 0
hyp_undefined:      hyp_fault 1
hyp_call:           hyp_fault 2
hyp_prefetch_abort: hyp_fault 3
hyp_data_abort:     hyp_fault 4

hyp_fault_common:
    mrc     p15, 4, r2, c13, c0, 2
    push    {{r2}}
    push    {{r0}}                      // frame: sp, r0, r1-r12, lr
    mov     r0, sp
    mrs     r2, elr_hyp
    mrs     r3, spsr
    bl      hyp_fault_report            // returns the address to continue at
    msr     elr_hyp, r0
    pop     {{r1}}
    pop     {{r0}}
    mov     r2, r1
    pop     {{r1}}
    push    {{r2}}
    ldr     r2, [sp, #4]
    ldmib   sp, {{r2-r12, lr}}
    ldr     sp, [sp]
    eret
    dsb     sy
    isb

// bool probe_read(u32 *address, u32 *value): reads a word that may not exist. An abort continues at probe_failed.
    .global probe_read, probe_instruction, probe_failed
    .type   probe_read, %function
probe_read:
    mov     r12, r0
    mov     r0, #1
probe_instruction:
    ldr     r12, [r12]
    str     r12, [r1]
    bx      lr
probe_failed:
    mov     r0, #0
    bx      lr

// u32 take_pending_abort(): unmasks asynchronous aborts from async_abort_window to async_abort_end. Returns 1 if one
// was taken, which continues at async_abort_taken.
    .global take_pending_abort, async_abort_window, async_abort_taken, async_abort_end
    .type   take_pending_abort, %function
take_pending_abort:
    mov     r0, #0
async_abort_window:
    cpsie   a
    isb
    b       async_abort_close
async_abort_taken:
    mov     r0, #1
async_abort_close:
    cpsid   a
async_abort_end:
    bx      lr

    .ltorg
