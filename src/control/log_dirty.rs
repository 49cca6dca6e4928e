//! XEN_DOMCTL_shadow_op, of which Arm has only log-dirty: reports which frames of a domain were written.
//!
//! The log is the domain's map (`mem::p2m::log_dirty`). The domain runs meanwhile. A step holds the map's lock for one piece of the
//! log, releases it, and copies the piece to the caller. If the copy fails, the piece is marked dirty again.

use armv7::addr::Gfn;

use super::request::Request;
use super::{PROGRESS, again, exclusive, progress};
use crate::abi::domctl as abi;
use crate::abi::domctl::ShadowOp;
use crate::call::guest_ptr::copy_out;
use crate::call::{Args, Outcome, Reply, must_pause};
use crate::domain::{Domain, Life};
use crate::error::Errno;
use crate::mem::p2m::{Bits, PIECE};
use crate::passthrough;

/// The number of pieces that one call handles.
const PIECES_AT_ONCE: u32 = 32;
/// Bytes of the largest piece in which nothing is mapped.
const HOLE_BYTES: usize = 512;

/// Handles a shadow_op.
pub fn call(request: &Request<'_>) -> Outcome {
    let domain = request.other()?;
    let op: ShadowOp = request.body()?;
    let Some(_exclusive) = exclusive() else {
        return again(request.args);
    };
    if domain.state.lock().life != Life::Alive {
        return Err(Errno::Inval);
    }
    match (op.op, op.mode) {
        (abi::SHADOW_OP_OFF, _) => off(request, &domain),
        (abi::SHADOW_OP_ENABLE_LOGDIRTY, _)
        | (abi::SHADOW_OP_ENABLE, abi::SHADOW_ENABLE_LOG_DIRTY) => enable(request, &domain),
        // XEN_DOMCTL_SHADOW_LOGDIRTY_FINAL asks for frames that others hold, which are always reported.
        (abi::SHADOW_OP_CLEAN, 0 | abi::SHADOW_LOGDIRTY_FINAL) => {
            report(request, &domain, op, true)
        }
        (abi::SHADOW_OP_PEEK, 0 | abi::SHADOW_LOGDIRTY_FINAL) => {
            report(request, &domain, op, false)
        }
        (abi::SHADOW_OP_GET_ALLOCATION | abi::SHADOW_OP_SET_ALLOCATION, _) => Err(Errno::NoSys),
        _ => Err(Errno::Inval),
    }
}

/// Returns the frame at which a call begins or is continued.
fn position(args: &Args) -> Gfn {
    let at = progress(args).map_or(0, |_| args.0[2]);
    Gfn::new(u64::from(at)).unwrap_or_default()
}

/// Returns the continuation of a call at `gfn`.
fn again_from(args: &Args, gfn: Gfn) -> Outcome {
    Ok(args.again([(1, PROGRESS), (2, gfn.raw())]))
}

/// Takes steps from the call's position on, until one returns `None`.
fn steps(request: &Request<'_>, mut step: impl FnMut(Gfn) -> Option<Gfn>) -> Outcome {
    let mut next = Some(position(request.args));
    for _ in 0..PIECES_AT_ONCE {
        let Some(at) = next else {
            return Ok(Reply::OK);
        };
        next = step(at);
        if must_pause() {
            break;
        }
    }
    next.map_or(Ok(Reply::OK), |at| again_from(request.args, at))
}

/// Begins to log: no frame counts as written until the next write.
fn enable(request: &Request<'_>, domain: &Domain) -> Outcome {
    if progress(request.args).is_none() {
        // As with x86, not under devices, which write unseen.
        let has_devices = domain.rights.hardware
            || domain.vgic.lock().has_devices()
            || passthrough::device_of(domain.id).is_some();
        let mut p2m = domain.p2m.lock();
        if has_devices || domain.vcpus().is_empty() || p2m.logs() {
            return Err(Errno::Inval);
        }
        p2m.set_logs(true);
    }
    steps(request, |at| domain.p2m.lock().catch_writes(at))
}

/// Ends the log. Also undoes an [`enable`] that was not finished.
fn off(request: &Request<'_>, domain: &Domain) -> Outcome {
    domain.p2m.lock().set_logs(false);
    steps(request, |at| domain.p2m.lock().allow_writes(at))
}

/// Writes the list of written frames to the caller. With `clean` the log begins anew.
fn report(request: &Request<'_>, domain: &Domain, mut op: ShadowOp, clean: bool) -> Outcome {
    let mut p2m = domain.p2m.lock();
    if !p2m.logs() {
        return Err(Errno::Inval);
    }
    let frames = p2m.max_gfn().map_or(0, |last| last.raw() + 1);
    let counts = p2m.log_counts();
    if progress(request.args).is_none() {
        p2m.begin_reading(clean);
        drop(p2m);
        [op.fault_count, op.dirty_count] = counts;
        request.write_back(&op)?;
    } else {
        drop(p2m);
    }
    let wanted = match op.bitmap.is_null() {
        true if !clean => return Ok(Reply::OK),
        true => frames,
        false => frames.min(u32::try_from(op.pages).unwrap_or(u32::MAX)),
    };
    let mut next = position(request.args);
    for _ in 0..PIECES_AT_ONCE {
        let left = wanted.saturating_sub(next.raw());
        if left == 0 {
            op.pages = u64::from(wanted);
            return request.write_back(&op);
        }
        let (bits, count) = domain.p2m.lock().written(next, left, clean);
        if let Err(error) = write_piece(request, &op, next, bits, count) {
            if clean {
                domain.p2m.lock().note_writes(next, bits);
            }
            return Err(error);
        }
        // At the end of all addresses nothing is left.
        next = next.checked_add(count).ok_or(Errno::Inval)?;
        if must_pause() {
            break;
        }
    }
    again_from(request.args, next)
}

/// Copies a piece of the log to the caller: `bits` of the frames from `first` on, or zeroes for more than [`PIECE`] of them.
fn write_piece(
    request: &Request<'_>,
    op: &ShadowOp,
    first: Gfn,
    bits: Bits,
    count: u32,
) -> Result<(), Errno> {
    if op.bitmap.is_null() {
        return Ok(());
    }
    let base = op.bitmap.to_va().ok_or(Errno::Fault)?;
    let at = base.checked_add(first.raw() / 8).ok_or(Errno::Fault)?;
    let length = count.div_ceil(8) as usize;
    let (hole, piece) = ([0; HOLE_BYTES], bits.to_le_bytes());
    let bytes = if count > PIECE { &hole[..] } else { &piece[..] };
    let bytes = bytes.get(..length).ok_or(Errno::Inval)?;
    copy_out(request.caller.domain, at, bytes)
}

#[cfg(test)]
mod tests;
