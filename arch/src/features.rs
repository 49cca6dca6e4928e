//! Optional parts of the processor, by its identification registers.
//!
//! A processor with the virtualization extensions has LPAE, the generic timer and division; whether it has VFP, with how
//! many registers, performance monitors and trace is its maker's choice (DDI 0406C.d A2.6, B7.1, C12.1, C1.4). Nothing of
//! that may be touched before it was asked for here: what is not there is undefined in HYP too.

use core::sync::atomic::{AtomicU8, Ordering};

use crate::barrier::isb;
use crate::cp15;

/// Coprocessors 10 and 11 in HCPTR (DDI 0406C.d B4.1.61).
pub(crate) const HCPTR_VFP: u32 = 3 << 10;
/// The same in CPACR: all accesses (DDI 0406C.d B4.1.40).
const CPACR_VFP: u32 = 0xF << 20;

/// The floating-point registers that a processor has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Vfp {
    /// None, or secure firmware keeps them to itself.
    None,
    /// D0 to D15.
    Sixteen,
    /// D0 to D31.
    ThirtyTwo,
}

impl Vfp {
    /// The result of CPACR, after all was asked of it, and MVFR0 (DDI 0406C.d B4.1.40; B6.1.39, `A_SIMD registers`).
    fn by(cpacr: u32, mvfr0: impl FnOnce() -> u32) -> Self {
        if cpacr & CPACR_VFP != CPACR_VFP {
            return Self::None;
        }
        match mvfr0() & 0xF {
            0 => Self::None,
            1 => Self::Sixteen,
            _ => Self::ThirtyTwo,
        }
    }
}

/// The boot CPU's [`Vfp`]; a CPU with another one is not let in.
static VFP: AtomicU8 = AtomicU8::new(Vfp::None as u8);

/// Returns whether guests have D0 to D31, as nearly always.
#[cfg(target_arch = "arm")]
#[inline(always)]
pub(crate) fn has_all_vfp() -> bool {
    VFP.load(Ordering::Relaxed) == Vfp::ThirtyTwo as u8 // written before there are guests
}

/// Returns the registers that guests have.
pub fn vfp() -> Vfp {
    match VFP.load(Ordering::Relaxed) {
        n if n == Vfp::ThirtyTwo as u8 => Vfp::ThirtyTwo,
        n if n == Vfp::Sixteen as u8 => Vfp::Sixteen,
        _ => Vfp::None,
    }
}

/// Finds out what the boot CPU has. Before that, there is no VFP.
pub fn note() {
    VFP.store(vfp_here() as u8, Ordering::Relaxed);
}

/// Returns the registers that this CPU has.
///
/// CPACR's fields of coprocessors that do not exist, or that NSACR bars, stay zero; only then may MVFR0 be read.
pub fn vfp_here() -> Vfp {
    let (hcptr, cpacr) = (cp15::Hcptr::read(), cp15::Cpacr::read());
    // SAFETY: opens coprocessors for the moment; no guest runs.
    unsafe {
        cp15::Hcptr::write(hcptr & !HCPTR_VFP);
        cp15::Cpacr::write(cpacr | CPACR_VFP);
    }
    isb();
    let vfp = Vfp::by(cp15::Cpacr::read(), mvfr0);
    // SAFETY: puts back what was there.
    unsafe {
        cp15::Cpacr::write(cpacr);
        cp15::Hcptr::write(hcptr);
    }
    isb();
    vfp
}

#[cfg(target_arch = "arm")]
fn mvfr0() -> u32 {
    let value;
    // SAFETY: VFP is there and open to HYP; the register reads whatever FPEXC says (DDI 0406C.d B1.11.3).
    unsafe {
        core::arch::asm!(".fpu vfpv4", "vmrs {}, mvfr0", out(reg) value, options(nomem, nostack, preserves_flags));
    }
    value
}

/// Returns a Cortex-A15's.
#[cfg(not(target_arch = "arm"))]
fn mvfr0() -> u32 {
    0x1011_0222
}

/// Returns whether there are performance monitors as the virtualization extensions have them: version 2
/// (`ID_DFR0[27:24]`, DDI 0406C.d B4.1.82).
pub fn has_monitors() -> bool {
    monitors_in(cp15::IdDfr0::read())
}

const fn monitors_in(id_dfr0: u32) -> bool {
    // 0xF: monitors of another architecture.
    matches!(id_dfr0 >> 24 & 0xF, 2..=0xE)
}

/// Returns whether trace registers can be reached by coprocessor 14 (`ID_DFR0[15:12]`).
#[cfg(target_arch = "arm")]
pub(crate) fn has_trace() -> bool {
    cp15::IdDfr0::read() >> 12 & 0xF != 0
}

/// Returns whether the processor has the virtualization extensions (`ID_PFR1[15:12]`, DDI 0406C.d B4.1.94).
pub fn has_virtualization() -> bool {
    cp15::IdPfr1::read() >> 12 & 0xF != 0
}

/// Returns whether the processor has the generic timer (`ID_PFR1[19:16]`, DDI 0406C.d B4.1.94).
pub fn has_generic_timer() -> bool {
    cp15::IdPfr1::read() >> 16 & 0xF != 0
}

#[cfg(test)]
mod tests {
    use super::{CPACR_VFP, HCPTR_VFP, Vfp, monitors_in, vfp_here};
    use crate::cp15;

    #[test]
    fn registers_are_counted_by_mvfr0() {
        let vfp = |mvfr0| Vfp::by(!0, || mvfr0);
        assert_eq!(vfp(0x1011_0222), Vfp::ThirtyTwo, "with Advanced SIMD");
        assert_eq!(vfp(0x1011_0221), Vfp::Sixteen, "VFPv4-D16");
        assert_eq!(vfp(0), Vfp::None);
    }

    #[test]
    fn where_cpacr_stays_shut_mvfr0_is_not_asked() {
        for cpacr in [0, 1, CPACR_VFP ^ 1 << 20] {
            assert_eq!(Vfp::by(cpacr, || panic!("undefined")), Vfp::None);
        }
    }

    #[test]
    fn the_controls_are_put_back() {
        // SAFETY: cells of a host thread.
        unsafe {
            cp15::Hcptr::write(HCPTR_VFP | 0x3FF);
            cp15::Cpacr::write(1);
        }
        assert_eq!(vfp_here(), Vfp::ThirtyTwo);
        assert_eq!(cp15::Hcptr::read(), HCPTR_VFP | 0x3FF);
        assert_eq!(cp15::Cpacr::read(), 1);
    }

    #[test]
    fn monitors_are_of_version_2_at_least() {
        assert!(monitors_in(0x0201_0555), "Cortex-A15");
        for none in [0x0001_0555, 0x0101_0555, 0x0F01_0555] {
            assert!(!monitors_in(none), "{none:#x}");
        }
    }
}
