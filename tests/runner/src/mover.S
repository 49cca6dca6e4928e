// A boot loader that moves the hypervisor, which it carries, to HYPERVISOR and starts it there. What it was given in r0 to r2
// is handed on. The loop is moved first, to SCRATCH, as the hypervisor may come to lie where this is.

    .arm
    .global _start
_start:
    adr     r3, loop
    ldr     r4, =SCRATCH
    mov     r5, #(loop_end - loop)
1:  subs    r5, r5, #4
    ldr     r6, [r3, r5]
    str     r6, [r4, r5]
    bne     1b
    adr     r3, image
    ldr     r5, =HYPERVISOR
    ldr     r7, size
    dsb
    isb
    bx      r4

// From r3 to r5, r7 bytes: upwards if that is down, downwards if it is up.
loop:
    mov     r8, r5
    cmp     r5, r3
    bhi     3f
2:  ldr     r6, [r3], #4
    str     r6, [r8], #4
    subs    r7, r7, #4
    bne     2b
    bx      r5
3:  subs    r7, r7, #4
    ldr     r6, [r3, r7]
    str     r6, [r8, r7]
    bne     3b
    bx      r5
    .ltorg
loop_end:

size:
    .word   image_end - image
    .ltorg
    .balign 4
image:
    .incbin IMAGE
    .balign 4
image_end:
