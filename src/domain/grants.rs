//! Grants between domains: the granter's memory, and how a mapping leaves its mapper's.
//!
//! A mapping leaves in three steps that must not change places: its stage-2 entry goes, the TLBs forget it, the granter's
//! entry is released. Mappings are collected between the first step and the second, so that one flush serves many. A
//! mapping whose stage-2 entry cannot go keeps its handle, and the granter's entry stays in use.

use alloc::sync::Arc;

use armv7::addr::{Gfn, Mfn};
use arrayvec::ArrayVec;

use super::{Domain, registry};
use crate::grant::{self, GrantedFrame, GranterMemory, Mapping, PinError, Step};
use crate::id::DomId;
use crate::mem::frame_table::Kind;
use crate::mem::memory;
use crate::mem::p2m::{Access, P2mError, P2mType, Removed};

/// A granter's memory, as its stage-2 map and the frame table know it.
pub struct Granted<'a>(pub &'a Domain);

impl GranterMemory for Granted<'_> {
    #[inline]
    fn pin(&mut self, gfn: Gfn) -> Result<GrantedFrame, PinError> {
        let pinned = self.0.p2m.lock().pin(gfn, Access::Read);
        let (reference, kind) = pinned.ok_or(PinError::BadPage)?;
        // Pages that the hypervisor shares with the domain are not the domain's to lend.
        if !kind.is_own_ram() || reference.owner() != self.0.id || reference.kind() == Kind::Shared
        {
            return Err(PinError::BadPage);
        }
        let mfn = reference.into_raw();
        Ok(GrantedFrame {
            mfn,
            writable: kind == P2mType::RamRw,
        })
    }

    #[inline(always)]
    fn unpin(&mut self, mfn: Mfn) {
        memory().put(mfn);
    }
}

/// The domains that one call deals with. It remembers the last one: the elements of an array are mostly about the same.
pub struct Peers<'a> {
    /// The one that calls.
    pub own: &'a Arc<Domain>,
    last: Option<Arc<Domain>>,
}

impl<'a> Peers<'a> {
    /// For a call of `own`.
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

/// Mappings that are out of their mapper's table and stage 2, but perhaps still in TLBs.
pub struct Leaving<'a> {
    peers: Peers<'a>,
    removed: Removed,
    mappings: ArrayVec<Mapping, { Removed::MAX_RUNS }>,
}

impl<'a> Leaving<'a> {
    /// None yet, of those that `mapper` has.
    pub const fn new(mapper: &'a Arc<Domain>) -> Self {
        Self {
            peers: Peers::new(mapper),
            removed: Removed::new(),
            mappings: ArrayVec::new_const(),
        }
    }

    /// Makes room for one more; comes before the mapper's table is locked, as it locks the granters'.
    #[inline]
    pub fn make_room(&mut self) {
        if self.removed.is_full() || self.mappings.is_full() {
            self.finish();
        }
    }

    /// Takes `mapping` out of stage 2, after [`Leaving::make_room`]. On success it is this collection's, and its handle is
    /// to be freed; on failure nothing has changed.
    #[inline]
    pub fn push(&mut self, mapping: Mapping) -> Result<(), P2mError> {
        if self.mappings.is_full() {
            return Err(P2mError::Full);
        }
        // When the entry is not there any more, its end has been seen to by whoever removed it.
        let _found: bool = self.peers.own.p2m.lock().unmap_exact(
            mapping.gfn,
            mapping.mfn,
            kind_of(mapping.access),
            &mut self.removed,
        )?;
        self.mappings.push(mapping);
        Ok(())
    }

    /// Flushes, and then releases the granters' entries.
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

/// Undoes the mappings that a dying domain leaves behind, looking at no more than `budget` handles; true when none is left.
/// One that cannot be undone now stays for the next call. From the first call on, the domain maps nothing and nobody begins
/// to use its grants.
///
/// Comes before the domain's stage 2 is taken apart, and after the last hypercall of its own.
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
