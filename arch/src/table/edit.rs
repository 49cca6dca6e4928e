//! Steps that every change of a table is made of: places of entries, counts, unlinking, merging.
//!
//! The invariants are those of [`super`].

use super::TableFrames;
use crate::addr::Mfn;
use crate::lpae::{Descriptor, ENTRIES, Entry, Level, TableNote};

/// One entry's place.
#[derive(Clone, Copy)]
pub(super) struct Slot {
    pub(super) table: Mfn,
    pub(super) index: usize,
    pub(super) level: Level,
}

impl Slot {
    pub(super) fn read<F: TableFrames>(self, frames: &F) -> Entry {
        Descriptor(frames.read(self.table, self.index)).decode(self.level)
    }
    pub(super) fn write<F: TableFrames>(self, frames: &mut F, descriptor: Descriptor) {
        frames.write(self.table, self.index, descriptor.0);
    }
}

/// An entry and those that led to it.
#[derive(Clone, Copy)]
pub(super) struct Path {
    pub(super) at: Slot,
    pub(super) parent: Option<Slot>,
    pub(super) grandparent: Option<Slot>,
}

impl Path {
    pub(super) fn down(self, table: Mfn, level: Level, input: u32) -> Self {
        let index = level.index(input);
        Self {
            at: Slot {
                table,
                index,
                level,
            },
            parent: Some(self.at),
            grandparent: self.parent,
        }
    }
    pub(super) fn up(self) -> Option<Self> {
        self.parent.map(|at| Self {
            at,
            parent: self.grandparent,
            grandparent: None,
        })
    }
}

/// Entries of one size, next to each other in one table.
pub(super) struct Run {
    pub(super) level: Level,
    pub(super) entries: u32,
}

impl Run {
    /// The largest entries that `input -> output` allows, as many as table, range and budget allow.
    pub(super) fn next(input: u32, output: Mfn, left: u32, budget: u32) -> Self {
        let fits = |level: Level| {
            (input | output.raw()).is_multiple_of(level.span()) && left >= level.span()
        };
        let level = [Level::One, Level::Two]
            .into_iter()
            .find(|level| fits(*level));
        let level = level.unwrap_or(Level::Three);
        let room = (ENTRIES - level.index(input)) as u32;
        Self {
            level,
            entries: room.min(left >> level.order()).min(budget),
        }
    }
    pub(super) fn frames(&self) -> u32 {
        self.entries << self.level.order()
    }
}

/// Replaces the table that `slot` leads to by a block, if the block would map the same.
pub(super) fn merge<F: TableFrames>(frames: &mut F, slot: Slot, input: u32) -> bool {
    let (Entry::Table(table, _), Some(below)) = (slot.read(frames), slot.level.next()) else {
        return false;
    };
    let first = Slot {
        table,
        index: 0,
        level: below,
    };
    let Entry::Leaf(output, attributes) = first.read(frames) else {
        return false;
    };
    let same = |index: usize| {
        let at = Mfn::new(u64::from(output.raw()) + ((index as u64) << below.order()));
        at.is_some_and(|at| frames.read(table, index) == Descriptor::leaf(below, at, attributes).0)
    };
    if !output.is_aligned(slot.level.order()) || !(1..ENTRIES).all(same) {
        return false;
    }
    slot.write(frames, Descriptor::INVALID);
    frames.flush(input & !(slot.level.span() - 1), slot.level.span());
    slot.write(frames, Descriptor::leaf(slot.level, output, attributes));
    frames.free(table);
    true
}

/// Adds `change` to the number of entries of the table that `parent` leads to; the root's are not counted.
pub(super) fn count_entries<F: TableFrames>(frames: &mut F, parent: Option<Slot>, change: i32) {
    let Some(parent) = parent else { return };
    if let Entry::Table(table, note) = parent.read(frames) {
        let used = note.used.wrapping_add_signed(change as i16);
        debug_assert!(used as usize <= ENTRIES, "a table has 0 to 512 entries");
        parent.write(frames, Descriptor::table(table, TableNote { used, ..note }));
    }
}

/// Unlinks the table that holds `path`'s entry if it is empty, and then perhaps the one above.
pub(super) fn unlink_empty<F: TableFrames>(frames: &mut F, path: Path, retired: &mut Retired) {
    let mut path = path;
    while let Some(parent) = path.parent {
        match parent.read(frames) {
            Entry::Table(table, note) if note.used == 0 => {
                parent.write(frames, Descriptor::INVALID);
                count_entries(frames, path.grandparent, -1);
                retired.push(frames, table);
            }
            _ => return,
        }
        match path.up() {
            Some(up) => path = up,
            None => return,
        }
    }
}

/// Unlinked tables that a walk may still know, chained through their first entries (which stay invalid: bit 0 is clear).
#[derive(Default)]
pub(super) struct Retired(Option<Mfn>);

impl Retired {
    pub(super) fn push<F: TableFrames>(&mut self, frames: &mut F, table: Mfn) {
        // A link of 0 ends the chain; bit 1 tells frame 0 from the end and means nothing in an invalid descriptor.
        let link = self.0.map_or(0, |next| next.addr().raw() | 2);
        frames.write(table, 0, link);
        self.0 = Some(table);
    }

    /// Flushes and frees them; false when there are none.
    pub(super) fn release<F: TableFrames>(
        &mut self,
        frames: &mut F,
        input: u32,
        count: u32,
    ) -> bool {
        if self.0.is_none() {
            return false;
        }
        frames.flush(input, count);
        while let Some(table) = self.0.take() {
            let link = frames.read(table, 0);
            self.0 = (link & 2 != 0)
                .then(|| Mfn::new(link >> crate::addr::PAGE_SHIFT))
                .flatten();
            frames.free(table);
        }
        true
    }
}
