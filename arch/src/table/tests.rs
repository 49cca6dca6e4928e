//! Tables against a flat map, with a TLB that forgets nothing until it is flushed and a pool that runs dry.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};

use super::{MERGE_AFTER, Table, TableError, TableFrames};
use crate::addr::Mfn;
use crate::lpae::{
    Access, Attributes, Descriptor, ENTRIES, Entry, Level, Shareability, Stage2Memory,
};

mod model;

fn mfn(n: u32) -> Mfn {
    Mfn::new(u64::from(n)).unwrap()
}

fn ram(kind: u8) -> Attributes {
    Attributes::stage2(
        Stage2Memory::WriteBack,
        Shareability::Inner,
        Access::RWX,
        kind,
    )
}

const ROOT: u32 = 0x9FF_FFF0;
const FIRST_TABLE: u32 = 0xA00_0000;

/// Table memory that breaks the test when a rule is broken.
struct Machine {
    tables: HashMap<u32, Vec<u64>>,
    free: Vec<u32>,
    quota: usize,
    flushes: usize,
    /// Valid words that were overwritten by 0 since the last flush, by place.
    stale_words: HashMap<(u32, usize), u64>,
    /// Tables that were unlinked since the last flush.
    unlinked: HashSet<u32>,
    /// The last seen mapping of each touched input.
    tlb: RefCell<BTreeMap<u32, (Mfn, Attributes)>>,
}

impl Machine {
    fn new(quota: usize) -> Self {
        let tables = [ROOT, ROOT + 1]
            .map(|root| (root, vec![0; ENTRIES]))
            .into_iter()
            .collect();
        Self {
            tables,
            free: (FIRST_TABLE..FIRST_TABLE + 0x400).collect(),
            quota,
            flushes: 0,
            stale_words: HashMap::new(),
            unlinked: HashSet::new(),
            tlb: RefCell::default(),
        }
    }
    fn in_use(&self) -> usize {
        self.tables.len() - 2
    }
    fn touch(&self, table: &Table, input: u32) -> Option<(Mfn, Attributes)> {
        let mut tlb = self.tlb.borrow_mut();
        if let Some(&hit) = tlb.get(&input) {
            return Some(hit);
        }
        let leaf = table.lookup(self, input)?;
        tlb.insert(input, (leaf.output, leaf.attributes));
        Some((leaf.output, leaf.attributes))
    }
}

/// Returns whether the word leads to a table, and which: only table frames have such numbers here.
fn table_in(word: u64) -> Option<u32> {
    let frame = (word >> 12) as u32 & 0xFFF_FFFF;
    (word & 3 == 3 && frame >= FIRST_TABLE).then_some(frame)
}

/// A kind whose pages leave one by one.
const LENT: u8 = 5;

impl TableFrames for Machine {
    fn may_merge(&self, attributes: Attributes) -> bool {
        attributes.kind() != LENT
    }
    fn alloc(&mut self) -> Option<Mfn> {
        if self.in_use() >= self.quota {
            return None;
        }
        let frame = self.free.pop()?;
        self.tables.insert(frame, vec![0; ENTRIES]);
        Some(mfn(frame))
    }
    fn free(&mut self, table: Mfn) {
        assert!(
            !self.unlinked.contains(&table.raw()),
            "a table is freed only after a flush"
        );
        assert!(
            self.tables.remove(&table.raw()).is_some(),
            "a table is freed once"
        );
        self.free.push(table.raw());
    }
    fn flush(&mut self, first: u32, frames: u32) {
        self.flushes += 1;
        self.stale_words.clear();
        self.unlinked.clear();
        self.tlb
            .borrow_mut()
            .retain(|input, _| !(first..first.saturating_add(frames)).contains(input));
    }
    fn read(&self, table: Mfn, index: usize) -> u64 {
        self.tables[&table.raw()][index]
    }
    fn fill(&mut self, table: Mfn, index: usize, count: usize, first: u64, step: u64) {
        for n in 0..count {
            self.write(table, index + n, first + n as u64 * step);
        }
    }
    fn is_filled(&self, table: Mfn, first: u64, step: u64) -> bool {
        let words = &self.tables[&table.raw()];
        (0..).zip(words).all(|(n, word)| *word == first + n * step)
    }
    fn write(&mut self, table: Mfn, index: usize, descriptor: u64) {
        let place = (table.raw(), index);
        let old = self.tables[&table.raw()][index];
        let notes = (0x7F << 52) | (0x3FF << 2);
        if old & descriptor & 1 == 1 {
            // Of a table its notes change in place, of a page or block its kind and rights.
            let may_change = match table_in(old) {
                Some(_) => notes,
                None => (0xF << 55) | (3 << 6),
            };
            assert!(
                old & !may_change == descriptor & !may_change,
                "a valid entry {old:#x} became {descriptor:#x} without a break"
            );
        }
        if old & 1 == 1 && descriptor & 1 == 0 {
            self.stale_words.insert(place, old);
            if let Some(next) = table_in(old) {
                self.unlinked.insert(next);
            }
        }
        if descriptor & 1 == 1
            && let Some(stale) = self.stale_words.get(&place)
        {
            let same = stale & !notes == descriptor & !notes;
            assert!(same, "an entry was made again before its flush");
        }
        self.tables.get_mut(&table.raw()).unwrap()[index] = descriptor;
    }
}

/// Checks that every count is right and no reachable table is empty, and returns the number of tables reached.
fn check_counts(machine: &Machine, table: Mfn, level: Level) -> usize {
    let mut reached = 0;
    for index in 0..ENTRIES {
        if let (Entry::Table(next, note), Some(below)) = (
            Descriptor(machine.read(table, index)).decode(level),
            level.next(),
        ) {
            let used = (0..ENTRIES)
                .filter(|n| machine.read(next, *n) & 1 == 1)
                .count();
            assert_eq!(used, usize::from(note.used), "the count of a {level:?}");
            assert!(used > 0, "an empty table stayed");
            reached += 1 + check_counts(machine, next, below);
        }
    }
    reached
}

fn check_all(machine: &Machine) {
    let reached = check_counts(machine, mfn(ROOT), Level::One)
        + check_counts(machine, mfn(ROOT + 1), Level::One);
    assert_eq!(reached, machine.in_use(), "a table was lost");
}

fn unmap_all(table: &mut Table, machine: &mut Machine, input: u32, count: u32) -> u32 {
    let mut pages = 0;
    let progress = table
        .unmap(machine, input, count, u32::MAX, |_, leaf| {
            pages += 1 << leaf.order;
            true
        })
        .unwrap();
    if progress.flush {
        machine.flush(input, count);
    }
    pages
}

#[test]
fn the_largest_blocks_that_both_sides_allow_are_used() {
    let mut machine = Machine::new(9);
    let mut table = Table::stage2(mfn(ROOT));
    // 1 GiB + 2 MiB + 1 page, aligned alike.
    let count = (1 << 18) + 512 + 1;
    let done = table
        .map(&mut machine, 1 << 18, mfn(1 << 19), count, ram(1), 100)
        .unwrap();
    assert_eq!(done.frames, count);
    let order = |input| table.lookup(&machine, input).unwrap().order;
    assert_eq!(
        (order(1 << 18), order(2 << 18), order((2 << 18) + 512)),
        (18, 9, 0)
    );
    assert!(table.lookup(&machine, (2 << 18) + 513).is_none());
    assert_eq!(
        table.lookup(&machine, (1 << 18) + 77).unwrap().output,
        mfn((1 << 19) + 77)
    );
    check_all(&machine);
}

#[test]
fn a_budget_ends_a_mapping_early_and_says_how_far_it_came() {
    let mut machine = Machine::new(9);
    let mut table = Table::stage2(mfn(ROOT));
    let done = table
        .map(&mut machine, 3, mfn(5), 1000, ram(1), 64)
        .unwrap();
    assert_eq!(done.frames, 64);
    let done = table
        .map(&mut machine, 67, mfn(69), 936, ram(1), 10_000)
        .unwrap();
    assert_eq!(done.frames, 936);
    assert_eq!(unmap_all(&mut table, &mut machine, 0, 2000), 1000);
    assert_eq!(machine.in_use(), 0);
}

#[test]
fn ranges_outside_the_spaces_are_refused() {
    let mut machine = Machine::new(9);
    let mut table = Table::stage2(mfn(ROOT));
    let last = (1 << 28) - 1;
    for (input, count) in [
        (last, 2),
        (1 << 28, 1),
        (u32::MAX, 1),
        (1, u32::MAX),
        (0, 0),
    ] {
        let refused = Err(TableError::OutOfRange);
        assert_eq!(
            table.map(&mut machine, input, mfn(0), count, ram(1), 9),
            refused
        );
        assert_eq!(
            table.unmap(&mut machine, input, count, 9, |_, _| true),
            refused
        );
    }
    assert_eq!(
        table.map(&mut machine, 0, mfn(last), 2, ram(1), 9),
        Err(TableError::OutOfRange)
    );
    assert!(table.lookup(&machine, 1 << 28).is_none());
    assert_eq!(
        table
            .map(&mut machine, last, mfn(last), 1, ram(1), 9)
            .unwrap()
            .frames,
        1
    );
    assert_eq!(unmap_all(&mut table, &mut machine, 0, 1 << 28), 1);
    let mut hyp = Table::hyp(mfn(ROOT));
    assert_eq!(
        hyp.map(&mut machine, 1 << 20, mfn(0), 1, ram(1), 9),
        Err(TableError::OutOfRange)
    );
}

#[test]
fn a_block_that_cannot_be_broken_up_stays_whole() {
    for quota in 0..2 {
        let mut machine = Machine::new(quota);
        let mut table = Table::stage2(mfn(ROOT));
        let _ = table
            .map(&mut machine, 0, mfn(1 << 18), 1 << 18, ram(1), 1)
            .unwrap();
        let refused = table.unmap(&mut machine, 700, 1, 9, |_, _| panic!("nothing is removed"));
        assert_eq!(refused, Err(TableError::NoTable));
        assert_eq!(
            table.lookup(&machine, 700).unwrap().output,
            mfn((1 << 18) + 700)
        );
        assert_eq!(
            table.replace(&mut machine, 700, mfn(1), ram(2)),
            Err(TableError::NoTable)
        );
        check_all(&machine);
    }
}

#[test]
fn pages_that_may_not_merge_stay_pages_and_leave_without_a_table() {
    let mut machine = Machine::new(2);
    let mut table = Table::stage2(mfn(ROOT));
    for n in 0..512 {
        let _ = table
            .map(&mut machine, n, mfn(1024 + n), 1, ram(LENT), 1)
            .unwrap();
    }
    for _ in 1..MERGE_AFTER {
        assert_eq!(unmap_all(&mut table, &mut machine, 7, 1), 1);
        let _ = table
            .map(&mut machine, 7, mfn(1024 + 7), 1, ram(LENT), 1)
            .unwrap();
    }
    table.merge(&mut machine, 7);
    assert_eq!(table.lookup(&machine, 7).unwrap().order, 0);
    machine.quota = 0;
    assert_eq!(unmap_all(&mut table, &mut machine, 9, 1), 1);
    check_all(&machine);
}

#[test]
fn pages_that_leave_a_block_and_come_back_restore_it_after_a_while() {
    let mut machine = Machine::new(9);
    let mut table = Table::stage2(mfn(ROOT));
    let _ = table
        .map(&mut machine, 0, mfn(1 << 18), 1 << 18, ram(1), 1)
        .unwrap();
    for round in 1..=2 * u32::from(MERGE_AFTER) {
        let flushes = machine.flushes;
        assert_eq!(unmap_all(&mut table, &mut machine, 700, 1), 1);
        let breaks = if round == 1 || round == u32::from(MERGE_AFTER) + 1 {
            1
        } else {
            0
        };
        let _ = table
            .map(&mut machine, 700, mfn((1 << 18) + 700), 1, ram(1), 1)
            .unwrap();
        assert!(
            machine.flushes - flushes <= 1 + 2 * breaks + 2,
            "round {round} flushes little"
        );
        check_all(&machine);
    }
    assert_eq!(table.lookup(&machine, 700).unwrap().order, 9);
    let _ = unmap_all(&mut table, &mut machine, 700, 1);
    let _ = table
        .map(&mut machine, 700, mfn((1 << 18) + 700), 1, ram(1), 1)
        .unwrap();
    table.merge(&mut machine, 700);
    assert_eq!(table.lookup(&machine, 700).unwrap().order, 18);
    assert_eq!(machine.in_use(), 0);
}
