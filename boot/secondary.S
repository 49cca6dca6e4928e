// A secondary CPU from its start to hyp_secondary, entered in HYP with MMU and caches off.
//
// secondary_entry is for PSCI CPU_ON (DEN 0022): r0 = context id, the logical number of the CPU. secondary_pen is for CPUs
// that leave a pen of the boot loader's, perhaps several at once: each waits until secondary_gate (arch/src/pen.rs) has its
// affinity, and its number above that. One that PSCI started and that nobody waits for any more stays here for good. The boot
// root is still in place. The boot code is unmapped after the last CPU is up, and mapped while one starts that was switched off.

    .section .boot.text, "ax"
    .global secondary_entry, secondary_pen
secondary_pen:
    mrs     r10, cpsr
    cpsid   aif
    bl      enter_hyp
    mrs     r10, cpsr
    bl      cpu_setup
    mrc     p15, 0, r1, c0, c0, 5       // MPIDR
    ldr     r2, =secondary_gate
    add     r2, r2, r9
1:  ldr     r0, [r2]
    eor     r3, r0, r1
    lsls    r3, r3, #8                  // 0 when the 24 bits of affinity agree
    lsr     r8, r0, #24
    beq     2f
    wfe
    b       1b

secondary_entry:
    mrs     r10, cpsr
    cpsid   aif
    mov     r8, r0
    bl      cpu_setup
    ldr     r2, =secondary_gate
    add     r2, r2, r9
    ldr     r0, [r2]
    cmp     r8, r0, lsr #24
    bne     halt                        // too late
2:  and     r0, r10, #0x1f
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
