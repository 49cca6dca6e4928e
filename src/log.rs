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
/// Lines that guests may still cause in this period.
static GUEST_ALLOWANCE: AtomicU32 = AtomicU32::new(GUEST_BURST);
static GUEST_DROPPED: AtomicU32 = AtomicU32::new(0);
/// Lines that guests may cause in one period (a second: [`refill`]).
const GUEST_BURST: u32 = 20;

/// Sets what of the lines that guests cause is printed.
pub fn set_guest_level(level: LevelFilter) {
    GUEST_LEVEL.store(level as u8, Ordering::Relaxed);
}

/// Whether a guest may cause a line now: its level is wanted and there is some allowance left.
pub fn guest_may_log(level: Level) -> bool {
    if level as u8 > GUEST_LEVEL.load(Ordering::Relaxed) {
        return false;
    }
    let spent = GUEST_ALLOWANCE
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
        .is_ok();
    if !spent {
        GUEST_DROPPED.fetch_add(1, Ordering::Relaxed);
    }
    spent
}

/// Renews the allowance, once a second, and says what was dropped.
pub fn refill() {
    GUEST_ALLOWANCE.store(GUEST_BURST, Ordering::Relaxed);
    let dropped = GUEST_DROPPED.swap(0, Ordering::Relaxed);
    if dropped != 0 {
        log::warn!("{dropped} guest messages suppressed");
    }
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
