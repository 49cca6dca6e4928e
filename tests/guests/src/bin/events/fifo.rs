//! The FIFO interface: control blocks, event words, queues (abi.md 4.2).

use core::sync::atomic::Ordering;

use guests::event::{
    self, ControlBlock, FIFO_LINK_MASK, FIFO_LINKED, FIFO_MASKED, FIFO_PENDING, FIFO_WORDS_PER_PAGE, bind_ipi, send,
    unmask,
};
use guests::harness::{Failure, Verdict, expect};
use guests::memory::{Frame, PAGE_SIZE};
use guests::status::{EACCES, EINVAL, ENOENT, ENOSPC, ENOSYS, EOPNOTSUPP};
use guests::{ensure, ensure_eq, interrupt, platform};

use crate::{World, fresh, other_takes, register_other, sleep_for_upcall};

/// A domain with the FIFO interface: control block of vCPU 0, one page of event words.
struct Fifo {
    world: World,
    control: ControlBlock,
    words: Frame,
}

const DEFAULT_PRIORITY: u32 = 7;

impl Fifo {
    fn new() -> Result<Self, Failure> {
        let world = fresh()?;
        let control = ControlBlock(Frame::take());
        let words = Frame::take();
        ensure_eq!(expect(event::init_control(control.0.gfn(), 0, 0))?, 17);
        ensure_eq!(event::expand_array(words.gfn()), 0);
        Ok(Fifo { world, control, words })
    }

    fn word(&self, port: u32) -> u32 {
        self.words.read(port * 4)
    }

    /// An IPI port of vCPU 0: the simplest that one can send to oneself.
    fn port(&self) -> Result<u32, Failure> {
        expect(bind_ipi(0))
    }

    /// Consumes a word like a kernel: clears PENDING, LINKED and the link.
    fn consume(&self, port: u32) {
        self.words.word(port * 4).fetch_and(!(FIFO_PENDING | FIFO_LINKED | FIFO_LINK_MASK), Ordering::SeqCst);
    }
}

pub fn fifo_control_block_must_be_aligned_and_within_ram() -> Verdict {
    fresh()?;
    let frame = Frame::take();
    const SIZE: u32 = 72;
    for offset in [4, PAGE_SIZE - SIZE + 8, PAGE_SIZE, u32::MAX] {
        ensure_eq!(event::init_control(frame.gfn(), offset, 0).err().unwrap_or(0), EINVAL, offset);
    }
    ensure_eq!(event::init_control(0xf_0000, 0, 0).err().unwrap_or(0), EINVAL);
    ensure_eq!(event::init_control(frame.gfn(), 0, platform::get().cpus).err().unwrap_or(0), ENOENT);
    Ok(())
}

pub fn fifo_control_block_can_be_set_once_per_vcpu() -> Verdict {
    fresh()?;
    let frame = Frame::take();
    ensure_eq!(expect(event::init_control(frame.gfn(), PAGE_SIZE - 72, 0))?, 17);
    ensure_eq!(event::init_control(frame.gfn(), 0, 0).err().unwrap_or(0), EINVAL);
    ensure_eq!(expect(event::init_control(frame.gfn(), 0, 1))?, 17);
    Ok(())
}

pub fn fifo_operations_need_the_fifo_interface() -> Verdict {
    fresh()?;
    let port = expect(bind_ipi(0))?;
    ensure_eq!(event::expand_array(Frame::take().gfn()), EOPNOTSUPP);
    let refused = event::set_priority(port, 0);
    ensure!(refused == EOPNOTSUPP || refused == ENOSYS, refused);
    Ok(())
}

pub fn a_fifo_event_is_linked_ready_and_signalled() -> Verdict {
    let fifo = Fifo::new()?;
    let port = fifo.port()?;
    ensure_eq!(send(port), 0);
    ensure_eq!(fifo.word(port), FIFO_PENDING | FIFO_LINKED);
    ensure_eq!(fifo.control.head(DEFAULT_PRIORITY), port);
    ensure_eq!(fifo.control.ready(), 1 << DEFAULT_PRIORITY);
    ensure!(fifo.world.vcpu.upcall_pending());
    ensure!(interrupt::comes(fifo.world.upcall, 1));
    // The 2-level bitmap is out of use.
    ensure!(!fifo.world.shared.pending(port));
    Ok(())
}

pub fn fifo_events_of_one_priority_form_a_list_in_order() -> Verdict {
    let fifo = Fifo::new()?;
    let ports = [fifo.port()?, fifo.port()?, fifo.port()?];
    for port in [ports[1], ports[2], ports[0]] {
        ensure_eq!(send(port), 0);
    }
    ensure_eq!(fifo.control.head(DEFAULT_PRIORITY), ports[1]);
    ensure_eq!(fifo.word(ports[1]), FIFO_PENDING | FIFO_LINKED | ports[2]);
    ensure_eq!(fifo.word(ports[2]), FIFO_PENDING | FIFO_LINKED | ports[0]);
    ensure_eq!(fifo.word(ports[0]), FIFO_PENDING | FIFO_LINKED);
    Ok(())
}

pub fn fifo_priorities_have_their_own_queues() -> Verdict {
    let fifo = Fifo::new()?;
    let mut ready = 0;
    for priority in [0, 3, 7, 15] {
        let port = fifo.port()?;
        ensure_eq!(event::set_priority(port, priority), 0, priority);
        send(port);
        ready |= 1 << priority;
        ensure_eq!(fifo.control.head(priority), port, priority);
        ensure_eq!(fifo.control.ready(), ready, priority);
    }
    Ok(())
}

pub fn fifo_priority_is_at_most_fifteen() -> Verdict {
    let fifo = Fifo::new()?;
    let port = fifo.port()?;
    for priority in [16, 255, u32::MAX] {
        ensure_eq!(event::set_priority(port, priority), EINVAL, priority);
    }
    ensure_eq!(event::set_priority(port + 1, 1), EACCES);
    Ok(())
}

pub fn a_fifo_event_is_linked_once_until_consumed() -> Verdict {
    let fifo = Fifo::new()?;
    let port = fifo.port()?;
    send(port);
    fifo.control.take_ready();
    fifo.world.vcpu.take_upcall();
    send(port);
    ensure_eq!(fifo.word(port), FIFO_PENDING | FIFO_LINKED);
    ensure_eq!(fifo.control.ready(), 0);
    ensure!(!fifo.world.vcpu.upcall_pending());
    Ok(())
}

pub fn a_consumed_fifo_event_is_linked_again_by_the_next_send() -> Verdict {
    let fifo = Fifo::new()?;
    let port = fifo.port()?;
    for round in 1..=3 {
        send(port);
        ensure!(interrupt::comes(fifo.world.upcall, round), round);
        ensure!(fifo.world.vcpu.take_upcall(), round);
        ensure_eq!(fifo.control.take_ready(), 1 << DEFAULT_PRIORITY, round);
        ensure_eq!(fifo.control.head(DEFAULT_PRIORITY), port, round);
        fifo.consume(port);
    }
    Ok(())
}

pub fn a_masked_fifo_event_is_pending_but_not_linked() -> Verdict {
    let fifo = Fifo::new()?;
    let port = fifo.port()?;
    fifo.words.write(port * 4, FIFO_MASKED);
    ensure_eq!(send(port), 0);
    ensure_eq!(fifo.word(port), FIFO_PENDING | FIFO_MASKED);
    ensure_eq!(fifo.control.ready(), 0);
    ensure!(!fifo.world.vcpu.upcall_pending());
    Ok(())
}

pub fn fifo_unmask_links_what_is_pending() -> Verdict {
    let fifo = Fifo::new()?;
    let port = fifo.port()?;
    fifo.words.write(port * 4, FIFO_MASKED);
    send(port);
    ensure_eq!(unmask(port), 0);
    ensure_eq!(fifo.word(port), FIFO_PENDING | FIFO_LINKED);
    ensure_eq!(fifo.control.head(DEFAULT_PRIORITY), port);
    ensure!(interrupt::comes(fifo.world.upcall, 1));
    Ok(())
}

pub fn an_event_before_its_fifo_page_appears_when_the_page_does() -> Verdict {
    let world = fresh()?;
    let (control, words) = (ControlBlock(Frame::take()), Frame::take());
    expect(event::init_control(control.0.gfn(), 0, 0))?;
    let port = expect(bind_ipi(0))?;
    ensure_eq!(send(port), 0);
    ensure!(!world.vcpu.upcall_pending());
    ensure_eq!(event::expand_array(words.gfn()), 0);
    ensure_eq!(words.read(port * 4), FIFO_PENDING | FIFO_LINKED);
    ensure_eq!(control.head(DEFAULT_PRIORITY), port);
    ensure!(world.vcpu.upcall_pending());
    Ok(())
}

pub fn a_two_level_event_stays_pending_across_the_switch_to_fifo() -> Verdict {
    let world = fresh()?;
    let port = expect(bind_ipi(0))?;
    send(port);
    ensure!(world.shared.pending(port));
    let (control, words) = (ControlBlock(Frame::take()), Frame::take());
    expect(event::init_control(control.0.gfn(), 0, 0))?;
    ensure_eq!(event::expand_array(words.gfn()), 0);
    ensure_eq!(words.read(port * 4) & FIFO_PENDING, FIFO_PENDING);
    Ok(())
}

pub fn a_fifo_event_reaches_the_vcpu_it_is_bound_to() -> Verdict {
    let fifo = Fifo::new()?;
    let other = register_other()?;
    let control = ControlBlock(Frame::take());
    expect(event::init_control(control.0.gfn(), 0, 1))?;
    let port = expect(bind_ipi(1))?;
    other_takes(sleep_for_upcall, port)?;
    ensure_eq!(control.head(DEFAULT_PRIORITY), port);
    ensure_eq!(fifo.control.ready(), 0);
    ensure!(other.take_upcall());
    Ok(())
}

pub fn fifo_array_grows_to_128_pages() -> Verdict {
    let world = fresh()?;
    let control = Frame::take();
    expect(event::init_control(control.gfn(), 0, 0))?;
    let pages = Frame::take_aligned(128);
    for index in 0..128 {
        ensure_eq!(event::expand_array(pages.nth(index).gfn()), 0, index);
    }
    ensure_eq!(event::expand_array(Frame::take().gfn()), ENOSPC);
    ensure!(!world.vcpu.upcall_pending());
    Ok(())
}

pub fn fifo_array_pages_must_be_ram() -> Verdict {
    fresh()?;
    expect(event::init_control(Frame::take().gfn(), 0, 0))?;
    ensure_eq!(event::expand_array(0xf_0000), EINVAL);
    Ok(())
}

pub fn fifo_ports_go_beyond_two_levels() -> Verdict {
    let fifo = Fifo::new()?;
    let mut port = 0;
    while port < 4100 {
        port = expect(bind_ipi(0))?;
    }
    let mut page = fifo.words;
    for _ in 1..=port / FIFO_WORDS_PER_PAGE {
        page = Frame::take();
        ensure_eq!(event::expand_array(page.gfn()), 0);
    }
    ensure_eq!(send(port), 0);
    ensure_eq!(page.read(port % FIFO_WORDS_PER_PAGE * 4), FIFO_PENDING | FIFO_LINKED);
    ensure_eq!(fifo.control.head(DEFAULT_PRIORITY), port);
    Ok(())
}

pub fn reset_returns_to_two_levels() -> Verdict {
    Fifo::new()?;
    let world = fresh()?;
    let port = expect(bind_ipi(0))?;
    ensure_eq!(event::expand_array(Frame::take().gfn()), EOPNOTSUPP);
    send(port);
    ensure!(world.shared.pending(port));
    Ok(())
}
