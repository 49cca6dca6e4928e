//! The allocator against a set of frames.

use std::collections::BTreeSet;

use armv7::addr::Mfn;
use proptest::prelude::*;

use super::{Block, MAX_ORDER, PageAllocator, Purpose};
use crate::mem::frame_table::{FrameEntry, FrameTable};

const FIRST: u32 = 0x4_0000 - 0x300;

fn mfn(n: u32) -> Mfn {
    Mfn::new(u64::from(n)).unwrap()
}

/// Returns the frames from an odd place on, the direct map ending at an odd place too.
fn allocator(frames: u32, direct: u32) -> PageAllocator {
    let entries: Vec<FrameEntry> = (0..frames).map(|_| FrameEntry::new()).collect();
    let table = FrameTable::new(Vec::leak(entries), mfn(FIRST));
    PageAllocator::new(table, mfn(FIRST + direct))
}

/// Scrubs as far as the table sees it.
fn scrub(pages: &PageAllocator, block: Block) {
    for n in 0..1 << block.order {
        pages
            .frames
            .make_inner(block.first.checked_add(n).unwrap(), false);
    }
}

#[test]
fn hypervisor_blocks_are_always_in_the_direct_map() {
    let mut pages = allocator(4096, 1000);
    assert!(pages.add_ram(mfn(FIRST), 4096));
    let guest = pages.take(0, Purpose::Guest).unwrap();
    assert!(guest.first >= mfn(FIRST + 1000));
    let mut near = 0;
    while let Some(block) = pages.take(0, Purpose::Hypervisor) {
        assert!(block.first < mfn(FIRST + 1000));
        near += 1;
    }
    assert_eq!(near, 1000);
    assert_eq!(pages.check(), Ok(()));
}

#[test]
fn a_gigabyte_comes_apart_and_together_again() {
    let mut pages = allocator(0x300 + (1 << 18), u32::MAX >> 8);
    assert!(pages.add_ram(mfn(FIRST), 0x300 + (1 << 18)));
    assert_eq!(pages.take_range(mfn(FIRST), 1), Some(true));
    let whole = pages.take(MAX_ORDER, Purpose::Guest).unwrap();
    assert_eq!(whole.first, mfn(0x4_0000));
    assert_eq!(pages.take(MAX_ORDER, Purpose::Guest), None);
    assert_eq!(pages.take(MAX_ORDER + 1, Purpose::Guest), None);
    pages.give_block(whole);
    let odd = pages.take_range(mfn(0x4_1234), 0x777).unwrap();
    assert!(odd);
    assert_eq!(
        pages.take_range(mfn(0x4_1233), 2),
        None,
        "part of it is taken"
    );
    assert_eq!(pages.check(), Ok(()));
    pages.give(mfn(0x4_1234), 0x777, true);
    pages.give(mfn(FIRST), 1, true);
    assert_eq!(pages.free_pages(), 0x300 + (1 << 18));
    assert!(pages.take(MAX_ORDER, Purpose::Guest).is_some());
}

#[test]
fn ram_outside_the_table_is_not_added() {
    let mut pages = allocator(16, 16);
    assert!(!pages.add_ram(mfn(FIRST), 17));
    assert!(!pages.add_ram(mfn(FIRST - 1), 2));
    assert!(!pages.add_ram(mfn(FIRST + 1), u32::MAX));
    assert_eq!((pages.free_pages(), pages.total_pages()), (0, 0));
}

#[test]
fn scrubbing_everything_leaves_large_clean_blocks() {
    let mut pages = allocator(8192, 8192);
    assert!(pages.add_ram(mfn(0x4_0000), 4096));
    let free = pages.free_pages();
    while let Some(block) = pages.take_dirty() {
        assert!(block.dirty && block.order <= 9);
        assert_eq!(
            pages.free_pages(),
            free,
            "what is out to be scrubbed counts as free"
        );
        scrub(&pages, block);
        pages.give_scrubbed(Block {
            dirty: false,
            ..block
        });
    }
    assert!(!pages.has_dirty());
    assert_eq!(pages.check(), Ok(()));
    assert_eq!(
        pages.take(12, Purpose::Guest).map(|block| block.dirty),
        Some(false)
    );
}

/// Returns an allocator with one clean block of 2 MiB, in the direct map.
fn clean_block() -> PageAllocator {
    let mut pages = allocator(8192, 8192);
    assert!(pages.add_ram(mfn(0x4_0000), 512));
    let block = pages.take_dirty().unwrap();
    scrub(&pages, block);
    pages.give_scrubbed(Block {
        dirty: false,
        ..block
    });
    pages
}

/// Takes a page and gives it back, dirty.
fn use_page(pages: &mut PageAllocator, purpose: Purpose) -> Mfn {
    let page = pages.take(0, purpose).unwrap();
    pages.frames.make_inner(page.first, true);
    pages.give(page.first, 1, true);
    page.first
}

#[test]
fn the_page_that_was_freed_last_is_given_next_and_no_other_becomes_dirty() {
    let mut pages = clean_block();
    let first = use_page(&mut pages, Purpose::Guest);
    for purpose in [Purpose::Guest, Purpose::Hypervisor, Purpose::Guest] {
        assert_eq!(use_page(&mut pages, purpose), first);
        assert_eq!(pages.check(), Ok(()));
    }
    assert_eq!(
        (pages.free_pages(), pages.guest_pages_at_hand()),
        (512, 512)
    );
    let rest = pages.take(8, Purpose::Guest).unwrap();
    assert!(!rest.dirty);
    let page = pages.take_dirty().unwrap();
    assert_eq!((page.first, page.order), (first, 0));
    assert!(pages.take_dirty().is_none());
}

#[test]
fn a_loose_page_is_joined_by_who_scrubs_it_or_wants_the_block() {
    for scrubs in [true, false] {
        let mut pages = clean_block();
        use_page(&mut pages, Purpose::Guest);
        assert!(pages.has_dirty());
        if scrubs {
            let page = pages.take_dirty().unwrap();
            scrub(&pages, page);
            pages.give_scrubbed(Block {
                dirty: false,
                ..page
            });
        }
        let whole = pages.take(9, Purpose::Hypervisor).unwrap();
        assert_eq!(whole.dirty, !scrubs);
    }
}

#[test]
fn loose_pages_beyond_the_direct_map_are_none_of_the_hypervisor_s() {
    let mut pages = allocator(64, 32);
    assert!(pages.add_ram(mfn(FIRST), 64));
    let far = use_page(&mut pages, Purpose::Guest);
    assert!(far >= mfn(FIRST + 32));
    assert!(pages.take(0, Purpose::Hypervisor).unwrap().first < mfn(FIRST + 32));
    assert_eq!(pages.take(0, Purpose::Guest).unwrap().first, far);
}

#[derive(Clone, Debug)]
enum Op {
    Take(u32, bool),
    Range(u32, u32),
    Give(usize, bool),
    Scrub,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0u32..12, any::<bool>()).prop_map(|(order, guest)| Op::Take(order, guest)),
        2 => (0u32..3000, 1u32..600).prop_map(|(at, count)| Op::Range(at, count)),
        4 => (any::<usize>(), any::<bool>()).prop_map(|(which, dirty)| Op::Give(which, dirty)),
        2 => Just(Op::Scrub),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn nothing_overlaps_nothing_is_lost_and_blocks_are_aligned(ops in proptest::collection::vec(op(), 1..80), direct in 0u32..3100) {
        const COUNT: u32 = 3000;
        let mut pages = allocator(COUNT, direct);
        // Two banks with a hole between them.
        prop_assert!(pages.add_ram(mfn(FIRST), 1300) && pages.add_ram(mfn(FIRST + 1400), 1600));
        let mut free: BTreeSet<u32> = (0..1300).chain(1400..COUNT).collect();
        let mut taken: Vec<(u32, u32)> = Vec::new();
        for op in ops {
            let block = match op {
                Op::Take(order, guest) => pages.take(order, if guest { Purpose::Guest } else { Purpose::Hypervisor }),
                Op::Range(at, count) => {
                    let whole = at + count <= COUNT && (at..at + count).all(|n| free.contains(&n));
                    let got = pages.take_range(mfn(FIRST + at), count);
                    prop_assert_eq!(got.is_some(), whole);
                    if whole {
                        free.retain(|n| !(at..at + count).contains(n));
                        taken.push((at, count));
                    }
                    None
                }
                Op::Give(which, dirty) => {
                    if !taken.is_empty() {
                        let (at, count) = taken.swap_remove(which % taken.len());
                        for n in at..at + count {
                            pages.frames.make_inner(mfn(FIRST + n), dirty);
                        }
                        pages.give(mfn(FIRST + at), count, dirty);
                        free.extend(at..at + count);
                    }
                    None
                }
                Op::Scrub => {
                    if let Some(block) = pages.take_dirty() {
                        scrub(&pages, block);
                        pages.give_scrubbed(Block { dirty: false, ..block });
                    }
                    None
                }
            };
            if let Some(block) = block {
                prop_assert!(block.first.is_aligned(block.order));
                let at = block.first.raw() - FIRST;
                for n in at..at + (1 << block.order) {
                    prop_assert!(free.remove(&n), "frame {} was not free", n);
                    prop_assert!(block.dirty || !pages.frames.is_dirty(mfn(FIRST + n)));
                }
                taken.push((at, 1 << block.order));
            }
            prop_assert_eq!(pages.check(), Ok(()));
            prop_assert_eq!(pages.free_pages() as usize, free.len());
        }
    }
}
