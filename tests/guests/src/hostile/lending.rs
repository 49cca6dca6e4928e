//! Grants: references, entries, handles and copies that are none.

use guests::abi::{self, DOM0, DOMID_ABSENT, DOMID_INVALID, DOMID_SELF};
use guests::exception::Kind;
use guests::grant::{
    self, CacheFlush, Copy, MAP_HOST, MAP_READ_ONLY, Map, PERMIT_ACCESS, POISON_STATUS, READ_ONLY, READING, SetupTable,
    Unmap, WRITING, copy, granted, local, map, myself, operate, unmap,
};
use guests::harness::Verdict;
use guests::hypercall::address_of;
use guests::memory::{Frame, PAGE_SIZE};
use guests::status::grant::OKAY;
use guests::{ensure, ensure_eq, event, platform};

use crate::common::{
    FIRST, Random, borrow, decrease, fresh, give_back, hole, holes, is, lend, load, pages, populate, store, sum, table,
};

const MARKS: u32 = READING | WRITING;
/// Entries of the one frame that is there.
const ENTRIES: u32 = 512;

pub fn references_that_are_none() -> Verdict {
    table()?;
    let at = hole()?;
    for reference in
        (0..8).chain([FIRST, ENTRIES - 1, 64 * ENTRIES - 1, 64 * ENTRIES, 0xffff, 0x1_0000, 0x7fff_ffff, u32::MAX])
    {
        for domain in [myself(), DOM0, DOMID_SELF, DOMID_ABSENT, DOMID_INVALID, 0x7ff1, 0x7ff2, 0x7ff3, 0x7fff, 0xffff]
        {
            let mapping = map(reference, domain, MAP_HOST, at);
            ensure!(mapping.status < 0, reference);
            ensure!(load(at.address()).is_err(), reference);
            ensure!(
                copy(granted(domain, reference, 0), local(Frame::at(at.address()), 0), 8, grant::COPY_SOURCE_GREF) < 0,
                reference
            );
        }
    }
    Ok(())
}

pub fn mappings_of_every_kind() -> Verdict {
    let (table, page, at) = (table()?, Frame::take(), hole()?);
    lend(table, 0, 0, page);
    for flags in (0..128).chain([0x80, 0x8000_0000, 0x8000_0002, u32::MAX]) {
        let mapping = map(FIRST, myself(), flags, at);
        if mapping.status == OKAY {
            ensure!(flags & !MAP_READ_ONLY == MAP_HOST, flags);
            give_back(mapping.handle, at)?;
        }
        ensure_eq!(table.flags(FIRST) & MARKS, 0, flags);
    }
    Ok(())
}

pub fn entries_of_every_kind() -> Verdict {
    let (table, page, at) = (table()?, Frame::take(), hole()?);
    for flags in (0..0x1_0000_u32).step_by(7) {
        table.set(FIRST, flags, myself(), page.gfn());
        let mapping = map(FIRST, myself(), MAP_HOST, at);
        if mapping.status == OKAY {
            ensure!(flags & 3 == PERMIT_ACCESS && flags & READ_ONLY == 0, flags);
            ensure_eq!(unmap(mapping.handle, at), OKAY, flags);
        }
    }
    ensure!(load(at.address()).is_err());
    Ok(())
}

pub fn entries_of_what_is_no_memory() -> Verdict {
    let (table, at, hole, (shared, _)) = (table()?, hole()?, hole()?, fresh()?);
    let machine = platform::get();
    let target = Frame::take();
    for gfn in [
        u64::from(machine.distributor >> 12),
        u64::from(machine.cpu_interface >> 12),
        hole.gfn(),
        table.0.gfn(),
        shared.0.gfn(),
        0,
        0x8000,
        0x9000,
        0xf_ffff,
        0x0fff_ffff,
        0x1000_0000,
        0xffff_ffff,
    ] {
        table.set(FIRST, PERMIT_ACCESS, myself(), gfn);
        ensure!(map(FIRST, myself(), MAP_HOST, at).status < 0, gfn);
        ensure!(copy(granted(myself(), FIRST, 0), local(target, 0), 64, grant::COPY_SOURCE_GREF) < 0, gfn);
        ensure!(copy(local(target, 0), granted(myself(), FIRST, 0), 64, grant::COPY_DESTINATION_GREF) < 0, gfn);
        ensure_eq!(table.flags(FIRST) & MARKS, 0, gfn);
    }
    ensure!(load(at.address()).is_err());
    Ok(())
}

pub fn grants_of_grants() -> Verdict {
    let (table, page, first, second) = (table()?, Frame::take(), hole()?, hole()?);
    lend(table, 0, 0, page);
    let handle = borrow(FIRST, first)?;
    // A borrowed page is not the borrower's to lend.
    lend(table, 1, 0, first);
    ensure!(map(FIRST + 1, myself(), MAP_HOST, second).status < 0);
    ensure!(load(second.address()).is_err());
    give_back(handle, first)
}

pub fn handles_that_are_none() -> Verdict {
    let (table, page, at) = (table()?, Frame::take(), hole()?);
    lend(table, 0, 0, page);
    let handle = borrow(FIRST, at)?;
    for wrong in [handle + 1, handle ^ 0x8000_0000, handle | 0xffff_0000, u32::MAX, 0x7fff_ffff, 0x10_0000] {
        ensure!(unmap(wrong, at) < 0, wrong);
    }
    for place in [page, table.0, Frame::at(at.address() + PAGE_SIZE), Frame::at(0xffff_f000)] {
        ensure!(unmap(handle, place) < 0, place.address());
    }
    ensure!(load(at.address()).is_ok());
    give_back(handle, at)?;
    for _ in 0..3 {
        ensure!(unmap(handle, at) < 0);
    }
    Ok(())
}

pub fn one_handle_many_times_in_a_batch() -> Verdict {
    let (table, page, at) = (table()?, Frame::take(), hole()?);
    lend(table, 0, 0, page);
    for _ in 0..16 {
        let handle = borrow(FIRST, at)?;
        let mut batch =
            [Unmap { host_address: at.address().into(), bus_address: 0, handle, status: POISON_STATUS, pad: 0 }; 64];
        ensure_eq!(operate(grant::UNMAP_GRANT_REF, &mut batch), 0);
        ensure_eq!(batch.iter().filter(|element| element.status == OKAY).count(), 1);
        ensure!(batch.iter().all(|element| element.status <= 0));
        ensure_eq!(table.flags(FIRST) & MARKS, 0);
    }
    Ok(())
}

pub fn one_place_many_times_in_a_batch() -> Verdict {
    let (table, page, at) = (table()?, Frame::take(), hole()?);
    lend(table, 0, 0, page);
    let element = Map {
        host_address: at.address().into(),
        flags: MAP_HOST,
        reference: FIRST,
        domain: myself(),
        status: POISON_STATUS,
        handle: grant::POISON,
        bus_address: 0,
    };
    let mut batch = [element; 64];
    ensure_eq!(operate(grant::MAP_GRANT_REF, &mut batch), 0);
    ensure_eq!(batch.iter().filter(|element| element.status == OKAY).count(), 1);
    for element in batch.iter().filter(|element| element.status == OKAY) {
        ensure_eq!(unmap(element.handle, at), OKAY);
    }
    ensure_eq!(table.flags(FIRST) & MARKS, 0);
    Ok(())
}

pub fn mappings_over_everything() -> Verdict {
    let (table, page, at, (shared, _)) = (table()?, Frame::take(), hole()?, fresh()?);
    lend(table, 0, 0, page);
    let handle = borrow(FIRST, at)?;
    let machine = platform::get();
    for place in [table.0, shared.0, at, Frame::at(machine.cpu_interface)] {
        ensure!(map(FIRST, myself(), MAP_HOST, place).status < 0, place.address());
    }
    // Where the distributor is emulated there is a hole: who fills it has no distributor meanwhile.
    let mapping = map(FIRST, myself(), MAP_HOST, Frame::at(machine.distributor));
    if mapping.status == OKAY {
        ensure_eq!(unmap(mapping.handle, Frame::at(machine.distributor)), OKAY);
    }
    ensure!(guests::mmio::read32(guests::gic::distributor(guests::gic::TYPER)) != 0);
    for address in [u64::from(at.address()) + 1, 1 << 40, u64::MAX, u64::MAX - 4095, 1 << 52] {
        let mut element = [Map {
            host_address: address,
            flags: MAP_HOST,
            reference: FIRST,
            domain: myself(),
            status: POISON_STATUS,
            handle: grant::POISON,
            bus_address: 0,
        }];
        operate(grant::MAP_GRANT_REF, &mut element);
        ensure!(element[0].status < 0, address >> 8);
    }
    give_back(handle, at)?;
    // Over plain memory, which goes back.
    let (over, before) = (Frame::take(), pages());
    let handle = borrow(FIRST, over)?;
    ensure_eq!(pages(), before - 1);
    give_back(handle, over)
}

pub fn writes_through_a_read_only_mapping() -> Verdict {
    let (table, page, at) = (table()?, Frame::take(), hole()?);
    page.write(0, 0x0dd_ba11);
    lend(table, 0, READ_ONLY, page);
    ensure!(map(FIRST, myself(), MAP_HOST, at).status < 0);
    let mapping = map(FIRST, myself(), MAP_HOST | MAP_READ_ONLY, at);
    ensure_eq!(mapping.status, OKAY);
    for offset in (0..PAGE_SIZE).step_by(256) {
        ensure!(is(store(at.address() + offset, 0xbad), Kind::DataAbort), offset);
    }
    let element = local(Frame::take(), 0);
    ensure!(copy(element, local(at, 0), 64, 0) < 0);
    ensure_eq!(page.read(0), 0x0dd_ba11);
    give_back(mapping.handle, at)
}

pub fn chains_of_grants_and_parts_of_pages() -> Verdict {
    let (table, page, at) = (table()?, Frame::take(), hole()?);
    for flags in [grant::TRANSITIVE, grant::ACCEPT_TRANSFER, PERMIT_ACCESS | 1 << 8, 0] {
        table.set(FIRST, flags, myself(), page.gfn());
        let mapping = map(FIRST, myself(), MAP_HOST, at);
        // A part of a page is no kind of version 1: the bit means nothing there, or is refused.
        ensure!(mapping.status < 0 || flags & 3 == PERMIT_ACCESS, flags);
        if mapping.status == OKAY {
            give_back(mapping.handle, at)?;
        }
    }
    Ok(())
}

pub fn versions_that_are_not_there() -> Verdict {
    for version in [0_u32, 2, 3, 0xff, u32::MAX] {
        ensure!(operate(grant::SET_VERSION, &mut [version]) < 0, version);
    }
    let mut list = [0x5a5a_u64; 4];
    #[repr(C)]
    struct Status {
        frames: u32,
        domain: u16,
        status: i16,
        list: u64,
    }
    for frames in [0, 1, 4, u32::MAX] {
        let mut element = [Status { frames, domain: DOMID_SELF, status: 0, list: address_of(&mut list).into() }];
        operate(grant::GET_STATUS_FRAMES, &mut element);
        ensure!(element[0].status < 0 || frames == 0, frames);
    }
    ensure!(list == [0x5a5a; 4]);
    Ok(())
}

pub fn copies_beyond_the_ends() -> Verdict {
    let (table, page, target) = (table()?, Frame::take(), Frame::take());
    lend(table, 0, 0, page);
    let before = sum(target);
    for (from, to, length) in [
        (4095, 0, 2),
        (0, 4095, 2),
        (1, 1, 4096),
        (0, 0, 4097),
        (0, 0, u16::MAX),
        (u16::MAX, 0, 1),
        (0, u16::MAX, u16::MAX),
        (4096, 0, 1),
        (0, 4096, 1),
    ] {
        ensure!(copy(local(page, from), local(target, to), length, 0) < 0, length);
        let flags = grant::COPY_SOURCE_GREF;
        ensure!(copy(granted(myself(), FIRST, from), local(target, to), length, flags) < 0, length);
    }
    for flags in [4, 8, 0x10, 0x8000, 0xffff] {
        let status = copy(granted(myself(), FIRST, 0), local(target, 0), 64, flags);
        ensure!(status <= 0, flags);
    }
    ensure_eq!(sum(target), before);
    Ok(())
}

pub fn copies_upon_themselves() -> Verdict {
    let (table, page) = (table()?, Frame::take());
    lend(table, 0, 0, page);
    for offset in (0..PAGE_SIZE).step_by(4) {
        page.write(offset, offset);
    }
    for (from, to, length) in [(0, 0, 4096), (0, 8, 4088), (8, 0, 4088), (1, 3, 1000), (3, 1, 1000)] {
        let flags = grant::COPY_SOURCE_GREF | grant::COPY_DESTINATION_GREF;
        let status = copy(granted(myself(), FIRST, from), granted(myself(), FIRST, to), length, flags);
        ensure!(status <= 0, length);
        ensure_eq!(table.flags(FIRST) & MARKS, 0);
    }
    Ok(())
}

pub fn copies_of_others_memory() -> Verdict {
    let target = Frame::take();
    for domain in [DOM0, DOMID_ABSENT, 0x7ff1, 0x7ff2, DOMID_INVALID, 0xffff] {
        for gfn in [0x4_0000, 0x6_0000, 0x8000, 0x9000, 0, 1 << 28, u64::MAX] {
            let other = grant::CopySide { what: gfn, domain, offset: 0, pad: 0 };
            ensure!(copy(other, local(target, 0), 64, 0) < 0, domain);
            ensure!(copy(local(target, 0), other, 64, 0) < 0, domain);
        }
    }
    ensure_eq!(sum(target), 0);
    Ok(())
}

pub fn copies_by_the_hundred() -> Verdict {
    let (table, page, target) = (table()?, Frame::take(), Frame::take());
    lend(table, 0, READ_ONLY, page);
    page.write(0, 0x1234_5678);
    // Each third one is wrong; the list is longer than a turn.
    let list = Frame::take_aligned(8);
    const ELEMENTS: usize = 8 * 4096 / size_of::<Copy>();
    // SAFETY: fresh pages, as many as the elements need.
    let elements = unsafe { core::slice::from_raw_parts_mut(list.pointer::<Copy>(), ELEMENTS) };
    for (n, element) in elements.iter_mut().enumerate() {
        let offset = (n % 500 * 8) as u16;
        *element = Copy {
            source: granted(myself(), FIRST + (n % 3 == 2) as u32, 0),
            destination: local(target, offset),
            length: 8,
            flags: grant::COPY_SOURCE_GREF,
            status: POISON_STATUS,
            pad: 0,
        };
    }
    ensure_eq!(operate(grant::COPY, elements), 0);
    for (n, element) in elements.iter().enumerate() {
        ensure_eq!(element.status < 0, n % 3 == 2, n);
        ensure!(element.status != POISON_STATUS, n);
    }
    ensure_eq!(table.flags(FIRST) & MARKS, 0);
    Ok(())
}

pub fn entries_change_places() -> Verdict {
    let (table, page, at) = (table()?, Frame::take(), hole()?);
    let swap = |a: u32, b: u32| {
        let mut element = [[a, b, 0x5a5a_5a5a]];
        operate(grant::SWAP_GRANT_REF, &mut element);
        element[0][2] as i16
    };
    lend(table, 0, 0, page);
    for (a, b) in [(FIRST, u32::MAX), (u32::MAX, FIRST), (64 * ENTRIES, FIRST), (0x8000_0000, 0x8000_0001)] {
        ensure!(swap(a, b) < 0, a);
    }
    ensure_eq!(swap(FIRST, FIRST), OKAY);
    ensure_eq!(swap(FIRST, FIRST + 1), OKAY);
    let handle = borrow(FIRST + 1, at)?;
    ensure!(swap(FIRST, FIRST + 1) < 0);
    ensure!(swap(FIRST + 1, FIRST) < 0);
    give_back(handle, at)?;
    // Entries that the toolstack fills.
    ensure!(swap(0, 1) <= 0 && swap(1, 0) <= 0);
    Ok(())
}

pub fn pages_change_hands() -> Verdict {
    let (page, before) = (Frame::take(), pages());
    #[repr(C)]
    struct Transfer {
        gfn: u64,
        domain: u16,
        pad: u16,
        reference: u32,
        status: i16,
        pad2: [u16; 3],
    }
    for domain in [DOM0, DOMID_SELF, DOMID_ABSENT, myself(), 0xffff] {
        for gfn in [page.gfn(), 0, u64::MAX] {
            let mut element = [Transfer { gfn, domain, pad: 0, reference: FIRST, status: 0x5a5a, pad2: [0; 3] }];
            operate(grant::TRANSFER, &mut element);
            ensure!(element[0].status < 0, domain);
        }
        let mut element = [[u64::from(page.address()); 4]; 2];
        operate(grant::UNMAP_AND_REPLACE, &mut element);
    }
    ensure_eq!(pages(), before);
    Ok(())
}

pub fn tables_of_every_size() -> Verdict {
    let mut list = [0x5a5a_u64; 64];
    for (frames, fits) in [(0, true), (1, true), (64, true), (65, false), (0x1_0000, false), (u32::MAX, false)] {
        for domain in [DOMID_SELF, DOM0, DOMID_ABSENT, 0xffff] {
            list.fill(0x5a5a);
            let mut element = [SetupTable {
                domain,
                pad: 0,
                frames,
                status: POISON_STATUS,
                pad2: [0; 3],
                list: address_of(&mut list).into(),
            }];
            let answer = operate(grant::SETUP_TABLE, &mut element);
            ensure!(answer < 0 || element[0].status < 0 || (fits && domain == DOMID_SELF), frames);
            let filled = list.iter().filter(|&&gfn| gfn != 0x5a5a).count() as u32;
            ensure!(filled <= frames.min(64), filled);
        }
    }
    Ok(())
}

pub fn caches_of_others_are_flushed() -> Verdict {
    let machine = platform::get();
    let own = Frame::take();
    let flush = |address: u64, offset: u16, length: u16, operation: u32| {
        operate(grant::CACHE_FLUSH, &mut [CacheFlush { address, offset, length, operation }])
    };
    for address in [0, 0x0800_0000, 0x0900_0000, u64::from(machine.distributor), 1 << 40, u64::MAX, 0x4000_0000] {
        // Machine addresses: the hypervisor's and dom0's memory among them.
        for operation in 0..16 {
            ensure!(flush(address, 0, 4096, operation) <= 0, operation);
        }
    }
    for (offset, length) in [(4095, 2), (0, 4097), (1, 4096), (u16::MAX, 1), (0, u16::MAX), (u16::MAX, u16::MAX)] {
        ensure!(flush(own.address().into(), offset, length, 1) < 0, offset);
    }
    ensure!(flush(FIRST.into(), 0, 64, 1 | 1 << 31) < 0);
    Ok(())
}

/// A mapping of each page of a block in a block of places, then out of the middle (what may be merged must come apart).
pub fn a_block_of_grants_comes_apart() -> Verdict {
    const PAGES: u32 = 512;
    // The second frame of the table has an entry for each.
    let entries = hole()?;
    ensure_eq!(abi::add_to_physmap(abi::SPACE_GRANT_TABLE, 1, entries.gfn()), 0);
    let (block, places) = (Frame::take_aligned(PAGES), holes(PAGES)?);
    let mut handles = [0; PAGES as usize];
    for round in 0..3 {
        for page in 0..PAGES {
            grant::Table(entries).set(page, PERMIT_ACCESS, myself(), block.nth(page).gfn());
            block.nth(page).write(0, page << 8 | round);
            handles[page as usize] = borrow(ENTRIES + page, places.nth(page))?;
        }
        for page in (0..PAGES).map(|page| (page * 37 + 5) % PAGES) {
            ensure_eq!(places.nth(page).read(0), page << 8 | round, page);
            give_back(handles[page as usize], places.nth(page))?;
            ensure_eq!(grant::Table(entries).flags(page) & MARKS, 0, page);
        }
    }
    ensure_eq!(abi::remove_from_physmap(entries.gfn()), 0);
    Ok(())
}

pub fn handles_by_the_thousand() -> Verdict {
    const PLACES: u32 = 2048;
    let (table, page, places) = (table()?, Frame::take(), holes(PLACES)?);
    lend(table, 0, 0, page);
    let list = Frame::take_aligned(16);
    for place in 0..PLACES {
        list.nth(place / 1024).write(place % 1024 * 4, borrow(FIRST, places.nth(place))?);
    }
    ensure_eq!(table.flags(FIRST) & MARKS, MARKS);
    for place in 0..PLACES {
        ensure_eq!(unmap(list.nth(place / 1024).read(place % 1024 * 4), places.nth(place)), OKAY, place);
    }
    ensure_eq!(table.flags(FIRST) & MARKS, 0);
    Ok(())
}

pub fn borrowed_pages_in_the_hypervisors_use() -> Verdict {
    let (table, page, at) = (table()?, Frame::take(), hole()?);
    fresh()?;
    lend(table, 0, 0, page);
    let handle = borrow(FIRST, at)?;
    ensure!(event::init_control(at.gfn(), 0, 0).is_err());
    ensure!(event::register_vcpu_info(3, at.gfn(), 0) < 0);
    give_back(handle, at)?;
    // And the other way round: lend what the hypervisor uses, and give it back meanwhile.
    ensure!(event::init_control(page.gfn(), 0, 0).is_ok());
    let mapping = map(FIRST, myself(), MAP_HOST, at);
    let port = event::bind_ipi(0).unwrap_or(0);
    event::send(port);
    ensure!(decrease(page.gfn()) >= 0);
    event::send(port);
    if mapping.status == OKAY {
        give_back(mapping.handle, at)?;
    }
    fresh()?;
    populate(page.gfn());
    Ok(())
}

pub fn grants_by_chance() -> Verdict {
    let table = table()?;
    let (granted_pages, places) = (Frame::take_aligned(8), holes(8)?);
    let mut random = Random::new(31);
    let mut handles = [None::<(u32, u32)>; 64];
    for n in 0..4000 {
        let (reference, place) = (FIRST + random.below(8), random.below(8));
        match random.below(6) {
            0 => table.set(reference, random.word() & 0x1f, myself(), granted_pages.nth(random.below(8)).gfn()),
            1 => lend(table, reference - FIRST, 0, granted_pages.nth(random.below(8))),
            2 | 3 => {
                let mapping = map(reference, myself(), MAP_HOST | random.word() & MAP_READ_ONLY, places.nth(place));
                if mapping.status == OKAY {
                    let free = handles.iter_mut().find(|slot| slot.is_none());
                    ensure!(free.is_some(), n);
                    if let Some(slot) = free {
                        *slot = Some((mapping.handle, place));
                    }
                }
            }
            4 => {
                let index = random.below(64) as usize;
                if let Some((handle, place)) = handles[index].take() {
                    ensure_eq!(unmap(handle, places.nth(place)), OKAY, n);
                }
            }
            _ => {
                let status = copy(
                    granted(myself(), reference, 0),
                    local(granted_pages.nth(place), 64),
                    64,
                    grant::COPY_SOURCE_GREF,
                );
                ensure!(status <= 0, n);
            }
        }
    }
    for (handle, place) in handles.into_iter().flatten() {
        ensure_eq!(unmap(handle, places.nth(place)), OKAY);
    }
    for reference in FIRST..FIRST + 8 {
        ensure_eq!(abi::reservation(abi::MEM_DECREASE_RESERVATION, &mut [places.nth(reference - FIRST).gfn()], 0), 0);
    }
    Ok(())
}
