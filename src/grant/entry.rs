//! A grant entry in memory shared with the granter.
//!
//! Flags and domain id form one aligned word, so checking both and marking the entry in use is one atomic step. The
//! granter may write any of it at any time, so every loop here is bounded. The exchanges are weak ones, whose single
//! load/store-exclusive pair cannot spin on a line that the granter keeps dirty (XSA-295).

use core::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use armv7::frame::SharedPage;

use super::Access;
use crate::abi::grant_table::{
    GTF_PERMIT_ACCESS, GTF_READING, GTF_READONLY, GTF_SUB_PAGE, GTF_TYPE_MASK, GTF_WRITING,
    GrantEntryV1, GrantError,
};
use crate::id::DomId;

/// Attempts to mark an entry. Only a misbehaving granter changes it more often while it is being mapped.
const MARK_ATTEMPTS: u32 = 32;
/// Attempts to clear marks, far more than a conforming granter can disturb.
const CLEAR_ATTEMPTS: u32 = 1000;

/// Check of an entry's domain id.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    /// The entry is unused: it must be a grant to this domain.
    GrantedTo(DomId),
    /// The entry is in use; the check was made at its first use.
    InUse,
}

/// Result of clearing the marks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cleared {
    Yes,
    No,
}

pub(super) struct Entry<'a> {
    /// Flags, and the domain id in the upper half.
    word: &'a AtomicU32,
    /// The flags alone: the granter ends a grant by an exchange of these 16 bits.
    flags: &'a AtomicU16,
    frame: &'a AtomicU32,
}

impl<'a> Entry<'a> {
    /// Returns the entry at `index` in `page`.
    pub(super) fn at(page: &'a SharedPage, index: usize) -> Option<Self> {
        let offset = index.checked_mul(size_of::<GrantEntryV1>())?;
        Some(Self {
            word: page.u32_at(offset)?,
            flags: page.u16_at(offset)?,
            frame: page.u32_at(offset.checked_add(core::mem::offset_of!(GrantEntryV1, frame))?)?,
        })
    }

    /// Checks that the entry allows `access`, and marks it in use.
    pub(super) fn mark(&self, check: Check, access: Access) -> Result<(), GrantError> {
        let marks = match access {
            Access::Read => GTF_READING,
            Access::Write => GTF_READING | GTF_WRITING,
        };
        let mut word = self.word.load(Ordering::Relaxed);
        for _ in 0..MARK_ATTEMPTS {
            let flags = word as u16;
            let domid = DomId((word >> 16) as u16);
            if let Check::GrantedTo(by) = check
                && (flags & (GTF_TYPE_MASK | GTF_SUB_PAGE) != GTF_PERMIT_ACCESS || domid != by)
            {
                return Err(GrantError::General);
            }
            if access == Access::Write && flags & GTF_READONLY != 0 {
                return Err(GrantError::General);
            }
            // Acquire: the frame number is read, and the frame used, after the mark is set. Pairs with the granter's
            // barrier between writing the frame number and the flags.
            match self.word.compare_exchange_weak(
                word,
                word | u32::from(marks),
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Ok(()),
                Err(now) => word = now,
            }
        }
        Err(GrantError::General)
    }

    /// Clears `marks`.
    pub(super) fn clear(&self, marks: u16) -> Cleared {
        let mut flags = self.flags.load(Ordering::Relaxed);
        for _ in 0..CLEAR_ATTEMPTS {
            // Release: all uses of the frame end before the granter sees the marks cleared. Pairs with the acquire of
            // the granter's exchange that ends the grant.
            match self.flags.compare_exchange_weak(
                flags,
                flags & !marks,
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Cleared::Yes,
                Err(now) => flags = now,
            }
        }
        Cleared::No
    }

    /// Returns the frame number (GFN). Read it once, after [`mark`](Self::mark).
    pub(super) fn frame(&self) -> u32 {
        self.frame.load(Ordering::Relaxed)
    }

    /// Returns the flags, for a report.
    pub(super) fn flags(&self) -> u16 {
        self.flags.load(Ordering::Relaxed)
    }

    /// Exchanges the contents of two unused entries. A race affects only their granter.
    pub(super) fn swap(&self, other: &Entry<'_>) {
        let (mine, theirs) = (self.load(), other.load());
        self.store(theirs);
        other.store(mine);
    }

    fn load(&self) -> (u32, u32) {
        (
            self.word.load(Ordering::Relaxed),
            self.frame.load(Ordering::Relaxed),
        )
    }

    /// Frame first, so that a reader of the new flags sees the new frame.
    fn store(&self, (word, frame): (u32, u32)) {
        self.frame.store(frame, Ordering::Relaxed);
        self.word.store(word, Ordering::Release);
    }
}
