//! Copies between pages that are the caller's or granted to it.

use core::mem::offset_of;

use alloc::sync::Arc;
use armv7::addr::{Gfn, Mfn};
use armv7::frame::{self, SharedPage};

use super::array::each;
use super::{Granted, Peers, allowed, status_at};
use crate::abi::grant_table::{COPY_DEST_GREF, COPY_SOURCE_GREF, Copy, GrantError, status_of};
use crate::call::{Args, Outcome};
use crate::domain::Domain;
use crate::grant::{Access, CopyPlan, GrantRef, Place, Side};
use crate::id::DomId;
use crate::mem::p2m::{self, P2m};

pub(super) fn copy(caller: &Arc<Domain>, args: &Args) -> Outcome {
    // One for each side: most arrays have one domain as source and another one as destination.
    let (mut sources, mut dests) = (Peers::new(caller), Peers::new(caller));
    each(caller, args, |op: &mut Copy| {
        op.status = status_of(&copy_one(&mut sources, &mut dests, op));
        status_at(offset_of!(Copy, status))
    })
}

#[inline(never)]
fn copy_one(sources: &mut Peers<'_>, dests: &mut Peers<'_>, op: &Copy) -> Result<(), GrantError> {
    attempt(sources, dests, op).map_err(|error| domain_error(sources, op).err().unwrap_or(error))
}

/// Returns the error of the two sides' domains, which takes precedence over those of their pages.
#[cold]
fn domain_error(peers: &mut Peers<'_>, op: &Copy) -> Result<(), GrantError> {
    let mut may_share = Ok(());
    for (side, grant) in [(&op.source, COPY_SOURCE_GREF), (&op.dest, COPY_DEST_GREF)] {
        let id = match DomId(side.domid) {
            DomId::SELF => peers.own.id,
            _ if op.flags & grant == 0 => return Err(GrantError::PermissionDenied),
            id => id,
        };
        // The error of an absent domain takes precedence over a refusal.
        match allowed(peers, id).map(drop) {
            Err(GrantError::BadDomain) => return Err(GrantError::BadDomain),
            allowed => may_share = may_share.and(allowed),
        }
    }
    may_share
}

#[inline(always)]
fn attempt(sources: &mut Peers<'_>, dests: &mut Peers<'_>, op: &Copy) -> Result<(), GrantError> {
    let plan = CopyPlan::decode(op)?;
    let caller = sources.own;
    let source = Held::take(sources, &plan.source)?;
    let dest = match Held::take(dests, &plan.dest) {
        Ok(dest) => dest,
        Err(error) => {
            // The error of the source takes precedence.
            source.mfn(&mut caller.p2m.lock())?;
            return Err(error);
        }
    };
    // The caller's own pages stay mapped while its map is locked. It is unlocked before grants are released.
    let mut p2m = caller.p2m.lock();
    let (from, to) = (source.mfn(&mut p2m)?, dest.mfn(&mut p2m)?);
    let run = |from: &SharedPage| frame::with(to, |to| plan.run(from, to));
    // The direct map holds every RAM frame.
    frame::with(from, run)
        .flatten()
        .ok_or(GrantError::BadPage)?
}

/// The page of one side.
enum Held<'a> {
    /// The caller's.
    Own(Option<Gfn>, p2m::Access),
    /// A granted page, in use until this is dropped.
    Grant {
        granter: &'a Domain,
        grant_ref: GrantRef,
        access: Access,
        mfn: Mfn,
    },
}

impl<'a> Held<'a> {
    #[inline(always)]
    fn take(peers: &'a mut Peers<'_>, side: &Side) -> Result<Self, GrantError> {
        let own = peers.own;
        let access = side.access;
        let (id, grant_ref) = match side.place {
            Place::Own(gfn) => {
                let access = match access {
                    Access::Read => p2m::Access::Read,
                    Access::Write => p2m::Access::Write,
                };
                return Ok(Self::Own(gfn, access));
            }
            Place::Grant(grant) if grant.granter == DomId::SELF => (own.id, grant.grant_ref),
            Place::Grant(grant) => (grant.granter, grant.grant_ref),
        };
        let granter = allowed(peers, id)?;
        let pinned =
            granter
                .grants
                .lock()
                .acquire(grant_ref, own.id, access, &mut Granted(granter))?;
        Ok(Self::Grant {
            granter,
            grant_ref,
            access,
            mfn: pinned.mfn,
        })
    }

    /// Returns the frame. `p2m` is the caller's map.
    fn mfn(&self, p2m: &mut P2m<'_>) -> Result<Mfn, GrantError> {
        match *self {
            Self::Own(gfn, access) => match gfn.and_then(|gfn| p2m.find(gfn)) {
                // A page that is granted to the caller is named by its grant reference only.
                Some(entry) if entry.kind.is_own_ram() && entry.kind.allows(access) => {
                    if access == p2m::Access::Write && entry.kind.catches_writes() {
                        gfn.into_iter().for_each(|gfn| p2m.note_write(gfn));
                    }
                    Ok(entry.mfn)
                }
                _ => Err(GrantError::BadPage),
            },
            Self::Grant { mfn, .. } => Ok(mfn),
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Self::Grant {
            granter,
            grant_ref,
            access,
            ..
        } = *self
        {
            granter
                .grants
                .lock()
                .release(grant_ref, access, &mut Granted(granter));
        }
    }
}
