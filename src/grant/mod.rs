//! Grant tables, version 1: how a domain lends single frames to another.
//!
//! A [`GrantTable`] is one domain's table. It owns
//! - the frames shared with the domain, in which the domain writes its entries (hostile memory), and the hypervisor's
//!   record of each entry: users, counts and machine frame (`table.rs`, `entry.rs`);
//! - the handles of the grants that this domain has mapped from others (`map.rs`).
//!
//! This room does not depend on domains, p2ms or the frame table. The caller supplies the granter's memory as
//! [`GranterMemory`], enters mappings into the mapper's p2m, and finds the tables by domain id.
//!
//! # Rules
//! - The frame number of an entry is read once, after the entry is marked in use. From then on until the last release,
//!   all users get the frame that was pinned first, whatever the granter writes (XSA-500).
//! - The marks in the shared word inform the granter. Only the hypervisor's own counts are relied on.
//! - One reference on the granted frame is held per entry in use. It is dropped after the last user has gone and the
//!   marks are cleared (XSA-230, XSA-236).
//! - Every loop over memory that a guest can write concurrently is bounded (XSA-295). A granter that prevents the
//!   clearing of its marks keeps them.
//! - Once a handle's memory exists, mapping does not allocate. That memory comes in pages that the caller supplies
//!   ([`add_unit`](GrantTable::add_unit)) and charges to the mapper.
//!
//! # Locks
//! A table lives in a `Lock<GrantTable<_>, { rank::GRANT }>`. No operation locks two tables at once: each step below is
//! complete in itself, so a mapper and a granter that grant to each other, or a domain that maps its own grant, cannot
//! deadlock (XSA-73). The lock of a p2m may be taken inside.
//!
//! | operation | granter's table | mapper's table |
//! |---|---|---|
//! | map | 1. [`acquire`](GrantTable::acquire); on a later failure [`release`](GrantTable::release) | 2. [`vacancy`](GrantTable::vacancy), enter into stage 2, [`record`](Vacancy::record) |
//! | unmap | 3. [`release`](GrantTable::release) | 1. [`occupied`](GrantTable::occupied), leave stage 2, [`free`](Occupied::free) the handle; 2. unlocked: flush the TLB |
//! | copy | 1. acquire; 2. unlocked, but for the map of a page of the caller's own: copy; 3. release | |
//! | destroy the mapper | [`release`](GrantTable::release) for each | [`close`](GrantTable::close), then [`release_next`](GrantTable::release_next) until done |
//! | destroy the granter | [`close`](GrantTable::close), [`take_frame`](GrantTable::take_frame); forget it when [`is_idle`](GrantTable::is_idle) | |
//!
//! The caller's duties: a mapping is entered only where the mapper has nothing or plain RAM (which is freed), and only
//! an unmap removes it; a mapper's hypercalls have ended before its table is closed; a granter can be found by its id
//! until its table is idle.
//!
//! Source: xen/include/public/grant_table.h.

mod copy;
mod entry;
mod flush;
mod map;
mod table;

use armv7::addr::{Gfn, Mfn};

use crate::abi::grant_table::GrantError;
use crate::error::Errno;
use crate::id::DomId;

pub use copy::{CopyPlan, Place, Side};
pub use flush::{FlushAction, FlushRequest};
pub use map::{MapRequest, Mapping, Occupied, Step, Vacancy};
pub use table::{ActiveGrant, GrantTable, GrowError};

/// Entries per frame of a table.
pub const ENTRIES_PER_FRAME: u32 = 512;
/// Handles per unit of [`Limits::max_maptrack_frames`].
pub const HANDLES_PER_FRAME: u32 = 256;
/// Initial number of frames of a table.
pub const INITIAL_FRAMES: u32 = 1;
/// Default maximum of frames of a table.
pub const DEFAULT_MAX_FRAMES: u32 = 64;
/// Default maximum of units of handles.
pub const DEFAULT_MAX_MAPTRACK_FRAMES: u32 = 1024;
/// The only version of entries implemented.
pub const VERSION: u32 = 1;

/// Number of an entry in its granter's table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct GrantRef(pub u32);

/// Handle of a mapping, in its mapper's table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct GrantHandle(pub u32);

impl GrantHandle {
    /// Handle returned for a failed mapping.
    pub const INVALID: Self = Self(!0);
}

/// Access of a grant's user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Read.
    Read,
    /// Read and write.
    Write,
}

/// A frame found and referenced by [`GranterMemory`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GrantedFrame {
    /// The machine frame.
    pub mfn: Mfn,
    /// The granter may write it.
    pub writable: bool,
}

/// Reason a frame was not pinned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PinError {
    /// Not RAM of the granter: unmapped, a device, another domain's frame, or the hypervisor's.
    BadPage,
    /// Temporarily impossible; retry.
    Again,
}

/// The granter's memory, by its p2m and the frame table.
pub trait GranterMemory {
    /// Takes a reference on the RAM frame that the granter owns and maps at `gfn`, for `access`.
    fn pin(&mut self, gfn: Gfn, access: Access) -> Result<GrantedFrame, PinError>;
    /// Notes that a frame pinned at `gfn` for reading is written from here on. The granter may have unmapped it meanwhile.
    fn note_write(&mut self, gfn: Gfn);
    /// Drops a reference taken by [`pin`](Self::pin). The granter may have unmapped the frame meanwhile.
    fn unpin(&mut self, mfn: Mfn);
}

/// The frame of an acquired grant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pinned {
    /// The machine frame.
    pub mfn: Mfn,
    /// The granter's gfn at the time of pinning.
    pub gfn: Gfn,
}

/// Maximum sizes of a domain's tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    max_frames: u32,
    max_maptrack_frames: u32,
}

impl Limits {
    /// Upper bound of frames of entries for any domain: 64 times the default, and still quick to walk.
    const FRAMES_END: u32 = 1 << 12;
    /// Upper bound of units of handles: every handle fits 32 bits, and none is [`GrantHandle::INVALID`].
    const MAPTRACK_END: u32 = 1 << 16;

    /// Returns the limits, or `None` if they are too small for a domain to work or beyond the upper bounds.
    pub const fn new(max_frames: u32, max_maptrack_frames: u32) -> Option<Self> {
        if max_frames < INITIAL_FRAMES
            || max_frames > Self::FRAMES_END
            || max_maptrack_frames > Self::MAPTRACK_END
        {
            return None;
        }
        Some(Self {
            max_frames,
            max_maptrack_frames,
        })
    }

    /// Returns the maximum number of frames of entries.
    pub const fn max_frames(self) -> u32 {
        self.max_frames
    }

    /// Returns the maximum number of units of handles.
    pub const fn max_maptrack_frames(self) -> u32 {
        self.max_maptrack_frames
    }
}

/// Result of a bounded search.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Search<T> {
    /// Found.
    Found(T),
    /// Not found.
    Absent,
    /// Not found so far; continue here.
    More(u32),
}

/// Checks a request of `set_version`: only version 1 is accepted.
pub const fn set_version(version: u32) -> Result<u32, Errno> {
    match version {
        VERSION => Ok(VERSION),
        2 => Err(Errno::NoSys),
        _ => Err(Errno::Inval),
    }
}

impl From<PinError> for GrantError {
    fn from(error: PinError) -> Self {
        match error {
            PinError::BadPage => Self::BadPage,
            PinError::Again => Self::Again,
        }
    }
}

/// A grant, by granter and reference; both are needed to find it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GrantId {
    /// The granter.
    pub granter: DomId,
    /// The entry.
    pub grant_ref: GrantRef,
}

#[cfg(test)]
mod tests;
