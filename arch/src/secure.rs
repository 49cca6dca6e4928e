//! The monitor that boot/secure.S leaves in secure state, if firmware started the image there.

use core::sync::atomic::{AtomicBool, Ordering};

/// boot/secure.S has entered HYP from secure state and keeps the monitor.
static ENTERED: AtomicBool = AtomicBool::new(false);

/// Records that boot/secure.S has entered HYP from secure state.
pub fn set_entered() {
    ENTERED.store(true, Ordering::Relaxed);
}

/// Wakes the CPU behind a GIC interface in either security state: by an event, by SGI 0, and with the monitor by the secure
/// SGI too.
pub fn wake(dist: &crate::gic::Distributor, interface: u32) {
    crate::barrier::sev();
    dist.send_sgi(0, 1 << interface);
    if ENTERED.load(Ordering::Relaxed) {
        // SAFETY: boot/secure.S writes r0 to GICD_SGIR and returns.
        unsafe { crate::smc::call(1 << 16 << interface, 0, 0, 0) };
    }
}

/// Writes this CPU's CNTFRQ, which guests read, if firmware left it 0 and the monitor exists, as only secure code may
/// write it. Returns whether it was written.
pub fn set_frequency(hz: u32) -> bool {
    if crate::timer::frequency() != 0 || !ENTERED.load(Ordering::Relaxed) {
        return false;
    }
    // SAFETY: boot/secure.S writes r0 to CNTFRQ and returns.
    unsafe { crate::smc::call(hz, 1, 0, 0) };
    crate::timer::frequency() == hz
}
