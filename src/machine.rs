//! Power-off and restart of the machine, and the end after a crash.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use armv7::mmio::Window;
use armv7::smc;
use armv7::timer::{counter, frequency};
use spin::Once;

use crate::console;
use crate::platform::board::Action;

/// Register accesses in order, with mapped registers.
#[derive(Debug, Default)]
pub struct Steps(Vec<(Window, Action)>);

impl Steps {
    /// Adds an access to the first word of `register`.
    pub fn add(&mut self, register: Window, action: Action) {
        self.0.push((register, action));
    }

    /// Returns whether there are no accesses.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Performs the accesses. `entry` is the physical address at which another CPU enters.
    pub fn run(&self, entry: u32) {
        for (register, action) in &self.0 {
            let value = match action {
                Action::WriteHalf(value) => {
                    register.write16(0, *value);
                    continue;
                }
                Action::Write(value) => *value,
                Action::Set(bits) => register.read32(0) | bits,
                Action::Replace { mask, value } => register.read32(0) & !mask | value & mask,
                Action::WriteEntry => entry,
            };
            register.write32(0, value);
        }
        armv7::barrier::dsb_sy();
    }
}

/// Methods to end the machine.
#[derive(Debug, Default)]
pub struct Ends {
    /// Firmware does both, by PSCI.
    pub psci: bool,
    /// The board's registers switch it off.
    pub off: Steps,
    /// The board's registers restart it.
    pub reset: Steps,
}

static ENDS: Once<Ends> = Once::new();

/// Sets the methods to end the machine. Only the first call has an effect.
pub fn set_ends(ends: Ends) {
    ENDS.call_once(|| ends);
}

/// `noreboot`: a crash halts the machine.
static NO_REBOOT: AtomicBool = AtomicBool::new(false);
/// Seconds between a crash and the reboot, as in Xen.
const GRACE_SECONDS: u64 = 5;

/// Sets whether a crash halts the machine.
pub fn set_no_reboot(stay: bool) {
    NO_REBOOT.store(stay, Ordering::Relaxed);
}

/// Switches the machine off.
pub fn off() -> ! {
    end("switch off", smc::system_off, |ends| &ends.off)
}

/// Restarts the machine.
pub fn reboot() -> ! {
    end("restart", smc::system_reset, |ends| &ends.reset)
}

/// Ends the machine by firmware, then by its registers. Reports why it still runs after that.
fn end(what: &str, by_firmware: fn(), steps: fn(&Ends) -> &Steps) -> ! {
    console::flush();
    let ends = ENDS.get();
    if let Some(ends) = ends {
        if ends.psci {
            by_firmware();
        }
        steps(ends).run(0);
    }
    // Power-off or reset may take a moment.
    wait(1);
    let ways = ends.map(|ends| (ends.psci, !steps(ends).is_empty()));
    log::error!("cannot {what} this board: {}", why(ways));
    halt_after_words()
}

/// Returns why the machine still runs, by which methods it has.
fn why(ways: Option<(bool, bool)>) -> &'static str {
    match ways {
        None => "its device tree is not read yet",
        Some((false, false)) => "it has no PSCI 0.2 by SMC, and no register for that is known",
        Some((true, false)) => "firmware refuses (PSCI), and no register for that is known",
        Some((false, true)) => "its registers do nothing",
        Some((true, true)) => "firmware refuses (PSCI), and its registers do nothing",
    }
}

/// Restarts the machine after a crash, unless `noreboot` is set.
pub fn reboot_after_crash() -> ! {
    console::flush();
    if NO_REBOOT.load(Ordering::Relaxed) {
        log::error!("'noreboot' set - not rebooting.");
        halt_after_words();
    }
    wait(GRACE_SECONDS);
    reboot()
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

/// Stops this CPU permanently.
pub fn halt() -> ! {
    loop {
        armv7::barrier::wfi();
    }
}

#[cfg(test)]
mod tests {
    use super::why;

    #[test]
    fn a_machine_that_does_not_end_says_what_was_tried() {
        assert!(why(None).contains("not read yet"));
        assert!(why(Some((false, false))).contains("no PSCI"));
        assert!(why(Some((true, false))).contains("firmware refuses"));
    }
}
