//! The lock of `src/`: a spin lock with a rank.
//!
//! A free lock goes to the first CPU that tries, not to the one that has waited longest. A ticket lock would be fair,
//! but if the machine's CPUs are threads of an emulator, the next in turn may not be running while all others wait:
//! with eight CPUs on two cores that is most of the time. Critical sections are short (docs/locking.md), so no CPU
//! starves.
//!
//! Locks are taken in increasing rank; two of one rank are taken by lower domain id first, then lower vCPU id
//! (docs/locking.md). The fields a lock protects live inside it. Interrupts are masked while the hypervisor runs, so a
//! lock needs no IRQ handling.
//!
//! With debug assertions each CPU (on the host, each thread) records the ranks that it holds, and panics on waiting for
//! a lock against the order. Without them nothing is recorded.

use core::fmt;
use core::ops::{Deref, DerefMut};

use spin::mutex::{SpinMutex, SpinMutexGuard};

/// Order in which locks nest, outermost first.
pub mod rank {
    /// A vCPU's registers, held by the CPU that runs the vCPU.
    pub const REGISTERS: u8 = 5;
    /// Domains that are started again.
    pub const RESTARTS: u8 = 6;
    /// One change of a domain's life cycle at a time; only taken by `try_lock`.
    pub const CONTROL: u8 = 8;
    /// The devices of the machine and their owners.
    pub const DEVICES: u8 = 9;
    /// Table of live domains.
    pub const REGISTRY: u8 = 10;
    /// A domain's life cycle.
    pub const DOMAIN: u8 = 20;
    /// A domain's grant table.
    pub const GRANT: u8 = 30;
    /// A domain's event channels.
    pub const EVENT: u8 = 40;
    /// A domain's p2m.
    pub const P2M: u8 = 50;
    /// A domain's emulated UART.
    pub const UART: u8 = 55;
    /// A domain's virtual distributor and a vCPU's interrupts.
    pub const VGIC: u8 = 60;
    /// Host interrupt table.
    pub const IRQ: u8 = 65;
    /// Start address of a vCPU that is being switched on.
    pub const START: u8 = 68;
    /// Run queues.
    pub const SCHED: u8 = 70;
    /// A vCPU's time accounting.
    pub const RUNSTATE: u8 = 72;
    /// The timer that drains the console.
    pub const CONSOLE_TIMER: u8 = 73;
    /// Ids of timers.
    pub const TIMER_IDS: u8 = 74;
    /// Timer queues.
    pub const TIMER: u8 = 75;
    /// Page-frame allocator.
    pub const PAGES: u8 = 80;
    /// Small-object heap and hypervisor mappings.
    pub const HEAP: u8 = 85;
    /// Console ring and UART.
    pub const CONSOLE: u8 = 90;
}

/// A lock of `T` with rank `RANK`, see [`rank`].
pub struct Lock<T, const RANK: u8> {
    inner: SpinMutex<T>,
}

impl<T, const RANK: u8> Lock<T, RANK> {
    /// Returns a lock that holds `value`.
    pub const fn new(value: T) -> Self {
        Self {
            inner: SpinMutex::new(value),
        }
    }

    /// Takes the lock, waiting for it if necessary.
    #[cfg_attr(debug_assertions, track_caller)]
    pub fn lock(&self) -> Guard<'_, T> {
        let held = held::Rank::wait(RANK);
        let inner = self.inner.try_lock_weak();
        Guard {
            inner: inner.unwrap_or_else(|| self.wait()),
            _held: held,
        }
    }

    /// Not inlined, for size: `lock` has hundreds of callers.
    #[cold]
    #[inline(never)]
    fn wait(&self) -> SpinMutexGuard<'_, T> {
        loop {
            while self.inner.is_locked() {
                // The holder may be waiting for this CPU's acknowledgement.
                armv7::fence::acknowledge();
                core::hint::spin_loop();
            }
            if let Some(inner) = self.inner.try_lock_weak() {
                return inner;
            }
        }
    }

    /// Takes the lock if it is free.
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        self.inner.try_lock().map(|inner| Guard {
            inner,
            _held: held::Rank::take(RANK),
        })
    }

    /// Opens a lock that may be held. Only for a panic.
    pub fn force_unlock(&self) {
        held::forget(RANK);
        armv7::break_lock(&self.inner);
    }

    /// Returns the value. The exclusive borrow excludes other users.
    pub fn get_mut(&mut self) -> &mut T {
        self.inner.get_mut()
    }
}

impl<T, const RANK: u8> fmt::Debug for Lock<T, RANK> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lock<rank {RANK}>")
    }
}

/// Access to the value of a [`Lock`], which is released when dropped.
pub struct Guard<'a, T> {
    inner: SpinMutexGuard<'a, T>,
    _held: held::Rank,
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

/// The ranks that this CPU holds.
#[cfg(debug_assertions)]
mod held {
    use core::sync::atomic::{AtomicU64, Ordering};

    use super::rank;

    /// A set of 128 ranks, low half first.
    type Set = [AtomicU64; 2];

    #[cfg(not(target_os = "none"))]
    fn with<R>(f: impl FnOnce(&Set) -> R) -> R {
        std::thread_local! {
            static HELD: Set = const { [const { AtomicU64::new(0) }; 2] };
        }
        HELD.with(f)
    }

    #[cfg(target_os = "none")]
    fn with<R>(f: impl FnOnce(&Set) -> R) -> R {
        use armv7::cpu::MAX_CPUS;
        static HELD: [Set; MAX_CPUS] = [const { [const { AtomicU64::new(0) }; 2] }; MAX_CPUS];
        f(&HELD[armv7::smp::this_cpu().index() % MAX_CPUS])
    }

    fn get() -> u128 {
        with(|[low, high]| {
            u128::from(low.load(Ordering::Relaxed)) | u128::from(high.load(Ordering::Relaxed)) << 64
        })
    }

    fn change(f: impl FnOnce(u128) -> u128) {
        let set = f(get());
        with(|[low, high]| {
            low.store(set as u64, Ordering::Relaxed);
            high.store((set >> 64) as u64, Ordering::Relaxed);
        });
    }

    /// A held lock's rank, as a bit of the set.
    pub struct Rank(u8);

    impl Rank {
        /// Checks the order before waiting for a lock of `rank`.
        #[track_caller]
        pub fn wait(rank: u8) -> Self {
            let set = get();
            // Two domains' event channels are locked together, by the domains' ids; the second takes the next bit.
            let second = rank == rank::EVENT && set >> rank == 1;
            assert!(
                second || set >> rank == 0,
                "a lock of rank {rank} is taken while one of rank {} is held",
                127 - set.leading_zeros()
            );
            Self::take(rank + u8::from(second))
        }

        /// Records a lock of `rank` that was taken without waiting, which cannot deadlock.
        pub fn take(rank: u8) -> Self {
            change(|set| set | 1 << rank);
            Self(rank)
        }
    }

    impl Drop for Rank {
        fn drop(&mut self) {
            forget(self.0);
        }
    }

    /// Records that a lock of `rank` was released or opened by force.
    pub fn forget(rank: u8) {
        change(|set| set & !(1 << rank));
    }
}

/// Records nothing.
#[cfg(not(debug_assertions))]
mod held {
    pub struct Rank;

    impl Rank {
        #[inline(always)]
        pub fn wait(_: u8) -> Self {
            Self
        }
        #[inline(always)]
        pub fn take(_: u8) -> Self {
            Self
        }
    }

    #[inline(always)]
    pub fn forget(_: u8) {}
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::{Lock, rank};

    static EVENTS: Lock<u32, { rank::EVENT }> = Lock::new(0);
    static VGIC: Lock<u32, { rank::VGIC }> = Lock::new(0);

    #[test]
    fn locks_nest_upwards_and_may_be_dropped_in_any_order() {
        let (events, other) = (Lock::<u32, { rank::EVENT }>::new(0), EVENTS.lock());
        let second = events.lock();
        let vgic = VGIC.lock();
        drop(other);
        drop(second);
        drop(vgic);
        let _again = EVENTS.lock();
    }

    #[test]
    #[should_panic(expected = "a lock of rank 40 is taken while one of rank 50 is held")]
    fn a_lock_against_the_order_panics() {
        let inner: Lock<u32, { rank::P2M }> = Lock::new(0);
        let outer: Lock<u32, { rank::EVENT }> = Lock::new(0);
        let _inner = inner.lock();
        let _outer = outer.lock();
    }

    #[test]
    fn trying_is_not_waiting() {
        let inner: Lock<u32, { rank::P2M }> = Lock::new(0);
        let outer: Lock<u32, { rank::REGISTERS }> = Lock::new(0);
        let _inner = inner.lock();
        assert!(outer.try_lock().is_some());
    }
}
