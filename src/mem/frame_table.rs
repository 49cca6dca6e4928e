//! The frame table: use, owner and reference count of every RAM frame.
//!
//! One 64-bit word per frame, so that state, owner and count change together. Lock-free on hot paths
//! (`FrameTable::get`, `FrameTable::put`); free frames change under the allocator's lock.
//!
//! | state | meaning | changed by |
//! |---|---|---|
//! | `Inner` | a hole; or inside a block described by its first frame; or taken by a CPU | its holder |
//! | `Free` | first frame of a free block, linked into a list | allocator |
//! | `Hypervisor`, `Module`, `Reserved` | first frame of a block in that use | its holder |
//! | live: `Ram`, `Shared`, `Direct` | owned by a domain, with a count of at least 1 | references |
//!
//! Invariants:
//! 1. Only a live frame with a count above zero can gain a reference.
//! 2. Dropping the last reference makes the frame `Inner` in the same store; the dropper returns it to the allocator.
//!    So a frame is freed exactly once, after its last reference is gone.
//! 3. The owner does not change while the frame is live.
//! 4. The clean bit of an `Inner` or `Free` frame means that it is zero, and cleaned to memory. A word of zeroes is a
//!    dirty, unused frame, so boot only writes the heads of free blocks.
//!
//! Same as `struct page_info` in xen/include/asm-arm/mm.h, without `PGC_allocated`: an allocated page is kept by the
//! reference of its p2m entry.

use core::sync::atomic::{AtomicU64, Ordering, fence};

use armv7::addr::Mfn;
use armv7::double;
use zerocopy::FromZeros;

use crate::id::DomId;

/// Maximum number of references on a frame; further ones are refused.
pub const MAX_REFS: u32 = 1 << 30;
/// Maximum number of frames in a table (256 GiB from first to last).
pub const MAX_ENTRIES: u32 = NIL;

/// End of a free list, whose links are 26-bit indices.
pub(super) const NIL: u32 = (1 << 26) - 1;

/// Use of a live frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// Ordinary memory of a domain.
    Ram = 8,
    /// A page that the hypervisor keeps for the domain and shares with it: shared_info, grant frames.
    Shared = 9,
    /// Memory of a domain that is mapped 1:1, reserved for its gfn even while ballooned out.
    Direct = 10,
}

/// Use of a block that no domain owns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Use {
    /// The hypervisor's own: tables, heap, image.
    Hypervisor = 3,
    /// A boot module.
    Module = 4,
    /// Not usable: firmware's, or broken.
    Reserved = 5,
    /// Kept at boot for a domain that is to have this very memory.
    Domain = 6,
}

/// State of a frame at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // the table in the file's header
pub enum State {
    Outside,
    Inner {
        dirty: bool,
    },
    Free {
        order: u32,
        dirty: bool,
    },
    Used(Use),
    Live {
        kind: Kind,
        owner: DomId,
        count: u32,
    },
}

const TAG: u64 = 0xF;
const INNER: u64 = 0;
const FREE: u64 = 1;
const ORDER_SHIFT: u32 = 4;
const BLOCK_DIRTY: u64 = 1 << 9;
const FRAME_CLEAN: u64 = 1 << 10;
const NEXT_SHIFT: u32 = 11;
const PREV_SHIFT: u32 = 37;
/// Another domain has written to the live frame (`p2m::log_dirty`).
const WRITTEN: u64 = 1 << 11;
const OWNER_SHIFT: u32 = 16;
const COUNT_SHIFT: u32 = 32;
const ONE: u64 = 1 << COUNT_SHIFT;

/// Word of one frame. All zeroes: dirty and unused.
#[derive(Debug, Default, FromZeros)]
#[repr(transparent)]
pub struct FrameEntry(AtomicU64);

impl FrameEntry {
    /// Returns an entry of zeroes.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }
}

/// Head of a free block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Head {
    pub order: u32,
    /// A frame of the block may be dirty.
    pub dirty: bool,
    /// This frame is dirty.
    pub frame_dirty: bool,
    pub next: u32,
    pub prev: u32,
}

/// The last reference was dropped, and the caller holds the frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Last {
    /// The frame's owner.
    pub owner: DomId,
    /// The frame's use.
    pub kind: Kind,
}

/// The use of a live frame by those who have references on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Uses {
    /// Number of references.
    pub count: u32,
    /// A domain other than the owner has written to it.
    pub written: bool,
}

/// Changes a word by `change`, until no other CPU interferes or it answers `None`. Guests cannot write the word.
fn change(entry: &AtomicU64, change: impl Fn(u64) -> Option<u64>) {
    loop {
        let word = double::load(entry);
        match change(word) {
            Some(next) if !double::replace(entry, word, next) => {}
            _ => return,
        }
    }
}

/// The words of the frames `first..first + entries.len()`.
#[derive(Clone, Copy, Debug)]
pub struct FrameTable {
    entries: &'static [FrameEntry],
    first: Mfn,
}

const fn live(kind: Kind, owner: DomId, count: u32) -> u64 {
    kind as u64 | ((owner.0 as u64) << OWNER_SHIFT) | ((count as u64) << COUNT_SHIFT)
}

const fn kind_of(word: u64) -> Option<Kind> {
    match word & TAG {
        8 => Some(Kind::Ram),
        9 => Some(Kind::Shared),
        10 => Some(Kind::Direct),
        _ => None,
    }
}

const fn owner_of(word: u64) -> DomId {
    DomId((word >> OWNER_SHIFT) as u16)
}

const fn count_of(word: u64) -> u32 {
    (word >> COUNT_SHIFT) as u32
}

impl FrameTable {
    /// Returns the size in bytes of a table of `frames` frames.
    pub const fn bytes_for(frames: u32) -> usize {
        frames as usize * size_of::<FrameEntry>()
    }

    /// Returns the table whose first entry describes `first`. Entries beyond [`MAX_ENTRIES`] are ignored.
    pub fn new(entries: &'static [FrameEntry], first: Mfn) -> Self {
        let entries = entries.get(..MAX_ENTRIES as usize).unwrap_or(entries);
        Self { entries, first }
    }

    /// Returns the first frame described.
    pub fn first(&self) -> Mfn {
        self.first
    }

    /// Returns the number of frames described.
    pub fn frames(&self) -> u32 {
        self.entries.len() as u32
    }

    fn entry(&self, mfn: Mfn) -> Option<&'static AtomicU64> {
        let index = mfn.checked_sub(self.first)?;
        self.entries.get(index as usize).map(|entry| &entry.0)
    }

    /// Returns a frame's state.
    pub fn state(&self, mfn: Mfn) -> State {
        let Some(entry) = self.entry(mfn) else {
            return State::Outside;
        };
        let word = double::load(entry);
        // Pairs with the Release of the CPU that made the frame live, so that the frame's contents are visible.
        fence(Ordering::Acquire);
        if let Some(kind) = kind_of(word) {
            return State::Live {
                kind,
                owner: owner_of(word),
                count: count_of(word),
            };
        }
        match word & TAG {
            INNER => State::Inner {
                dirty: word & FRAME_CLEAN == 0,
            },
            FREE => State::Free {
                order: (word >> ORDER_SHIFT) as u32 & 0x1F,
                dirty: word & BLOCK_DIRTY != 0,
            },
            3 => State::Used(Use::Hypervisor),
            4 => State::Used(Use::Module),
            5 => State::Used(Use::Reserved),
            6 => State::Used(Use::Domain),
            _ => State::Inner { dirty: true },
        }
    }

    /// Takes a reference on a live frame for which `accept(kind, owner)` holds.
    #[inline(always)]
    fn take(&self, mfn: Mfn, accept: impl Fn(Kind, DomId) -> bool) -> Option<(Kind, DomId)> {
        let entry = self.entry(mfn)?;
        // Retried if another CPU changes the count. Guests cannot write this word, so the bound is not reached.
        for _ in 0..1024 {
            let word = double::load(entry);
            let kind = kind_of(word)?;
            let owner = owner_of(word);
            let count = count_of(word);
            if !accept(kind, owner) || count == 0 || count >= MAX_REFS {
                return None;
            }
            if double::replace(entry, word, word.wrapping_add(ONE)) {
                // Pairs with the Release in `make_live`.
                fence(Ordering::Acquire);
                return Some((kind, owner));
            }
        }
        None
    }

    /// Takes a reference on a live frame of `owner`.
    #[inline(always)]
    pub fn get(&self, mfn: Mfn, owner: DomId) -> Option<Kind> {
        self.take(mfn, |_, actual| actual == owner)
            .map(|(kind, _)| kind)
    }

    /// Takes a reference on a live frame of any owner.
    #[inline(always)]
    pub fn get_any(&self, mfn: Mfn) -> Option<(Kind, DomId)> {
        self.take(mfn, |_, _| true)
    }

    /// Drops a reference. If it was the last, the caller holds the frame, dirty, and must return it to the allocator.
    ///
    /// # Panics
    /// If the frame has no reference.
    #[inline(always)]
    pub(super) fn put(&self, mfn: Mfn) -> Option<Last> {
        let entry = self.entry(mfn)?;
        loop {
            let word = double::load(entry);
            let (Some(kind), true) = (kind_of(word), count_of(word) > 0) else {
                panic!("a reference on frame {:#x} is dropped once", mfn.raw());
            };
            let last = count_of(word) == 1;
            let next = if last { INNER } else { word - ONE };
            // Release here and Acquire for the last one: every holder's accesses to the page come before its reuse.
            fence(Ordering::Release);
            if !double::replace(entry, word, next) {
                continue;
            }
            if !last {
                return None;
            }
            fence(Ordering::Acquire);
            return Some(Last {
                owner: owner_of(word),
                kind,
            });
        }
    }

    /// Notes of a live frame that a domain other than its owner writes to it.
    pub fn note_written(&self, mfn: Mfn) {
        if let Some(entry) = self.entry(mfn) {
            change(entry, |word| kind_of(word).map(|_| word | WRITTEN));
        }
    }

    /// Returns the number of references on a live frame, and whether another domain has written to it.
    pub fn uses(&self, mfn: Mfn) -> Uses {
        let word = self.entry(mfn).map_or(0, double::load);
        // Pairs with the Release of whoever dropped a reference: what he wrote comes before.
        fence(Ordering::Acquire);
        Uses {
            count: count_of(word),
            written: word & WRITTEN != 0,
        }
    }

    /// Forgets that another domain has written to a live frame.
    pub fn forget_written(&self, mfn: Mfn) {
        if let Some(entry) = self.entry(mfn) {
            change(entry, |word| kind_of(word).map(|_| word & !WRITTEN));
        }
    }

    /// Takes a reference off the count of a live frame without freeing it. Returns false if it has none. Only for the
    /// audit, which restores the count before other CPUs run.
    pub(super) fn audit_take(&self, mfn: Mfn) -> bool {
        let take = |word| (kind_of(word).is_some() && count_of(word) > 0).then(|| word - ONE);
        self.entry(mfn).is_some_and(|entry| {
            entry
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
                .is_ok()
        })
    }

    /// Restores a reference taken by [`Self::audit_take`].
    pub(super) fn audit_give(&self, mfn: Mfn) {
        if let Some(entry) = self.entry(mfn) {
            entry.fetch_add(ONE, Ordering::Relaxed);
        }
    }

    /// Makes a frame that the caller holds live.
    pub(super) fn make_live(&self, mfn: Mfn, kind: Kind, owner: DomId, count: u32) {
        if let Some(entry) = self.entry(mfn) {
            // The scrub is ordered before any use of the page.
            fence(Ordering::Release);
            double::store(entry, live(kind, owner, count));
        }
    }

    pub(super) fn make_used(&self, mfn: Mfn, purpose: Use) {
        if let Some(entry) = self.entry(mfn) {
            fence(Ordering::Release);
            double::store(entry, purpose as u64);
        }
    }

    pub(super) fn make_inner(&self, mfn: Mfn, dirty: bool) {
        if let Some(entry) = self.entry(mfn) {
            let word = if dirty { INNER } else { INNER | FRAME_CLEAN };
            double::store(entry, word);
        }
    }

    /// Makes `mfn` the head of a free block.
    pub(super) fn make_head(&self, mfn: Mfn, head: Head) {
        if let Some(entry) = self.entry(mfn) {
            let mut word = FREE
                | (u64::from(head.order) << ORDER_SHIFT)
                | (u64::from(head.next) << NEXT_SHIFT)
                | (u64::from(head.prev) << PREV_SHIFT);
            if head.dirty {
                word |= BLOCK_DIRTY;
            }
            if !head.frame_dirty {
                word |= FRAME_CLEAN;
            }
            double::store(entry, word);
        }
    }

    /// Returns the head of the free block that starts at `mfn`.
    pub(super) fn head(&self, mfn: Mfn) -> Option<Head> {
        let word = double::load(self.entry(mfn)?);
        (word & TAG == FREE).then_some(Head {
            order: (word >> ORDER_SHIFT) as u32 & 0x1F,
            dirty: word & BLOCK_DIRTY != 0,
            frame_dirty: word & FRAME_CLEAN == 0,
            next: (word >> NEXT_SHIFT) as u32 & NIL,
            prev: (word >> PREV_SHIFT) as u32 & NIL,
        })
    }

    /// Returns whether an `Inner` or `Free` frame may be dirty.
    pub(super) fn is_dirty(&self, mfn: Mfn) -> bool {
        self.entry(mfn)
            .is_some_and(|entry| double::load(entry) & FRAME_CLEAN == 0)
    }

    pub(super) fn index(&self, mfn: Mfn) -> u32 {
        mfn.checked_sub(self.first)
            .filter(|index| *index < self.frames())
            .unwrap_or(NIL)
    }

    pub(super) fn at(&self, index: u32) -> Option<Mfn> {
        if index < self.frames() {
            self.first.checked_add(index)
        } else {
            None
        }
    }

    /// Returns whether the table describes all of `first..first + count`.
    pub fn covers(&self, first: Mfn, count: u32) -> bool {
        match first.checked_sub(self.first) {
            Some(index) => index
                .checked_add(count)
                .is_some_and(|end| end <= self.frames()),
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{FrameEntry, FrameTable, Kind, Last, MAX_REFS, State, live};
    use crate::id::DomId;
    use armv7::addr::Mfn;
    use core::sync::atomic::Ordering;

    fn table() -> (FrameTable, Mfn) {
        let entries: Vec<FrameEntry> = (0..8).map(|_| FrameEntry::new()).collect();
        let first = Mfn::new(0x4_0000).unwrap();
        let table = FrameTable::new(Vec::leak(entries), first);
        table.make_live(first, Kind::Ram, DomId(7), 1);
        (table, first)
    }

    #[test]
    fn an_entry_takes_eight_bytes_so_2_gib_need_4_mib() {
        assert_eq!(FrameTable::bytes_for(1 << 19), 4 << 20);
    }

    #[test]
    fn only_the_owner_gets_a_live_page() {
        let (table, mfn) = table();
        assert_eq!(table.get(mfn, DomId(8)), None);
        assert_eq!(table.get(mfn, DomId(7)), Some(Kind::Ram));
        assert_eq!(table.get_any(mfn), Some((Kind::Ram, DomId(7))));
        let count = 3;
        assert_eq!(
            table.state(mfn),
            State::Live {
                kind: Kind::Ram,
                owner: DomId(7),
                count
            }
        );
    }

    #[test]
    fn a_page_whose_last_reference_went_does_not_come_back() {
        let (table, mfn) = table();
        assert_eq!(
            table.put(mfn),
            Some(Last {
                owner: DomId(7),
                kind: Kind::Ram
            })
        );
        assert_eq!(table.state(mfn), State::Inner { dirty: true });
        assert_eq!(table.get(mfn, DomId(7)), None);
        assert_eq!(table.get_any(mfn), None);
    }

    #[test]
    fn frames_outside_the_table_are_not_described() {
        let (table, mfn) = table();
        for outside in [
            Mfn::new(0).unwrap(),
            mfn.checked_add(8).unwrap(),
            Mfn::new(0xFFF_FFFF).unwrap(),
        ] {
            assert_eq!(table.state(outside), State::Outside);
            assert_eq!(table.get_any(outside), None);
        }
        assert!(table.covers(mfn, 8) && !table.covers(mfn, 9) && !table.covers(mfn, u32::MAX));
    }

    #[test]
    fn the_count_stops_before_it_could_overflow() {
        let (table, mfn) = table();
        let full = live(Kind::Ram, DomId(7), MAX_REFS);
        table.entry(mfn).unwrap().store(full, Ordering::Relaxed);
        assert_eq!(table.get(mfn, DomId(7)), None);
        let none = live(Kind::Ram, DomId(7), 0);
        table.entry(mfn).unwrap().store(none, Ordering::Relaxed);
        assert_eq!(table.get_any(mfn), None, "nothing comes back from zero");
    }
}
