//! Copies between frames: the checks before anything is acquired, and the copy itself.

use armv7::addr::Gfn;
use armv7::frame::SharedPage;

use super::{Access, GrantId, GrantRef};
use crate::abi::grant_table::{COPY_DEST_GREF, COPY_SOURCE_GREF, Copy, CopyPtr, GrantError};
use crate::id::DomId;

/// A checked element of `copy`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CopyPlan {
    /// Source, read only.
    pub source: Side,
    /// Destination.
    pub dest: Side,
    /// Length in bytes. May be 0, or exceed the page of either side.
    pub len: u16,
}

/// One side of a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Side {
    /// The page.
    pub place: Place,
    /// Offset of the first byte.
    pub offset: u16,
    /// Access required to the page.
    pub access: Access,
}

/// A page of a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// A grant, possibly the caller's own ([`DomId::SELF`]).
    Grant(GrantId),
    /// RAM of the caller; `None` for a frame number beyond guest memory.
    Own(Option<Gfn>),
}

impl CopyPlan {
    /// Decodes an element of `copy`.
    pub fn decode(op: &Copy) -> Result<Self, GrantError> {
        Ok(Self {
            source: side(&op.source, op.flags & COPY_SOURCE_GREF != 0, Access::Read)?,
            dest: side(&op.dest, op.flags & COPY_DEST_GREF != 0, Access::Write)?,
            len: op.len,
        })
    }

    /// Copies between the two pages, which the caller holds. Fails if a range exceeds its page.
    pub fn run(&self, source: &SharedPage, dest: &SharedPage) -> Result<(), GrantError> {
        let copied = dest.copy_from(
            usize::from(self.dest.offset),
            source,
            usize::from(self.source.offset),
            usize::from(self.len),
        );
        if copied {
            Ok(())
        } else {
            Err(GrantError::BadCopyArg)
        }
    }
}

fn side(ptr: &CopyPtr, is_grant: bool, access: Access) -> Result<Side, GrantError> {
    let domid = DomId(ptr.domid);
    let place = if is_grant {
        Place::Grant(GrantId {
            granter: domid,
            grant_ref: GrantRef(ptr.grant_ref()),
        })
    } else if domid == DomId::SELF {
        Place::Own(Gfn::new(ptr.frame))
    } else {
        return Err(GrantError::PermissionDenied);
    };
    Ok(Side {
        place,
        offset: ptr.offset,
        access,
    })
}
