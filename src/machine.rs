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

    /// Returns whether all registers can be read. For boot, on the boot CPU.
    #[cfg(target_arch = "arm")]
    pub fn answer(&self) -> bool {
        self.0
            .iter()
            .all(|(register, _)| register.probe(0).is_some())
    }

    /// Performs the accesses. `entry` is the physical address at which another CPU enters.
    pub fn run(&self, entry: u32) {
        for (register, action) in &self.0 {
            perform(*action, register, entry);
        }
        armv7::barrier::dsb_sy();
    }
}

/// A register of a board.
trait Register {
    fn read(&self) -> u32;
    fn write(&self, value: u32);
    fn write_half(&self, value: u16);

    /// Returns the counter.
    fn now(&self) -> u64 {
        counter()
    }
}

impl Register for Window {
    fn read(&self) -> u32 {
        self.read32(0)
    }

    fn write(&self, value: u32) {
        self.write32(0, value);
    }

    fn write_half(&self, value: u16) {
        self.write16(0, value);
    }
}

/// Microseconds that [`Action::Wait`] takes at most. A register that does not answer is noticed by what it was for.
const PATIENCE: u32 = 10_000;

fn perform(action: Action, register: &impl Register, entry: u32) {
    let value = match action {
        Action::WriteHalf(value) => return register.write_half(value),
        Action::Write(value) => value,
        Action::Set(bits) => register.read() | bits,
        Action::Clear(bits) => register.read() & !bits,
        Action::Replace { mask, value } => register.read() & !mask | value & mask,
        Action::WriteEntry => entry,
        Action::Wait { mask, value } => {
            let happens = || register.read() & mask == value;
            return wait_until(PATIENCE, || register.now(), happens);
        }
        Action::Delay(microseconds) => {
            return wait_until(microseconds, || register.now(), || false);
        }
    };
    register.write(value);
}

/// Waits for an event, for this many microseconds at most.
fn wait_until(microseconds: u32, now: impl Fn() -> u64, happens: impl Fn() -> bool) {
    // The accesses so far have an effect from now on.
    armv7::barrier::dsb_sy();
    let ticks = u64::from(counter_rate()) * u64::from(microseconds) / 1_000_000;
    let end = now().saturating_add(ticks);
    while !happens() && now() <= end {
        core::hint::spin_loop();
    }
}

/// Returns the counter's frequency in Hz; where firmware left CNTFRQ 0, one that no board's exceeds.
fn counter_rate() -> u32 {
    const FASTEST: u32 = 100_000_000;
    match frequency() {
        0 => FASTEST,
        hz => hz,
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
const GRACE_SECONDS: u32 = 5;

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

fn wait(seconds: u32) {
    wait_until(seconds.saturating_mul(1_000_000), counter, || false);
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
    use super::{PATIENCE, Register, perform, why};
    use crate::platform::board::Action;
    use alloc::vec;
    use alloc::vec::Vec;
    use core::cell::{Cell, RefCell};

    /// A register that is read from a list, and keeps what is written.
    struct Fake {
        reads: RefCell<Vec<u32>>,
        writes: RefCell<Vec<u32>>,
        /// Counts 20 microseconds at 100 MHz each time that it is read.
        counter: Cell<u64>,
    }

    impl Register for Fake {
        fn read(&self) -> u32 {
            let mut reads = self.reads.borrow_mut();
            match reads.len() {
                0 | 1 => reads.first().copied().unwrap_or(0),
                _ => reads.remove(0),
            }
        }

        fn write(&self, value: u32) {
            self.writes.borrow_mut().push(value);
        }

        fn write_half(&self, value: u16) {
            self.write(value.into());
        }

        fn now(&self) -> u64 {
            self.counter.replace(self.counter.get() + 2000)
        }
    }

    /// Performs an action on a register that reads these values, the last for good. Returns what it writes, what is left
    /// to read, and the microseconds that it takes.
    fn done(action: Action, reads: &[u32]) -> (Vec<u32>, Vec<u32>, u64) {
        let fake = Fake {
            reads: RefCell::new(reads.to_vec()),
            writes: RefCell::new(vec![]),
            counter: Cell::new(0),
        };
        perform(action, &fake, 0x4000_8000);
        let microseconds = fake.counter.get() / 100;
        (
            fake.writes.into_inner(),
            fake.reads.into_inner(),
            microseconds,
        )
    }

    #[test]
    fn each_action_changes_a_register_as_it_says() {
        let (mask, value) = (0xF0, 0x50);
        for (action, written) in [
            (Action::Write(7), 7),
            (Action::WriteHalf(7), 7),
            (Action::Set(3), 0x1003),
            (Action::Clear(0x1000), 0),
            (Action::Replace { mask, value }, 0x1050),
            (Action::WriteEntry, 0x4000_8000),
        ] {
            assert_eq!(
                done(action, &[0x1000]),
                (vec![written], vec![0x1000], 0),
                "{action:?}"
            );
        }
    }

    #[test]
    fn a_wait_ends_with_its_value_or_its_time() {
        let wait = Action::Wait { mask: 2, value: 2 };
        assert_eq!(done(wait, &[0, 1, 2, 5]), (vec![], vec![5], 60));
        for (action, least) in [(wait, u64::from(PATIENCE)), (Action::Delay(1000), 1000)] {
            let (writes, _, microseconds) = done(action, &[0]);
            assert_eq!(writes, []);
            assert!(
                (least..least + 100).contains(&microseconds),
                "{microseconds}"
            );
        }
    }

    #[test]
    fn a_machine_that_does_not_end_says_what_was_tried() {
        assert!(why(None).contains("not read yet"));
        assert!(why(Some((false, false))).contains("no PSCI"));
        assert!(why(Some((true, false))).contains("firmware refuses"));
    }
}
