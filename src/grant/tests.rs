//! Tests of the grant rules: what they share.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use armv7::addr::{Gfn, Mfn};
use armv7::frame::{PageRef, SharedPage};
use armv7::host::frame::{FIRST, FRAMES};

use super::{
    Access, ENTRIES_PER_FRAME, GrantHandle, GrantRef, GrantTable, GrantedFrame, GranterMemory,
    Limits, Mapping, PinError, Vacancy,
};
use crate::abi::grant_table::{GTF_PERMIT_ACCESS, GrantError};
use crate::id::DomId;

mod copying;
mod destroying;
mod mapping;
mod model;
mod reference;
mod rules;
mod threads;

pub(super) const GRANTER: DomId = DomId(1);
pub(super) const MAPPER: DomId = DomId(2);
pub(super) const STRANGER: DomId = DomId(3);

impl<P: PageRef> GrantTable<P> {
    /// Takes a mapping out of its slot, as its mapper does once it is out of stage 2.
    pub(super) fn unmap(
        &mut self,
        handle: GrantHandle,
        host_addr: u64,
    ) -> Result<Option<Mapping>, GrantError> {
        Ok(self.occupied(handle, host_addr)?.map(|occupied| {
            let mapping = occupied.mapping();
            occupied.free();
            mapping
        }))
    }
}

impl GrantTable<Page> {
    /// Finds a place for a mapping, and brings a page for more of them where that is wanted.
    pub(super) fn room(&mut self) -> Result<Vacancy<'_>, GrantError> {
        if self.wants_unit() && !self.add_unit(page()) {
            return Err(GrantError::NoSpace);
        }
        self.vacancy()
    }
}

/// A frame of entries, or of handles, in the host's arena.
pub(super) struct Page(Mfn);

/// Frames of finished tests.
static FREE: Mutex<Vec<Mfn>> = Mutex::new(Vec::new());

impl PageRef for Page {
    fn page(&self) -> &SharedPage {
        armv7::frame::page(self.0).unwrap()
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        FREE.lock().unwrap().push(self.0);
    }
}

/// Takes a zero page that no other test uses, from the arena's end.
pub(super) fn page() -> Page {
    static TAKEN: AtomicU32 = AtomicU32::new(16);
    let recycled = FREE.lock().unwrap().pop();
    let mfn = recycled.unwrap_or_else(|| {
        let n = TAKEN.fetch_add(1, Ordering::Relaxed);
        mfn(FIRST + FRAMES - 1 - n)
    });
    let page = Page(mfn);
    page.page().zero();
    page
}

pub(super) fn table(frames: u32, max_frames: u32, max_maptrack: u32) -> GrantTable<Page> {
    let mut table = GrantTable::new(Limits::new(max_frames, max_maptrack).unwrap());
    for _ in 0..frames {
        assert!(table.grow(page()).is_ok());
    }
    table
}

/// Writes an entry as its granter does.
pub(super) fn write(table: &GrantTable<Page>, grant_ref: u32, flags: u16, by: DomId, frame: u32) {
    let page = shared(table, grant_ref);
    let offset = grant_ref as usize % ENTRIES_PER_FRAME as usize * 8;
    let word = u32::from(by.0) << 16 | u32::from(flags);
    page.u32_at(offset + 4)
        .unwrap()
        .store(frame, Ordering::Relaxed);
    page.u32_at(offset).unwrap().store(word, Ordering::Release);
}

/// Grants `frame` to `by`.
pub(super) fn grant(table: &GrantTable<Page>, grant_ref: u32, by: DomId, frame: u32) {
    write(table, grant_ref, GTF_PERMIT_ACCESS, by, frame);
}

/// Flags and domain id of an entry.
pub(super) fn word(table: &GrantTable<Page>, grant_ref: u32) -> u32 {
    let offset = grant_ref as usize % ENTRIES_PER_FRAME as usize * 8;
    let page = shared(table, grant_ref);
    page.u32_at(offset).unwrap().load(Ordering::Relaxed)
}

pub(super) fn flags(table: &GrantTable<Page>, grant_ref: u32) -> u16 {
    word(table, grant_ref) as u16
}

pub(super) fn shared(table: &GrantTable<Page>, grant_ref: u32) -> &'static SharedPage {
    let page = table.frame(grant_ref / ENTRIES_PER_FRAME).unwrap();
    armv7::frame::page(page.0).unwrap()
}

/// A granter's memory: frames by GFN, and the references on frames.
#[derive(Default)]
pub(super) struct Memory {
    pub map: BTreeMap<Gfn, GrantedFrame>,
    pub refs: BTreeMap<Mfn, u32>,
    pub pins: u32,
    pub written: Vec<Gfn>,
}

impl Memory {
    /// Frames 0x100.. at GFN 0x10.., of which the last is read-only.
    pub(super) fn new() -> Self {
        let frame = |n: u32| GrantedFrame {
            mfn: mfn(0x100 + n),
            writable: n != 7,
        };
        Self {
            map: (0..8).map(|n| (gfn(0x10 + n), frame(n))).collect(),
            ..Self::default()
        }
    }

    pub(super) fn total(&self) -> u32 {
        self.refs.values().sum()
    }
}

impl GranterMemory for Memory {
    fn pin(&mut self, gfn: Gfn, access: Access) -> Result<GrantedFrame, PinError> {
        let frame = *self.map.get(&gfn).ok_or(PinError::BadPage)?;
        *self.refs.entry(frame.mfn).or_default() += 1;
        self.pins += 1;
        if access == Access::Write && frame.writable {
            self.note_write(gfn);
        }
        Ok(frame)
    }

    fn note_write(&mut self, gfn: Gfn) {
        self.written.push(gfn);
    }

    fn unpin(&mut self, mfn: Mfn) {
        let refs = self.refs.get_mut(&mfn).expect("an unpin follows a pin");
        *refs = refs.checked_sub(1).expect("no more unpins than pins");
    }
}

pub(super) fn gfn(n: u32) -> Gfn {
    Gfn::new(u64::from(n)).unwrap()
}

pub(super) fn mfn(n: u32) -> Mfn {
    Mfn::new(u64::from(n)).unwrap()
}

pub(super) const REF: GrantRef = GrantRef(9);
