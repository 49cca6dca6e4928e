//! Cache maintenance of pages that a guest's devices use: the guest names them by machine address.

use armv7::cache;
use armv7::frame;

use super::array::again;
use super::{Args, OP_MASK, Outcome};
use crate::abi::grant_table::{CacheFlush, OP_CACHE_FLUSH};
use crate::domain::{Domain, registry};
use crate::error::Errno;
use crate::grant::{FlushAction, FlushRequest, GrantRef, Search};
use crate::hypercall::Reply;
use crate::hypercall::guest_ptr::{element, read};
use crate::hypercall::must_pause;
use crate::mem::frame_table::State;
use crate::mem::memory;

/// Work done before others may run, in cache lines.
const WORK_AT_ONCE: u32 = 1024;
/// The cost of an element beside its lines: reading it and finding its page.
const ELEMENT: u32 = 4;
/// Bytes of a line, as far as its cost goes (Cortex-A7 and Cortex-A15 have 64).
const LINE: u32 = 64;
/// Entries of owners' tables looked at before others may run: what [`OP_MASK`] leaves of an entry's number.
const ENTRIES_AT_ONCE: u32 = OP_MASK + 1;

/// The outcome of one element.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flushed {
    Done {
        /// Entries of the owner's table that were looked at.
        looked: u32,
        /// Lines that were flushed.
        lines: u32,
    },
    /// The search for the caller's grant is to go on from this entry.
    Searching(u32),
}

pub(super) fn flush(caller: &Domain, args: &Args) -> Outcome {
    let (base, count) = (args.ptr(1), args.0[2]);
    let mut from = args.0[0] & !OP_MASK;
    let mut entries = ENTRIES_AT_ONCE;
    let mut work = WORK_AT_ONCE;
    for n in 0..count {
        let at = element::<CacheFlush>(base, n)?;
        // The first one is dealt with whatever waits, so that the call comes to its end.
        if entries == 0 || work == 0 || n > 0 && must_pause() {
            return Ok(again(args, OP_CACHE_FLUSH, at, count - n));
        }
        match flush_one(caller, &read(caller, at)?, from)? {
            Flushed::Done { looked, lines } => {
                from = 0;
                entries = entries.saturating_sub(looked);
                work = work.saturating_sub(ELEMENT + lines);
            }
            Flushed::Searching(next) => {
                return Ok(again(args, OP_CACHE_FLUSH | next, at, count - n));
            }
        }
    }
    Ok(Reply::OK)
}

fn flush_one(caller: &Domain, op: &CacheFlush, from: u32) -> Result<Flushed, Errno> {
    let Some(request) = FlushRequest::decode(op)? else {
        return Ok(Flushed::Done {
            looked: 0,
            lines: 0,
        });
    };
    let mut looked = 0;
    if memory().state(request.mfn) == State::Outside {
        return Err(Errno::Inval);
    }
    // Referenced, so that the page stays whose it is until the end.
    let page = memory().get_any(request.mfn).ok_or(Errno::Perm)?;
    if page.owner() != caller.id {
        let owner = registry::get(page.owner()).ok_or(Errno::Perm)?;
        let found =
            owner
                .grants
                .lock()
                .find_frame(caller.id, request.mfn, GrantRef(from), ENTRIES_AT_ONCE);
        match found {
            Search::Found(grant) => looked = grant.grant_ref.0.saturating_sub(from) + 1,
            Search::Absent => return Err(Errno::Perm),
            // At least as many entries on as were looked at, so that rounding down still moves on.
            Search::More(next) => return Ok(Flushed::Searching(next & !OP_MASK)),
        }
    }
    let op = match request.action {
        FlushAction::Clean => cache::Op::Clean,
        // As the hardware does it for a guest under stage 2 (DDI 0406C.d B2.2.6): what is dropped is written back first.
        FlushAction::Invalidate | FlushAction::CleanInvalidate => cache::Op::CleanInvalidate,
    };
    let (offset, length) = (request.offset.into(), request.length.into());
    frame::with(request.mfn, |page| {
        cache::page_range(page, offset, length, op)
    })
    .ok_or(Errno::Inval)?;
    Ok(Flushed::Done {
        looked,
        lines: u32::from(request.length).div_ceil(LINE),
    })
}
