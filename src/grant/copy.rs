//! The rules that a copy between frames must keep before anything is acquired for it, and the copy.

use armv7::addr::Gfn;
use armv7::frame::SharedPage;

use super::{Access, GrantId, GrantRef};
use crate::abi::grant_table::{COPY_DEST_GREF, COPY_SOURCE_GREF, Copy, CopyPtr, GrantError};
use crate::id::DomId;

/// A checked element of `copy`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CopyPlan {
    /// Where from; only read.
    pub source: Side,
    /// Where to; written.
    pub dest: Side,
    /// Bytes; may be none, or more than fit into a page from a side's offset on.
    pub len: u16,
}

/// One side of a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Side {
    /// Which page.
    pub place: Place,
    /// First byte.
    pub offset: u16,
    /// The access that the page must allow.
    pub access: Access,
}

/// A page that takes part in a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// A grant, perhaps of the caller itself ([`DomId::SELF`]).
    Grant(GrantId),
    /// RAM of the caller; `None` for a frame that no guest can have.
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

    /// Copies between the two pages, which the caller holds; a range that leaves its page is refused.
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
