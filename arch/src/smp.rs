//! The current CPU: its logical number, its affinity, its identification.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::cp15;
use crate::cpu::{CpuId, MAX_CPUS};

/// Returns the current CPU.
#[cfg(target_arch = "arm")]
pub fn this_cpu() -> CpuId {
    // `init_cpu` has put the logical number in HTPIDR.
    CpuId::new(cp15::Htpidr::read()).unwrap_or(CpuId::BOOT)
}

/// Returns the current CPU. A host has one.
#[cfg(not(target_arch = "arm"))]
pub fn this_cpu() -> CpuId {
    CpuId::BOOT
}

/// Returns whether a physical interrupt is pending for this CPU (ISR, DDI 0406C.d B4.1.84).
pub fn interrupt_waits() -> bool {
    const I: u32 = 1 << 7;
    cp15::Isr::read() & I != 0
}

/// Returns the MPIDR affinity of this CPU, by which firmware identifies it.
pub fn affinity() -> u32 {
    cp15::Mpidr::read() & 0x00FF_FFFF
}

/// Affinity of each logical CPU, for a CPU whose HTPIDR is lost. Affinities do not change.
struct Numbers([AtomicU32; MAX_CPUS]);

/// Set in the entry of a known CPU. Affinities have 24 bits.
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

    /// Returns the affinity of a known CPU.
    fn affinity(&self, cpu: CpuId) -> Option<u32> {
        let entry = self.0.get(cpu.index())?.load(Ordering::Relaxed);
        (entry & KNOWN != 0).then_some(entry & !KNOWN)
    }

    /// Returns the CPU with this affinity.
    fn find(&self, affinity: u32) -> Option<CpuId> {
        CpuId::all().find(|cpu| {
            let entry = self.0.get(cpu.index());
            entry.is_some_and(|entry| entry.load(Ordering::Relaxed) == KNOWN | affinity)
        })
    }
}

static NUMBERS: Numbers = Numbers::new();

/// Returns the current CPU by its affinity, if HTPIDR is lost or cannot be read, as outside HYP. Returns the boot CPU
/// for one that is not set up yet.
pub fn this_cpu_by_affinity() -> CpuId {
    NUMBERS.find(affinity()).unwrap_or(CpuId::BOOT)
}

/// Returns the affinity of a CPU that has started once.
pub fn affinity_of(cpu: CpuId) -> Option<u32> {
    NUMBERS.affinity(cpu)
}

/// Returns the CPU with this affinity, if it has started once.
pub fn by_affinity(affinity: u32) -> Option<CpuId> {
    NUMBERS.find(affinity)
}

/// Sets this CPU's logical number.
#[cfg(target_arch = "arm")]
pub(crate) fn set_this_cpu(cpu: CpuId) {
    NUMBERS.record(cpu, affinity());
    // SAFETY: HTPIDR is only storage for the hypervisor.
    unsafe { cp15::Htpidr::write(cpu.raw()) };
}

/// Returns MIDR: processor type and revision.
pub fn midr() -> u32 {
    cp15::Midr::read()
}

#[cfg(test)]
mod tests {
    use super::Numbers;
    use crate::cpu::CpuId;

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
        assert_eq!(numbers.affinity(second), Some(0));
        assert_eq!(numbers.affinity(CpuId::new(2).unwrap()), None);
    }
}
