//! A domain's stage 2 map: from each guest frame to a machine frame and its kind.
//!
//! The domain keeps it in a `Lock<P2m, {rank::P2M}>`. Tables come from the domain's own pool (XSA-409);
//! [`armv7::table`] defines their format and the order of every change. Everything is mapped eagerly: no entry is
//! present here and invalid in hardware (XSA-393), except during a break-before-make under the lock.
//!
//! Invariants:
//! 1. Each entry of a RAM kind ([`P2mType::is_ram`]) owns one reference on its frame. [`P2m::map`] takes over the
//!    caller's; unmapping returns it in [`Removed`], which is flushed before the reference is dropped.
//! 2. A call that fails changes nothing: a page whose block cannot be split stays mapped (XSA-222), and the caller gets
//!    an error. Other domains' pages never become a block ([`P2mType::leaves_in_blocks`]), so they can always be
//!    unmapped.
//! 3. Guest frames have 28 bits: [`Gfn`] holds no more, and a range beyond them is refused (XSA-301).
//!
//! A data or prefetch abort may come from another CPU's break-before-make. Look the frame up under the lock; if the
//! access is allowed, let the guest retry.
//!
//! DDI 0406C.d B3.6, B3.10; kinds and attributes as in xen/arch/arm/p2m.c (`p2m_set_permission`, `mfn_to_p2m_entry`).

use armv7::addr::{Gfn, MAX_FRAMES, Mfn};
use armv7::lpae;
use armv7::table::{Table, TableError, TableFrames};

use super::pinned::FrameRef;
use super::{AllocError, Memory};
use pool::Space;

pub use kind::{Access, P2mType};
pub use log_dirty::{Bits, PIECE};
pub use removed::{Removed, Run};

mod kind;
mod log_dirty;
mod pool;
mod removed;
#[cfg(test)]
mod tests;

/// Barriers and TLB maintenance of stage 2.
#[derive(Clone, Copy, Debug)]
pub struct Tlb {
    /// DSB ISHST; invalidates all translations of the VTTBR's VMID on all CPUs; DSB ISH; ISB.
    pub flush: fn(vttbr: u64),
    /// DSB ISHST; ISB: makes new entries visible to walks.
    pub publish: fn(),
}

/// Source of a domain's table frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PoolLimit {
    /// Its pool, of this many pages.
    Pages(u32),
    /// Free memory as needed, for the control domain.
    Unlimited,
}

/// Reason a call changed nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum P2mError {
    /// The pool is empty, or memory is short for the pool.
    NoMemory,
    /// All VMIDs are in use.
    NoVmid,
    /// The range is empty, or exceeds the 40-bit guest or machine address space.
    OutOfRange,
    /// A frame is mapped there.
    Occupied,
    /// The page there is of a kind that the caller does not accept.
    WrongType,
    /// The collection of removed entries is full: release it first.
    Full,
}

impl From<TableError> for P2mError {
    fn from(error: TableError) -> Self {
        match error {
            TableError::NoTable => Self::NoMemory,
            TableError::OutOfRange => Self::OutOfRange,
            TableError::Occupied => Self::Occupied,
        }
    }
}

impl From<AllocError> for P2mError {
    fn from(_: AllocError) -> Self {
        Self::NoMemory
    }
}

/// The page behind a guest frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The machine frame.
    pub mfn: Mfn,
    /// Its kind.
    pub kind: P2mType,
    /// log2 of the number of frames of the page or block that maps it.
    pub order: u8,
}

/// A stage 2 map.
#[derive(Debug)]
pub struct P2m<'m> {
    table: Table,
    space: Space<'m>,
    high: Option<Gfn>,
    relinquished: u32,
    log: log_dirty::Log,
}

impl<'m> P2m<'m> {
    /// Returns an empty map with a free VMID. An error leaves nothing allocated.
    pub fn new(memory: &'m Memory, tlb: Tlb, limit: PoolLimit) -> Result<Self, P2mError> {
        let vmid = memory.vmids.take().ok_or(P2mError::NoVmid)?;
        let Some(root) = memory.alloc_hyp(1) else {
            memory.vmids.give(vmid);
            return Err(P2mError::NoMemory);
        };
        let unlimited = limit == PoolLimit::Unlimited;
        // From here on, dropping `p2m` releases everything.
        let mut p2m = Self {
            table: Table::stage2(root),
            space: Space::new(memory, tlb, lpae::vttbr(root, vmid), unlimited),
            high: None,
            relinquished: 0,
            log: log_dirty::Log::default(),
        };
        p2m.space.flush(0, MAX_FRAMES);
        if let PoolLimit::Pages(pages) = limit {
            p2m.resize_pool(pages, u32::MAX)?;
        }
        Ok(p2m)
    }

    /// Returns the value of VTTBR.
    pub fn vttbr(&self) -> u64 {
        self.space.vttbr()
    }

    /// Returns the VMID.
    pub fn vmid(&self) -> u8 {
        self.space.vmid()
    }

    /// Returns the highest guest frame ever mapped.
    pub fn max_gfn(&self) -> Option<Gfn> {
        self.high
    }

    /// Returns the number of pages in the pool, used or not.
    pub fn pool_pages(&self) -> u32 {
        self.space.total()
    }

    /// Returns the number of tables in use, without the root.
    pub fn tables(&self) -> u32 {
        self.space.used()
    }

    /// Resizes the pool to `pages`, by at most `budget` pages per call. Returns whether it is done. Fails if memory is
    /// short, or if more tables are in use.
    pub fn resize_pool(&mut self, pages: u32, budget: u32) -> Result<bool, P2mError> {
        self.space.resize(pages, budget)
    }

    /// Returns the entry of `gfn`.
    #[inline(never)]
    pub fn lookup(&self, gfn: Gfn) -> Option<Entry> {
        self.find(gfn)
    }

    /// Returns the entry of `gfn`. [`P2m::lookup`], inlined for the paths of guest copies and grants.
    #[inline(always)]
    pub fn find(&self, gfn: Gfn) -> Option<Entry> {
        let leaf = self.table.lookup(&self.space, gfn.raw())?;
        Some(Entry {
            mfn: leaf.output,
            kind: P2mType::from_kind(leaf.attributes.kind())?,
            order: leaf.order as u8,
        })
    }

    /// Returns the RAM behind `gfn`, referenced, if `access` to it is allowed. Under the lock the entry's own reference
    /// keeps the frame alive, so the result is a page that this domain owns or maps at this moment (XSA-473). A page that
    /// is pinned for writing counts as written.
    pub fn pin(&mut self, gfn: Gfn, access: Access) -> Option<(FrameRef<'m>, P2mType)> {
        let mut entry = self.find(gfn)?;
        if !entry.kind.allows(access) {
            return None;
        }
        if access == Access::Write && entry.kind.catches_writes() {
            self.note_write(gfn);
            entry = self.find(gfn)?;
        }
        Some((self.space.memory().get_any(entry.mfn)?, entry.kind))
    }

    /// Maps up to `count` unmapped frames at `gfn` to those at `mfn`, in at most `budget` pages or blocks. Returns the
    /// number of frames mapped. For RAM, the map takes over one reference on each of these frames.
    #[inline(always)]
    pub fn map(
        &mut self,
        gfn: Gfn,
        mfn: Mfn,
        count: u32,
        kind: P2mType,
        budget: u32,
    ) -> Result<u32, P2mError> {
        let attributes = kind.attributes();
        let progress =
            self.table
                .map(&mut self.space, gfn.raw(), mfn, count, attributes, budget)?;
        self.space.publish();
        self.update_high(gfn, progress.frames);
        Ok(progress.frames)
    }

    /// Maps one frame `gfn` to `mfn`. A previous mapping goes to `removed`.
    pub fn replace(
        &mut self,
        gfn: Gfn,
        mfn: Mfn,
        kind: P2mType,
        removed: &mut Removed,
    ) -> Result<(), P2mError> {
        if removed.is_full() {
            return Err(P2mError::Full);
        }
        let old = self
            .table
            .replace(&mut self.space, gfn.raw(), mfn, kind.attributes())?;
        self.space.publish();
        self.update_high(gfn, 1);
        if let Some(old) = old
            && let Some(kind) = P2mType::from_kind(old.attributes.kind())
        {
            self.log.gave_back |= kind.is_own_ram();
            // The table flushed between the old entry and the new one.
            let pushed = removed.push(Run {
                gfn,
                mfn: old.output,
                count: 1,
                kind,
            });
            debug_assert!(pushed, "there is room");
        }
        Ok(())
    }

    /// Unmaps up to `count` frames at `gfn` of kinds that `accept` accepts. Checks about `budget` entries and stops
    /// when `removed` is full. Returns the number of frames processed, holes included.
    pub fn unmap(
        &mut self,
        gfn: Gfn,
        count: u32,
        budget: u32,
        accept: impl Fn(P2mType) -> bool,
        removed: &mut Removed,
    ) -> Result<u32, P2mError> {
        if removed.is_full() {
            return Err(P2mError::Full);
        }
        let (mut wrong, mut gave_back) = (false, false);
        let progress =
            self.table
                .unmap(&mut self.space, gfn.raw(), count, budget, |input, leaf| {
                    let Some(kind) = P2mType::from_kind(leaf.attributes.kind()) else {
                        return false;
                    };
                    if !accept(kind) {
                        wrong = true;
                        return false;
                    }
                    gave_back |= kind.is_own_ram();
                    Gfn::new(u64::from(input)).is_some_and(|gfn| {
                        removed.push(Run {
                            gfn,
                            mfn: leaf.output,
                            count: 1 << leaf.order,
                            kind,
                        })
                    })
                })?;
        if progress.flush {
            removed.owe_flush();
        }
        self.log.gave_back |= gave_back;
        if wrong && progress.frames == 0 {
            return Err(P2mError::WrongType);
        }
        Ok(progress.frames)
    }

    /// Unmaps one frame `gfn` if it maps to `mfn` as `kind`. Returns whether it did.
    pub fn unmap_exact(
        &mut self,
        gfn: Gfn,
        mfn: Mfn,
        kind: P2mType,
        removed: &mut Removed,
    ) -> Result<bool, P2mError> {
        if removed.is_full() {
            return Err(P2mError::Full);
        }
        let run = Run {
            gfn,
            mfn,
            count: 1,
            kind,
        };
        let number = kind as u8;
        let mut found = false;
        let unmapped = self.table.unmap_page(&mut self.space, gfn.raw(), |leaf| {
            found = leaf.output == mfn && leaf.attributes.kind() == number && removed.push(run);
            found
        });
        match unmapped {
            Some(progress) => {
                if progress.flush {
                    removed.owe_flush();
                }
                Ok(found)
            }
            // Adjacent entries may have been merged into a block.
            None if self
                .lookup(gfn)
                .is_some_and(|entry| entry.mfn == mfn && entry.kind == kind) =>
            {
                let frames = self.unmap(gfn, 1, 1, |_| true, removed)?;
                Ok(frames == 1)
            }
            None => Ok(false),
        }
    }

    /// Flushes what `removed` owes. Neither the guest nor a TLB can reach its frames after that.
    pub fn flush_removed(&self, removed: Removed) -> removed::Runs {
        self.flush_owed(&removed);
        removed.into_runs()
    }

    /// Flushes what `removed` owes, then drops the references on its RAM.
    #[inline(always)] // the collection is large: it is not to be moved for the call
    pub fn release(&self, removed: Removed) {
        self.release_all(&removed);
    }

    /// Does as [`P2m::release`], and empties the collection for reuse.
    pub fn release_from(&self, removed: &mut Removed) {
        self.release_all(removed);
        removed.clear();
    }

    fn release_all(&self, removed: &Removed) {
        self.flush_owed(removed);
        for run in removed.runs().iter().filter(|run| run.kind.is_ram()) {
            match run.count {
                1 => self.space.memory().put(run.mfn),
                count => self.space.memory().put_run(run.mfn, count),
            }
        }
    }

    fn flush_owed(&self, removed: &Removed) {
        if removed.owes_flush() {
            (self.space.tlb().flush)(self.vttbr());
        }
    }

    /// Merges the pages around `gfn` into the largest blocks with the same mapping.
    pub fn merge(&mut self, gfn: Gfn) {
        self.table.merge(&mut self.space, gfn.raw());
    }

    /// Unmaps everything, about `budget` entries and [`Removed::MAX_FRAMES`] frames per call. Returns whether nothing
    /// was left.
    pub fn relinquish(&mut self, budget: u32) -> bool {
        let mut removed = Removed::new();
        let end = self.high.map_or(0, |last| last.raw() + 1);
        let left = end.saturating_sub(self.relinquished);
        let Some(gfn) = Gfn::new(u64::from(self.relinquished)).filter(|_| left > 0) else {
            self.relinquished = 0;
            return true;
        };
        // Cannot fail: the range is the rest of everything mapped, so no block is split.
        let frames = self
            .unmap(gfn, left, budget, |_| true, &mut removed)
            .unwrap_or(0);
        let none = removed.is_empty();
        self.release(removed);
        self.relinquished += frames;
        let last = self.relinquished >= end;
        if last {
            self.relinquished = 0;
        }
        last && none
    }

    /// Passes every page and block from `from` on to `visit`, until it returns false.
    pub fn visit(&self, from: Gfn, mut visit: impl FnMut(Run) -> bool) {
        self.table.visit(&self.space, from.raw(), |input, leaf| {
            match (
                Gfn::new(u64::from(input)),
                P2mType::from_kind(leaf.attributes.kind()),
            ) {
                (Some(gfn), Some(kind)) => visit(Run {
                    gfn,
                    mfn: leaf.output,
                    count: 1 << leaf.order,
                    kind,
                }),
                _ => true,
            }
        });
    }

    /// Passes up to `pages` frames of RAM from `from` on to `show`, checking at most `steps` entries. Returns the frame
    /// to continue at, `None` after the last one.
    pub fn each_ram_page(
        &self,
        from: Gfn,
        pages: u32,
        steps: u32,
        mut show: impl FnMut(Mfn),
    ) -> Option<Gfn> {
        let mut left = pages;
        let mut stopped = None;
        let next = self
            .table
            .visit_some(&self.space, from.raw(), steps, |input, leaf| {
                if !P2mType::from_kind(leaf.attributes.kind()).is_some_and(P2mType::is_ram) {
                    return true;
                }
                // The first page may be in the middle of its block.
                let begin = from.raw().saturating_sub(input);
                for n in begin..1 << leaf.order {
                    if left == 0 {
                        stopped = Some(input.saturating_add(n));
                        return false;
                    }
                    left -= 1;
                    if let Some(mfn) = leaf.output.checked_add(n) {
                        show(mfn);
                    }
                }
                true
            });
        let next = stopped.unwrap_or(next);
        (next < MAX_FRAMES).then(|| Gfn::new(u64::from(next)))?
    }

    fn update_high(&mut self, gfn: Gfn, frames: u32) {
        if let Some(last) = frames.checked_sub(1).and_then(|n| gfn.checked_add(n))
            && self.high.is_none_or(|high| high < last)
        {
            self.high = Some(last);
        }
    }
}

impl Drop for P2m<'_> {
    fn drop(&mut self) {
        self.relinquished = 0;
        while !self.relinquish(4096) {}
        self.space.flush(0, MAX_FRAMES);
        let memory = self.space.memory();
        memory.free_hyp(self.table.root(), 1);
        memory.vmids.give(self.vmid());
        self.space.drain();
    }
}
