//! References on frames as values, dropped with the value.

use armv7::addr::Mfn;
use armv7::frame::{self, Kept, PageRef, SharedPage};

use super::Memory;
use super::frame_table::Kind;
use crate::id::DomId;

/// A reference on a live frame.
#[derive(Debug)]
#[must_use]
pub struct FrameRef<'m> {
    memory: &'m Memory,
    mfn: Mfn,
    owner: DomId,
    kind: Kind,
}

impl<'m> FrameRef<'m> {
    /// Wraps a reference that the caller owns.
    pub(super) fn new(memory: &'m Memory, mfn: Mfn, owner: DomId, kind: Kind) -> Self {
        Self {
            memory,
            mfn,
            owner,
            kind,
        }
    }
    /// Returns the frame.
    pub fn mfn(&self) -> Mfn {
        self.mfn
    }
    /// Returns the frame's owner.
    pub fn owner(&self) -> DomId {
        self.owner
    }
    /// Returns the frame's use.
    pub fn kind(&self) -> Kind {
        self.kind
    }
    /// Turns the value into a bare reference, for a table that stores frame numbers. Removing the number from there
    /// requires [`Memory::put`].
    pub fn into_raw(self) -> Mfn {
        let mfn = self.mfn;
        core::mem::forget(self);
        mfn
    }
    /// Keeps the frame mapped as well. Returns `None`, dropping the reference, if that needs a slot and the owner may
    /// not have another.
    pub fn map(self) -> Option<PinnedPage<'m>> {
        let share = match self.memory.is_direct(self.mfn) {
            true => None,
            false => Some(Share::take(self.memory, self.owner)?),
        };
        let kept = frame::keep(self.mfn)?;
        Some(PinnedPage {
            kept,
            _share: share,
            reference: self,
        })
    }
}

impl Drop for FrameRef<'_> {
    fn drop(&mut self) {
        self.memory.put(self.mfn);
    }
}

/// A mapping slot charged to the owner's account.
struct Share<'m> {
    memory: &'m Memory,
    owner: DomId,
}

impl<'m> Share<'m> {
    fn take(memory: &'m Memory, owner: DomId) -> Option<Self> {
        memory.take_slot(owner).then_some(Self { memory, owner })
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.memory.give_slot(self.owner);
    }
}

/// A frame that stays referenced and mapped while the value lives.
pub struct PinnedPage<'m> {
    // Declared first, so that the mapping is dropped before the reference that keeps the frame from being reused.
    kept: Kept,
    _share: Option<Share<'m>>,
    reference: FrameRef<'m>,
}

impl PinnedPage<'_> {
    /// Returns the reference.
    pub fn reference(&self) -> &FrameRef<'_> {
        &self.reference
    }
    /// Returns the frame.
    pub fn mfn(&self) -> Mfn {
        self.reference.mfn
    }
}

impl PageRef for PinnedPage<'_> {
    fn page(&self) -> &SharedPage {
        self.kept.page()
    }
}

impl core::fmt::Debug for PinnedPage<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "PinnedPage({:#x})", self.mfn().raw())
    }
}
