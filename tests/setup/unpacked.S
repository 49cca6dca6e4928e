// A kernel that is a zImage without a decompressor: the header that loaders look for (Linux, Documentation/arch/arm/booting),
// a copy loop, and the unpacked kernel, KERNEL. Linked at 0; runs wherever it is loaded, with the MMU off.

    // Where Debian's armmp kernels start, counted from the 128 MiB that they are loaded in (TEXT_OFFSET with CONFIG_ARCH_MESON).
    .equ    TEXT_OFFSET, 0x208000

    .arm
    .global _start
_start:
    .rept   8
    nop
    .endr
    b       copy
    .word   0x016f2818              // magic number
    .word   0                       // load address: any
size:
    .word   end                     // of all, in bytes
    .word   0x04030201              // byte order

// Copies from the end down to r7, as the kernel's place may overlap what is above this code, and enters it with r0 to r2 as they
// were.
copy:
    adr     r3, _start
    ldr     r4, text_offset
    bfc     r3, #0, #27
    add     r7, r3, r4
    ldr     r4, kernel_size
    adr     r3, _start
    add     r5, r7, r4
    ldr     r4, size
    add     r3, r3, r4
1:  ldmdb   r3!, {r8-r11}
    stmdb   r5!, {r8-r11}
    cmp     r5, r7
    bhi     1b
    dsb
    mcr     p15, 0, r0, c7, c5, 0   // ICIALLU
    dsb
    isb
    bx      r7

text_offset:
    .word   TEXT_OFFSET
kernel_size:
    .word   end - kernel

    .balign 16
kernel:
    .incbin KERNEL
    .balign 16
end:
