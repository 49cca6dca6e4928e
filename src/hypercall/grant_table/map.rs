//! Grants that appear in their user's memory, and how they leave it.
//!
//! A mapping leaves in three steps that must not change places: its stage-2 entry goes, the TLBs forget it, the granter's
//! entry is released. Unmapping collects mappings between the first step and the second, so that one flush serves many.

use core::mem::offset_of;

use alloc::sync::Arc;
use armv7::addr::Mfn;
use arrayvec::ArrayVec;

use super::array::each;
use super::{Args, Granted, Outcome, Peers, status_at};
use crate::abi::grant_table::{GrantError, MapGrantRef, UnmapGrantRef, status_of};
use crate::domain::Domain;
use crate::grant::{Access, GrantHandle, MapRequest, Mapping, Step};
use crate::mem::frame_table::{Kind, State};
use crate::mem::memory;
use crate::mem::p2m::{P2m, P2mError, P2mType, Removed};

pub(super) fn map(caller: &Arc<Domain>, args: &Args) -> Outcome {
    let mut peers = Peers::new(caller);
    each(caller, args, |op: &mut MapGrantRef| {
        let mapped = map_one(&mut peers, op);
        op.status = status_of(&mapped);
        match mapped {
            Ok((handle, mfn)) => {
                op.handle = handle.0;
                op.dev_bus_addr = mfn.addr().raw();
                offset_of!(MapGrantRef, status)..size_of::<MapGrantRef>()
            }
            Err(_) => {
                op.handle = GrantHandle::INVALID.0;
                offset_of!(MapGrantRef, status)..offset_of!(MapGrantRef, dev_bus_addr)
            }
        }
    })
}

#[inline(never)]
fn map_one(peers: &mut Peers<'_>, op: &MapGrantRef) -> Result<(GrantHandle, Mfn), GrantError> {
    let request = MapRequest::decode(op)?;
    let mapper = peers.own;
    let granter = peers.allowed(request.granter)?;
    let (grant_ref, access) = (request.grant_ref, request.access);
    let pinned =
        granter
            .grants
            .lock()
            .acquire(grant_ref, mapper.id, access, &mut Granted(granter))?;
    match enter(mapper, &request, pinned.mfn) {
        Ok(handle) => Ok((handle, pinned.mfn)),
        Err(error) => {
            granter
                .grants
                .lock()
                .release(grant_ref, access, &mut Granted(granter));
            Err(error)
        }
    }
}

/// Enters the granted frame `mfn` into the mapper's stage 2 and table; or changes nothing.
fn enter(mapper: &Domain, request: &MapRequest, mfn: Mfn) -> Result<GrantHandle, GrantError> {
    let reference = memory()
        .get(mfn, request.granter)
        .ok_or(GrantError::General)?;
    let kind = kind_of(request.access);
    let mut grants = mapper.grants.lock();
    let vacancy = grants.vacancy()?;
    let mut p2m = mapper.p2m.lock();
    match p2m.map(request.gfn, mfn, 1, kind, 1) {
        Ok(_) => {}
        Err(P2mError::Occupied) => displace(&mut p2m, request, mfn)?,
        Err(_) => return Err(GrantError::General),
    }
    // The reference is the map's from here on.
    reference.into_raw();
    Ok(vacancy.record(request.mapping(mfn)))
}

/// Puts `mfn` where the mapper has a page of RAM, which is given back. Anything else stays: grants and foreign pages have
/// their own way out, and of devices and the hypervisor's pages it is known where they are.
fn displace(p2m: &mut P2m<'static>, request: &MapRequest, mfn: Mfn) -> Result<(), GrantError> {
    let entry = p2m.lookup(request.gfn).ok_or(GrantError::General)?;
    let plain = matches!(
        memory().state(entry.mfn),
        State::Live {
            kind: Kind::Ram | Kind::Direct,
            ..
        }
    );
    if !plain || !entry.kind.is_own_ram() {
        return Err(GrantError::General);
    }
    let mut removed = Removed::new();
    let replaced = p2m.replace(request.gfn, mfn, kind_of(request.access), &mut removed);
    p2m.release(removed);
    replaced.map_err(|_| GrantError::General)
}

const fn kind_of(access: Access) -> P2mType {
    match access {
        Access::Read => P2mType::GrantRo,
        Access::Write => P2mType::GrantRw,
    }
}

pub(super) fn unmap(caller: &Arc<Domain>, args: &Args) -> Outcome {
    let mut leaving = Leaving::new(caller);
    let outcome = each(caller, args, |op: &mut UnmapGrantRef| {
        op.status = status_of(&unmap_one(&mut leaving, op));
        status_at(offset_of!(UnmapGrantRef, status))
    });
    leaving.finish();
    outcome
}

#[inline(never)]
fn unmap_one(leaving: &mut Leaving<'_>, op: &UnmapGrantRef) -> Result<(), GrantError> {
    let mut grants = leaving.peers.own.grants.lock();
    let taken = grants.unmap(GrantHandle(op.handle), op.host_addr);
    drop(grants);
    if let Some(mapping) = taken? {
        leaving.push(mapping);
    }
    Ok(())
}

/// Mappings that are out of their mapper's table and stage 2, but perhaps still in TLBs.
struct Leaving<'a> {
    peers: Peers<'a>,
    removed: Removed,
    mappings: ArrayVec<Mapping, { Removed::MAX_RUNS }>,
}

impl<'a> Leaving<'a> {
    const fn new(mapper: &'a Arc<Domain>) -> Self {
        Self {
            peers: Peers::new(mapper),
            removed: Removed::new(),
            mappings: ArrayVec::new_const(),
        }
    }

    /// Takes `mapping` out of stage 2.
    fn push(&mut self, mapping: Mapping) {
        let mut p2m = self.peers.own.p2m.lock();
        // There is room. When the entry is not there any more, its end has been seen to by whoever removed it.
        let _ = p2m.unmap_exact(
            mapping.gfn,
            mapping.mfn,
            kind_of(mapping.access),
            &mut self.removed,
        );
        drop(p2m);
        self.mappings.push(mapping);
        if self.removed.is_full() || self.mappings.is_full() {
            self.finish();
        }
    }

    /// Flushes, and then releases the granters' entries.
    fn finish(&mut self) {
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

/// Undoes the mappings that a dying domain leaves behind, looking at no more than `budget` handles; true when none is
/// left. From the first call on, the domain maps nothing and nobody begins to use its grants.
///
/// Comes before the domain's stage 2 is taken apart, and after the last hypercall of its own.
pub fn release_all(domain: &Arc<Domain>, budget: u32) -> bool {
    let mut budget = budget;
    let mut leaving = Leaving::new(domain);
    domain.grants.lock().close();
    let done = loop {
        let step = domain.grants.lock().release_next(&mut budget);
        match step {
            Step::Release(mapping) => leaving.push(mapping),
            Step::More => break false,
            Step::Done => break true,
        }
    };
    leaving.finish();
    done
}
