//! Guest frames against a flat model, under a TLB that keeps every entry until it is flushed.

use std::cell::RefCell;
use std::collections::BTreeMap;

use armv7::addr::{Gfn, Mfn};
use armv7::frame;

use super::{Access, P2m, P2mError, P2mType, PoolLimit, Removed, Tlb};
use crate::id::DomId;
use crate::mem::frame_table::State;
use crate::mem::testing::{PART, TestMemory, memory};
use crate::mem::{AllocError, Memory};

mod log_dirty;
mod model;

const A: DomId = DomId(1);
const B: DomId = DomId(2);

thread_local! {
    /// Translations that this test's CPUs have cached: (VTTBR, guest frame) to machine frame.
    static CACHED: RefCell<BTreeMap<(u64, u32), Mfn>> = const { RefCell::new(BTreeMap::new()) };
}

const TLB: Tlb = Tlb {
    flush: |vttbr| CACHED.with_borrow_mut(|cached| cached.retain(|(tag, _), _| *tag != vttbr)),
    publish: || (),
};

fn gfn(n: u32) -> Gfn {
    Gfn::new(u64::from(n)).unwrap()
}

/// Returns what the guest reaches at `at`, through the TLB.
fn touch(p2m: &P2m, at: u32) -> Option<Mfn> {
    let key = (p2m.vttbr(), at);
    if let Some(hit) = CACHED.with_borrow(|cached| cached.get(&key).copied()) {
        return Some(hit);
    }
    let mfn = p2m.lookup(gfn(at))?.mfn;
    CACHED.with_borrow_mut(|cached| cached.insert(key, mfn));
    Some(mfn)
}

/// Every cached translation leads to a live page.
fn assert_cached_are_live(memory: &Memory) {
    CACHED.with_borrow(|cached| {
        for mfn in cached.values() {
            assert!(
                matches!(memory.state(*mfn), State::Live { .. }),
                "a freed page can be reached"
            );
        }
    });
}

fn machine() -> TestMemory {
    CACHED.with_borrow_mut(BTreeMap::clear);
    let memory = memory();
    assert!(memory.open_account(A, PART) && memory.open_account(B, PART));
    memory
}

fn references(p2m: &P2m) -> Vec<Mfn> {
    let mut all = Vec::new();
    p2m.visit(gfn(0), |run| {
        if run.kind.is_ram() {
            all.extend((0..run.count).filter_map(|n| run.mfn.checked_add(n)));
        }
        true
    });
    all
}

fn populate(
    memory: &Memory,
    p2m: &mut P2m,
    owner: DomId,
    at: u32,
    order: u32,
) -> Result<(), P2mError> {
    let mfn = memory.alloc_domain_pages(owner, order)?;
    let count = 1 << order;
    match p2m.map(gfn(at), mfn, count, P2mType::RamRw, u32::MAX) {
        Ok(frames) => {
            assert_eq!(frames, count);
            Ok(())
        }
        Err(error) => {
            memory.put_run(mfn, count);
            Err(error)
        }
    }
}

fn decrease(p2m: &mut P2m, at: u32, count: u32) -> Result<u32, P2mError> {
    let mut removed = Removed::new();
    let result = p2m.unmap(gfn(at), count, 10_000, P2mType::is_own_ram, &mut removed);
    p2m.release(removed);
    result
}

#[test]
fn every_frame_of_ram_is_shown_once_however_small_the_steps() {
    let memory = machine();
    let mut p2m = P2m::new(&memory, TLB, PoolLimit::Pages(8)).unwrap();
    populate(&memory, &mut p2m, A, 0x10, 0).unwrap();
    populate(&memory, &mut p2m, A, 0x40000, 9).unwrap();
    populate(&memory, &mut p2m, A, 0x80003, 0).unwrap();
    let device = Mfn::new(0x9000).unwrap();
    p2m.map(gfn(0x20), device, 4, P2mType::MmioDirect, 4)
        .unwrap();
    let expected = references(&p2m);
    assert_eq!(expected.len(), 514);
    for (pages, steps) in [(1, 1), (7, 3), (64, 512), (u32::MAX, u32::MAX)] {
        let mut shown = Vec::new();
        let mut calls = 0;
        let mut next = Some(gfn(0));
        while let Some(from) = next {
            let before = shown.len();
            next = p2m.each_ram_page(from, pages, steps, |mfn| shown.push(mfn));
            assert!(shown.len() - before <= pages as usize);
            assert!(next.is_none_or(|next| next > from), "it gets on");
            calls += 1;
        }
        assert_eq!(shown, expected);
        // The space has 1024 entries of 1 GiB, two of which are tables of 512, with a table of 512 each.
        assert!(calls <= 514 / pages.min(514) + 6 * 1024 / steps.min(6 * 1024) + 2);
    }
}

#[test]
fn a_populated_extent_is_one_block_and_is_freed_when_it_is_given_back() {
    let memory = machine();
    let mut p2m = P2m::new(&memory, TLB, PoolLimit::Pages(4)).unwrap();
    let free = memory.free_pages();
    populate(&memory, &mut p2m, A, 0x40000, 9).unwrap();
    assert_eq!(p2m.lookup(gfn(0x40001)).map(|entry| entry.order), Some(9));
    assert_eq!(p2m.max_gfn(), Some(gfn(0x401FF)));
    assert_eq!(
        populate(&memory, &mut p2m, A, 0x40100, 0),
        Err(P2mError::Occupied)
    );
    assert_eq!(
        touch(&p2m, 0x40005),
        p2m.lookup(gfn(0x40005)).map(|entry| entry.mfn)
    );
    assert_eq!(decrease(&mut p2m, 0x40000, 512), Ok(512));
    assert_eq!(touch(&p2m, 0x40005), None);
    assert_eq!((memory.free_pages(), p2m.tables()), (free, 0));
    assert_eq!(memory.account(A).map(|account| account.total), Some(0));
}

#[test]
fn a_page_whose_block_cannot_be_broken_up_stays_mapped_and_owned() {
    let memory = machine();
    let mut p2m = P2m::new(&memory, TLB, PoolLimit::Pages(1)).unwrap();
    populate(&memory, &mut p2m, A, 0x40000, 9).unwrap();
    assert_eq!(decrease(&mut p2m, 0x40003, 1), Err(P2mError::NoMemory));
    assert!(p2m.lookup(gfn(0x40003)).is_some());
    assert_eq!(memory.audit_list(references(&p2m)), Ok(()));
    assert_eq!(p2m.resize_pool(2, 10), Ok(true));
    assert_eq!(decrease(&mut p2m, 0x40003, 1), Ok(1));
    assert_eq!(
        p2m.resize_pool(1, 10),
        Err(P2mError::NoMemory),
        "both tables are in use"
    );
    assert_eq!(memory.audit_list(references(&p2m)), Ok(()));
}

#[test]
fn a_map_that_could_not_be_made_leaves_nothing_behind() {
    let memory = machine();
    let before = memory.free_pages();
    // Leave `left` frames that tables can be made of.
    for left in 0..14 {
        let mut taken: Vec<Mfn> = std::iter::from_fn(|| memory.alloc_hyp(0)).collect();
        for mfn in taken.drain(..left) {
            memory.free_hyp(mfn, 0);
        }
        let free = memory.free_pages();
        let made = P2m::new(&memory, TLB, PoolLimit::Pages(8));
        assert_eq!(
            made.is_ok(),
            made.as_ref().is_ok_and(|p2m| p2m.pool_pages() == 8)
        );
        drop(made);
        assert_eq!(memory.free_pages(), free);
        for mfn in taken {
            memory.free_hyp(mfn, 0);
        }
    }
    assert_eq!(memory.free_pages(), before);
    let vmids: Vec<u8> = std::iter::from_fn(|| memory.vmids.take()).collect();
    assert_eq!(vmids.len(), 255);
    assert!(matches!(
        P2m::new(&memory, TLB, PoolLimit::Pages(8)),
        Err(P2mError::NoVmid)
    ));
    assert_eq!(memory.free_pages(), before);
}

#[test]
fn a_foreign_mapping_outlives_the_owner() {
    let memory = machine();
    let before = memory.free_pages();
    let mut mine = P2m::new(&memory, TLB, PoolLimit::Unlimited).unwrap();
    let mut theirs = P2m::new(&memory, TLB, PoolLimit::Pages(8)).unwrap();
    populate(&memory, &mut theirs, A, 7, 0).unwrap();
    let (page, kind) = theirs.pin(gfn(7), Access::Write).unwrap();
    assert_eq!((page.owner(), kind), (A, P2mType::RamRw));
    let mfn = page.into_raw();
    assert_eq!(mine.map(gfn(99), mfn, 1, P2mType::ForeignRw, 1), Ok(1));
    while !theirs.relinquish(8) {}
    drop(theirs);
    assert!(!memory.close_account(A));
    assert_eq!(touch(&mine, 99), Some(mfn));
    assert_cached_are_live(&memory);
    assert_eq!(decrease(&mut mine, 99, 1), Err(P2mError::WrongType));
    let mut removed = Removed::new();
    assert_eq!(
        mine.unmap(gfn(99), 1, 9, P2mType::is_foreign, &mut removed),
        Ok(1)
    );
    mine.release(removed);
    assert_eq!(memory.take_emptied(), Some(A));
    drop(mine);
    assert_eq!(memory.free_pages(), before);
}

#[test]
fn hypervisor_pages_in_a_map_stay_the_hypervisor_s() {
    let memory = machine();
    let mut p2m = P2m::new(&memory, TLB, PoolLimit::Pages(8)).unwrap();
    let info = memory.alloc_shared(A, crate::mem::Source::All).unwrap();
    let entry = memory.get(info, A).unwrap().into_raw();
    assert_eq!(p2m.map(gfn(5), entry, 1, P2mType::RamRw, 1), Ok(1));
    assert_eq!(decrease(&mut p2m, 5, 1), Ok(1));
    assert!(memory.get(info, A).is_some());
    drop(p2m);
    memory.put(info);
    assert!(memory.get(info, A).is_none());
    assert!(memory.close_account(A));
}

#[test]
fn dom0_s_pages_leave_for_foreign_ones_and_come_back_to_the_same_frames() {
    let memory = machine();
    assert!(memory.open_account(DomId::DOM0, PART));
    let mut dom0 = P2m::new(&memory, TLB, PoolLimit::Unlimited).unwrap();
    let mut other = P2m::new(&memory, TLB, PoolLimit::Pages(8)).unwrap();
    populate(&memory, &mut other, A, 0, 0).unwrap();
    let bank = memory.frames().first().checked_add(PART - 1024).unwrap();
    assert_eq!(memory.alloc_direct(DomId::DOM0, bank, 1024), Ok(()));
    let same = |n: u32| gfn(bank.raw() + n);
    assert_eq!(dom0.map(same(0), bank, 1024, P2mType::RamRw, 9), Ok(1024));
    for n in (0..1024).step_by(7) {
        let at = same(n);
        let mfn = bank.checked_add(n).unwrap();
        assert_eq!(decrease(&mut dom0, at.raw(), 1), Ok(1));
        let page = other.pin(gfn(0), Access::Write).unwrap().0.into_raw();
        assert_eq!(dom0.map(at, page, 1, P2mType::ForeignRw, 1), Ok(1));
        assert_eq!(touch(&dom0, at.raw()), Some(page));
        let mut removed = Removed::new();
        assert_eq!(
            dom0.unmap(at, 1, 1, P2mType::is_foreign, &mut removed),
            Ok(1)
        );
        dom0.release(removed);
        assert!(memory.get_direct(DomId::DOM0, mfn, 1));
        assert_eq!(dom0.map(at, mfn, 1, P2mType::RamRw, 1), Ok(1));
        assert_eq!(touch(&dom0, at.raw()), Some(mfn));
    }
    dom0.merge(same(0));
    assert_eq!(dom0.lookup(same(3)).map(|entry| entry.order), Some(9));
    let all = references(&dom0).into_iter().chain(references(&other));
    assert_eq!(memory.audit_list(all), Ok(()));
}

#[test]
fn what_is_collected_is_bounded_and_neighbours_are_one_run() {
    let memory = machine();
    let mut p2m = P2m::new(&memory, TLB, PoolLimit::Pages(20)).unwrap();
    populate(&memory, &mut p2m, A, 0, 5).unwrap();
    for n in 0..40 {
        populate(&memory, &mut p2m, A, 1000 + 2 * n, 0).unwrap();
    }
    let mut removed = Removed::new();
    let frames = p2m
        .unmap(gfn(0), 2000, 10_000, P2mType::is_own_ram, &mut removed)
        .unwrap();
    assert_eq!(removed.runs()[0].count, 32);
    assert_eq!(removed.runs().len(), Removed::MAX_RUNS);
    assert!(frames < 2000 && removed.is_full());
    let full = p2m.unmap(gfn(0), 2000, 10_000, P2mType::is_own_ram, &mut removed);
    assert_eq!(full, Err(P2mError::Full));
    p2m.release(removed);
    while decrease(&mut p2m, 0, 2000).unwrap() < 2000 {}
    assert_eq!(p2m.tables(), 0);
}

#[test]
fn a_table_that_was_merged_away_is_empty_when_it_is_used_again() {
    let memory = machine();
    let mut p2m = P2m::new(&memory, TLB, PoolLimit::Pages(3)).unwrap();
    for at in (0..512).chain([1024]) {
        populate(&memory, &mut p2m, A, at, 0).unwrap();
    }
    for at in (0..512).step_by(Removed::MAX_FRAMES as usize) {
        assert_eq!(decrease(&mut p2m, at, Removed::MAX_FRAMES), Ok(64));
    }
    populate(&memory, &mut p2m, A, 0, 9).unwrap();
    let mfn = p2m.lookup(gfn(5)).unwrap().mfn;
    let mut removed = Removed::new();
    p2m.replace(gfn(5), mfn, P2mType::RamRw, &mut removed)
        .unwrap();
    let _ = p2m.flush_removed(removed);
    p2m.merge(gfn(5));
    assert_eq!(p2m.lookup(gfn(5)).map(|entry| entry.order), Some(9));
    populate(&memory, &mut p2m, A, 2048, 0).unwrap();
    assert!((2049..2560).all(|at| p2m.lookup(gfn(at)).is_none()));
    assert_eq!(memory.audit_list(references(&p2m)), Ok(()));
}

#[test]
fn a_vmid_is_flushed_before_its_next_owner_runs() {
    let memory = machine();
    let p2m = P2m::new(&memory, TLB, PoolLimit::Pages(1)).unwrap();
    let vttbr = p2m.vttbr();
    drop(p2m);
    let stale = memory.frames().first();
    CACHED.with_borrow_mut(|cached| cached.insert((vttbr, 5), stale));
    let p2m = P2m::new(&memory, TLB, PoolLimit::Pages(1)).unwrap();
    assert_eq!((p2m.vttbr(), touch(&p2m, 5)), (vttbr, None));
}

#[test]
fn guest_frames_at_the_edges_are_refused_or_work() {
    let memory = machine();
    let mut p2m = P2m::new(&memory, TLB, PoolLimit::Pages(8)).unwrap();
    let last = (1 << 28) - 1;
    for at in [0, last] {
        populate(&memory, &mut p2m, A, at, 0).unwrap();
        assert!(p2m.lookup(gfn(at)).is_some());
    }
    let mfn = memory.alloc_domain_pages(A, 1).unwrap();
    assert_eq!(
        p2m.map(gfn(last), mfn, 2, P2mType::RamRw, 9),
        Err(P2mError::OutOfRange)
    );
    assert_eq!(decrease(&mut p2m, last, 2), Err(P2mError::OutOfRange));
    assert_eq!(p2m.max_gfn(), Some(gfn(last)));
    memory.put_run(mfn, 2);
    assert_eq!(memory.audit_list(references(&p2m)), Ok(()));
}

#[test]
fn new_pages_are_zero_even_when_a_table_was_there() {
    let memory = machine();
    let mut p2m = P2m::new(&memory, TLB, PoolLimit::Pages(40)).unwrap();
    for n in 0..30 {
        populate(&memory, &mut p2m, A, n << 9, 0).unwrap();
    }
    drop(p2m);
    let mut count = 0;
    loop {
        match memory.alloc_domain_pages(B, 0) {
            Ok(mfn) => assert!(frame::page(mfn).unwrap().is_zero()),
            Err(error) => {
                break assert!(matches!(
                    error,
                    AllocError::NoMemory | AllocError::OverLimit
                ));
            }
        }
        count += 1;
    }
    assert_eq!(count, PART);
}
