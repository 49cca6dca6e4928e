//! Maps grants into their mapper's stage 2, and unmaps them (`domain::grants`).

use core::mem::offset_of;

use alloc::sync::Arc;
use armv7::addr::Mfn;

use super::array::each;
use super::{Granted, Peers, allowed, status_at};
use crate::abi::grant_table::{GrantError, MapGrantRef, UnmapGrantRef, status_of};
use crate::call::{Args, Outcome};
use crate::domain::Domain;
use crate::domain::grants::{Leaving, kind_of};
use crate::domain::memory::account_page;
use crate::domain::place::{self, Replaces};
use crate::grant::{GrantHandle, MapRequest};
use crate::mem::memory;
use crate::mem::p2m::P2mError;

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
    let granter = allowed(peers, request.granter)?;
    let (grant_ref, access) = (request.grant_ref, request.access);
    let acquired =
        granter
            .grants
            .lock()
            .acquire(grant_ref, mapper.id, access, &mut Granted(granter));
    let pinned = match acquired {
        Ok(pinned) => pinned,
        // The error of a full maptrack table takes precedence over the granter's.
        Err(error) => return Err(is_full(mapper).err().unwrap_or(error)),
    };
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

/// Gives the mapper a page for more handles. Another vCPU of it may have done so meanwhile.
#[cold]
fn add_unit(mapper: &Domain) -> Result<(), GrantError> {
    let page = account_page(mapper.id).map_err(|_| GrantError::NoSpace)?;
    let mut grants = mapper.grants.lock();
    if grants.add_unit(page) || !grants.wants_unit() {
        Ok(())
    } else {
        Err(GrantError::NoSpace)
    }
}

/// Fails when the mapper has no handle left.
#[cold]
fn is_full(mapper: &Domain) -> Result<(), GrantError> {
    let mut grants = mapper.grants.lock();
    match grants.wants_unit() {
        true => Ok(()),
        false => grants.vacancy().map(drop),
    }
}

/// Enters the granted frame `mfn` into the mapper's stage 2 and maptrack table. Changes nothing on failure.
fn enter(mapper: &Domain, request: &MapRequest, mfn: Mfn) -> Result<GrantHandle, GrantError> {
    let gfn = request
        .gfn
        .map_err(|error| is_full(mapper).err().unwrap_or(error))?;
    let reference = memory()
        .get(mfn, request.granter)
        .ok_or(GrantError::General)?;
    let kind = kind_of(request.access);
    let mut grants = mapper.grants.lock();
    if grants.wants_unit() {
        drop(grants);
        add_unit(mapper)?;
        grants = mapper.grants.lock();
    }
    let vacancy = grants.vacancy()?;
    let mut p2m = mapper.p2m.lock();
    match p2m.map(gfn, mfn, 1, kind, 1) {
        Ok(_) => {}
        Err(P2mError::Occupied) => {
            place::put(&mut p2m, gfn, mfn, kind, Replaces::PlainRam)
                .map_err(|_| GrantError::General)?;
        }
        Err(_) => return Err(GrantError::General),
    }
    // The map holds the reference now.
    reference.into_raw();
    Ok(vacancy.record(request.mapping(gfn, mfn)))
}

pub(super) fn unmap(caller: &Arc<Domain>, args: &Args) -> Outcome {
    let mut leaving = Leaving::new(caller);
    let outcome = each(caller, args, |op: &mut UnmapGrantRef| {
        op.status = status_of(&unmap_one(caller, &mut leaving, op));
        status_at(offset_of!(UnmapGrantRef, status))
    });
    leaving.finish();
    outcome
}

#[inline(never)]
fn unmap_one(
    caller: &Domain,
    leaving: &mut Leaving<'_>,
    op: &UnmapGrantRef,
) -> Result<(), GrantError> {
    leaving.make_room();
    let mut grants = caller.grants.lock();
    let Some(handle) = grants.occupied(GrantHandle(op.handle), op.host_addr)? else {
        return Ok(());
    };
    leaving
        .push(handle.mapping())
        .map_err(|_| GrantError::General)?;
    handle.free();
    Ok(())
}
