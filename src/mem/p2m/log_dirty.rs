//! Log-dirty: records which frames of a domain were written.
//!
//! The map itself is the log; nothing is allocated for it. A frame of the domain's own RAM is dirty unless its entry is
//! [`P2mType::RamLogDirty`], which denies writes. The handler of permission faults, and every write that the hypervisor makes for
//! the guest, turns the entry into `RamRw` by [`P2m::note_write`]. New pages are mapped as `RamRw`, and so are dirty.
//!
//! A page on which others have references beside the map's (a grant in use, `vcpu_info`, run-state times, words of the FIFO
//! ABI, shared_info, a mapping of the control domain's) may be written without a fault. It stays `RamRw`, and is reported by
//! each reading, until they are gone. Taking such a reference for writing counts as a write.
//!
//! The control domain's mappings of the domain's pages do not say if they are for writing. A mapping of a page that is
//! `RamLogDirty` is [`P2mType::ForeignLogDirty`]. Its first write is noted in the frame table, since the mapper does not know the
//! owner's frame number.
//!
//! A page that was given back has no entry. The next reading after that reports every frame without a page of the domain's own.
//!
//! A block stays one entry until its first write, which breaks it up. Without a frame for the table, the whole block is dirty
//! instead. ARMv7 finds no frame dirty by itself (DDI 0406C.d B3.7), and its stage 2 is
//! flushed by VMID only.

use armv7::addr::Gfn;
use armv7::table::TableFrames;

use super::{Entry, P2m, P2mType};

/// Frames of a piece of the log.
pub const PIECE: u32 = 64;
/// The highest number of frames of a piece in which nothing is mapped.
const HOLE: u32 = 4096;
/// The number of entries that one search for the next page reads.
const SEARCHED: u32 = 64;

/// Frames that were written, of up to [`PIECE`] from a first one on, as bits.
pub type Bits = u64;

/// Counters of one map's log.
#[derive(Debug, Default)]
pub(super) struct Log {
    on: bool,
    faults: u32,
    written: u32,
    /// Pages were given back since the last reading.
    pub(super) gave_back: bool,
    /// This reading reports frames without a page of the domain's own.
    tells_holes: bool,
}

impl P2m<'_> {
    /// Returns whether the log is on.
    pub fn logs(&self) -> bool {
        self.log.on
    }

    /// Turns the log on or off. The steps of [`P2m::catch_writes`], or of [`P2m::allow_writes`], must follow.
    pub fn set_logs(&mut self, on: bool) {
        self.log = Log {
            on,
            ..Log::default()
        };
    }

    /// Returns the number of faults by writes, and of frames that became written, since they were reset.
    pub fn log_counts(&self) -> [u32; 2] {
        [self.log.faults, self.log.written]
    }

    /// Begins a reading of the log. With `clean` the counts begin anew.
    pub fn begin_reading(&mut self, clean: bool) {
        self.log.tells_holes = self.log.gave_back;
        if clean {
            self.log.gave_back = false;
            (self.log.faults, self.log.written) = (0, 0);
        }
    }

    /// Counts a fault by a write.
    pub fn count_fault(&mut self) {
        self.log.faults = self.log.faults.saturating_add(1);
    }

    /// Marks `gfn` dirty, and allows writes to it.
    #[cold]
    pub fn note_write(&mut self, gfn: Gfn) {
        let Some(entry) = self.lookup(gfn) else {
            return;
        };
        match entry.kind {
            P2mType::RamLogDirty => {
                // A block that cannot be broken up is written as a whole.
                let split = self.table.split_to_page(&mut self.space, gfn.raw()).is_ok();
                let order = match split {
                    true => 0,
                    false => self.lookup(gfn).map_or(0, |entry| entry.order),
                };
                self.set_kind(gfn, P2mType::RamRw);
                self.log.written = self.log.written.saturating_add(1 << order);
            }
            P2mType::ForeignLogDirty => {
                self.space.memory().frames().note_written(entry.mfn);
                self.set_kind(gfn, P2mType::ForeignRw);
            }
            _ => return,
        }
        self.flush_rights();
    }

    /// Marks the frames of `bits` dirty; bit 0 is `first`.
    pub fn note_writes(&mut self, first: Gfn, bits: Bits) {
        self.log.gave_back |= self.log.tells_holes;
        for n in (0..PIECE).filter(|n| bits >> n & 1 != 0) {
            if let Some(gfn) = first.checked_add(n) {
                self.note_write(gfn);
            }
        }
    }

    /// Marks frames from `from` on clean, so that their next writes fault. Returns the frame to continue at, `None` after the last one.
    pub fn catch_writes(&mut self, from: Gfn) -> Option<Gfn> {
        let mut changed = false;
        let mut next = Some(from);
        let mut budget = PIECE;
        while let Some(gfn) = next
            && budget > 0
        {
            let (found, after) = self.next_own(gfn);
            next = after;
            let Some((at, entry)) = found else { break };
            // A piece of a larger block is looked at when it is a block of 512 pages.
            if entry.order > 9 && self.split_block(at) {
                next = Some(at);
                continue;
            }
            budget = budget.saturating_sub(1 << entry.order.min(9));
            if entry.kind == P2mType::RamRo || entry.order > 9 {
                continue;
            }
            if self.is_lone(entry) {
                changed |= self.set_kind(at, P2mType::RamLogDirty);
            } else if entry.order > 0 && self.split_block(at) {
                next = Some(at);
            }
        }
        if changed {
            self.flush_rights();
        }
        next
    }

    /// Allows all writes from `from` on, and joins pages into the blocks that they were. Returns the frame to continue at,
    /// `None` after the last one.
    pub fn allow_writes(&mut self, from: Gfn) -> Option<Gfn> {
        let mut changed = false;
        let mut next = Some(from);
        for _ in 0..PIECE {
            let Some(gfn) = next else { break };
            let (found, after) = self.next_own(gfn);
            next = after;
            let Some((at, entry)) = found else { break };
            if entry.kind == P2mType::RamLogDirty {
                changed |= self.set_kind(at, P2mType::RamRw);
            }
            if entry.order == 0 && at.raw() % 512 == 511 {
                self.merge(at);
                break;
            }
        }
        if changed {
            self.flush_rights();
        }
        next
    }

    /// Returns which of the `count` frames from `first` on were written, at most [`PIECE`] of them, and how many frames the
    /// answer is about: more, if nothing is mapped. With `clean`, their next writes are caught again.
    pub fn written(&mut self, first: Gfn, count: u32, clean: bool) -> (Bits, u32) {
        if count > PIECE && !self.log.tells_holes {
            let (found, after) = self.next_own(first);
            let next = match found {
                Some((at, _)) => Some(at),
                None => after,
            };
            let hole = next.map_or(count, |next| next.raw().saturating_sub(first.raw()));
            if hole >= PIECE {
                return (0, hole.min(count).min(HOLE) / PIECE * PIECE);
            }
        }
        let count = count.min(PIECE);
        let (mut bits, mut changed) = (0, false);
        for n in 0..count {
            let Some(gfn) = first.checked_add(n) else {
                break;
            };
            let (is_written, caught) = self.is_written(gfn, clean);
            bits |= Bits::from(is_written) << n;
            changed |= caught;
        }
        if changed {
            self.flush_rights();
        }
        (bits, count)
    }

    /// Returns whether `gfn` was written, and whether its next write is caught from here on.
    fn is_written(&mut self, gfn: Gfn, clean: bool) -> (bool, bool) {
        let Some(mut entry) = self.find(gfn) else {
            return (self.log.tells_holes, false);
        };
        match entry.kind {
            P2mType::RamRw => {
                if clean && entry.order > 0 && self.split_block(gfn) {
                    entry.order = 0;
                }
                let caught = clean
                    && entry.order == 0
                    && self.is_lone(entry)
                    && self.set_kind(gfn, P2mType::RamLogDirty);
                (true, caught)
            }
            P2mType::RamLogDirty => {
                let frames = self.space.memory().frames();
                let uses = frames.uses(entry.mfn);
                if clean && uses.written {
                    frames.forget_written(entry.mfn);
                    if uses.count > 1 {
                        // Whoever wrote may do so again unnoticed.
                        self.note_write(gfn);
                    }
                }
                (uses.written, false)
            }
            P2mType::RamRo => (false, false),
            _ => (self.log.tells_holes, false),
        }
    }

    /// Returns whether nobody has a reference on the page or block of `entry` but this map. Forgets that others wrote to it:
    /// they have done so.
    fn is_lone(&self, entry: Entry) -> bool {
        let frames = self.space.memory().frames();
        let first = entry.mfn.align_down(entry.order.into());
        let each = || (0..1 << entry.order).filter_map(|n| first.checked_add(n));
        let lone = each().all(|mfn| frames.uses(mfn).count <= 1);
        if lone {
            for mfn in each().filter(|mfn| frames.uses(*mfn).written) {
                frames.forget_written(mfn);
            }
        }
        lone
    }

    /// Breaks up the block that maps `gfn`, as far as there are frames for tables. Returns whether a page maps it now.
    fn split_block(&mut self, gfn: Gfn) -> bool {
        self.table.split_to_page(&mut self.space, gfn.raw()).is_ok()
    }

    /// Changes the kind of the page or block that maps `gfn`, and so its rights. A flush is owed.
    fn set_kind(&mut self, gfn: Gfn, kind: P2mType) -> bool {
        self.table
            .change_rights(&mut self.space, gfn.raw(), kind.attributes())
    }

    fn flush_rights(&mut self) {
        self.space.flush(0, 0);
    }

    /// Returns the first frame of the domain's own RAM from `from` on, looking at a bounded number of entries, and the frame
    /// to continue at, `None` after the last one.
    fn next_own(&self, from: Gfn) -> (Option<(Gfn, Entry)>, Option<Gfn>) {
        let mut found = None;
        let next = self
            .table
            .visit_some(&self.space, from.raw(), SEARCHED, |input, leaf| {
                let kind = P2mType::from_kind(leaf.attributes.kind());
                let Some(kind) = kind.filter(|kind| kind.is_own_ram()) else {
                    return true;
                };
                let at = Gfn::new(u64::from(input.max(from.raw())));
                let entry = Entry {
                    mfn: leaf.output,
                    kind,
                    order: leaf.order as u8,
                };
                found = at.map(|at| (at, entry));
                false
            });
        let after = Gfn::new(u64::from(next)).filter(|next| Some(*next) <= self.high);
        (found, after)
    }
}
