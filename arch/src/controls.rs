//! Trap configuration of every CPU. Each register is written whole; tests/trap_controls.rs gives the reason of each
//! bit.

#[cfg(target_arch = "arm")]
use crate::cp15;
#[cfg(target_arch = "arm")]
use crate::cpu::CpuId;
#[cfg(target_arch = "arm")]
use crate::errata::{self, Predictor};
#[cfg(target_arch = "arm")]
use crate::features::{self, Vfp};
#[cfg(target_arch = "arm")]
use crate::smp::{midr, set_this_cpu};

/// HCR: stage 2 on; set/way, SMC, ACTLR and implementation-defined registers trap; physical interrupts and aborts are
/// taken to HYP; broadcast maintenance and barriers reach the inner shareable domain; invalidate by set/way also
/// cleans.
pub const HCR: u32 = VM | SWIO | PTW | FMO | IMO | AMO | FB | BSU_INNER | TSC | TIDCP | TAC | TSW;
/// HCR: WFI and WFE trap.
pub const HCR_WAIT: u32 = TWI | TWE;
const VM: u32 = 1;
const SWIO: u32 = 1 << 1;
const PTW: u32 = 1 << 2;
const FMO: u32 = 1 << 3;
const IMO: u32 = 1 << 4;
const AMO: u32 = 1 << 5;
const FB: u32 = 1 << 9;
const BSU_INNER: u32 = 1 << 10;
const TWI: u32 = 1 << 13;
const TWE: u32 = 1 << 14;
/// HCR: SMC traps.
pub const TSC: u32 = 1 << 19;
const TIDCP: u32 = 1 << 20;
const TAC: u32 = 1 << 21;
const TSW: u32 = 1 << 22;

/// HCPTR: coprocessors 0 to 9, 12 and 13 and trace trap; VFP and Advanced SIMD are the guest's.
pub const HCPTR: u32 = 0x3FF | 1 << 12 | 1 << 13 | HCPTR_TTA;
/// HSTR: cp15 c15 (implementation-defined RAM and test access) traps.
pub const HSTR: u32 = 1 << 15;
/// HDCR: debug ROM, OS-lock, debug and performance monitor accesses trap. HPMN is kept, as it must not exceed PMCR.N.
pub const HDCR: u32 = 1 << 11 | 1 << 10 | 1 << 9 | 1 << 6 | 1 << 5;
/// HDCR.HPMN.
pub const HDCR_HPMN: u32 = 0x1F;
/// Bits of HDCR that exist only with performance monitors: HPME, TPM, TPMCR, HPMN (DDI 0406C.d B4.1.58).
pub const HDCR_MONITORS: u32 = 0xFF;
/// HCPTR: trace traps.
pub const HCPTR_TTA: u32 = 1 << 20;

/// A control register that did not keep its value.
#[derive(Clone, Copy, Debug)]
pub struct Mismatch {
    /// Name of the register.
    pub register: &'static str,
    /// The value written.
    pub wrote: u32,
    /// The value read back.
    pub reads: u32,
}

#[cfg(target_arch = "arm")]
unsafe extern "C" {
    static hyp_vectors: u8;
    static hyp_vectors_iciallu: u8;
    static hyp_vectors_bpiall: u8;
}

/// Effect of a guest's WFI and WFE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GuestWait {
    /// They trap.
    Traps,
    /// The processor executes them.
    Native,
}

/// Sets up this CPU to run guests: vectors and all trap controls. Returns the registers that read back differently.
#[cfg(target_arch = "arm")]
pub fn init_cpu(cpu: CpuId, wait: GuestWait) -> [Option<Mismatch>; 6] {
    let hcr = match wait {
        GuestWait::Traps => HCR | HCR_WAIT,
        GuestWait::Native => HCR,
    };
    let vectors = match errata::predictor_of(midr()) {
        Predictor::Kept => &raw const hyp_vectors,
        Predictor::EmptiedByIciallu => &raw const hyp_vectors_iciallu,
        Predictor::EmptiedByBpiall => &raw const hyp_vectors_bpiall,
    } as u32;
    let hdcr = HDCR | cp15::Hdcr::read() & HDCR_HPMN;
    if cpu == CpuId::BOOT {
        features::detect();
    }
    let hcptr = match features::vfp() {
        Vfp::None => HCPTR | features::HCPTR_VFP,
        _ => HCPTR,
    };
    set_this_cpu(cpu);
    errata::add_this_cpu();
    // SAFETY: 1. the vectors are the hypervisor's code, 32-byte aligned; 2. the other registers only restrict guests.
    unsafe {
        cp15::Hvbar::write(vectors);
        cp15::Hcr::write(hcr);
        cp15::Hcptr::write(hcptr);
        cp15::Hstr::write(HSTR);
        cp15::Hdcr::write(hdcr);
        cp15::Vtcr::write(crate::lpae::VTCR);
        cp15::Vpidr::write(midr());
        cp15::Vttbr::write(0);
    }
    crate::timer::init_cpu();
    crate::barrier::isb();
    let tsc_for_granted = match cp15::IdPfr1::read() >> 4 & 0xF {
        0 => TSC,
        _ => 0,
    };
    // A bit without function may read as anything.
    let missing_trace = if features::has_trace() { 0 } else { HCPTR_TTA };
    let missing_monitors = if features::has_monitors() {
        0
    } else {
        HDCR_MONITORS
    };
    let check = |register, wrote: u32, reads: u32| {
        (wrote != reads).then_some(Mismatch {
            register,
            wrote,
            reads,
        })
    };
    [
        check("HVBAR", vectors, cp15::Hvbar::read()),
        // Bits 31:28 are UNK/SBZP in ARMv7 (DDI 0406C.d B4.1.65). Without Security Extensions, SMC is undefined anyhow.
        check(
            "HCR",
            hcr,
            (cp15::Hcr::read() & 0x0FFF_FFFF) | tsc_for_granted,
        ),
        // Bits of coprocessors that do not exist read as ones. VFP must be open if it exists.
        check(
            "HCPTR",
            hcptr,
            cp15::Hcptr::read() & (hcptr | features::HCPTR_VFP) | missing_trace,
        ),
        check("HSTR", HSTR, cp15::Hstr::read()),
        check(
            "HDCR",
            hdcr,
            cp15::Hdcr::read() & !missing_monitors | hdcr & missing_monitors,
        ),
        check("VTCR", crate::lpae::VTCR, cp15::Vtcr::read()),
    ]
}
