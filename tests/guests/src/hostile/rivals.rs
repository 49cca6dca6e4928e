//! vCPUs against each other: ports, interrupts, timers, and what the vCPUs are themselves. Steps are as in `races`.

use guests::abi::{self, DOMID_SELF, Poll};
use guests::event::{self, bind_ipi, bind_vcpu, close, send, unmask};
use guests::gic::{self, distributor};
use guests::harness::{Verdict, expect};
use guests::hypercall::{EVENT_CHANNEL_OP, HVM_OP, MEMORY_OP, SCHED_OP, VCPU_OP, address_of, call, call_with};
use guests::memory::{self, Frame};
use guests::mmio::write32;
use guests::{cp15, ensure, ensure_eq, interrupt, psci, smp};

use crate::common::{SOME_US, Step, crowd, decrease, frame, fresh, got, mix, must, populate, put, quiet, race};

const PAGE: usize = 0;
const PLACES: usize = 1;
const PORT: usize = 3;

pub fn fifo_begins_and_ends_at_once() -> Verdict {
    fresh()?;
    put(PAGE, Frame::take().address());
    put(PLACES, Frame::take().address());
    fn begins(_: u32) {
        event::init_control(frame(PAGE).gfn(), 0, 0).ok();
        event::expand_array(frame(PLACES).gfn());
    }
    race(
        SOME_US,
        &[
            |_| {
                event::reset(DOMID_SELF);
            },
            begins,
            begins,
            |_| {
                if let Ok(port) = bind_ipi(0) {
                    send(port);
                }
            },
        ],
    )?;
    fresh().map(|_| ())
}

pub fn ports_are_used_while_all_are_closed() -> Verdict {
    fresh()?;
    fn uses(n: u32) {
        if let Ok(port) = bind_ipi(n & 3) {
            send(port);
            unmask(port);
            bind_vcpu(port, 1);
            event::status(DOMID_SELF, port).ok();
            let mut ports = [port, port + 1];
            let mut poll = Poll { ports: address_of(&mut ports).into(), count: 2, timeout: 1, ..Poll::default() };
            call_with(SCHED_OP, abi::SCHEDOP_POLL, &mut poll);
            close(port);
        }
    }
    race(
        SOME_US,
        &[
            |_| {
                event::reset(DOMID_SELF);
            },
            uses,
            uses,
            uses,
        ],
    )?;
    fresh().map(|_| ())
}

pub fn both_ends_are_closed_at_once() -> Verdict {
    fresh()?;
    put(PORT, 0);
    put(7, 0);
    race(
        SOME_US,
        &[
            |_| {
                let Ok(port) = event::alloc_loopback() else { return };
                let Ok(other) = event::bind_interdomain(DOMID_SELF, port) else {
                    close(port);
                    return;
                };
                put(PORT, port);
                put(7, other);
                close(port);
                close(other);
            },
            |_| {
                send(got(PORT));
                close(got(7));
            },
            |_| {
                close(got(PORT));
                send(got(7));
            },
        ],
    )?;
    fresh().map(|_| ())
}

pub fn ports_come_and_go_on_all_vcpus() -> Verdict {
    fresh()?;
    crowd(SOME_US, |n| {
        if let Ok(port) = bind_ipi(n & 3) {
            must(send(port) == 0, 1);
            must(close(port) == 0, 2);
        }
    })?;
    ensure_eq!(expect(bind_ipi(0))?, 1);
    fresh().map(|_| ())
}

pub fn a_port_moves_while_it_is_sent_to() -> Verdict {
    fresh()?;
    let port = expect(event::alloc_loopback())?;
    put(PORT, port);
    put(7, expect(event::bind_interdomain(DOMID_SELF, port))?);
    race(
        SOME_US,
        &[
            |n| {
                must(bind_vcpu(got(PORT), n & 3) == 0, 1);
            },
            |_| {
                must(send(got(7)) == 0, 2);
            },
            |_| {
                must(unmask(got(PORT)) == 0, 3);
            },
        ],
    )?;
    fresh().map(|_| ())
}

pub fn fifo_priorities_change_under_way() -> Verdict {
    fresh()?;
    let (control, words) = (Frame::take(), Frame::take());
    expect(event::init_control(control.gfn(), 0, 0))?;
    ensure_eq!(event::expand_array(words.gfn()), 0);
    put(PORT, expect(bind_ipi(0))?);
    put(PAGE, words.address());
    put(PLACES, control.address());
    race(
        SOME_US,
        &[
            |n| {
                must(event::set_priority(got(PORT), n & 15) == 0, 1);
            },
            |_| {
                must(send(got(PORT)) == 0, 2);
            },
            |n| frame(PAGE).write(got(PORT) * 4, mix(n)),
            |n| frame(PLACES).write(mix(n) % 18 * 4, mix(n + 1)),
        ],
    )?;
    fresh().map(|_| ())
}

pub fn event_words_are_written_while_they_are_linked() -> Verdict {
    fresh()?;
    let (control, words) = (Frame::take(), Frame::take());
    expect(event::init_control(control.gfn(), 0, 0))?;
    ensure_eq!(event::expand_array(words.gfn()), 0);
    for _ in 0..8 {
        expect(bind_ipi(0))?;
    }
    put(PAGE, words.address());
    fn sends(n: u32) {
        must(send(1 + (n & 7)) == 0, 1);
    }
    race(
        SOME_US,
        &[sends, sends, sends, |n| {
            let port = 1 + (n & 7);
            // An exclusive that never ends would keep a sender.
            frame(PAGE).word(port * 4).fetch_xor(mix(n), core::sync::atomic::Ordering::SeqCst);
        }],
    )?;
    fresh().map(|_| ())
}

pub fn vcpu_info_is_registered_by_all() -> Verdict {
    put(PAGE, Frame::take().address());
    crowd(SOME_US, |n| {
        let answer = event::register_vcpu_info(2 + (n & 1), frame(PAGE).gfn(), (n & 31) * 64);
        must(answer <= 0, 1);
    })
}

pub fn run_state_moves_while_its_page_leaves() -> Verdict {
    put(PAGE, Frame::take_aligned(2).address());
    fn registers(n: u32) {
        let mut place = u64::from(got(PAGE) + (n & 0x3ff) * 8);
        let vcpu = cp15::cpu_index() as u32;
        must(call(VCPU_OP, [abi::VCPUOP_REGISTER_RUNSTATE, vcpu, address_of(&mut place), 0, 0]) <= 0, 1);
        call(SCHED_OP, [abi::SCHEDOP_YIELD, 0, 0, 0, 0]);
    }
    race(
        SOME_US,
        &[registers, registers, registers, |n| {
            let page = frame(PAGE).nth(n & 1);
            decrease(page.gfn());
            populate(page.gfn());
        }],
    )?;
    let mut place = u64::from(Frame::take().address());
    ensure_eq!(call(VCPU_OP, [abi::VCPUOP_REGISTER_RUNSTATE, 0, address_of(&mut place), 0, 0]), 0);
    Ok(())
}

/// A vCPU that the racers of `race` do not use.
const LAST: usize = 3;

fn does_nothing() {}

fn starts_the_last(_: u32) {
    let answer = smp::start(LAST, does_nothing);
    must(answer == 0 || answer == guests::status::psci::ALREADY_ON || answer == -5, 1);
}

pub fn two_start_a_third() -> Verdict {
    race(SOME_US, &[starts_the_last, starts_the_last])?;
    ensure!(guests::clock::poll_for(30_000_000, || smp::is_off(LAST)));
    Ok(())
}

pub fn a_vcpu_starts_while_it_gets_everything() -> Verdict {
    fresh()?;
    put(PORT, expect(bind_ipi(LAST as u32))?);
    race(
        SOME_US,
        &[
            starts_the_last,
            |n| {
                gic::send_sgi(gic::Target::List(1 << LAST), n & 15);
                send(got(PORT));
            },
            |_| {
                psci::call(psci::AFFINITY_INFO, LAST as u32, 0, 0);
            },
        ],
    )?;
    ensure!(guests::clock::poll_for(30_000_000, || smp::is_off(LAST)));
    quiet();
    fresh().map(|_| ())
}

pub fn an_interrupt_is_enabled_and_disabled_while_it_comes() -> Verdict {
    race(
        SOME_US,
        &[
            |n| {
                gic::send_sgi(gic::Target::Myself, 5);
                let value = gic::acknowledge();
                if value & gic::INTID_MASK != gic::SPURIOUS {
                    gic::end(value);
                }
                if n & 1 == 0 { gic::disable(5) } else { gic::enable(5) }
            },
            |_| gic::send_sgi(gic::Target::List(1), 5),
            |n| write32(distributor(gic::CTLR), n & 1),
        ],
    )?;
    quiet();
    Ok(())
}

pub fn sgis_from_all_to_all() -> Verdict {
    crowd(SOME_US, |n| {
        gic::send_sgi(gic::Target::List(mix(n) & 0xff), n & 15);
        let value = gic::acknowledge();
        if value & gic::INTID_MASK != gic::SPURIOUS {
            gic::end(value);
        }
    })?;
    quiet();
    Ok(())
}

pub fn priorities_and_pending_bits_change_under_way() -> Verdict {
    race(
        SOME_US,
        &[
            |_| {
                let value = gic::acknowledge();
                if value & gic::INTID_MASK != gic::SPURIOUS {
                    gic::end(value);
                }
            },
            |n| gic::send_sgi(gic::Target::List(1), n & 15),
            |n| {
                gic::set_priority(n & 15, mix(n) & 0xff);
                write32(distributor(gic::CPENDSGIR + (n & 3) * 4), mix(n));
                write32(distributor(gic::SPENDSGIR + (n & 3) * 4), mix(n + 1));
            },
            |n| {
                write32(distributor(gic::ISACTIVER), mix(n) & 0xffff);
                write32(distributor(gic::ICACTIVER), u32::MAX);
            },
        ],
    )?;
    quiet();
    Ok(())
}

pub fn timers_are_set_by_all_at_once() -> Verdict {
    crowd(SOME_US, |n| {
        cp15::write_cntv_tval(mix(n) & 0xffff);
        cp15::write_cntv_ctl(interrupt::TIMER_ENABLED | n & 2);
        cp15::write_cntp_tval(mix(n));
        cp15::write_cntp_ctl(interrupt::TIMER_ENABLED | mix(n) & 2);
        gic::send_sgi(gic::Target::Others, n & 15);
        cp15::write_cntv_ctl(0);
        cp15::write_cntp_ctl(0);
    })?;
    quiet();
    Ok(())
}

pub fn parameters_are_asked_for_by_all() -> Verdict {
    crowd(SOME_US, |n| {
        let mut argument = abi::HvmParameter { domid: DOMID_SELF, pad: 0, index: n & 63, value: 0 };
        call_with(HVM_OP, abi::HVMOP_GET_PARAM, &mut argument);
        call_with(HVM_OP, abi::HVMOP_SET_PARAM, &mut argument);
        let mut word = u32::from(DOMID_SELF);
        must(call_with(MEMORY_OP, abi::MEM_MAXIMUM_GPFN, &mut word) > 0, 1);
    })
}

pub fn watchdogs_are_set_by_all() -> Verdict {
    crowd(SOME_US, |n| {
        let mut argument = [0, 0x10_0000 + (n & 0xff)];
        let id = call_with(SCHED_OP, abi::SCHEDOP_WATCHDOG, &mut argument);
        if id > 0 {
            let mut argument = [id as u32, 0];
            call_with(SCHED_OP, abi::SCHEDOP_WATCHDOG, &mut argument);
        }
    })?;
    for id in 1..=2 {
        let mut argument = [id, 0_u32];
        call_with(SCHED_OP, abi::SCHEDOP_WATCHDOG, &mut argument);
    }
    Ok(())
}

/// A call that a port's events wake, while the port is closed and bound again.
pub fn a_sleeper_is_woken_by_what_is_closed() -> Verdict {
    fresh()?;
    put(PORT, expect(bind_ipi(0))?);
    let steps: [Step; 3] = [
        |_| {
            let mut ports = [got(PORT)];
            let deadline = guests::clock::now();
            let mut poll =
                Poll { ports: address_of(&mut ports).into(), count: 1, timeout: 1 + deadline, ..Poll::default() };
            call_with(SCHED_OP, abi::SCHEDOP_POLL, &mut poll);
        },
        |_| {
            send(got(PORT));
            close(got(PORT));
            if let Ok(port) = bind_ipi(0) {
                put(PORT, port);
            }
        },
        |_| {
            call(EVENT_CHANNEL_OP, [event::UNMASK, memory::UNMAPPED, 0, 0, 0]);
            send(got(PORT));
        },
    ];
    race(SOME_US, &steps)?;
    fresh().map(|_| ())
}
