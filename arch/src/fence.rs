//! A memory barrier on every CPU, for erratum 798181 ([`crate::errata::Invalidation`]).
//!
//! On such a processor a broadcast TLB invalidate counts as complete although accesses of other CPUs by the old translation
//! are still under way; they are over when those CPUs have executed a DMB. So whoever has invalidated asks all others for
//! one, and waits. Each answers when it comes to an interrupt, and wherever it waits itself: for a lock, or for answers of
//! its own. No CPU waits for another one without answering, so none waits for ever.
//!
//! Requests are numbered; one answer is good for all requests before it. Where nobody asks, an answer is two loads.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::barrier::dmb_ish;
use crate::cpu::{CpuId, CpuSet, MAX_CPUS};
use crate::smp;

static FENCE: Fence = Fence::new();

/// Asks all CPUs for a barrier. They are to be told by an interrupt.
pub fn ask() -> Request {
    FENCE.ask()
}

/// Executes a barrier on this CPU, if one is asked for.
#[inline]
pub fn answer() {
    FENCE.answer(smp::this_cpu());
}

/// Returns whether every CPU of `cpus` has executed a barrier since `request`.
pub fn is_answered(request: Request, cpus: CpuSet) -> bool {
    FENCE.is_answered(request, cpus)
}

/// Requests so far, and what each CPU has answered.
struct Fence {
    asked: AtomicU32,
    answered: [AtomicU32; MAX_CPUS],
}

/// The number of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request(u32);

impl Fence {
    const fn new() -> Self {
        Self {
            asked: AtomicU32::new(0),
            answered: [const { AtomicU32::new(0) }; MAX_CPUS],
        }
    }

    fn ask(&self) -> Request {
        // Sequentially consistent, as what the barrier is for comes before it.
        Request(self.asked.fetch_add(1, Ordering::SeqCst).wrapping_add(1))
    }

    /// `cpu` is the caller's own.
    #[inline]
    fn answer(&self, cpu: CpuId) {
        let asked = self.asked.load(Ordering::Relaxed);
        let answered = &self.answered[cpu.index() % MAX_CPUS];
        if answered.load(Ordering::Relaxed) != asked {
            dmb_ish();
            // Pairs with `is_answered`: the barrier is before it.
            answered.store(asked, Ordering::Release);
        }
    }

    fn is_answered(&self, request: Request, cpus: CpuSet) -> bool {
        cpus.iter().all(|cpu| {
            let answered = self.answered[cpu.index() % MAX_CPUS].load(Ordering::Acquire);
            answered.wrapping_sub(request.0) <= u32::MAX / 2
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{AtomicU32, Fence, Ordering};
    use crate::cpu::{CpuId, CpuSet};

    fn cpu(number: u32) -> CpuId {
        CpuId::new(number).unwrap()
    }

    fn others() -> CpuSet {
        [cpu(1), cpu(2)].into_iter().collect()
    }

    #[test]
    fn a_request_is_through_when_all_have_answered_since() {
        let fence = Fence::new();
        fence.answer(cpu(1));
        let request = fence.ask();
        assert!(!fence.is_answered(request, others()));
        fence.answer(cpu(1));
        assert!(!fence.is_answered(request, others()));
        fence.answer(cpu(2));
        assert!(fence.is_answered(request, others()));
        assert!(fence.is_answered(request, CpuSet::EMPTY));
    }

    #[test]
    fn an_answer_is_good_for_all_requests_before_it_and_for_none_after() {
        let fence = Fence::new();
        let (first, second) = (fence.ask(), fence.ask());
        fence.answer(cpu(1));
        fence.answer(cpu(2));
        let third = fence.ask();
        let through = |request| fence.is_answered(request, others());
        assert!(through(first) && through(second) && !through(third));
    }

    #[test]
    fn numbers_may_begin_anew() {
        let fence = Fence::new();
        fence.asked.store(u32::MAX, Ordering::Relaxed);
        fence.answer(cpu(1));
        fence.answer(cpu(2));
        let request = fence.ask();
        assert!(!fence.is_answered(request, others()));
        fence.answer(cpu(1));
        fence.answer(cpu(2));
        assert!(fence.is_answered(request, others()));
    }

    #[test]
    fn two_who_ask_each_other_and_answer_while_they_wait_both_go_on() {
        let (fence, done) = (&Fence::new(), &AtomicU32::new(0));
        std::thread::scope(|scope| {
            for (own, other) in [(cpu(1), cpu(2)), (cpu(2), cpu(1))] {
                scope.spawn(move || {
                    for _ in 0..1000 {
                        let request = fence.ask();
                        while !fence.is_answered(request, [other].into_iter().collect()) {
                            fence.answer(own);
                            std::thread::yield_now();
                        }
                    }
                    // As a CPU in its guest does, by an interrupt.
                    done.fetch_add(1, Ordering::SeqCst);
                    while done.load(Ordering::SeqCst) < 2 {
                        fence.answer(own);
                        std::thread::yield_now();
                    }
                });
            }
        });
    }
}
