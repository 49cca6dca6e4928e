//! Copies between pages that are granted to the caller or its own.

use core::mem::offset_of;

use alloc::sync::Arc;
use armv7::addr::Mfn;
use armv7::frame;

use super::array::each;
use super::{Args, Granted, Outcome, Peers, allowed, status_at};
use crate::abi::grant_table::{Copy, GrantError, status_of};
use crate::domain::Domain;
use crate::grant::{Access, CopyPlan, GrantRef, Place, Side};
use crate::id::DomId;
use crate::mem::FrameRef;
use crate::mem::p2m;

pub(super) fn copy(caller: &Arc<Domain>, args: &Args) -> Outcome {
    // One for each side: they are mostly different domains, and each mostly the same from element to element.
    let (mut sources, mut dests) = (Peers::new(caller), Peers::new(caller));
    each(caller, args, |op: &mut Copy| {
        op.status = status_of(&copy_one(&mut sources, &mut dests, op));
        status_at(offset_of!(Copy, status))
    })
}

fn copy_one(sources: &mut Peers<'_>, dests: &mut Peers<'_>, op: &Copy) -> Result<(), GrantError> {
    let plan = CopyPlan::decode(op)?;
    let source = Held::take(sources, &plan.source)?;
    let dest = Held::take(dests, &plan.dest)?;
    let run = |from: &frame::SharedPage| frame::with(dest.mfn(), |to| plan.run(from, to));
    // Every RAM frame can be reached.
    frame::with(source.mfn(), run)
        .flatten()
        .ok_or(GrantError::BadPage)?
}

/// A page that cannot go away during a copy.
enum Held<'a> {
    Own(FrameRef<'static>),
    Grant {
        granter: &'a Domain,
        grant_ref: GrantRef,
        access: Access,
        mfn: Mfn,
    },
}

impl<'a> Held<'a> {
    #[inline]
    fn take(peers: &'a mut Peers<'_>, side: &Side) -> Result<Self, GrantError> {
        let own = peers.own;
        let (id, grant_ref) = match side.place {
            Place::Own(gfn) => {
                let access = match side.access {
                    Access::Read => p2m::Access::Read,
                    Access::Write => p2m::Access::Write,
                };
                let pinned = own.p2m.lock().pin(gfn, access);
                let (reference, kind) = pinned.ok_or(GrantError::BadPage)?;
                // What is granted to the caller is named by its reference.
                return if kind.is_own_ram() {
                    Ok(Self::Own(reference))
                } else {
                    Err(GrantError::BadPage)
                };
            }
            Place::Grant(grant) if grant.granter == DomId::SELF => (own.id, grant.grant_ref),
            Place::Grant(grant) => (grant.granter, grant.grant_ref),
        };
        let granter = allowed(peers, id)?;
        let access = side.access;
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

    #[inline]
    fn mfn(&self) -> Mfn {
        match self {
            Self::Own(reference) => reference.mfn(),
            Self::Grant { mfn, .. } => *mfn,
        }
    }
}

impl Drop for Held<'_> {
    #[inline]
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
