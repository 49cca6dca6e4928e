//! Timers: the virtual timer with its real registers, the emulated physical timer, and every way to wait (abi.md 9.1,
//! 2.8; DDI 0406C.d B8).
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, Ordering};

use guests::abi::{self, Poll};
use guests::event::{self, SharedInfo, VcpuInfo};
use guests::gic::{self, PHYSICAL_TIMER, VIRTUAL_TIMER};
use guests::harness::{Failure, Verdict, expect};
use guests::hypercall::{SCHED_OP, address_of, call, call_with};
use guests::interrupt::{TIMER_ENABLED, TIMER_FIRED, TIMER_MASKED};
use guests::memory::Frame;
use guests::status::EINVAL;
use guests::{clock, cp15, ensure, ensure_eq, interrupt, platform, psci, smp, suite};

suite! { "timers":
    the_counters_run_at_the_announced_frequency,
    the_virtual_counter_does_not_go_backwards,
    the_virtual_counter_is_behind_the_physical_one_by_a_constant,
    both_vcpus_read_the_same_virtual_counter,

    an_expired_virtual_timer_is_taken_once,
    an_expired_virtual_timer_says_so,
    a_virtual_timer_fires_on_time,
    a_virtual_timer_in_the_far_future_does_not_fire,
    a_masked_virtual_timer_does_not_fire,
    a_disabled_virtual_timer_does_not_fire,
    a_virtual_timer_by_countdown_fires_on_time,
    a_virtual_timer_can_be_rearmed_in_its_handler,
    a_virtual_timer_that_is_due_when_its_interrupt_ends_fires_again,
    a_virtual_timer_waits_for_its_distributor_enable,

    wfi_ends_when_the_virtual_timer_fires,
    wfi_ends_though_interrupts_are_masked,
    wfi_does_not_wait_when_something_is_pending,
    the_virtual_timer_survives_a_wait,
    wfe_ends_without_any_event,
    cpu_suspend_ends_when_the_virtual_timer_fires,
    sched_block_ends_when_the_virtual_timer_fires,
    sched_block_unmasks_interrupts,
    sched_block_ends_for_an_event,

    poll_waits_until_its_deadline,
    poll_ends_when_a_port_becomes_pending,
    poll_returns_at_once_for_a_pending_port,
    poll_refuses_absent_ports,

    physical_timer_registers_keep_what_is_written,
    a_physical_timer_fires_on_time,
    a_physical_timer_wakes_wfi,
    a_physical_timer_in_the_past_fires_at_once,
    a_masked_physical_timer_does_not_fire,
    a_disabled_physical_timer_does_not_fire,

    each_vcpu_has_its_own_virtual_timer,
}

/// A wait long enough to be told from overhead and short enough for many.
const WAIT_US: u64 = 5_000;
/// How late an emulator under load may be.
const LATE_US: u64 = 400_000;
/// When a wait that should have ended by itself is ended by the virtual timer.
const GUARD_US: u64 = 1_000_000;

fn fresh() {
    cp15::write_cntv_ctl(0);
    cp15::write_cntp_ctl(0);
    gic::enable(VIRTUAL_TIMER);
    gic::enable(PHYSICAL_TIMER);
    interrupt::settle();
    interrupt::reset();
}

/// Arms the virtual timer `microseconds` from now; returns its deadline.
fn arm(microseconds: u64) -> u64 {
    let deadline = clock::now() + clock::ticks(microseconds);
    cp15::write_cntv_cval(deadline);
    cp15::write_cntv_ctl(TIMER_ENABLED);
    deadline
}

/// Arms the physical timer likewise.
fn arm_physical(microseconds: u64) -> u64 {
    cp15::isb();
    let deadline = cp15::cntpct() + clock::ticks(microseconds);
    cp15::write_cntp_cval(deadline);
    cp15::write_cntp_ctl(TIMER_ENABLED);
    deadline
}

/// Returns whether `now` is at or after the deadline, by no more than an emulator's lateness.
fn is_timely(now: u64, deadline: u64) -> bool {
    (deadline..deadline + clock::ticks(LATE_US)).contains(&now)
}

fn the_counters_run_at_the_announced_frequency() -> Verdict {
    ensure!(cp15::cntfrq() >= 1_000_000, cp15::cntfrq());
    let (physical, virtual_) = (cp15::cntpct(), cp15::cntvct());
    clock::delay(WAIT_US);
    ensure!(cp15::cntvct() - virtual_ >= clock::ticks(WAIT_US));
    ensure!(cp15::cntpct() - physical >= clock::ticks(WAIT_US));
    Ok(())
}

fn the_virtual_counter_does_not_go_backwards() -> Verdict {
    let mut last = clock::now();
    for _ in 0..10_000 {
        let now = clock::now();
        ensure!(now >= last);
        last = now;
    }
    Ok(())
}

fn the_virtual_counter_is_behind_the_physical_one_by_a_constant() -> Verdict {
    let offset = || {
        // The pair is read within a tick or two, or read again.
        (0..100)
            .map(|_| {
                let virtual_ = clock::now();
                cp15::isb();
                cp15::cntpct() - virtual_
            })
            .min()
            .unwrap_or(0)
    };
    let before = offset();
    clock::delay(WAIT_US);
    ensure!(offset().abs_diff(before) < clock::ticks(100), before);
    Ok(())
}

/// vCPU 1's report: a counter, or how many interrupts it took.
static REPORT: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];

fn report(value: u64) {
    REPORT[0].store(value as u32, Ordering::SeqCst);
    REPORT[1].store((value >> 32) as u32, Ordering::SeqCst);
}

fn reported() -> u64 {
    u64::from(REPORT[1].load(Ordering::SeqCst)) << 32 | u64::from(REPORT[0].load(Ordering::SeqCst))
}

fn both_vcpus_read_the_same_virtual_counter() -> Verdict {
    let before = clock::now();
    ensure!(smp::run_on(1, || report(clock::now())));
    ensure!((before..=clock::now()).contains(&reported()));
    Ok(())
}

fn an_expired_virtual_timer_is_taken_once() -> Verdict {
    fresh();
    arm(0);
    ensure!(interrupt::comes(VIRTUAL_TIMER, 1));
    ensure_eq!(interrupt::total_on(0), 1);
    Ok(())
}

fn an_expired_virtual_timer_says_so() -> Verdict {
    fresh();
    arm(0);
    clock::delay(WAIT_US);
    // Xen masks the timer when it delivers; a hypervisor that lets the guest's end of interrupt do it need not.
    ensure_eq!(cp15::cntv_ctl() & !TIMER_MASKED, TIMER_ENABLED | TIMER_FIRED);
    ensure!(interrupt::comes(VIRTUAL_TIMER, 1));
    Ok(())
}

fn a_virtual_timer_fires_on_time() -> Verdict {
    fresh();
    let deadline = arm(WAIT_US);
    interrupt::set_hook(|_| report(clock::now()));
    ensure!(interrupt::comes(VIRTUAL_TIMER, 1));
    ensure!(is_timely(reported(), deadline));
    Ok(())
}

fn a_virtual_timer_in_the_far_future_does_not_fire() -> Verdict {
    fresh();
    cp15::write_cntv_cval(u64::MAX);
    cp15::write_cntv_ctl(TIMER_ENABLED);
    interrupt::settle();
    ensure_eq!(interrupt::total_on(0), 0);
    ensure_eq!(cp15::cntv_ctl(), TIMER_ENABLED);
    Ok(())
}

fn a_masked_virtual_timer_does_not_fire() -> Verdict {
    fresh();
    cp15::write_cntv_cval(clock::now());
    cp15::write_cntv_ctl(TIMER_ENABLED | TIMER_MASKED);
    interrupt::settle();
    ensure_eq!(interrupt::total_on(0), 0);
    ensure_eq!(cp15::cntv_ctl(), TIMER_ENABLED | TIMER_MASKED | TIMER_FIRED);
    Ok(())
}

fn a_disabled_virtual_timer_does_not_fire() -> Verdict {
    fresh();
    cp15::write_cntv_cval(clock::now());
    cp15::write_cntv_ctl(0);
    interrupt::settle();
    ensure_eq!(interrupt::total_on(0), 0);
    Ok(())
}

fn a_virtual_timer_by_countdown_fires_on_time() -> Verdict {
    fresh();
    let deadline = clock::now() + clock::ticks(WAIT_US);
    cp15::write_cntv_tval(clock::ticks(WAIT_US) as u32);
    cp15::write_cntv_ctl(TIMER_ENABLED);
    interrupt::set_hook(|_| report(clock::now()));
    ensure!(interrupt::comes(VIRTUAL_TIMER, 1));
    ensure!(is_timely(reported(), deadline));
    Ok(())
}

fn a_virtual_timer_can_be_rearmed_in_its_handler() -> Verdict {
    fresh();
    interrupt::set_hook(|_| {
        if interrupt::count(VIRTUAL_TIMER) < 10 {
            arm(100);
        }
    });
    arm(100);
    // By WFI, where the hypervisor looks at the line at once: QEMU's GIC overlooks one that is high when its interrupt ends.
    ensure!(clock::poll(|| {
        cp15::wfi();
        cp15::enable_interrupts();
        clock::delay(1);
        cp15::disable_interrupts();
        interrupt::count(VIRTUAL_TIMER) >= 10
    }));
    ensure!(interrupt::count(VIRTUAL_TIMER) == 10);
    Ok(())
}

fn a_virtual_timer_that_is_due_when_its_interrupt_ends_fires_again() -> Verdict {
    fresh();
    interrupt::set_hook(|_| {
        if interrupt::count(VIRTUAL_TIMER) == 1 {
            arm(0);
        }
    });
    arm(100);
    // Without a trap of the guest's: QEMU's GIC does not see that the line is high, and the hypervisor looks by itself.
    ensure!(interrupt::comes(VIRTUAL_TIMER, 2));
    Ok(())
}

fn a_virtual_timer_waits_for_its_distributor_enable() -> Verdict {
    fresh();
    gic::disable(VIRTUAL_TIMER);
    arm(0);
    interrupt::settle();
    ensure_eq!(interrupt::total_on(0), 0);
    gic::enable(VIRTUAL_TIMER);
    ensure!(interrupt::comes(VIRTUAL_TIMER, 1));
    Ok(())
}

fn wfi_ends_when_the_virtual_timer_fires() -> Verdict {
    // On a host that stands still the interrupt may come before the wait. Then the next one ends it, and a longer time is
    // tried.
    let ended = [WAIT_US, 40 * WAIT_US, 1_600 * WAIT_US].into_iter().find_map(|wait| {
        fresh();
        interrupt::set_hook(|_| {
            if interrupt::count(VIRTUAL_TIMER) == 1 {
                arm(GUARD_US);
            }
        });
        let deadline = arm(wait);
        cp15::enable_interrupts();
        cp15::wfi();
        let now = clock::now();
        cp15::disable_interrupts();
        cp15::write_cntv_ctl(0);
        (interrupt::count(VIRTUAL_TIMER) == 1).then_some((now, deadline))
    });
    ensure!(ended.is_some());
    let (now, deadline) = ended.unwrap_or_default();
    ensure!(is_timely(now, deadline), now.wrapping_sub(deadline));
    Ok(())
}

fn wfi_ends_though_interrupts_are_masked() -> Verdict {
    fresh();
    let deadline = arm(WAIT_US);
    cp15::wfi();
    ensure!(is_timely(clock::now(), deadline));
    ensure_eq!(interrupt::total_on(0), 0);
    ensure!(interrupt::comes(VIRTUAL_TIMER, 1));
    Ok(())
}

fn wfi_does_not_wait_when_something_is_pending() -> Verdict {
    fresh();
    gic::send_sgi(gic::Target::Myself, 1);
    let start = clock::now();
    arm(GUARD_US);
    cp15::wfi();
    ensure!(clock::now() - start < clock::ticks(GUARD_US));
    cp15::write_cntv_ctl(0);
    ensure!(interrupt::comes(1, 1));
    Ok(())
}

fn the_virtual_timer_survives_a_wait() -> Verdict {
    fresh();
    let deadline = arm(WAIT_US);
    // A nearer end of the wait than the timer's: an SGI from the other vCPU while this one is descheduled.
    ensure_eq!(smp::start(1, || gic::send_sgi(gic::Target::List(1), 2)), 0);
    cp15::wfi();
    ensure_eq!(cp15::cntv_cval(), deadline);
    ensure!(interrupt::comes(VIRTUAL_TIMER, 1));
    ensure!(smp::goes_off(1));
    ensure!(clock::now() >= deadline);
    Ok(())
}

fn wfe_ends_without_any_event() -> Verdict {
    fresh();
    let start = clock::now();
    arm(GUARD_US);
    for _ in 0..100 {
        cp15::wfe();
    }
    ensure!(clock::now() - start < clock::ticks(GUARD_US));
    cp15::write_cntv_ctl(0);
    Ok(())
}

fn cpu_suspend_ends_when_the_virtual_timer_fires() -> Verdict {
    fresh();
    let deadline = arm(WAIT_US);
    ensure_eq!(psci::call(psci::CPU_SUSPEND, 0, 0, 0), 0);
    ensure!(is_timely(clock::now(), deadline));
    ensure!(interrupt::comes(VIRTUAL_TIMER, 1));
    Ok(())
}

fn block() -> i32 {
    call(SCHED_OP, [abi::SCHEDOP_BLOCK, 0, 0, 0, 0])
}

fn sched_block_ends_when_the_virtual_timer_fires() -> Verdict {
    fresh();
    let deadline = arm(WAIT_US);
    ensure_eq!(block(), 0);
    let now = clock::now();
    cp15::disable_interrupts();
    ensure!(is_timely(now, deadline), now.wrapping_sub(deadline));
    Ok(())
}

fn sched_block_unmasks_interrupts() -> Verdict {
    fresh();
    arm(WAIT_US);
    ensure_eq!(block(), 0);
    let unmasked = cp15::cpsr() & guests::exception::MASK_IRQ == 0;
    cp15::disable_interrupts();
    ensure!(unmasked);
    ensure_eq!(interrupt::count(VIRTUAL_TIMER), 1);
    Ok(())
}

/// The shared pages of this guest's events.
fn events() -> Result<(SharedInfo, VcpuInfo), Failure> {
    static SHARED: AtomicU32 = AtomicU32::new(0);
    if SHARED.load(Ordering::Relaxed) == 0 {
        let shared = expect(SharedInfo::map())?;
        SHARED.store(shared.0.address(), Ordering::Relaxed);
    }
    let shared = SharedInfo(Frame::at(SHARED.load(Ordering::Relaxed)));
    event::reset(abi::DOMID_SELF);
    gic::enable(platform::get().event_interrupt);
    interrupt::settle();
    shared.clear_all();
    let vcpu = VcpuInfo(shared.0.address());
    vcpu.take_upcall();
    vcpu.take_selector();
    interrupt::reset();
    Ok((shared, vcpu))
}

fn sched_block_ends_for_an_event() -> Verdict {
    fresh();
    let (shared, _) = events()?;
    let port = event::bind_ipi(0).unwrap_or(0);
    let start = clock::now();
    arm(GUARD_US);
    event::send(port);
    ensure_eq!(block(), 0);
    cp15::disable_interrupts();
    ensure!(clock::now() - start < clock::ticks(GUARD_US));
    cp15::write_cntv_ctl(0);
    ensure!(shared.pending(port));
    Ok(())
}

/// The hypervisor's system time in nanoseconds, or a little more: it began to count after the machine did.
fn system_time() -> u64 {
    cp15::isb();
    (u128::from(cp15::cntpct()) * 1_000_000_000 / u128::from(cp15::cntfrq())) as u64
}

/// Polls some ports until a system time.
fn poll(ports: &mut [u32], timeout: u64) -> i32 {
    let mut argument = Poll { ports: u64::from(address_of(ports)), count: ports.len() as u32, pad: 0, timeout };
    call_with(SCHED_OP, abi::SCHEDOP_POLL, &mut argument)
}

fn poll_waits_until_its_deadline() -> Verdict {
    fresh();
    events()?;
    let port = event::bind_ipi(0).unwrap_or(0);
    let start = clock::now();
    ensure_eq!(poll(&mut [port], system_time() + WAIT_US * 1000), 0);
    let waited = clock::now() - start;
    ensure!((clock::ticks(WAIT_US)..clock::ticks(LATE_US)).contains(&waited), waited);
    Ok(())
}

fn poll_ends_when_a_port_becomes_pending() -> Verdict {
    fresh();
    let (shared, _) = events()?;
    let port = event::bind_ipi(0).unwrap_or(0);
    shared.set_mask(port);
    let receiver = event::alloc_loopback().unwrap_or(0);
    let sender = event::bind_interdomain(abi::DOMID_SELF, receiver).unwrap_or(0);
    shared.clear_pending(sender);
    shared.set_mask(receiver);
    static PORT: AtomicU32 = AtomicU32::new(0);
    PORT.store(sender, Ordering::SeqCst);
    let started = smp::start(1, || {
        clock::delay(WAIT_US);
        event::send(PORT.load(Ordering::SeqCst));
    });
    ensure_eq!(started, 0);
    let start = clock::now();
    ensure_eq!(poll(&mut [port, receiver], 0), 0);
    ensure!(clock::now() - start < clock::ticks(LATE_US));
    ensure!(shared.pending(receiver));
    ensure!(smp::goes_off(1));
    Ok(())
}

fn poll_returns_at_once_for_a_pending_port() -> Verdict {
    fresh();
    let (shared, _) = events()?;
    let port = event::bind_ipi(0).unwrap_or(0);
    shared.set_mask(port);
    event::send(port);
    let start = clock::now();
    ensure_eq!(poll(&mut [port], 0), 0);
    ensure!(clock::now() - start < clock::ticks(LATE_US));
    Ok(())
}

fn poll_refuses_absent_ports() -> Verdict {
    fresh();
    events()?;
    for port in [0x2_0000, u32::MAX] {
        ensure_eq!(poll(&mut [port], 1), EINVAL, port);
    }
    Ok(())
}

fn physical_timer_registers_keep_what_is_written() -> Verdict {
    fresh();
    cp15::write_cntp_cval(0x1234_5678_9abc_def0);
    ensure_eq!(cp15::cntp_cval(), 0x1234_5678_9abc_def0_u64);
    cp15::write_cntp_ctl(TIMER_MASKED);
    ensure_eq!(cp15::cntp_ctl(), TIMER_MASKED);
    cp15::write_cntp_ctl(0);
    cp15::write_cntp_tval(0x1000_0000);
    let remaining = cp15::cntp_tval();
    ensure!((0x0800_0000..=0x1000_0000).contains(&remaining), remaining);
    ensure!(cp15::cntp_cval() > cp15::cntpct());
    Ok(())
}

fn a_physical_timer_fires_on_time() -> Verdict {
    fresh();
    let deadline = arm_physical(WAIT_US);
    interrupt::set_hook(|_| report(cp15::cntpct()));
    ensure!(interrupt::comes(PHYSICAL_TIMER, 1));
    ensure!(is_timely(reported(), deadline), reported().wrapping_sub(deadline));
    ensure_eq!(interrupt::total_on(0), 1);
    Ok(())
}

fn a_physical_timer_wakes_wfi() -> Verdict {
    fresh();
    let deadline = arm_physical(WAIT_US);
    cp15::wfi();
    ensure!(is_timely(cp15::cntpct(), deadline), cp15::cntpct().wrapping_sub(deadline));
    ensure!(interrupt::comes(PHYSICAL_TIMER, 1));
    Ok(())
}

fn a_physical_timer_in_the_past_fires_at_once() -> Verdict {
    fresh();
    cp15::write_cntp_cval(0);
    cp15::write_cntp_ctl(TIMER_ENABLED);
    ensure!(interrupt::comes(PHYSICAL_TIMER, 1));
    ensure_eq!(cp15::cntp_ctl() & TIMER_FIRED, TIMER_FIRED);
    Ok(())
}

fn a_masked_physical_timer_does_not_fire() -> Verdict {
    fresh();
    cp15::write_cntp_cval(cp15::cntpct());
    cp15::write_cntp_ctl(TIMER_ENABLED | TIMER_MASKED);
    interrupt::settle();
    ensure_eq!(interrupt::total_on(0), 0);
    Ok(())
}

fn a_disabled_physical_timer_does_not_fire() -> Verdict {
    fresh();
    arm_physical(0);
    cp15::write_cntp_ctl(0);
    // Takes the one delivery at most that came between the two writes; from then on there is none.
    interrupt::settle();
    interrupt::reset();
    cp15::write_cntp_cval(cp15::cntpct());
    interrupt::settle();
    ensure_eq!(interrupt::total_on(0), 0);
    Ok(())
}

/// Runs on vCPU 1: takes its own timer.
fn take_own_timer() {
    gic::enable(VIRTUAL_TIMER);
    arm(WAIT_US);
    report(u64::from(interrupt::comes(VIRTUAL_TIMER, 1)));
}

fn each_vcpu_has_its_own_virtual_timer() -> Verdict {
    fresh();
    arm(GUARD_US);
    ensure!(smp::run_on(1, take_own_timer));
    ensure_eq!(reported(), 1);
    ensure_eq!(interrupt::total_on(0), 0);
    ensure_eq!(cp15::cntv_ctl(), TIMER_ENABLED);
    cp15::write_cntv_ctl(0);
    Ok(())
}
