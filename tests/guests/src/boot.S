@ Entry of a test guest: a zImage header, then the way from "MMU off, anywhere in RAM" to Rust at 0xc0000000.
@
@ Stage 1 uses the long-descriptor format (DDI 0406C.d B3.6):
@   0x00000000-0x3fffffff  identity, Device
@   0x40000000-0xbfffffff  identity, Normal write-back inner-shareable
@   0xc0000000-0xc01fffff  this image, page by page, at its load address
@   0xc0200000-0xc03fffff  the fixmap: pages that a test maps as it likes (memory.rs)
@   the rest               unmapped, so that bad pointers fault
@ Virtual and guest-physical addresses of the image differ on purpose: a hypervisor that takes one for the other fails.

        .arch_extension virt
        .arm

        .equ    LINK_BASE, 0xc0000000
        .equ    BLOCK_DEVICE, 0x405         @ block, AttrIndx 1, AF
        .equ    BLOCK_NORMAL, 0x749         @ block, AttrIndx 2, any-privilege RW, inner-shareable, AF
        .equ    PAGE_NORMAL, 0x74b          @ page, likewise
        .equ    TABLE, 3
        .equ    STACK_SIZE, 0x4000          @ per CPU, eight CPUs (GICv2's limit)
        .equ    EXECUTE_NEVER_HIGH, 1 << 22 @ XN, bit 54 of a descriptor

        .section .head, "awx"
        .global _head
_head:
        .rept   8
        mov     r0, r0
        .endr
        b       boot
        .word   0x016f2818                  @ zImage magic
        .word   0                           @ start: position-independent
        .word   _end - _head                @ end
        .word   0x04030201                  @ little endian

boot:
        adr     r4, _head                   @ load address, page-aligned
        ldr     r5, =LINK_BASE
        sub     r5, r4, r5                  @ guest-physical minus virtual
        mov     r6, r2                      @ device tree

        ldr     r0, =stage1_level1
        add     r0, r0, r5
        ldr     r2, =BLOCK_DEVICE
        ldr     r3, =EXECUTE_NEVER_HIGH
        stm     r0!, {r2, r3}
        mov     r3, #0
        ldr     r2, =0x40000000 + BLOCK_NORMAL
        stm     r0!, {r2, r3}
        ldr     r2, =0x80000000 + BLOCK_NORMAL
        stm     r0!, {r2, r3}
        ldr     r1, =stage1_level2
        add     r1, r1, r5
        orr     r2, r1, #TABLE
        stm     r0!, {r2, r3}

        ldr     r0, =stage1_image
        add     r0, r0, r5
        orr     r2, r0, #TABLE
        stm     r1!, {r2, r3}
        ldr     r7, =stage1_fixmap
        add     r7, r7, r5
        orr     r2, r7, #TABLE
        stm     r1!, {r2, r3}

        ldr     r2, =PAGE_NORMAL
        add     r2, r2, r4
        ldr     r7, =_end
        add     r7, r7, r5
1:      stm     r0!, {r2, r3}
        add     r2, r2, #0x1000
        cmp     r2, r7
        blo     1b

        @ The tables went past the (disabled) cache: drop what it may hold of them before the walker looks through it.
        @ 64 bytes is the A15's line (DDI 0438 6.1).
        ldr     r0, =stage1_tables
        add     r0, r0, r5
        add     r1, r0, #0x4000
2:      mcr     p15, 0, r0, c7, c6, 1       @ DCIMVAC
        add     r0, r0, #64
        cmp     r0, r1
        blo     2b

        ldr     lr, =start_primary
        b       enable_mmu

@ PSCI CPU_ON enters here with the MMU off. The CPU's index is its affinity level 0: PSCI 0.1 has no context argument.
        .global secondary_boot
secondary_boot:
        adr     r4, _head
        ldr     r5, =LINK_BASE
        sub     r5, r4, r5
        mrc     p15, 0, r6, c0, c0, 5       @ MPIDR
        and     r6, r6, #0xf
        ldr     lr, =start_secondary

@ Turns the MMU and caches on and goes to lr, a virtual address. Executes at its physical address, mapped identically.
enable_mmu:
        ldr     r0, =0x00ff0400             @ MAIR0: 0 strongly-ordered, 1 Device, 2 Normal write-back
        mcr     p15, 0, r0, c10, c2, 0
        ldr     r0, =0x80803500             @ TTBCR: EAE, EPD1, walks inner-shareable write-back
        mcr     p15, 0, r0, c2, c0, 2
        ldr     r0, =stage1_level1
        add     r0, r0, r5
        mov     r1, #0
        mcrr    p15, 0, r0, r1, c2          @ TTBR0
        mcr     p15, 0, r0, c8, c7, 0       @ TLBIALL
        mcr     p15, 0, r0, c7, c5, 0       @ ICIALLU
        ldr     r0, =vectors
        mcr     p15, 0, r0, c12, c0, 0      @ VBAR
        dsb
        isb
        mrc     p15, 0, r0, c1, c0, 0
        orr     r0, r0, #0x1000             @ SCTLR.I
        orr     r0, r0, #0x0005             @ SCTLR.C, SCTLR.M
        bic     r0, r0, #0x0002             @ SCTLR.A: Rust's memcpy may use unaligned words
        mcr     p15, 0, r0, c1, c0, 0
        isb
        bx      lr

start_primary:
        ldr     sp, =stacks + STACK_SIZE
        mov     r0, r6
        mov     r1, r5
        bl      primary_main
        b       .

start_secondary:
        mov     r0, r6
        ldr     r1, =stacks
        add     r2, r0, #1
        mov     r3, #STACK_SIZE
        mla     r1, r2, r3, r1
        mov     sp, r1
        bl      secondary_main
        b       .

        .ltorg

        .section .bss.stage1, "aw", %nobits
        .balign 0x1000
stage1_tables:
        .global stage1_fixmap
stage1_fixmap:  .space  0x1000
stage1_image:   .space  0x1000
        .global stage1_level2
stage1_level2:  .space  0x1000
        .global stage1_level1
stage1_level1:  .space  0x1000              @ four entries; a page of its own keeps its 32-byte alignment simple

        .section .bss.stacks, "aw", %nobits
        .balign 8
stacks: .space  STACK_SIZE * 8
