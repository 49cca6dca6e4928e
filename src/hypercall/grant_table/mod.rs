//! grant_table_op (20): handles arrays of requests by the steps of `grant`, in their order.
//!
//! Each element is read, handled, and written back with its own status. The call itself fails only when an element cannot be
//! read or written, or the operation is unknown. A long array is continued: the pointer moves on, the count goes down.
//!
//! | file | operations |
//! |---|---|
//! | `array` | (reads an array and writes it back) |
//! | `map` | map, unmap |
//! | `copy` | copy |
//! | `cache` | cache_flush |
//! | `table` | setup_table, query_size, versions, swap; operations that Arm does not have |
//!
//! No two grant tables are locked at once, and none while memory is copied (`grant`, "Locks").

mod array;
mod cache;
mod copy;
mod map;
mod table;
#[cfg(test)]
mod tests;

use core::ops::Range;

use crate::abi::grant_table as abi;
use crate::call::{Args, Caller, Outcome};
use crate::domain::Domain;
use crate::domain::grants::{Granted, Peers};
use crate::error::Errno;
use crate::id::DomId;
use crate::mem::heap;
use crate::policy;

/// Bits of the operation in the first argument. The bits above are the progress of a cache flush's search.
const OP_MASK: u32 = 0xFFF;

pub(super) fn call(caller: &Caller<'_>, args: &Args) -> Outcome {
    let op = args.0[0] & OP_MASK;
    let count = args.0[2];
    if count > i32::MAX as u32 || op != args.0[0] && op != abi::OP_CACHE_FLUSH {
        return Err(Errno::Inval);
    }
    // Active entries are on the heap.
    heap::replenish();
    match op {
        abi::OP_MAP_GRANT_REF => map::map(caller.domain, args),
        abi::OP_UNMAP_GRANT_REF => map::unmap(caller.domain, args),
        abi::OP_COPY => copy::copy(caller.domain, args),
        abi::OP_CACHE_FLUSH => cache::flush(caller.domain, args),
        abi::OP_SETUP_TABLE => table::setup(caller, args),
        abi::OP_QUERY_SIZE => table::query_size(caller, args),
        abi::OP_SET_VERSION => table::set_version(caller.domain, args.ptr(1)),
        abi::OP_GET_VERSION => table::get_version(caller, args.ptr(1)),
        abi::OP_GET_STATUS_FRAMES => table::get_status_frames(caller, args),
        abi::OP_SWAP_GRANT_REF => table::swap(caller.domain, args),
        abi::OP_TRANSFER => table::refuse_transfer(caller.domain, args),
        abi::OP_UNMAP_AND_REPLACE => table::refuse_replace(caller.domain, args),
        // dump_table is among them: no guest needs it.
        _ => Err(Errno::NoSys),
    }
}

/// Returns the bytes of a `status` field at `offset`.
const fn status_at(offset: usize) -> Range<usize> {
    offset..offset + size_of::<i16>()
}

/// Returns the domain `id`. Fails unless the caller may share memory with it.
fn allowed<'p>(peers: &'p mut Peers<'_>, id: DomId) -> Result<&'p Domain, abi::GrantError> {
    let own = peers.own;
    let peer = peers.find(id).ok_or(abi::GrantError::BadDomain)?;
    policy::may_share(own, own.id, id).map_err(|_| abi::GrantError::PermissionDenied)?;
    Ok(peer)
}
