//! The longest times with interrupts masked, and what took them.
//!
//! Only in builds with the feature `latency`, which measure every stretch from a guest's exit, or a wake-up, to the next
//! entry or wait, and keep the longest of each path. In other builds nothing is measured, and these functions are empty.
//!
//! Ticks are the system counter's. In an emulator they say something only where virtual time counts instructions.

/// The begin of a stretch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// A hypercall, by its number.
    Hypercall(u32),
    /// Another trap, by its exception class (HSR.EC).
    Trap(u32),
    /// An interrupt.
    Interrupt,
    /// A wake-up from idle.
    Idle,
}

#[cfg(not(feature = "latency"))]
mod measure {
    use super::Cause;

    /// Notes that interrupts are masked from now on.
    #[inline(always)]
    pub fn begin(_cause: impl FnOnce() -> Cause) {}

    /// Names the operation of the stretch that is under way.
    #[inline(always)]
    pub fn detail(_operation: u32) {}

    /// Interrupts are still masked, but one that waited would be let through now.
    #[inline(always)]
    pub fn look() {}

    /// Interrupts are let through.
    #[inline(always)]
    pub fn end() {}

    /// Shows the longest stretches, longest first: ticks, and what it was.
    pub fn report(_show: impl FnMut(u64, Cause, u32)) {}
}

#[cfg(feature = "latency")]
mod measure {
    use armv7::cpu::MAX_CPUS;
    use armv7::{smp, timer};
    use arrayvec::ArrayVec;

    use super::Cause;
    use crate::sync::{Lock, rank};

    /// Paths that are told apart.
    const PATHS: usize = 128;
    /// Beyond all numbers of operations.
    const OPERATIONS: u32 = 1 << 16;
    /// No operation was named.
    const NONE: u32 = u32::MAX;

    #[derive(Clone, Copy)]
    struct Stretch {
        since: u64,
        cause: Cause,
        operation: u32,
    }

    struct Longest {
        ticks: u64,
        cause: Cause,
        operation: u32,
    }

    struct Measures {
        now: [Option<Stretch>; MAX_CPUS],
        longest: ArrayVec<Longest, PATHS>,
    }

    static MEASURES: Lock<Measures, { rank::RUNSTATE }> = Lock::new(Measures {
        now: [None; MAX_CPUS],
        longest: ArrayVec::new_const(),
    });

    /// Notes that interrupts are masked from now on.
    pub fn begin(cause: impl FnOnce() -> Cause) {
        let since = timer::counter();
        MEASURES.lock().now[smp::this_cpu().index()] = Some(Stretch {
            since,
            cause: cause(),
            operation: NONE,
        });
    }

    /// Names the operation of the stretch that is under way, if it is a number and no pointer.
    pub fn detail(operation: u32) {
        if operation < OPERATIONS
            && let Some(stretch) = &mut MEASURES.lock().now[smp::this_cpu().index()]
        {
            stretch.operation = operation;
        }
    }

    /// Interrupts are still masked, but one that waited would be let through now.
    pub fn look() {
        let now = timer::counter();
        let measures = &mut *MEASURES.lock();
        if let Some(stretch) = measures.now[smp::this_cpu().index()] {
            measures.keep(&stretch, now);
            measures.now[smp::this_cpu().index()] = Some(Stretch {
                since: now,
                ..stretch
            });
        }
    }

    /// Interrupts are let through.
    pub fn end() {
        let now = timer::counter();
        let measures = &mut *MEASURES.lock();
        if let Some(stretch) = measures.now[smp::this_cpu().index()].take() {
            measures.keep(&stretch, now);
        }
    }

    impl Measures {
        /// Remembers a stretch that ended at `now`, if it is its path's longest.
        fn keep(&mut self, stretch: &Stretch, now: u64) {
            let ticks = now.saturating_sub(stretch.since);
            let same = |longest: &&mut Longest| {
                longest.cause == stretch.cause && longest.operation == stretch.operation
            };
            if let Some(longest) = self.longest.iter_mut().find(same) {
                longest.ticks = longest.ticks.max(ticks);
            } else if !self.longest.is_full() {
                self.longest.push(Longest {
                    ticks,
                    cause: stretch.cause,
                    operation: stretch.operation,
                });
            }
        }
    }

    /// Shows the longest stretches, longest first: ticks, and what it was.
    pub fn report(mut show: impl FnMut(u64, Cause, u32)) {
        const SHOWN: usize = 40;
        let by_length = |longest: &Longest| u64::MAX - longest.ticks;
        MEASURES.lock().longest.sort_unstable_by_key(by_length);
        for index in 0..SHOWN {
            // One at a time: nothing is printed under the lock.
            let measures = MEASURES.lock();
            let Some(&Longest {
                ticks,
                cause,
                operation,
            }) = measures.longest.get(index)
            else {
                return;
            };
            drop(measures);
            show(ticks, cause, operation);
        }
    }
}

pub use measure::{begin, detail, end, look, report};
