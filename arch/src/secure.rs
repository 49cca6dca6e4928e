//! The monitor that boot/secure.S leaves in secure state on each CPU that started there.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::cpu::CpuId;

/// CPUs on which boot/secure.S has entered HYP from secure state and keeps the monitor, one bit each.
static ENTERED: AtomicU32 = AtomicU32::new(0);

/// Records that boot/secure.S has entered HYP from secure state on a CPU.
pub fn set_entered(cpu: CpuId) {
    ENTERED.fetch_or(1 << cpu.raw(), Ordering::Relaxed);
}

/// Returns whether this CPU has the monitor.
fn has_monitor() -> bool {
    ENTERED.load(Ordering::Relaxed) & 1 << crate::smp::this_cpu().raw() != 0
}

/// Wakes the CPU behind a GIC interface in either security state: by an event, by SGI 0, and with the monitor by the secure
/// SGI too.
pub fn wake(dist: &crate::gic::Distributor, interface: u32) {
    crate::barrier::sev();
    dist.send_sgi(0, 1 << interface);
    if has_monitor() {
        // SAFETY: boot/secure.S writes r0 to GICD_SGIR and returns.
        unsafe { crate::smc::call(1 << 16 << interface, 0, 0, 0) };
    }
}

/// Writes this CPU's CNTFRQ, which guests read, if firmware left it 0 and the monitor exists, as only secure code may
/// write it. Returns whether it was written.
pub fn set_frequency(hz: u32) -> bool {
    if crate::timer::frequency() != 0 || !has_monitor() {
        return false;
    }
    // SAFETY: boot/secure.S writes r0 to CNTFRQ and returns.
    unsafe { crate::smc::call(hz, 1, 0, 0) };
    crate::timer::frequency() == hz
}
