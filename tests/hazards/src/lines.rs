//! Lines of memory: those that are dirty in a cache, and those that a cache may hold with old contents.

/// Bytes of a line: the smallest that Cortex-A15 and Cortex-A7 have.
pub const LINE: u64 = 64;

/// Written through the caches and not cleaned.
const DIRTY: u8 = 1;
/// Cleaned by an operation that no DSB has completed.
const CLEANING: u8 = 1 << 1;
/// Written past the caches by the hypervisor and not invalidated.
const STALE: u8 = 1 << 2;
/// Invalidated by an operation that no DSB has completed.
const INVALIDATING: u8 = 1 << 3;
/// Written, so that instruction caches may hold old contents.
const WRITTEN: u8 = 1 << 4;

/// The hypervisor, among those who write. Guests are their VMIDs.
pub const HYPERVISOR: u8 = 0;

#[derive(Clone, Copy, Default)]
struct Line {
    /// The last store.
    pc: u32,
    /// Invalidations of all instruction caches before it.
    round: u32,
    who: u8,
    state: u8,
}

/// A line that an access finds in a wrong state: the store that left it so, and who did it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    pub pc: u32,
    pub who: u8,
}

/// All lines of RAM.
pub struct Lines {
    base: u64,
    lines: Vec<Line>,
    /// Invalidations of all instruction caches.
    round: u32,
}

impl Lines {
    pub fn new(base: u64, size: u64) -> Self {
        let line = Line::default();
        Self {
            base,
            lines: vec![line; (size / LINE) as usize],
            round: 1,
        }
    }

    fn at(&mut self, address: u64) -> Option<&mut Line> {
        let index = address.wrapping_sub(self.base) / LINE;
        self.lines.get_mut(index as usize)
    }

    /// Writes through the caches. Returns the line's former store if that went past them.
    pub fn write_cached(&mut self, address: u64, pc: u32, who: u8) -> Option<Found> {
        let round = self.round;
        let line = self.at(address)?;
        let stale = line.found(STALE);
        line.state = DIRTY | WRITTEN;
        (line.pc, line.who, line.round) = (pc, who, round);
        stale
    }

    /// Writes past the caches. Returns the store that left the line dirty.
    pub fn write_uncached(&mut self, address: u64, pc: u32, who: u8) -> Option<Found> {
        let round = self.round;
        let line = self.at(address)?;
        let dirty = line.found(DIRTY);
        line.state = match who {
            HYPERVISOR => STALE | WRITTEN,
            // A guest's own lines are its affair.
            _ => WRITTEN,
        };
        (line.pc, line.who, line.round) = (pc, who, round);
        dirty
    }

    /// Reads through the caches. Returns the store that went past them, once.
    pub fn read_cached(&mut self, address: u64) -> Option<Found> {
        let line = self.at(address)?;
        let stale = line.found(STALE)?;
        line.state &= !(STALE | INVALIDATING);
        Some(stale)
    }

    /// Reads past the caches. Returns the store that left the line dirty.
    pub fn read_uncached(&mut self, address: u64) -> Option<Found> {
        self.at(address)?.found(DIRTY)
    }

    /// Returns the store that a fetch may miss.
    pub fn fetch(&mut self, address: u64) -> Option<Found> {
        let round = self.round;
        let line = self.at(address)?;
        (line.round == round).then(|| line.found(WRITTEN)).flatten()
    }

    /// Forgets what is wrong with a line, after it was reported.
    pub fn forgive(&mut self, address: u64) {
        if let Some(line) = self.at(address) {
            line.state = 0;
        }
    }

    /// Begins to clean a line. Returns whether a DSB has something to complete.
    pub fn clean(&mut self, address: u64) -> bool {
        self.begin(address, DIRTY, CLEANING)
    }

    /// Begins to invalidate a line. Returns whether a DSB has something to complete.
    pub fn invalidate(&mut self, address: u64) -> bool {
        self.begin(address, STALE, INVALIDATING)
    }

    fn begin(&mut self, address: u64, state: u8, begun: u8) -> bool {
        let Some(line) = self.at(address).filter(|line| line.state & state != 0) else {
            return false;
        };
        line.state |= begun;
        true
    }

    /// Completes what was begun on a line and not undone by a store since.
    pub fn complete(&mut self, address: u64) {
        let Some(line) = self.at(address) else { return };
        for (state, begun) in [(DIRTY, CLEANING), (STALE, INVALIDATING)] {
            if line.state & begun != 0 {
                line.state &= !(state | begun);
            }
        }
    }

    /// Returns the store that left a line dirty.
    pub fn dirty(&mut self, address: u64) -> Option<Found> {
        self.at(address)?.found(DIRTY)
    }

    /// Returns the store that left a line stale.
    pub fn stale(&mut self, address: u64) -> Option<Found> {
        self.at(address)?.found(STALE)
    }

    /// Instruction caches no longer hold what was written before.
    pub fn instruction_caches_invalidated(&mut self) {
        self.round += 1;
    }
}

impl Line {
    fn found(&self, state: u8) -> Option<Found> {
        (self.state & state != 0).then_some(Found {
            pc: self.pc,
            who: self.who,
        })
    }
}
