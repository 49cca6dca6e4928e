//! Steps of table changes: places of entries, counts, splitting, unlinking, merging.
//!
//! The invariants are those of [`super`].

use super::{MERGE_AFTER, Table, TableError, TableFrames};
use crate::addr::Mfn;
use crate::lpae::{Attributes, Descriptor, ENTRIES, Entry, Level, TableNote};

/// Place of one entry.
#[derive(Clone, Copy)]
pub(super) struct Slot {
    pub(super) table: Mfn,
    pub(super) index: usize,
    pub(super) level: Level,
}

impl Slot {
    #[inline(always)]
    pub(super) fn read<F: TableFrames>(self, frames: &F) -> Entry {
        Descriptor(frames.read(self.table, self.index)).decode(self.level)
    }
    #[inline(always)]
    pub(super) fn write<F: TableFrames>(self, frames: &mut F, descriptor: Descriptor) {
        frames.write(self.table, self.index, descriptor.0);
    }
}

/// An entry at `level`, with the tables on the walk to `input`.
#[derive(Clone, Copy)]
pub(super) struct Path {
    input: u32,
    one: Mfn,
    pub(super) two: Mfn,
    pub(super) three: Mfn,
    pub(super) level: Level,
}

impl Path {
    pub(super) fn top(input: u32, root: Mfn) -> Self {
        Self {
            input,
            one: root,
            two: root,
            three: root,
            level: Level::One,
        }
    }
    fn slot(self, level: Level) -> Slot {
        let table = match level {
            Level::One => self.one,
            Level::Two => self.two,
            Level::Three => self.three,
        };
        let index = level.index(self.input);
        Slot {
            table,
            index,
            level,
        }
    }
    pub(super) fn at(self) -> Slot {
        self.slot(self.level)
    }
    pub(super) fn parent(self) -> Option<Slot> {
        self.up().map(Self::at)
    }
    pub(super) fn grandparent(self) -> Option<Slot> {
        self.up().and_then(Self::parent)
    }
    pub(super) fn up(self) -> Option<Self> {
        let level = match self.level {
            Level::One => return None,
            Level::Two => Level::One,
            Level::Three => Level::Two,
        };
        Some(Self { level, ..self })
    }
}

/// Adjacent entries of one size in one table.
pub(super) struct Run {
    pub(super) level: Level,
    pub(super) entries: u32,
}

impl Run {
    /// Returns the largest entries that the alignment of `input` and `output` allows, limited by table, range and
    /// budget.
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

impl Table {
    /// Splits the blocks that cross either end of a range. Returns the path to its start.
    pub(super) fn split_ends<F: TableFrames>(
        &mut self,
        frames: &mut F,
        input: u32,
        end: u32,
    ) -> Result<Path, TableError> {
        let (path, _) = self.walk(frames, input, Level::Three);
        if path.level == Level::Three && end - input == 1 {
            return Ok(path);
        }
        self.split_at(frames, input)?;
        self.split_at(frames, end)?;
        Ok(self.walk(frames, input, Level::Three).0)
    }

    /// Splits blocks until none crosses `boundary`.
    pub(super) fn split_at<F: TableFrames>(
        &mut self,
        frames: &mut F,
        boundary: u32,
    ) -> Result<(), TableError> {
        if boundary >= self.inputs {
            return Ok(());
        }
        loop {
            let (path, entry) = self.walk(frames, boundary, Level::Three);
            let (Entry::Leaf(first, attributes), Some(level)) = (entry, path.level.next()) else {
                return Ok(());
            };
            if boundary.is_multiple_of(path.level.span()) {
                return Ok(());
            }
            let table = frames.alloc().ok_or(TableError::NoTable)?;
            let leaf = Descriptor::leaf(level, first, attributes).0;
            frames.fill(table, 0, ENTRIES, leaf, level.step());
            frames.order_writes();
            let span = path.level.span();
            path.at().write(frames, Descriptor::INVALID);
            frames.flush(boundary & !(span - 1), span);
            let note = TableNote {
                used: ENTRIES as u16,
                filled: 0,
            };
            path.at().write(frames, Descriptor::table(table, note));
        }
    }

    /// Splits the blocks that map `input`, until a page does. An error leaves a block, perhaps a smaller one.
    pub fn split_to_page<F: TableFrames>(
        &mut self,
        frames: &mut F,
        input: u32,
    ) -> Result<(), TableError> {
        let end = self.check(input, 1)?;
        self.split_ends(frames, input, end).map(|_path| ())
    }

    /// Gives the page or block that maps `input` other rights: `attributes` differ from the present ones in nothing that
    /// requires a break before make. A flush is owed. Returns false if nothing is mapped there.
    pub fn change_rights<F: TableFrames>(
        &mut self,
        frames: &mut F,
        input: u32,
        attributes: Attributes,
    ) -> bool {
        if input >= self.inputs {
            return false;
        }
        let (path, entry) = self.walk(frames, input, Level::Three);
        let Entry::Leaf(first, _) = entry else {
            return false;
        };
        path.at()
            .write(frames, Descriptor::leaf(path.level, first, attributes));
        true
    }

    /// Updates the count if the table of `path` is full. Every [`MERGE_AFTER`]th time, tries to merge it.
    pub(super) fn count_full<F: TableFrames>(&mut self, frames: &mut F, input: u32, path: Path) {
        let Some(parent) = path.parent() else { return };
        let Entry::Table(table, note) = parent.read(frames) else {
            return;
        };
        if usize::from(note.used) != ENTRIES {
            return;
        }
        let filled = (note.filled + 1) % MERGE_AFTER;
        parent.write(
            frames,
            Descriptor::table(table, TableNote { filled, ..note }),
        );
        if filled == 0 {
            self.merge_full(frames, input, path);
        }
    }

    /// Tries to merge the full table of `path` into a block. If it does, the table above may be full.
    pub(super) fn merge_full<F: TableFrames>(&mut self, frames: &mut F, input: u32, path: Path) {
        if let Some(parent) = path.parent()
            && merge(frames, parent, input)
            && let Some(up) = path.up()
        {
            self.count_full(frames, input, up);
        }
    }
}

/// Replaces the table of `slot` by a block, if the block would map the same. Returns whether it did.
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
    if !frames.may_merge(attributes) {
        return false;
    }
    let leaf = Descriptor::leaf(below, output, attributes).0;
    if !output.is_aligned(slot.level.order()) || !frames.is_filled(table, leaf, below.step()) {
        return false;
    }
    slot.write(frames, Descriptor::INVALID);
    frames.flush(input & !(slot.level.span() - 1), slot.level.span());
    slot.write(frames, Descriptor::leaf(slot.level, output, attributes));
    frames.free(table);
    true
}

/// Adds `change` to the number of entries of the table below `parent`. The root is not counted.
pub(super) fn count_entries<F: TableFrames>(frames: &mut F, parent: Option<Slot>, change: i32) {
    let Some(parent) = parent else { return };
    if let Entry::Table(table, note) = parent.read(frames) {
        let used = note.used.wrapping_add_signed(change as i16);
        debug_assert!(used as usize <= ENTRIES, "a table has 0 to 512 entries");
        parent.write(frames, Descriptor::table(table, TableNote { used, ..note }));
    }
}

/// Unlinks the table that holds `path`'s entry if it is empty, and then the one above likewise.
pub(super) fn unlink_empty<F: TableFrames>(frames: &mut F, path: Path, retired: &mut Retired) {
    let mut path = path;
    while let Some(parent) = path.parent() {
        match parent.read(frames) {
            Entry::Table(table, note) if note.used == 0 => {
                parent.write(frames, Descriptor::INVALID);
                count_entries(frames, path.grandparent(), -1);
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

/// Unlinked tables that walk caches may still hold, chained through their first entries, which stay invalid (bit 0
/// clear).
#[derive(Default)]
pub(super) struct Retired(Option<Mfn>);

impl Retired {
    pub(super) fn push<F: TableFrames>(&mut self, frames: &mut F, table: Mfn) {
        // A link of 0 ends the chain. Bit 1 distinguishes frame 0 from the end; it has no meaning in an invalid
        // descriptor.
        let link = self.0.map_or(0, |next| next.addr().raw() | 2);
        frames.write(table, 0, link);
        self.0 = Some(table);
    }

    /// Flushes and frees the tables. Returns false if there are none.
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
