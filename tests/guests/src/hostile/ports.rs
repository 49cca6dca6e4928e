//! Event channels: ports of others, numbers that are none, and shared words that lie.

use guests::abi::{DOM0, DOMID_ABSENT, DOMID_SELF};
use guests::event::{
    self, ControlBlock, FIFO_LINK_MASK, FIFO_LINKED, FIFO_MASKED, FIFO_PENDING, alloc_loopback, alloc_unbound,
    bind_interdomain, bind_ipi, bind_vcpu, bind_virq, close, send, status, unmask,
};
use guests::harness::{Failure, Verdict, expect};
use guests::hypercall::{EVENT_CHANNEL_OP, call_with};
use guests::memory::{Frame, PAGE_SIZE};
use guests::{ensure, ensure_eq, platform};

use crate::common::{Random, decrease, fresh, hole, populate};

const PORTS_THAT_ARE_NONE: [u32; 9] = [0, 1000, 4095, 4096, 131_071, 131_072, 0x7fff_ffff, 0x8000_0000, u32::MAX];

pub fn every_operation_on_ports_that_are_none() -> Verdict {
    fresh()?;
    for port in PORTS_THAT_ARE_NONE {
        ensure!(close(port) < 0, port);
        ensure!(send(port) < 0, port);
        ensure!(bind_vcpu(port, 0) < 0, port);
        ensure!(event::set_priority(port, 0) < 0, port);
        // Of a port within the table it says that it is closed; its mask may be cleared, as 2-level's is.
        ensure!(status(DOMID_SELF, port).map_or(true, |status| status.status == event::STATUS_CLOSED), port);
        ensure!(unmask(port) <= 0, port);
        for domain in [DOMID_SELF, guests::grant::myself(), DOM0, DOMID_ABSENT] {
            ensure!(bind_interdomain(domain, port).is_err(), port);
        }
    }
    Ok(())
}

pub fn ports_are_offered_for_others() -> Verdict {
    fresh()?;
    for domain in [DOM0, DOMID_ABSENT, 0x7ff1, 0x7ff2, 0x7ff4, 0xffff] {
        ensure!(alloc_unbound(domain, DOMID_SELF).is_err(), domain);
        ensure!(alloc_unbound(domain, domain).is_err(), domain);
    }
    for remote in [DOMID_ABSENT, 0x7ff1, 0x7ff4, 0xffff] {
        let offered = alloc_unbound(DOMID_SELF, remote);
        if let Ok(port) = offered {
            ensure_eq!(send(port), 0, remote);
            ensure_eq!(close(port), 0, remote);
        }
    }
    Ok(())
}

pub fn ports_of_dom0_are_guessed() -> Verdict {
    fresh()?;
    for port in (1..200).chain([1023, 4095]) {
        // Dom0's offers to this domain (its console's other end, after a reset) may be bound.
        if let Ok(own) = bind_interdomain(DOM0, port) {
            ensure_eq!(close(own), 0, port);
        }
        ensure!(status(DOM0, port).is_err(), port);
        ensure!(event::reset(DOM0) < 0);
    }
    Ok(())
}

pub fn virqs_of_every_number() -> Verdict {
    fresh()?;
    for virq in (0..64).chain([255, 0x7fff_ffff, u32::MAX]) {
        for vcpu in [0, 1, 3, 4, 255, u32::MAX] {
            if let Ok(port) = bind_virq(virq, vcpu) {
                ensure!(virq < 24 && vcpu < 4, virq);
                ensure!(bind_virq(virq, vcpu).is_err(), virq);
                ensure!(send(port) < 0, virq);
                ensure!(close(port) == 0, virq);
            }
        }
    }
    for pirq in [0, 27, 32, 1023, u32::MAX] {
        ensure!(call_with(EVENT_CHANNEL_OP, event::BIND_PIRQ, &mut [pirq, 0, 0]) < 0, pirq);
    }
    Ok(())
}

pub fn vcpus_that_are_none_get_events() -> Verdict {
    fresh()?;
    let port = expect(alloc_loopback())?;
    for vcpu in [4, 5, 127, 128, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
        ensure!(bind_ipi(vcpu).is_err(), vcpu);
        ensure!(bind_vcpu(port, vcpu) < 0, vcpu);
    }
    // One that is off.
    let ipi = expect(bind_ipi(3))?;
    ensure_eq!(bind_vcpu(port, 3), 0);
    let sender = expect(bind_interdomain(DOMID_SELF, port))?;
    for _ in 0..100 {
        ensure_eq!(send(ipi), 0);
        ensure_eq!(send(sender), 0);
    }
    Ok(())
}

pub fn ports_until_there_are_no_more() -> Verdict {
    fresh()?;
    let mut last = 0;
    let refused = loop {
        match bind_ipi(last & 3) {
            Ok(port) => last = port,
            Err(error) => break error,
        }
    };
    ensure_eq!(last, 4095);
    ensure_eq!(refused, guests::status::ENOSPC);
    ensure!(alloc_loopback().is_err() && bind_virq(0, 0).is_err());
    ensure!(alloc_unbound(DOMID_SELF, DOM0).is_err());
    ensure_eq!(send(last), 0);
    fresh().map(|_| ())
}

/// FIFO, with this many pages of event words.
fn fifo(pages: u32) -> Result<(ControlBlock, Frame), Failure> {
    fresh()?;
    let (control, words) = (Frame::take(), Frame::take_aligned(pages));
    expect(event::init_control(control.gfn(), 0, 0))?;
    for page in 0..pages {
        ensure_eq!(event::expand_array(words.nth(page).gfn()), 0, page);
    }
    Ok((ControlBlock(control), words))
}

pub fn ports_by_the_ten_thousand() -> Verdict {
    const PORTS: u32 = 20_000;
    let (_, words) = fifo(32)?;
    let mut last = 0;
    while last < PORTS {
        last = expect(bind_ipi(last & 3))?;
    }
    for port in (1..PORTS).step_by(7) {
        ensure_eq!(send(port), 0, port);
    }
    ensure!(words.read(8 * 4) & FIFO_PENDING != 0);
    fresh().map(|_| ())
}

pub fn control_blocks_in_places_that_are_none() -> Verdict {
    fresh()?;
    let (hole, page) = (hole()?, Frame::take());
    let machine = platform::get();
    for (gfn, offset, vcpu) in [
        (page.gfn(), 1, 0),
        (page.gfn(), 4, 0),
        (page.gfn(), PAGE_SIZE - 64, 0),
        (page.gfn(), PAGE_SIZE, 0),
        (page.gfn(), u32::MAX - 7, 0),
        (page.gfn(), 0, 4),
        (page.gfn(), 0, u32::MAX),
        (hole.gfn(), 0, 0),
        (u64::from(machine.distributor >> 12), 0, 0),
        (u64::from(machine.cpu_interface >> 12), 0, 0),
        (1 << 28, 0, 0),
        (u64::MAX, 0, 0),
    ] {
        ensure!(event::init_control(gfn, offset, vcpu).is_err(), offset);
        ensure!(event::expand_array(gfn) < 0, offset);
        // The ports that were there are there.
        let port = expect(bind_ipi(0))?;
        ensure_eq!(send(port), 0, offset);
        ensure_eq!(close(port), 0, offset);
    }
    Ok(())
}

pub fn pages_of_words_that_are_none() -> Verdict {
    let (_, _) = fifo(1)?;
    for gfn in [hole()?.gfn(), 0x8000, 1 << 28, u64::MAX] {
        ensure!(event::expand_array(gfn) < 0, gfn);
    }
    // One page for all of them, until there are enough.
    let page = Frame::take();
    let mut pages = 0;
    while pages < 200 && event::expand_array(page.gfn()) == 0 {
        pages += 1;
    }
    ensure!(pages <= 127, pages);
    for _ in 0..2000 {
        ensure!(bind_ipi(0).is_ok());
    }
    for port in 1000..2000 {
        ensure_eq!(send(port), 0, port);
    }
    fresh().map(|_| ())
}

fn hostile_words(value: fn(u32, &mut Random) -> u32) -> Verdict {
    let (control, words) = fifo(1)?;
    let ports = [expect(bind_ipi(0))?, expect(bind_ipi(0))?, expect(bind_ipi(0))?, expect(bind_ipi(0))?];
    let mut random = Random::new(17);
    for n in 0..2000 {
        for port in ports {
            words.write(port * 4, value(port, &mut random));
        }
        if n % 3 == 0 {
            let word = random.below(18);
            control.0.write(word * 4, random.word());
        }
        for port in ports {
            ensure_eq!(send(port), 0, n);
            ensure_eq!(unmask(port), 0, n);
        }
    }
    // After all that an honest event arrives.
    let (control, words) = fifo(1)?;
    let port = expect(bind_ipi(0))?;
    ensure_eq!(send(port), 0);
    ensure_eq!(words.read(port * 4), FIFO_PENDING | FIFO_LINKED);
    ensure_eq!(control.head(7), port);
    fresh().map(|_| ())
}

pub fn event_words_by_chance() -> Verdict {
    hostile_words(|_, random| random.word())
}

pub fn event_words_that_link_to_themselves() -> Verdict {
    hostile_words(|port, random| FIFO_LINKED | port | random.word() & FIFO_PENDING)
}

pub fn event_words_that_link_in_rings() -> Verdict {
    hostile_words(|port, random| FIFO_LINKED | (port % 4 + 1) | random.word() & (FIFO_PENDING | FIFO_MASKED))
}

pub fn event_words_that_link_beyond_the_table() -> Verdict {
    hostile_words(|_, random| FIFO_LINKED | FIFO_LINK_MASK & (random.word() | 0x1_0000))
}

pub fn event_words_that_are_busy_for_ever() -> Verdict {
    hostile_words(|_, random| 1 << 28 | FIFO_LINKED | random.word() & FIFO_LINK_MASK)
}

pub fn event_words_that_are_all_ones() -> Verdict {
    hostile_words(|_, _| u32::MAX)
}

pub fn pages_of_words_are_given_away() -> Verdict {
    let (control, words) = fifo(2)?;
    let port = expect(bind_ipi(0))?;
    ensure_eq!(decrease(words.gfn()), 1);
    ensure_eq!(decrease(control.0.gfn()), 1);
    // Nobody else has them as long as they are used.
    for _ in 0..64 {
        let taken = Frame::take();
        ensure_eq!(decrease(taken.gfn()), 1);
        ensure_eq!(populate(taken.gfn()), 1);
        ensure_eq!(send(port), 0);
        ensure_eq!(taken.read(port * 4) | taken.read(0), 0);
    }
    fresh()?;
    ensure_eq!(populate(words.gfn()), 1);
    ensure_eq!(populate(control.0.gfn()), 1);
    ensure_eq!(words.read(port * 4) | control.0.read(0), 0);
    Ok(())
}

pub fn one_page_for_everything() -> Verdict {
    fresh()?;
    let page = Frame::take();
    // Control blocks of all vCPUs upon each other, and event words upon them.
    for vcpu in 0..4 {
        expect(event::init_control(page.gfn(), 0, vcpu))?;
    }
    ensure_eq!(event::expand_array(page.gfn()), 0);
    for n in 0..1000 {
        let port = expect(bind_ipi(n & 3))?;
        ensure_eq!(event::set_priority(port, n & 15), 0, n);
        ensure_eq!(send(port), 0, n);
    }
    fresh().map(|_| ())
}

pub fn events_for_a_vcpu_without_a_control_block() -> Verdict {
    let (control, words) = fifo(1)?;
    let port = expect(bind_ipi(2))?;
    for _ in 0..100 {
        ensure_eq!(send(port), 0);
    }
    let own = expect(alloc_loopback())?;
    let sender = expect(bind_interdomain(DOMID_SELF, own))?;
    ensure_eq!(bind_vcpu(own, 2), 0);
    ensure_eq!(send(sender), 0);
    ensure_eq!(bind_vcpu(own, 0), 0);
    ensure_eq!(send(sender), 0);
    // It is kept, and shows with the control block.
    expect(event::init_control(Frame::take().gfn(), 0, 2))?;
    ensure_eq!(send(port), 0);
    ensure!(words.read(port * 4) & FIFO_PENDING != 0);
    ensure!(control.0.read(0) != u32::MAX);
    fresh().map(|_| ())
}

pub fn bitmaps_that_are_all_ones() -> Verdict {
    let (shared, vcpu) = fresh()?;
    let port = expect(bind_ipi(0))?;
    for pattern in [u32::MAX, 0xaaaa_aaaa, 0x5555_5555, 0] {
        for offset in (0..PAGE_SIZE).step_by(4) {
            shared.0.write(offset, pattern);
        }
        for n in 0..200 {
            ensure_eq!(send(port), 0, n);
            ensure!(unmask(n) <= 0, n);
        }
    }
    shared.clear_all();
    for offset in (0..PAGE_SIZE).step_by(4) {
        shared.0.write(offset, 0);
    }
    vcpu.take_upcall();
    vcpu.take_selector();
    ensure_eq!(send(port), 0);
    ensure!(shared.pending(port) && vcpu.upcall_pending());
    Ok(())
}

pub fn priorities_that_are_none() -> Verdict {
    let (control, _) = fifo(1)?;
    let port = expect(bind_ipi(0))?;
    for priority in (16..40).chain([255, 0x7fff_ffff, u32::MAX]) {
        ensure!(event::set_priority(port, priority) < 0, priority);
    }
    ensure_eq!(send(port), 0);
    ensure_eq!(control.head(7), port);
    fresh().map(|_| ())
}

pub fn ports_that_lead_to_themselves() -> Verdict {
    fresh()?;
    let port = expect(alloc_loopback())?;
    // It is not offered any more once it is bound; to itself it cannot be.
    let bound = bind_interdomain(DOMID_SELF, port);
    ensure!(bound.is_ok_and(|other| other != port));
    ensure!(bind_interdomain(DOMID_SELF, port).is_err());
    ensure!(bind_interdomain(guests::grant::myself(), port).is_err());
    ensure_eq!(close(port), 0);
    ensure!(close(port) < 0);
    ensure!(bound.is_ok_and(|other| send(other) == 0 && close(other) == 0 && send(other) < 0));
    Ok(())
}

pub fn interfaces_are_changed_under_way() -> Verdict {
    for _ in 0..100 {
        let (shared, _) = fresh()?;
        let (two_level, control, words) = (expect(bind_ipi(0))?, cached(0), cached(1));
        ensure_eq!(send(two_level), 0);
        ensure!(shared.pending(two_level));
        expect(event::init_control(control.gfn(), 0, 0))?;
        ensure_eq!(send(two_level), 0);
        ensure_eq!(event::expand_array(words.gfn()), 0);
        ensure_eq!(send(two_level), 0);
        ensure!(event::init_control(control.gfn(), 512, 0).is_err());
    }
    fresh().map(|_| ())
}

/// One of two frames that are taken once.
fn cached(which: usize) -> Frame {
    use core::sync::atomic::{AtomicU32, Ordering};
    static FRAMES: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];
    if FRAMES[which].load(Ordering::Relaxed) == 0 {
        FRAMES[which].store(Frame::take().address(), Ordering::Relaxed);
    }
    Frame::at(FRAMES[which].load(Ordering::Relaxed))
}
