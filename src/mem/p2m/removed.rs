//! Unmapped pages that may still be in a TLB.

use armv7::addr::{Gfn, Mfn};
use arrayvec::ArrayVec;

use super::P2mType;

/// Adjacent guest frames that map to adjacent machine frames of one kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// First guest frame.
    pub gfn: Gfn,
    /// First machine frame.
    pub mfn: Mfn,
    /// Number of frames.
    pub count: u32,
    /// Their kind.
    pub kind: P2mType,
}

/// The runs of a [`Removed`].
pub type Runs = ArrayVec<Run, { Removed::MAX_RUNS }>;

/// Unmapped runs and their references. The holder may use these only after [`super::P2m::flush_removed`]. One value can
/// collect the results of several calls on one map for a single flush. Dropping it leaks the references, but frees
/// nothing early.
#[derive(Debug, Default)]
#[must_use = "flush or release it: the flush is owed and the references are lost otherwise"]
pub struct Removed {
    runs: Runs,
    frames: u32,
    flush: bool,
}

impl Removed {
    /// Maximum number of runs.
    pub const MAX_RUNS: usize = 8;
    /// Maximum number of frames, unless it is a single page or block. Bounds the work of dropping their references.
    pub const MAX_FRAMES: u32 = 64;

    /// Returns an empty collection.
    pub const fn new() -> Self {
        Self {
            runs: Runs::new_const(),
            frames: 0,
            flush: false,
        }
    }

    /// Returns whether nothing was removed.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Returns whether another run might not fit.
    pub fn is_full(&self) -> bool {
        self.runs.is_full() || self.frames >= Self::MAX_FRAMES
    }

    /// Returns the number of frames removed.
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// Returns the removed runs.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    #[inline(always)]
    #[must_use = "a run that has no room keeps its entry, or loses its references"]
    pub(super) fn push(&mut self, run: Run) -> bool {
        let frames = self.frames.saturating_add(run.count);
        if frames > Self::MAX_FRAMES && self.frames > 0 {
            return false;
        }
        if let Some(last) = self.runs.last_mut()
            && last.kind == run.kind
            && last.gfn.checked_add(last.count) == Some(run.gfn)
            && last.mfn.checked_add(last.count) == Some(run.mfn)
        {
            last.count += run.count;
        } else if self.runs.try_push(run).is_err() {
            return false;
        }
        self.frames = frames;
        true
    }

    pub(super) fn clear(&mut self) {
        self.runs.clear();
        self.frames = 0;
        self.flush = false;
    }

    pub(super) fn owe_flush(&mut self) {
        self.flush = true;
    }

    pub(super) fn owes_flush(&self) -> bool {
        self.flush
    }

    pub(super) fn into_runs(self) -> Runs {
        self.runs
    }
}
