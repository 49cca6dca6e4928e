//! A domain's pages: pinned ones, and pages that the hypervisor shares with it.

use armv7::addr::{Gfn, Mfn};
use armv7::frame::PageRef;

use super::{Domain, GuestPage};
use crate::error::Errno;
use crate::grant::GrowError;
use crate::id::DomId;
use crate::mem::p2m::{Access, Entry, P2mError};
use crate::mem::{self, AllocError, Source};

impl From<AllocError> for Errno {
    fn from(error: AllocError) -> Self {
        match error {
            AllocError::NoMemory | AllocError::OverLimit => Self::NoMem,
            AllocError::NoAccount => Self::Srch,
            AllocError::NotFree => Self::Busy,
            AllocError::Zeroing => Self::Again,
        }
    }
}

impl From<P2mError> for Errno {
    fn from(error: P2mError) -> Self {
        match error {
            P2mError::NoMemory | P2mError::NoVmid => Self::NoMem,
            P2mError::OutOfRange | P2mError::WrongType => Self::Inval,
            P2mError::Occupied => Self::Exist,
            P2mError::Full => Self::Again,
        }
    }
}

/// Returns a zeroed page that the hypervisor keeps for `owner` and shares with it.
pub fn shared_page(owner: DomId) -> Result<GuestPage, Errno> {
    let memory = mem::memory();
    keep(owner, memory.alloc_shared(owner, Source::All)?)
}

/// Returns a zeroed page for the hypervisor's own records about `owner`. Neither the hypervisor's reserve nor claimed memory
/// is used for it.
pub fn account_page(owner: DomId) -> Result<GuestPage, Errno> {
    keep(owner, mem::memory().alloc_shared(owner, Source::Unclaimed)?)
}

#[inline(never)]
fn keep(owner: DomId, mfn: Mfn) -> Result<GuestPage, Errno> {
    let memory = mem::memory();
    // The page's own reference becomes the value's: one more is taken for the value, then the first one dropped.
    let page = memory.get(mfn, owner).and_then(|reference| reference.map());
    memory.put(mfn);
    page.ok_or(Errno::NoMem)
}

impl Domain {
    /// Returns the domain's entry at `gfn`.
    #[inline(never)]
    pub fn entry_at(&self, gfn: u64) -> Option<Entry> {
        self.p2m.lock().lookup(Gfn::new(gfn)?)
    }

    /// Returns the domain's own page at `gfn`, mapped and referenced. `-EINVAL` if it is not its own writable RAM.
    pub fn pin(&self, gfn: u64) -> Result<GuestPage, Errno> {
        let gfn = Gfn::new(gfn).ok_or(Errno::Inval)?;
        let (reference, kind) = self
            .p2m
            .lock()
            .pin(gfn, Access::Write)
            .ok_or(Errno::Inval)?;
        if !kind.is_own_ram() || reference.owner() != self.id {
            return Err(Errno::Inval);
        }
        reference.map().ok_or(Errno::NoMem)
    }

    /// Adds a frame to the grant table unless it has `frames` frames. Returns true when it has them.
    #[inline(always)]
    pub fn grow_grants(&self, frames: u64) -> Result<bool, Errno> {
        let missing = self.grants.lock().missing_frames(frames);
        if missing.map_err(|_| Errno::Inval)? == 0 {
            return Ok(true);
        }
        self.add_grant_frame()?;
        Ok(false)
    }

    #[cold]
    fn add_grant_frame(&self) -> Result<(), Errno> {
        let page = shared_page(self.id)?;
        debug_assert!(
            page.page().is_zero(),
            "a shared page is zero before its domain has it"
        );
        let grown = self.grants.lock().grow(page);
        match grown {
            Ok(()) => Ok(()),
            Err((GrowError::Limit, _)) => Err(Errno::Inval),
            Err((GrowError::NoMemory, _)) => Err(Errno::NoMem),
        }
    }
}
