//! The mapper's side: handles of the grants that a domain has mapped.
//!
//! Handles live in units of [`HANDLES_PER_FRAME`], one page each, which the caller supplies when all others are in use.
//! The page counts as the mapper's, and is freed with the mapper. Free handles form a list. A mapping can be taken out
//! of its slot only once, so an unmap happens exactly once (XSA-218). It stays in the slot, under the table's lock,
//! until its page is out of the mapper's p2m.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use armv7::addr::{Gfn, Ipa, Mfn, PAGE_SHIFT, PAGE_SIZE};
use armv7::frame::{PageRef, SharedPage};

use super::{Access, GrantHandle, GrantRef, HANDLES_PER_FRAME, Search};
use crate::abi::grant_table::{
    GrantError, MAP_APPLICATION, MAP_CONTAINS_PTE, MAP_DEVICE, MAP_HOST, MAP_READONLY, MapGrantRef,
};
use crate::id::DomId;

/// End of the list of free handles.
const NONE: u32 = !0;

/// A map request, checked as far as possible without a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapRequest {
    /// The granter.
    pub granter: DomId,
    /// The entry.
    pub grant_ref: GrantRef,
    /// Access requested.
    pub access: Access,
    /// The caller's gfn, or the error of its address, which is reported after all other errors.
    pub gfn: Result<Gfn, GrantError>,
}

impl MapRequest {
    /// Decodes an element of `map_grant_ref`.
    ///
    /// Arm has host mappings only. Address 0 is refused, as `unmap_grant_ref` takes it as "no address". The granter is
    /// given by its own id; [`DomId::SELF`] is not accepted.
    pub fn decode(op: &MapGrantRef) -> Result<Self, GrantError> {
        if op.flags & (MAP_DEVICE | MAP_HOST) == 0 {
            return Err(GrantError::BadGrantRef);
        }
        if op.flags & (MAP_DEVICE | MAP_APPLICATION | MAP_CONTAINS_PTE) != 0 {
            return Err(GrantError::General);
        }
        let gfn = Ipa::new(op.host_addr).map(Ipa::frame);
        let gfn = gfn.filter(|gfn| gfn.raw() != 0);
        Ok(Self {
            granter: DomId(op.dom),
            grant_ref: GrantRef(op.grant_ref),
            access: if op.flags & MAP_READONLY != 0 {
                Access::Read
            } else {
                Access::Write
            },
            gfn: match op.flags & !MAP_READONLY {
                MAP_HOST => gfn.ok_or(GrantError::BadVirtAddr),
                _ => Err(GrantError::General),
            },
        })
    }

    /// Returns the mapping of the frame `mfn` at `gfn` for this request.
    pub const fn mapping(&self, gfn: Gfn, mfn: Mfn) -> Mapping {
        Mapping {
            granter: self.granter,
            grant_ref: self.grant_ref,
            access: self.access,
            gfn,
            mfn,
        }
    }
}

/// A grant that a domain has mapped.
///
/// Taking one out of a table requires removing it from the mapper's p2m before, and releasing the granter's entry
/// after.
#[must_use = "the granter's entry stays in use until it is released"]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// The granter, whose table exists as long as the mapping.
    pub granter: DomId,
    /// The entry.
    pub grant_ref: GrantRef,
    /// Access of the mapping.
    pub access: Access,
    /// Its gfn in the mapper's p2m.
    pub gfn: Gfn,
    /// The machine frame.
    pub mfn: Mfn,
}

/// Result of `release_next`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "the mapping was taken out of its slot"]
pub enum Step {
    /// A mapping that the caller must undo. If that fails, the caller returns it by `keep`.
    Release(Mapping),
    /// The budget is used up.
    More,
    /// No mapping is left.
    Done,
}

/// Words of a slot. The first one is its state.
const SLOT_WORDS: usize = 4;
/// The slot is in use: granter and access in the first word, then reference, guest frame and machine frame. Otherwise
/// the second word is the next free handle.
const IN_USE: u32 = 1;
/// The mapping may write.
const WRITABLE: u32 = 2;
const GRANTER_SHIFT: u32 = 16;

/// A slot in a unit's page, accessed under the table's lock only.
#[derive(Clone, Copy)]
struct Slot<'a>(&'a [AtomicU32; SLOT_WORDS]);

const _: () = assert!(SLOT_WORDS * 4 * HANDLES_PER_FRAME as usize == PAGE_SIZE);

impl<'a> Slot<'a> {
    fn at(page: &'a SharedPage, index: usize) -> Option<Self> {
        page.words().as_chunks().0.get(index).map(Self)
    }

    fn word(self, n: usize) -> u32 {
        self.0[n % SLOT_WORDS].load(Ordering::Relaxed)
    }

    fn set(self, words: [u32; SLOT_WORDS]) {
        for (cell, word) in self.0.iter().zip(words) {
            cell.store(word, Ordering::Relaxed);
        }
    }

    fn is_used(self) -> bool {
        self.word(0) & IN_USE != 0
    }

    #[inline(always)]
    fn mapping(self) -> Option<Mapping> {
        let state = self.word(0);
        if state & IN_USE == 0 {
            return None;
        }
        Some(Mapping {
            granter: DomId((state >> GRANTER_SHIFT) as u16),
            grant_ref: GrantRef(self.word(1)),
            access: match state & WRITABLE {
                0 => Access::Read,
                _ => Access::Write,
            },
            gfn: Gfn::new(self.word(2).into())?,
            mfn: Mfn::new(self.word(3).into())?,
        })
    }

    #[inline(always)]
    fn use_for(self, mapping: &Mapping) {
        let writable = match mapping.access {
            Access::Read => 0,
            Access::Write => WRITABLE,
        };
        let granter = u32::from(mapping.granter.0) << GRANTER_SHIFT;
        self.set([
            granter | writable | IN_USE,
            mapping.grant_ref.0,
            mapping.gfn.raw(),
            mapping.mfn.raw(),
        ]);
    }

    fn free(self, next: u32) {
        let [state, link, ..] = self.0;
        state.store(0, Ordering::Relaxed);
        link.store(next, Ordering::Relaxed);
    }
}

pub(super) struct Maptrack<P> {
    units: Vec<P>,
    max_units: u32,
    free: u32,
    used: u32,
    /// Slots of the last unit still to be checked when the table is emptied.
    left: u32,
}

/// A free handle with its slot. Dropping it has no effect.
pub struct Vacancy<'a> {
    index: u32,
    slot: Slot<'a>,
    free: &'a mut u32,
    used: &'a mut u32,
}

impl Vacancy<'_> {
    /// Records `mapping` under the handle.
    #[inline(always)]
    pub fn record(self, mapping: Mapping) -> GrantHandle {
        *self.free = self.slot.word(1);
        self.slot.use_for(&mapping);
        *self.used += 1;
        GrantHandle(self.index)
    }
}

/// A handle in use. Dropping it has no effect.
#[must_use = "the handle stays in use until it is freed"]
pub struct Occupied<'a> {
    index: u32,
    mapping: Mapping,
    slot: Slot<'a>,
    free: &'a mut u32,
    used: &'a mut u32,
}

impl Occupied<'_> {
    /// Returns the mapping.
    pub const fn mapping(&self) -> Mapping {
        self.mapping
    }

    /// Frees the handle. The mapping must be out of the mapper's p2m; the caller must release the granter's entry.
    pub fn free(self) {
        self.slot.free(*self.free);
        *self.free = self.index;
        *self.used = self.used.saturating_sub(1);
    }
}

impl<P: PageRef> Maptrack<P> {
    pub(super) const fn new(max_units: u32) -> Self {
        Self {
            units: Vec::new(),
            max_units,
            free: NONE,
            used: 0,
            left: HANDLES_PER_FRAME,
        }
    }

    /// Returns whether a page for more handles is needed and allowed.
    pub(super) fn wants_unit(&self) -> bool {
        self.free == NONE && (self.units.len() as u32) < self.max_units
    }

    /// Adds a page of handles. Returns false, and drops the page, if it is not needed or the heap is full.
    pub(super) fn add_unit(&mut self, page: P) -> bool {
        if !self.wants_unit() || self.units.try_reserve(1).is_err() {
            return false;
        }
        let first = self.units.len() as u32 * HANDLES_PER_FRAME;
        for n in 0..HANDLES_PER_FRAME {
            let next = match n + 1 {
                HANDLES_PER_FRAME => NONE,
                next => first + next,
            };
            if let Some(slot) = Slot::at(page.page(), n as usize) {
                slot.free(next);
            }
        }
        self.units.push(page);
        self.free = first;
        true
    }

    /// Returns every page of handles, for an audit.
    pub(super) fn pages(&self) -> impl Iterator<Item = &P> {
        self.units.iter()
    }

    pub(super) fn vacancy(&mut self) -> Result<Vacancy<'_>, GrantError> {
        let index = self.free;
        let slot = slot(&self.units, index).ok_or(GrantError::NoSpace)?;
        debug_assert!(
            slot.word(0) == 0,
            "the list of free handles holds free ones"
        );
        Ok(Vacancy {
            index,
            slot,
            free: &mut self.free,
            used: &mut self.used,
        })
    }

    /// Returns whether `handle` is in use.
    pub(super) fn has(&self, handle: GrantHandle) -> bool {
        slot(&self.units, handle.0).is_some_and(Slot::is_used)
    }

    #[inline(always)]
    pub(super) fn occupied(
        &mut self,
        handle: GrantHandle,
        host_addr: u64,
    ) -> Result<Option<Occupied<'_>>, GrantError> {
        let slot = slot(&self.units, handle.0).ok_or(GrantError::BadHandle)?;
        let mapping = slot.mapping().ok_or(GrantError::BadHandle)?;
        if host_addr == 0 {
            return Ok(None);
        }
        if host_addr >> PAGE_SHIFT != u64::from(mapping.gfn.raw()) {
            return Err(GrantError::General);
        }
        Ok(Some(Occupied {
            index: handle.0,
            mapping,
            slot,
            free: &mut self.free,
            used: &mut self.used,
        }))
    }

    /// Returns a mapping that [`Maptrack::release_next`] took last to its slot.
    pub(super) fn keep(&mut self, mapping: Mapping) {
        if let Some(slot) = self
            .units
            .last()
            .and_then(|unit| Slot::at(unit.page(), self.left as usize))
        {
            slot.use_for(&mapping);
            self.left += 1;
            self.used += 1;
        }
    }

    /// Empties the units from the end, so that each page is freed as soon as its last handle has been checked
    /// (XSA-380).
    pub(super) fn release_next(&mut self, budget: &mut u32) -> Step {
        self.max_units = 0;
        self.free = NONE;
        while let Some(unit) = self.units.last() {
            while let Some(index) = self.left.checked_sub(1) {
                let Some(left) = budget.checked_sub(1) else {
                    return Step::More;
                };
                *budget = left;
                self.left = index;
                let Some(slot) = Slot::at(unit.page(), index as usize) else {
                    continue;
                };
                if let Some(mapping) = slot.mapping() {
                    slot.free(NONE);
                    self.used = self.used.saturating_sub(1);
                    return Step::Release(mapping);
                }
            }
            self.units.pop();
            self.left = HANDLES_PER_FRAME;
        }
        Step::Done
    }

    pub(super) fn used(&self) -> u32 {
        self.used
    }

    pub(super) fn next(&self, from: GrantHandle, limit: u32) -> Search<(GrantHandle, Mapping)> {
        let mut number = from.0;
        for _ in 0..limit {
            let Some(slot) = slot(&self.units, number) else {
                return Search::Absent;
            };
            if let Some(mapping) = slot.mapping() {
                return Search::Found((GrantHandle(number), mapping));
            }
            number = number.saturating_add(1);
        }
        Search::More(number)
    }
}

fn slot<P: PageRef>(units: &[P], number: u32) -> Option<Slot<'_>> {
    let (unit, index) = position(number);
    Slot::at(units.get(unit)?.page(), index)
}

/// Returns unit and index of a handle.
fn position(number: u32) -> (usize, usize) {
    let unit = number / HANDLES_PER_FRAME;
    let index = number % HANDLES_PER_FRAME;
    (unit as usize, index as usize)
}
