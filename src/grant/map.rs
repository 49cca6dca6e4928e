//! The mapper's side: handles of the grants that a domain has mapped.
//!
//! Handles live in units of [`HANDLES_PER_FRAME`] that are allocated when all others are in use; the free ones form a
//! list. Taking a mapping out of its slot is what makes an unmap happen exactly once (XSA-218); it stays there, under the
//! table's lock, until its page is out of the mapper's stage 2.

use alloc::vec::Vec;

use armv7::addr::{Gfn, Ipa, Mfn, PAGE_SHIFT};
use armv7::heap;

use super::{Access, GrantHandle, GrantRef, HANDLES_PER_FRAME, Search};
use crate::abi::grant_table::{GrantError, MAP_DEVICE, MAP_HOST, MAP_READONLY, MapGrantRef};
use crate::id::DomId;

/// End of the list of free handles.
const NONE: u32 = !0;

/// What a domain asks to map, checked as far as that needs no table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapRequest {
    /// Whose table.
    pub granter: DomId,
    /// Which entry.
    pub grant_ref: GrantRef,
    /// What for.
    pub access: Access,
    /// Where in the caller's memory.
    pub gfn: Gfn,
}

impl MapRequest {
    /// Decodes an element of `map_grant_ref`.
    ///
    /// ARM has host mappings only. Address 0 is refused because `unmap_grant_ref` takes it as "no address". The granter is
    /// named by its own id: [`DomId::SELF`] is no domain here.
    pub fn decode(op: &MapGrantRef) -> Result<Self, GrantError> {
        if op.flags & (MAP_DEVICE | MAP_HOST) == 0 {
            return Err(GrantError::BadGrantRef);
        }
        if op.flags & !MAP_READONLY != MAP_HOST {
            return Err(GrantError::General);
        }
        let gfn = Ipa::new(op.host_addr).map(Ipa::frame);
        Ok(Self {
            granter: DomId(op.dom),
            grant_ref: GrantRef(op.grant_ref),
            access: if op.flags & MAP_READONLY != 0 {
                Access::Read
            } else {
                Access::Write
            },
            gfn: gfn
                .filter(|gfn| gfn.raw() != 0)
                .ok_or(GrantError::BadVirtAddr)?,
        })
    }

    /// The mapping that fulfils this request with the frame `mfn`.
    pub const fn mapping(&self, mfn: Mfn) -> Mapping {
        Mapping {
            granter: self.granter,
            grant_ref: self.grant_ref,
            access: self.access,
            gfn: self.gfn,
            mfn,
        }
    }
}

/// A grant that a domain has mapped.
///
/// Whoever takes one out of a table has removed it from the mapper's stage 2 and must release the granter's entry.
#[must_use = "the granter's entry stays in use until it is released"]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// Whose grant. Its table exists as long as the mapping does.
    pub granter: DomId,
    /// Which entry.
    pub grant_ref: GrantRef,
    /// What for.
    pub access: Access,
    /// Where in the mapper's memory.
    pub gfn: Gfn,
    /// The machine frame.
    pub mfn: Mfn,
}

/// Answer of `release_next`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "the mapping was taken out of its slot"]
pub enum Step {
    /// A mapping to undo, which is the caller's now: if that fails, it is put back with `keep`.
    Release(Mapping),
    /// The budget is used up.
    More,
    /// No mapping is left.
    Done,
}

#[derive(Clone, Copy)]
enum Slot {
    Free { next: u32 },
    Used(Mapping),
}

const _: () = assert!(size_of::<Slot>() * HANDLES_PER_FRAME as usize == 4096);

pub(super) struct Maptrack {
    units: Vec<Vec<Slot>>,
    max_units: u32,
    free: u32,
    used: u32,
}

/// A free handle, with the memory for a mapping. Dropping it changes nothing.
pub struct Vacancy<'a> {
    index: u32,
    next: u32,
    slot: &'a mut Slot,
    free: &'a mut u32,
    used: &'a mut u32,
}

impl Vacancy<'_> {
    /// Makes the handle name `mapping`.
    pub fn record(self, mapping: Mapping) -> GrantHandle {
        *self.slot = Slot::Used(mapping);
        *self.free = self.next;
        *self.used += 1;
        GrantHandle(self.index)
    }
}

/// A handle in use. Dropping it changes nothing.
#[must_use = "the handle stays in use until it is freed"]
pub struct Occupied<'a> {
    index: u32,
    mapping: Mapping,
    slot: &'a mut Slot,
    free: &'a mut u32,
    used: &'a mut u32,
}

impl Occupied<'_> {
    /// What the handle names.
    pub const fn mapping(&self) -> Mapping {
        self.mapping
    }

    /// Frees the handle; its mapping is out of the mapper's stage 2, and the granter's entry is the caller's to release.
    pub fn free(self) {
        *self.slot = Slot::Free { next: *self.free };
        *self.free = self.index;
        *self.used = self.used.saturating_sub(1);
    }
}

impl Maptrack {
    pub(super) const fn new(max_units: u32) -> Self {
        Self {
            units: Vec::new(),
            max_units,
            free: NONE,
            used: 0,
        }
    }

    pub(super) fn vacancy(&mut self) -> Result<Vacancy<'_>, GrantError> {
        if self.free == NONE {
            self.grow()?;
        }
        let index = self.free;
        let slot = slot_mut(&mut self.units, index).ok_or(GrantError::NoSpace)?;
        let Slot::Free { next } = *slot else {
            debug_assert!(false, "the list of free handles holds free ones");
            return Err(GrantError::NoSpace);
        };
        Ok(Vacancy {
            index,
            next,
            slot,
            free: &mut self.free,
            used: &mut self.used,
        })
    }

    pub(super) fn occupied(
        &mut self,
        handle: GrantHandle,
        host_addr: u64,
    ) -> Result<Option<Occupied<'_>>, GrantError> {
        let slot = slot_mut(&mut self.units, handle.0).ok_or(GrantError::BadHandle)?;
        let Slot::Used(mapping) = *slot else {
            return Err(GrantError::BadHandle);
        };
        if host_addr == 0 {
            return Ok(None);
        }
        if host_addr >> PAGE_SHIFT != u64::from(mapping.gfn.raw()) {
            return Err(GrantError::BadVirtAddr);
        }
        Ok(Some(Occupied {
            index: handle.0,
            mapping,
            slot,
            free: &mut self.free,
            used: &mut self.used,
        }))
    }

    /// Puts back what [`Maptrack::release_next`] took last.
    pub(super) fn keep(&mut self, mapping: Mapping) {
        if let Some(unit) = self.units.last_mut() {
            // Never grows the unit: its last slot has just been taken.
            unit.push(Slot::Used(mapping));
            self.used += 1;
        }
    }

    /// Empties the units from the end, so that each is freed as soon as its last handle is looked at (XSA-380).
    pub(super) fn release_next(&mut self, budget: &mut u32) -> Step {
        self.max_units = 0;
        self.free = NONE;
        while let Some(unit) = self.units.last_mut() {
            while !unit.is_empty() {
                let Some(left) = budget.checked_sub(1) else {
                    return Step::More;
                };
                *budget = left;
                if let Some(Slot::Used(mapping)) = unit.pop() {
                    self.used = self.used.saturating_sub(1);
                    return Step::Release(mapping);
                }
            }
            self.units.pop();
        }
        Step::Done
    }

    pub(super) fn used(&self) -> u32 {
        self.used
    }

    pub(super) fn next(&self, from: GrantHandle, limit: u32) -> Search<(GrantHandle, Mapping)> {
        let mut number = from.0;
        for _ in 0..limit {
            let (unit, index) = position(number);
            let Some(unit) = self.units.get(unit) else {
                return Search::Absent;
            };
            if let Some(Slot::Used(mapping)) = unit.get(index) {
                return Search::Found((GrantHandle(number), *mapping));
            }
            number = number.saturating_add(1);
        }
        Search::More(number)
    }

    fn grow(&mut self) -> Result<(), GrantError> {
        let number = self.units.len() as u32;
        if number >= self.max_units {
            return Err(GrantError::NoSpace);
        }
        let mut unit = Vec::new();
        if !heap::has_room(HANDLES_PER_FRAME as usize * size_of::<Slot>())
            || self.units.try_reserve(1).is_err()
            || unit.try_reserve_exact(HANDLES_PER_FRAME as usize).is_err()
        {
            return Err(GrantError::NoSpace);
        }
        let first = number * HANDLES_PER_FRAME;
        unit.extend((1..=HANDLES_PER_FRAME).map(|next| Slot::Free {
            next: if next == HANDLES_PER_FRAME {
                NONE
            } else {
                first + next
            },
        }));
        self.units.push(unit);
        self.free = first;
        Ok(())
    }
}

fn slot_mut(units: &mut [Vec<Slot>], number: u32) -> Option<&mut Slot> {
    let (unit, index) = position(number);
    units.get_mut(unit)?.get_mut(index)
}

/// Unit and index of a handle.
fn position(number: u32) -> (usize, usize) {
    let unit = number / HANDLES_PER_FRAME;
    let index = number % HANDLES_PER_FRAME;
    (unit as usize, index as usize)
}
