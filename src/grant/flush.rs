//! Checks of a cache flush of a granted page.

use armv7::addr::{Mfn, PAGE_SIZE, PhysAddr};

use crate::abi::grant_table::{CACHE_CLEAN, CACHE_INVAL, CacheFlush};
use crate::error::Errno;

/// A checked element of `cache_flush`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlushRequest {
    /// The page. The caller must own it or have it mapped by a grant.
    pub mfn: Mfn,
    /// Offset of the first byte.
    pub offset: u16,
    /// Length in bytes, at least 1.
    pub length: u16,
    /// The operation.
    pub action: FlushAction,
}

/// An operation on cache lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FlushAction {
    /// Write lines back.
    Clean,
    /// Invalidate lines. Lines shared with bytes outside the range must be written back first.
    Invalidate,
    /// Write lines back and invalidate them.
    CleanInvalidate,
}

impl FlushRequest {
    /// Decodes an element of `cache_flush`. Returns `None` if it requests nothing, by which guests probe for the
    /// operation.
    pub fn decode(op: &CacheFlush) -> Result<Option<Self>, Errno> {
        let inside = usize::from(op.offset) < PAGE_SIZE
            && usize::from(op.offset) + usize::from(op.length) <= PAGE_SIZE;
        if !inside || op.op & !(CACHE_CLEAN | CACHE_INVAL) != 0 {
            return Err(Errno::Inval);
        }
        if op.length == 0 {
            return Ok(None);
        }
        let action = match (op.op & CACHE_CLEAN != 0, op.op & CACHE_INVAL != 0) {
            (false, false) => return Ok(None),
            (true, false) => FlushAction::Clean,
            (false, true) => FlushAction::Invalidate,
            (true, true) => FlushAction::CleanInvalidate,
        };
        Ok(Some(Self {
            mfn: PhysAddr::new(op.address).ok_or(Errno::Inval)?.frame(),
            offset: op.offset,
            length: op.length,
            action,
        }))
    }
}
