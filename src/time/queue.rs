//! The armed timers of one CPU, by deadline.

use alloc::collections::TryReserveError;
use alloc::vec::Vec;

use super::Ticks;
use crate::pqueue::PriorityQueue;

/// The timers armed on one CPU. Arming does not allocate.
pub(super) struct TimerQueue<K> {
    queue: PriorityQueue<Ticks>,
    /// Keys by id; out of date for a timer that is not armed.
    keys: Vec<Option<K>>,
}

impl<K: Copy> TimerQueue<K> {
    /// Returns an empty queue without ids.
    pub const fn new() -> Self {
        Self {
            queue: PriorityQueue::new(),
            keys: Vec::new(),
        }
    }

    /// Reserves ids `0..ids` for arming.
    pub fn reserve(&mut self, ids: u16) -> Result<(), TryReserveError> {
        self.queue.reserve_ids(ids)?;
        let missing = usize::from(ids).saturating_sub(self.keys.len());
        self.keys.try_reserve(missing)?;
        self.keys.extend(core::iter::repeat_n(None, missing));
        Ok(())
    }

    /// Makes `id` expire at `deadline` with `key`, replacing what was set before.
    pub fn arm(&mut self, id: u16, key: K, deadline: Ticks) {
        if let Some(slot) = self.keys.get_mut(usize::from(id)) {
            *slot = Some(key);
            self.queue.insert(id, deadline);
        }
    }

    /// Disarms `id`. Returns its deadline if it was armed.
    pub fn cancel(&mut self, id: u16) -> Option<Ticks> {
        self.queue.remove(id)
    }

    /// Returns the key of the timer with the earliest deadline.
    pub fn first(&self) -> Option<K> {
        let (id, _) = self.queue.first()?;
        self.keys.get(usize::from(id)).copied().flatten()
    }

    /// Returns the earliest deadline.
    pub fn next(&self) -> Option<Ticks> {
        self.queue.first().map(|(_, deadline)| deadline)
    }

    /// Disarms one timer whose deadline is at or before `now` and returns its key. Call it until `None`.
    pub fn expire(&mut self, now: Ticks) -> Option<K> {
        let (id, deadline) = self.queue.first()?;
        if deadline > now {
            return None;
        }
        self.queue.remove(id);
        self.keys.get(usize::from(id)).copied().flatten()
    }
}
