//! Cache maintenance of pages that a guest's devices use. The guest names a page by its machine address.

use armv7::cache;
use armv7::frame;

use super::OP_MASK;
use crate::abi::grant_table::{CacheFlush, OP_CACHE_FLUSH};
use crate::call::guest_ptr::{element, read};
use crate::call::{Args, Outcome, Reply, must_pause};
use crate::domain::{Domain, registry};
use crate::error::Errno;
use crate::grant::{FlushAction, FlushRequest, GrantRef, Search};
use crate::mem::frame_table::State;
use crate::mem::memory;

/// The work of one call before it pauses, in cache lines.
const WORK_AT_ONCE: u32 = 1024;
/// The cost of reading an element and finding its page, in cache lines.
const ELEMENT: u32 = 4;
/// Bytes of a cache line, to count the work (64 on Cortex-A7 and Cortex-A15).
const LINE: u32 = 64;
/// The number of owners' entries that one call reads. Progress is a multiple of it, so that it fits above [`OP_MASK`].
const ENTRIES_AT_ONCE: u32 = OP_MASK + 1;

/// The outcome of one element.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flushed {
    Done {
        /// Entries of the owner's table that were read.
        entries: u32,
        /// Lines that were flushed.
        lines: u32,
    },
    /// The search for the caller's grant continues at this entry.
    Searching(u32),
}

pub(super) fn flush(caller: &Domain, args: &Args) -> Outcome {
    let (base, count) = (args.ptr(1), args.0[2]);
    let mut from = args.0[0] & !OP_MASK;
    let mut entries = ENTRIES_AT_ONCE;
    let mut work = WORK_AT_ONCE;
    for n in 0..count {
        let at = element::<CacheFlush>(base, n)?;
        // Each call handles one element at least, so that it comes to its end.
        if entries == 0 || work == 0 || n > 0 && must_pause() {
            return Ok(args.again([(0, OP_CACHE_FLUSH), (1, at.0), (2, count - n)]));
        }
        match flush_one(caller, &read(caller, at)?, from)? {
            Flushed::Done {
                entries: read,
                lines,
            } => {
                from = 0;
                entries = entries.saturating_sub(read);
                work = work.saturating_sub(ELEMENT + lines);
            }
            Flushed::Searching(next) => {
                return Ok(args.again([(0, OP_CACHE_FLUSH | next), (1, at.0), (2, count - n)]));
            }
        }
    }
    Ok(Reply::OK)
}

fn flush_one(caller: &Domain, op: &CacheFlush, from: u32) -> Result<Flushed, Errno> {
    let Some(request) = FlushRequest::decode(op)? else {
        return Ok(Flushed::Done {
            entries: 0,
            lines: 0,
        });
    };
    let mut entries = 0;
    if memory().state(request.mfn) == State::Outside {
        return Err(Errno::Inval);
    }
    // The reference keeps the page with its owner until the end.
    let page = memory().get_any(request.mfn).ok_or(Errno::Perm)?;
    if page.owner() != caller.id {
        let owner = registry::get(page.owner()).ok_or(Errno::Perm)?;
        let found =
            owner
                .grants
                .lock()
                .find_frame(caller.id, request.mfn, GrantRef(from), ENTRIES_AT_ONCE);
        match found {
            Search::Found(grant) => entries = grant.grant_ref.0.saturating_sub(from) + 1,
            Search::Absent => return Err(Errno::Perm),
            // A search reads as many entries as the mask rounds down by, and so always moves on.
            Search::More(next) => return Ok(Flushed::Searching(next & !OP_MASK)),
        }
    }
    let op = match request.action {
        FlushAction::Clean => cache::Op::Clean,
        // Hardware cleans as well when a guest under stage 2 invalidates (DDI 0406C.d B2.2.6).
        FlushAction::Invalidate | FlushAction::CleanInvalidate => cache::Op::CleanInvalidate,
    };
    let (offset, length) = (request.offset.into(), request.length.into());
    frame::with(request.mfn, |page| {
        cache::page_range(page, offset, length, op)
    })
    .ok_or(Errno::Inval)?;
    Ok(Flushed::Done {
        entries,
        lines: u32::from(request.length).div_ceil(LINE),
    })
}
