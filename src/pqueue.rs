//! A priority queue of small ids that does not allocate after its ids are reserved.
//!
//! A binary heap with an index: `place[id]` is the position of an id in the heap, so any id can be moved or removed in
//! O(log n). The run queues and the software timers use it. Only [`PriorityQueue::reserve_ids`] allocates; inserting an
//! id that was not reserved fails.

use alloc::collections::TryReserveError;
use alloc::vec::Vec;

/// Order of a queue.
pub trait Key: Copy {
    /// Returns whether `self` comes before `other`.
    fn before(self, other: Self) -> bool;
}

#[derive(Clone, Copy)]
struct Entry<K> {
    key: K,
    id: u16,
}

/// Position of an id that is not in the queue.
const ABSENT: u16 = u16::MAX;

/// Ids below the reserved number, each at most once, lowest key first.
pub struct PriorityQueue<K> {
    heap: Vec<Entry<K>>,
    place: Vec<u16>,
}

impl<K> PriorityQueue<K> {
    /// Returns an empty queue without ids.
    pub const fn new() -> Self {
        Self {
            heap: Vec::new(),
            place: Vec::new(),
        }
    }
}

impl<K> Default for PriorityQueue<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Key> PriorityQueue<K> {
    /// Reserves ids `0..ids`. Ids reserved before stay reserved.
    pub fn reserve_ids(&mut self, ids: u16) -> Result<(), TryReserveError> {
        let ids = usize::from(ids);
        let missing = ids.saturating_sub(self.place.len());
        self.place.try_reserve(missing)?;
        self.heap.try_reserve(ids.saturating_sub(self.heap.len()))?;
        self.place.extend(core::iter::repeat_n(ABSENT, missing));
        Ok(())
    }

    /// Inserts `id` with `key`, or changes its key. Returns false if the id is not reserved.
    #[inline(always)]
    pub fn insert(&mut self, id: u16, key: K) -> bool {
        let entry = Entry { key, id };
        match self.place.get(usize::from(id)) {
            None => false,
            Some(&ABSENT) => {
                let end = self.heap.len();
                if end == self.heap.capacity() {
                    return false;
                }
                self.heap.push(entry);
                if end == 0 {
                    self.put(0, entry);
                } else {
                    self.sift_up(end, entry);
                }
                true
            }
            Some(&at) => {
                self.sift(usize::from(at), entry);
                true
            }
        }
    }

    /// Removes `id`. Returns its key.
    pub fn remove(&mut self, id: u16) -> Option<K> {
        let place = self.place.get_mut(usize::from(id))?;
        let at = usize::from(*place);
        let key = self.heap.get(at)?.key;
        *place = ABSENT;
        let last = self.heap.pop()?;
        if at < self.heap.len() {
            self.sift(at, last);
        }
        Some(key)
    }

    /// Removes the id with the lowest key.
    pub fn pop(&mut self) -> Option<(u16, K)> {
        let first = *self.heap.first()?;
        if let Some(place) = self.place.get_mut(usize::from(first.id)) {
            *place = ABSENT;
        }
        let last = self.heap.pop()?;
        if !self.heap.is_empty() {
            self.sift_down(0, last);
        }
        Some((first.id, first.key))
    }

    /// Returns the id with the lowest key.
    pub fn first(&self) -> Option<(u16, K)> {
        self.heap.first().map(|entry| (entry.id, entry.key))
    }

    /// Returns the entry at position `place` in the order of [`PriorityQueue::iter`].
    pub fn nth(&self, place: usize) -> Option<(u16, K)> {
        self.heap.get(place).map(|entry| (entry.id, entry.key))
    }

    /// Returns the key of `id`.
    pub fn key_of(&self, id: u16) -> Option<K> {
        let at = *self.place.get(usize::from(id))?;
        self.heap.get(usize::from(at)).map(|entry| entry.key)
    }

    /// Returns the number of queued ids.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Returns whether the queue is empty.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// Returns the entries: the lowest first, the others roughly in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (u16, K)> {
        self.heap.iter().map(|entry| (entry.id, entry.key))
    }

    fn sift(&mut self, at: usize, entry: Entry<K>) {
        let parent = at.checked_sub(1).and_then(|below| self.heap.get(below / 2));
        if parent.is_some_and(|parent| entry.key.before(parent.key)) {
            self.sift_up(at, entry);
        } else {
            self.sift_down(at, entry);
        }
    }

    fn sift_up(&mut self, mut at: usize, entry: Entry<K>) {
        while let Some(below) = at.checked_sub(1) {
            let Some(&parent) = self.heap.get(below / 2) else {
                break;
            };
            if !entry.key.before(parent.key) {
                break;
            }
            self.put(at, parent);
            at = below / 2;
        }
        self.put(at, entry);
    }

    fn sift_down(&mut self, mut at: usize, entry: Entry<K>) {
        loop {
            let left = at * 2 + 1;
            let Some(&left_entry) = self.heap.get(left) else {
                break;
            };
            let (child, child_entry) = match self.heap.get(left + 1) {
                Some(&right) if right.key.before(left_entry.key) => (left + 1, right),
                _ => (left, left_entry),
            };
            if !child_entry.key.before(entry.key) {
                break;
            }
            self.put(at, child_entry);
            at = child;
        }
        self.put(at, entry);
    }

    fn put(&mut self, at: usize, entry: Entry<K>) {
        if let Some(slot) = self.heap.get_mut(at) {
            *slot = entry;
        }
        if let Some(place) = self.place.get_mut(usize::from(entry.id)) {
            // Positions are below the number of ids, which are 16 bits.
            *place = at as u16;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Key, PriorityQueue};

    impl Key for u32 {
        fn before(self, other: Self) -> bool {
            self < other
        }
    }

    #[test]
    fn an_id_that_was_not_reserved_is_refused() {
        let mut queue = PriorityQueue::<u32>::new();
        assert!(!queue.insert(0, 1));
        queue.reserve_ids(2).unwrap();
        assert!(queue.insert(1, 1));
        assert!(!queue.insert(2, 1));
        assert_eq!(queue.remove(7), None);
        assert_eq!(queue.len(), 1);
    }

    #[test]
    fn ids_come_out_by_key_also_after_moving_and_removing() {
        let mut queue = PriorityQueue::<u32>::new();
        queue.reserve_ids(8).unwrap();
        for (id, key) in (0..8).zip([50, 20, 70, 10, 60, 30, 0, 40]) {
            assert!(queue.insert(id, key));
        }
        assert!(queue.insert(6, 65));
        assert_eq!(queue.remove(1), Some(20));
        assert_eq!(queue.remove(1), None);
        let order: Vec<u16> = core::iter::from_fn(|| queue.pop().map(|(id, _)| id)).collect();
        assert_eq!(order, [3, 5, 7, 0, 4, 6, 2]);
        assert!(queue.is_empty());
    }
}
