//! The granter's side: the frames of entries, and what we know about each entry in use.

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
    /// Times that the granter kept us from clearing marks.
    unstable: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Life {
    Open,
    /// The domain is being destroyed: nothing new begins, what there is may end.
    Closed,
}

/// One frame of entries.
struct Frame<P> {
    /// `None` once the domain's destruction has taken it away.
    page: Option<P>,
    /// Where the domain has the frame in its own memory.
    gfn: Option<Gfn>,
    active: Vec<Active>,
    /// How many of `active` are in use.
    pinned: u32,
}

/// The hypervisor's record of one entry. Meaningful only while somebody reads or writes.
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

/// An entry in use, for a report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ActiveGrant {
    /// Which entry.
    pub grant_ref: GrantRef,
    /// Who uses it.
    pub by: DomId,
    /// The frame, as its users see it.
    pub pinned: Pinned,
    /// Users that only read.
    pub readers: u16,
    /// Users that may write.
    pub writers: u16,
    /// The flags in the shared entry now.
    pub flags: u16,
}

/// Why a table did not grow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GrowError {
    /// It is as large as it may become, or closed.
    Limit,
    /// No memory for our part of it.
    NoMemory,
}

impl<P: PageRef> GrantTable<P> {
    /// A table without frames.
    pub const fn new(limits: Limits) -> Self {
        Self {
            frames: Vec::new(),
            maptrack: Maptrack::new(limits.max_maptrack_frames),
            limits,
            life: Life::Open,
            unstable: 0,
        }
    }

    /// Pins the frame behind `grant_ref` for `by`, and marks the entry as in use.
    ///
    /// Each success is followed by one [`release`](Self::release) with the same reference and access.
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
                self.note(cleared);
                Err(error)
            }
        }
    }

    /// Ends one use of `grant_ref` that [`acquire`](Self::acquire) began. All access to the frame must be over.
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
        // Without a page the granter is being destroyed and nobody reads the marks any more.
        let cleared = entry.map_or(Cleared::Yes, |entry| entry.clear(marks));
        if gone {
            frame.pinned = frame.pinned.saturating_sub(1);
            memory.unpin(mfn);
        }
        self.note(cleared);
    }

    /// Exchanges two entries that are not in use (XSA-18).
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

    /// Adds a frame of entries, which must be zero.
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

    /// Returns how many frames the table lacks to have `wanted` of them; an error when it may not become so large.
    pub fn missing_frames(&self, wanted: u64) -> Result<u32, GrantError> {
        match u32::try_from(wanted) {
            Ok(wanted) if wanted <= self.limits.max_frames => {
                Ok(wanted.saturating_sub(self.size()))
            }
            _ => Err(GrantError::General),
        }
    }

    /// Returns the frames of entries now.
    pub fn size(&self) -> u32 {
        self.frames.len() as u32
    }

    /// Returns the frames of entries at most.
    pub fn max_size(&self) -> u32 {
        self.limits.max_frames
    }

    /// Returns the frame of entries numbered `index`.
    pub fn frame(&self, index: u32) -> Option<&P> {
        self.frames.get(index as usize)?.page.as_ref()
    }

    /// Returns where the domain has frame `index`, as `setup_table` reports it: all ones when nowhere.
    pub fn frame_gfn(&self, index: u32) -> u64 {
        self.frames
            .get(index as usize)
            .and_then(|frame| frame.gfn)
            .map_or(UNMAPPED_FRAME, |gfn| u64::from(gfn.raw()))
    }

    /// Returns whether the domain has frame `index` in its memory.
    pub fn has_place(&self, index: u32) -> bool {
        self.frame_gfn(index) != UNMAPPED_FRAME
    }

    /// Records that the domain has frame `index` at `gfn`.
    pub fn set_place(&mut self, index: u32, gfn: Gfn) {
        if let Some(frame) = self.frames.get_mut(index as usize) {
            frame.gfn = Some(gfn);
        }
    }

    /// Records that the domain has no frame of entries at `gfn`.
    pub fn forget_place(&mut self, gfn: Gfn) {
        if let Some(frame) = self.frames.iter_mut().find(|f| f.gfn == Some(gfn)) {
            frame.gfn = None;
        }
    }

    /// Returns whether there is no place for a new mapping, but [`add_unit`](Self::add_unit) would make some.
    #[inline]
    pub fn wants_unit(&self) -> bool {
        self.maptrack.wants_unit() && self.life == Life::Open
    }

    /// Adds a page for handles; false (and the page dropped) when none is wanted any more, or without memory.
    pub fn add_unit(&mut self, page: P) -> bool {
        self.life == Life::Open && self.maptrack.add_unit(page)
    }

    /// Finds a place for a new mapping, with the memory for it.
    pub fn vacancy(&mut self) -> Result<Vacancy<'_>, GrantError> {
        if self.life == Life::Closed {
            return Err(GrantError::General);
        }
        self.maptrack.vacancy()
    }

    /// Returns whether `handle` names a mapping.
    pub fn has_mapping(&self, handle: GrantHandle) -> bool {
        self.maptrack.has(handle)
    }

    /// Returns the mapping `handle`, if it is at the guest physical address `host_addr`.
    ///
    /// The caller removes it from stage 2, frees the handle, and then releases the granter's entry. `None`: the address is 0, which
    /// asks for nothing.
    pub fn occupied(
        &mut self,
        handle: GrantHandle,
        host_addr: u64,
    ) -> Result<Option<Occupied<'_>>, GrantError> {
        self.maptrack.occupied(handle, host_addr)
    }

    /// Grants that this domain has mapped.
    pub fn mappings(&self) -> u32 {
        self.maptrack.used()
    }

    /// Begins the domain's end: from now on nothing is acquired, mapped or grown.
    pub fn close(&mut self) {
        self.life = Life::Closed;
    }

    /// After [`close`](Self::close): the next mapping that the domain leaves behind, for the caller to undo.
    ///
    /// Looks at no more handles than `budget`, which it charges.
    pub fn release_next(&mut self, budget: &mut u32) -> Step {
        debug_assert!(self.life == Life::Closed, "only a closed table is emptied");
        self.maptrack.release_next(budget)
    }

    /// Puts back the mapping that [`release_next`](Self::release_next) took last: it could not be undone.
    pub fn keep(&mut self, mapping: Mapping) {
        self.maptrack.keep(mapping);
    }

    /// After [`close`](Self::close): the next frame of entries, for the caller to free.
    pub fn take_frame(&mut self) -> Option<P> {
        if self.life == Life::Open {
            return None;
        }
        self.frames.iter_mut().find_map(|frame| frame.page.take())
    }

    /// Entries that somebody uses.
    pub fn pinned(&self) -> u32 {
        self.frames.iter().map(|frame| frame.pinned).sum()
    }

    /// Shows every frame of entries and every page of handles, for an audit.
    pub fn pages(&self) -> impl Iterator<Item = &P> {
        let frames = self.frames.iter().filter_map(|frame| frame.page.as_ref());
        frames.chain(self.maptrack.pages())
    }

    /// Shows the frame behind each entry in use, for an audit.
    pub fn pinned_frames(&self) -> impl Iterator<Item = Mfn> {
        let used = self.frames.iter().filter(|frame| frame.pinned > 0);
        used.flat_map(|frame| &frame.active)
            .filter(|active| active.is_pinned())
            .map(|active| active.mfn)
    }

    /// Returns whether neither this domain uses a grant nor anybody one of its grants.
    pub fn is_idle(&self) -> bool {
        self.pinned() == 0 && self.mappings() == 0
    }

    /// Times that the domain kept us from clearing marks in its own entries.
    pub fn unstable(&self) -> u32 {
        self.unstable
    }

    /// Returns the first entry in use at or after `from`, looking at no more than `limit` entries.
    pub fn next_active(&self, from: GrantRef, limit: u32) -> Search<ActiveGrant> {
        self.search(from, limit, |_| true)
    }

    /// Returns whether `by` uses a grant of `mfn`, looking at no more than `limit` entries from `from` on.
    pub fn find_frame(
        &self,
        by: DomId,
        mfn: Mfn,
        from: GrantRef,
        limit: u32,
    ) -> Search<ActiveGrant> {
        self.search(from, limit, |active| active.by == by.0 && active.mfn == mfn)
    }

    /// Returns the first mapping at or after `from`, looking at no more than `limit` handles.
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

    fn note(&mut self, cleared: Cleared) {
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

/// Returns the frame and index of an entry.
fn position(grant_ref: GrantRef) -> (usize, usize) {
    let number = grant_ref.0 / ENTRIES_PER_FRAME;
    let index = grant_ref.0 % ENTRIES_PER_FRAME;
    (number as usize, index as usize)
}

/// Reads the marked entry's frame number, once, and takes the reference.
fn pin(
    entry: &Entry<'_>,
    access: Access,
    memory: &mut impl GranterMemory,
) -> Result<(Gfn, Mfn, bool), GrantError> {
    let gfn = Gfn::new(u64::from(entry.frame())).ok_or(GrantError::BadPage)?;
    let frame = memory.pin(gfn)?;
    if access == Access::Write && !frame.writable {
        memory.unpin(frame.mfn);
        return Err(GrantError::BadPage);
    }
    Ok((gfn, frame.mfn, frame.writable))
}
