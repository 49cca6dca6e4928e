//! Event channels: every sub-operation, the two shared-memory interfaces, and delivery by the upcall interrupt (abi.md
//! section 4). Each test begins with EVTCHNOP_reset: no ports, 2-level interface.
#![no_std]
#![no_main]

mod fifo;

use core::sync::atomic::{AtomicU32, Ordering};

use guests::abi::{DOMID_ABSENT, DOMID_SELF};
use guests::event::{
    self, SharedInfo, VcpuInfo, alloc_loopback, bind_interdomain, bind_ipi, bind_vcpu, bind_virq, close, send, status,
    unmask,
};
use guests::harness::{Failure, Verdict, expect};
use guests::hypercall::{EVENT_CHANNEL_OP, call, call_with};
use guests::memory::{self, Frame};
use guests::status::{EEXIST, EFAULT, EINVAL, ENOENT, ENOSPC, ENOSYS, EPERM, ESRCH};
use guests::{clock, cp15, domain, ensure, ensure_eq, gic, interrupt, platform, smp, suite};

suite! { "events":
    ports_are_allocated_lowest_first_from_one,
    an_unbound_port_says_who_may_bind_it,
    alloc_unbound_for_an_absent_domain_returns_esrch,
    bind_interdomain_joins_two_ports,
    a_fresh_binding_is_pending_at_the_binder,
    bind_interdomain_refuses_ports_that_are_not_offered,
    closing_one_end_leaves_the_other_unbound,
    close_of_a_closed_or_absent_port_returns_einval,
    status_of_a_closed_port_says_so,
    status_refuses_absent_ports_and_domains,
    bind_virq_binds_each_once,
    bind_virq_refuses_absent_virqs_and_vcpus,
    a_global_virq_binds_to_vcpu_0_only,
    bind_pirq_is_refused,
    output_of_the_hypervisor_raises_its_virq_in_dom0,
    bind_ipi_refuses_absent_vcpus,
    bind_vcpu_moves_interdomain_ports_only,
    send_on_a_port_that_cannot_send_returns_einval,
    send_on_an_unbound_port_is_silent,
    unknown_operations_return_enosys,
    unreadable_arguments_return_efault,
    reset_closes_every_port,
    two_levels_hold_4095_ports,

    a_send_sets_pending_selector_and_upcall,
    the_upcall_interrupt_comes_once,
    further_sends_while_an_upcall_is_pending_do_not_interrupt,
    each_taken_upcall_allows_the_next_interrupt,
    an_upcall_waits_for_the_cpsr_mask,
    an_upcall_waits_for_the_distributor_enable,
    a_masked_event_is_pending_without_upcall,
    unmask_delivers_what_is_pending,
    unmask_of_a_quiet_port_only_clears_the_mask,
    unmask_of_an_absent_port_returns_einval,
    an_ipi_port_interrupts_its_own_vcpu,
    wfi_returns_for_an_event_though_interrupts_are_masked,
    an_event_reaches_the_vcpu_it_is_bound_to,
    an_event_wakes_a_vcpu_that_waits,

    fifo::fifo_control_block_must_be_aligned_and_within_ram,
    fifo::fifo_control_block_can_be_set_once_per_vcpu,
    fifo::fifo_operations_need_the_fifo_interface,
    fifo::a_fifo_event_is_linked_ready_and_signalled,
    fifo::fifo_events_of_one_priority_form_a_list_in_order,
    fifo::fifo_priorities_have_their_own_queues,
    fifo::fifo_priority_is_at_most_fifteen,
    fifo::a_fifo_event_is_linked_once_until_consumed,
    fifo::a_consumed_fifo_event_is_linked_again_by_the_next_send,
    fifo::a_masked_fifo_event_is_pending_but_not_linked,
    fifo::fifo_unmask_links_what_is_pending,
    fifo::a_fifo_event_reaches_the_vcpu_it_is_bound_to,
    fifo::fifo_array_grows_to_128_pages,
    fifo::fifo_array_pages_must_be_ram,
    fifo::fifo_ports_go_beyond_two_levels,
    fifo::reset_returns_to_two_levels,

    // Last, because Xen remembers the early event beyond a reset and raises it again with every later page.
    fifo::a_two_level_event_stays_pending_across_the_switch_to_fifo,
    fifo::an_event_before_its_fifo_page_appears_when_the_page_does,
}

/// VIRQs (abi.md 4).
const VIRQ_TIMER: u32 = 0;
const VIRQ_DEBUG: u32 = 1;
const VIRQ_DOM_EXC: u32 = 3;
const VIRQ_CON_RING: u32 = 8;
const NR_VIRQS: u32 = 24;

/// The shared pages; hypervisor pages can be mapped once, so they live as long as the guest.
#[derive(Clone, Copy)]
struct World {
    shared: SharedInfo,
    vcpu: VcpuInfo,
    upcall: u32,
}

/// Closes all ports, returns to two levels, forgets what was pending.
fn fresh() -> Result<World, Failure> {
    static SHARED: AtomicU32 = AtomicU32::new(0);
    interrupt::reset();
    let known = SHARED.load(Ordering::Relaxed);
    let shared = if known == 0 { expect(SharedInfo::map())? } else { SharedInfo(Frame::at(known)) };
    SHARED.store(shared.0.address(), Ordering::Relaxed);
    let upcall = platform::get().event_interrupt;
    let world = World { shared, vcpu: VcpuInfo(shared.0.address()), upcall };
    ensure_eq!(event::reset(DOMID_SELF), 0);
    gic::enable(upcall);
    interrupt::settle();
    shared.clear_all();
    world.vcpu.take_upcall();
    world.vcpu.take_selector();
    interrupt::reset();
    Ok(world)
}

/// Two ports of this domain bound to each other: send on the first, receive on the second; nothing pending.
fn loopback(world: World) -> Result<(u32, u32), Failure> {
    let receiver = expect(alloc_loopback())?;
    let sender = expect(bind_interdomain(DOMID_SELF, receiver))?;
    // Binding marks the binder's end pending and upcalls.
    interrupt::settle();
    world.shared.clear_pending(sender);
    world.vcpu.take_upcall();
    world.vcpu.take_selector();
    interrupt::reset();
    Ok((sender, receiver))
}

fn ports_are_allocated_lowest_first_from_one() -> Verdict {
    fresh()?;
    for expected in 1..=4 {
        ensure_eq!(expect(alloc_loopback())?, expected);
    }
    ensure_eq!(close(2), 0);
    ensure_eq!(close(3), 0);
    ensure_eq!(expect(bind_ipi(0))?, 2);
    ensure_eq!(expect(alloc_loopback())?, 3);
    ensure_eq!(expect(alloc_loopback())?, 5);
    Ok(())
}

fn an_unbound_port_says_who_may_bind_it() -> Verdict {
    fresh()?;
    let port = expect(alloc_loopback())?;
    let status = expect(status(DOMID_SELF, port))?;
    ensure_eq!(status.status, event::STATUS_UNBOUND);
    ensure_eq!(status.vcpu, 0);
    // DOMID_SELF was replaced by the real number.
    ensure!(status.detail & 0xffff < 0x7ff0, status.detail);
    Ok(())
}

fn alloc_unbound_for_an_absent_domain_returns_esrch() -> Verdict {
    fresh()?;
    ensure_eq!(event::alloc_unbound(DOMID_ABSENT, DOMID_SELF).err().unwrap_or(0), ESRCH);
    Ok(())
}

fn bind_interdomain_joins_two_ports() -> Verdict {
    let (sender, receiver) = loopback(fresh()?)?;
    for (port, other) in [(sender, receiver), (receiver, sender)] {
        let status = expect(status(DOMID_SELF, port))?;
        ensure_eq!(status.status, event::STATUS_INTERDOMAIN, port);
        ensure_eq!(status.remote_port, other);
    }
    Ok(())
}

fn a_fresh_binding_is_pending_at_the_binder() -> Verdict {
    let world = fresh()?;
    let receiver = expect(alloc_loopback())?;
    ensure!(!world.shared.pending(receiver));
    let sender = expect(bind_interdomain(DOMID_SELF, receiver))?;
    ensure!(world.shared.pending(sender));
    ensure!(!world.shared.pending(receiver));
    ensure!(world.vcpu.upcall_pending());
    Ok(())
}

fn bind_interdomain_refuses_ports_that_are_not_offered() -> Verdict {
    let (sender, receiver) = loopback(fresh()?)?;
    for port in [sender, receiver, 0, receiver + 10, u32::MAX] {
        ensure_eq!(bind_interdomain(DOMID_SELF, port).err().unwrap_or(0), EINVAL, port);
    }
    ensure_eq!(bind_interdomain(DOMID_ABSENT, 1).err().unwrap_or(0), ESRCH);
    Ok(())
}

fn closing_one_end_leaves_the_other_unbound() -> Verdict {
    let (sender, receiver) = loopback(fresh()?)?;
    ensure_eq!(close(sender), 0);
    ensure_eq!(expect(status(DOMID_SELF, sender))?.status, event::STATUS_CLOSED);
    ensure_eq!(expect(status(DOMID_SELF, receiver))?.status, event::STATUS_UNBOUND);
    // It can be bound anew.
    ensure_eq!(expect(bind_interdomain(DOMID_SELF, receiver))?, sender);
    Ok(())
}

fn close_of_a_closed_or_absent_port_returns_einval() -> Verdict {
    fresh()?;
    let port = expect(alloc_loopback())?;
    ensure_eq!(close(port), 0);
    for port in [port, 0, 4096, 0x2_0000, u32::MAX] {
        ensure_eq!(close(port), EINVAL, port);
    }
    Ok(())
}

fn status_of_a_closed_port_says_so() -> Verdict {
    fresh()?;
    let port = expect(alloc_loopback())?;
    close(port);
    ensure_eq!(expect(status(DOMID_SELF, port))?.status, event::STATUS_CLOSED);
    Ok(())
}

fn status_refuses_absent_ports_and_domains() -> Verdict {
    fresh()?;
    for port in [0x2_0000, u32::MAX] {
        ensure_eq!(status(DOMID_SELF, port).err().unwrap_or(0), EINVAL, port);
    }
    ensure_eq!(status(DOMID_ABSENT, 1).err().unwrap_or(0), ESRCH);
    Ok(())
}

fn bind_virq_binds_each_once() -> Verdict {
    fresh()?;
    let port = expect(bind_virq(VIRQ_TIMER, 0))?;
    let status = expect(status(DOMID_SELF, port))?;
    ensure_eq!(status.status, event::STATUS_VIRQ);
    ensure_eq!(status.detail, VIRQ_TIMER);
    ensure_eq!(bind_virq(VIRQ_TIMER, 0).err().unwrap_or(0), EEXIST);
    // Another vCPU's is another one.
    ensure!(bind_virq(VIRQ_TIMER, 1).is_ok());
    ensure_eq!(close(port), 0);
    ensure_eq!(expect(bind_virq(VIRQ_TIMER, 0))?, port);
    Ok(())
}

fn bind_virq_refuses_absent_virqs_and_vcpus() -> Verdict {
    fresh()?;
    for virq in [NR_VIRQS, NR_VIRQS + 1, u32::MAX] {
        ensure_eq!(bind_virq(virq, 0).err().unwrap_or(0), EINVAL, virq);
    }
    for vcpu in [platform::get().cpus, u32::MAX] {
        ensure_eq!(bind_virq(VIRQ_DEBUG, vcpu).err().unwrap_or(0), ENOENT, vcpu);
    }
    Ok(())
}

fn a_global_virq_binds_to_vcpu_0_only() -> Verdict {
    fresh()?;
    ensure_eq!(bind_virq(VIRQ_DOM_EXC, 1).err().unwrap_or(0), EINVAL);
    ensure!(bind_virq(VIRQ_DOM_EXC, 0).is_ok());
    Ok(())
}

fn bind_pirq_is_refused() -> Verdict {
    fresh()?;
    for pirq in [0, 33, u32::MAX] {
        ensure!(call_with(EVENT_CHANNEL_OP, event::BIND_PIRQ, &mut [pirq, 0, 0]) < 0, pirq);
    }
    Ok(())
}

fn output_of_the_hypervisor_raises_its_virq_in_dom0() -> Verdict {
    let world = fresh()?;
    let port = expect(bind_virq(VIRQ_CON_RING, 0))?;
    match domain::debug_key(b'h') {
        // Only the control domain may press keys, and only the handler of a global VIRQ has it: dom0.
        Err(error) => {
            ensure_eq!(error, EPERM);
            interrupt::settle();
            ensure!(!world.shared.pending(port));
        }
        Ok(()) => {
            ensure!(clock::poll(|| world.shared.pending(port)));
            ensure!(world.vcpu.upcall_pending());
        }
    }
    Ok(())
}

fn bind_ipi_refuses_absent_vcpus() -> Verdict {
    fresh()?;
    for vcpu in [platform::get().cpus, u32::MAX] {
        ensure_eq!(bind_ipi(vcpu).err().unwrap_or(0), ENOENT, vcpu);
    }
    let port = expect(bind_ipi(1))?;
    let status = expect(status(DOMID_SELF, port))?;
    ensure_eq!(status.status, event::STATUS_IPI);
    ensure_eq!(status.vcpu, 1);
    Ok(())
}

fn bind_vcpu_moves_interdomain_ports_only() -> Verdict {
    let (sender, receiver) = loopback(fresh()?)?;
    ensure_eq!(bind_vcpu(receiver, 1), 0);
    ensure_eq!(expect(status(DOMID_SELF, receiver))?.vcpu, 1);
    ensure_eq!(bind_vcpu(sender, platform::get().cpus), ENOENT);
    let ipi = expect(bind_ipi(0))?;
    let timer = expect(bind_virq(VIRQ_TIMER, 0))?;
    for port in [ipi, timer, 0, timer + 10, u32::MAX] {
        ensure_eq!(bind_vcpu(port, 1), EINVAL, port);
    }
    Ok(())
}

fn send_on_a_port_that_cannot_send_returns_einval() -> Verdict {
    fresh()?;
    let timer = expect(bind_virq(VIRQ_TIMER, 0))?;
    for port in [timer, timer + 1, 0, 4096, u32::MAX] {
        ensure_eq!(send(port), EINVAL, port);
    }
    Ok(())
}

fn send_on_an_unbound_port_is_silent() -> Verdict {
    let world = fresh()?;
    let port = expect(alloc_loopback())?;
    ensure_eq!(send(port), 0);
    ensure!(!world.shared.pending(port) && !world.vcpu.upcall_pending());
    Ok(())
}

fn unknown_operations_return_enosys() -> Verdict {
    fresh()?;
    for operation in [15, 16, 64, u32::MAX] {
        ensure_eq!(call_with(EVENT_CHANNEL_OP, operation, &mut [0_u64; 4]), ENOSYS, operation);
    }
    Ok(())
}

fn unreadable_arguments_return_efault() -> Verdict {
    fresh()?;
    for operation in event::BIND_INTERDOMAIN..=event::SET_PRIORITY {
        ensure_eq!(call(EVENT_CHANNEL_OP, [operation, memory::UNMAPPED, 0, 0, 0]), EFAULT, operation);
    }
    Ok(())
}

fn reset_closes_every_port() -> Verdict {
    let (sender, receiver) = loopback(fresh()?)?;
    let timer = expect(bind_virq(VIRQ_TIMER, 0))?;
    ensure_eq!(event::reset(DOMID_SELF), 0);
    for port in [sender, receiver, timer] {
        ensure_eq!(expect(status(DOMID_SELF, port))?.status, event::STATUS_CLOSED, port);
    }
    ensure_eq!(event::reset(DOMID_ABSENT), ESRCH);
    Ok(())
}

/// Allocates until an error; returns how many ports there were, and the error.
fn exhaust() -> (u32, i32) {
    let mut count = 0;
    loop {
        match alloc_loopback() {
            Ok(_) => count += 1,
            Err(error) => return (count, error),
        }
    }
}

fn two_levels_hold_4095_ports() -> Verdict {
    fresh()?;
    let (count, error) = exhaust();
    ensure_eq!(error, ENOSPC);
    ensure_eq!(count, 4095);
    ensure_eq!(bind_ipi(0).err().unwrap_or(0), ENOSPC);
    ensure_eq!(bind_virq(VIRQ_TIMER, 0).err().unwrap_or(0), ENOSPC);
    Ok(())
}

fn a_send_sets_pending_selector_and_upcall() -> Verdict {
    let world = fresh()?;
    let (sender, receiver) = loopback(world)?;
    ensure_eq!(send(sender), 0);
    ensure!(world.shared.pending(receiver));
    ensure!(!world.shared.pending(sender));
    ensure!(world.vcpu.upcall_pending());
    ensure_eq!(world.vcpu.take_selector(), 1);
    Ok(())
}

fn the_upcall_interrupt_comes_once() -> Verdict {
    let world = fresh()?;
    let (sender, _) = loopback(world)?;
    send(sender);
    ensure!(interrupt::comes(world.upcall, 1));
    ensure!(world.vcpu.upcall_pending());
    Ok(())
}

fn further_sends_while_an_upcall_is_pending_do_not_interrupt() -> Verdict {
    let world = fresh()?;
    let (sender, _) = loopback(world)?;
    let ipi = expect(bind_ipi(0))?;
    send(sender);
    ensure!(interrupt::comes(world.upcall, 1));
    send(sender);
    send(ipi);
    ensure!(interrupt::comes(world.upcall, 1));
    Ok(())
}

fn each_taken_upcall_allows_the_next_interrupt() -> Verdict {
    let world = fresh()?;
    let (sender, receiver) = loopback(world)?;
    for round in 1..=5 {
        send(sender);
        ensure!(interrupt::comes(world.upcall, round), round);
        ensure!(world.vcpu.take_upcall(), round);
        ensure_eq!(world.vcpu.take_selector(), 1, round);
        world.shared.clear_pending(receiver);
    }
    Ok(())
}

fn an_upcall_waits_for_the_cpsr_mask() -> Verdict {
    let world = fresh()?;
    let (sender, _) = loopback(world)?;
    send(sender);
    clock::delay(interrupt::SETTLE_US);
    ensure_eq!(interrupt::count(world.upcall), 0);
    ensure!(interrupt::comes(world.upcall, 1));
    Ok(())
}

fn an_upcall_waits_for_the_distributor_enable() -> Verdict {
    let world = fresh()?;
    let (sender, _) = loopback(world)?;
    gic::disable(world.upcall);
    send(sender);
    interrupt::settle();
    ensure_eq!(interrupt::count(world.upcall), 0);
    gic::enable(world.upcall);
    ensure!(interrupt::comes(world.upcall, 1));
    Ok(())
}

fn a_masked_event_is_pending_without_upcall() -> Verdict {
    let world = fresh()?;
    let (sender, receiver) = loopback(world)?;
    world.shared.set_mask(receiver);
    ensure_eq!(send(sender), 0);
    ensure!(world.shared.pending(receiver));
    ensure!(!world.vcpu.upcall_pending());
    ensure_eq!(world.vcpu.take_selector(), 0);
    Ok(())
}

fn unmask_delivers_what_is_pending() -> Verdict {
    let world = fresh()?;
    let (sender, receiver) = loopback(world)?;
    world.shared.set_mask(receiver);
    send(sender);
    ensure_eq!(unmask(receiver), 0);
    ensure!(!world.shared.masked(receiver));
    ensure!(world.vcpu.upcall_pending());
    ensure_eq!(world.vcpu.take_selector(), 1);
    ensure!(interrupt::comes(world.upcall, 1));
    Ok(())
}

fn unmask_of_a_quiet_port_only_clears_the_mask() -> Verdict {
    let world = fresh()?;
    let (_, receiver) = loopback(world)?;
    world.shared.set_mask(receiver);
    ensure_eq!(unmask(receiver), 0);
    ensure!(!world.shared.masked(receiver) && !world.vcpu.upcall_pending());
    Ok(())
}

fn unmask_of_an_absent_port_returns_einval() -> Verdict {
    fresh()?;
    for port in [0x2_0000, u32::MAX] {
        ensure_eq!(unmask(port), EINVAL, port);
    }
    Ok(())
}

fn an_ipi_port_interrupts_its_own_vcpu() -> Verdict {
    let world = fresh()?;
    let port = expect(bind_ipi(0))?;
    ensure_eq!(send(port), 0);
    ensure!(world.shared.pending(port));
    ensure!(interrupt::comes(world.upcall, 1));
    Ok(())
}

fn wfi_returns_for_an_event_though_interrupts_are_masked() -> Verdict {
    let world = fresh()?;
    let port = expect(bind_ipi(0))?;
    send(port);
    // Were the event lost, the timer would end the wait late.
    cp15::write_cntv_cval(clock::now() + clock::ticks(clock::PATIENCE_US));
    cp15::write_cntv_ctl(interrupt::TIMER_ENABLED);
    gic::enable(gic::VIRTUAL_TIMER);
    let start = clock::now();
    cp15::wfi();
    let waited = clock::now() - start;
    cp15::write_cntv_ctl(0);
    gic::disable(gic::VIRTUAL_TIMER);
    ensure!(waited < clock::ticks(clock::PATIENCE_US / 2), waited);
    ensure!(interrupt::comes(world.upcall, 1));
    Ok(())
}

/// Tell vCPU 1 what to wait for, and how.
static OTHER_DONE: AtomicU32 = AtomicU32::new(0);
static OTHER_READY: AtomicU32 = AtomicU32::new(0);

/// Runs on vCPU 1: takes interrupts until the upcall came, spinning.
fn spin_for_upcall() {
    gic::enable(platform::get().event_interrupt);
    interrupt::reset();
    OTHER_READY.store(1, Ordering::SeqCst);
    OTHER_DONE.store(u32::from(interrupt::comes(platform::get().event_interrupt, 1)), Ordering::SeqCst);
}

/// Runs on vCPU 1: sleeps until something is pending, then takes it.
fn sleep_for_upcall() {
    gic::enable(platform::get().event_interrupt);
    interrupt::reset();
    OTHER_READY.store(1, Ordering::SeqCst);
    cp15::wfi();
    OTHER_DONE.store(u32::from(interrupt::comes(platform::get().event_interrupt, 1)), Ordering::SeqCst);
}

/// vCPU 1's vcpu_info; can be registered once, while it is off, and then forces an upcall that is taken here.
fn register_other() -> Result<VcpuInfo, Failure> {
    static AREA: AtomicU32 = AtomicU32::new(0);
    let known = AREA.load(Ordering::Relaxed);
    if known != 0 {
        let info = VcpuInfo(known);
        info.take_upcall();
        info.take_selector();
        return Ok(info);
    }
    let frame = Frame::take();
    const OFFSET: u32 = 0x780;
    ensure_eq!(event::register_vcpu_info(1, frame.gfn(), OFFSET), 0);
    AREA.store(frame.address() + OFFSET, Ordering::Relaxed);
    let info = VcpuInfo(frame.address() + OFFSET);
    ensure!(info.take_upcall());
    info.take_selector();
    Ok(info)
}

/// Starts `work` on vCPU 1, sends on `port` once it is ready, waits for its end; whether it took one upcall.
fn other_takes(work: fn(), port: u32) -> Verdict {
    OTHER_READY.store(0, Ordering::SeqCst);
    OTHER_DONE.store(0, Ordering::SeqCst);
    ensure_eq!(smp::start(1, work), 0);
    ensure!(clock::poll(|| OTHER_READY.load(Ordering::SeqCst) == 1));
    clock::delay(interrupt::SETTLE_US);
    ensure_eq!(send(port), 0);
    ensure!(smp::goes_off(1));
    ensure_eq!(OTHER_DONE.load(Ordering::SeqCst), 1);
    Ok(())
}

fn an_event_reaches_the_vcpu_it_is_bound_to() -> Verdict {
    let world = fresh()?;
    let other = register_other()?;
    let (sender, receiver) = loopback(world)?;
    ensure_eq!(bind_vcpu(receiver, 1), 0);
    other_takes(spin_for_upcall, sender)?;
    ensure!(other.take_upcall() && world.shared.pending(receiver));
    ensure_eq!(other.take_selector(), 1);
    ensure!(!world.vcpu.upcall_pending());
    ensure_eq!(interrupt::count(world.upcall), 0);
    Ok(())
}

fn an_event_wakes_a_vcpu_that_waits() -> Verdict {
    fresh()?;
    let other = register_other()?;
    let port = expect(bind_ipi(1))?;
    other_takes(sleep_for_upcall, port)?;
    ensure!(other.take_upcall());
    Ok(())
}
