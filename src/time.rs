//! Time: the system counter's ticks, nanoseconds, and the software timers that hang off one hardware timer per CPU.
//!
//! The hypervisor counts in ticks of the Generic Timer's system counter (DDI 0406C.d B8.1.1), which all CPUs share;
//! guests and the ABI speak nanoseconds. [`Clock`] converts with a multiplication, since the Cortex-A15 has no 64-bit
//! division. All arithmetic saturates: a deadline beyond the end of time is "never", not "long ago" (XSA-20).
//!
//! [`TimerQueue`] keeps who wants to be called when, apart for each physical CPU. It neither reads the counter nor
//! programs a timer; the caller asks for [`TimerQueue::next`] and does both.

use alloc::vec::Vec;
use core::fmt;

use armv7::cpu::{CpuId, MAX_CPUS};

use crate::pqueue::{Key, PriorityQueue};

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
    /// A counter of `hz` ticks per second (CNTFRQ); `None` below 1 kHz, where firmware forgot to set it.
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

    /// Ticks per second.
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

    /// The first tick at which [`Clock::ns`] has surely reached `ns`: for deadlines, which must not fire early.
    #[inline]
    pub const fn deadline(&self, ns: Nanos) -> Ticks {
        Ticks(self.to_ticks.of(ns.0).saturating_add(1))
    }
}

/// A registered timer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(transparent)]
pub struct TimerId(u16);

/// Why a timer could not be registered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimerError {
    /// The heap is full.
    NoMemory,
    /// All ids are in use.
    NoId,
}

/// Highest number of timers; the queue's positions are 16 bits.
const MAX_TIMERS: usize = 0x8000;

#[derive(Clone, Copy)]
struct Timer<K> {
    key: K,
    /// CPU whose queue holds the timer while it is armed.
    cpu: CpuId,
}

/// Deadlines of registered timers, per physical CPU. A timer is armed on one CPU at a time; arming never allocates.
pub struct TimerQueue<K> {
    timers: Vec<Option<Timer<K>>>,
    queues: [PriorityQueue<Ticks>; MAX_CPUS],
}

impl<K: Copy> TimerQueue<K> {
    /// No timers.
    pub const fn new() -> Self {
        Self {
            timers: Vec::new(),
            queues: [const { PriorityQueue::new() }; MAX_CPUS],
        }
    }

    /// Makes a timer that [`TimerQueue::expire`] will announce as `key`.
    pub fn register(&mut self, key: K) -> Result<TimerId, TimerError> {
        let timer = Some(Timer {
            key,
            cpu: CpuId::BOOT,
        });
        let free = self.timers.iter().position(Option::is_none);
        let index = free.unwrap_or(self.timers.len());
        let id = u16::try_from(index)
            .ok()
            .filter(|_| index < MAX_TIMERS)
            .ok_or(TimerError::NoId)?;
        match self.timers.get_mut(index) {
            Some(slot) => *slot = timer,
            None => {
                self.timers
                    .try_reserve(1)
                    .map_err(|_| TimerError::NoMemory)?;
                for queue in &mut self.queues {
                    queue
                        .reserve_ids(id + 1)
                        .map_err(|_| TimerError::NoMemory)?;
                }
                self.timers.push(timer);
            }
        }
        Ok(TimerId(id))
    }

    /// Number of timers.
    pub fn registered(&self) -> usize {
        self.timers.iter().flatten().count()
    }

    /// Cancels and forgets a timer; its id may be given out again.
    pub fn unregister(&mut self, id: TimerId) {
        self.cancel(id);
        if let Some(slot) = self.timers.get_mut(usize::from(id.0)) {
            *slot = None;
        }
    }

    /// Lets `id` expire on `cpu` at `deadline`, instead of whatever was set before. The hardware timer of `cpu` must be
    /// programmed anew when [`TimerQueue::next`] changed.
    #[inline]
    pub fn arm(&mut self, id: TimerId, cpu: CpuId, deadline: Ticks) {
        let Some(Some(timer)) = self.timers.get_mut(usize::from(id.0)) else {
            return;
        };
        if timer.cpu != cpu {
            self.queues[timer.cpu.index()].remove(id.0);
            timer.cpu = cpu;
        }
        self.queues[cpu.index()].insert(id.0, deadline);
    }

    /// Keeps `id` from expiring. The hardware timer may then fire for nothing, once.
    #[inline]
    pub fn cancel(&mut self, id: TimerId) {
        if let Some(Some(timer)) = self.timers.get(usize::from(id.0)) {
            self.queues[timer.cpu.index()].remove(id.0);
        }
    }

    /// When and where `id` expires, if it is armed.
    pub fn armed(&self, id: TimerId) -> Option<(CpuId, Ticks)> {
        let timer = self.timers.get(usize::from(id.0))?.as_ref()?;
        let deadline = self.queues[timer.cpu.index()].key_of(id.0)?;
        Some((timer.cpu, deadline))
    }

    /// The earliest deadline on `cpu`.
    #[inline]
    pub fn next(&self, cpu: CpuId) -> Option<Ticks> {
        self.queues[cpu.index()]
            .first()
            .map(|(_, deadline)| deadline)
    }

    /// Disarms one timer of `cpu` whose deadline `now` has reached and returns its key; call until `None`.
    #[inline]
    pub fn expire(&mut self, cpu: CpuId, now: Ticks) -> Option<K> {
        let queue = &mut self.queues[cpu.index()];
        let (id, deadline) = queue.first()?;
        if deadline > now {
            return None;
        }
        queue.remove(id);
        self.timers
            .get(usize::from(id))?
            .as_ref()
            .map(|timer| timer.key)
    }
}

impl<K: Copy> Default for TimerQueue<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K> fmt::Debug for TimerQueue<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "TimerQueue<{} registered>",
            self.timers.iter().flatten().count()
        )
    }
}

#[cfg(test)]
mod tests;
