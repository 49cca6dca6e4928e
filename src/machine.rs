//! The end of the machine: off, reboot, and what a crash does.

use core::sync::atomic::{AtomicBool, Ordering};

use armv7::smc;
use armv7::timer::{counter, frequency};

use crate::console;

/// `noreboot`: a crash leaves the machine standing.
static NO_REBOOT: AtomicBool = AtomicBool::new(false);
/// Seconds between a crash and the reboot, as Xen has it.
const GRACE_SECONDS: u64 = 5;

/// Sets whether a crash leaves the machine standing.
pub fn set_no_reboot(stay: bool) {
    NO_REBOOT.store(stay, Ordering::Relaxed);
}

/// Switches the machine off.
pub fn off() -> ! {
    console::flush();
    smc::system_off();
    log::error!("firmware does not switch off");
    halt()
}

/// Restarts the machine.
pub fn reboot() -> ! {
    console::flush();
    smc::system_reset();
    log::error!("firmware does not restart");
    halt()
}

/// Restarts the machine after a crash, unless it is to be left standing.
pub fn reboot_after_crash() -> ! {
    console::flush();
    if NO_REBOOT.load(Ordering::Relaxed) {
        log::error!("'noreboot' set - not rebooting.");
        console::flush();
        halt();
    }
    let end = counter().saturating_add(u64::from(frequency()).saturating_mul(GRACE_SECONDS));
    while counter() < end {
        core::hint::spin_loop();
    }
    reboot()
}

/// Stops this CPU for good.
pub fn halt() -> ! {
    loop {
        armv7::barrier::wfi();
    }
}
