//! Memory: the map of this domain, its account, and the edges of both.

use guests::abi::{self, AddToPhysmap, AddToPhysmapBatch, DOM0, DOMID_ABSENT, DOMID_SELF, Reservation};
use guests::exception::Kind;
use guests::harness::{Verdict, expect};
use guests::hypercall::{MEMORY_OP, address_of, call_with};
use guests::memory::{Frame, PAGE_SIZE};
use guests::{ensure, ensure_eq, platform};

use crate::common::{
    FIRST, borrow, decrease, fresh, give_back, hole, holes, is, lend, load, most_pages, pages, populate, store, sum,
    table,
};

/// Where this domain has no memory, in what boot.S maps.
const ELSEWHERE: u64 = 0x9000_0000 >> 12;
const REGION: u64 = 512;

fn populate_order(gfn: u64, order: u32) -> i32 {
    abi::reservation(abi::MEM_POPULATE_PHYSMAP, &mut [gfn], order)
}

pub fn extents_of_every_order() -> Verdict {
    let before = pages();
    for order in (10..64).chain([0x7f, 0xff, 0x8000_0000, u32::MAX]) {
        let done = populate_order(ELSEWHERE, order);
        ensure!(done <= 0, order);
        ensure!(abi::reservation(abi::MEM_DECREASE_RESERVATION, &mut [ELSEWHERE], order) <= 0, order);
        ensure!(abi::reservation(abi::MEM_INCREASE_RESERVATION, &mut [ELSEWHERE], order) <= 0, order);
    }
    ensure_eq!(pages(), before);
    Ok(())
}

/// The edges of the map: 40 bits of addresses are 28 of frames.
const EDGES: [u64; 12] = [
    0,
    1,
    (1 << 28) - 1,
    1 << 28,
    (1 << 28) + 1,
    1 << 29,
    (1 << 32) - 1,
    1 << 32,
    1 << 40,
    1 << 52,
    u64::MAX - 1,
    u64::MAX,
];

pub fn pages_at_the_edges_of_the_map() -> Verdict {
    let before = pages();
    for (n, gfn) in EDGES.into_iter().enumerate() {
        for order in [0, 1, 9] {
            let done = populate_order(gfn, order);
            ensure!((-1000..=1).contains(&done), n);
            ensure!(done <= 0 || gfn < 1 << 28, n);
            if done == 1 {
                ensure_eq!(abi::reservation(abi::MEM_DECREASE_RESERVATION, &mut [gfn], order), 1, n);
            }
            ensure_eq!(pages(), before, n);
        }
    }
    Ok(())
}

pub fn shared_pages_at_the_edges_of_the_map() -> Verdict {
    for (n, gfn) in EDGES.into_iter().enumerate() {
        for space in [abi::SPACE_GRANT_TABLE, abi::SPACE_SHARED_INFO, 5] {
            let answer = abi::add_to_physmap(space, 7, gfn);
            ensure!((-1000..=0).contains(&answer), n);
            ensure!(answer < 0 || gfn < 1 << 28, n);
            if answer == 0 {
                ensure_eq!(abi::remove_from_physmap(gfn), 0, n);
            }
            ensure!(abi::remove_from_physmap(gfn) < 0, n);
        }
    }
    Ok(())
}

pub fn more_than_the_limit() -> Verdict {
    let (before, most) = (pages(), most_pages());
    let mut taken = 0;
    while taken < 4096 && populate(ELSEWHERE + taken) == 1 {
        taken += 1;
        ensure!(pages() <= most, taken);
    }
    // Exactly as many as were left, if the tables sufficed.
    ensure!(pages() <= most && pages() as u64 == before as u64 + taken);
    for page in 0..taken {
        ensure_eq!(decrease(ELSEWHERE + page), 1, page);
    }
    ensure_eq!(pages(), before);
    Ok(())
}

pub fn pages_of_nobody_are_given_back() -> Verdict {
    let hole = hole()?;
    let before = pages();
    let machine = platform::get();
    let nothing = [
        hole.gfn(),
        u64::from(machine.distributor >> 12),
        u64::from(machine.cpu_interface >> 12),
        0x8000,
        0x9000,
        0xf_ffff,
    ];
    for gfn in nothing.into_iter().chain(EDGES) {
        for order in [0, 3, 9] {
            ensure!(abi::reservation(abi::MEM_DECREASE_RESERVATION, &mut [gfn], order) <= 0, gfn);
        }
    }
    // One page twice in one list, and again.
    let page = Frame::take();
    ensure_eq!(abi::reservation(abi::MEM_DECREASE_RESERVATION, &mut [page.gfn(), page.gfn()], 0), 1);
    ensure_eq!(decrease(page.gfn()), 0);
    ensure_eq!(pages(), before - 1);
    Ok(())
}

/// They leave the map, as they may; they were never in this domain's account, and are the hypervisor's as before.
pub fn pages_of_the_hypervisor_are_given_back() -> Verdict {
    let (table, (shared, _)) = (table()?, fresh()?);
    let before = pages();
    shared.0.write(PAGE_SIZE - 4, 0x600d_cafe);
    for (frame, space) in [(table.0, abi::SPACE_GRANT_TABLE), (shared.0, abi::SPACE_SHARED_INFO)] {
        let done = decrease(frame.gfn());
        ensure!((0..=1).contains(&done), done);
        ensure_eq!(pages(), before);
        ensure_eq!(load(frame.address()).is_err(), done == 1);
        ensure!(decrease(frame.gfn()) <= 1 - done);
        if done == 1 {
            ensure_eq!(abi::add_to_physmap(space, 0, frame.gfn()), 0);
        }
        ensure!(load(frame.address()).is_ok());
    }
    ensure_eq!(shared.0.read(PAGE_SIZE - 4), 0x600d_cafe);
    shared.0.write(PAGE_SIZE - 4, 0);
    Ok(())
}

pub fn a_page_is_given_back_while_it_is_lent() -> Verdict {
    let (table, page, at) = (table()?, Frame::take(), hole()?);
    page.write(4, 0x600d_cafe);
    lend(table, 0, 0, page);
    let handle = borrow(FIRST, at)?;
    // It leaves the map, and is what it was for who borrowed it.
    ensure_eq!(decrease(page.gfn()), 1);
    ensure!(load(page.address()).is_err());
    ensure_eq!(at.read(4), 0x600d_cafe);
    at.write(8, 0x600d_f00d);
    give_back(handle, at)?;
    ensure_eq!(populate(page.gfn()), 1);
    ensure_eq!(page.read(4) | page.read(8), 0);
    Ok(())
}

/// It is refused, or the new page is there and the old one has gone back.
pub fn a_page_is_put_over_another() -> Verdict {
    let page = Frame::take();
    let before = pages();
    for n in 0..32 {
        page.write(0, 0xdead_0000 | n);
        let done = populate(page.gfn());
        ensure!((0..=1).contains(&done), n);
        ensure_eq!(page.read(0), if done == 1 { 0 } else { 0xdead_0000 | n }, n);
        ensure_eq!(pages(), before, n);
    }
    Ok(())
}

pub fn a_block_is_put_over_pages() -> Verdict {
    let block = Frame::take_aligned(REGION as u32);
    let before = pages();
    // Holes, a grant and plain pages below it.
    let table = table()?;
    ensure_eq!(decrease(block.gfn() + 7), 1);
    lend(table, 0, 0, block.nth(9));
    let handle = borrow(FIRST, block.nth(7))?;
    let done = populate_order(block.gfn(), 9);
    ensure!((-1000..=1).contains(&done), done);
    ensure!(pages() <= before + 1, pages());
    guests::grant::unmap(handle, block.nth(7));
    // Its content is nobody's.
    for page in [0, 1, 100, 511] {
        ensure_eq!(load(block.nth(page).address()).unwrap_or(0), 0, page);
    }
    Ok(())
}

pub fn pages_of_others_are_mapped() -> Verdict {
    let at = hole()?;
    for foreign in [DOM0, DOMID_SELF, DOMID_ABSENT, guests::grant::myself(), 0x7ff1, 0x7ff2, 0x7ff4, 0xffff] {
        for gfn in [0x4_0000, 0x4_1000, 0x6_0000, 0, 1 << 28, u64::MAX] {
            let (mut index, mut place, mut error) = (gfn, at.gfn(), 0x5a5a_i32);
            let mut argument = AddToPhysmapBatch {
                domid: DOMID_SELF,
                space: abi::SPACE_FOREIGN as u16,
                size: 1,
                foreign,
                indices: u64::from(address_of(&mut index)),
                gfns: u64::from(address_of(&mut place)),
                errors: u64::from(address_of(&mut error)),
            };
            let answer = call_with(MEMORY_OP, abi::MEM_ADD_TO_PHYSMAP_BATCH, &mut argument);
            ensure!(answer < 0 || error < 0, foreign);
            ensure!(load(at.address()).is_err(), foreign);
        }
    }
    Ok(())
}

pub fn maps_of_others_are_changed() -> Verdict {
    let mut list = [Frame::take().gfn()];
    for domid in [DOM0, DOMID_ABSENT, 0x7ff1, 0x7ff2, 0x7ff4, 0x7ff5, 0xffff] {
        let mut argument =
            Reservation { extents: address_of(&mut list).into(), count: 1, domid, ..Reservation::default() };
        for operation in [abi::MEM_POPULATE_PHYSMAP, abi::MEM_DECREASE_RESERVATION, abi::MEM_INCREASE_RESERVATION] {
            ensure!(call_with(MEMORY_OP, operation, &mut argument) <= 0, domid);
        }
        let mut argument = AddToPhysmap { domid, size: 1, space: abi::SPACE_GRANT_TABLE, index: 0, gfn: list[0] };
        for space in 0..8 {
            argument.space = space;
            ensure!(call_with(MEMORY_OP, abi::MEM_ADD_TO_PHYSMAP, &mut argument) < 0, domid);
        }
        let mut argument = abi::RemoveFromPhysmap { domid, gfn: list[0], ..abi::RemoveFromPhysmap::default() };
        ensure!(call_with(MEMORY_OP, abi::MEM_REMOVE_FROM_PHYSMAP, &mut argument) < 0, domid);
        for operation in [abi::MEM_CURRENT_RESERVATION, abi::MEM_MAXIMUM_RESERVATION, abi::MEM_MAXIMUM_GPFN] {
            let mut domain = u32::from(domid);
            ensure!(call_with(MEMORY_OP, operation, &mut domain) < 0, domid);
        }
    }
    ensure!(load(list[0] as u32 * PAGE_SIZE).is_ok());
    Ok(())
}

pub fn devices_are_mapped() -> Verdict {
    let at = hole()?;
    for index in [0x0_8000, 0x0_8030, 0x0_9000, 0x0_a000, 0x4_0000, 0, 1 << 28, u64::MAX] {
        ensure!(abi::add_to_physmap(5, index, at.gfn()) < 0, index);
        ensure!(load(at.address()).is_err(), index);
    }
    Ok(())
}

pub fn a_grant_frame_moves_about() -> Verdict {
    const INDEX: u64 = 5;
    let (first, second, page) = (hole()?, hole()?, Frame::take());
    ensure_eq!(abi::add_to_physmap(abi::SPACE_GRANT_TABLE, INDEX, first.gfn()), 0);
    first.write(0, 0x1111_0000);
    // It is in one place, or the second attempt is refused; never in two.
    let answer = abi::add_to_physmap(abi::SPACE_GRANT_TABLE, INDEX, second.gfn());
    ensure!(answer < 0 || load(first.address()).is_err());
    ensure!(answer == 0 || load(second.address()).is_err());
    let place = if answer == 0 { second } else { first };
    ensure_eq!(place.read(0), 0x1111_0000);
    // Own memory over it, and it over own memory.
    let before = pages();
    populate(place.gfn());
    ensure!(pages() <= before + 1);
    abi::add_to_physmap(abi::SPACE_GRANT_TABLE, INDEX, page.gfn());
    for frame in [first, second, page] {
        abi::remove_from_physmap(frame.gfn());
        ensure!(load(frame.address()).is_err());
    }
    Ok(())
}

pub fn everything_is_removed_twice() -> Verdict {
    let table = table()?;
    let (at, page, frame) = (hole()?, Frame::take(), Frame::take());
    lend(table, 0, 0, page);
    let handle = borrow(FIRST, at)?;
    // A grant leaves by its handle only.
    ensure!(abi::remove_from_physmap(at.gfn()) < 0);
    ensure!(decrease(at.gfn()) <= 0);
    ensure!(load(at.address()).is_ok());
    give_back(handle, at)?;
    expect(match abi::add_to_physmap(abi::SPACE_GRANT_TABLE, 6, frame.gfn()) {
        0 => Ok(()),
        error => Err(error),
    })?;
    for (n, frame) in [frame, page].into_iter().enumerate() {
        ensure_eq!(abi::remove_from_physmap(frame.gfn()), 0, n);
        ensure!(is(load(frame.address()), Kind::DataAbort), n);
        ensure!(is(store(frame.address(), 1), Kind::DataAbort), n);
        ensure!(abi::remove_from_physmap(frame.gfn()) < 0, n);
    }
    let machine = platform::get();
    ensure!(abi::remove_from_physmap(u64::from(machine.cpu_interface >> 12)) < 0);
    ensure!(abi::remove_from_physmap(u64::from(machine.distributor >> 12)) < 0);
    Ok(())
}

/// One page in each of many regions, each of which needs a table, until something is used up.
pub fn tables_until_there_are_no_more() -> Verdict {
    const REGIONS: u64 = 1400;
    // 1 GiB from 0x90000000: what is above that has no place in boot.S's map, and needs none.
    let before = pages();
    let spare = holes(512)?;
    let mut made = 0;
    while made < REGIONS && populate(ELSEWHERE + made * REGION) == 1 {
        made += 1;
    }
    ensure!(made > 0);
    for region in 0..made {
        ensure_eq!(decrease(ELSEWHERE + region * REGION), 1, region);
    }
    for page in 0..512 {
        ensure_eq!(populate(spare.nth(page).gfn()), 1, page);
    }
    ensure_eq!(pages(), before);
    Ok(())
}

/// A block that has to be broken while there may be no table for its pieces: then it is whole, and nothing was freed.
pub fn a_block_is_broken_without_a_table() -> Verdict {
    let block = Frame::take_aligned(REGION as u32);
    let spare = holes(512)?;
    for page in 0..REGION as u32 {
        block.nth(page).write(0, 0x0b10_0000 | page);
    }
    let mut made = 0;
    while populate(ELSEWHERE + made * REGION) == 1 {
        made += 1;
    }
    let before = pages();
    let done = decrease(block.gfn() + 5);
    ensure!((0..=1).contains(&done), done);
    ensure_eq!(pages(), before - done);
    ensure_eq!(load(block.nth(5).address()).is_err(), done == 1);
    for page in (0..REGION as u32).filter(|&page| page != 5) {
        ensure_eq!(block.nth(page).read(0), 0x0b10_0000 | page, page);
    }
    for region in 0..made {
        ensure_eq!(decrease(ELSEWHERE + region * REGION), 1, region);
    }
    for page in 0..512 {
        ensure_eq!(populate(spare.nth(page).gfn()), 1, page);
    }
    Ok(())
}

pub fn a_block_becomes_a_sieve() -> Verdict {
    let block = Frame::take_aligned(REGION as u32);
    for page in 0..REGION as u32 {
        block.nth(page).write(PAGE_SIZE - 4, page ^ 0x5a5a_5a5a);
    }
    for page in (0..REGION as u32).step_by(2) {
        ensure_eq!(decrease(block.nth(page).gfn()), 1, page);
    }
    for page in 0..REGION as u32 {
        let wanted = if page % 2 == 0 { None } else { Some(page ^ 0x5a5a_5a5a) };
        ensure!(load(block.nth(page).address() + PAGE_SIZE - 4).ok() == wanted, page);
    }
    for page in (0..REGION as u32).step_by(2) {
        ensure_eq!(populate(block.nth(page).gfn()), 1, page);
        ensure_eq!(sum(block.nth(page)), 0, page);
    }
    Ok(())
}

pub fn new_pages_hold_nothing() -> Verdict {
    let pages = Frame::take_aligned(128);
    for page in 0..128 {
        pages.nth(page).write(0, 0xfeed_0000 | page);
        ensure_eq!(decrease(pages.nth(page).gfn()), 1, page);
    }
    for page in 0..128 {
        ensure_eq!(populate(pages.nth(page).gfn()), 1, page);
        ensure_eq!(sum(pages.nth(page)), 0, page);
    }
    Ok(())
}

pub fn operations_of_other_kinds_of_guests() -> Verdict {
    let mut argument = [0x5a5a_5a5a_u64; 16];
    let page = Frame::take();
    for operation in [5, 9, 10, 11, 12, 13, 16, 17, 20, 21, 22, 24, 25, 26, 28, 29, 30, 63, u32::MAX] {
        argument[0] = page.gfn();
        argument[1] = u64::from(page.address());
        let answer = call_with(MEMORY_OP, operation, &mut argument);
        ensure!((-1000..0).contains(&answer), operation);
    }
    Ok(())
}

pub fn lists_that_lie_upon_each_other() -> Verdict {
    // Indices, places and errors in one array: what is written as an error is the next place.
    let mut list = [0_u64; 64];
    for size in [1_u16, 2, 63, 64] {
        list.fill(hole()?.gfn());
        let pointer = u64::from(address_of(&mut list));
        for space in [abi::SPACE_GRANT_TABLE, abi::SPACE_SHARED_INFO, abi::SPACE_FOREIGN] {
            let mut argument = AddToPhysmapBatch {
                domid: DOMID_SELF,
                space: space as u16,
                size,
                foreign: DOMID_SELF,
                indices: pointer,
                gfns: pointer,
                errors: pointer + 4,
            };
            let answer = call_with(MEMORY_OP, abi::MEM_ADD_TO_PHYSMAP_BATCH, &mut argument);
            ensure!((-1000..=0).contains(&answer), size);
        }
    }
    // A list of extents that lies upon the structure that names it.
    let mut argument = Reservation { count: 3, domid: DOMID_SELF, ..Reservation::default() };
    argument.extents = address_of(&mut argument).into();
    ensure!((-1000..=0).contains(&call_with(MEMORY_OP, abi::MEM_DECREASE_RESERVATION, &mut argument)));
    Ok(())
}

pub fn nodes_and_flags_by_chance() -> Verdict {
    let page = hole()?;
    for flags in [1, 0xff00, 0xff_0000, 0xffff_0000, u32::MAX, 1 << 16, 1 << 17, 0x100, 0x1ff] {
        let mut list = [page.gfn()];
        let mut argument = Reservation {
            extents: address_of(&mut list).into(),
            count: 1,
            flags,
            domid: DOMID_SELF,
            ..Reservation::default()
        };
        let done = call_with(MEMORY_OP, abi::MEM_POPULATE_PHYSMAP, &mut argument);
        ensure!((-1000..=1).contains(&done), flags);
        if done == 1 {
            ensure_eq!(decrease(page.gfn()), 1, flags);
        }
    }
    Ok(())
}
