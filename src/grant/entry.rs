//! One entry as it lies in the memory that the granter writes.
//!
//! Flags and domain id form one aligned word, so a check of both and the mark that the entry is in use are one atomic
//! step. The granter may write any of it at any moment; every loop here ends after a fixed number of attempts. The
//! exchanges are the weak ones, whose single load/store-exclusive pair cannot spin on a line that the granter keeps
//! dirty (XSA-295).

use core::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use armv7::frame::SharedPage;

use super::Access;
use crate::abi::grant_table::{
    GTF_PERMIT_ACCESS, GTF_READING, GTF_READONLY, GTF_SUB_PAGE, GTF_TYPE_MASK, GTF_WRITING,
    GrantEntryV1, GrantError,
};
use crate::id::DomId;

/// Attempts to mark an entry. A granter that changes it more often while somebody maps it is at fault itself.
const MARK_ATTEMPTS: u32 = 32;
/// Attempts to clear marks. Far beyond what a well-behaved granter can disturb.
const CLEAR_ATTEMPTS: u32 = 1000;

/// Who must be named by an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    /// Nobody uses the entry: it must be a grant for this domain.
    GrantedTo(DomId),
    /// The entry is in use already, and that was checked when it began.
    InUse,
}

/// Did the granter let us clear the marks?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cleared {
    Yes,
    No,
}

pub(super) struct Entry<'a> {
    /// Flags and, in the upper half, the domain id.
    word: &'a AtomicU32,
    /// Flags alone: the granter ends a grant by an exchange of these 16 bits.
    flags: &'a AtomicU16,
    frame: &'a AtomicU32,
}

impl<'a> Entry<'a> {
    /// Returns the entry numbered `index` within `page`.
    pub(super) fn at(page: &'a SharedPage, index: usize) -> Option<Self> {
        let offset = index.checked_mul(size_of::<GrantEntryV1>())?;
        Some(Self {
            word: page.u32_at(offset)?,
            flags: page.u16_at(offset)?,
            frame: page.u32_at(offset.checked_add(core::mem::offset_of!(GrantEntryV1, frame))?)?,
        })
    }

    /// Checks that the entry allows `access` and marks it as in use for that.
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
            // Acquire: the frame number is read, and the granted frame is used, after the mark is in place. Pairs with
            // the granter's barrier between writing the frame number and the flags.
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
            // Release: all uses of the granted frame are over before the granter can see that. Pairs with the acquire
            // of the granter's exchange that ends the grant.
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

    /// Exchanges the contents of two entries that are not in use. Only their granter can be confused by a race.
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

    /// Frame first: whoever sees the new flags sees the new frame.
    fn store(&self, (word, frame): (u32, u32)) {
        self.frame.store(frame, Ordering::Relaxed);
        self.word.store(word, Ordering::Release);
    }
}
