//! The monitor that boot/secure.S leaves in the secure state, where firmware has started us there.

use core::sync::atomic::{AtomicBool, Ordering};

/// True if boot/secure.S has taken us to HYP, and keeps the monitor.
static ENTERED: AtomicBool = AtomicBool::new(false);

/// Notes that boot/secure.S has taken us to HYP.
pub fn set_entered() {
    ENTERED.store(true, Ordering::Relaxed);
}

/// Wakes the CPU behind a GIC interface in whatever state it waits: by SGI 0, and by the secure one if we have a monitor.
pub fn wake(dist: &crate::gic::Distributor, interface: u32) {
    dist.send_sgi(0, 1 << interface);
    if ENTERED.load(Ordering::Relaxed) {
        // SAFETY: boot/secure.S writes r0 to GICD_SGIR and returns.
        unsafe { crate::smc::call(1 << 16 << interface, 0, 0, 0) };
    }
}

/// Writes this CPU's CNTFRQ, which guests read, where firmware left it 0 and we have a monitor: only secure code may. Whether
/// it was written.
pub fn tell_frequency(hz: u32) -> bool {
    if crate::timer::frequency() != 0 || !ENTERED.load(Ordering::Relaxed) {
        return false;
    }
    // SAFETY: boot/secure.S writes r0 to CNTFRQ and returns.
    unsafe { crate::smc::call(hz, 1, 0, 0) };
    crate::timer::frequency() == hz
}
