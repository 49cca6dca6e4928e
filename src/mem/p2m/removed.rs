//! Pages that were unmapped and may still be in a TLB.

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

/// A part of [`Removed`].
pub type Runs = ArrayVec<Run, { Removed::MAX_RUNS }>;

/// Unmapped runs, whose references are the holder's only after [`super::P2m::settle`] has flushed. One value can collect
/// the results of several calls on one map, for one flush. Dropping it loses the references, but frees nothing early.
#[derive(Debug, Default)]
#[must_use = "settle or release it: the flush is owed and the references are lost otherwise"]
pub struct Removed {
    runs: Runs,
    frames: u32,
    flush: bool,
}

impl Removed {
    /// Most runs of one value.
    pub const MAX_RUNS: usize = 8;
    /// Most frames of one value, if it is more than one page or block: bounds the work of dropping their references.
    pub const MAX_FRAMES: u32 = 256;

    /// Nothing yet.
    #[inline]
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

    /// Returns whether another run may not fit.
    pub fn is_full(&self) -> bool {
        self.runs.is_full() || self.frames >= Self::MAX_FRAMES
    }

    /// Returns the frames removed.
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// Returns what was removed, to look at.
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
