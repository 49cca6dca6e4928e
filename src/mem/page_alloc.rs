//! The free frames: a buddy allocator whose lists live in the frame table.
//!
//! Blocks of `1 << order` frames, aligned to their size in machine addresses, in four lists per order: inside the
//! direct map or beyond, clean or possibly dirty. A bitmap of orders that have blocks makes `take` O(order). Only a
//! block's first entry is accessed, whatever its size.
//!
//! Merging a page with its buddies, only to split the block for the next page, would dominate the cost of a page. So a
//! few single pages stay loose, and are allocated last in, first out. They are merged once an idle CPU has scrubbed
//! them, or when a block is wanted that needs them.
//!
//! Invariants:
//! 1. A frame is loose or in at most one block, and only if unused (`Free` head or `Inner`).
//! 2. A block of a clean list has no dirty frame. A frame of a dirty list may be clean, by its own bit.
//! 3. Buddies in the same list are merged. From 2 MiB on, clean and dirty ones are not, so that one dirty page does not
//!    make a gigabyte dirty; scrubbing makes them equal.
//! 4. A block lies on one side of the direct map's end.

use armv7::addr::{Mfn, ORDER_2M};
use arrayvec::ArrayVec;

use super::account::Accounts;
use super::frame_table::{FrameTable, Head, NIL, State};

/// Largest block: 1 GiB.
pub const MAX_ORDER: u32 = 18;
const ORDERS: usize = MAX_ORDER as usize + 1;
/// Maximum loose pages on each side of the direct map's end.
const MAX_LOOSE: usize = 16;

/// Use of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Memory that the hypervisor accesses through the direct map.
    Hypervisor,
    /// A guest's memory, from beyond the direct map if there is any.
    Guest,
}

/// A block taken from the allocator. The taker holds it, and all its frames are `Inner`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct Block {
    /// First frame.
    pub first: Mfn,
    /// log2 of the number of frames.
    pub order: u32,
    /// A frame may be dirty.
    pub dirty: bool,
}

/// The lists: side of the direct map's end, then cleanliness.
const NEAR_CLEAN: usize = 0;
const NEAR_DIRTY: usize = 1;
const FAR_CLEAN: usize = 2;
const FAR_DIRTY: usize = 3;

#[derive(Clone, Copy, Debug)]
struct Lists {
    heads: [u32; ORDERS],
    /// Bit n is set if `heads[n]` is not empty.
    orders: u32,
}

/// The free frames, and the domains' accounts.
#[derive(Debug)]
pub struct PageAllocator {
    frames: FrameTable,
    /// First frame beyond the direct map.
    direct_end: Mfn,
    lists: [Lists; 4],
    /// Free single pages that may be dirty and are in no list: inside the direct map, and beyond.
    loose: [ArrayVec<Mfn, MAX_LOOSE>; 2],
    free: u32,
    /// Frames being scrubbed by a CPU. They count as free, as they are unused and returned soon.
    scrubbing: u32,
    total: u32,
    /// Free frames reserved for the hypervisor.
    reserve: u32,
    /// Pages of each domain.
    pub accounts: Accounts,
}

impl PageAllocator {
    /// Returns an allocator without memory.
    pub fn new(frames: FrameTable, direct_end: Mfn) -> Self {
        let none = Lists {
            heads: [NIL; ORDERS],
            orders: 0,
        };
        Self {
            frames,
            direct_end,
            lists: [none; 4],
            loose: [ArrayVec::new_const(), ArrayVec::new_const()],
            free: 0,
            scrubbing: 0,
            total: 0,
            reserve: 0,
            accounts: Accounts::new(),
        }
    }

    /// Returns the number of free frames.
    pub fn free_pages(&self) -> u32 {
        self.free + self.scrubbing
    }

    /// Returns the number of free frames that guests may allocate.
    pub fn guest_pages(&self) -> u32 {
        self.free_pages().saturating_sub(self.reserve)
    }

    /// Returns the number of free frames that guests may allocate now, without those being scrubbed.
    pub fn guest_pages_at_hand(&self) -> u32 {
        self.free.saturating_sub(self.reserve)
    }

    /// Reserves `pages` free frames for the hypervisor.
    pub fn set_hyp_reserve(&mut self, pages: u32) {
        self.reserve = pages;
    }

    /// Returns the number of frames added at boot.
    pub fn total_pages(&self) -> u32 {
        self.total
    }

    /// Returns whether a free frame may be dirty.
    pub fn has_dirty(&self) -> bool {
        self.lists[NEAR_DIRTY].orders | self.lists[FAR_DIRTY].orders != 0 || self.has_loose()
    }

    fn has_loose(&self) -> bool {
        self.loose.iter().any(|side| !side.is_empty())
    }

    /// Merges the loose pages with their buddies.
    #[inline(never)]
    fn join_loose(&mut self) {
        for side in 0..self.loose.len() {
            while let Some(first) = self.loose[side].pop() {
                self.join(Block {
                    first,
                    order: 0,
                    dirty: true,
                });
            }
        }
    }

    /// Takes the loose page that was freed last.
    fn take_loose(&mut self, purpose: Purpose) -> Option<Block> {
        let [near, far] = &mut self.loose;
        let first = match purpose {
            Purpose::Hypervisor => near.pop(),
            Purpose::Guest => far.pop().or_else(|| near.pop()),
        }?;
        self.free -= 1;
        Some(Block {
            first,
            order: 0,
            dirty: true,
        })
    }

    /// Adds RAM at boot, unused and dirty. No frame may be added twice. Returns false if the frame table does not cover
    /// it.
    pub fn add_ram(&mut self, first: Mfn, count: u32) -> bool {
        if !self.frames.covers(first, count) {
            return false;
        }
        self.give(first, count, true);
        self.total += count;
        true
    }

    /// Takes a block for `purpose`.
    pub fn take(&mut self, order: u32, purpose: Purpose) -> Option<Block> {
        if order > MAX_ORDER {
            return None;
        }
        if order == 0
            && let Some(page) = self.take_loose(purpose)
        {
            return Some(page);
        }
        let block = self.take_joined(order, purpose);
        if block.is_none() && self.has_loose() {
            self.join_loose();
            return self.take_joined(order, purpose);
        }
        block
    }

    /// Takes a block from the lists.
    fn take_joined(&mut self, order: u32, purpose: Purpose) -> Option<Block> {
        let lists: &[usize] = match purpose {
            Purpose::Hypervisor => &[NEAR_CLEAN, NEAR_DIRTY],
            Purpose::Guest => &[FAR_CLEAN, FAR_DIRTY, NEAR_CLEAN, NEAR_DIRTY],
        };
        let list = *lists
            .iter()
            .find(|list| self.lists[**list].orders >> order != 0)?;
        let found = (self.lists[list].orders >> order).trailing_zeros() + order;
        let first = self.frames.at(self.lists[list].heads[found as usize])?;
        Some(self.take_from(first, found, first, order, list))
    }

    /// Takes all of `first..first + count`, or `None` if a frame is not free. Returns whether some may be dirty.
    pub fn take_range(&mut self, first: Mfn, count: u32) -> Option<bool> {
        if count == 0 || !self.frames.covers(first, count) {
            return None;
        }
        self.join_loose();
        let mut done = 0;
        while done < count {
            let at = first.checked_add(done)?;
            let (head, order, _) = self.block_of(at)?;
            done += (1 << order) - at.checked_sub(head)?;
        }
        let (mut done, mut dirty) = (0, false);
        while done < count {
            let at = first.checked_add(done)?;
            let (head, order, list) = self.block_of(at)?;
            let wanted = largest_order(at, count - done).min(order);
            let block = self.take_from(head, order, at, wanted, list);
            dirty |= block.dirty;
            done += 1 << wanted;
        }
        Some(dirty)
    }

    /// Takes a block of at most 2 MiB that may hold dirty frames, to be returned by [`Self::give_scrubbed`].
    pub fn take_dirty(&mut self) -> Option<Block> {
        if let Some(page) = self.take_loose(Purpose::Guest) {
            self.lend(page);
            return Some(page);
        }
        let list = [FAR_DIRTY, NEAR_DIRTY]
            .into_iter()
            .find(|list| self.lists[*list].orders != 0)?;
        let found = self.lists[list].orders.trailing_zeros();
        let first = self.frames.at(self.lists[list].heads[found as usize])?;
        let block = self.take_from(first, found, first, found.min(ORDER_2M), list);
        self.lend(block);
        Some(block)
    }

    /// Counts a taken block as free while it is being scrubbed, until [`Self::give_scrubbed`].
    pub fn lend(&mut self, block: Block) {
        self.scrubbing += 1 << block.order;
    }

    /// Returns a block of [`Self::take_dirty`] to the lists.
    pub fn give_scrubbed(&mut self, block: Block) {
        self.scrubbing = self.scrubbing.saturating_sub(1 << block.order);
        self.give_block(block);
    }

    /// Frees frames that the caller holds, all `Inner`. `dirty` if some may be.
    pub fn give(&mut self, first: Mfn, count: u32, dirty: bool) {
        let side = usize::from(first >= self.direct_end);
        if count == 1 && dirty && self.loose[side].try_push(first).is_ok() {
            self.free += 1;
            return;
        }
        let mut done = 0;
        while done < count {
            let Some(at) = first.checked_add(done) else {
                return;
            };
            let mut order = largest_order(at, count - done);
            while order > 0 && !self.one_sided(at, order) {
                order -= 1;
            }
            self.give_block(Block {
                first: at,
                order,
                dirty,
            });
            done += 1 << order;
        }
    }

    /// Frees a block and merges it with its buddies.
    pub fn give_block(&mut self, block: Block) {
        self.free += 1 << block.order;
        self.join(block);
    }

    /// Merges a block that counts as free with its buddies, and links the result.
    fn join(&mut self, block: Block) {
        let Block {
            mut first,
            mut order,
            mut dirty,
        } = block;
        while order < MAX_ORDER {
            let Some(buddy) = Mfn::new(u64::from(first.raw() ^ (1 << order))) else {
                break;
            };
            let lower = first.min(buddy);
            let Some(head) = self.frames.head(buddy) else {
                break;
            };
            let alike = head.dirty == dirty || order < ORDER_2M;
            if head.order != order || !alike || !self.one_sided(lower, order + 1) {
                break;
            }
            self.unlink(buddy, head);
            first = lower;
            order += 1;
            dirty |= head.dirty;
        }
        self.link(first, order, dirty);
    }

    /// Returns whether the block is on one side of the direct map's end.
    fn one_sided(&self, first: Mfn, order: u32) -> bool {
        let last = first.checked_add((1 << order) - 1);
        last.is_some_and(|last| (first < self.direct_end) == (last < self.direct_end))
    }

    fn list_of(&self, first: Mfn, dirty: bool) -> usize {
        match (first < self.direct_end, dirty) {
            (true, false) => NEAR_CLEAN,
            (true, true) => NEAR_DIRTY,
            (false, false) => FAR_CLEAN,
            (false, true) => FAR_DIRTY,
        }
    }

    /// Splits the free block `head` of order `found`, and takes the block of `order` at `wanted` inside it.
    fn take_from(&mut self, head: Mfn, found: u32, wanted: Mfn, order: u32, list: usize) -> Block {
        let dirty = list == NEAR_DIRTY || list == FAR_DIRTY;
        if let Some(linked) = self.frames.head(head) {
            self.unlink(head, linked);
        }
        let (mut at, mut left) = (head, found);
        while left > order {
            left -= 1;
            let upper = at.checked_add(1 << left).unwrap_or(at);
            let spare = if wanted >= upper {
                core::mem::replace(&mut at, upper)
            } else {
                upper
            };
            self.link(spare, left, dirty);
        }
        self.free -= 1 << order;
        Block {
            first: at,
            order,
            dirty,
        }
    }

    /// Returns the free block that contains `mfn`: first frame, order and list.
    fn block_of(&self, mfn: Mfn) -> Option<(Mfn, u32, usize)> {
        (0..=MAX_ORDER).find_map(|order| {
            let first = mfn.align_down(order);
            let head = self.frames.head(first)?;
            let inside = mfn.checked_sub(first)? < 1 << head.order;
            inside.then(|| (first, head.order, self.list_of(first, head.dirty)))
        })
    }

    fn link(&mut self, first: Mfn, order: u32, dirty: bool) {
        let list = self.list_of(first, dirty);
        let index = self.frames.index(first);
        let next = core::mem::replace(&mut self.lists[list].heads[order as usize], index);
        self.lists[list].orders |= 1 << order;
        let frame_dirty = self.frames.is_dirty(first);
        self.frames.make_head(
            first,
            Head {
                order,
                dirty,
                frame_dirty,
                next,
                prev: NIL,
            },
        );
        self.relink(next, |head| head.prev = index);
    }

    /// Removes a block from its list. Its first frame becomes `Inner`.
    fn unlink(&mut self, first: Mfn, head: Head) {
        let list = self.list_of(first, head.dirty);
        if head.prev == NIL {
            self.lists[list].heads[head.order as usize] = head.next;
            if head.next == NIL {
                self.lists[list].orders &= !(1 << head.order);
            }
        } else {
            self.relink(head.prev, |before| before.next = head.next);
        }
        self.relink(head.next, |after| after.prev = head.prev);
        self.frames.make_inner(first, head.frame_dirty);
    }

    fn relink(&self, index: u32, change: impl FnOnce(&mut Head)) {
        if let Some(mfn) = self.frames.at(index)
            && let Some(mut head) = self.frames.head(mfn)
        {
            change(&mut head);
            self.frames.make_head(mfn, head);
        }
    }

    /// Checks the lists against the frame table. For debugging and tests, as it reads every free block.
    pub fn check(&self) -> Result<(), BadList> {
        let mut free = 0u64;
        for (list, lists) in self.lists.iter().enumerate() {
            for order in 0..=MAX_ORDER {
                let (mut index, mut prev) = (lists.heads[order as usize], NIL);
                if (index != NIL) != (lists.orders >> order & 1 == 1) {
                    return Err(BadList::Orders);
                }
                while let Some(mfn) = self.frames.at(index) {
                    let head = self.frames.head(mfn).ok_or(BadList::Link(mfn))?;
                    let placed = mfn.is_aligned(order)
                        && self.one_sided(mfn, order)
                        && self.list_of(mfn, head.dirty) == list;
                    if head.order != order || head.prev != prev || !placed {
                        return Err(BadList::Link(mfn));
                    }
                    for n in 0..1 << order {
                        let frame = mfn.checked_add(n).ok_or(BadList::Block(mfn))?;
                        let inner = matches!(self.frames.state(frame), State::Inner { .. });
                        if (n > 0 && !inner) || (self.frames.is_dirty(frame) && !head.dirty) {
                            return Err(BadList::Block(frame));
                        }
                    }
                    free += 1 << order;
                    if free > u64::from(self.frames.frames()) {
                        return Err(BadList::Link(mfn));
                    }
                    (prev, index) = (index, head.next);
                }
            }
        }
        for (side, loose) in self.loose.iter().enumerate() {
            for mfn in loose {
                let inner = matches!(self.frames.state(*mfn), State::Inner { .. });
                if !inner || usize::from(*mfn >= self.direct_end) != side {
                    return Err(BadList::Loose(*mfn));
                }
            }
            free += loose.len() as u64;
        }
        if free == u64::from(self.free) {
            Ok(())
        } else {
            Err(BadList::Count)
        }
    }
}

/// A broken invariant found by [`PageAllocator::check`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadList {
    /// The bitmap of non-empty lists is wrong.
    Orders,
    /// A link leads to a frame that is no free block of the list, or whose back link differs.
    Link(Mfn),
    /// A frame inside a free block is not free, or is dirty in a clean block.
    Block(Mfn),
    /// A loose page is in use, or on the wrong side of the direct map's end.
    Loose(Mfn),
    /// The blocks do not add up to the number of free frames.
    Count,
}

/// Returns the order of the largest aligned block at `first` within `count` frames (at least one).
fn largest_order(first: Mfn, count: u32) -> u32 {
    let aligned = match first.raw() {
        0 => MAX_ORDER,
        n => n.trailing_zeros(),
    };
    aligned.min(count.max(1).ilog2()).min(MAX_ORDER)
}

#[cfg(test)]
mod tests;
