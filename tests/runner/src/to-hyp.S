@ A loader that the board's reset enters in secure SVC on all CPUs, and that starts the hypervisor in HYP on the first: see
@ refusals.rs.

    .syntax unified
    .arch   armv7-a
    .arch_extension sec
    .arch_extension virt
    .arm

    .global _start
_start:
    nop                                     @ passed over by the first CPU
    mrc     p15, 0, r0, c0, c0, 5           @ MPIDR
    ands    r0, r0, #0xff
1:  wfine
    bne     1b
    cps     #0x16                           @ Monitor mode
    ldr     r0, =0x00000131                 @ SCR: HCE, AW, FW, NS
    mcr     p15, 0, r0, c1, c1, 0
    isb
    ldr     r0, =0x000001da                 @ HYP, with A, I and F masked
    msr     spsr_cxsf, r0
    mov     r0, #0
    mvn     r1, #0
    ldr     r2, =TREE
    ldr     lr, =HYPERVISOR
    movs    pc, lr
