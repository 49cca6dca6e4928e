// Entered by boot/efi.S: r0 = image handle, r1 = system table, r2 = where the image is, r3 = its size with BSS. Returns what
// efi_main does.

    .syntax unified
    .arch armv7-a
    .arm

    .section .text.start, "ax"
    .global efi_start
efi_start:
    push    {r4, r5, r6, lr}
    adr     r4, efi_start               // linked at 0: what is to be added to each pointer
    adr     r5, relocations
    ldr     r6, relocations
    ldr     r12, relocations_end
    add     r12, r12, r5
    add     r12, r12, #4                // the second word is relative to itself
    add     r5, r5, r6

    // Elf32_Rel: offset, then the kind. The linker makes no kind but R_ARM_RELATIVE here.
1:  cmp     r5, r12
    bhs     2f
    ldr     r6, [r5], #8
    ldr     lr, [r4, r6]
    add     lr, lr, r4
    str     lr, [r4, r6]
    b       1b
2:  pop     {r4, r5, r6, lr}
    b       efi_main

    .align  2
relocations:
    .word   __relocations - .
relocations_end:
    .word   __relocations_end - .
