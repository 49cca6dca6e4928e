//! Random changes against a flat map of ranges.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Machine, ROOT, check_all, mfn, ram, unmap_all};
use crate::table::{Table, TableError, TableFrames};

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
    Rights {
        input: u32,
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
        2 => (input(), 1u8..3).prop_map(|(input, kind)| Op::Rights { input, kind }),
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
        Op::Rights { input, kind } => {
            let before = flat.get(input);
            if before.is_none() || table.split_to_page(machine, input).is_err() {
                return;
            }
            assert!(table.change_rights(machine, input, ram(kind)));
            machine.flush(input, 1);
            flat.remove(input, 1);
            flat.insert(input, 1, before.unwrap().0, kind);
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
