// A secondary CPU from its start to hyp_secondary, with MMU and caches off.
//
// secondary_entry is for PSCI CPU_ON (DEN 0022), in HYP: r0 = context id, the logical number of the CPU. secondary_pen is
// for CPUs that the board's registers start, perhaps several at once: each waits until secondary_gate (arch/src/pen.rs) has
// its affinity, and its number above that. One in SVC enters HYP by boot/secure.S, or by firmware's monitor where a call is
// known (secondary_monitor_call). One that PSCI started and that nobody waits for any more stays here for good. The boot
// root is still in place. The boot code is unmapped after the last CPU is up, and mapped while one starts that was off.
//
// r7 is 1 if boot/secure.S has kept a monitor on this CPU.

    .arch_extension sec

    .section .boot.text, "ax"
    .global secondary_entry, secondary_pen
secondary_pen:
    mrs     r10, cpsr
    cpsid   aif
    mov     r6, r10
    bl      enter_hyp
    mrs     r10, cpsr
    eor     r7, r6, r10
    and     r7, r7, #0x1f
    cmp     r7, #0
    movne   r7, #1
    bl      cpu_setup
    and     r0, r10, #0x1f
    cmp     r0, #MODE_HYP
    beq     3f
    ldr     r12, =secondary_monitor_call
    ldr     r12, [r12, r9]
    cmp     r12, #0
    beq     3f
    adr     r0, 4f
    smc     #0                          // goes on at r0, in HYP
4:  mrs     r10, cpsr
    mov     r7, #0
    bl      cpu_setup
3:  mrc     p15, 0, r1, c0, c0, 5       // MPIDR
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
    mov     r7, #0
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
    mov     r1, r7
    mov     r11, #0
    ldr     lr, =halt
    ldr     pc, =hyp_secondary
    .ltorg
