// The PE32 header (Microsoft's PE format) behind the zImage header, and the way from UEFI firmware to `entry`. The flat file
// is the PE file: an offset in it is an offset in memory.
//
// Entered by firmware with its MMU and caches on in an identity map, r0 = image handle, r1 = system table. boot/efi runs in
// that world, and comes back with boot services ended or with what the firmware is to be told.

    .equ PE_ALIGNMENT,   0x200          // of sections in the file, and of the first one in memory

    .section .boot.header
pe_header:
    .ascii  "PE\0\0"
    .hword  0x01c2                      // ARM, the only 32-bit one that firmware takes
    .hword  1                           // sections
    .word   0, 0, 0                     // time, symbols
    .hword  sections - optional_header
    .hword  0x0102                      // executable, 32-bit; may be moved

optional_header:
    .hword  0x010b                      // PE32
    .byte   0, 0                        // linker version
    .word   __pe_file_size              // code
    .word   0                           // initialized data
    .word   __pe_bss_size               // uninitialized data
    .word   efi_entry - _start
    .word   PE_ALIGNMENT                // first code
    .word   0                           // first data
    .word   0                           // preferred address: none
    .word   PE_ALIGNMENT                // of sections in memory
    .word   PE_ALIGNMENT                // in the file
    .hword  0, 0, 0, 0, 0, 0            // versions
    .word   0
    .word   __image_size
    .word   PE_ALIGNMENT                // size of the headers
    .word   0                           // check sum
    .hword  10                          // EFI application
    .hword  0
    .word   0, 0, 0, 0                  // stack, heap
    .word   0
    .word   6                           // data directories, all empty
    .fill   6, 8, 0

sections:
    .ascii  ".krypton"
    .word   __pe_size                   // in memory
    .word   PE_ALIGNMENT                // where
    .word   __pe_file_size              // in the file
    .word   PE_ALIGNMENT                // where
    .word   0, 0
    .hword  0, 0
    .word   0xe0000020                  // code that is executed, read and written

    .org    PE_ALIGNMENT
efi_entry:
    push    {r3-r11, lr}                // a multiple of 8 bytes
    adr     r2, efi_entry
    sub     r2, r2, #PE_ALIGNMENT       // _start
    ldr     r3, =__image_size
    ldr     r12, =__efi_offset
    add     r12, r12, r2
    blx     r12                         // boot/efi/src/start.S
    cmp     r0, #0
    popne   {r3-r11, pc}

    // Boot services are over, what matters is in memory: turn MMU and data cache off in the identity map.
    cpsid   aif
    mov     r2, r1                      // the device tree
    mov     r0, #0
    mrc     p15, 4, r1, c1, c0, 0       // HSCTLR
    bic     r1, r1, #0x5                // C, M
    mcr     p15, 4, r1, c1, c0, 0
    isb
    mcr     p15, 4, r0, c8, c7, 0       // TLBIALLH
    mcr     p15, 0, r0, c7, c5, 0       // ICIALLU
    mcr     p15, 0, r0, c7, c5, 6       // BPIALL
    dsb     sy
    isb
    mvn     r1, #0
    ldr     r12, =__entry_offset
    adr     r3, efi_entry
    sub     r3, r3, #PE_ALIGNMENT
    add     pc, r12, r3
    .ltorg
