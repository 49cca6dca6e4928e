//! Two domains that work together: each does to the other what the rule forbids, or allows (`rule=dummy`), both at once.
//!
//! The other one's id is this one's plus or minus one, as `pair=first` or `pair=second` says.

use guests::abi::{self, DOM0, DOMID_SELF};
use guests::event::{self, alloc_unbound, bind_interdomain, close, send};
use guests::grant::{self, MAP_HOST, PERMIT_ACCESS, copy, granted, local, map, unmap};
use guests::harness::Verdict;
use guests::hypercall::{MEMORY_OP, SCHED_OP, address_of, call_with};
use guests::memory::Frame;
use guests::status::grant::OKAY;
use guests::{ensure, ensure_eq, platform};

use crate::common::{
    FIRST, SOME_US, crowd, decrease, frame, fresh, got, hole, holes, lend, load, mix, most_pages, must, pages,
    populate, put, race, store, table,
};

/// How long each of them does it, so that both do at once.
const LONG_US: u64 = 4 * SOME_US;

/// The other domain.
fn other() -> u16 {
    let me = grant::myself();
    if platform::get().arguments("pair").any(|which| which == "first") { me + 1 } else { me - 1 }
}

fn is_dummy() -> bool {
    platform::get().arguments("rule").any(|rule| rule == "dummy")
}

const OTHER: usize = 0;
const PLACES: usize = 1;

/// Each lends the other its pages, by references that both know.
fn lend_all() -> Verdict {
    let table = table()?;
    let shared = Frame::take_aligned(8);
    for index in 0..8 {
        shared.nth(index).write(0, 0x600d_0000 | index);
        table.set(FIRST + index, PERMIT_ACCESS, other(), shared.nth(index).gfn());
    }
    put(OTHER, other().into());
    put(PLACES, holes(8)?.address());
    put(7, shared.address());
    Ok(())
}

fn maps_the_others(n: u32) {
    let place = frame(PLACES).nth(guests::cp15::cpu_index() as u32);
    let mapping = map(FIRST + n % 8, got(OTHER) as u16, MAP_HOST, place);
    must(is_dummy() || mapping.status < 0, 1);
    if mapping.status == OKAY {
        if let Ok(word) = load(place.address()) {
            must(word & 0xffff_0000 == 0x600d_0000 || word == 0, 2);
        }
        store(place.address() + 8, n).ok();
        must(unmap(mapping.handle, place) == OKAY, 3);
    }
    must(load(place.address()).is_err(), 4);
}

pub fn each_maps_the_others_pages() -> Verdict {
    lend_all()?;
    crowd(LONG_US, maps_the_others)
}

pub fn each_maps_what_the_other_gives_away() -> Verdict {
    lend_all()?;
    race(
        LONG_US,
        &[maps_the_others, maps_the_others, |n| {
            let page = frame(7).nth(n % 8);
            decrease(page.gfn());
            populate(page.gfn());
            store(page.address(), 0x600d_0000).ok();
        }],
    )
}

pub fn each_maps_what_the_other_takes_back() -> Verdict {
    lend_all()?;
    put(6, table()?.0.address());
    race(
        LONG_US,
        &[maps_the_others, |n| {
            let table = grant::Table(frame(6));
            table.set(FIRST + n % 8, mix(n) & 0x1f, got(OTHER) as u16, frame(7).nth(mix(n) % 8).gfn());
        }],
    )?;
    // Whatever the other one still has of it: nobody but this one cares.
    table().map(|_| ())
}

pub fn each_copies_from_and_to_the_other() -> Verdict {
    lend_all()?;
    put(6, Frame::take().address());
    crowd(LONG_US, |n| {
        let (there, here) = (granted(got(OTHER) as u16, FIRST + n % 8, 64), local(frame(6), 0));
        let status = copy(there, here, 1024, grant::COPY_SOURCE_GREF);
        must(is_dummy() || status < 0, 1);
        let status = copy(here, there, 1024, grant::COPY_DESTINATION_GREF);
        must(is_dummy() || status < 0, 2);
    })
}

pub fn each_offers_the_other_ports() -> Verdict {
    fresh()?;
    put(OTHER, other().into());
    crowd(LONG_US, |n| {
        let offered = alloc_unbound(DOMID_SELF, got(OTHER) as u16);
        must(is_dummy() || offered.is_err(), 1);
        let bound = bind_interdomain(got(OTHER) as u16, 1 + n % 64);
        must(is_dummy() || bound.is_err(), 2);
        for port in [offered, bound].into_iter().flatten() {
            send(port);
            if n % 3 != 0 {
                close(port);
            }
        }
    })?;
    fresh().map(|_| ())
}

pub fn each_acts_in_the_others_name() -> Verdict {
    let (other, page) = (other(), hole()?);
    for _ in 0..200 {
        let mut list = [0x4_0008_u64];
        let mut argument = abi::Reservation {
            extents: address_of(&mut list).into(),
            count: 1,
            domid: other,
            ..abi::Reservation::default()
        };
        for operation in [abi::MEM_POPULATE_PHYSMAP, abi::MEM_DECREASE_RESERVATION, abi::MEM_INCREASE_RESERVATION] {
            ensure!(call_with(MEMORY_OP, operation, &mut argument) <= 0, operation);
        }
        let (mut index, mut place, mut error) = (0x4_0008_u64, page.gfn(), 0x5a5a_i32);
        let mut argument = abi::AddToPhysmapBatch {
            domid: DOMID_SELF,
            space: abi::SPACE_FOREIGN as u16,
            size: 1,
            foreign: other,
            indices: address_of(&mut index).into(),
            gfns: address_of(&mut place).into(),
            errors: address_of(&mut error).into(),
        };
        let answer = call_with(MEMORY_OP, abi::MEM_ADD_TO_PHYSMAP_BATCH, &mut argument);
        ensure!(answer < 0 || error < 0);
        ensure!(load(page.address()).is_err());
        ensure!(event::reset(other) < 0);
        let mut argument = [u32::from(other), 3];
        ensure!(call_with(SCHED_OP, abi::SCHEDOP_REMOTE_SHUTDOWN, &mut argument) < 0);
        let mut argument = abi::HvmParameter { domid: other, pad: 0, index: 17, value: 0 };
        ensure!(call_with(guests::hypercall::HVM_OP, abi::HVMOP_GET_PARAM, &mut argument) < 0);
        ensure!(event::status(other, 1).is_err());
    }
    Ok(())
}

pub fn both_use_all_ports() -> Verdict {
    for _ in 0..2 {
        fresh()?;
        while alloc_unbound(DOMID_SELF, DOM0).is_ok() {}
        while event::bind_ipi(1).is_ok() {}
    }
    fresh().map(|_| ())
}

pub fn both_use_all_memory() -> Verdict {
    put(PLACES, 0x9000_0000);
    put(7, most_pages() as u32);
    let before = pages();
    race(
        LONG_US,
        &[|n| {
            let page = frame(PLACES).nth(n % 4096);
            if n / 4096 % 2 == 0 {
                populate(page.gfn());
            } else {
                decrease(page.gfn());
            }
            must(pages() as u32 <= got(7), 1);
        }],
    )?;
    for page in 0..4096 {
        decrease(frame(PLACES).nth(page).gfn());
    }
    ensure_eq!(pages(), before);
    Ok(())
}

pub fn both_use_handles_by_the_thousand() -> Verdict {
    const PLACES: u32 = 4096;
    let (table, places, list) = (table()?, holes(PLACES)?, Frame::take_aligned(4));
    lend(table, 0, 0, Frame::take());
    for place in 0..PLACES {
        let mapping = map(FIRST, grant::myself(), MAP_HOST, places.nth(place));
        ensure_eq!(mapping.status, OKAY, place);
        list.nth(place / 1024).write(place % 1024 * 4, mapping.handle);
    }
    for place in 0..PLACES {
        ensure_eq!(unmap(list.nth(place / 1024).read(place % 1024 * 4), places.nth(place)), OKAY, place);
    }
    Ok(())
}

pub fn both_flood_dom0() -> Verdict {
    crate::floods::events_to_dom0()?;
    crate::floods::calls_that_are_logged()?;
    crate::floods::control_calls()
}

pub fn both_keep_their_cpus() -> Verdict {
    crate::floods::yields_just_before_the_end_of_a_turn()?;
    crate::floods::the_distributors_switch()?;
    crate::floods::cache_flushes()
}
