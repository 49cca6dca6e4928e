//! Access to single registers of the loaded guest: by the number that an instruction has, and for exception injection.

#[cfg(target_arch = "arm")]
use core::arch::asm;

use super::GuestContext;
use crate::cp15;
use crate::syndrome::psr;

/// Registers of the loaded guest that exception injection needs.
#[derive(Clone, Copy, Debug)]
pub struct ExceptionState {
    /// SCTLR.
    pub sctlr: u32,
    /// VBAR.
    pub vbar: u32,
    /// TTBCR. EAE selects the fault status format.
    pub ttbcr: u32,
}

impl ExceptionState {
    /// Reads the registers of the loaded guest.
    pub fn read() -> Self {
        Self {
            sctlr: cp15::Sctlr::read(),
            vbar: cp15::Vbar::read(),
            ttbcr: cp15::Ttbcr::read(),
        }
    }
}

/// Sets the banked LR and SPSR of an exception mode in the loaded guest.
#[cfg(target_arch = "arm")]
pub fn set_exception_return(mode: u32, lr: u32, spsr: u32) {
    // SAFETY: banked registers of guest modes; the hypervisor never uses them.
    unsafe {
        match mode {
            psr::MODE_ABT => {
                asm!("msr lr_abt, {}", in(reg) lr, options(nomem, nostack, preserves_flags));
                asm!("msr spsr_abt, {}", in(reg) spsr, options(nomem, nostack, preserves_flags));
            }
            _ => {
                asm!("msr lr_und, {}", in(reg) lr, options(nomem, nostack, preserves_flags));
                asm!("msr spsr_und, {}", in(reg) spsr, options(nomem, nostack, preserves_flags));
            }
        }
    }
}

/// Records LR and SPSR for tests.
#[cfg(not(target_arch = "arm"))]
pub fn set_exception_return(mode: u32, lr: u32, spsr: u32) {
    crate::host::cells::set_exception_return(mode, lr, spsr);
}

/// Sets the loaded guest's data fault registers.
pub fn set_data_fault(dfsr: u32, dfar: u32) {
    // SAFETY: PL1 state only.
    unsafe {
        cp15::Dfsr::write(dfsr);
        cp15::Dfar::write(dfar);
    }
}

/// Sets the loaded guest's prefetch fault registers.
pub fn set_fetch_fault(ifsr: u32, ifar: u32) {
    // SAFETY: PL1 state only.
    unsafe {
        cp15::Ifsr::write(ifsr);
        cp15::Ifar::write(ifar);
    }
}

/// Returns general register `number`, 0 to 14, as seen by the guest's current mode.
///
/// r0 to r7 are in the context, as are r8 to r12 except in FIQ mode. r13 and r14 are banked by mode and in the hardware
/// (DDI 0406C.d B1.3.2). Register 15 reads as 0.
#[inline(always)]
pub fn register(context: &GuestContext, number: u8) -> u32 {
    let mode = context.cpsr & psr::MODE;
    match number {
        0..=12 if number < 8 || mode != psr::MODE_FIQ => {
            context.r.get(usize::from(number)).copied().unwrap_or(0)
        }
        8..=12 => banked_register(mode, number),
        14 if mode == psr::MODE_USR || mode == psr::MODE_SYS => context.lr_usr,
        13 | 14 => banked_register(mode, number),
        _ => 0,
    }
}

/// Sets general register `number` as seen by the guest's current mode. Ignores writes to register 15.
#[inline(always)]
pub fn set_register(context: &mut GuestContext, number: u8, value: u32) {
    let mode = context.cpsr & psr::MODE;
    match number {
        0..=12 if number < 8 || mode != psr::MODE_FIQ => {
            if let Some(register) = context.r.get_mut(usize::from(number)) {
                *register = value;
            }
        }
        8..=12 => set_banked_register(mode, number, value),
        14 if mode == psr::MODE_USR || mode == psr::MODE_SYS => context.lr_usr = value,
        13 | 14 => set_banked_register(mode, number, value),
        _ => {}
    }
}

#[cfg(target_arch = "arm")]
macro_rules! banked_access {
    ($mode:expr, $number:expr, $body:ident) => {
        match ($mode, $number) {
            (psr::MODE_FIQ, 8) => $body!("r8_fiq"),
            (psr::MODE_FIQ, 9) => $body!("r9_fiq"),
            (psr::MODE_FIQ, 10) => $body!("r10_fiq"),
            (psr::MODE_FIQ, 11) => $body!("r11_fiq"),
            (psr::MODE_FIQ, 12) => $body!("r12_fiq"),
            (psr::MODE_FIQ, 13) => $body!("sp_fiq"),
            (psr::MODE_FIQ, _) => $body!("lr_fiq"),
            (psr::MODE_IRQ, 13) => $body!("sp_irq"),
            (psr::MODE_IRQ, _) => $body!("lr_irq"),
            (psr::MODE_SVC, 13) => $body!("sp_svc"),
            (psr::MODE_SVC, _) => $body!("lr_svc"),
            (psr::MODE_ABT, 13) => $body!("sp_abt"),
            (psr::MODE_ABT, _) => $body!("lr_abt"),
            (psr::MODE_UND, 13) => $body!("sp_und"),
            (psr::MODE_UND, _) => $body!("lr_und"),
            _ => $body!("sp_usr"),
        }
    };
}

#[cfg(target_arch = "arm")]
fn banked_register(mode: u32, number: u8) -> u32 {
    let value: u32;
    macro_rules! read {
        ($name:literal) => {
            // SAFETY: a banked register of a guest's mode (DDI 0406C.d B9.2.3).
            unsafe { asm!(concat!("mrs {}, ", $name), out(reg) value, options(nomem, nostack, preserves_flags)) }
        };
    }
    banked_access!(mode, number, read);
    value
}

#[cfg(target_arch = "arm")]
fn set_banked_register(mode: u32, number: u8, value: u32) {
    macro_rules! write {
        ($name:literal) => {
            // SAFETY: a banked register of a guest's mode (DDI 0406C.d B9.2.3).
            unsafe { asm!(concat!("msr ", $name, ", {}"), in(reg) value, options(nomem, nostack, preserves_flags)) }
        };
    }
    banked_access!(mode, number, write);
}

#[cfg(not(target_arch = "arm"))]
fn banked_register(_mode: u32, _number: u8) -> u32 {
    0
}

#[cfg(not(target_arch = "arm"))]
fn set_banked_register(_mode: u32, _number: u8, _value: u32) {}
