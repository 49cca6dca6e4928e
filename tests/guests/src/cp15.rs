//! System registers by name, as the tests need them (DDI 0406C.d B4.1).

use core::arch::asm;

/// Declares a reader and a writer per 32-bit coprocessor 15 register.
macro_rules! registers {
    ($($read:ident, $write:ident: $op1:literal, $crn:ident, $crm:ident, $op2:literal;)*) => {
        $(
            #[inline(always)]
            pub fn $read() -> u32 {
                let value: u32;
                // SAFETY: a register read has no effect on memory.
                unsafe {
                    asm!(concat!("mrc p15, ", $op1, ", {}, ", stringify!($crn), ", ", stringify!($crm), ", ", $op2),
                         out(reg) value, options(nostack, preserves_flags));
                }
                value
            }

            #[inline(always)]
            pub fn $write(value: u32) {
                // SAFETY: callers set registers of their own regime; not `nomem`, so that the compiler keeps memory
                // accesses on their side of the write.
                unsafe {
                    asm!(concat!("mcr p15, ", $op1, ", {}, ", stringify!($crn), ", ", stringify!($crm), ", ", $op2),
                         in(reg) value, options(nostack, preserves_flags));
                }
            }
        )*
    };
}

registers! {
    midr, write_midr: 0, c0, c0, 0;
    mpidr, write_mpidr: 0, c0, c0, 5;
    sctlr, write_sctlr: 0, c1, c0, 0;
    actlr, write_actlr: 0, c1, c0, 1;
    cpacr, write_cpacr: 0, c1, c0, 2;
    ttbcr, write_ttbcr: 0, c2, c0, 2;
    dfsr, write_dfsr: 0, c5, c0, 0;
    ifsr, write_ifsr: 0, c5, c0, 1;
    dfar, write_dfar: 0, c6, c0, 0;
    ifar, write_ifar: 0, c6, c0, 2;
    pmcr, write_pmcr: 0, c9, c12, 0;
    pmcntenset, write_pmcntenset: 0, c9, c12, 1;
    pmcntenclr, write_pmcntenclr: 0, c9, c12, 2;
    pmovsr, write_pmovsr: 0, c9, c12, 3;
    pmselr, write_pmselr: 0, c9, c12, 5;
    pmccntr, write_pmccntr: 0, c9, c13, 0;
    pmxevtyper, write_pmxevtyper: 0, c9, c13, 1;
    pmxevcntr, write_pmxevcntr: 0, c9, c13, 2;
    pmintenset, write_pmintenset: 0, c9, c14, 1;
    pmintenclr, write_pmintenclr: 0, c9, c14, 2;
    vbar, write_vbar: 0, c12, c0, 0;
    fcseidr, write_fcseidr: 0, c13, c0, 0;
    tpidrurw, write_tpidrurw: 0, c13, c0, 2;
    tpidrprw, set_cpu_index: 0, c13, c0, 4;
    cntfrq, write_cntfrq: 0, c14, c0, 0;
    cntkctl, write_cntkctl: 0, c14, c1, 0;
    cntp_tval, write_cntp_tval: 0, c14, c2, 0;
    cntp_ctl, write_cntp_ctl: 0, c14, c2, 1;
    cntv_tval, write_cntv_tval: 0, c14, c3, 0;
    cntv_ctl, write_cntv_ctl: 0, c14, c3, 1;
}

/// Declares a reader and a writer per 64-bit coprocessor 15 register.
macro_rules! registers64 {
    ($($read:ident, $write:ident: $op1:literal, $crm:ident;)*) => {
        $(
            #[inline(always)]
            pub fn $read() -> u64 {
                let (low, high): (u32, u32);
                // SAFETY: a register read has no effect on memory.
                unsafe {
                    asm!(concat!("mrrc p15, ", $op1, ", {}, {}, ", stringify!($crm)),
                         out(reg) low, out(reg) high, options(nostack, preserves_flags));
                }
                u64::from(high) << 32 | u64::from(low)
            }

            #[inline(always)]
            pub fn $write(value: u64) {
                // SAFETY: as for the 32-bit registers.
                unsafe {
                    asm!(concat!("mcrr p15, ", $op1, ", {}, {}, ", stringify!($crm)),
                         in(reg) value as u32, in(reg) (value >> 32) as u32, options(nostack, preserves_flags));
                }
            }
        )*
    };
}

registers64! {
    ttbr0, write_ttbr0: 0, c2;
    cntpct, write_cntpct: 0, c14;
    cntvct, write_cntvct: 1, c14;
    cntp_cval, write_cntp_cval: 2, c14;
    cntv_cval, write_cntv_cval: 3, c14;
}

/// The index that `smp` gave this CPU; TPIDRPRW holds it.
#[inline(always)]
pub fn cpu_index() -> usize {
    tpidrprw() as usize
}

#[inline(always)]
pub fn isb() {
    // SAFETY: a barrier.
    unsafe { asm!("isb", options(nostack, preserves_flags)) }
}

#[inline(always)]
pub fn dsb() {
    // SAFETY: a barrier.
    unsafe { asm!("dsb", options(nostack, preserves_flags)) }
}

#[inline(always)]
pub fn wfi() {
    // SAFETY: waits; `dsb` orders what should be visible before the wait (DDI 0406C.d B1.8.14).
    unsafe { asm!("dsb", "wfi", options(nostack, preserves_flags)) }
}

#[inline(always)]
pub fn wfe() {
    // SAFETY: waits.
    unsafe { asm!("wfe", options(nostack, preserves_flags)) }
}

/// Invalidates this CPU's unified TLB after a stage 1 change.
pub fn flush_tlb() {
    dsb();
    // SAFETY: forgets cached translations only.
    unsafe { asm!("mcr p15, 0, {}, c8, c7, 0", in(reg) 0, options(nostack, preserves_flags)) }
    dsb();
    isb();
}

/// Cleans and invalidates the line at `address` to the point of coherency (DCCIMVAC).
pub fn clean_and_invalidate(address: u32) {
    dsb();
    // SAFETY: writes back what is there.
    unsafe { asm!("mcr p15, 0, {}, c7, c14, 1", in(reg) address, options(nostack, preserves_flags)) }
    dsb();
}

#[inline(always)]
pub fn cpsr() -> u32 {
    let value: u32;
    // SAFETY: reads the status register.
    unsafe { asm!("mrs {}, cpsr", out(reg) value, options(nomem, nostack, preserves_flags)) }
    value
}

/// Takes interrupts from here on.
#[inline(always)]
pub fn enable_interrupts() {
    // SAFETY: the vectors are installed since boot.
    unsafe { asm!("cpsie i", options(nostack, preserves_flags)) }
}

/// Holds interrupts back from here on.
#[inline(always)]
pub fn disable_interrupts() {
    // SAFETY: masking is always sound.
    unsafe { asm!("cpsid i", options(nostack, preserves_flags)) }
}
