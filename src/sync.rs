//! The lock of `src/`: a fair ticket lock with a rank.
//!
//! Locks are taken in increasing rank; two of one rank are taken by lower domain id first, then lower vCPU id
//! (docs/locking.md). The fields a lock protects live inside it. Interrupts are masked whenever our code runs, so a lock
//! needs no IRQ handling of its own.

use core::fmt;
use core::ops::{Deref, DerefMut};

use spin::mutex::{TicketMutex, TicketMutexGuard};

/// Order in which locks nest, outermost first.
pub mod rank {
    /// A vCPU's registers: held by the CPU that runs it, around everything it does.
    pub const REGISTERS: u8 = 5;
    /// One change of a domain's life at a time; taken only by trying.
    pub const CONTROL: u8 = 8;
    /// Table of live domains.
    pub const REGISTRY: u8 = 10;
    /// A domain's life cycle.
    pub const DOMAIN: u8 = 20;
    /// A domain's grant table.
    pub const GRANT: u8 = 30;
    /// A domain's event channels.
    pub const EVENT: u8 = 40;
    /// A domain's stage-2 map.
    pub const P2M: u8 = 50;
    /// A domain's virtual distributor and a vCPU's interrupts.
    pub const VGIC: u8 = 60;
    /// Host interrupt table.
    pub const IRQ: u8 = 65;
    /// Where a vCPU starts that is being switched on.
    pub const START: u8 = 68;
    /// Run queues.
    pub const SCHED: u8 = 70;
    /// A vCPU's time accounting.
    pub const RUNSTATE: u8 = 72;
    /// Timer queues.
    pub const TIMER: u8 = 75;
    /// Page-frame allocator.
    pub const PAGES: u8 = 80;
    /// Small-object heap and hypervisor mappings.
    pub const HEAP: u8 = 85;
    /// Console ring and UART.
    pub const CONSOLE: u8 = 90;
}

/// A fair lock over `T` at place `RANK` in the order of [`rank`].
pub struct Lock<T, const RANK: u8> {
    inner: TicketMutex<T>,
}

impl<T, const RANK: u8> Lock<T, RANK> {
    /// A lock that holds `value`.
    pub const fn new(value: T) -> Self {
        Self {
            inner: TicketMutex::new(value),
        }
    }

    /// Waits for the lock and takes it.
    #[inline]
    pub fn lock(&self) -> Guard<'_, T> {
        Guard {
            inner: self.inner.lock(),
        }
    }

    /// Takes the lock if it is free.
    #[inline]
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        self.inner.try_lock().map(|inner| Guard { inner })
    }

    /// Opens the lock although somebody may hold it: only for a panic's last words.
    pub fn force_unlock(&self) {
        armv7::break_lock(&self.inner);
    }

    /// The value, when nobody else can have it.
    pub fn get_mut(&mut self) -> &mut T {
        self.inner.get_mut()
    }
}

impl<T, const RANK: u8> fmt::Debug for Lock<T, RANK> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lock<rank {RANK}>")
    }
}

/// Access to what a [`Lock`] protects, for as long as it lives.
pub struct Guard<'a, T> {
    inner: TicketMutexGuard<'a, T>,
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}
