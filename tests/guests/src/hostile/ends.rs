//! Ends: a domain that dies by its own hand, or lies in wait for dom0 to end it, in the middle of something.
//!
//! `end=NAME` among the boot arguments: it says `end NAME`, and does that until it is over.

use guests::abi::{self, DOMID_SELF};
use guests::event::{self, bind_ipi, send};
use guests::gic;
use guests::grant::{self, MAP_HOST, PERMIT_ACCESS, map, myself};
use guests::harness::{SHUTDOWN_CRASH, shut_down};
use guests::hypercall::{MULTICALL, XEN_VERSION, address_of, call};
use guests::memory::Frame;
use guests::{cp15, platform, println, psci, smp};

use crate::common::{Code, FIRST, decrease, frame, fresh, holes, lend, populate, put, race, table};

/// Longer than dom0 lets it.
const EVER_US: u64 = 3_600_000_000;

/// Ends as the boot arguments ask; comes back when they ask for nothing.
pub fn end() {
    let Some(name) = platform::get().arguments("end").next() else { return };
    println!("end {name}");
    let verdict = match name {
        "mapped" => mapped(),
        "racing" => racing(),
        "crash" => crash_in_a_race(),
        "events" => events(),
        "vectors" => vectors(),
        "argument" => argument(),
        "secondary" => secondary(),
        _ => Ok(()),
    };
    if verdict.is_err() {
        println!("FAIL end {name}");
    }
    loop {
        cp15::wfi();
    }
}

type End = guests::harness::Verdict;

/// With thousands of handles, all its grants in use.
fn mapped() -> End {
    const PLACES: u32 = 4096;
    let (table, places) = (table()?, holes(PLACES)?);
    for index in 0..8 {
        lend(table, index, 0, Frame::take());
    }
    for place in 0..PLACES {
        map(FIRST + place % 8, myself(), MAP_HOST, places.nth(place));
    }
    println!("all is mapped");
    Ok(())
}

/// In the middle of calls that change its map, on all vCPUs.
fn racing() -> End {
    let table = table()?;
    lend(table, 0, 0, Frame::take());
    put(0, holes(8)?.address());
    race(
        EVER_US,
        &[
            |n| {
                populate(frame(0).nth(n % 4).gfn());
                decrease(frame(0).nth(n % 4).gfn());
            },
            |_| {
                let mapping = map(FIRST, myself(), MAP_HOST, frame(0).nth(5));
                grant::unmap(mapping.handle, frame(0).nth(5));
            },
            |n| {
                abi::add_to_physmap(abi::SPACE_GRANT_TABLE, u64::from(n & 31), frame(0).nth(6).gfn());
                abi::remove_from_physmap(frame(0).nth(6).gfn());
            },
            |n| {
                gic::send_sgi(gic::Target::List(0xff), n & 15);
            },
        ],
    )
}

/// It says that it crashed while its other vCPUs are in the middle of calls.
fn crash_in_a_race() -> End {
    put(0, holes(8)?.address());
    race(
        EVER_US,
        &[
            |n| {
                if n == 2000 {
                    shut_down(SHUTDOWN_CRASH);
                }
            },
            |n| {
                populate(frame(0).nth(n % 4).gfn());
                decrease(frame(0).nth(n % 4).gfn());
            },
            |_| {
                shut_down_later();
            },
        ],
    )
}

fn shut_down_later() {
    event::reset(DOMID_SELF);
    psci::call(psci::AFFINITY_INFO, 0, 0, 0);
}

/// All its ports in use, all of them pending, FIFO pages given away.
fn events() -> End {
    fresh()?;
    let (control, words) = (Frame::take(), Frame::take_aligned(16));
    event::init_control(control.gfn(), 0, 0).ok();
    for page in 0..16 {
        event::expand_array(words.nth(page).gfn());
    }
    for n in 0..16_000 {
        if let Ok(port) = bind_ipi(n & 3) {
            send(port);
        }
    }
    for page in 0..16 {
        decrease(words.nth(page).gfn());
    }
    println!("all is pending");
    Ok(())
}

/// An abort whose vector is nowhere.
fn vectors() -> End {
    cp15::write_vbar(0x0900_0000);
    cp15::isb();
    Code::page().run(&[0xe590_0000], 0x0900_0000, 0).ok();
    Ok(())
}

/// A multicall whose argument is beyond 32 bits.
fn argument() -> End {
    let mut entry = [0_u32; 16];
    (entry[0], entry[5]) = (XEN_VERSION, 1);
    call(MULTICALL, [address_of(&mut entry), 1, 0, 0, 0]);
    Ok(())
}

/// A vCPU that begins where nothing is.
fn secondary() -> End {
    psci::call(psci::CPU_ON, 1, 0xffff_fffc, 0);
    let table = table()?;
    table.set(FIRST, PERMIT_ACCESS, myself(), 0);
    smp::start(2, || {
        loop {
            cp15::wfe();
        }
    });
    Ok(())
}
