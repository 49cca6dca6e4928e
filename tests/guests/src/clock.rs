//! The virtual counter as a stopwatch and as the guard of every wait.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::cp15;

static AT_ENTRY: AtomicU64 = AtomicU64::new(0);

pub(crate) fn note_entry() {
    AT_ENTRY.store(cp15::cntpct(), Ordering::Relaxed);
}

/// The physical counter when this guest began: what came between reset and here, in ticks.
pub fn at_entry() -> u64 {
    AT_ENTRY.load(Ordering::Relaxed)
}

/// Counter ticks in `microseconds`.
pub fn ticks(microseconds: u64) -> u64 {
    u64::from(cp15::cntfrq()) * microseconds / 1_000_000
}

/// Reads the virtual counter, not before what precedes it in program order.
#[inline(always)]
pub fn now() -> u64 {
    cp15::isb();
    cp15::cntvct()
}

/// Generous enough for a loaded emulator, short enough that a lost wake-up is a failure and not a hang.
pub const PATIENCE_US: u64 = 2_000_000;

/// Polls `condition` until it holds; false when it did not within `PATIENCE_US`.
#[must_use]
pub fn poll(condition: impl Fn() -> bool) -> bool {
    poll_for(PATIENCE_US, condition)
}

/// Polls `condition` for at most `microseconds`.
#[must_use]
pub fn poll_for(microseconds: u64, condition: impl Fn() -> bool) -> bool {
    let deadline = now() + ticks(microseconds);
    loop {
        if condition() {
            return true;
        }
        if now() >= deadline {
            return false;
        }
    }
}

/// Spins for `microseconds`.
pub fn delay(microseconds: u64) {
    let deadline = now() + ticks(microseconds);
    while now() < deadline {}
}
