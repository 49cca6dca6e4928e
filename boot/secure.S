// From secure SVC to HYP, for boot loaders and boot monitors that leave it to the image.
//
// enter_hyp is called by each CPU first thing, MMU off. It returns in HYP, non-secure, or as it came if the CPU is not in
// secure SVC, lacks the extensions, or is none whose GIC is known from CBAR: Cortex-A7 and A15 (DDI 0438 4.3.50).
//
// What it leaves behind: all interrupts in group 1; coprocessors and ACTLR.SMP open to non-secure code (NSACR); the bits of
// ACTLR that a Cortex-A15 needs and only secure code may set (arch/src/errata.rs, DDI 0438 4.3.27); a monitor
// that writes r0 to GICD_SGIR from the secure side, since CPUs that wait in a secure pen hear no other, or with r1 not 0 to
// CNTFRQ.
//
// Needs r10 (CPSR). Clobbers r0-r5, r11, lr.

    .arch_extension sec

    .equ MODE_SVC,       0x13
    .equ MODE_MON,       0x16
    .equ GICD_CTLR,      0x000
    .equ GICD_TYPER,     0x004
    .equ GICD_IGROUPR,   0x080
    .equ GICD_SGIR,      0xf00
    .equ GICC_CTLR,      0x000
    .equ GICC_PMR,       0x004

    .section .boot.text, "ax"
enter_hyp:
    mov     r11, lr                     // HYP has no LR of its own, and SVC's is banked
    and     r0, r10, #0x1f
    cmp     r0, #MODE_SVC
    bne     9f
    mrc     p15, 0, r0, c0, c1, 1       // ID_PFR1: Security Extensions and Virtualization Extensions
    tst     r0, #0x00f0
    beq     9f
    tst     r0, #0xf000
    beq     9f
    mrc     p15, 0, r0, c0, c0, 0       // MIDR: implementer and part
    ldr     r1, =0xff00fff0
    and     r0, r0, r1
    ldr     r1, =0x4100c070             // Cortex-A7; A15 has one bit more
    eor     r0, r0, r1
    bics    r0, r0, #0x80
    bne     9f
    mrc     p15, 4, r3, c15, c0, 0      // CBAR; bits 7:0 are address bits 39:32
    tst     r3, #0xff
    bne     9f
    lsrs    r3, r3, #15
    beq     9f
    lsl     r3, r3, #15

    // Non-secure code may not read SCR: the undefined instruction sets the NS bit in r2 instead.
    adr     r1, secure_vectors
    mcr     p15, 0, r1, c12, c0, 0      // VBAR
    mrc     p15, 0, r0, c1, c0, 0
    bic     r0, r0, #(1 << 13)          // SCTLR.V: vectors where VBAR says
    mcr     p15, 0, r0, c1, c0, 0
    isb
    mov     r2, #0
    mrc     p15, 0, r2, c1, c1, 0       // SCR
    tst     r2, #1
    bne     9f

    mrc     p15, 0, r0, c1, c1, 2       // NSACR: coprocessors 0-13, Advanced SIMD, all of VFP, ACTLR.SMP
    ldr     r1, =0x00043fff
    orr     r0, r0, r1
    bic     r0, r0, #0x0000c000
    mcr     p15, 0, r0, c1, c1, 2

    mrc     p15, 0, r1, c0, c0, 0       // MIDR
    tst     r1, #0x80                   // Cortex-A7 needs none of these bits
    beq     2f
    mrc     p15, 0, r0, c1, c0, 1       // ACTLR
    orr     r0, r0, #(1 << 0)           // ICIALLU empties the branch predictor
    tst     r1, #0x00f00000             // up to r0p4: errata 773022, 774769
    orreq   r0, r0, #(1 << 1)
    orreq   r0, r0, #(1 << 25)
    mcr     p15, 0, r0, c1, c0, 1
2:
    add     r4, r3, #0x1000             // distributor
    ldr     r0, [r4, #GICD_TYPER]
    and     r0, r0, #0x1f
    mvn     r1, #0
    add     r5, r4, #GICD_IGROUPR
1:  str     r1, [r5], #4
    subs    r0, r0, #1
    bpl     1b
    add     r5, r3, #0x2000             // CPU interface: non-secure code may set its half of the priorities
    mov     r0, #0xff
    str     r0, [r5, #GICC_PMR]
    mov     r0, #3                      // both groups: 0 is what wakes a CPU that still waits in secure state
    str     r0, [r5, #GICC_CTLR]
    str     r0, [r4, #GICD_CTLR]
    dsb     sy

    cps     #MODE_MON
    mov     sp, r4                      // for monitor_call
    adr     r1, secure_vectors
    mcr     p15, 0, r1, c12, c0, 1      // MVBAR
    ldr     r0, =0x00000131             // SCR: HCE, AW, FW, NS
    mcr     p15, 0, r0, c1, c1, 0
    isb
    ldr     r0, =0x30c50878             // HSCTLR: MMU and caches off
    mcr     p15, 4, r0, c1, c0, 0
    movw    r0, #(0x1c0 | MODE_HYP)     // A, I, F
    msr     spsr_cxsf, r0
    mov     lr, r11
    movs    pc, lr
9:  bx      r11

// At VBAR for the look at SCR, at MVBAR for good. An exception that cannot be stays here.
    .align  5
secure_vectors:
    b       .
    b       secure_undefined
    b       monitor_call
    b       .
    b       .
    b       .
    b       .
    b       .

// At VBAR of a CPU that is not in HYP, once its MMU is on (head.S). Here, as both tables want the same alignment.
pl1_vectors:
    b       .
    b       pl1_undefined
    b       pl1_call
    b       pl1_prefetch_abort
    b       pl1_data_abort
    b       .
    b       .
    b       .

secure_undefined:
    mov     r2, #1
    movs    pc, lr

monitor_call:
    cmp     r1, #0
    streq   r0, [sp, #GICD_SGIR]
    mcrne   p15, 0, r0, c14, c0, 0      // CNTFRQ
    dsb     sy
    movs    pc, lr

    .ltorg
