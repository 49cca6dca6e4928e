//! The log: `(XEN) ` lines on the console, with thresholds and time stamps from the command line, and a limit on lines
//! that guests cause.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use log::{Level, LevelFilter, Log, Metadata, Record};
use spin::Once;

use crate::cmdline::Timestamps;
use crate::console;
use crate::time::{Clock, Ticks};

mod allowance;
mod stamp;

pub use allowance::Allowance;
use stamp::{Moment, Stamp};

struct Backend;

static BACKEND: Backend = Backend;

impl Log for Backend {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            print(*record.args());
        }
    }

    fn flush(&self) {}
}

/// Starts the log at level info, until [`set_level`].
pub fn init() {
    // Fails only on a second call; the first one stays in effect.
    #[expect(
        clippy::let_underscore_must_use,
        reason = "a second call finds the same one set"
    )]
    let _ = log::set_logger(&BACKEND);
    log::set_max_level(LevelFilter::Info);
    console::remember();
    BOOT.store(armv7::timer::counter(), Ordering::Relaxed);
}

/// Sets the level of the hypervisor's own lines.
pub fn set_level(level: LevelFilter) {
    log::set_max_level(level);
}

/// Counter value at the start of the log.
static BOOT: AtomicU64 = AtomicU64::new(0);
/// Time of day at counter zero, in nanoseconds since 1970; 0 if unknown.
static DAY: AtomicU64 = AtomicU64::new(0);
/// Mode and clock of the stamps; unset until the command line is read.
static STAMPS: Once<(Timestamps, Clock)> = Once::new();

/// Adds stamps to lines from here on, for a counter of `hz` ticks per second. With an invalid frequency there are no
/// stamps, and the length of guests' periods is a guess.
pub fn set_timestamps(mode: Timestamps, hz: u32) {
    if let Some(clock) = Clock::new(hz) {
        STAMPS.call_once(|| (mode, clock));
        let shift = u64::from(hz).next_power_of_two().trailing_zeros();
        PERIOD_SHIFT.store(shift as u8, Ordering::Relaxed);
    }
}

/// Sets the time of day at counter zero, in nanoseconds since 1970.
pub fn set_time_of_day(at_zero: u64) {
    DAY.store(at_zero, Ordering::Relaxed);
}

fn stamp() -> Option<Stamp> {
    let (mode, clock) = STAMPS.get().filter(|(mode, _)| *mode != Timestamps::None)?;
    let ticks = armv7::timer::counter();
    let ns = |ticks| clock.ns(Ticks(ticks)).0;
    let day = DAY.load(Ordering::Relaxed);
    Some(Stamp {
        mode: *mode,
        moment: Moment {
            ticks,
            since_boot: ns(ticks.saturating_sub(BOOT.load(Ordering::Relaxed))),
            wall: (day != 0).then(|| day.saturating_add(ns(ticks))),
        },
    })
}

/// Prints a text at any level, each line with mark and stamp. Ends the last line.
pub fn print(text: fmt::Arguments<'_>) {
    write(text);
}

/// Prints as [`print`] does. Returns the number of bytes.
fn write(text: fmt::Arguments<'_>) -> u32 {
    let stamp = stamp();
    console::write_fmt(format_args!("{}", Lines { text, stamp }))
}

struct Lines<'a> {
    text: fmt::Arguments<'a>,
    stamp: Option<Stamp>,
}

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut marked = Marked {
            out: f,
            stamp: self.stamp,
            in_line: false,
        };
        marked.write_fmt(self.text)?;
        // Ends the last line, or makes the only line of an empty text.
        marked.write_str("\n")
    }
}

/// Adds mark and stamp to each line written.
struct Marked<'a, 'b> {
    out: &'a mut fmt::Formatter<'b>,
    stamp: Option<Stamp>,
    in_line: bool,
}

impl Write for Marked<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.split_inclusive('\n') {
            if !self.in_line {
                self.out.write_str("(XEN) ")?;
                if let Some(stamp) = self.stamp {
                    write!(self.out, "{stamp}")?;
                }
            }
            self.out.write_str(piece)?;
            self.in_line = !piece.ends_with('\n');
        }
        Ok(())
    }
}

static GUEST_LEVEL: AtomicU8 = AtomicU8::new(Level::Warn as u8);
/// The allowance of all guests together.
static ALL_GUESTS: Allowance = Allowance::of_all();
/// log2 of a period, in ticks of the system counter: one to two seconds.
static PERIOD_SHIFT: AtomicU8 = AtomicU8::new(26);

/// Sets the level of lines that guests cause.
pub fn set_guest_level(level: LevelFilter) {
    GUEST_LEVEL.store(level as u8, Ordering::Relaxed);
}

fn period() -> u32 {
    (armv7::timer::counter() >> PERIOD_SHIFT.load(Ordering::Relaxed)) as u32
}

/// Returns whether a guest may cause a line now: its level is enabled, and its `own` allowance is not used up. If so,
/// returns the number of the guest's lines suppressed before.
pub fn guest_may_log(level: Level, own: &Allowance) -> Option<u32> {
    if level as u8 > GUEST_LEVEL.load(Ordering::Relaxed) {
        return None;
    }
    let decision = own.request(period());
    decision.granted.then_some(decision.suppressed)
}

/// Prints a line caused by the guest `name`, after [`guest_may_log`], if the allowance of all guests is not used up and
/// the console has space. Reports the number of lines suppressed before.
#[cold]
pub fn print_for_guest(
    suppressed: u32,
    own: &Allowance,
    name: &dyn fmt::Display,
    text: fmt::Arguments<'_>,
) {
    let all = ALL_GUESTS.request(period());
    let mut cost = 0;
    if suppressed != 0 {
        cost += write(format_args!("{name}: {suppressed} messages suppressed"));
    }
    if all.suppressed != 0 {
        cost += write(format_args!("{} guest messages suppressed", all.suppressed));
    }
    if all.granted {
        if console::has_room() {
            cost += write(text);
        } else {
            ALL_GUESTS.refuse();
        }
    }
    own.charge(cost);
    ALL_GUESTS.charge(cost);
}

/// Logs a guest's mistake with the vCPU's name, rate-limited per domain.
#[macro_export]
macro_rules! guest_warn {
    ($domain:expr, $vcpu:expr, $($arg:tt)+) => {{
        let allowance = &$domain.log_allowance;
        if let Some(suppressed) = $crate::log::guest_may_log(::log::Level::Warn, allowance) {
            $crate::log::print_for_guest(
                suppressed,
                allowance,
                &$domain.id,
                format_args!("{} {}", $vcpu, format_args!($($arg)+)),
            );
        }
    }};
}

#[cfg(test)]
mod tests {
    use super::stamp::{Moment, Stamp};
    use super::{Allowance, Lines, guest_may_log, print_for_guest};
    use crate::cmdline::Timestamps;
    use log::Level;

    fn lines(text: &str, mode: Timestamps) -> String {
        let moment = Moment {
            ticks: 1,
            since_boot: 2_000_003_000,
            wall: None,
        };
        let stamp = Some(Stamp { mode, moment });
        let text = format_args!("{text}");
        Lines { text, stamp }.to_string()
    }

    #[test]
    fn each_line_of_a_text_is_marked() {
        assert_eq!(lines("one", Timestamps::None), "(XEN) one\n");
        assert_eq!(lines("", Timestamps::None), "(XEN) \n");
        assert_eq!(
            lines("one\n\ntwo", Timestamps::Boot),
            "(XEN) [    2.000003] one\n(XEN) [    2.000003] \n(XEN) [    2.000003] two\n"
        );
    }

    #[test]
    fn a_line_in_pieces_is_marked_once() {
        let (a, b) = ("pie", "ces");
        let text = format_args!("{a}{b}");
        assert_eq!(Lines { text, stamp: None }.to_string(), "(XEN) pieces\n");
    }

    #[test]
    fn a_guest_logs_up_to_its_level_and_its_allowance() {
        crate::console::remember();
        let from = crate::console::ring_start();
        let (noisy, other) = (Allowance::of_a_domain(), Allowance::of_a_domain());
        let say = |level, allowance: &Allowance, name: &str| {
            if let Some(suppressed) = guest_may_log(level, allowance) {
                print_for_guest(suppressed, allowance, &name, format_args!("{name} speaks"));
            }
        };
        say(Level::Debug, &noisy, "not wanted");
        for _ in 0..1000 {
            say(Level::Warn, &noisy, "noisy");
        }
        say(Level::Warn, &other, "other");
        let mut out = [0; 4096];
        let (count, _) = crate::console::read_ring(from, &mut out);
        let text = String::from_utf8_lossy(&out[..count]).into_owned();
        let lines = |what: &str| text.matches(what).count();
        assert_eq!(lines("(XEN) not wanted speaks\n"), 0);
        assert!((10..100).contains(&lines("(XEN) noisy speaks\n")), "{text}");
        assert_eq!(lines("(XEN) other speaks\n"), 1);
    }
}
