//! The armed timers of one CPU by deadline.

use alloc::collections::TryReserveError;
use alloc::vec::Vec;

use super::Ticks;
use crate::pqueue::PriorityQueue;

/// Timers that are armed on one CPU. Arming never allocates.
pub(super) struct TimerQueue<K> {
    queue: PriorityQueue<Ticks>,
    /// By id; that of a timer which is not armed is old.
    keys: Vec<Option<K>>,
}

impl<K: Copy> TimerQueue<K> {
    /// A queue that knows no id.
    pub const fn new() -> Self {
        Self {
            queue: PriorityQueue::new(),
            keys: Vec::new(),
        }
    }

    /// Makes timers `0..ids` ready to be armed.
    pub fn reserve(&mut self, ids: u16) -> Result<(), TryReserveError> {
        self.queue.reserve_ids(ids)?;
        let missing = usize::from(ids).saturating_sub(self.keys.len());
        self.keys.try_reserve(missing)?;
        self.keys.extend(core::iter::repeat_n(None, missing));
        Ok(())
    }

    /// Lets `id` expire at `deadline` as `key`, instead of whatever was set before.
    #[inline]
    pub fn arm(&mut self, id: u16, key: K, deadline: Ticks) {
        if let Some(slot) = self.keys.get_mut(usize::from(id)) {
            *slot = Some(key);
            self.queue.insert(id, deadline);
        }
    }

    /// Keeps `id` from expiring.
    #[inline]
    pub fn cancel(&mut self, id: u16) {
        self.queue.remove(id);
    }

    /// Returns the earliest deadline.
    #[inline]
    pub fn next(&self) -> Option<Ticks> {
        self.queue.first().map(|(_, deadline)| deadline)
    }

    /// Disarms one timer whose deadline `now` has reached and returns its key; call until `None`.
    #[inline]
    pub fn expire(&mut self, now: Ticks) -> Option<K> {
        let (id, deadline) = self.queue.first()?;
        if deadline > now {
            return None;
        }
        self.queue.remove(id);
        self.keys.get(usize::from(id)).copied().flatten()
    }
}
