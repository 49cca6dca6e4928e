//! Maps a page at a gfn, and gives back the page that was there.
//!
//! Pages that the hypervisor shares with a domain (shared_info, frames of the grant table) are mapped at one gfn at most,
//! their place, which is recorded. [`put_shared`] sets it. A page that is replaced or unmapped loses it.

use armv7::addr::{Gfn, Mfn};

use super::{Domain, State};
use crate::error::Errno;
use crate::grant::GrantTable;
use crate::mem::frame_table::{self, Kind};
use crate::mem::p2m::{Entry, P2m, P2mType, Removed};
use crate::mem::{FrameRef, memory};

/// The entries of a map that may be replaced. Entries of grants and devices never may: grants are unmapped by their handles.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Replaces {
    /// The domain's RAM, shared pages among it, and pages of others: XENMEM_add_to_physmap.
    Ram,
    /// The domain's RAM without shared pages: GNTTABOP_map_grant_ref.
    PlainRam,
}

impl Replaces {
    fn allows(self, old: &Entry) -> bool {
        match self {
            Self::Ram => old.kind.is_ram() && !old.kind.is_grant(),
            Self::PlainRam => old.kind.is_own_ram() && !is_shared(old.mfn),
        }
    }
}

/// A page that the hypervisor shares with a domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shared {
    /// shared_info.
    Info,
    /// The frame of the grant table with this number.
    GrantFrame(u32),
}

/// Returns whether a frame is one that the hypervisor shares with its owner.
pub fn is_shared(mfn: Mfn) -> bool {
    matches!(
        memory().state(mfn),
        frame_table::State::Live {
            kind: Kind::Shared,
            ..
        }
    )
}

/// Maps `gfn` to `mfn`. Replaces an entry that is there if `replaces` allows it, and gives its page back. Returns true when
/// that was a shared page, whose place the caller forgets. On success the map takes over the caller's reference on `mfn`.
/// `-EINVAL` changes nothing.
pub fn put(
    p2m: &mut P2m<'static>,
    gfn: Gfn,
    mfn: Mfn,
    kind: P2mType,
    replaces: Replaces,
) -> Result<bool, Errno> {
    let old = p2m.lookup(gfn);
    if old.is_some_and(|old| !replaces.allows(&old)) {
        return Err(Errno::Inval);
    }
    let lost = old.is_some_and(|old| old.kind.is_own_ram() && is_shared(old.mfn));
    let mut removed = Removed::new();
    p2m.replace(gfn, mfn, kind, &mut removed)?;
    p2m.release(removed);
    Ok(lost)
}

/// Maps another domain's page at `gfn` of `domain`.
pub fn put_foreign(
    domain: &Domain,
    gfn: Gfn,
    page: FrameRef<'static>,
    kind: P2mType,
) -> Result<(), Errno> {
    let lost = put(&mut domain.p2m.lock(), gfn, page.mfn(), kind, Replaces::Ram)?;
    // The map has the reference now.
    page.into_raw();
    if lost {
        forget(domain, gfn);
    }
    Ok(())
}

/// Maps a shared page at `gfn`. `-EBUSY` while it has a place, `-EINVAL` if there is no such page.
pub fn put_shared(domain: &Domain, shared: Shared, gfn: Gfn) -> Result<(), Errno> {
    // Both records stay locked until they agree with the map again.
    let mut state = domain.state.lock();
    let mut grants = domain.grants.lock();
    let (mfn, has_place) = match shared {
        Shared::Info => (domain.shared_info, state.shared_info_gfn.is_some()),
        Shared::GrantFrame(n) => {
            let frame = grants.frame(n).ok_or(Errno::Inval)?;
            (frame.mfn(), grants.has_place(n))
        }
    };
    if has_place {
        return Err(Errno::Busy);
    }
    let page = memory().get(mfn, domain.id).ok_or(Errno::Inval)?;
    let mut p2m = domain.p2m.lock();
    if put(&mut p2m, gfn, mfn, P2mType::RamRw, Replaces::Ram)? {
        forget_in(&mut state, &mut grants, gfn);
    }
    // The map has the reference now.
    page.into_raw();
    match shared {
        Shared::Info => state.shared_info_gfn = Some(gfn),
        Shared::GrantFrame(n) => grants.set_place(n, gfn),
    }
    Ok(())
}

/// Records that no shared page is at `gfn` any more.
pub fn forget(domain: &Domain, gfn: Gfn) {
    forget_in(&mut domain.state.lock(), &mut domain.grants.lock(), gfn);
}

fn forget_in(state: &mut State, grants: &mut GrantTable<super::GuestPage>, gfn: Gfn) {
    if state.shared_info_gfn == Some(gfn) {
        state.shared_info_gfn = None;
    }
    grants.forget_place(gfn);
}
