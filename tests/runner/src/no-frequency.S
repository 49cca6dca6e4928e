@ A boot monitor that leaves the CPU in secure SVC and CNTFRQ unset: see leftovers.rs.

    .syntax unified
    .arch   armv7-a
    .arm

    .global _start
_start:
    mov     r0, #0
    mcr     p15, 0, r0, c14, c0, 0          @ CNTFRQ
    mvn     r1, #0
    ldr     r2, =TREE
    ldr     pc, =HYPERVISOR
