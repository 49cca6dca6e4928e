//! Grants between domains: access to the granter's memory, and the end of a mapping.
//!
//! A mapping ends in three steps, in this order: its stage-2 entry is removed, the TLBs are flushed, the granter's entry is
//! released. Mappings are collected between the first step and the second, so that one flush serves many. A mapping whose
//! stage-2 entry cannot be removed keeps its handle, and the granter's entry stays in use.

use alloc::sync::Arc;

use armv7::addr::{Gfn, Mfn};
use arrayvec::ArrayVec;

use super::{Domain, registry};
use crate::grant::{self, GrantedFrame, GranterMemory, Mapping, PinError, Step};
use crate::id::DomId;
use crate::mem::frame_table::Kind;
use crate::mem::memory;
use crate::mem::p2m::{Access, P2mError, P2mType, Removed};

/// A granter's memory, by its stage-2 map and the frame table.
pub struct Granted<'a>(pub &'a Domain);

impl GranterMemory for Granted<'_> {
    fn pin(&mut self, gfn: Gfn, access: grant::Access) -> Result<GrantedFrame, PinError> {
        let mut p2m = self.0.p2m.lock();
        let pinned = p2m.pin(gfn, Access::Read);
        let (reference, kind) = pinned.ok_or(PinError::BadPage)?;
        if access == grant::Access::Write && kind.catches_writes() {
            p2m.note_write(gfn);
        }
        drop(p2m);
        // A domain may not grant pages that the hypervisor shares with it.
        if !kind.is_own_ram() || reference.owner() != self.0.id || reference.kind() == Kind::Shared
        {
            return Err(PinError::BadPage);
        }
        let mfn = reference.into_raw();
        Ok(GrantedFrame {
            mfn,
            writable: kind.allows(Access::Write),
        })
    }

    fn note_write(&mut self, gfn: Gfn) {
        let mut p2m = self.0.p2m.lock();
        if p2m
            .find(gfn)
            .is_some_and(|entry| entry.kind.catches_writes())
        {
            p2m.note_write(gfn);
        }
    }

    #[inline(always)]
    fn unpin(&mut self, mfn: Mfn) {
        memory().put(mfn);
    }
}

/// Finds the domains of one call's elements. It keeps the last one, as most elements name the same domain.
pub struct Peers<'a> {
    /// The calling domain.
    pub own: &'a Arc<Domain>,
    last: Option<Arc<Domain>>,
}

impl<'a> Peers<'a> {
    /// Returns a finder for a call of `own`.
    pub const fn new(own: &'a Arc<Domain>) -> Self {
        Self { own, last: None }
    }

    /// Returns the domain `id`.
    #[inline(always)]
    pub fn find(&mut self, id: DomId) -> Option<&Domain> {
        if id == self.own.id {
            return Some(self.own);
        }
        if self.last.as_ref().is_none_or(|last| last.id != id) {
            self.last = Some(registry::get(id)?);
        }
        self.last.as_deref()
    }
}

/// Returns the stage-2 type of a grant's mapping.
pub const fn kind_of(access: grant::Access) -> P2mType {
    match access {
        grant::Access::Read => P2mType::GrantRo,
        grant::Access::Write => P2mType::GrantRw,
    }
}

/// Mappings that were removed from their mapper's stage 2, and may still be in TLBs.
pub struct Leaving<'a> {
    peers: Peers<'a>,
    removed: Removed,
    mappings: ArrayVec<Mapping, { Removed::MAX_RUNS }>,
}

impl<'a> Leaving<'a> {
    /// Returns an empty collection for mappings of `mapper`.
    pub const fn new(mapper: &'a Arc<Domain>) -> Self {
        Self {
            peers: Peers::new(mapper),
            removed: Removed::new(),
            mappings: ArrayVec::new_const(),
        }
    }

    /// Makes room for one more. It locks the granters' tables, so it comes before the mapper's is locked.
    pub fn make_room(&mut self) {
        if self.removed.is_full() || self.mappings.is_full() {
            self.finish();
        }
    }

    /// Removes `mapping` from stage 2, after [`Leaving::make_room`]. On success it is in this collection, and the caller
    /// frees its handle. On failure nothing has changed.
    pub fn push(&mut self, mapping: Mapping) -> Result<(), P2mError> {
        if self.mappings.is_full() {
            return Err(P2mError::Full);
        }
        // Whoever removed the entry before has flushed and released it.
        let _found: bool = self.peers.own.p2m.lock().unmap_exact(
            mapping.gfn,
            mapping.mfn,
            kind_of(mapping.access),
            &mut self.removed,
        )?;
        self.mappings.push(mapping);
        Ok(())
    }

    /// Flushes the TLBs, then releases the granters' entries.
    pub fn finish(&mut self) {
        if !self.removed.is_empty() {
            self.peers.own.p2m.lock().release_from(&mut self.removed);
        }
        let mut rest = self.mappings.as_slice();
        while let Some(Mapping { granter: id, .. }) = rest.first() {
            let same = rest
                .iter()
                .take_while(|mapping| mapping.granter == *id)
                .count();
            let (now, later) = rest.split_at(same);
            if let Some(granter) = self.peers.find(*id) {
                let mut grants = granter.grants.lock();
                for mapping in now {
                    grants.release(mapping.grant_ref, mapping.access, &mut Granted(granter));
                }
            } else {
                debug_assert!(
                    false,
                    "a granter can be found for as long as somebody uses its grants"
                );
            }
            rest = later;
        }
        self.mappings.clear();
    }
}

/// Ends the mappings of a dying domain, reading at most `budget` handles. Returns true when none is left. A mapping that
/// cannot end now stays for the next call. From the first call on, the domain maps no grants, and none of its own can be
/// taken into use.
///
/// Comes after the domain's last hypercall, and before its stage 2 is emptied.
pub fn release_all(domain: &Arc<Domain>, budget: u32) -> bool {
    let mut budget = budget;
    let mut leaving = Leaving::new(domain);
    domain.grants.lock().close();
    let done = loop {
        leaving.make_room();
        let mut grants = domain.grants.lock();
        match grants.release_next(&mut budget) {
            Step::Release(mapping) => {
                if leaving.push(mapping).is_err() {
                    grants.keep(mapping);
                    break false;
                }
            }
            Step::More => break false,
            Step::Done => break true,
        }
    };
    leaving.finish();
    done
}
