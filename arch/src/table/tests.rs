//! Tables against a flat map, with a TLB that forgets nothing until it is flushed and a pool that runs dry.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};

use proptest::prelude::*;

use super::{MERGE_AFTER, Table, TableError, TableFrames};
use crate::addr::Mfn;
use crate::lpae::{
    Access, Attributes, Descriptor, ENTRIES, Entry, Level, Shareability, Stage2Memory,
};

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
    /// What each touched input was last seen to map to.
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

/// Whether the word leads to a table, and which: only table frames have such numbers here.
fn table_in(word: u64) -> Option<u32> {
    let frame = (word >> 12) as u32 & 0xFFF_FFFF;
    (word & 3 == 3 && frame >= FIRST_TABLE).then_some(frame)
}

impl TableFrames for Machine {
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
    fn write(&mut self, table: Mfn, index: usize, descriptor: u64) {
        let place = (table.raw(), index);
        let old = self.tables[&table.raw()][index];
        let notes = (0x7F << 52) | (0x3FF << 2);
        if old & descriptor & 1 == 1 {
            assert!(
                table_in(old).is_some() && old & !notes == descriptor & !notes,
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

/// Every count is right and no reachable table is empty; answers the number of tables reached.
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

#[derive(Clone, Debug)]
enum Op {
    Map {
        input: u32,
        output: u32,
        count: u32,
        kind: u8,
        budget: u32,
    },
    Unmap {
        input: u32,
        count: u32,
        budget: u32,
    },
    Replace {
        input: u32,
        output: u32,
        kind: u8,
    },
    Touch(u32),
    Merge(u32),
    Quota(usize),
}

/// Inputs around the corners of tables: three GiB areas, at few offsets.
fn input() -> impl Strategy<Value = u32> {
    let gib = prop_oneof![Just(0u32), Just(1), Just(511), Just(512)];
    let mib = prop_oneof![Just(0u32), Just(1), Just(2), Just(511)];
    let page = prop_oneof![Just(0u32), Just(1), Just(510), 0u32..512];
    (gib, mib, page).prop_map(|(g, m, p)| (g << 18) | (m << 9) | p)
}

fn count() -> impl Strategy<Value = u32> {
    prop_oneof![
        Just(1u32),
        1u32..6,
        Just(512),
        500u32..1100,
        Just(1024),
        Just(1 << 18),
        Just((1 << 18) + 3)
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (input(), input(), count(), 1u8..3, 1u32..3000, any::<bool>()).prop_map(|(input, other, count, kind, budget, alike)| {
            Op::Map { input, output: if alike { input } else { other }, count, kind, budget }
        }),
        4 => (input(), count(), 1u32..3000).prop_map(|(input, count, budget)| Op::Unmap { input, count, budget }),
        2 => (input(), input(), 1u8..3, any::<bool>()).prop_map(|(input, other, kind, alike)| {
            Op::Replace { input, output: if alike { input } else { other }, kind }
        }),
        3 => input().prop_map(Op::Touch),
        1 => input().prop_map(Op::Merge),
        1 => prop_oneof![Just(0usize), 1usize..12, Just(900)].prop_map(Op::Quota),
    ]
}

/// The flat model: ranges `input -> (frames, output, kind)`, kept as single pages within the touched GiB areas.
#[derive(Default)]
struct Flat(BTreeMap<u32, (u32, u32, u8)>);

impl Flat {
    fn get(&self, input: u32) -> Option<(u32, u8)> {
        let (first, (frames, output, kind)) = self.0.range(..=input).next_back()?;
        (input - first < *frames).then(|| (output + (input - first), *kind))
    }
    fn overlaps(&self, input: u32, count: u32) -> bool {
        self.0
            .range(..input + count)
            .next_back()
            .is_some_and(|(first, (frames, ..))| first + frames > input)
    }
    fn insert(&mut self, input: u32, count: u32, output: u32, kind: u8) {
        self.0.insert(input, (count, output, kind));
    }
    fn remove(&mut self, input: u32, count: u32) {
        let end = input + count;
        let hit: Vec<_> = self
            .0
            .range(..end)
            .filter(|(first, (frames, ..))| **first + frames > input)
            .map(|(first, range)| (*first, *range))
            .collect();
        for (first, (frames, output, kind)) in hit {
            self.0.remove(&first);
            if first < input {
                self.0.insert(first, (input - first, output, kind));
            }
            if first + frames > end {
                self.0
                    .insert(end, (first + frames - end, output + (end - first), kind));
            }
        }
    }
}

fn apply(table: &mut Table, machine: &mut Machine, flat: &mut Flat, op: &Op) {
    match *op {
        Op::Map {
            input,
            output,
            count,
            kind,
            budget,
        } => match table.map(machine, input, mfn(output), count, ram(kind), budget) {
            Ok(progress) => {
                assert!(!flat.overlaps(input, progress.frames) && !progress.flush);
                flat.insert(input, progress.frames, output, kind);
            }
            Err(TableError::Occupied) => assert!(flat.overlaps(input, count)),
            Err(TableError::NoTable) => assert!(machine.quota < 900),
            Err(TableError::OutOfRange) => panic!("the range is inside"),
        },
        Op::Unmap {
            input,
            count,
            budget,
        } => {
            let mut seen = Vec::new();
            let result = table.unmap(machine, input, count, budget, |at, leaf| {
                seen.push((at, leaf.output.raw(), 1u32 << leaf.order));
                true
            });
            let Ok(progress) = result else {
                assert!(seen.is_empty());
                return;
            };
            let removed: u32 = seen.iter().map(|(.., frames)| frames).sum();
            for (at, output, frames) in seen {
                assert_eq!(flat.get(at).unwrap().0, output);
                assert_eq!(flat.get(at + frames - 1).unwrap().0, output + frames - 1);
            }
            flat.remove(input, progress.frames);
            if progress.flush {
                assert!(removed > 0);
                machine.flush(input, progress.frames);
            }
        }
        Op::Replace {
            input,
            output,
            kind,
        } => {
            let before = flat.get(input);
            let Ok(old) = table.replace(machine, input, mfn(output), ram(kind)) else {
                return;
            };
            let old = old.map(|leaf| (leaf.output.raw(), leaf.attributes.kind()));
            assert_eq!(old, before);
            flat.remove(input, 1);
            flat.insert(input, 1, output, kind);
        }
        Op::Touch(input) => {
            let seen = machine
                .touch(table, input)
                .map(|(output, attributes)| (output.raw(), attributes.kind()));
            assert_eq!(
                seen,
                flat.get(input),
                "a stale translation of {input:#x} was used"
            );
        }
        Op::Merge(input) => table.merge(machine, input),
        Op::Quota(quota) => machine.quota = quota,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_table_is_a_flat_map_whatever_the_pool_holds(ops in proptest::collection::vec(op(), 1..60), quota in prop_oneof![Just(900usize), 0usize..8]) {
        let mut machine = Machine::new(quota);
        let mut table = Table::stage2(mfn(ROOT));
        let mut flat = Flat::default();
        for op in &ops {
            apply(&mut table, &mut machine, &mut flat, op);
            check_all(&machine);
            for (first, (frames, output, kind)) in &flat.0 {
                for n in [0, frames / 2, frames - 1] {
                    let leaf = table.lookup(&machine, first + n).map(|leaf| (leaf.output.raw(), leaf.attributes.kind()));
                    prop_assert_eq!(leaf, Some((output + n, *kind)));
                }
                prop_assert_eq!(table.lookup(&machine, first + frames).is_some(), flat.get(first + frames).is_some());
            }
        }
        let pages: u32 = flat.0.values().map(|(frames, ..)| frames).sum();
        machine.quota = usize::MAX;
        prop_assert_eq!(unmap_all(&mut table, &mut machine, 0, 1 << 28), pages);
        prop_assert_eq!(machine.in_use(), 0);
    }
}
