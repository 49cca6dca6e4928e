@ A boot loader that hands over with everything still on that a boot loader can leave on: see leftovers.rs.
@ The distributor and the CPU interface are those of QEMU's `virt` board.

    .syntax unified
    .arch   armv7-a
    .arch_extension virt
    .arm

    .equ    GICD, 0x08000000
    .equ    GICC, 0x08010000

    .global _start
_start:
    @ Translation control of an earlier stage, the instruction cache, vectors of nobody.
    ldr     r0, =0x80000f00
    mcr     p15, 4, r0, c2, c0, 2           @ HTCR
    ldr     r0, =0xffffffff
    mcr     p15, 4, r0, c10, c2, 0          @ HMAIR0
    mrc     p15, 4, r0, c1, c0, 0           @ HSCTLR
    orr     r0, r0, #1 << 12                @ I
    mcr     p15, 4, r0, c1, c0, 0
    mrc     p15, 0, r0, c1, c0, 0           @ SCTLR
    orr     r0, r0, #1 << 12                @ I
    mcr     p15, 0, r0, c1, c0, 0
    mov     r0, #0x40000000
    mcr     p15, 4, r0, c12, c0, 0          @ HVBAR
    mcr     p15, 0, r0, c12, c0, 0          @ VBAR

    @ Traps of a hypervisor before, and virtual interrupts and an abort that it had pending.
    ldr     r0, =0x000001c0                 @ VA, VI, VF
    mcr     p15, 4, r0, c1, c1, 0           @ HCR
    ldr     r0, =0xffff
    mcr     p15, 4, r0, c1, c1, 3           @ HSTR
    mov     r0, #0xff000000
    mcrr    p15, 4, r0, r0, c14             @ CNTVOFF

    @ All timers run and have fired.
    mov     r0, #0
    mov     r1, #0
    mcrr    p15, 2, r0, r1, c14             @ CNTP_CVAL
    mcrr    p15, 3, r0, r1, c14             @ CNTV_CVAL
    mcrr    p15, 6, r0, r1, c14             @ CNTHP_CVAL
    mov     r0, #1
    mcr     p15, 0, r0, c14, c2, 1          @ CNTP_CTL
    mcr     p15, 0, r0, c14, c3, 1          @ CNTV_CTL
    mcr     p15, 4, r0, c14, c2, 1          @ CNTHP_CTL
    isb

    @ Every interrupt: group 1, enabled, pending, of the most urgent priority. SGIs from this CPU to all.
    ldr     r4, =GICD
    mvn     r0, #0
    mov     r1, #0
    mov     r2, #0
1:  add     r3, r4, r1
    str     r0, [r3, #0x080]                @ IGROUPR
    str     r0, [r3, #0x100]                @ ISENABLER
    str     r0, [r3, #0x200]                @ ISPENDR
    add     r1, r1, #4
    cmp     r1, #9 * 4
    blo     1b
    mov     r1, #0
2:  add     r3, r4, r1
    str     r2, [r3, #0x400]                @ IPRIORITYR
    add     r1, r1, #4
    cmp     r1, #288
    blo     2b
    mov     r0, #3
    str     r0, [r4]                        @ CTLR: both groups
    mov     r1, #0
3:  ldr     r0, =0x00ff0000 | 1 << 15       @ group 1, for GICs that tell groups apart
    orr     r0, r0, r1
    str     r0, [r4, #0xf00]                @ SGIR
    add     r1, r1, #1
    cmp     r1, #16
    blo     3b

    @ One is taken and never ended: its priority keeps all others out.
    ldr     r4, =GICC
    mov     r0, #0xff
    str     r0, [r4, #4]                    @ PMR
    mov     r0, #7
    str     r0, [r4]                        @ CTLR: both groups, and IAR answers for group 1
    ldr     r0, [r4, #0xc]                  @ IAR
    dsb     sy

    mov     r0, #0
    mvn     r1, #0
    ldr     r2, =TREE
    ldr     pc, =HYPERVISOR
    .ltorg
