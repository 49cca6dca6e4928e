//! Grant tables, version 1: how a domain lends single frames to another.
//!
//! A [`GrantTable`] is one domain's part of it. It owns
//! - the frames that the domain shares with us and writes its entries into (hostile memory), and for each entry what we
//!   know ourselves: who uses it, how often, and which machine frame that is (`table.rs`, `entry.rs`);
//! - the handles of the grants that this domain has mapped from others (`map.rs`).
//!
//! It does not know domains, stage-2 maps or the frame table: the caller brings the granter's memory as
//! [`GranterMemory`], enters mappings into the mapper's stage 2 itself, and finds the tables by domain id.
//!
//! # Rules
//! - The frame of an entry is read once, after the entry is marked in use. From then on until the last release, all
//!   users get the frame that was pinned first, whatever the granter writes (XSA-500).
//! - The marks in the shared word are for the granter's information. What we believe is our own count.
//! - One reference on the granted frame is held per entry in use, and is dropped after the last user has gone and the
//!   marks are cleared (XSA-230, XSA-236).
//! - Every loop over memory that a guest can write at the same time is bounded (XSA-295). A granter that keeps us from
//!   clearing its marks keeps its marks.
//! - Once a handle's memory exists, mapping allocates nothing. That memory is a page at a time, which the caller brings
//!   ([`add_unit`](GrantTable::add_unit)) and books to the mapper.
//!
//! # Locks
//! A table lives in a `Lock<GrantTable<_>, { rank::GRANT }>`. No operation needs two tables at once: each step below is
//! complete in itself, so a mapper and a granter that grant to each other, or a domain that maps its own grant, cannot
//! dead-lock (XSA-73). The lock of a stage-2 map may be taken inside.
//!
//! | operation | granter's table | mapper's table |
//! |---|---|---|
//! | map | 1. [`acquire`](GrantTable::acquire); on a later failure [`release`](GrantTable::release) | 2. [`vacancy`](GrantTable::vacancy), enter into stage 2, [`record`](Vacancy::record) |
//! | unmap | 3. [`release`](GrantTable::release) | 1. [`occupied`](GrantTable::occupied), leave stage 2, [`free`](Occupied::free) the handle; 2. unlocked: flush the TLB |
//! | copy | 1. acquire; 2. unlocked, but for the map of a page of the caller's own: copy; 3. release | |
//! | destroy the mapper | [`release`](GrantTable::release) for each | [`close`](GrantTable::close), then [`release_next`](GrantTable::release_next) until done |
//! | destroy the granter | [`close`](GrantTable::close), [`take_frame`](GrantTable::take_frame); forget it when [`is_idle`](GrantTable::is_idle) | |
//!
//! The caller's part: a mapping is entered only where the mapper has nothing or plain RAM (which is given back), and
//! only an unmap takes it out again; a mapper's hypercalls are over before its table is closed; a granter stays
//! findable by its id until its table is idle.
//!
//! (xen/include/public/grant_table.h)

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

/// Entries in one frame of a table.
pub const ENTRIES_PER_FRAME: u32 = 512;
/// Handles in one unit of [`Limits::max_maptrack_frames`].
pub const HANDLES_PER_FRAME: u32 = 256;
/// Frames that a table is created with.
pub const INITIAL_FRAMES: u32 = 1;
/// Frames that a table may have, unless told otherwise.
pub const DEFAULT_MAX_FRAMES: u32 = 64;
/// Units of handles that a domain may have, unless told otherwise.
pub const DEFAULT_MAX_MAPTRACK_FRAMES: u32 = 1024;
/// The only version of entries there is.
pub const VERSION: u32 = 1;

/// Number of an entry in its granter's table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct GrantRef(pub u32);

/// Name of a mapping, for its mapper.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct GrantHandle(pub u32);

impl GrantHandle {
    /// The status of a failed mapping.
    pub const INVALID: Self = Self(!0);
}

/// The rights of a grant's user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Read.
    Read,
    /// Read and write.
    Write,
}

/// A frame that [`GranterMemory`] found and took a reference on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GrantedFrame {
    /// The machine frame.
    pub mfn: Mfn,
    /// True if its domain may write it.
    pub writable: bool,
}

/// Why there is no [`GrantedFrame`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PinError {
    /// Not RAM that belongs to the granter: a hole, a device, somebody else's frame, a page of ours.
    BadPage,
    /// Not now.
    Again,
}

/// The granter's memory, as its stage-2 map and the frame table know it.
pub trait GranterMemory {
    /// Takes a reference on the RAM frame that the granter owns and has at `gfn`.
    fn pin(&mut self, gfn: Gfn) -> Result<GrantedFrame, PinError>;
    /// Drops a reference that [`pin`](Self::pin) took. The frame may have left the granter's map meanwhile.
    fn unpin(&mut self, mfn: Mfn);
}

/// The frame that an acquired grant stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pinned {
    /// The machine frame.
    pub mfn: Mfn,
    /// Where the granter had it when it was pinned.
    pub gfn: Gfn,
}

/// How large a domain's tables may become.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    max_frames: u32,
    max_maptrack_frames: u32,
}

impl Limits {
    /// Most frames of entries that any domain can have: 64 times the usual, and still quick to walk.
    const FRAMES_END: u32 = 1 << 12;
    /// Most units of handles, so that every handle fits into 32 bits and none is [`GrantHandle::INVALID`].
    const MAPTRACK_END: u32 = 1 << 16;

    /// Returns the limits, or `None` when a domain could not work within them or we could not keep them.
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

    /// Most frames of entries.
    pub const fn max_frames(self) -> u32 {
        self.max_frames
    }

    /// Most units of handles.
    pub const fn max_maptrack_frames(self) -> u32 {
        self.max_maptrack_frames
    }
}

/// Result of a search that does a bounded amount of work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Search<T> {
    /// Found.
    Found(T),
    /// There is none.
    Absent,
    /// Not among those looked at; go on from here.
    More(u32),
}

/// Checks a request of `set_version`: there is version 1, and it cannot be left.
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

/// The terms of a grant of `granter` to `by`; both are needed, as neither alone says whose table to look in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GrantId {
    /// Whose table.
    pub granter: DomId,
    /// Which entry.
    pub grant_ref: GrantRef,
}

#[cfg(test)]
mod tests;
