//! The log: `(XEN) ` lines on the console, thresholds from the command line, and a limit on what guests can cause.

use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::console;

struct Backend;

static BACKEND: Backend = Backend;

impl Log for Backend {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            console::write_fmt(format_args!("(XEN) {}\n", record.args()));
        }
    }

    fn flush(&self) {}
}

/// Starts the log. Everything up to information is printed until [`set_level`].
pub fn init() {
    // Fails only when called twice, and then the first call holds.
    let _ = log::set_logger(&BACKEND);
    log::set_max_level(LevelFilter::Info);
}

/// Sets what of the hypervisor's own lines is printed.
pub fn set_level(level: LevelFilter) {
    log::set_max_level(level);
}

static GUEST_LEVEL: AtomicU8 = AtomicU8::new(Level::Warn as u8);
/// Lines that guests have caused in the current period.
static GUEST_LINES: AtomicU32 = AtomicU32::new(0);
/// The period that is being counted.
static GUEST_PERIOD: AtomicU32 = AtomicU32::new(0);
/// Lines that guests may cause in one period.
const GUEST_BURST: u32 = 20;
/// A period is so many ticks of the system counter, as a shift: about a second at 62.5 MHz, a few at 24 MHz.
const PERIOD_SHIFT: u32 = 26;

/// Sets what of the lines that guests cause is printed.
pub fn set_guest_level(level: LevelFilter) {
    GUEST_LEVEL.store(level as u8, Ordering::Relaxed);
}

/// Whether a guest may cause a line now: its level is wanted, and the period's allowance not used up. Says how many lines
/// the last period has suppressed.
pub fn guest_may_log(level: Level) -> bool {
    if level as u8 > GUEST_LEVEL.load(Ordering::Relaxed) {
        return false;
    }
    let period = (armv7::timer::counter() >> PERIOD_SHIFT) as u32;
    if GUEST_PERIOD.swap(period, Ordering::Relaxed) != period {
        let dropped = GUEST_LINES
            .swap(0, Ordering::Relaxed)
            .saturating_sub(GUEST_BURST);
        if dropped != 0 {
            log::warn!("{dropped} guest messages suppressed");
        }
    }
    // A count, nothing is published by it; saturation would take 2^32 lines in one period.
    GUEST_LINES.fetch_add(1, Ordering::Relaxed) < GUEST_BURST
}

/// Logs a guest's mistake: limited in rate, with the domain's and vCPU's name.
#[macro_export]
macro_rules! guest_warn {
    ($vcpu:expr, $($arg:tt)+) => {
        if $crate::log::guest_may_log(::log::Level::Warn) {
            $crate::console::write_fmt(format_args!("(XEN) {} {}\n", $vcpu, format_args!($($arg)+)));
        }
    };
}
