//! A memory barrier on every CPU, for erratum 798181 ([`crate::errata::Invalidation`]).
//!
//! On an affected processor a broadcast TLB invalidate completes while other CPUs' accesses by the old translation are
//! still in progress. They end when those CPUs have executed a DMB. So a CPU that has invalidated requests a barrier
//! from all others, and waits. A CPU acknowledges when it takes an interrupt, and wherever it waits itself: for a lock,
//! or for acknowledgements of its own request. As every waiting CPU acknowledges, there is no deadlock.
//!
//! Requests are numbered; an acknowledgement covers all requests before it. Without a request, acknowledging is two
//! loads.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::barrier::dmb_ish;
use crate::cpu::{CpuId, CpuSet, MAX_CPUS};
use crate::smp;

static FENCE: Fence = Fence::new();

/// Requests a barrier from all CPUs. The caller must interrupt them.
pub fn request() -> Request {
    FENCE.request()
}

/// Executes a barrier on this CPU if one is requested.
pub fn acknowledge() {
    FENCE.acknowledge(smp::this_cpu());
}

/// Returns whether every CPU of `cpus` has executed a barrier since `request`.
pub fn is_acknowledged(request: Request, cpus: CpuSet) -> bool {
    FENCE.is_acknowledged(request, cpus)
}

/// Number of requests, and the last one each CPU has acknowledged.
struct Fence {
    requested: AtomicU32,
    acknowledged: [AtomicU32; MAX_CPUS],
}

/// Number of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request(u32);

impl Fence {
    const fn new() -> Self {
        Self {
            requested: AtomicU32::new(0),
            acknowledged: [const { AtomicU32::new(0) }; MAX_CPUS],
        }
    }

    fn request(&self) -> Request {
        // Sequentially consistent: the accesses that the barrier orders come before the request.
        Request(
            self.requested
                .fetch_add(1, Ordering::SeqCst)
                .wrapping_add(1),
        )
    }

    /// Acknowledges all requests. `cpu` must be the current CPU.
    fn acknowledge(&self, cpu: CpuId) {
        let requested = self.requested.load(Ordering::Relaxed);
        let acknowledged = &self.acknowledged[cpu.index() % MAX_CPUS];
        if acknowledged.load(Ordering::Relaxed) != requested {
            dmb_ish();
            // Release: pairs with `is_acknowledged`, so the barrier comes before.
            acknowledged.store(requested, Ordering::Release);
        }
    }

    fn is_acknowledged(&self, request: Request, cpus: CpuSet) -> bool {
        cpus.iter().all(|cpu| {
            let acknowledged = self.acknowledged[cpu.index() % MAX_CPUS].load(Ordering::Acquire);
            acknowledged.wrapping_sub(request.0) <= u32::MAX / 2
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
    fn a_request_is_through_when_all_have_acknowledged_since() {
        let fence = Fence::new();
        fence.acknowledge(cpu(1));
        let request = fence.request();
        assert!(!fence.is_acknowledged(request, others()));
        fence.acknowledge(cpu(1));
        assert!(!fence.is_acknowledged(request, others()));
        fence.acknowledge(cpu(2));
        assert!(fence.is_acknowledged(request, others()));
        assert!(fence.is_acknowledged(request, CpuSet::EMPTY));
    }

    #[test]
    fn an_acknowledgement_is_good_for_all_requests_before_it_and_for_none_after() {
        let fence = Fence::new();
        let (first, second) = (fence.request(), fence.request());
        fence.acknowledge(cpu(1));
        fence.acknowledge(cpu(2));
        let third = fence.request();
        let through = |request| fence.is_acknowledged(request, others());
        assert!(through(first) && through(second) && !through(third));
    }

    #[test]
    fn numbers_may_begin_anew() {
        let fence = Fence::new();
        fence.requested.store(u32::MAX, Ordering::Relaxed);
        fence.acknowledge(cpu(1));
        fence.acknowledge(cpu(2));
        let request = fence.request();
        assert!(!fence.is_acknowledged(request, others()));
        fence.acknowledge(cpu(1));
        fence.acknowledge(cpu(2));
        assert!(fence.is_acknowledged(request, others()));
    }

    #[test]
    fn two_who_ask_each_other_and_acknowledge_while_they_wait_both_go_on() {
        let (fence, done) = (&Fence::new(), &AtomicU32::new(0));
        std::thread::scope(|scope| {
            for (own, other) in [(cpu(1), cpu(2)), (cpu(2), cpu(1))] {
                scope.spawn(move || {
                    for _ in 0..1000 {
                        let request = fence.request();
                        while !fence.is_acknowledged(request, [other].into_iter().collect()) {
                            fence.acknowledge(own);
                            std::thread::yield_now();
                        }
                    }
                    // As a CPU in its guest does, by an interrupt.
                    done.fetch_add(1, Ordering::SeqCst);
                    while done.load(Ordering::SeqCst) < 2 {
                        fence.acknowledge(own);
                        std::thread::yield_now();
                    }
                });
            }
        });
    }
}
