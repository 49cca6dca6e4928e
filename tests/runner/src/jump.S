@ A loader that starts the hypervisor on the first CPU in the state that the reset leaves: see crash.rs, processors.rs.

    .syntax unified
    .arch   armv7-a
    .arm

    .global _start
_start:
    mrc     p15, 0, r0, c0, c0, 5           @ MPIDR
    ands    r0, r0, #0xff
1:  wfine
    bne     1b
    mvn     r1, #0
    ldr     r2, =TREE
    ldr     pc, =HYPERVISOR
