//! Pages that change hands: alone, at the limit, in parallel.

use armv7::frame::{self, PageRef};

use super::audit::Discrepancy;
use super::frame_table::{Kind, State, Use};
use super::testing::{PART, memory};
use super::{AllocError, Memory};
use crate::id::DomId;

const A: DomId = DomId(1);
const B: DomId = DomId(2);

fn fill(memory: &Memory, mfn: armv7::addr::Mfn) {
    assert!(memory.state(mfn) != State::Outside);
    frame::page(mfn).unwrap().write(0, &[0xAA; 4096]);
}

fn drain(memory: &Memory) {
    while memory.scrub_some(64) {}
}

#[test]
fn a_page_that_changes_hands_is_zero_whether_scrubbed_in_time_or_not() {
    for scrub in [false, true] {
        let memory = memory();
        assert!(memory.open_account(A, PART) && memory.open_account(B, PART));
        let first = memory.alloc_domain_pages(A, 9).unwrap();
        for n in 0..512 {
            fill(&memory, first.checked_add(n).unwrap());
        }
        memory.put_run(first, 512);
        if scrub {
            drain(&memory);
        }
        let mut pages = Vec::new();
        while let Ok(mfn) = memory.alloc_domain_pages(B, 0) {
            assert!(frame::page(mfn).unwrap().is_zero());
            pages.push(mfn);
        }
        assert_eq!(pages.len() as u32, PART);
        assert_eq!(memory.audit_list(pages), Ok(()));
    }
}

#[test]
fn pages_of_the_hypervisor_are_zero_when_they_become_a_guest_s() {
    let memory = memory();
    assert!(memory.open_account(A, PART));
    drain(&memory);
    let table = memory.alloc_hyp(1).unwrap();
    fill(&memory, table);
    fill(&memory, table.checked_add(1).unwrap());
    memory.free_hyp(table, 1);
    let mut found = 0;
    while let Ok(mfn) = memory.alloc_domain_pages(A, 0) {
        assert!(frame::page(mfn).unwrap().is_zero());
        found += 1;
    }
    assert_eq!(found, PART);
}

#[test]
fn a_boot_module_is_kept_and_then_scrubbed() {
    let memory = memory();
    assert!(memory.open_account(A, PART));
    let module = memory.frames().first().checked_add(100).unwrap();
    assert_eq!(memory.reserve(module, 33, Use::Module), Ok(()));
    assert_eq!(
        memory.reserve(module, 1, Use::Reserved),
        Err(AllocError::NotFree)
    );
    assert_eq!(memory.state(module), State::Used(Use::Module));
    fill(&memory, module);
    assert_eq!(memory.free_pages(), PART - 33);
    memory.release(module, 33);
    drain(&memory);
    assert!(frame::page(module).unwrap().is_zero());
    assert_eq!(memory.audit_list([]), Ok(()));
}

#[test]
fn the_limit_is_exact_when_everybody_allocates_at_once() {
    let memory = memory();
    assert!(memory.open_account(A, 1000));
    let shared: &'static Memory = &memory;
    let threads: Vec<_> = (0..4)
        .map(|n| {
            std::thread::spawn(move || {
                let mut pages = Vec::new();
                while let Ok(mfn) = shared.alloc_domain_pages(A, n & 1) {
                    pages.extend((0..1 << (n & 1)).filter_map(|k| mfn.checked_add(k)));
                }
                pages
            })
        })
        .collect();
    let pages: Vec<_> = threads
        .into_iter()
        .flat_map(|thread| thread.join().unwrap())
        .collect();
    assert_eq!(pages.len(), 1000);
    assert_eq!(memory.alloc_domain_pages(A, 0), Err(AllocError::OverLimit));
    assert_eq!(memory.audit_list(pages), Ok(()));
}

#[test]
fn references_taken_and_dropped_by_many_leave_the_count_as_it_was() {
    let memory = memory();
    assert!(memory.open_account(A, 10));
    let mfn = memory.alloc_domain_pages(A, 0).unwrap();
    let shared: &'static Memory = &memory;
    let threads: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(move || {
                for _ in 0..5000 {
                    let one = shared.get(mfn, A).unwrap();
                    let two = shared.get_any(mfn).unwrap();
                    assert_eq!((one.kind(), two.owner()), (Kind::Ram, A));
                    assert!(shared.get(mfn, B).is_none());
                }
            })
        })
        .collect();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    assert_eq!(memory.audit_list([mfn]), Ok(()));
    assert!(matches!(
        memory.audit_list([]),
        Err(Discrepancy::Count {
            stored: 1,
            found: 0,
            ..
        })
    ));
    memory.put(mfn);
    assert_eq!(memory.audit_list([]), Ok(()));
}

#[test]
fn a_dead_domain_s_account_lasts_until_its_last_page_is_unmapped_elsewhere() {
    let memory = memory();
    assert!(memory.open_account(A, 10));
    let ram = memory.alloc_domain_pages(A, 0).unwrap();
    let info = memory.alloc_shared(A, super::Source::All).unwrap();
    let foreign = memory.get_any(ram).unwrap();
    memory.put(ram);
    memory.put(info);
    assert!(!memory.close_account(A));
    assert_eq!(memory.take_emptied(), None);
    assert!(!memory.open_account(A, 10), "the id still names pages");
    assert_eq!(memory.alloc_domain_pages(A, 0), Err(AllocError::NoAccount));
    assert_eq!(
        memory.alloc_shared(A, super::Source::All),
        Err(AllocError::NoAccount)
    );
    drop(foreign);
    assert_eq!(memory.take_emptied(), Some(A));
    assert_eq!(memory.take_emptied(), None);
    assert!(memory.open_account(A, 10));
}

#[test]
fn a_claim_keeps_pages_from_others_and_is_used_up() {
    let memory = memory();
    assert!(memory.open_account(A, PART) && memory.open_account(B, PART));
    assert!(!memory.set_claim(A, PART + 1));
    assert!(memory.set_claim(A, PART - 1));
    assert!(!memory.set_claim(B, 2));
    let one = memory.alloc_domain_pages(B, 0).unwrap();
    assert_eq!(memory.alloc_domain_pages(B, 0), Err(AllocError::NoMemory));
    let two = memory.alloc_domain_pages(A, 3).unwrap();
    assert_eq!(memory.account(A).unwrap().claim, PART - 9);
    assert!(memory.set_claim(A, 0));
    let three = memory.alloc_domain_pages(B, 0).unwrap();
    memory.put(one);
    memory.put(three);
    memory.put_run(two, 8);
    assert_eq!((memory.claimed_pages(), memory.free_pages()), (0, PART));
}

#[test]
fn guests_leave_the_hypervisor_its_reserve() {
    let memory = memory();
    assert!(memory.open_account(A, PART));
    memory.set_hyp_reserve(100);
    let mut got = 0;
    while memory.alloc_domain_pages(A, 0).is_ok() {
        got += 1;
    }
    assert_eq!(
        (got, memory.guest_pages(), memory.free_pages()),
        (PART - 100, 0, 100)
    );
    assert!(memory.alloc_hyp(3).is_some());
}

#[test]
fn memory_mapped_one_to_one_stays_reserved_while_ballooned_out() {
    let memory = memory();
    assert!(memory.open_account(DomId::DOM0, PART) && memory.open_account(A, PART));
    let bank = memory.frames().first();
    assert_eq!(memory.alloc_direct(DomId::DOM0, bank, 2048), Ok(()));
    assert_eq!(memory.account(DomId::DOM0).unwrap().total, 2048);
    // Out: the p2m entry's reference goes. Back in: it comes from the reservation.
    let page = bank.checked_add(5).unwrap();
    memory.put(page);
    assert_eq!(memory.free_pages(), PART - 2048);
    assert!(!memory.get_direct(A, page, 1));
    assert!(memory.get_direct(DomId::DOM0, page, 1));
    assert!(
        !memory.get_direct(DomId::DOM0, bank, 2049),
        "the end is not dom0's"
    );
    let mapped = (0..2048).map(|n| bank.checked_add(n).unwrap());
    assert_eq!(memory.audit_list(mapped), Ok(()));
}

#[test]
fn a_pinned_page_outlives_its_domain_s_own_reference() {
    let memory = memory();
    assert!(memory.open_account(A, 10));
    let mfn = memory.alloc_domain_pages(A, 0).unwrap();
    let pin = memory.get(mfn, A).unwrap().map().unwrap();
    memory.put(mfn);
    assert!(memory.get(mfn, A).is_some());
    assert!(pin.page().write(0, &[1]));
    assert_eq!(pin.reference().owner(), A);
    drop(pin);
    assert!(memory.get(mfn, A).is_none());
    assert_eq!(memory.free_pages(), PART);
}

#[test]
fn a_block_that_is_zeroed_in_steps_is_free_until_it_is_zero() {
    const STEP: u32 = 100;
    for order in [7, 9, 10] {
        let memory = memory();
        assert!(memory.open_account(A, PART));
        let mut steps = 0;
        let first = loop {
            match memory.alloc_domain_pages_by(A, order, STEP) {
                Ok(first) => break first,
                Err(error) => assert_eq!(error, AllocError::Zeroing),
            }
            steps += 1;
            assert_eq!(memory.free_pages(), PART);
            assert_eq!(memory.account(A).unwrap().total, 0);
            assert_eq!(memory.audit_list([]), Ok(()));
        };
        assert_eq!(steps, (1 << order) / STEP);
        let pages: Vec<_> = (0..1 << order)
            .filter_map(|n| first.checked_add(n))
            .collect();
        assert!(pages.iter().all(|mfn| frame::page(*mfn).unwrap().is_zero()));
        assert_eq!(memory.audit_list(pages), Ok(()));
    }
}
