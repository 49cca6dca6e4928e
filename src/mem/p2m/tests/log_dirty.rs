//! The frames that were written are those that are told, whoever writes them, under a TLB that keeps every entry with its
//! rights until it is flushed.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{A, B, gfn, machine, populate};
use crate::mem::p2m::{Access, P2m, P2mType, PIECE, PoolLimit, Removed, Tlb};
use crate::mem::{FrameRef, Memory};

thread_local! {
    /// Rights that this test's CPUs have cached: (VTTBR, guest frame) to whether it may be written.
    static RIGHTS: RefCell<BTreeMap<(u64, u32), bool>> = const { RefCell::new(BTreeMap::new()) };
}

const TLB: Tlb = Tlb {
    flush: |vttbr| RIGHTS.with_borrow_mut(|cached| cached.retain(|(tag, _), _| *tag != vttbr)),
    publish: || (),
};

/// Frames that the tests look at: three blocks.
const FRAMES: u32 = 1536;

/// Writes as a vCPU does: by what its TLB holds, or else what the map says. A fault is noted and the write done again.
fn write(p2m: &mut P2m<'_>, at: u32) -> bool {
    for _ in 0..2 {
        let Some(entry) = p2m.lookup(gfn(at)) else {
            return false;
        };
        let key = (p2m.vttbr(), at);
        let may = RIGHTS.with_borrow_mut(|cached| {
            let now = matches!(entry.kind, P2mType::RamRw | P2mType::ForeignRw);
            *cached.entry(key).or_insert(now)
        });
        if may {
            return true;
        }
        assert!(entry.kind.catches_writes(), "{entry:?}");
        p2m.note_write(gfn(at));
    }
    panic!("the write faults again");
}

/// Returns the frames that are told.
fn told(p2m: &mut P2m<'_>, clean: bool) -> BTreeSet<u32> {
    p2m.begin_reading(clean);
    let (mut all, mut at) = (BTreeSet::new(), 0);
    while at < FRAMES {
        let (bits, count) = p2m.written(gfn(at), FRAMES - at, clean);
        assert!(count > 0 && at + count <= FRAMES && (count <= PIECE || bits == 0));
        all.extend((0..PIECE).filter(|n| bits >> n & 1 != 0).map(|n| at + n));
        at += count;
    }
    all
}

fn begin(p2m: &mut P2m<'_>) {
    p2m.set_logs(true);
    let (mut next, mut split) = (Some(gfn(0)), None);
    while let Some(at) = next {
        next = p2m.catch_writes(at);
        // A block is broken up in a step of its own.
        assert!(next.is_none_or(|next| next > at || split != Some(at)));
        split = next.filter(|next| *next == at);
    }
}

fn end(p2m: &mut P2m<'_>) {
    p2m.set_logs(false);
    let mut next = Some(gfn(0));
    while let Some(at) = next {
        next = p2m.allow_writes(at);
        assert!(next.is_none_or(|next| next > at), "it gets on");
    }
}

#[test]
fn a_block_is_broken_up_by_the_first_write_and_joined_at_the_end() {
    let memory = machine();
    let mut p2m = P2m::new(&memory, TLB, PoolLimit::Pages(8)).unwrap();
    populate(&memory, &mut p2m, A, 0, 9).unwrap();
    populate(&memory, &mut p2m, A, 512, 9).unwrap();
    let tables = p2m.tables();
    begin(&mut p2m);
    assert_eq!((p2m.tables(), told(&mut p2m, true).len()), (tables, 0));
    assert!(write(&mut p2m, 5) && write(&mut p2m, 5) && write(&mut p2m, 100));
    assert_eq!(p2m.tables(), tables + 1);
    assert_eq!(p2m.log_counts()[1], 2);
    assert_eq!(told(&mut p2m, false), BTreeSet::from([5, 100]));
    assert_eq!(told(&mut p2m, true), BTreeSet::from([5, 100]));
    assert!(told(&mut p2m, true).is_empty());
    end(&mut p2m);
    assert_eq!(p2m.tables(), tables);
    for at in [5, 600] {
        let entry = p2m.lookup(gfn(at)).unwrap();
        assert_eq!((entry.kind, entry.order), (P2mType::RamRw, 9));
    }
}

#[test]
fn without_a_frame_for_a_table_the_whole_block_counts_as_written() {
    let memory = machine();
    let mut p2m = P2m::new(&memory, TLB, PoolLimit::Pages(1)).unwrap();
    populate(&memory, &mut p2m, A, 0, 9).unwrap();
    begin(&mut p2m);
    assert!(told(&mut p2m, true).is_empty());
    assert!(write(&mut p2m, 7));
    let block: BTreeSet<u32> = (0..512).collect();
    assert_eq!(told(&mut p2m, true), block);
    assert_eq!(told(&mut p2m, true), block, "it cannot be caught again");
    assert_eq!(p2m.resize_pool(2, 10), Ok(true));
    assert_eq!(told(&mut p2m, true), block);
    assert!(told(&mut p2m, true).is_empty());
}

#[test]
fn a_page_that_others_hold_counts_as_written_until_they_are_gone() {
    let memory = machine();
    let mut p2m = P2m::new(&memory, TLB, PoolLimit::Pages(8)).unwrap();
    populate(&memory, &mut p2m, A, 0, 9).unwrap();
    let before = p2m.pin(gfn(3), Access::Write).unwrap().0;
    begin(&mut p2m);
    let meanwhile = p2m.pin(gfn(4), Access::Write).unwrap().0;
    let reader = p2m.pin(gfn(5), Access::Read).unwrap().0;
    for _ in 0..2 {
        assert_eq!(told(&mut p2m, true), BTreeSet::from([3, 4]));
    }
    drop((before, meanwhile, reader));
    assert_eq!(told(&mut p2m, true), BTreeSet::from([3, 4]));
    assert!(told(&mut p2m, true).is_empty());
}

#[derive(Clone, Debug)]
enum Op {
    Begin,
    End,
    Populate(u32, u32),
    Decrease(u32),
    Write(u32),
    Hold(u32, bool),
    LetGo(usize),
    Map(u32),
    WriteMapped(usize),
    Unmap(usize),
    Tell(bool),
}

fn at() -> impl Strategy<Value = u32> {
    prop_oneof![0u32..4, 62u32..66, 508u32..516, 1022u32..1030]
}

fn op() -> impl Strategy<Value = Op> {
    let order = prop_oneof![2 => Just(0u32), 1 => Just(9)];
    prop_oneof![
        1 => Just(Op::Begin),
        1 => Just(Op::End),
        4 => (at(), order).prop_map(|(at, order)| Op::Populate(at & !((1 << order) - 1), order)),
        2 => at().prop_map(Op::Decrease),
        6 => at().prop_map(Op::Write),
        2 => (at(), any::<bool>()).prop_map(|(at, write)| Op::Hold(at, write)),
        1 => (0usize..4).prop_map(Op::LetGo),
        2 => at().prop_map(Op::Map),
        3 => (0usize..4).prop_map(Op::WriteMapped),
        1 => (0usize..4).prop_map(Op::Unmap),
        4 => any::<bool>().prop_map(Op::Tell),
    ]
}

/// A domain whose writes are logged, one that maps its pages, and what should be told.
struct World<'m> {
    memory: &'m Memory,
    logged: P2m<'m>,
    mapper: P2m<'m>,
    /// Frames that are mapped, and whether they were written.
    model: BTreeMap<u32, bool>,
    gave_back: bool,
    held: Vec<(u32, FrameRef<'m>)>,
    /// The mapper's frames, and the pages there: gone ones are none of the domain's any more.
    mapped: Vec<(u32, Option<u32>)>,
    next: u32,
}

impl World<'_> {
    fn is_held(&self, at: u32) -> bool {
        let held = self.held.iter().any(|(held, _)| *held == at);
        held || self.mapped.iter().any(|(_, page)| *page == Some(at))
    }

    fn wrote(&mut self, at: u32) {
        if let Some(written) = self.model.get_mut(&at) {
            *written = true;
        }
    }

    /// Keeps as written what somebody may go on writing to.
    fn cleaned(&mut self, begin: bool) {
        let held: BTreeSet<u32> = self
            .model
            .keys()
            .copied()
            .filter(|at| self.is_held(*at))
            .collect();
        for (at, written) in &mut self.model {
            *written = held.contains(at) && (*written || begin);
        }
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Begin if !self.logged.logs() => {
                begin(&mut self.logged);
                self.gave_back = false;
                self.cleaned(true);
            }
            Op::End => end(&mut self.logged),
            Op::Populate(at, order) => {
                let pages = at..at + (1 << order);
                let made = populate(self.memory, &mut self.logged, A, at, order);
                self.model
                    .extend(made.iter().flat_map(|()| pages.clone()).map(|n| (n, true)));
            }
            Op::Decrease(at) => {
                let mut removed = Removed::new();
                let own = |kind: P2mType| kind.is_own_ram();
                let done = self.logged.unmap(gfn(at), 1, 9, own, &mut removed);
                self.logged.release(removed);
                if done == Ok(1) && self.model.remove(&at).is_some() {
                    self.gave_back = true;
                    self.held.retain(|(held, _)| *held != at);
                    for (_, page) in &mut self.mapped {
                        *page = page.filter(|page| *page != at);
                    }
                }
            }
            Op::Write(at) => {
                let written = write(&mut self.logged, at);
                assert_eq!(written, self.model.contains_key(&at));
                self.wrote(at);
            }
            Op::Hold(at, for_writing) => {
                let access = if for_writing {
                    Access::Write
                } else {
                    Access::Read
                };
                if let Some((page, _)) = self.logged.pin(gfn(at), access) {
                    self.held.push((at, page));
                    if for_writing {
                        self.wrote(at);
                    }
                }
            }
            Op::LetGo(n) if n < self.held.len() => drop(self.held.swap_remove(n)),
            Op::Map(at) => {
                let Some((page, kind)) = self.logged.pin(gfn(at), Access::Read) else {
                    return;
                };
                let kind = match kind {
                    P2mType::RamLogDirty => P2mType::ForeignLogDirty,
                    _ => P2mType::ForeignRw,
                };
                let place = self.next;
                self.next += 1;
                assert_eq!(
                    self.mapper.map(gfn(place), page.into_raw(), 1, kind, 1),
                    Ok(1)
                );
                self.mapped.push((place, Some(at)));
            }
            Op::WriteMapped(n) if n < self.mapped.len() => {
                let (place, page) = self.mapped[n];
                assert!(write(&mut self.mapper, place));
                if let Some(at) = page {
                    self.wrote(at);
                }
            }
            Op::Unmap(n) if n < self.mapped.len() => {
                let (place, _) = self.mapped.swap_remove(n);
                let mut removed = Removed::new();
                let foreign = P2mType::is_foreign;
                assert_eq!(
                    self.mapper.unmap(gfn(place), 1, 9, foreign, &mut removed),
                    Ok(1)
                );
                self.mapper.release(removed);
            }
            Op::Tell(clean) if self.logged.logs() => {
                let told = told(&mut self.logged, clean);
                let is_told = |at: &u32| self.model.get(at).copied().unwrap_or(self.gave_back);
                assert_eq!(told, (0..FRAMES).filter(is_told).collect());
                if clean {
                    self.gave_back = false;
                    self.cleaned(false);
                }
            }
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_frames_that_are_told_are_those_that_were_written(ops in proptest::collection::vec(op(), 1..80)) {
        RIGHTS.with_borrow_mut(BTreeMap::clear);
        let memory = machine();
        let before = memory.free_pages();
        let mut world = World {
            memory: &memory,
            logged: P2m::new(&memory, TLB, PoolLimit::Pages(16)).unwrap(),
            mapper: P2m::new(&memory, TLB, PoolLimit::Unlimited).unwrap(),
            model: BTreeMap::new(),
            gave_back: false,
            held: Vec::new(),
            mapped: Vec::new(),
            next: 0,
        };
        for op in &ops {
            world.apply(op);
        }
        end(&mut world.logged);
        world.logged.visit(gfn(0), |run| {
            assert_eq!(run.kind, P2mType::RamRw);
            true
        });
        drop(world);
        prop_assert_eq!(memory.free_pages(), before);
        prop_assert_eq!(memory.audit_list([]), Ok(()));
        memory.close_account(A);
        memory.close_account(B);
    }
}
