//! This CPU and the others: who is who, setting a CPU up for guests, starting secondaries, probing memory.

#[cfg(target_arch = "arm")]
use core::sync::atomic::AtomicBool;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::cp15;
use crate::cpu::{CpuId, MAX_CPUS};
#[cfg(target_arch = "arm")]
use crate::errata::{self, Predictor};
#[cfg(target_arch = "arm")]
use crate::features::{self, Vfp};

/// The CPU this runs on.
#[cfg(target_arch = "arm")]
#[inline]
pub fn this_cpu() -> CpuId {
    // HTPIDR holds the logical number since `init_cpu`.
    CpuId::new(cp15::Htpidr::read()).unwrap_or(CpuId::BOOT)
}

/// The CPU this runs on: on a host there is one.
#[cfg(not(target_arch = "arm"))]
pub fn this_cpu() -> CpuId {
    CpuId::BOOT
}

/// Whether a physical interrupt waits for this CPU to let it in (ISR, DDI 0406C.d B4.1.84).
#[inline]
pub fn interrupt_waits() -> bool {
    const I: u32 = 1 << 7;
    cp15::Isr::read() & I != 0
}

/// MPIDR affinity of this CPU: what firmware calls it.
pub fn affinity() -> u32 {
    cp15::Mpidr::read() & 0x00FF_FFFF
}

/// Which logical CPU has which affinity, for a CPU that has lost its number: what firmware calls it never changes.
struct Numbers([AtomicU32; MAX_CPUS]);

/// Set in the entry of a CPU that is known; affinities have 24 bits.
const KNOWN: u32 = 1 << 31;

impl Numbers {
    const fn new() -> Self {
        Self([const { AtomicU32::new(0) }; MAX_CPUS])
    }

    /// Records a CPU that is being set up.
    #[cfg(any(test, target_arch = "arm"))]
    fn record(&self, cpu: CpuId, affinity: u32) {
        if let Some(entry) = self.0.get(cpu.index()) {
            entry.store(KNOWN | affinity, Ordering::Relaxed);
        }
    }

    /// The CPU with this affinity.
    fn find(&self, affinity: u32) -> Option<CpuId> {
        CpuId::all().find(|cpu| {
            let entry = self.0.get(cpu.index());
            entry.is_some_and(|entry| entry.load(Ordering::Relaxed) == KNOWN | affinity)
        })
    }
}

static NUMBERS: Numbers = Numbers::new();

/// The CPU this runs on, for one that may have lost its number, or cannot read it outside HYP: what firmware calls it tells.
/// One that is not set up yet has no number but the boot CPU's.
pub fn this_cpu_by_affinity() -> CpuId {
    NUMBERS.find(affinity()).unwrap_or(CpuId::BOOT)
}

/// Processor type and revision (MIDR).
pub fn midr() -> u32 {
    cp15::Midr::read()
}

/// Trap configuration of every CPU, each register written whole. Why each bit is as it is: tests/trap_controls.rs.
pub mod controls {
    /// HCR: stage 2 on; set/way, SMC, ACTLR and implementation-defined registers trap; physical interrupts and aborts come to
    /// HYP; broadcast maintenance and barriers reach the inner shareable domain; set/way invalidate also
    /// cleans.
    pub const HCR: u32 =
        VM | SWIO | PTW | FMO | IMO | AMO | FB | BSU_INNER | TSC | TIDCP | TAC | TSW;
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
    /// HDCR: debug ROM, OS-lock, debug and performance monitor accesses trap. HPMN is kept: it must not exceed PMCR.N.
    pub const HDCR: u32 = 1 << 11 | 1 << 10 | 1 << 9 | 1 << 6 | 1 << 5;
    /// HDCR.HPMN.
    pub const HDCR_HPMN: u32 = 0x1F;
    /// Bits of HDCR that are there only with performance monitors: HPME, TPM, TPMCR, HPMN (DDI 0406C.d B4.1.58).
    pub const HDCR_MONITORS: u32 = 0xFF;
    /// HCPTR: trace traps.
    pub const HCPTR_TTA: u32 = 1 << 20;
}

/// A control register that did not take its value.
#[derive(Clone, Copy, Debug)]
pub struct Mismatch {
    /// Name of the register.
    pub register: &'static str,
    /// What was written.
    pub wrote: u32,
    /// What reads back.
    pub reads: u32,
}

#[cfg(target_arch = "arm")]
unsafe extern "C" {
    static hyp_vectors: u8;
    static hyp_vectors_iciallu: u8;
    static hyp_vectors_bpiall: u8;
}

/// What a guest's WFI and WFE do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GuestWait {
    /// They trap.
    Traps,
    /// They run on the processor.
    Native,
}

/// Sets up this CPU to run guests: vectors and all trap controls. Answers the registers that read back differently.
#[cfg(target_arch = "arm")]
pub fn init_cpu(cpu: CpuId, wait: GuestWait) -> [Option<Mismatch>; 6] {
    use controls::{HCPTR_TTA, HDCR, HDCR_HPMN, HDCR_MONITORS, HSTR};
    let hcr = match wait {
        GuestWait::Traps => controls::HCR | controls::HCR_WAIT,
        GuestWait::Native => controls::HCR,
    };
    let vectors = match errata::predictor_of(midr()) {
        Predictor::Kept => &raw const hyp_vectors,
        Predictor::EmptiedByIciallu => &raw const hyp_vectors_iciallu,
        Predictor::EmptiedByBpiall => &raw const hyp_vectors_bpiall,
    } as u32;
    let hdcr = HDCR | cp15::Hdcr::read() & HDCR_HPMN;
    if cpu == CpuId::BOOT {
        features::note();
    }
    let hcptr = match features::vfp() {
        Vfp::None => controls::HCPTR | features::HCPTR_VFP,
        _ => controls::HCPTR,
    };
    NUMBERS.record(cpu, affinity());
    // SAFETY: 1. the vectors are code of ours, 32-byte aligned; 2. the other registers only take rights from guests.
    unsafe {
        cp15::Htpidr::write(cpu.raw());
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
        0 => controls::TSC,
        _ => 0,
    };
    // What there is nothing to control of reads as it likes.
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
        // Bits of coprocessors that do not exist read as ones; VFP must be open where it is.
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

/// Who may leave boot/secondary.S: affinity, and the logical number from bit 24 on. Read with caches off.
#[cfg(target_arch = "arm")]
#[unsafe(no_mangle)]
static secondary_gate: AtomicU32 = AtomicU32::new(NOBODY);
/// No affinity has all its bits set.
#[cfg(target_arch = "arm")]
const NOBODY: u32 = !0;

/// Physical address at which a CPU enters that comes out of a boot loader's pen, to wait there for [`call`].
#[cfg(target_arch = "arm")]
pub fn pen_entry() -> u32 {
    unsafe extern "C" {
        static secondary_pen: u8;
    }
    crate::hypmap::image_address(&raw const secondary_pen as usize).raw() as u32
}

/// Whether boot/secure.S has taken us to HYP, and keeps the monitor.
#[cfg(target_arch = "arm")]
static ENTERED_SECURE: AtomicBool = AtomicBool::new(false);

/// Notes that boot/secure.S has taken us to HYP.
#[cfg(target_arch = "arm")]
pub fn set_entered_secure() {
    ENTERED_SECURE.store(true, Ordering::Relaxed);
}

/// Wakes the CPU behind a GIC interface in whatever state it waits: by SGI 0, and by the secure one if we have a monitor.
#[cfg(target_arch = "arm")]
pub fn wake(dist: &crate::gic::Distributor, interface: u32) {
    dist.send_sgi(0, 1 << interface);
    if ENTERED_SECURE.load(Ordering::Relaxed) {
        // SAFETY: boot/secure.S writes r0 to GICD_SGIR and returns.
        unsafe { crate::smc::call(1 << 16 << interface, 0, 0, 0) };
    }
}

/// Writes this CPU's CNTFRQ, which guests read, where firmware left it 0 and we have a monitor: only secure code may. Whether
/// it was written.
#[cfg(target_arch = "arm")]
pub fn tell_frequency(hz: u32) -> bool {
    if crate::timer::frequency() != 0 || !ENTERED_SECURE.load(Ordering::Relaxed) {
        return false;
    }
    // SAFETY: boot/secure.S writes r0 to CNTFRQ and returns.
    unsafe { crate::smc::call(hz, 1, 0, 0) };
    crate::timer::frequency() == hz
}

/// Lets the CPU with `affinity` in, as `cpu`, when it comes or has come to [`pen_entry`], or PSCI starts it. Nobody else may
/// come any more.
#[cfg(target_arch = "arm")]
pub fn call(cpu: CpuId, affinity: u32) {
    open_gate(cpu.raw() << 24 | affinity & 0x00FF_FFFF);
}

/// Lets nobody in any more.
#[cfg(target_arch = "arm")]
pub fn call_nobody() {
    open_gate(NOBODY);
}

#[cfg(target_arch = "arm")]
fn open_gate(value: u32) {
    secondary_gate.store(value, Ordering::Relaxed); // one reader, which sees nothing before the clean
    crate::cache::clean_word(&secondary_gate);
    crate::barrier::sev();
}

/// Starts the CPU with `affinity` by the PSCI function `cpu_on`, and lets it in as `cpu`; answers PSCI's return value.
#[cfg(target_arch = "arm")]
pub fn start(cpu: CpuId, affinity: u32, cpu_on: u32) -> i32 {
    unsafe extern "C" {
        static secondary_entry: u8;
    }
    let entry = crate::hypmap::image_address(&raw const secondary_entry as usize);
    call(cpu, affinity);
    crate::barrier::dsb_sy();
    // SAFETY: the new CPU enters boot/secondary.S, which expects just this.
    unsafe { crate::smc::call(cpu_on, affinity, entry.raw() as u32, cpu.raw()) as i32 }
}

/// Which CPUs are waited for. A CPU that comes and whoever waits for it may meet in the moment in which patience ends: one of
/// the two is first, and the other one goes by that.
pub struct Admission(AtomicU32);

impl Admission {
    /// Nobody is waited for.
    pub const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// From here on `cpu` may come.
    pub fn expect(&self, cpu: CpuId) {
        self.0.fetch_or(1 << cpu.raw(), Ordering::SeqCst);
    }

    /// `cpu` has come; whether it may stay.
    pub fn arrive(&self, cpu: CpuId) -> bool {
        self.end(cpu)
    }

    /// `cpu` is not waited for any longer; false when it has come before that.
    pub fn give_up(&self, cpu: CpuId) -> bool {
        self.end(cpu)
    }

    fn end(&self, cpu: CpuId) -> bool {
        let bit = 1 << cpu.raw();
        self.0.fetch_and(!bit, Ordering::SeqCst) & bit != 0
    }
}

impl Default for Admission {
    fn default() -> Self {
        Self::new()
    }
}

/// Reads the word at hypervisor address `va`; `None` when the access aborts.
///
/// For boot, on the boot CPU: firmware may have named memory that does not exist.
#[cfg(target_arch = "arm")]
pub fn probe_read(va: usize) -> Option<u32> {
    unsafe extern "C" {
        fn probe_read(address: usize, value: *mut u32) -> u32;
    }
    let mut value = 0;
    // SAFETY: an abort of the one load is caught by `hyp_fault_report`; the store goes to a local.
    (unsafe { probe_read(va, &mut value) } != 0).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::{Admission, Numbers};
    use crate::cpu::CpuId;

    #[test]
    fn a_cpu_comes_in_time_or_is_given_up_and_never_both() {
        let (admission, one, two) = (
            Admission::new(),
            CpuId::new(1).unwrap(),
            CpuId::new(2).unwrap(),
        );
        assert!(!admission.arrive(one), "nobody waits for it");
        admission.expect(one);
        assert!(!admission.arrive(two));
        assert!(admission.arrive(one) && !admission.give_up(one));
        admission.expect(two);
        assert!(admission.give_up(two) && !admission.arrive(two));
        for _ in 0..1000 {
            admission.expect(one);
            let (came, gone) = std::thread::scope(|scope| {
                let came = scope.spawn(|| admission.arrive(one));
                (admission.give_up(one), came.join().unwrap())
            });
            assert_ne!(came, gone);
        }
    }

    #[test]
    fn a_cpu_is_found_by_its_affinity_once_it_is_known() {
        let numbers = Numbers::new();
        let second = CpuId::new(1).unwrap();
        assert_eq!(numbers.find(0), None, "affinity 0 is a CPU like any other");
        numbers.record(CpuId::BOOT, 0x100);
        numbers.record(second, 0);
        assert_eq!(numbers.find(0), Some(second));
        assert_eq!(numbers.find(0x100), Some(CpuId::BOOT));
        assert_eq!(numbers.find(1), None);
    }
}
