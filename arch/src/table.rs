//! Three-level translation tables: lookup, map, unmap, replace. Used for the Hyp map and for every stage 2.
//!
//! Pure: table frames, their words and TLB maintenance are accessed through [`TableFrames`]. DDI 0406C.d B3.6.6
//! (walks), B3.10.1 (break-before-make), B3.10.2 (multiprocessing: walks are coherent, so a DSB suffices and no cache
//! is cleaned).
//!
//! Invariants:
//! 1. A table that a walk can reach has at least one valid entry. The descriptor that leads to it holds the number.
//! 2. A valid leaf never changes into another one directly: the entry is invalidated and flushed in between. Only its rights
//!    change in place.
//! 3. A table frame is freed only after a flush that followed its unlinking (walk caches).
//! 4. If a call fails, every input maps what it mapped before. A block may have become a table of the same pages.
//! 5. While a block is split, merged or replaced, its inputs fault on other CPUs for a moment. A fault handler must
//!    look the input up again, under the lock.
//!
//! Merging is lazy: dom0's balloon moves pages out of a block and back, and would split and merge it each time. A table
//! is checked only every [`MERGE_AFTER`]th time it becomes full, or by [`Table::merge`]. Only leaves that
//! [`TableFrames::may_merge`] allows become a block, as removing a page from a block needs a table.

use core::sync::atomic::{AtomicU64, Ordering, fence};

use crate::addr::Mfn;
use crate::lpae::{Attributes, Descriptor, ENTRIES, Entry, Level, TableNote};
use crate::{double, frame};

use edit::{Path, Retired, Run, Slot, count_entries, merge, unlink_empty};

mod edit;
#[cfg(test)]
mod tests;

/// Number of times a table becomes full before it is compared with a block.
pub const MERGE_AFTER: u8 = 128;
// The count in a descriptor wraps at this value.
const _: () = assert!(Descriptor(!0).filled() == MERGE_AFTER - 1);

/// Allocation of and access to table frames.
pub trait TableFrames {
    /// Returns a zeroed frame in the direct map.
    fn alloc(&mut self) -> Option<Mfn>;
    /// Frees a frame with any contents. No walk can reach it.
    fn free(&mut self, table: Mfn);
    /// Completes earlier writes to tables, and flushes every cached translation of inputs `first..first + frames`, walk
    /// caches included: DSB ISHST, TLBI of the address space, DSB ISH, ISB.
    fn flush(&mut self, first: u32, frames: u32);

    /// Returns whether pages with these attributes may be merged into a block. Must be false for pages whose unmapping
    /// must not fail.
    fn may_merge(&self, attributes: Attributes) -> bool;

    /// Reads an entry.
    #[inline(always)]
    fn read(&self, table: Mfn, index: usize) -> u64 {
        double::load(word(table, index))
    }
    /// Writes an entry by one 64-bit single-copy atomic store (DDI 0406C.d A3.5.3).
    #[inline(always)]
    fn write(&mut self, table: Mfn, index: usize, descriptor: u64) {
        double::store(word(table, index), descriptor);
    }
    /// Writes `count` entries from `index` on: `first`, then each `step` more than the previous one.
    fn fill(&mut self, table: Mfn, index: usize, count: usize, first: u64, step: u64) {
        let page = frame::table(table);
        let mut descriptor = first;
        for index in index..index + count {
            if let Some(word) = page.u64_at(index * 8) {
                double::store(word, descriptor);
            }
            descriptor = descriptor.wrapping_add(step);
        }
    }
    /// Returns whether all entries of `table` have the values that [`TableFrames::fill`] would write.
    fn is_filled(&self, table: Mfn, first: u64, step: u64) -> bool {
        let page = frame::table(table);
        let mut descriptor = first;
        for index in 0..ENTRIES {
            let word = page.u64_at(index * 8);
            if word.is_none_or(|word| double::load(word) != descriptor) {
                return false;
            }
            descriptor = descriptor.wrapping_add(step);
        }
        true
    }
    /// Orders earlier writes to tables before later ones, as seen by walks.
    fn order_writes(&mut self) {
        // Pairs with the walker's address dependency from a table descriptor to the table's entries.
        fence(Ordering::Release);
    }
}

#[inline(always)]
fn word(table: Mfn, index: usize) -> &'static AtomicU64 {
    let word = frame::table(table).u64_at(index * 8);
    word.unwrap_or_else(|| no_such_entry())
}

// Not inlined, for size: `word` has many callers.
#[cold]
#[inline(never)]
fn no_such_entry() -> ! {
    panic!("a table has 512 entries")
}

/// Reason a call changed nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TableError {
    /// No frame for a table.
    NoTable,
    /// The range is empty, or exceeds the input or output address space.
    OutOfRange,
    /// Part of the range is mapped.
    Occupied,
}

/// A page or block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leaf {
    /// The frame that the input maps to; for a visited leaf, its first frame.
    pub output: Mfn,
    /// log2 of the number of pages.
    pub order: u32,
    /// Its attributes.
    pub attributes: Attributes,
}

/// Progress of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[must_use]
pub struct Progress {
    /// Frames processed from the start of the range. Less than requested if the budget ran out.
    pub frames: u32,
    /// Stale translations may still be cached: flush before relying on their end.
    pub flush: bool,
}

/// A level-3 entry, its table and the entry above.
struct PageEntry {
    /// The level-2 table.
    parent: Mfn,
    /// The level-2 entry that leads to `table` and counts its entries.
    counted: Descriptor,
    /// The level-3 table.
    table: Mfn,
    entry: Descriptor,
}

/// A translation table.
#[derive(Debug)]
pub struct Table {
    /// The root frame for each half of the 40-bit input space.
    roots: [Mfn; 2],
    inputs: u32,
}

impl Table {
    /// Returns the Hyp map whose root is the zeroed frame `root`, with 4 entries in use: 32-bit input.
    pub const fn hyp(root: Mfn) -> Self {
        Self {
            roots: [root; 2],
            inputs: 1 << 20,
        }
    }
    /// Returns a stage 2 whose root is the zeroed frames `root` and `root + 1`: 40-bit input. `root` must not be the
    /// last frame.
    pub const fn stage2(root: Mfn) -> Self {
        let second = match root.checked_add(1) {
            Some(second) => second,
            None => root,
        };
        Self {
            roots: [root, second],
            inputs: crate::addr::MAX_FRAMES,
        }
    }
    /// Returns the first frame of the root.
    pub const fn root(&self) -> Mfn {
        let [root, _] = self.roots;
        root
    }
    /// Returns the number of input frames.
    pub const fn inputs(&self) -> u32 {
        self.inputs
    }

    /// Walks down to level `lowest`. Returns the entry there, or the first one above it that is no table.
    fn walk<F: TableFrames>(&self, frames: &F, input: u32, lowest: Level) -> (Path, Entry) {
        let mut path = Path::top(input, self.root_of(input));
        let entry = path.at().read(frames);
        let (Entry::Table(two, _), Level::Two | Level::Three) = (entry, lowest) else {
            return (path, entry);
        };
        (path.two, path.level) = (two, Level::Two);
        let entry = path.at().read(frames);
        let (Entry::Table(three, _), Level::Three) = (entry, lowest) else {
            return (path, entry);
        };
        (path.three, path.level) = (three, Level::Three);
        (path, path.at().read(frames))
    }

    fn check(&self, input: u32, count: u32) -> Result<u32, TableError> {
        match input.checked_add(count) {
            Some(end) if count > 0 && end <= self.inputs => Ok(end),
            _ => Err(TableError::OutOfRange),
        }
    }

    /// Returns the leaf that maps `input`.
    #[inline(always)] // one caller in the stage-2 map
    pub fn lookup<F: TableFrames>(&self, frames: &F, input: u32) -> Option<Leaf> {
        if input >= self.inputs {
            return None;
        }
        let block = |entry: Descriptor, level: Level| {
            let (first, attributes) = entry.block()?;
            let order = level.order();
            let output = first
                .align_down(order)
                .checked_add(input & (level.span() - 1))?;
            Some(Leaf {
                output,
                order,
                attributes,
            })
        };
        let entry = Descriptor(frames.read(self.root_of(input), Level::One.index(input)));
        let Some(two) = entry.next_table() else {
            return block(entry, Level::One);
        };
        let entry = Descriptor(frames.read(two, Level::Two.index(input)));
        let Some(three) = entry.next_table() else {
            return block(entry, Level::Two);
        };
        let (output, attributes) =
            Descriptor(frames.read(three, Level::Three.index(input))).page()?;
        Some(Leaf {
            output,
            order: 0,
            attributes,
        })
    }

    /// Returns the root frame of the walk for `input`.
    fn root_of(&self, input: u32) -> Mfn {
        self.roots[(input >> 27) as usize % 2]
    }

    /// Returns the level-3 entry for `input`, if there is a level-3 table.
    #[inline(always)] // callers use parts of the result
    fn page_entry<F: TableFrames>(&self, frames: &F, input: u32) -> Option<PageEntry> {
        if input >= self.inputs {
            return None;
        }
        let one = frames.read(self.root_of(input), Level::One.index(input));
        let parent = Descriptor(one).next_table()?;
        let counted = Descriptor(frames.read(parent, Level::Two.index(input)));
        let table = counted.next_table()?;
        let entry = Descriptor(frames.read(table, Level::Three.index(input)));
        Some(PageEntry {
            parent,
            counted,
            table,
            entry,
        })
    }

    /// Maps the page `input` if it is unmapped and has a level-3 table. Returns whether it did.
    fn map_page<F: TableFrames>(
        &mut self,
        frames: &mut F,
        input: u32,
        output: Mfn,
        attributes: Attributes,
    ) -> bool {
        let Some(page) = self.page_entry(frames, input) else {
            return false;
        };
        if page.entry.is_valid() {
            return false;
        }
        let leaf = Descriptor::leaf(Level::Three, output, attributes);
        frames.write(page.table, Level::Three.index(input), leaf.0);
        let mut counted = page.counted.one_more();
        let full = counted.used() == ENTRIES;
        if full {
            counted = counted.filled_again();
        }
        frames.write(page.parent, Level::Two.index(input), counted.0);
        if full && counted.filled().is_multiple_of(MERGE_AFTER) {
            self.merge_full_page(frames, input);
        }
        true
    }

    #[cold]
    fn merge_full_page<F: TableFrames>(&mut self, frames: &mut F, input: u32) {
        let (path, _) = self.walk(frames, input, Level::Three);
        self.merge_full(frames, input, path);
    }

    /// Unmaps the page `input` if `accept` accepts it. Returns `None` if there is no level-3 table, as `input` may be
    /// in a block.
    pub fn unmap_page<F: TableFrames>(
        &mut self,
        frames: &mut F,
        input: u32,
        accept: impl FnOnce(Leaf) -> bool,
    ) -> Option<Progress> {
        let page = self.page_entry(frames, input)?;
        let mut progress = Progress {
            frames: 1,
            flush: false,
        };
        let Some((output, attributes)) = page.entry.page() else {
            return Some(progress);
        };
        let leaf = Leaf {
            output,
            order: 0,
            attributes,
        };
        if !accept(leaf) {
            progress.frames = 0;
            return Some(progress);
        }
        frames.write(page.table, Level::Three.index(input), Descriptor::INVALID.0);
        let counted = page.counted.one_less();
        frames.write(page.parent, Level::Two.index(input), counted.0);
        progress.flush = counted.used() != 0 || !self.unlink_page(frames, input);
        Some(progress)
    }

    /// Unlinks the empty level-3 table of `input`, and tables above that become empty. Returns whether that flushed.
    #[cold]
    fn unlink_page<F: TableFrames>(&mut self, frames: &mut F, input: u32) -> bool {
        let mut retired = Retired::default();
        let (path, _) = self.walk(frames, input, Level::Three);
        unlink_empty(frames, path, &mut retired);
        retired.release(frames, input, 1)
    }

    /// Maps `count` unmapped frames at `input` to those at `output`, in at most `budget` leaves.
    ///
    /// An error means that this call changed nothing. New translations need a DSB before they are relied on, but no
    /// flush.
    pub fn map<F: TableFrames>(
        &mut self,
        frames: &mut F,
        input: u32,
        output: Mfn,
        count: u32,
        attributes: Attributes,
        budget: u32,
    ) -> Result<Progress, TableError> {
        // The hot case of balloons, grants and foreign pages: one page with existing tables.
        if count == 1 && self.map_page(frames, input, output, attributes) {
            return Ok(Progress {
                frames: 1,
                flush: false,
            });
        }
        self.map_range(frames, input, output, count, attributes, budget)
    }

    #[inline(never)]
    fn map_range<F: TableFrames>(
        &mut self,
        frames: &mut F,
        input: u32,
        output: Mfn,
        count: u32,
        attributes: Attributes,
        budget: u32,
    ) -> Result<Progress, TableError> {
        self.check(input, count)?;
        if count
            .checked_sub(1)
            .and_then(|n| output.checked_add(n))
            .is_none()
        {
            return Err(TableError::OutOfRange);
        }
        let mut reached = 0;
        let mut budget_left = budget.max(1);
        while reached < count && budget_left > 0 {
            let at = output.checked_add(reached).ok_or(TableError::OutOfRange)?;
            let run = Run::next(input + reached, at, count - reached, budget_left);
            if let Err(error) = self.prepare(frames, input + reached, &run) {
                self.prune(frames, input, reached + run.frames());
                return Err(error);
            }
            budget_left -= run.entries;
            reached += run.frames();
        }
        // From here on nothing can fail.
        let (mut done, mut budget_left) = (0, budget.max(1));
        while done < reached {
            let Some(at) = output.checked_add(done) else {
                break;
            };
            let run = Run::next(input + done, at, count - done, budget_left);
            let (path, _) = self.walk(frames, input + done, run.level);
            self.fill(frames, input + done, path, at, attributes, &run);
            budget_left -= run.entries;
            done += run.frames();
        }
        Ok(Progress {
            frames: done,
            flush: false,
        })
    }

    /// Allocates the tables that `run` at `input` needs. Fails if an entry of the run is valid.
    fn prepare<F: TableFrames>(
        &mut self,
        frames: &mut F,
        input: u32,
        run: &Run,
    ) -> Result<(), TableError> {
        let path = loop {
            let (path, entry) = self.walk(frames, input, run.level);
            match entry {
                Entry::Invalid if path.level == run.level => break path,
                Entry::Invalid => {
                    let table = frames.alloc().ok_or(TableError::NoTable)?;
                    frames.order_writes();
                    path.at()
                        .write(frames, Descriptor::table(table, TableNote::default()));
                    count_entries(frames, path.parent(), 1);
                }
                _ => return Err(TableError::Occupied),
            }
        };
        let Slot { table, index, .. } = path.at();
        let taken = (0..run.entries as usize).any(|n| frames.read(table, index + n) & 1 != 0);
        if taken {
            Err(TableError::Occupied)
        } else {
            Ok(())
        }
    }

    fn fill<F: TableFrames>(
        &mut self,
        frames: &mut F,
        input: u32,
        path: Path,
        output: Mfn,
        attributes: Attributes,
        run: &Run,
    ) {
        let first = Descriptor::leaf(run.level, output, attributes).0;
        let Slot { table, index, .. } = path.at();
        frames.fill(table, index, run.entries as usize, first, run.level.step());
        count_entries(frames, path.parent(), run.entries as i32);
        self.count_full(frames, input, path);
    }

    /// Removes the empty tables that `prepare` left in a range whose mapping failed.
    fn prune<F: TableFrames>(&mut self, frames: &mut F, input: u32, count: u32) {
        let mut retired = Retired::default();
        let mut at = input;
        let last = input.saturating_add(count.saturating_sub(1));
        while at <= last && at < self.inputs {
            let (path, entry) = self.walk(frames, at, Level::Three);
            if entry == Entry::Invalid {
                unlink_empty(frames, path, &mut retired);
            }
            let step = Level::Two.span().max(path.level.span());
            at = (at | (step - 1)).saturating_add(1);
        }
        retired.release(frames, input, count);
    }

    /// Unmaps `count` frames at `input`, checking at most about `budget` entries.
    ///
    /// Calls `removed` with each leaf before unmapping it; a result of false ends the call there. An error means that
    /// this call unmapped nothing: only splitting the blocks at both ends can fail.
    pub fn unmap<F: TableFrames>(
        &mut self,
        frames: &mut F,
        input: u32,
        count: u32,
        budget: u32,
        mut removed: impl FnMut(u32, Leaf) -> bool,
    ) -> Result<Progress, TableError> {
        let end = self.check(input, count)?;
        if count == 1
            && let Some(progress) = self.unmap_page(frames, input, |leaf| removed(input, leaf))
        {
            return Ok(progress);
        }
        let mut first = Some(self.split_ends(frames, input, end)?);
        let (mut at, mut budget) = (input, budget.max(1));
        let mut retired = Retired::default();
        let mut flush = false;
        let mut refused = false;
        while at < end && budget > 0 && !refused {
            let known = first.take();
            let path = known.unwrap_or_else(|| self.walk(frames, at, Level::Three).0);
            let Slot {
                table,
                index,
                level,
            } = path.at();
            let mut gone = 0;
            for index in index..ENTRIES {
                if at >= end || budget == 0 {
                    break;
                }
                let slot = Slot {
                    table,
                    index,
                    level,
                };
                match slot.read(frames) {
                    Entry::Table(..) => break,
                    Entry::Invalid => {}
                    Entry::Leaf(output, attributes) => {
                        let order = level.order();
                        refused = !removed(
                            at,
                            Leaf {
                                output,
                                order,
                                attributes,
                            },
                        );
                        if refused {
                            break;
                        }
                        slot.write(frames, Descriptor::INVALID);
                        gone += 1;
                    }
                }
                budget -= 1;
                at = (at | (level.span() - 1)) + 1;
            }
            if gone > 0 {
                flush = true;
                count_entries(frames, path.parent(), -gone);
                unlink_empty(frames, path, &mut retired);
            }
        }
        if retired.release(frames, input, count) {
            flush = false;
        }
        Ok(Progress {
            frames: at.min(end) - input,
            flush,
        })
    }

    /// Maps the single frame `input` to `output`. Returns the previous leaf, which has been flushed.
    pub fn replace<F: TableFrames>(
        &mut self,
        frames: &mut F,
        input: u32,
        output: Mfn,
        attributes: Attributes,
    ) -> Result<Option<Leaf>, TableError> {
        let end = self.check(input, 1)?;
        let Some(old) = self.lookup(frames, input) else {
            let mapped = self.map(frames, input, output, 1, attributes, 1);
            // New translations need no flush.
            return mapped.map(|_progress| None);
        };
        let path = self.split_ends(frames, input, end)?;
        path.at().write(frames, Descriptor::INVALID);
        frames.flush(input, 1);
        path.at()
            .write(frames, Descriptor::leaf(path.level, output, attributes));
        self.count_full(frames, input, path);
        Ok(Some(Leaf { order: 0, ..old }))
    }

    /// Merges the tables around `input` into blocks that map the same.
    pub fn merge<F: TableFrames>(&mut self, frames: &mut F, input: u32) {
        for lowest in [Level::Two, Level::One] {
            if input < self.inputs {
                let (path, entry) = self.walk(frames, input, lowest);
                if matches!(entry, Entry::Table(_, note) if usize::from(note.used) == ENTRIES) {
                    merge(frames, path.at(), input);
                }
            }
        }
    }

    /// Calls `visit` with every leaf from `input` on, until it returns false.
    pub fn visit<F: TableFrames>(
        &self,
        frames: &F,
        input: u32,
        visit: impl FnMut(u32, Leaf) -> bool,
    ) {
        self.visit_some(frames, input, u32::MAX, visit);
    }

    /// Calls `visit` with the leaves from `input` on, until it returns false or `budget` entries, holes included, were
    /// visited. Returns the next input to visit, at most the end of the space.
    pub fn visit_some<F: TableFrames>(
        &self,
        frames: &F,
        input: u32,
        budget: u32,
        mut visit: impl FnMut(u32, Leaf) -> bool,
    ) -> u32 {
        let mut at = input;
        for _ in 0..budget {
            if at >= self.inputs {
                break;
            }
            let (path, entry) = self.walk(frames, at, Level::Three);
            let first = at & !(path.level.span() - 1);
            if let Entry::Leaf(output, attributes) = entry {
                let order = path.level.order();
                let leaf = Leaf {
                    output,
                    order,
                    attributes,
                };
                at = first.saturating_add(path.level.span());
                if !visit(first, leaf) {
                    break;
                }
            }
            at = first.saturating_add(path.level.span());
        }
        at
    }
}
