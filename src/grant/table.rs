//! The granter's side: the frames of entries, and the hypervisor's record of each entry in use.

use alloc::vec::Vec;

use armv7::addr::{Gfn, Mfn};
use armv7::frame::PageRef;
use armv7::heap;

use super::entry::{Check, Cleared, Entry};
use super::map::{Mapping, Maptrack, Occupied, Step, Vacancy};
use super::{
    Access, ENTRIES_PER_FRAME, GrantHandle, GrantRef, GranterMemory, Limits, Pinned, Search,
};
use crate::abi::grant_table::{GTF_READING, GTF_WRITING, GrantError};
use crate::id::DomId;

/// `frame_list` entry of `setup_table` for a frame that the domain has not mapped.
const UNMAPPED_FRAME: u64 = !0;

/// One domain's grants: those it gives, and the handles of those it has mapped.
///
/// `P` keeps a frame of entries mapped.
pub struct GrantTable<P> {
    frames: Vec<Frame<P>>,
    maptrack: Maptrack<P>,
    limits: Limits,
    life: Life,
    /// Number of times that the granter prevented the clearing of marks.
    unstable: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Life {
    Open,
    /// The domain is being destroyed: no new uses, but existing ones may end.
    Closed,
}

/// One frame of entries.
struct Frame<P> {
    /// `None` after the domain's destruction has freed it.
    page: Option<P>,
    /// The domain's gfn of the frame, if mapped.
    gfn: Option<Gfn>,
    active: Vec<Active>,
    /// Number of entries of `active` in use.
    pinned: u32,
}

/// The hypervisor's record of one entry. Valid only while the entry has readers or writers.
#[derive(Clone, Copy, Default)]
struct Active {
    mfn: Mfn,
    gfn: Gfn,
    by: u16,
    readers: u16,
    writers: u16,
    writable: bool,
}

const _: () = assert!(size_of::<Active>() == 16);

/// An entry in use, for debug output.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ActiveGrant {
    /// The entry.
    pub grant_ref: GrantRef,
    /// Its user.
    pub by: DomId,
    /// Its frame.
    pub pinned: Pinned,
    /// Number of read-only users.
    pub readers: u16,
    /// Number of users that may write.
    pub writers: u16,
    /// Current flags of the shared entry.
    pub flags: u16,
}

/// Reason a table did not grow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GrowError {
    /// Its limit is reached, or it is closed.
    Limit,
    /// Out of heap memory for the records.
    NoMemory,
}

impl<P: PageRef> GrantTable<P> {
    /// Returns a table without frames.
    pub const fn new(limits: Limits) -> Self {
        Self {
            frames: Vec::new(),
            maptrack: Maptrack::new(limits.max_maptrack_frames),
            limits,
            life: Life::Open,
            unstable: 0,
        }
    }

    /// Pins the frame of `grant_ref` for `by`, and marks the entry in use.
    ///
    /// Each success requires one [`release`](Self::release) with the same reference and access.
    pub fn acquire(
        &mut self,
        grant_ref: GrantRef,
        by: DomId,
        access: Access,
        memory: &mut impl GranterMemory,
    ) -> Result<Pinned, GrantError> {
        if self.life == Life::Closed {
            return Err(GrantError::BadDomain);
        }
        let (number, index) = position(grant_ref);
        let frame = self.frames.get_mut(number).ok_or(GrantError::BadGrantRef)?;
        let active = frame.active.get_mut(index).ok_or(GrantError::BadGrantRef)?;
        let page = frame.page.as_ref().ok_or(GrantError::BadDomain)?.page();
        let entry = Entry::at(page, index).ok_or(GrantError::BadGrantRef)?;

        if active.is_pinned() {
            if active.by != by.0 {
                return Err(GrantError::General);
            }
            let count = active.incremented(access)?;
            if access == Access::Write && active.writers == 0 {
                if !active.writable {
                    return Err(GrantError::BadPage);
                }
                entry.mark(Check::InUse, access)?;
                memory.note_write(active.gfn);
            }
            *active.count_mut(access) = count;
            return Ok(active.frame());
        }

        entry.mark(Check::GrantedTo(by), access)?;
        match pin(&entry, access, memory) {
            Ok((gfn, mfn, writable)) => {
                *active = Active {
                    mfn,
                    gfn,
                    by: by.0,
                    readers: 0,
                    writers: 0,
                    writable,
                };
                *active.count_mut(access) = 1;
                frame.pinned += 1;
                Ok(active.frame())
            }
            Err(error) => {
                let cleared = entry.clear(GTF_READING | GTF_WRITING);
                self.count_unstable(cleared);
                Err(error)
            }
        }
    }

    /// Ends a use of `grant_ref` begun by [`acquire`](Self::acquire). All access to the frame must have ended.
    pub fn release(
        &mut self,
        grant_ref: GrantRef,
        access: Access,
        memory: &mut impl GranterMemory,
    ) {
        let (number, index) = position(grant_ref);
        let Some(frame) = self.frames.get_mut(number) else {
            debug_assert!(false, "a release follows an acquire of the same entry");
            return;
        };
        let Some(active) = frame.active.get_mut(index) else {
            return;
        };
        let Some(count) = active.count_mut(access).checked_sub(1) else {
            debug_assert!(false, "a release follows an acquire of the same access");
            return;
        };
        *active.count_mut(access) = count;
        let marks = if !active.is_pinned() {
            GTF_READING | GTF_WRITING
        } else if access == Access::Write && count == 0 {
            GTF_WRITING
        } else {
            return;
        };
        let (mfn, gone) = (active.mfn, !active.is_pinned());
        let entry = frame
            .page
            .as_ref()
            .and_then(|page| Entry::at(page.page(), index));
        // Without a page the granter is being destroyed, and nothing reads the marks.
        let cleared = entry.map_or(Cleared::Yes, |entry| entry.clear(marks));
        if gone {
            frame.pinned = frame.pinned.saturating_sub(1);
            memory.unpin(mfn);
        }
        self.count_unstable(cleared);
    }

    /// Exchanges two unused entries (XSA-18).
    pub fn swap(&mut self, a: GrantRef, b: GrantRef) -> Result<(), GrantError> {
        let (first, first_active) = self.entry(a)?;
        let (second, second_active) = self.entry(b)?;
        if a == b {
            return Ok(());
        }
        if first_active.is_pinned() || second_active.is_pinned() {
            return Err(GrantError::Again);
        }
        first.swap(&second);
        Ok(())
    }

    /// Adds a zeroed frame of entries. Returns the frame on failure.
    pub fn grow(&mut self, page: P) -> Result<(), (GrowError, P)> {
        if self.life == Life::Closed || self.size() >= self.limits.max_frames {
            return Err((GrowError::Limit, page));
        }
        let mut active = Vec::new();
        if !heap::has_room(ENTRIES_PER_FRAME as usize * size_of::<Active>())
            || self.frames.try_reserve(1).is_err()
            || active
                .try_reserve_exact(ENTRIES_PER_FRAME as usize)
                .is_err()
        {
            return Err((GrowError::NoMemory, page));
        }
        active.resize(ENTRIES_PER_FRAME as usize, Active::default());
        self.frames.push(Frame {
            page: Some(page),
            gfn: None,
            active,
            pinned: 0,
        });
        Ok(())
    }

    /// Returns the number of frames to add for `wanted` in total. Fails if that exceeds the limit.
    pub fn missing_frames(&self, wanted: u64) -> Result<u32, GrantError> {
        match u32::try_from(wanted) {
            Ok(wanted) if wanted <= self.limits.max_frames => {
                Ok(wanted.saturating_sub(self.size()))
            }
            _ => Err(GrantError::General),
        }
    }

    /// Returns the number of frames of entries.
    pub fn size(&self) -> u32 {
        self.frames.len() as u32
    }

    /// Returns the maximum number of frames of entries.
    pub fn max_size(&self) -> u32 {
        self.limits.max_frames
    }

    /// Returns the frame of entries at `index`.
    pub fn frame(&self, index: u32) -> Option<&P> {
        self.frames.get(index as usize)?.page.as_ref()
    }

    /// Returns the domain's gfn of frame `index`, as reported by `setup_table`: all ones if not mapped.
    pub fn frame_gfn(&self, index: u32) -> u64 {
        self.frames
            .get(index as usize)
            .and_then(|frame| frame.gfn)
            .map_or(UNMAPPED_FRAME, |gfn| u64::from(gfn.raw()))
    }

    /// Returns whether the domain has mapped frame `index`.
    pub fn has_place(&self, index: u32) -> bool {
        self.frame_gfn(index) != UNMAPPED_FRAME
    }

    /// Records that the domain has mapped frame `index` at `gfn`.
    pub fn set_place(&mut self, index: u32, gfn: Gfn) {
        if let Some(frame) = self.frames.get_mut(index as usize) {
            frame.gfn = Some(gfn);
        }
    }

    /// Records that the domain has no frame of entries mapped at `gfn`.
    pub fn forget_place(&mut self, gfn: Gfn) {
        if let Some(frame) = self.frames.iter_mut().find(|f| f.gfn == Some(gfn)) {
            frame.gfn = None;
        }
    }

    /// Returns whether [`add_unit`](Self::add_unit) is needed and allowed for a new mapping.
    pub fn wants_unit(&self) -> bool {
        self.maptrack.wants_unit() && self.life == Life::Open
    }

    /// Adds a page of handles. Returns false, and drops the page, if it is not needed or the heap is full.
    pub fn add_unit(&mut self, page: P) -> bool {
        self.life == Life::Open && self.maptrack.add_unit(page)
    }

    /// Returns a free handle for a new mapping.
    pub fn vacancy(&mut self) -> Result<Vacancy<'_>, GrantError> {
        if self.life == Life::Closed {
            return Err(GrantError::General);
        }
        self.maptrack.vacancy()
    }

    /// Returns whether `handle` has a mapping.
    pub fn has_mapping(&self, handle: GrantHandle) -> bool {
        self.maptrack.has(handle)
    }

    /// Returns the mapping of `handle`, if it is at the guest physical address `host_addr`. `None` if the address is 0,
    /// a no-op.
    ///
    /// The caller removes it from the p2m, frees the handle, and then releases the granter's entry.
    pub fn occupied(
        &mut self,
        handle: GrantHandle,
        host_addr: u64,
    ) -> Result<Option<Occupied<'_>>, GrantError> {
        self.maptrack.occupied(handle, host_addr)
    }

    /// Returns the number of grants that this domain has mapped.
    pub fn mappings(&self) -> u32 {
        self.maptrack.used()
    }

    /// Closes the table: from now on acquiring, mapping and growing fail.
    pub fn close(&mut self) {
        self.life = Life::Closed;
    }

    /// Returns the next remaining mapping, for the caller to undo. Requires [`close`](Self::close).
    ///
    /// Checks at most `budget` handles, and charges them to it.
    pub fn release_next(&mut self, budget: &mut u32) -> Step {
        debug_assert!(self.life == Life::Closed, "only a closed table is emptied");
        self.maptrack.release_next(budget)
    }

    /// Returns the mapping that [`release_next`](Self::release_next) took last to its slot, as it could not be undone.
    pub fn keep(&mut self, mapping: Mapping) {
        self.maptrack.keep(mapping);
    }

    /// Takes the next frame of entries, for the caller to free. Requires [`close`](Self::close).
    pub fn take_frame(&mut self) -> Option<P> {
        if self.life == Life::Open {
            return None;
        }
        self.frames.iter_mut().find_map(|frame| frame.page.take())
    }

    /// Returns the number of entries in use.
    pub fn pinned(&self) -> u32 {
        self.frames.iter().map(|frame| frame.pinned).sum()
    }

    /// Returns every frame of entries and every page of handles, for an audit.
    pub fn pages(&self) -> impl Iterator<Item = &P> {
        let frames = self.frames.iter().filter_map(|frame| frame.page.as_ref());
        frames.chain(self.maptrack.pages())
    }

    /// Returns the frame of each entry in use, for an audit.
    pub fn pinned_frames(&self) -> impl Iterator<Item = Mfn> {
        let used = self.frames.iter().filter(|frame| frame.pinned > 0);
        used.flat_map(|frame| &frame.active)
            .filter(|active| active.is_pinned())
            .map(|active| active.mfn)
    }

    /// Returns whether neither this domain uses a grant nor another domain one of its grants.
    pub fn is_idle(&self) -> bool {
        self.pinned() == 0 && self.mappings() == 0
    }

    /// Returns the number of times that the domain prevented the clearing of marks in its entries.
    pub fn unstable(&self) -> u32 {
        self.unstable
    }

    /// Returns the first entry in use at or after `from`, checking at most `limit` entries.
    pub fn next_active(&self, from: GrantRef, limit: u32) -> Search<ActiveGrant> {
        self.search(from, limit, |_| true)
    }

    /// Returns whether `by` uses a grant of `mfn`, checking at most `limit` entries from `from` on.
    pub fn find_frame(
        &self,
        by: DomId,
        mfn: Mfn,
        from: GrantRef,
        limit: u32,
    ) -> Search<ActiveGrant> {
        self.search(from, limit, |active| active.by == by.0 && active.mfn == mfn)
    }

    /// Returns the first mapping at or after `from`, checking at most `limit` handles.
    pub fn next_mapping(&self, from: GrantHandle, limit: u32) -> Search<(GrantHandle, Mapping)> {
        self.maptrack.next(from, limit)
    }

    fn search(
        &self,
        from: GrantRef,
        limit: u32,
        wanted: impl Fn(&Active) -> bool,
    ) -> Search<ActiveGrant> {
        let end = self.size().saturating_mul(ENTRIES_PER_FRAME);
        let mut number = from.0;
        for _ in 0..limit {
            let grant_ref = GrantRef(number);
            let (frame, index) = position(grant_ref);
            let Some(frame) = self.frames.get(frame) else {
                return Search::Absent;
            };
            if frame.pinned == 0 {
                number = (number | (ENTRIES_PER_FRAME - 1)).saturating_add(1);
                continue;
            }
            if let Some(active) = frame.active.get(index)
                && active.is_pinned()
                && wanted(active)
            {
                let page = frame.page.as_ref().map(PageRef::page);
                let entry = page.and_then(|page| Entry::at(page, index));
                return Search::Found(ActiveGrant {
                    grant_ref,
                    by: DomId(active.by),
                    pinned: active.frame(),
                    readers: active.readers,
                    writers: active.writers,
                    flags: entry.map_or(0, |entry| entry.flags()),
                });
            }
            number = number.saturating_add(1);
        }
        if number < end {
            Search::More(number)
        } else {
            Search::Absent
        }
    }

    fn entry(&self, grant_ref: GrantRef) -> Result<(Entry<'_>, &Active), GrantError> {
        let (number, index) = position(grant_ref);
        let frame = self.frames.get(number).ok_or(GrantError::BadGrantRef)?;
        let active = frame.active.get(index).ok_or(GrantError::BadGrantRef)?;
        let page = frame.page.as_ref().ok_or(GrantError::BadGrantRef)?;
        let entry = Entry::at(page.page(), index).ok_or(GrantError::BadGrantRef)?;
        Ok((entry, active))
    }

    fn count_unstable(&mut self, cleared: Cleared) {
        if cleared == Cleared::No {
            self.unstable = self.unstable.saturating_add(1);
        }
    }
}

impl Active {
    fn is_pinned(&self) -> bool {
        self.readers != 0 || self.writers != 0
    }

    fn frame(&self) -> Pinned {
        Pinned {
            mfn: self.mfn,
            gfn: self.gfn,
        }
    }

    fn count_mut(&mut self, access: Access) -> &mut u16 {
        match access {
            Access::Read => &mut self.readers,
            Access::Write => &mut self.writers,
        }
    }

    fn incremented(&mut self, access: Access) -> Result<u16, GrantError> {
        self.count_mut(access)
            .checked_add(1)
            .ok_or(GrantError::General)
    }
}

/// Returns frame and index of an entry.
fn position(grant_ref: GrantRef) -> (usize, usize) {
    let number = grant_ref.0 / ENTRIES_PER_FRAME;
    let index = grant_ref.0 % ENTRIES_PER_FRAME;
    (number as usize, index as usize)
}

/// Reads the marked entry's frame number, once, and takes a reference on the frame.
fn pin(
    entry: &Entry<'_>,
    access: Access,
    memory: &mut impl GranterMemory,
) -> Result<(Gfn, Mfn, bool), GrantError> {
    let gfn = Gfn::new(u64::from(entry.frame())).ok_or(GrantError::BadPage)?;
    let frame = memory.pin(gfn, access)?;
    if access == Access::Write && !frame.writable {
        memory.unpin(frame.mfn);
        return Err(GrantError::BadPage);
    }
    Ok((gfn, frame.mfn, frame.writable))
}
