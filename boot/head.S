// From the boot loader to hyp_main: zImage header, page tables, MMU.
//
// Entered with the MMU and data cache off, IRQs masked, r2 = physical address of the device tree (boot/README.md), at any
// address that is a multiple of 4 KiB. Until the MMU is on, every address is PC-relative.
//
// A CPU that is not in HYP mode gets the same page tables in its PL1 regime (the formats agree), only so that hyp_main can
// find a console in the device tree and say what is wrong.
//
// Register use until the jump to the virtual address:
//   r7  CPSR at entry
//   r8  physical address of the device tree (0: none given)
//   r9  physical minus virtual address of the image
//   r10 CPSR now: in HYP, if boot/secure.S could do that

    .syntax unified
    .arch armv7-a
    .arch_extension virt
    .arm

    // Page-table descriptors, long format, for PL2 stage 1 (DDI 0406C.d B3.6): attribute index 2 (normal write-back),
    // inner shareable, access flag set, AP[1] RES1. XN is bit 54: bit 22 of the high word.
    .equ DESC_TABLE,     0x003
    .equ DESC_BLOCK_RX,  0x7c9
    .equ DESC_PAGE_RX,   0x7cb
    .equ DESC_PAGE_RO,   0x7cb
    .equ DESC_PAGE_RW,   0x74b
    .equ DESC_XN_HIGH,   0x00400000

    .equ MAIR0_VALUE,    0x00ff4404     // arch/src/lpae.rs: 0 device, 1 normal non-cacheable, 2 normal write-back
    .equ TCR_VALUE,      0x80803500     // 32-bit input, inner shareable write-back walks
    .equ HSCTLR_VALUE,   0x30cd187d     // RES1, I, C, M, WXN
    .equ SCTLR_SET,      0x00001005     // I, C, M
    .equ SCTLR_CLEAR,    0x42002000     // TE, EE, V: exceptions in ARM state, little-endian, at VBAR
    .equ MODE_HYP,       0x1a
    .equ IMAGE_L2_SLOT,  (0x3e000000 >> 21) * 8

// Writes the descriptor in (r2, r3) into a table of the boot root, where it is walked for address r0 and for r1; then makes
// r2 a descriptor of that table. Clobbers r5, r6.
    .macro map_both table, shift, bits
    ldr     r6, =\table
    add     r6, r6, r9
    ubfx    r5, r0, #\shift, #\bits
    add     r5, r6, r5, lsl #3
    strd    r2, r3, [r5]
    ubfx    r5, r1, #\shift, #\bits
    add     r5, r6, r5, lsl #3
    strd    r2, r3, [r5]
    orr     r2, r6, #DESC_TABLE
    .endm

    .section .boot.header, "ax"
    .global _start
_start:
    .word   0xe2255a4d                  // "MZ" for UEFI firmware; eor r5, r5, #0x4d000 for others
    .rept 7
    mov     r0, r0
    .endr
    b       entry
    .word   0x016f2818                  // zImage magic
    .word   0                           // load address: anywhere
    .word   __file_size
    .word   0x04030201                  // little endian
    .word   0, 0
    .word   pe_header - _start          // what follows is in efi.S

    .section .boot.text, "ax"
    .global entry
entry:
    mrs     r10, cpsr
    cpsid   aif
    mov     r7, r10
    mov     r8, r2
    bl      enter_hyp
    mrs     r10, cpsr
    bl      cpu_setup

    // Zero BSS, up to the stacks; the tables are part of it.
    ldr     r0, =__bss_start
    ldr     r1, =__stacks_start
    add     r0, r0, r9
    add     r1, r1, r9
    mov     r2, #0
    mov     r3, #0
1:  strd    r2, r3, [r0], #8
    cmp     r0, r1
    blo     1b

    ldr     r4, =hyp_l2_low
    add     r4, r4, r9
    orr     r2, r4, #DESC_TABLE
    ldr     r5, =hyp_root
    add     r5, r5, r9
    strd    r2, r3, [r5]

    // The boot root maps one page, at two addresses: where it is, and where the image has it. The same tables serve both,
    // and all their entries say the same, so neither address can be in the other's way, wherever the image was loaded.
    ldr     r1, =mmu_on
    add     r0, r1, r9
    lsr     r2, r0, #12
    lsl     r2, r2, #12
    ldr     r6, =DESC_PAGE_RX
    orr     r2, r2, r6
    map_both boot_l3, 12, 9
    map_both boot_l2, 21, 9
    map_both boot_root, 30, 2

    // The image: one level-3 table for its 2 MiB slot, every section with its own permissions.
    ldr     r5, =hyp_l3_image
    add     r5, r5, r9
    orr     r2, r5, #DESC_TABLE
    ldr     r0, =IMAGE_L2_SLOT
    strd    r2, r3, [r4, r0]
    ldr     r0, =__image_start          // virtual address of the next page
    ldr     r4, =DESC_PAGE_RX
    ldr     r6, =__text_end
    bl      map_pages
    ldr     r4, =DESC_PAGE_RO
    ldr     r3, =DESC_XN_HIGH
    ldr     r6, =__rodata_end
    bl      map_pages
    ldr     r4, =DESC_PAGE_RW
    ldr     r6, =__image_end
    bl      map_pages

    // BSS and tables were written past the caches: drop whatever lines an earlier stage left for them.
    ldr     r0, =__bss_start
    ldr     r1, =__stacks_start
    add     r0, r0, r9
    add     r1, r1, r9
    mrc     p15, 0, r2, c0, c0, 1       // CTR.DminLine: words in the shortest line, as a power of two
    ubfx    r2, r2, #16, #4
    mov     r3, #4
    lsl     r3, r3, r2
3:  mcr     p15, 0, r0, c7, c6, 1       // DCIMVAC
    add     r0, r0, r3
    cmp     r0, r1
    blo     3b
    dsb     sy

    bl      enable_mmu

    ldr     sp, =__stacks_start + 0x1000 + 0xb000
    mov     r0, r8
    ldr     r1, =__image_start
    add     r1, r1, r9
    mov     r2, r10
    mov     r3, r7
    mov     r11, #0                     // end of the frame chain
    ldr     lr, =halt
    ldr     pc, =hyp_main

// Maps pages from virtual address r0 up to r6 with attributes r4 (low word) and r3 (high word) into the table at r5.
// Clobbers r0-r2.
map_pages:
    cmp     r0, r6
    bxhs    lr
    ubfx    r1, r0, #12, #9
    add     r1, r5, r1, lsl #3
    add     r2, r0, r9
    orr     r2, r2, r4
    strd    r2, r3, [r1]
    add     r0, r0, #0x1000
    b       map_pages

    .ltorg

// What every CPU does first: coherency, the image's offset into r9, and the check for the long descriptor format.
// Clobbers r0.
cpu_setup:
    // A CPU's caches are coherent with the others' only with ACTLR.SMP set; firmware may have set it and barred writes.
    mrc     p15, 0, r0, c1, c0, 1
    orr     r0, r0, #(1 << 6)
    mcr     p15, 0, r0, c1, c0, 1
    isb
    adr     r9, base
    ldr     r0, base
    sub     r9, r9, r0
    // ID_MMFR0.VMSA >= 5 is LPAE. Without it there is no way on, and no way to reach a console.
    mrc     p15, 0, r0, c0, c1, 4
    and     r0, r0, #0xf
    cmp     r0, #5
    bxhs    lr
halt:
    wfi
    b       halt

    .align  2
base:
    .word   base

// Turns the MMU on with the boot root, moves to the virtual address of the caller, and changes to the root that stays.
// Needs r9 (offset) and r10 (CPSR). Clobbers r0-r6.
enable_mmu:
    ldr     r0, =boot_root
    add     r0, r0, r9
    ldr     r4, =hyp_root
    add     r4, r4, r9
    mov     r1, #0
    ldr     r2, =MAIR0_VALUE
    ldr     r3, =TCR_VALUE
    sub     lr, lr, r9                  // return to the virtual address
    mcr     p15, 0, r1, c7, c5, 0       // ICIALLU
    mcr     p15, 0, r1, c7, c5, 6       // BPIALL
    and     r5, r10, #0x1f
    cmp     r5, #MODE_HYP
    bne     4f

    mcr     p15, 4, r2, c10, c2, 0      // HMAIR0
    mcr     p15, 4, r1, c10, c2, 1      // HMAIR1
    mcr     p15, 4, r3, c2, c0, 2       // HTCR
    mcrr    p15, 4, r0, r1, c2          // HTTBR
    mcr     p15, 4, r1, c8, c7, 0       // TLBIALLH
    dsb     sy
    isb
    ldr     r5, =HSCTLR_VALUE
    ldr     r6, =1f
    b       mmu_on

4:  mcr     p15, 0, r2, c10, c2, 0      // MAIR0
    mcr     p15, 0, r1, c10, c2, 1      // MAIR1
    mcr     p15, 0, r3, c2, c0, 2       // TTBCR
    mcrr    p15, 0, r0, r1, c2          // TTBR0
    mcr     p15, 0, r1, c8, c7, 0       // TLBIALL
    dsb     sy
    isb
    ldr     r2, =pl1_vectors
    mcr     p15, 0, r2, c12, c0, 0      // VBAR
    mrc     p15, 0, r5, c1, c0, 0       // SCTLR
    ldr     r2, =SCTLR_SET
    orr     r5, r5, r2
    ldr     r2, =SCTLR_CLEAR
    bic     r5, r5, r2
    ldr     r6, =2f
    b       mmu_on_pl1

    .ltorg

// Runs under the boot root, and so must lie in one page (linker.ld).
    .global mmu_on, mmu_on_end
mmu_on:
    mcr     p15, 4, r5, c1, c0, 0       // HSCTLR
    isb
    bx      r6
1:  mcrr    p15, 4, r4, r1, c2          // HTTBR, from the virtual address
    isb
    mcr     p15, 4, r1, c8, c7, 0       // TLBIALLH
    dsb     sy
    isb
    ldr     r0, =hyp_vectors            // before anything may fault; init_cpu (arch/src/controls.rs) chooses for good
    mcr     p15, 4, r0, c12, c0, 0      // HVBAR
    isb
    bx      lr

mmu_on_pl1:
    mcr     p15, 0, r5, c1, c0, 0       // SCTLR
    isb
    bx      r6
2:  mcrr    p15, 0, r4, r1, c2          // TTBR0, from the virtual address
    isb
    mcr     p15, 0, r1, c8, c7, 0       // TLBIALL
    dsb     sy
    isb
    bx      lr
mmu_on_end:

// What pl1_vectors (secure.S) lead to, on a CPU that is not in HYP and lives only to say so. A probe that found nothing goes
// on at probe_failed (arch/src/vectors.S); everything else is reported.
pl1_undefined:
    mov     r0, #1
    b       pl1_report
pl1_call:
    mov     r0, #2
    b       pl1_report
pl1_prefetch_abort:
    mov     r0, #3
    b       pl1_report
pl1_data_abort:
    sub     lr, lr, #8
    ldr     r12, =probe_instruction
    cmp     lr, r12
    ldreq   lr, =probe_failed
    movseq  pc, lr
    mov     r0, #4
pl1_report:
    ldr     sp, =__fault_stack_start + 0x1000 + 0x8000
    mov     r1, lr
    bl      pl1_fault_report

    .ltorg

// Translation tables of the hypervisor's own stage 1 that exist before there is an allocator.
    .section .tables, "aw", %nobits
    .align  12
    .global hyp_root, hyp_l2_low, hyp_l3_image
boot_root:          .space 4096         // root while the MMU is being turned on, and its tables
boot_l2:            .space 4096
boot_l3:            .space 4096
hyp_root:           .space 4096
hyp_l2_low:         .space 4096         // virtual addresses below 1 GiB
hyp_l3_image:       .space 4096
