//! Floods: all vCPUs do one thing that costs the hypervisor more than them, as fast as they can.

use core::arch::{asm, global_asm};

use guests::abi::{self, DOMID_SELF, Poll};
use guests::console::{PARAM_CONSOLE_EVTCHN, hvm_parameter};
use guests::event::{self, bind_ipi, send, unmask};
use guests::exception::{Kind, Probe, catch};
use guests::gic::{self, distributor};
use guests::grant::{self, MAP_HOST, map, myself, unmap};
use guests::harness::{Verdict, expect};
use guests::hypercall::{DOMCTL, MEMORY_OP, MULTICALL, SCHED_OP, SYSCTL, XEN_VERSION, address_of, call, call_with};
use guests::memory::{self, Frame};
use guests::mmio::write32;
use guests::{clock, cp15, ensure, ensure_eq, event as events, interrupt, psci, smp};

use crate::common::{
    FIRST, crowd, decrease, frame, fresh, got, hole, holes, is, lend, mix, must, populate, put, quiet, race, table,
};

/// Long enough for a flood to show in dom0.
const LONG_US: u64 = 250_000;

global_asm!(
    ".arm",
    ".global flood_hvc, flood_undefined, flood_register, flood_jump",
    "flood_hvc: .inst 0xe140ea70",
    "bx lr",
    "flood_undefined: .inst 0xee1f0f1f", // mrc p15, 0, r0, c15, c15, 0: traps, and is undefined
    "bx lr",
    "flood_register: mrc p15, 0, r0, c1, c0, 1",
    "bx lr",
    "flood_jump: bx r0",
);

unsafe extern "C" {
    fn flood_hvc(a: u32, b: u32) -> u32;
    fn flood_undefined(a: u32, b: u32) -> u32;
    fn flood_register(a: u32, b: u32) -> u32;
    fn flood_jump(a: u32, b: u32) -> u32;
}

/// A port with dom0 at its other end: the console daemon's, bound for this alone.
pub fn events_to_dom0() -> Verdict {
    // It is the first line's port, or that of a line since: closed by a reset, it is bound by `println!` only while it writes.
    let port = expect(hvm_parameter(PARAM_CONSOLE_EVTCHN))? as u32;
    put(0, port);
    crowd(LONG_US, |_| {
        send(got(0));
    })
}

pub fn events_to_oneself() -> Verdict {
    fresh()?;
    put(0, expect(bind_ipi(0))?);
    crowd(LONG_US, |_| must(send(got(0)) == 0, 1))?;
    fresh().map(|_| ())
}

pub fn events_from_all_to_all() -> Verdict {
    fresh()?;
    for vcpu in 0..4 {
        put(vcpu, expect(bind_ipi(vcpu as u32))?);
    }
    crowd(LONG_US, |n| {
        must(send(got((n & 3) as usize)) == 0, 1);
    })?;
    fresh().map(|_| ())
}

pub fn unmasking() -> Verdict {
    fresh()?;
    put(0, expect(bind_ipi(0))?);
    crowd(LONG_US, |_| {
        send(got(0));
        must(unmask(got(0)) == 0, 1);
    })?;
    fresh().map(|_| ())
}

pub fn sgis() -> Verdict {
    crowd(LONG_US, |n| gic::send_sgi(gic::Target::List(0xff), n & 15))?;
    quiet();
    Ok(())
}

pub fn the_distributors_switch() -> Verdict {
    gic::send_sgi(gic::Target::Myself, 1);
    crowd(LONG_US, |n| write32(distributor(gic::CTLR), n & 1))?;
    quiet();
    Ok(())
}

pub fn enables_of_interrupts() -> Verdict {
    crowd(LONG_US, |n| {
        write32(distributor(if n & 1 == 0 { gic::ISENABLER } else { gic::ICENABLER }), 0xffff);
        write32(distributor(gic::SPENDSGIR), u32::MAX);
    })?;
    quiet();
    Ok(())
}

pub fn ends_of_interrupts() -> Verdict {
    crowd(LONG_US, |n| {
        gic::send_sgi(gic::Target::Myself, n & 15);
        gic::end(gic::acknowledge());
    })?;
    quiet();
    Ok(())
}

fn faults(probe: Probe, address: u32, kind: Kind) -> bool {
    is(catch(probe, address, 0), kind)
}

pub fn calls_that_are_logged() -> Verdict {
    crowd(LONG_US, |_| must(faults(flood_hvc, 0, Kind::Undefined), 1))
}

pub fn undefined_instructions() -> Verdict {
    crowd(LONG_US, |_| must(faults(flood_undefined, 0, Kind::Undefined), 1))
}

pub fn data_aborts() -> Verdict {
    put(0, hole()?.address());
    crowd(LONG_US, |n| must(crate::common::load(got(0) + (n & 0x3ff) * 4).is_err(), 1))
}

pub fn prefetch_aborts() -> Verdict {
    put(0, hole()?.address());
    crowd(LONG_US, |_| must(faults(flood_jump, got(0), Kind::PrefetchAbort), 1))
}

pub fn aborts_of_devices_that_are_logged() -> Verdict {
    crowd(LONG_US, |n| {
        must(crate::common::store(0x0800_0000 + (n & 0xfff) * 4, n).is_err(), 1);
        // An SGI to itself by a register that is read only.
        write32(distributor(gic::TYPER), n);
    })?;
    quiet();
    Ok(())
}

pub fn registers_that_trap() -> Verdict {
    crowd(LONG_US, |_| must(catch(flood_register, 0, 0).is_ok(), 1))
}

pub fn sets_and_ways() -> Verdict {
    crowd(LONG_US, |n| {
        let value = mix(n);
        // DCISW, DCCSW.
        // SAFETY: they trap, and lose nothing.
        unsafe {
            asm!("mcr p15, 0, {0}, c7, c6, 2", "mcr p15, 0, {0}, c7, c10, 2", in(reg) value, options(nostack, preserves_flags))
        };
    })
}

pub fn waits_that_end_at_once() -> Verdict {
    crowd(LONG_US, |_| {
        gic::send_sgi(gic::Target::Myself, 4);
        cp15::wfi();
        cp15::wfe();
    })?;
    quiet();
    Ok(())
}

pub fn timers_in_the_past() -> Verdict {
    gic::enable(gic::VIRTUAL_TIMER);
    gic::enable(gic::PHYSICAL_TIMER);
    crowd(LONG_US, |n| {
        cp15::write_cntv_cval(u64::from(n & 1));
        cp15::write_cntv_ctl(interrupt::TIMER_ENABLED);
        cp15::write_cntp_cval(0);
        cp15::write_cntp_ctl(interrupt::TIMER_ENABLED);
        let value = gic::acknowledge();
        if value & gic::INTID_MASK != gic::SPURIOUS {
            gic::end(value);
        }
        cp15::write_cntv_ctl(0);
        cp15::write_cntp_ctl(0);
    })?;
    quiet();
    Ok(())
}

pub fn sleeps_of_an_instant() -> Verdict {
    fresh()?;
    crowd(LONG_US, |_| {
        let mut ports = [1_u32];
        let mut poll = Poll { ports: address_of(&mut ports).into(), count: 1, timeout: 1, ..Poll::default() };
        call_with(SCHED_OP, abi::SCHEDOP_POLL, &mut poll);
    })
}

pub fn yields() -> Verdict {
    crowd(LONG_US, |_| must(call(SCHED_OP, [abi::SCHEDOP_YIELD, 0, 0, 0, 0]) == 0, 1))
}

/// Works for nearly a turn, and is gone when somebody looks at the clock.
pub fn yields_just_before_the_end_of_a_turn() -> Verdict {
    crowd(LONG_US * 2, |n| {
        // A turn is a few milliseconds: all lengths near that are tried.
        clock::delay(800 + u64::from(mix(n) % 9000));
        call(SCHED_OP, [abi::SCHEDOP_YIELD, 0, 0, 0, 0]);
    })
}

/// Blocks for an instant just before the end of a turn, to be woken as one who has slept.
pub fn sleeps_just_before_the_end_of_a_turn() -> Verdict {
    fresh()?;
    crowd(LONG_US * 2, |n| {
        clock::delay(800 + u64::from(mix(n) % 9000));
        let mut ports = [1_u32];
        let mut poll = Poll { ports: address_of(&mut ports).into(), count: 1, timeout: 1, ..Poll::default() };
        call_with(SCHED_OP, abi::SCHEDOP_POLL, &mut poll);
    })
}

pub fn calls_that_fail() -> Verdict {
    crowd(LONG_US, |n| {
        must(call(XEN_VERSION, [1, memory::UNMAPPED, 0, 0, 0]) == guests::status::EFAULT, 1);
        must(call(mix(n) | 1 << 30, [0; 5]) == guests::status::ENOSYS, 2);
    })
}

pub fn control_calls() -> Verdict {
    crowd(LONG_US, |n| {
        let mut words = [0_u64; 32];
        (words[0], words[1]) = (u64::from(n & 127) | 0x15 << 32, 0);
        must(call(DOMCTL, [address_of(&mut words), 0, 0, 0, 0]) < 0, 1);
        must(call(SYSCTL, [address_of(&mut words), 0, 0, 0, 0]) < 0, 2);
    })
}

/// As long a call as there is, again and again.
pub fn cache_flushes() -> Verdict {
    let (table, page, place) = (table()?, Frame::take(), hole()?);
    lend(table, 0, 0, page);
    let mapping = map(FIRST, myself(), MAP_HOST, place);
    ensure_eq!(mapping.status, 0);
    put(0, mapping.bus_address as u32);
    let list = Frame::take_aligned(2);
    put(1, list.address());
    const ELEMENTS: usize = 512;
    // SAFETY: fresh pages, as many as the elements need.
    let elements = unsafe { core::slice::from_raw_parts_mut(list.pointer::<grant::CacheFlush>(), ELEMENTS) };
    elements.fill(grant::CacheFlush { address: mapping.bus_address, offset: 0, length: 4096, operation: 3 });
    crowd(LONG_US, |_| {
        must(call(guests::hypercall::GRANT_TABLE_OP, [grant::CACHE_FLUSH, got(1), ELEMENTS as u32, 0, 0]) == 0, 1);
    })?;
    ensure_eq!(unmap(mapping.handle, place), 0);
    Ok(())
}

pub fn mappings() -> Verdict {
    let table = table()?;
    lend(table, 0, 0, Frame::take());
    put(0, holes(4)?.address());
    crowd(LONG_US, |_| {
        let place = frame(0).nth(cp15::cpu_index() as u32);
        let mapping = map(FIRST, myself(), MAP_HOST, place);
        must(mapping.status == 0 && unmap(mapping.handle, place) == 0, 1);
    })
}

pub fn pages_taken_and_given() -> Verdict {
    put(0, holes(4)?.address());
    crowd(LONG_US, |_| {
        let place = frame(0).nth(cp15::cpu_index() as u32);
        must(populate(place.gfn()) == 1 && decrease(place.gfn()) == 1, 1);
    })
}

/// Large extents: each is to be zeroed.
pub fn blocks_taken_and_given() -> Verdict {
    let block = Frame::take_aligned(512);
    put(0, block.address());
    race(
        LONG_US,
        &[
            |_| {
                abi::reservation(abi::MEM_DECREASE_RESERVATION, &mut [frame(0).gfn()], 9);
                abi::reservation(abi::MEM_POPULATE_PHYSMAP, &mut [frame(0).gfn()], 9);
            },
            |_| {
                call(SCHED_OP, [abi::SCHEDOP_YIELD, 0, 0, 0, 0]);
            },
        ],
    )
}

pub fn multicalls() -> Verdict {
    let list = Frame::take_aligned(4);
    for n in 0..256 {
        list.nth(n / 64).write(n % 64 * 64, XEN_VERSION);
    }
    put(0, list.address());
    crowd(LONG_US, |_| must(call(MULTICALL, [got(0), 256, 0, 0, 0]) == 0, 1))
}

pub fn calls_of_firmware() -> Verdict {
    crowd(LONG_US, |n| {
        must(psci::call_by_hvc(psci::VERSION, 0, 0, 0)[0] != 0, 1);
        psci::call_by_smc(0x8400_0000 | n & 0xff | 1 << 8, n, n, n);
        psci::call_by_hvc(psci::AFFINITY_INFO, n & 3, 0, 0);
    })
}

fn does_nothing() {}

pub fn vcpus_on_and_off() -> Verdict {
    race(
        LONG_US,
        &[
            |_| {
                smp::start(3, does_nothing);
            },
            |_| {
                smp::start(3, does_nothing);
                psci::call(psci::AFFINITY_INFO, 3, 0, 0);
            },
        ],
    )?;
    ensure!(clock::poll_for(30_000_000, || smp::is_off(3)));
    Ok(())
}

pub fn resets_of_full_tables() -> Verdict {
    fresh()?;
    for _ in 0..3 {
        while bind_ipi(0).is_ok() {}
        ensure_eq!(event::reset(DOMID_SELF), 0);
    }
    fresh().map(|_| ())
}

pub fn lines_of_the_console() -> Verdict {
    for n in 0..400 {
        guests::println!("# a line that says nothing, of many: {n}");
    }
    Ok(())
}

/// User mode does what it can: undefined instructions, aborts, supervisor calls.
pub fn faults_of_user_mode() -> Verdict {
    put(0, hole()?.address());
    crowd(LONG_US, |n| {
        let word =
            [0xe590_0000, crate::common::code::hvc(0xea1), crate::common::code::smc(0), 0xe7f0_00f0][n as usize & 3];
        let fault = crate::common::Code::page().run_in_user_mode(&[word], got(0), 0);
        must(fault.is_some(), 1);
    })
}

pub fn questions_about_memory() -> Verdict {
    crowd(LONG_US, |_| {
        let mut domain = u32::from(DOMID_SELF);
        must(call_with(MEMORY_OP, abi::MEM_MAXIMUM_GPFN, &mut domain) > 0, 1);
        let mut ports = [0_u32; 4];
        must(call_with(guests::hypercall::EVENT_CHANNEL_OP, events::SEND, &mut ports) < 0, 2);
    })
}
