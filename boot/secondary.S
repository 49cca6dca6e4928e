// A secondary CPU from PSCI CPU_ON to hyp_secondary (DEN 0022: entered in HYP, MMU and caches off, r0 = context id).
//
// The context id is the logical number of the CPU. The boot tables are still in place: the identity map is dropped only
// after the last CPU is up.

    .section .boot.text, "ax"
    .global secondary_entry
secondary_entry:
    mrs     r10, cpsr
    cpsid   aif
    mov     r8, r0
    bl      cpu_setup
    and     r0, r10, #0x1f
    cmp     r0, #MODE_HYP
    bne     halt                        // not in HYP: cpu_up times out and reports this CPU
    bl      enable_mmu
    ldr     r0, =0x1000 + 0xb000
    ldr     sp, =__stacks_start
    mla     sp, r0, r8, sp
    add     sp, sp, r0
    mov     r0, r8
    mov     r11, #0
    ldr     lr, =halt
    ldr     pc, =hyp_secondary
    .ltorg
