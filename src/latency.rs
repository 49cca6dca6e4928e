//! The longest times with interrupts masked, and what took them.
//!
//! Only in builds with the feature `latency`, which measure every stretch from a guest's exit, or a wake-up, to the next
//! entry or wait, and keep the longest of each path. In other builds nothing is measured, and these functions are empty.
//!
//! Ticks are the system counter's. In an emulator they say something only where virtual time counts instructions.

/// What a stretch began with.
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

    /// Interrupts are masked from now on.
    #[inline(always)]
    pub fn begin(_cause: impl FnOnce() -> Cause) {}

    /// Names the operation of the stretch that is under way.
    #[inline(always)]
    pub fn detail(_operation: u32) {}

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

    /// Interrupts are masked from now on.
    pub fn begin(cause: impl FnOnce() -> Cause) {
        let since = timer::counter();
        MEASURES.lock().now[smp::this_cpu().index()] = Some(Stretch {
            since,
            cause: cause(),
            operation: NONE,
        });
    }

    /// Names the operation of the stretch that is under way.
    pub fn detail(operation: u32) {
        if let Some(stretch) = &mut MEASURES.lock().now[smp::this_cpu().index()] {
            stretch.operation = operation;
        }
    }

    /// Interrupts are let through.
    pub fn end() {
        let now = timer::counter();
        let measures = &mut *MEASURES.lock();
        let Some(stretch) = measures.now[smp::this_cpu().index()].take() else {
            return;
        };
        let ticks = now.saturating_sub(stretch.since);
        let same = |longest: &&mut Longest| {
            longest.cause == stretch.cause && longest.operation == stretch.operation
        };
        match measures.longest.iter_mut().find(same) {
            Some(longest) => longest.ticks = longest.ticks.max(ticks),
            None => {
                let _ = measures.longest.try_push(Longest {
                    ticks,
                    cause: stretch.cause,
                    operation: stretch.operation,
                });
            }
        }
    }

    /// Shows the longest stretches, longest first: ticks, and what it was.
    pub fn report(mut show: impl FnMut(u64, Cause, u32)) {
        const SHOWN: usize = 20;
        let mut shown = u64::MAX;
        for _ in 0..SHOWN {
            // One at a time: nothing is printed under the lock.
            let measures = MEASURES.lock();
            let next = measures
                .longest
                .iter()
                .filter(|longest| longest.ticks < shown)
                .max_by_key(|longest| longest.ticks)
                .map(|longest| (longest.ticks, longest.cause, longest.operation));
            drop(measures);
            let Some((ticks, cause, operation)) = next else {
                return;
            };
            show(ticks, cause, operation);
            shown = ticks;
        }
    }
}

pub use measure::{begin, detail, end, report};
