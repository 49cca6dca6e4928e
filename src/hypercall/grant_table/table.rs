//! Operations on whole tables, and operations that Arm does not have.

use core::mem::offset_of;

use armv7::addr::{GuestVa, PAGE_SIZE};
use zerocopy::{FromBytes, IntoBytes};

use super::array::{each, write_back};
use super::status_at;
use crate::abi::grant_table::{
    GetStatusFrames, GetVersion, GrantError, QuerySize, SetVersion, SetupTable, SwapGrantRef,
    Transfer, UnmapAndReplace, status_of,
};
use crate::call::guest_ptr::{copy_out, read, write};
use crate::call::target::{self, Target};
use crate::call::{Args, Caller, Outcome, Reply};
use crate::domain::Domain;
use crate::error::Errno;
use crate::grant::{GrantHandle, GrantRef, VERSION, set_version as version_rule};
use crate::hypercall::grow_grants;

/// Reads the argument of an operation that takes exactly one.
fn only<T: FromBytes + IntoBytes>(caller: &Caller<'_>, args: &Args) -> Result<(GuestVa, T), Errno> {
    if args.0[2] != 1 {
        return Err(Errno::Inval);
    }
    Ok((args.ptr(1), read(caller.domain, args.ptr(1))?))
}

/// Returns the domain `id`, whose table an operation reads or changes.
fn target<'a>(caller: &Caller<'a>, id: u16) -> Result<Target<'a>, GrantError> {
    target::control(caller, id).map_err(|error| match error {
        Errno::Perm => GrantError::PermissionDenied,
        _ => GrantError::BadDomain,
    })
}

pub(super) fn setup(caller: &Caller<'_>, args: &Args) -> Outcome {
    let (at, mut op) = only::<SetupTable>(caller, args)?;
    let grown = target(caller, op.dom).and_then(|target| {
        let done = grow_grants(target.domain(), op.nr_frames.into());
        let done = done.map_err(|_| GrantError::General)?;
        if done {
            list(caller.domain, target.domain(), &op)?;
        }
        Ok(done)
    });
    if grown == Ok(false) {
        // The length of the table is the progress.
        return Ok(args.again([]));
    }
    op.status = status_of(&grown);
    write_back(
        caller.domain,
        at,
        &op,
        status_at(offset_of!(SetupTable, status)),
    )?;
    Ok(Reply::OK)
}

/// Writes the gfns of the first frames of `domain`'s table to the caller's list.
fn list(caller: &Domain, domain: &Domain, op: &SetupTable) -> Result<(), GrantError> {
    const CHUNK: usize = 64;
    const _: () = assert!(CHUNK * size_of::<u64>() <= PAGE_SIZE);
    let mut to = op.frame_list.to_va().ok_or(GrantError::BadVirtAddr)?;
    let mut first = 0;
    while first < op.nr_frames {
        let count = (op.nr_frames - first).min(CHUNK as u32);
        let mut chunk = [0u64; CHUNK];
        let grants = domain.grants.lock();
        for (gfn, n) in chunk.iter_mut().zip(first..first + count) {
            *gfn = grants.frame_gfn(n);
        }
        drop(grants);
        let bytes = chunk
            .as_bytes()
            .get(..count as usize * size_of::<u64>())
            .unwrap_or(&[]);
        copy_out(caller, to, bytes).map_err(|_| GrantError::BadVirtAddr)?;
        to = to
            .checked_add(bytes.len() as u32)
            .ok_or(GrantError::BadVirtAddr)?;
        first += count;
    }
    Ok(())
}

pub(super) fn query_size(caller: &Caller<'_>, args: &Args) -> Outcome {
    let (at, mut op) = only::<QuerySize>(caller, args)?;
    let target = target(caller, op.dom);
    op.status = status_of(&target);
    let status = status_at(offset_of!(QuerySize, status));
    let mut changed = status.clone();
    if let Ok(target) = target {
        let grants = target.domain().grants.lock();
        op.nr_frames = grants.size();
        op.max_nr_frames = grants.max_size();
        drop(grants);
        changed.start = offset_of!(QuerySize, nr_frames);
    }
    write_back(caller.domain, at, &op, changed)?;
    Ok(Reply::OK)
}

pub(super) fn set_version(caller: &Domain, at: GuestVa) -> Outcome {
    let op: SetVersion = read(caller, at)?;
    let result = version_rule(op.version);
    // The version in use is written back in any case.
    write(caller, at, &SetVersion { version: VERSION })?;
    result.map(|_| Reply::OK)
}

pub(super) fn get_version(caller: &Caller<'_>, at: GuestVa) -> Outcome {
    let mut op: GetVersion = read(caller.domain, at)?;
    target::control(caller, op.dom)?;
    op.version = VERSION;
    write_back(
        caller.domain,
        at,
        &op,
        offset_of!(GetVersion, version)..size_of::<GetVersion>(),
    )?;
    Ok(Reply::OK)
}

/// Returns an empty list: version 1 has no status frames.
pub(super) fn get_status_frames(caller: &Caller<'_>, args: &Args) -> Outcome {
    let (at, mut op) = only::<GetStatusFrames>(caller, args)?;
    let listed = target(caller, op.dom).and(match op.nr_frames {
        0 => Ok(()),
        _ => Err(GrantError::General),
    });
    op.status = status_of(&listed);
    write_back(
        caller.domain,
        at,
        &op,
        status_at(offset_of!(GetStatusFrames, status)),
    )?;
    Ok(Reply::OK)
}

pub(super) fn swap(caller: &Domain, args: &Args) -> Outcome {
    each(caller, args, |op: &mut SwapGrantRef| {
        let swapped = caller
            .grants
            .lock()
            .swap(GrantRef(op.ref_a), GrantRef(op.ref_b));
        op.status = status_of(&swapped);
        status_at(offset_of!(SwapGrantRef, status))
    })
}

/// Refuses each element: Arm has no transfer of pages.
pub(super) fn refuse_transfer(caller: &Domain, args: &Args) -> Outcome {
    each(caller, args, |op: &mut Transfer| {
        let error = match caller.entry_at(op.mfn) {
            Some(entry) if entry.kind.is_ram() => GrantError::General,
            _ => GrantError::BadPage,
        };
        op.status = error.status();
        status_at(offset_of!(Transfer, status))
    })
}

/// Refuses each element: Arm has no second mapping that could replace the first one.
pub(super) fn refuse_replace(caller: &Domain, args: &Args) -> Outcome {
    each(caller, args, |op: &mut UnmapAndReplace| {
        let error = match caller.grants.lock().has_mapping(GrantHandle(op.handle)) {
            true => GrantError::General,
            false => GrantError::BadHandle,
        };
        op.status = error.status();
        status_at(offset_of!(UnmapAndReplace, status))
    })
}
