//! Time: ticks of the system counter, nanoseconds, and software timers multiplexed on one hardware timer per CPU.
//!
//! The hypervisor counts in ticks of the Generic Timer's system counter (DDI 0406C.d B8.1.1), which all CPUs share.
//! Guests and the ABI count in nanoseconds. [`Clock`] converts by multiplication, as the Cortex-A15 has no 64-bit
//! division. All arithmetic saturates: a deadline that overflows means "never" and not a time in the past (XSA-20).
//!
//! | file | contents |
//! |---|---|
//! | `timer.rs` | software timers, and programming of the hardware timer |
//! | `queue.rs` | the armed timers of one CPU by deadline |

mod queue;
mod timer;

use spin::Once;

use crate::pqueue::Key;

pub use timer::{
    Purpose, Timer, TimerError, expired, first, program, registered, set_turn_end, turn_is_over,
};

/// A point in time or a span, in ticks of the system counter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(transparent)]
pub struct Ticks(pub u64);

/// A point in time or a span, in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(transparent)]
pub struct Nanos(pub u64);

macro_rules! arithmetic {
    ($unit:ident) => {
        impl $unit {
            /// The start of the counter; an empty span.
            pub const ZERO: Self = Self(0);
            /// The largest value: never.
            pub const NEVER: Self = Self(u64::MAX);

            /// Returns the time `span` later, saturated.
            pub const fn plus(self, span: Self) -> Self {
                Self(self.0.saturating_add(span.0))
            }

            /// Returns the span since `earlier`, zero if `earlier` is later.
            pub const fn since(self, earlier: Self) -> Self {
                Self(self.0.saturating_sub(earlier.0))
            }
        }
    };
}

arithmetic!(Ticks);
arithmetic!(Nanos);

impl Key for Ticks {
    fn before(self, other: Self) -> bool {
        self < other
    }
}

/// Nanoseconds in a second.
const NS_PER_SECOND: u32 = 1_000_000_000;

/// A ratio as `mult / 2^shift`, with 32 significant bits: relative error below 2^-31, two seconds in 130 years.
#[derive(Clone, Copy, Debug)]
struct Ratio {
    mult: u32,
    shift: u32,
}

impl Ratio {
    /// Returns `numerator / denominator`, both non-zero. Divides, so for set-up only.
    const fn new(numerator: u32, denominator: u32) -> Self {
        let (numerator, denominator) = (numerator as u64, denominator as u64);
        let mut shift = 0;
        // At most 2^63: both factors are below 2^32, and so must the quotient be.
        while numerator << (shift + 1) <= u64::MAX >> 2
            && (numerator << (shift + 1)) / denominator < u32::MAX as u64
        {
            shift += 1;
        }
        let mult = ((numerator << shift) + denominator / 2) / denominator;
        Self {
            mult: mult as u32,
            shift,
        }
    }

    /// Returns `value` times the ratio, rounded down and saturated. Two 32-bit multiplications.
    #[inline(always)]
    const fn of(self, value: u64) -> u64 {
        let low = (value & 0xFFFF_FFFF) * self.mult as u64;
        // At most (2^32-1)^2 + 2^32-1, so the sum does not wrap.
        let high = ((value >> 32) * self.mult as u64).wrapping_add(low >> 32);
        if self.shift >= 32 {
            return high >> (self.shift - 32);
        }
        if high >> (32 + self.shift) != 0 {
            return u64::MAX;
        }
        high << (32 - self.shift) | (low & 0xFFFF_FFFF) >> self.shift
    }
}

/// Conversions for the system counter's frequency.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    hz: u32,
    to_ns: Ratio,
    to_ticks: Ratio,
}

impl Clock {
    /// Returns a clock of `hz` ticks per second (CNTFRQ); `None` below 1 kHz, where firmware has not set CNTFRQ.
    pub const fn new(hz: u32) -> Option<Self> {
        if hz < 1000 {
            return None;
        }
        Some(Self {
            hz,
            to_ns: Ratio::new(NS_PER_SECOND, hz),
            to_ticks: Ratio::new(hz, NS_PER_SECOND),
        })
    }

    /// Returns the ticks per second.
    pub const fn hz(&self) -> u32 {
        self.hz
    }

    /// Converts `ticks` to nanoseconds, rounded down.
    #[inline(always)]
    pub const fn ns(&self, ticks: Ticks) -> Nanos {
        Nanos(self.to_ns.of(ticks.0))
    }

    /// Converts `ns` to ticks, rounded down. For spans.
    pub const fn ticks(&self, ns: Nanos) -> Ticks {
        Ticks(self.to_ticks.of(ns.0))
    }

    /// Returns the first tick at which [`Clock::ns`] is at least `ns`. For deadlines, which must not fire early.
    pub const fn deadline(&self, ns: Nanos) -> Ticks {
        Ticks(self.to_ticks.of(ns.0).saturating_add(1))
    }
}

/// Placeholder frequency before [`init`].
const EARLY_HZ: u32 = 1_000_000;
static EARLY_CLOCK: Clock = match Clock::new(EARLY_HZ) {
    Some(clock) => clock,
    None => panic!("the frequency is in range"),
};
static CLOCK: Once<Clock> = Once::new();

/// Sets the frequency of the system counter, in Hz. Returns `None` if it is below 1 kHz. Only the first call has an
/// effect.
pub fn init(hz: u32) -> Option<&'static Clock> {
    Clock::new(hz).map(|clock| CLOCK.call_once(|| clock))
}

/// Returns the clock. Before [`init`] its frequency is a placeholder.
pub fn clock() -> &'static Clock {
    CLOCK.get().unwrap_or(&EARLY_CLOCK)
}

/// Returns the system counter's value.
pub fn now() -> Ticks {
    Ticks(armv7::timer::counter())
}

/// Returns the time since the system counter started, in nanoseconds.
pub fn now_ns() -> Nanos {
    clock().ns(now())
}

#[cfg(test)]
mod tests;
