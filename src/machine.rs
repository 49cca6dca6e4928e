//! The board's registers that begin and end things: off, reboot, and what a crash does.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use armv7::mmio::Window;
use armv7::smc;
use armv7::timer::{counter, frequency};
use spin::Once;

use crate::console;
use crate::platform::board::Action;

/// Register accesses in order, with the registers mapped.
#[derive(Debug, Default)]
pub struct Steps(Vec<(Window, Action)>);

impl Steps {
    /// Adds an access to the first word of `register`.
    pub fn add(&mut self, register: Window, action: Action) {
        self.0.push((register, action));
    }

    /// Makes the accesses; `entry` is where another CPU is to enter.
    pub fn run(&self, entry: u32) {
        for (register, action) in &self.0 {
            let value = match action {
                Action::Write(value) => *value,
                Action::Set(bits) => register.read32(0) | bits,
                Action::WriteEntry => entry,
            };
            register.write32(0, value);
        }
        armv7::barrier::dsb_sy();
    }
}

/// How the machine ends.
#[derive(Debug, Default)]
pub struct Ends {
    /// Firmware does it, by PSCI.
    pub psci: bool,
    /// The board's registers switch it off.
    pub off: Steps,
    /// The board's registers restart it.
    pub reset: Steps,
}

static ENDS: Once<Ends> = Once::new();

/// Sets how the machine ends; before that it cannot.
pub fn set_ends(ends: Ends) {
    ENDS.call_once(|| ends);
}

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
    if let Some(ends) = ENDS.get() {
        if ends.psci {
            smc::system_off();
        }
        ends.off.run(0);
    }
    refused("does not switch off")
}

/// Restarts the machine.
pub fn reboot() -> ! {
    console::flush();
    if let Some(ends) = ENDS.get() {
        if ends.psci {
            smc::system_reset();
        }
        ends.reset.run(0);
    }
    refused("does not restart")
}

/// Restarts the machine after a crash, unless it is to be left standing.
pub fn reboot_after_crash() -> ! {
    console::flush();
    if NO_REBOOT.load(Ordering::Relaxed) {
        log::error!("'noreboot' set - not rebooting.");
        halt_after_words();
    }
    wait(GRACE_SECONDS);
    reboot()
}

/// What ends the machine may take a moment to do it.
fn refused(what: &str) -> ! {
    wait(1);
    log::error!("the machine {what}");
    halt_after_words()
}

fn wait(seconds: u64) {
    let end = counter().saturating_add(u64::from(frequency()).saturating_mul(seconds));
    while counter() < end {
        core::hint::spin_loop();
    }
}

fn halt_after_words() -> ! {
    console::flush();
    halt()
}

/// Stops this CPU for good.
pub fn halt() -> ! {
    loop {
        armv7::barrier::wfi();
    }
}
