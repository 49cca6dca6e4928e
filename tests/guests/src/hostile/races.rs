//! vCPUs against each other: two to four of them do what undoes what the others do, to pages and grants (`rivals`: the rest).
//!
//! A step finds what it works on in the cells that its attack filled. What must not happen is remembered by `must`.

use guests::abi::{self, DOMID_SELF};
use guests::grant::{self, MAP_HOST, PERMIT_ACCESS, READING, Table, WRITING, copy, granted, local, map, myself, unmap};
use guests::harness::Verdict;
use guests::hypercall::{MEMORY_OP, MULTICALL, XEN_VERSION, call, call_with};
use guests::memory::{self, Frame, PAGE_SIZE, Slot};
use guests::status::grant::OKAY;
use guests::{cp15, ensure, ensure_eq};

use crate::common::{
    FIRST, SOME_US, cell, code, crowd, decrease, frame, got, hole, holes, lend, load, mix, most_pages, must, pages,
    populate, put, race, store, sum, table,
};

/// Cells that more than one attack uses.
const PAGE: usize = 0;
const PLACES: usize = 1;
const TABLE: usize = 2;

const ENTRIES: u32 = 512;
const MARKS: u32 = READING | WRITING;

/// A page lent by FIRST, places to map it, and the table, in cells.
fn prepare(places: u32) -> Verdict {
    let table = table()?;
    let page = Frame::take();
    lend(table, 0, 0, page);
    put(PAGE, page.address());
    put(PLACES, holes(places)?.address());
    put(TABLE, table.0.address());
    Ok(())
}

fn the_table() -> Table {
    Table(frame(TABLE))
}

/// Nothing is mapped, nothing is marked.
fn nothing_is_lent() -> Verdict {
    ensure_eq!(the_table().flags(FIRST) & MARKS, 0);
    Ok(())
}

fn my_place() -> Frame {
    frame(PLACES).nth(cp15::cpu_index() as u32)
}

fn map_and_unmap(_: u32) {
    let place = my_place();
    let mapping = map(FIRST, myself(), MAP_HOST, place);
    if mapping.status == OKAY {
        store(place.address(), 1).ok();
        must(unmap(mapping.handle, place) == OKAY, 1);
    }
}

pub fn all_map_and_unmap_one_page() -> Verdict {
    prepare(4)?;
    crowd(SOME_US, map_and_unmap)?;
    nothing_is_lent()
}

pub fn all_map_in_one_place() -> Verdict {
    prepare(1)?;
    crowd(SOME_US, |_| {
        let place = frame(PLACES);
        let mapping = map(FIRST, myself(), MAP_HOST, place);
        if mapping.status == OKAY {
            must(unmap(mapping.handle, place) == OKAY, 1);
        }
    })?;
    nothing_is_lent()
}

const HANDLE: usize = 4;
const TURN: usize = 5;
const DONE: usize = 6;

/// One handle, unmapped by all at once: once it is okay.
pub fn all_unmap_one_handle() -> Verdict {
    prepare(1)?;
    put(TURN, 0);
    put(DONE, 0);
    put(HANDLE, u32::MAX);
    fn unmaps(_: u32) {
        let turn = got(TURN);
        if turn & 1 == 1 && unmap(got(HANDLE), frame(PLACES)) == OKAY {
            cell(DONE).fetch_add(1, core::sync::atomic::Ordering::SeqCst);
        }
    }
    race(
        SOME_US,
        &[
            |n| {
                let done = got(DONE);
                let mapping = map(FIRST, myself(), MAP_HOST, frame(PLACES));
                must(mapping.status == OKAY, 2);
                put(HANDLE, mapping.handle);
                put(TURN, n * 2 + 1);
                while got(DONE) == done {}
                put(TURN, n * 2 + 2);
                must(got(DONE) == done + 1, 3);
            },
            unmaps,
            unmaps,
        ],
    )?;
    nothing_is_lent()
}

pub fn an_entry_changes_its_flags_while_it_is_mapped() -> Verdict {
    prepare(4)?;
    race(
        SOME_US,
        &[map_and_unmap, map_and_unmap, |n| {
            // As the protocol forbids: the whole word, marks and all.
            let flags = mix(n) & 0x1f;
            the_table().set(FIRST, flags, myself(), frame(PAGE).gfn());
            the_table().0.write(FIRST * 8, u32::from(myself()) << 16 | PERMIT_ACCESS);
        }],
    )?;
    table().map(|_| ())
}

pub fn an_entry_changes_its_page_while_it_is_mapped() -> Verdict {
    prepare(4)?;
    put(7, Frame::take_aligned(4).address());
    for page in 0..4 {
        frame(7).nth(page).write(0, 0x600d_0000);
    }
    the_table().0.write(FIRST * 8 + 4, frame(7).gfn() as u32);
    race(
        SOME_US,
        &[
            |_| {
                let place = my_place();
                let mapping = map(FIRST, myself(), MAP_HOST, place);
                if mapping.status == OKAY {
                    must(load(place.address()).is_ok_and(|word| word == 0x600d_0000), 1);
                    must(unmap(mapping.handle, place) == OKAY, 2);
                }
            },
            map_and_unmap_and_restore,
            |n| the_table().0.write(FIRST * 8 + 4, frame(7).nth(n & 3).gfn() as u32),
        ],
    )?;
    table().map(|_| ())
}

fn map_and_unmap_and_restore(_: u32) {
    let place = my_place();
    let mapping = map(FIRST, myself(), MAP_HOST, place);
    if mapping.status == OKAY {
        must(unmap(mapping.handle, place) == OKAY, 3);
    }
}

pub fn an_entry_changes_its_page_while_it_is_copied() -> Verdict {
    prepare(1)?;
    put(7, Frame::take_aligned(4).address());
    put(8, Frame::take().address());
    for page in 0..4 {
        for offset in (0..PAGE_SIZE).step_by(4) {
            frame(7).nth(page).write(offset, 0x1111_1111 * (page + 1));
        }
    }
    the_table().0.write(FIRST * 8 + 4, frame(7).gfn() as u32);
    race(
        SOME_US,
        &[
            |_| {
                let target = frame(8);
                if copy(granted(myself(), FIRST, 0), local(target, 0), 4096, grant::COPY_SOURCE_GREF) == OKAY {
                    // All of it from one page.
                    let first = target.read(0);
                    must(first.is_multiple_of(0x1111_1111) && target.read(PAGE_SIZE - 4) == first, 1);
                }
            },
            |n| the_table().0.write(FIRST * 8 + 4, frame(7).nth(n & 3).gfn() as u32),
            |n| the_table().0.write(FIRST * 8, u32::from(myself()) << 16 | PERMIT_ACCESS | mix(n) & 4),
        ],
    )?;
    nothing_is_lent()
}

pub fn a_page_is_given_away_while_it_is_mapped() -> Verdict {
    prepare(4)?;
    race(
        SOME_US,
        &[map_and_unmap, map_and_unmap, |_| {
            decrease(frame(PAGE).gfn());
            populate(frame(PAGE).gfn());
        }],
    )?;
    populate(frame(PAGE).gfn());
    nothing_is_lent()
}

/// Four vCPUs take and give the same pages.
pub fn all_populate_and_decrease() -> Verdict {
    put(PLACES, holes(8)?.address());
    let before = pages();
    crowd(SOME_US, |n| {
        let place = frame(PLACES).nth(mix(n ^ (cp15::cpu_index() as u32) << 20) & 7);
        populate(place.gfn());
        decrease(place.gfn());
    })?;
    for page in 0..8 {
        decrease(frame(PLACES).nth(page).gfn());
    }
    ensure_eq!(pages(), before);
    Ok(())
}

pub fn all_take_the_last_pages() -> Verdict {
    put(PLACES, 0x9000_0000);
    put(7, most_pages() as u32);
    let before = pages();
    crowd(SOME_US, |n| {
        let place = frame(PLACES).nth((cp15::cpu_index() as u32) << 12 | n & 0xfff);
        populate(place.gfn());
        must(pages() as u32 <= got(7), 1);
        if n & 0x1ff == 0x1ff {
            for page in 0..0x200 {
                decrease(frame(PLACES).nth(((cp15::cpu_index() as u32) << 12) + (n & 0xe00) + page).gfn());
            }
        }
    })?;
    for page in 0..4 << 12 {
        if pages() == before {
            break;
        }
        decrease(frame(PLACES).nth(page).gfn());
    }
    ensure_eq!(pages(), before);
    Ok(())
}

fn version_into_page(_: u32) {
    let answer = call(XEN_VERSION, [1, got(PAGE), 0, 0, 0]);
    must(answer == 0 || answer == guests::status::EFAULT, 9);
}

pub fn a_buffer_leaves_the_map_while_it_is_used() -> Verdict {
    put(PAGE, Frame::take().address());
    race(
        SOME_US,
        &[version_into_page, version_into_page, |_| {
            decrease(frame(PAGE).gfn());
            populate(frame(PAGE).gfn());
        }],
    )
}

pub fn a_buffer_becomes_a_grant_while_it_is_used() -> Verdict {
    prepare(4)?;
    put(7, got(PAGE));
    put(PAGE, frame(PLACES).nth(1).address());
    race(SOME_US, &[version_into_page, map_and_unmap, version_into_page])?;
    nothing_is_lent()
}

pub fn a_buffer_becomes_a_page_of_the_hypervisor() -> Verdict {
    put(PAGE, Frame::take().address());
    race(
        SOME_US,
        &[
            version_into_page,
            |_| {
                abi::add_to_physmap(abi::SPACE_GRANT_TABLE, 9, frame(PAGE).gfn());
                abi::remove_from_physmap(frame(PAGE).gfn());
                populate(frame(PAGE).gfn());
            },
            version_into_page,
        ],
    )
}

pub fn a_list_of_extents_is_written_meanwhile() -> Verdict {
    /// Writes the list anew: most of its entries are holes' pages, some lie beyond the map.
    fn write_list(n: u32) {
        for entry in 0..8 {
            let page = mix(n + entry);
            let gfn = if page & 0xf0 == 0 { page | 1 << 31 } else { frame(PLACES).nth(page & 7).gfn() as u32 };
            frame(PAGE).write(entry * 8, gfn);
        }
    }
    put(PAGE, Frame::take().address());
    put(PLACES, holes(8)?.address());
    // A list of zeros would name page 0, where a domain may have memory as well.
    write_list(0);
    let before = pages();
    race(
        SOME_US,
        &[
            |n| {
                for operation in [abi::MEM_POPULATE_PHYSMAP, abi::MEM_DECREASE_RESERVATION] {
                    let mut argument = abi::Reservation {
                        extents: got(PAGE).into(),
                        count: 1 + u64::from(n & 7),
                        domid: DOMID_SELF,
                        ..abi::Reservation::default()
                    };
                    call_with(MEMORY_OP, operation, &mut argument);
                }
            },
            write_list,
        ],
    )?;
    for page in 0..8 {
        decrease(frame(PLACES).nth(page).gfn());
    }
    ensure_eq!(pages(), before);
    Ok(())
}

pub fn a_multicall_is_written_meanwhile() -> Verdict {
    put(PAGE, Frame::take().address());
    for entry in 0..8 {
        frame(PAGE).write(entry * 64, XEN_VERSION);
    }
    race(
        SOME_US,
        &[
            |_| {
                must(call(MULTICALL, [got(PAGE), 8, 0, 0, 0]) <= 0, 1);
            },
            |n| {
                // Numbers and first arguments below 2^32: what is larger ends the domain.
                let entry = mix(n) & 7;
                frame(PAGE).write(entry * 64, [XEN_VERSION, MULTICALL, 999, MEMORY_OP][n as usize & 3]);
                frame(PAGE).write(entry * 64 + 16, mix(n) & 0xff);
            },
        ],
    )
}

/// The words of a grant entry change all the time: a mark is set after a bounded number of tries, or not at all.
pub fn an_entry_never_stands_still() -> Verdict {
    prepare(4)?;
    fn hammers(n: u32) {
        for k in 0..64 {
            the_table().0.write(FIRST * 8, u32::from(myself()) << 16 | PERMIT_ACCESS | (n + k) << 5 & 0xe0);
        }
    }
    race(SOME_US, &[map_and_unmap_and_restore, hammers, hammers])?;
    table().map(|_| ())
}

pub fn the_grant_table_grows_while_it_is_used() -> Verdict {
    prepare(4)?;
    race(
        SOME_US,
        &[
            map_and_unmap,
            |n| {
                abi::add_to_physmap(abi::SPACE_GRANT_TABLE, u64::from(n & 63), frame(PLACES).nth(2).gfn());
            },
            |n| {
                let place = frame(PLACES).nth(3);
                let mapping = map(n % (64 * ENTRIES), myself(), MAP_HOST, place);
                must(mapping.status < 0 || unmap(mapping.handle, place) == OKAY, 1);
            },
        ],
    )?;
    abi::remove_from_physmap(frame(PLACES).nth(2).gfn());
    nothing_is_lent()
}

pub fn a_grant_frame_is_put_in_two_places() -> Verdict {
    put(PLACES, holes(4)?.address());
    crowd(SOME_US, |_| {
        let place = my_place();
        abi::add_to_physmap(abi::SPACE_GRANT_TABLE, 11, place.gfn());
        abi::remove_from_physmap(place.gfn());
    })?;
    for page in 0..4 {
        abi::remove_from_physmap(frame(PLACES).nth(page).gfn());
        ensure!(load(frame(PLACES).nth(page).address()).is_err(), page);
    }
    Ok(())
}

pub fn shared_pages_are_put_upon_each_other() -> Verdict {
    put(PLACES, holes(1)?.address());
    race(
        SOME_US,
        &[
            |_| {
                abi::add_to_physmap(abi::SPACE_GRANT_TABLE, 13, frame(PLACES).gfn());
            },
            |_| {
                abi::add_to_physmap(abi::SPACE_GRANT_TABLE, 14, frame(PLACES).gfn());
            },
            |_| {
                populate(frame(PLACES).gfn());
            },
            |_| {
                abi::remove_from_physmap(frame(PLACES).gfn());
            },
        ],
    )?;
    abi::remove_from_physmap(frame(PLACES).gfn());
    ensure!(load(got(PLACES)).is_err());
    Ok(())
}

pub fn entries_are_swapped_while_they_are_mapped() -> Verdict {
    prepare(4)?;
    race(
        SOME_US,
        &[map_and_unmap, map_and_unmap, |_| {
            let mut element = [[FIRST, FIRST + 1, 0]];
            grant::operate(grant::SWAP_GRANT_REF, &mut element);
        }],
    )?;
    ensure_eq!((the_table().flags(FIRST) | the_table().flags(FIRST + 1)) & MARKS, 0);
    Ok(())
}

pub fn a_copy_goes_where_a_page_leaves() -> Verdict {
    prepare(4)?;
    put(7, Frame::take().address());
    race(
        SOME_US,
        &[
            |_| {
                must(copy(granted(myself(), FIRST, 0), local(frame(7), 0), 4096, grant::COPY_SOURCE_GREF) <= 0, 1);
            },
            |_| {
                must(copy(local(frame(7), 0), granted(myself(), FIRST, 0), 4096, grant::COPY_DESTINATION_GREF) <= 0, 1);
            },
            |_| {
                decrease(frame(7).gfn());
                populate(frame(7).gfn());
            },
            map_and_unmap,
        ],
    )?;
    nothing_is_lent()
}

pub fn caches_are_flushed_of_a_page_that_leaves() -> Verdict {
    prepare(4)?;
    let place = my_place();
    let mapping = map(FIRST, myself(), MAP_HOST, place);
    ensure_eq!(mapping.status, OKAY);
    put(7, mapping.bus_address as u32);
    ensure_eq!(unmap(mapping.handle, place), OKAY);
    race(
        SOME_US,
        &[
            |_| {
                let element = grant::CacheFlush { address: got(7).into(), offset: 0, length: 4096, operation: 3 };
                must(grant::operate(grant::CACHE_FLUSH, &mut [element; 16]) <= 0, 1);
            },
            map_and_unmap,
            |_| {
                decrease(frame(PAGE).gfn());
                populate(frame(PAGE).gfn());
            },
        ],
    )?;
    nothing_is_lent()
}

/// Reads the old page, the new one or an abort: never somebody else's page.
pub fn a_page_is_read_while_it_is_replaced() -> Verdict {
    put(PAGE, Frame::take().address());
    frame(PAGE).write(64, 0x600d_0001);
    fn reads(_: u32) {
        if let Ok(word) = load(got(PAGE) + 64) {
            must(word == 0x600d_0001 || word == 0, 1);
        }
    }
    race(
        SOME_US,
        &[reads, reads, reads, |_| {
            decrease(frame(PAGE).gfn());
            populate(frame(PAGE).gfn());
            store(got(PAGE) + 64, 0x600d_0001).ok();
        }],
    )
}

pub fn a_block_is_broken_while_it_is_read() -> Verdict {
    const PAGES: u32 = 512;
    let block = Frame::take_aligned(PAGES);
    put(PAGE, block.address());
    for page in 0..PAGES {
        block.nth(page).write(0, 0x5151_0000 | page);
    }
    fn reads(n: u32) {
        let page = mix(n) % PAGES;
        if page % 64 != 5
            && let Ok(word) = load(frame(PAGE).nth(page).address())
        {
            must(word == 0x5151_0000 | page, 1);
        }
    }
    race(
        SOME_US,
        &[
            |n| {
                let page = frame(PAGE).nth((n & 7) * 64 + 5);
                decrease(page.gfn());
                populate(page.gfn());
            },
            reads,
            reads,
        ],
    )?;
    Ok(())
}

pub fn tables_change_while_a_pointer_is_followed() -> Verdict {
    let page = Frame::take();
    // A table with the page in its first entry, as a third level.
    let level3 = Frame::take();
    level3.write(0, page.address() | 0x70b);
    put(PAGE, level3.address());
    put(7, page.address());
    race(
        SOME_US,
        &[
            |n| memory::set_table_of_unmapped(if n & 1 == 0 { Some(got(PAGE)) } else { None }),
            |_| {
                let answer = call(XEN_VERSION, [1, memory::UNMAPPED, 0, 0, 0]);
                must(answer == 0 || answer == guests::status::EFAULT, 1);
            },
            |n| {
                let target = if n & 1 == 0 { got(7) } else { 0x0800_0000 };
                frame(PAGE).write(0, target | 0x70b);
            },
        ],
    )?;
    memory::set_table_of_unmapped(None);
    Ok(())
}

pub fn a_buffer_is_unmapped_by_its_own_kernel() -> Verdict {
    put(PAGE, Frame::take().address());
    put(7, memory::map_fixed(Slot::Test, got(PAGE)));
    race(
        SOME_US,
        &[
            |n| {
                if n & 1 == 0 {
                    memory::map_fixed(Slot::Test, got(PAGE));
                } else {
                    memory::unmap_fixed(Slot::Test);
                }
            },
            |_| {
                let answer = call(XEN_VERSION, [3, got(7), 0, 0, 0]);
                must(answer == 0 || answer == guests::status::EFAULT, 1);
            },
        ],
    )?;
    memory::unmap_fixed(Slot::Test);
    Ok(())
}

fn sets_and_ways(n: u32) {
    let value = mix(n);
    // DCCISW
    // SAFETY: it traps; nothing is lost by it.
    unsafe { core::arch::asm!("mcr p15, 0, {}, c7, c14, 2", in(reg) value, options(nostack, preserves_flags)) };
}

pub fn caches_by_set_and_way_while_pages_leave() -> Verdict {
    put(PAGE, Frame::take().address());
    race(
        SOME_US,
        &[
            |_| {
                decrease(frame(PAGE).gfn());
                must(load(got(PAGE)).is_err(), 1);
                populate(frame(PAGE).gfn());
                must(sum(frame(PAGE)) == 0, 2);
            },
            sets_and_ways,
            sets_and_ways,
        ],
    )
}

pub fn user_mode_races_the_kernels_map() -> Verdict {
    put(PAGE, Frame::take().address());
    race(
        SOME_US,
        &[
            |_| {
                decrease(frame(PAGE).gfn());
                populate(frame(PAGE).gfn());
            },
            |_| {
                // ldr r0, [r0]; str r0, [r1]
                let words = [0xe590_0000, 0xe581_0000];
                let fault = crate::common::Code::page().run_in_user_mode(&words, got(PAGE), got(PAGE) + 8);
                must(fault.is_none_or(|fault| fault.kind == guests::exception::Kind::DataAbort), 1);
            },
            |n| {
                let fault = crate::common::Code::page().run_in_user_mode(&[code::hvc(0xea1)], n, 0);
                must(fault.is_some(), 2);
            },
        ],
    )
}

pub fn holes_are_made_under_each_other() -> Verdict {
    put(PAGE, Frame::take_aligned(512).address());
    let before = pages();
    crowd(SOME_US, |n| {
        let page = frame(PAGE).nth(mix(n ^ (cp15::cpu_index() as u32) << 24) & 511);
        if n & 1 == 0 {
            decrease(page.gfn());
        } else {
            populate(page.gfn());
        }
    })?;
    for page in 0..512 {
        populate(frame(PAGE).nth(page).gfn());
    }
    ensure_eq!(pages(), before);
    let _ = hole()?;
    Ok(())
}
