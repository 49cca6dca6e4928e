//! Longest times with interrupts masked, and their causes.
//!
//! Only builds with the feature `latency` measure: each stretch from a guest's exit or a wake-up to the next entry or
//! wait, keeping the longest per path. In other builds these functions are empty.
//!
//! Ticks are the system counter's. In an emulator they mean something only if virtual time counts instructions.

/// Cause of a stretch.
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

    /// Begins a stretch: interrupts are masked from now on.
    #[inline(always)]
    pub fn begin(_cause: impl FnOnce() -> Cause) {}

    /// Sets the operation of the current stretch.
    #[inline(always)]
    pub fn detail(_operation: u32) {}

    /// Splits the current stretch: an interrupt that waits would be taken now.
    #[inline(always)]
    pub fn split() {}

    /// Ends the current stretch: interrupts are unmasked.
    #[inline(always)]
    pub fn end() {}

    /// Passes the longest stretches to `show`, longest first: ticks, cause, operation.
    pub fn report(_show: impl FnMut(u64, Cause, u32)) {}
}

#[cfg(feature = "latency")]
mod measure {
    use armv7::cpu::MAX_CPUS;
    use armv7::{smp, timer};
    use arrayvec::ArrayVec;

    use super::Cause;
    use crate::sync::{Lock, rank};

    /// Maximum number of paths.
    const PATHS: usize = 128;
    /// One past the highest operation number.
    const OPERATIONS: u32 = 1 << 16;
    /// No operation was set.
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

    /// Begins a stretch: interrupts are masked from now on.
    pub fn begin(cause: impl FnOnce() -> Cause) {
        let since = timer::counter();
        MEASURES.lock().now[smp::this_cpu().index()] = Some(Stretch {
            since,
            cause: cause(),
            operation: NONE,
        });
    }

    /// Sets the operation of the current stretch, unless it is a pointer.
    pub fn detail(operation: u32) {
        if operation < OPERATIONS
            && let Some(stretch) = &mut MEASURES.lock().now[smp::this_cpu().index()]
        {
            stretch.operation = operation;
        }
    }

    /// Splits the current stretch: an interrupt that waits would be taken now.
    pub fn split() {
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

    /// Ends the current stretch: interrupts are unmasked.
    pub fn end() {
        let now = timer::counter();
        let measures = &mut *MEASURES.lock();
        if let Some(stretch) = measures.now[smp::this_cpu().index()].take() {
            measures.keep(&stretch, now);
        }
    }

    impl Measures {
        /// Records a stretch that ended at `now`, if it is its path's longest.
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

    /// Passes the longest stretches to `show`, longest first: ticks, cause, operation.
    pub fn report(mut show: impl FnMut(u64, Cause, u32)) {
        const SHOWN: usize = 40;
        let by_length = |longest: &Longest| u64::MAX - longest.ticks;
        MEASURES.lock().longest.sort_unstable_by_key(by_length);
        for index in 0..SHOWN {
            // `show` prints, so the lock is not held across it.
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

pub use measure::{begin, detail, end, report, split};
