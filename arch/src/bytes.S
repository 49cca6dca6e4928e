// Copying and clearing memory, for the compiler (the run-time ABI's names, IHI 0043 4.3.3 and 4.3.4) and for frame.rs.
//
// Strong definitions in place of compiler_builtins' weak ones, which take three to four instructions a word. All memory
// is Normal and HSCTLR.A is 0, so words need no alignment (DDI 0406C.d A3.2.1); LDM and STM do.

    .syntax unified
    .arch armv7-a
    .arm

    .section .text.bytes, "ax"
    .align  5
// r0 = to, r1 = from, r2 = length; upwards. r0 is kept for memcpy.
    .global copy_shared
    .type   copy_shared, %function
    .global memcpy
    .type   memcpy, %function
    .global __aeabi_memcpy
    .type   __aeabi_memcpy, %function
    .global __aeabi_memcpy4
    .type   __aeabi_memcpy4, %function
    .global __aeabi_memcpy8
    .type   __aeabi_memcpy8, %function
copy_shared:
memcpy:
__aeabi_memcpy:
    orr     r3, r0, r1
    tst     r3, #3
    bne     9f
__aeabi_memcpy4:
__aeabi_memcpy8:
    mov     r12, r0
1:  subs    r2, r2, #32
    blo     3f
    push    {r4-r10}
    subs    r2, r2, #96
    blo     2f
10: ldmia   r1!, {r3-r10}               // 128 bytes
    stmia   r12!, {r3-r10}
    ldmia   r1!, {r3-r10}
    stmia   r12!, {r3-r10}
    ldmia   r1!, {r3-r10}
    stmia   r12!, {r3-r10}
    ldmia   r1!, {r3-r10}
    stmia   r12!, {r3-r10}
    subs    r2, r2, #128
    bhs     10b
2:  adds    r2, r2, #96                 // what is left, without the next 32 bytes: none when it does not carry
    bcc     11f
12: ldmia   r1!, {r3-r10}
    stmia   r12!, {r3-r10}
    subs    r2, r2, #32
    bhs     12b
11: pop     {r4-r10}
3:  lsls    r3, r2, #28                 // C: 16 bytes, N: 8 bytes
    bpl     7f
    ldr     r3, [r1], #4
    str     r3, [r12], #4
    ldr     r3, [r1], #4
    str     r3, [r12], #4
7:  bcc     8f
    ldr     r3, [r1], #4
    str     r3, [r12], #4
    ldr     r3, [r1], #4
    str     r3, [r12], #4
    ldr     r3, [r1], #4
    str     r3, [r12], #4
    ldr     r3, [r1], #4
    str     r3, [r12], #4
8:  tst     r2, #4
    ldrne   r3, [r1], #4
    strne   r3, [r12], #4
4:  tst     r2, #3
    bxeq    lr
    lsls    r2, r2, #31                 // C: 2 bytes, N: 1 byte
    ldrhcs  r3, [r1], #2
    strhcs  r3, [r12], #2
    ldrbmi  r3, [r1]
    strbmi  r3, [r12]
    bx      lr
9:  mov     r12, r0
    subs    r2, r2, #4
    blo     4b
6:  ldr     r3, [r1], #4
    str     r3, [r12], #4
    subs    r2, r2, #4
    bhs     6b
    b       4b

// r0 = to, r1 = byte, r2 = length; r0 is kept.
    .global memset
    .type   memset, %function
memset:
    push    {r0, lr}
    mov     r3, r1
    mov     r1, r2
    mov     r2, r3
    bl      __aeabi_memset
    pop     {r0, pc}

// r0 = to, r1 = length, r2 = byte.
    .global __aeabi_memset
    .type   __aeabi_memset, %function
    .global __aeabi_memset4
    .type   __aeabi_memset4, %function
    .global __aeabi_memset8
    .type   __aeabi_memset8, %function
    .global __aeabi_memclr
    .type   __aeabi_memclr, %function
    .global __aeabi_memclr4
    .type   __aeabi_memclr4, %function
    .global __aeabi_memclr8
    .type   __aeabi_memclr8, %function
__aeabi_memclr:
__aeabi_memclr4:
__aeabi_memclr8:
    mov     r2, #0
    b       1f
__aeabi_memset:
__aeabi_memset4:
__aeabi_memset8:
    and     r2, r2, #0xff
    orr     r2, r2, r2, lsl #8
    orr     r2, r2, r2, lsl #16
1:  tst     r0, #3
    mov     r3, r2
    bne     5f
    subs    r1, r1, #16
    blo     3f
2:  stmia   r0!, {r2, r3}
    stmia   r0!, {r2, r3}
    subs    r1, r1, #16
    bhs     2b
3:  lsls    r12, r1, #29                // C: 8 bytes, N: 4 bytes
    stmiacs r0!, {r2, r3}
    strmi   r2, [r0], #4
4:  lsls    r1, r1, #31                 // C: 2 bytes, N: 1 byte
    strhcs  r2, [r0], #2
    strbmi  r2, [r0]
    bx      lr
5:  subs    r1, r1, #4
    blo     4b
6:  str     r2, [r0], #4
    subs    r1, r1, #4
    bhs     6b
    b       4b

// r0 = a page, which becomes all zeroes: 256 bytes a turn.
    .global clear_page
    .type   clear_page, %function
clear_page:
    push    {r4-r9}
    mov     r1, #0
    mov     r2, #0
    mov     r3, #0
    mov     r4, #0
    mov     r5, #0
    mov     r6, #0
    mov     r7, #0
    mov     r8, #0
    mov     r9, #16
1:  stmia   r0!, {r1-r8}
    stmia   r0!, {r1-r8}
    stmia   r0!, {r1-r8}
    stmia   r0!, {r1-r8}
    stmia   r0!, {r1-r8}
    stmia   r0!, {r1-r8}
    stmia   r0!, {r1-r8}
    stmia   r0!, {r1-r8}
    subs    r9, r9, #1
    bne     1b
    pop     {r4-r9}
    bx      lr
