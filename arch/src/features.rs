//! Optional parts of the processor, by its identification registers.
//!
//! A processor with the virtualization extensions has LPAE, the generic timer and division. VFP and the number of its
//! registers, performance monitors and trace are optional (DDI 0406C.d A2.6, B7.1, C12.1, C1.4). Check here before
//! accessing them: a missing part is undefined in HYP too.

use core::sync::atomic::{AtomicU8, Ordering};

use crate::barrier::isb;
use crate::cp15;

/// Coprocessors 10 and 11 in HCPTR (DDI 0406C.d B4.1.61).
pub(crate) const HCPTR_VFP: u32 = 3 << 10;
/// Coprocessors 10 and 11 in CPACR: full access (DDI 0406C.d B4.1.40).
const CPACR_VFP: u32 = 0xF << 20;

/// Floating-point registers of a processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Vfp {
    /// None, or reserved by secure firmware.
    None,
    /// D0 to D15.
    Sixteen,
    /// D0 to D31.
    ThirtyTwo,
}

impl Vfp {
    /// Decodes CPACR, after writing ones to it, and MVFR0 (DDI 0406C.d B4.1.40; B6.1.39, `A_SIMD registers`).
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

/// The boot CPU's [`Vfp`]. CPUs that differ are refused.
static VFP: AtomicU8 = AtomicU8::new(Vfp::None as u8);

/// Words of [`identity`].
pub const IDENTITY_WORDS: usize = 15;

/// Returns the registers by which a guest knows this processor: MIDR, CTR, CLIDR, ID_PFR0 and 1, ID_MMFR0 to 3, ID_ISAR0 to
/// 4, and MVFR0 (0 without VFP).
pub fn identity() -> [u32; IDENTITY_WORDS] {
    [
        cp15::Midr::read(),
        cp15::Ctr::read(),
        cp15::Clidr::read(),
        cp15::IdPfr0::read(),
        cp15::IdPfr1::read(),
        cp15::IdMmfr0::read(),
        cp15::IdMmfr1::read(),
        cp15::IdMmfr2::read(),
        cp15::IdMmfr3::read(),
        cp15::IdIsar0::read(),
        cp15::IdIsar1::read(),
        cp15::IdIsar2::read(),
        cp15::IdIsar3::read(),
        cp15::IdIsar4::read(),
        if vfp() == Vfp::None { 0 } else { mvfr0() },
    ]
}

/// Returns whether guests have D0 to D31, the usual case.
#[cfg(target_arch = "arm")]
#[inline(always)]
pub(crate) fn has_all_vfp() -> bool {
    VFP.load(Ordering::Relaxed) == Vfp::ThirtyTwo as u8 // written before guests run
}

/// Returns the floating-point registers that guests have.
pub fn vfp() -> Vfp {
    match VFP.load(Ordering::Relaxed) {
        n if n == Vfp::ThirtyTwo as u8 => Vfp::ThirtyTwo,
        n if n == Vfp::Sixteen as u8 => Vfp::Sixteen,
        _ => Vfp::None,
    }
}

/// Detects the boot CPU's registers. Until then there is no VFP.
pub fn detect() {
    VFP.store(vfp_here() as u8, Ordering::Relaxed);
}

/// Returns the floating-point registers of this CPU.
///
/// CPACR's fields stay zero for coprocessors that do not exist or that NSACR blocks. MVFR0 may be read only if they do
/// not.
pub fn vfp_here() -> Vfp {
    let (hcptr, cpacr) = (cp15::Hcptr::read(), cp15::Cpacr::read());
    // SAFETY: opens coprocessors for a moment; no guest runs.
    unsafe {
        cp15::Hcptr::write(hcptr & !HCPTR_VFP);
        cp15::Cpacr::write(cpacr | CPACR_VFP);
    }
    isb();
    let vfp = Vfp::by(cp15::Cpacr::read(), mvfr0);
    // SAFETY: restores the previous values.
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
    // SAFETY: VFP exists and is open to HYP; the register can be read whatever FPEXC holds (DDI 0406C.d B1.11.3).
    unsafe {
        core::arch::asm!(".fpu vfpv4", "vmrs {}, mvfr0", out(reg) value, options(nomem, nostack, preserves_flags));
    }
    value
}

/// Returns the value of a Cortex-A15.
#[cfg(not(target_arch = "arm"))]
fn mvfr0() -> u32 {
    0x1011_0222
}

/// Returns whether the processor has performance monitors of version 2 or later, as the virtualization extensions need
/// (`ID_DFR0[27:24]`, DDI 0406C.d B4.1.82).
pub fn has_monitors() -> bool {
    monitors_in(cp15::IdDfr0::read())
}

const fn monitors_in(id_dfr0: u32) -> bool {
    // 0xF: monitors outside the architecture.
    matches!(id_dfr0 >> 24 & 0xF, 2..=0xE)
}

/// Returns whether trace registers are accessible by coprocessor 14 (`ID_DFR0[15:12]`).
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
