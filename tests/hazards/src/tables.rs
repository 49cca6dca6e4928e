//! Translation tables in the long format (DDI 0406C.d B3.6.1), and what a store into one means.

use std::collections::HashMap;

use crate::memory::Memory;
use crate::pending::Regime;

/// A page of a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Page {
    pub regime: Regime,
    /// 1 to 3.
    level: u32,
    /// Input page of its first entry.
    base: u64,
}

/// An entry without the bits that software has for itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    Invalid,
    /// Frame of the table below.
    Table(u64),
    /// First frame, and all bits that the processor reads.
    Leaf(u64, u64),
}

const FRAME: u64 = 0xFF_FFFF_F000;
/// Of a leaf: 58:55.
const SOFTWARE: u64 = 0xF << 55;

impl Entry {
    pub fn of(word: u64, level: u32) -> Self {
        let frame = (word & FRAME) >> 12;
        match (word & 3, level) {
            (3, 1 | 2) => Self::Table(frame),
            (3, _) | (1, 1 | 2) => Self::Leaf(frame, word & !SOFTWARE),
            _ => Self::Invalid,
        }
    }
}

/// A change of one entry that the processor notices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    pub regime: Regime,
    pub old: Entry,
    pub new: Entry,
    /// First input page, and number of pages.
    pub input: u64,
    pub pages: u64,
    /// Level of the table.
    level: u32,
}

/// A change of a leaf of a guest's map in its rights alone (S2AP, DDI 0406C.d B3.6.2), which needs no break before make.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rights {
    /// TLBs may still allow what the entry does not: an invalidate is owed.
    Fewer,
    /// TLBs may still deny what the entry allows: the access faults once more.
    More,
}

/// S2AP of a leaf: a bit each for reads and writes.
const RIGHTS: u64 = 3 << 6;

impl Change {
    /// Returns how the rights change, if nothing else does.
    pub fn rights(&self) -> Option<Rights> {
        let (Entry::Leaf(_, old), Entry::Leaf(_, new)) = (self.old, self.new) else {
            return None;
        };
        if self.regime == Regime::Hyp || old & !RIGHTS != new & !RIGHTS {
            return None;
        }
        Some(match old & !new {
            0 => Rights::More,
            _ => Rights::Fewer,
        })
    }
}

/// All pages of live tables.
#[derive(Default)]
pub struct Tables {
    pages: HashMap<u64, Page>,
}

/// Pages that an entry of a level covers.
const fn span(level: u32) -> u64 {
    1 << (9 * (3 - level))
}

/// Entries of a table.
const ENTRIES: u64 = 512;
/// Pages of a root: the hypervisor's has four entries, those of guests 1024 in two pages.
const fn root_pages(regime: Regime) -> u64 {
    match regime {
        Regime::Hyp => 1,
        Regime::Guest(_) => 2,
    }
}

impl Tables {
    pub fn is_table(&self, frame: u64) -> bool {
        self.pages.contains_key(&frame)
    }

    /// Follows the tables from a root on, as they are in memory.
    pub fn adopt_root(&mut self, memory: &Memory, regime: Regime, root: u64) -> Vec<u64> {
        let mut found = Vec::new();
        for n in 0..root_pages(regime) {
            let page = Page {
                regime,
                level: 1,
                base: n * ENTRIES * span(1),
            };
            self.adopt(memory, root + n, page, &mut found);
        }
        found
    }

    /// Returns whether a guest's root has no valid entry.
    pub fn is_root_empty(memory: &Memory, root: u64) -> bool {
        (0..2 * ENTRIES).all(|n| memory.word((root << 12) + n * 8) & 1 == 0)
    }

    fn adopt(&mut self, memory: &Memory, frame: u64, page: Page, found: &mut Vec<u64>) {
        if self.pages.insert(frame, page).is_some() {
            return;
        }
        found.push(frame);
        if page.level == 3 {
            return;
        }
        for n in 0..ENTRIES {
            let word = memory.word((frame << 12) + n * 8);
            if let Entry::Table(below) = Entry::of(word, page.level) {
                let page = Page {
                    regime: page.regime,
                    level: page.level + 1,
                    base: page.base + n * span(page.level),
                };
                self.adopt(memory, below, page, found);
            }
        }
    }

    /// Follows the table below a new entry.
    pub fn adopt_below(&mut self, memory: &Memory, change: &Change) -> Vec<u64> {
        let mut found = Vec::new();
        if let Entry::Table(below) = change.new {
            let page = Page {
                regime: change.regime,
                level: change.level + 1,
                base: change.input,
            };
            self.adopt(memory, below, page, &mut found);
        }
        found
    }

    /// Forgets a table and those below it. Returns their frames.
    pub fn forget(&mut self, memory: &Memory, frame: u64) -> Vec<u64> {
        let mut gone = Vec::new();
        let Some(page) = self.pages.remove(&frame) else {
            return gone;
        };
        gone.push(frame);
        if page.level < 3 {
            for n in 0..ENTRIES {
                let word = memory.word((frame << 12) + n * 8);
                if let Entry::Table(below) = Entry::of(word, page.level) {
                    gone.extend(self.forget(memory, below));
                }
            }
        }
        gone
    }

    /// Forgets all tables of a regime. Returns their frames.
    pub fn forget_regime(&mut self, regime: Regime) -> Vec<u64> {
        let frames = self.pages.iter();
        let gone: Vec<u64> = frames
            .filter(|(_, page)| page.regime == regime)
            .map(|(frame, _)| *frame)
            .collect();
        for frame in &gone {
            self.pages.remove(frame);
        }
        gone
    }

    /// Returns what a store into the word at `address` changes.
    pub fn change(&self, address: u64, old: u64, new: u64) -> Option<Change> {
        let page = self.pages.get(&(address >> 12))?;
        let index = address >> 3 & (ENTRIES - 1);
        let (old, new) = (Entry::of(old, page.level), Entry::of(new, page.level));
        (old != new).then_some(Change {
            regime: page.regime,
            old,
            new,
            input: page.base + index * span(page.level),
            pages: span(page.level),
            level: page.level,
        })
    }

    /// Translates by the tables in memory.
    pub fn walk(memory: &Memory, regime: Regime, root: u64, address: u64) -> Option<u64> {
        let mut table = root;
        for level in 1..=3 {
            let index = address >> 12 >> (9 * (3 - level));
            let index = match (level, regime) {
                (1, Regime::Guest(_)) => index & (2 * ENTRIES - 1),
                (1, Regime::Hyp) => index & 3,
                _ => index & (ENTRIES - 1),
            };
            match Entry::of(memory.word((table << 12) + index * 8), level) {
                Entry::Invalid => return None,
                Entry::Table(below) => table = below,
                Entry::Leaf(frame, _) => {
                    let size = span(level) << 12;
                    return Some((frame << 12) & !(size - 1) | address & (size - 1));
                }
            }
        }
        None
    }
}
