//! Time: the system counter's ticks, nanoseconds, and the software timers that hang off one hardware timer per CPU.
//!
//! The hypervisor counts in ticks of the Generic Timer's system counter (DDI 0406C.d B8.1.1), which all CPUs share;
//! guests and the ABI speak nanoseconds. [`Clock`] converts with a multiplication, since the Cortex-A15 has no 64-bit
//! division. All arithmetic saturates: a deadline beyond the end of time is "never", not "long ago" (XSA-20).
//!
//! | file | question |
//! |---|---|
//! | `timer.rs` | who is to be called when, and what is the hardware timer programmed for? |
//! | `queue.rs` | which deadline of a CPU comes first? |

mod queue;
mod timer;

use spin::Once;

use crate::pqueue::Key;

pub use timer::{
    Purpose, Timer, TimerError, expired, program, registered, set_turn_end, turn_is_over,
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
            /// When the counter started; a span of no length.
            pub const ZERO: Self = Self(0);
            /// The end of time.
            pub const NEVER: Self = Self(u64::MAX);

            /// The point `span` later, at most the end of time.
            #[inline]
            pub const fn plus(self, span: Self) -> Self {
                Self(self.0.saturating_add(span.0))
            }

            /// The span since `earlier`, zero when that is in the future.
            #[inline]
            pub const fn since(self, earlier: Self) -> Self {
                Self(self.0.saturating_sub(earlier.0))
            }
        }
    };
}

arithmetic!(Ticks);
arithmetic!(Nanos);

impl Key for Ticks {
    #[inline]
    fn before(self, other: Self) -> bool {
        self < other
    }
}

/// Nanoseconds in a second.
const NS_PER_SECOND: u32 = 1_000_000_000;

/// A ratio as `mult / 2^shift`, with 32 significant bits: off by less than 2^-31, two seconds in 130 years.
#[derive(Clone, Copy, Debug)]
struct Ratio {
    mult: u32,
    shift: u32,
}

impl Ratio {
    /// `numerator / denominator`, both non-zero. Divides, so for set-up only.
    const fn new(numerator: u32, denominator: u32) -> Self {
        let (numerator, denominator) = (numerator as u64, denominator as u64);
        let mut shift = 0;
        // Up to 2^63: both factors are below 2^32 and the quotient must stay below it too.
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

    /// `value` times the ratio, rounded down, at most `u64::MAX`. Two 32-bit multiplications.
    #[inline(always)]
    const fn of(self, value: u64) -> u64 {
        let low = (value & 0xFFFF_FFFF) * self.mult as u64;
        // At most (2^32-1)^2 + 2^32-1, so nothing wraps.
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

/// The system counter's frequency, ready for conversions.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    hz: u32,
    to_ns: Ratio,
    to_ticks: Ratio,
}

impl Clock {
    /// Returns a counter of `hz` ticks per second (CNTFRQ); `None` below 1 kHz, where firmware forgot to set it.
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

    /// `ticks` in nanoseconds, rounded down.
    #[inline(always)]
    pub const fn ns(&self, ticks: Ticks) -> Nanos {
        Nanos(self.to_ns.of(ticks.0))
    }

    /// `ns` in ticks, rounded down: for spans.
    #[inline]
    pub const fn ticks(&self, ns: Nanos) -> Ticks {
        Ticks(self.to_ticks.of(ns.0))
    }

    /// Returns the first tick at which [`Clock::ns`] has surely reached `ns`: for deadlines, which must not fire early.
    #[inline]
    pub const fn deadline(&self, ns: Nanos) -> Ticks {
        Ticks(self.to_ticks.of(ns.0).saturating_add(1))
    }
}

/// A frequency like another, for what is asked before [`init`].
const EARLY_HZ: u32 = 1_000_000;
static EARLY_CLOCK: Clock = match Clock::new(EARLY_HZ) {
    Some(clock) => clock,
    None => panic!("the frequency is in range"),
};
static CLOCK: Once<Clock> = Once::new();

/// Sets the frequency of the system counter, in Hz; `None` for one that cannot be. Only the first call counts.
pub fn init(hz: u32) -> Option<&'static Clock> {
    Clock::new(hz).map(|clock| CLOCK.call_once(|| clock))
}

/// Returns the clock. Before [`init`] its seconds are not those of the world.
#[inline]
pub fn clock() -> &'static Clock {
    CLOCK.get().unwrap_or(&EARLY_CLOCK)
}

/// Returns the system counter's value.
#[inline]
pub fn now() -> Ticks {
    Ticks(armv7::timer::counter())
}

/// Returns the time since the system counter started.
pub fn now_ns() -> Nanos {
    clock().ns(now())
}

#[cfg(test)]
mod tests;
