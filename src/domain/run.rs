//! Running vCPUs: the one place where the scheduler, the timers and the CPUs meet.
//!
//! State rooms say what must happen (a vCPU has an interrupt, a unit was picked); here it happens. A vCPU is runnable when
//! it has no reason to be halted ([`super::vcpu::halt`]); reasons change only under the scheduler's lock, so that they and
//! the run queues never disagree.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use armv7::cpu::{CpuId, CpuSet, MAX_CPUS};
use armv7::gic::{self, TargetMasks};
use armv7::smp;
use spin::Once;

use super::runstate::State;
use super::vcpu::{Vcpu, halt, work};
use super::{Domain, registry};
use crate::console;
use crate::event::EventVirq;
use crate::id::VcpuSet;
use crate::sched::{Choice, GroupId, PoolId, SchedError, Scheduler, UnitId, UnitParams};
use crate::sync::{Guard, Lock, rank};
use crate::time::{Clock, Nanos, Ticks, TimerError, TimerId, TimerQueue};

/// What a software timer is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timer {
    /// A vCPU's virtual timer that is not in the hardware.
    Virtual(UnitId),
    /// A vCPU's poll.
    Poll(UnitId),
    /// A vCPU's emulated physical timer.
    Physical(UnitId),
    /// A domain's watchdog.
    Watchdog(crate::id::DomId),
    /// What the console's UART has not taken yet, when that has no interrupt.
    Console,
}

/// Ticks in a second for what is asked before [`init`]: a frequency like another.
const EARLY_HZ: u32 = 1_000_000;
static SCHEDULER: Lock<Scheduler, { rank::SCHED }> =
    Lock::new(Scheduler::new(CpuSet::EMPTY, EARLY_HZ));
static TIMERS: Lock<TimerQueue<Timer>, { rank::TIMER }> = Lock::new(TimerQueue::new());
static CLOCK: Once<Clock> = Once::new();
static EARLY_CLOCK: Clock = match Clock::new(EARLY_HZ) {
    Some(clock) => clock,
    None => panic!("the frequency is in range"),
};
static TARGETS: TargetMasks = TargetMasks::new();
/// What a CPU is asked to do, a bit each; set by any CPU, taken by its own.
static CPU_WORK: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(0) }; MAX_CPUS];

/// Choose what runs.
pub const PICK: u32 = 1;
/// Tell whoever reads the console's ring that there is more in it.
const NEWS: u32 = 1 << 1;
/// Wait until the CPU that asked is done ([`hold_others`]).
const HOLD: u32 = 1 << 2;
/// Come back for what waits on the console.
const DRAIN: u32 = 1 << 3;

/// SGI that makes a CPU look at what it is asked to do.
pub const SGI_LOOK: u32 = 0;
/// SGI that stops a CPU for good: another one panics.
pub const SGI_STOP: u32 = 1;

/// Shows that the clock and the run queues are set up: without it no CPU runs vCPUs, and no dom0 is built.
#[derive(Clone, Copy, Debug)]
pub struct Ready(());

/// Sets up the clock and the run queues; `hz` is the system counter's frequency, `None` the answer to one that cannot be.
/// Only the first call counts.
pub fn init(hz: u32, online: CpuSet, ratelimit_us: u32) -> Option<Ready> {
    let clock = Clock::new(hz)?;
    CLOCK.call_once(|| {
        let mut scheduler = SCHEDULER.lock();
        *scheduler = Scheduler::new(online, hz);
        scheduler.set_ratelimit(PoolId::FIRST, ratelimit_us);
        clock
    });
    ready()
}

/// What [`init`] answered, for CPUs that come later.
pub fn ready() -> Option<Ready> {
    CLOCK.is_completed().then_some(Ready(()))
}

/// The scheduler. Before [`init`] it has no CPU.
#[inline(never)] // its callers are many
pub fn scheduler() -> Guard<'static, Scheduler> {
    SCHEDULER.lock()
}

/// The clock. Before [`init`] its seconds are not those of the world.
#[inline]
pub fn clock() -> &'static Clock {
    CLOCK.get().unwrap_or(&EARLY_CLOCK)
}

/// Now.
#[inline]
pub fn now() -> Ticks {
    Ticks(armv7::timer::counter())
}

/// Now, in nanoseconds since the machine's counter started.
pub fn now_ns() -> Nanos {
    clock().ns(now())
}

/// Takes a CPU into use; `mask` is its bit in interrupt targets.
pub fn cpu_online(cpu: CpuId, mask: u8) {
    TARGETS.set(cpu, mask);
}

/// Interrupt target bit of a CPU.
pub fn target_mask(cpu: CpuId) -> u8 {
    TARGETS.get(cpu)
}

/// What `cpu` is asked to do.
#[inline]
pub fn cpu_work(cpu: CpuId) -> &'static AtomicU32 {
    &CPU_WORK[cpu.index() % MAX_CPUS]
}

/// Makes `cpu` choose anew what runs.
pub fn poke(cpu: CpuId) {
    cpu_work(cpu).fetch_or(PICK, Ordering::SeqCst);
    look(cpu);
}

/// All CPUs in use but this one.
pub(super) fn other_cpus() -> CpuSet {
    let this = smp::this_cpu();
    CpuId::all()
        .filter(|cpu| *cpu != this && TARGETS.get(*cpu) != 0)
        .collect()
}

/// Makes `cpu` leave its guest and look at what it is asked to do.
pub(super) fn look(cpu: CpuId) {
    if cpu != smp::this_cpu()
        && let Some(gic) = gic::get()
    {
        gic.dist.send_sgi(SGI_LOOK, TARGETS.get(cpu));
    }
}

/// Does what `work` asks a CPU for beside choosing.
#[cold]
pub fn do_chores(work: u32) {
    if work & NEWS != 0 {
        super::virq::raise(EventVirq::CON_RING);
    }
    if work & DRAIN != 0
        && let Some(timer) = CONSOLE_TIMER.get()
    {
        arm(*timer, now().plus(clock().ticks(CONSOLE_INTERVAL)));
    }
    if work & HOLD != 0 {
        HELD.fetch_add(1, Ordering::SeqCst);
        while HOLDING.load(Ordering::SeqCst) {
            armv7::fence::answer();
            core::hint::spin_loop();
        }
        HELD.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Time between two looks at a UART without interrupt: 16 bytes, the least that a FIFO has, take 1.4 ms at 115,200 baud.
const CONSOLE_INTERVAL: Nanos = Nanos(1_000_000);
static CONSOLE_TIMER: Once<TimerId> = Once::new();

/// Lets a timer drain the console where its UART has no interrupt.
pub fn set_up_console_timer() -> Result<(), TimerError> {
    CONSOLE_TIMER
        .try_call_once(|| add_timer(Timer::Console))
        .map(|_| ())
}

/// Notes what the console has news of: this CPU sees to it before it goes on with a guest. Takes no lock, so that it may be
/// called wherever something is printed.
pub fn note_console(news: console::News) {
    let work = match news {
        console::News::Kept => NEWS,
        console::News::Waiting => DRAIN,
    };
    cpu_work(smp::this_cpu()).fetch_or(work, Ordering::Relaxed);
}

/// Some CPU has the others wait.
static HOLDING: AtomicBool = AtomicBool::new(false);
/// CPUs that wait for it.
static HELD: AtomicU32 = AtomicU32::new(0);

/// The other CPUs wait, in nobody's work, for as long as this value lives.
#[derive(Debug)]
pub struct Held(());

/// Makes all other CPUs wait at the top of their loops; `None` while another CPU does that. For debugging: it takes as long
/// as the longest of their hypercalls. The caller holds no lock that one of them may be waiting for.
pub fn hold_others() -> Option<Held> {
    if HOLDING.swap(true, Ordering::SeqCst) {
        return None;
    }
    let others = other_cpus();
    for cpu in others {
        cpu_work(cpu).fetch_or(HOLD, Ordering::SeqCst);
        look(cpu);
    }
    while HELD.load(Ordering::SeqCst) < others.len() {
        armv7::fence::answer();
        core::hint::spin_loop();
    }
    Some(Held(()))
}

impl Drop for Held {
    fn drop(&mut self) {
        HOLDING.store(false, Ordering::SeqCst);
        // All have gone on before the next one may hold them.
        while HELD.load(Ordering::SeqCst) > 0 {
            armv7::fence::answer();
            core::hint::spin_loop();
        }
    }
}

/// Makes every CPU of `set` choose anew.
pub fn poke_all(set: CpuSet) {
    for cpu in set.iter() {
        poke(cpu);
    }
}

/// Registers a new vCPU with the scheduler.
pub fn add_unit(params: UnitParams) -> Result<UnitId, SchedError> {
    scheduler().add(params)
}

/// Takes a vCPU out of the scheduler, once it is halted and saved.
pub fn remove_unit(unit: UnitId) -> Result<(), SchedError> {
    scheduler().remove(unit)
}

/// A domain's group in the scheduler; goes with the value, when its vCPUs have gone.
#[derive(Debug)]
pub struct Group(GroupId);

impl Group {
    /// A group with the CPUs of `pool`.
    pub fn new(pool: PoolId) -> Result<Self, SchedError> {
        scheduler().add_group(pool).map(Self)
    }

    /// Its name to the scheduler.
    pub fn id(&self) -> GroupId {
        self.0
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if scheduler().remove_group(self.0).is_err() {
            log::error!("{:?} still has vCPUs", self.0);
        }
    }
}

/// Makes a software timer.
pub fn add_timer(timer: Timer) -> Result<TimerId, TimerError> {
    TIMERS.lock().register(timer)
}

/// Number of software timers.
pub fn timers() -> usize {
    TIMERS.lock().registered()
}

/// Forgets a software timer.
pub fn remove_timer(id: TimerId) {
    TIMERS.lock().unregister(id);
}

/// Lets a timer fire on this CPU at `deadline`. The caller's CPU programs its hardware before it enters a guest.
pub fn arm(id: TimerId, deadline: Ticks) {
    let cpu = smp::this_cpu();
    TIMERS.lock().arm(id, cpu, deadline);
    program(cpu, None);
}

/// Keeps a timer from firing.
pub fn disarm(id: TimerId) {
    TIMERS.lock().cancel(id);
}

/// The next timer of this CPU that is due, disarmed.
pub fn expired(cpu: CpuId, now: Ticks) -> Option<Timer> {
    TIMERS.lock().expire(cpu, now)
}

/// End of the running vCPU's turn on each CPU, in ticks; `u64::MAX` for none.
static TURN_ENDS: [core::sync::atomic::AtomicU64; MAX_CPUS] =
    [const { core::sync::atomic::AtomicU64::new(u64::MAX) }; MAX_CPUS];

/// Programs this CPU's hypervisor timer for the next software timer or the end of the turn, whichever is first.
///
/// `turn` replaces the end of the turn.
pub fn program(cpu: CpuId, turn: Option<Option<Ticks>>) {
    let ends = &TURN_ENDS[cpu.index() % MAX_CPUS];
    if let Some(turn) = turn {
        ends.store(turn.map_or(u64::MAX, |ticks| ticks.0), Ordering::Relaxed);
    }
    let timer = TIMERS.lock().next(cpu).map_or(u64::MAX, |ticks| ticks.0);
    let first = timer.min(ends.load(Ordering::Relaxed));
    armv7::timer::set_deadline((first != u64::MAX).then_some(first));
}

/// Whether the running vCPU's turn on `cpu` is over.
pub fn turn_is_over(cpu: CpuId, now: Ticks) -> bool {
    TURN_ENDS[cpu.index() % MAX_CPUS].load(Ordering::Relaxed) <= now.0
}

/// Chooses what `cpu` runs next, and makes other CPUs choose where that is needed; the choice, and when it was made.
pub fn pick(cpu: CpuId) -> (Choice, Ticks) {
    let mut scheduler = scheduler();
    let now = now();
    let choice = scheduler.pick(cpu, now);
    drop(scheduler);
    program(cpu, Some(choice.until));
    if !choice.kick.is_empty() {
        poke_all(choice.kick);
    }
    (choice, now)
}

/// Says that a vCPU's registers are saved and may be loaded elsewhere.
pub fn release(unit: UnitId) {
    let kick = scheduler().release(unit, now());
    if let Some(cpu) = kick {
        poke(cpu);
    }
}

/// Gives a vCPU a reason not to run. When it runs on this or another CPU, that CPU picks.
///
/// The time accounts change under the scheduler's lock, as the reasons do: so they follow each other in one order.
pub fn halt(vcpu: &Vcpu, reason: u32) {
    let mut scheduler = scheduler();
    let before = vcpu.halted();
    vcpu.set_halted(before | reason);
    if before != 0 {
        return;
    }
    let now = now();
    let kick = scheduler.block(vcpu.unit, now);
    let state = if reason == halt::BLOCKED {
        State::Blocked
    } else {
        State::Offline
    };
    let mut runstate = vcpu.runstate.lock();
    runstate.change(state, now);
    // The guest's memory is written without the lock of all.
    drop(scheduler);
    runstate.publish();
    drop(runstate);
    if let Some(cpu) = kick {
        poke(cpu);
    }
}

/// Takes a reason away; without any left the vCPU becomes runnable.
pub fn unhalt(vcpu: &Vcpu, reason: u32) {
    let mut scheduler = scheduler();
    let before = vcpu.halted();
    let after = before & !reason;
    if before == after {
        return;
    }
    vcpu.set_halted(after);
    let now = now();
    if after != 0 {
        // It waits for nothing any more, and is stopped all the same.
        let mut runstate = vcpu.runstate.lock();
        if after & halt::BLOCKED == 0 && runstate.state() == State::Blocked {
            runstate.change(State::Offline, now);
            drop(scheduler);
            runstate.publish();
        }
        return;
    }
    let kick = scheduler.wake(vcpu.unit, now);
    let mut runstate = vcpu.runstate.lock();
    runstate.change(State::Runnable, now);
    let turn_ends = match kick {
        Some(cpu) if cpu == smp::this_cpu() => scheduler.goes_on(cpu, now),
        _ => None,
    };
    drop(scheduler);
    runstate.publish();
    drop(runstate);
    let Some(cpu) = kick else { return };
    if turn_ends.is_some() {
        program(cpu, Some(turn_ends));
    } else {
        poke(cpu);
    }
}

/// Counts a vCPU's time as running or runnable from `now` on, as its CPU sees it. One that was halted meanwhile keeps the
/// state it was given then: who halts stores the reason first and changes the accounts after it.
pub fn account(vcpu: &Vcpu, state: State, now: Ticks) {
    let mut runstate = vcpu.runstate.lock();
    if vcpu.halted() == 0 && runstate.state() != state {
        runstate.change(state, now);
        runstate.publish();
    }
}

/// Starts a vCPU that is off at `entry` (bit 0: in Thumb state) with `context` in r0; false when it is on, or about to be.
///
/// The lock is held until the vCPU is on, so one of two callers finds it on. Where it starts and the request to do so
/// stand before its reason to be off goes: whichever CPU runs it finds them, whether or not its old registers have been
/// saved since it went off.
pub fn start(vcpu: &Vcpu, entry: u32, context: u32) -> bool {
    let mut restart = vcpu.restart.lock();
    if vcpu.is_online() {
        return false;
    }
    *restart = Some((entry, context));
    vcpu.set_initialised(true);
    vcpu.request(work::RESTART);
    unhalt(vcpu, halt::OFFLINE);
    true
}

/// Blocks the calling vCPU until it is kicked, unless it was already.
///
/// The reason is stored first and the requests looked at after it; whoever kicks the vCPU does it the other way round, so one
/// of the two sees the other.
pub fn block(vcpu: &Vcpu) {
    halt(vcpu, halt::BLOCKED);
    if vcpu.requested() != 0 {
        unhalt(vcpu, halt::BLOCKED);
    }
}

/// Lets others run before the calling vCPU does again.
pub fn yield_now(vcpu: &Vcpu) {
    if scheduler().yield_now(vcpu.unit, now()) {
        poke(smp::this_cpu());
    }
}

/// Makes the vCPUs of `set` look at their interrupts: they are woken, or leave their guests.
#[inline]
pub fn kick(domain: &Domain, set: VcpuSet) {
    if set != VcpuSet::EMPTY {
        kick_each(domain, set);
    }
}

fn kick_each(domain: &Domain, set: VcpuSet) {
    for id in set.iter() {
        if let Some(vcpu) = domain.vcpu(id) {
            kick_vcpu(vcpu);
        }
    }
}

/// Makes one vCPU look at its interrupts.
#[inline]
pub fn kick_vcpu(vcpu: &Vcpu) {
    vcpu.request(work::INTERRUPTS);
    if vcpu.halted() & halt::BLOCKED != 0 {
        unhalt(vcpu, halt::BLOCKED);
    } else if let Some(cpu) = vcpu.loaded_on() {
        look(cpu);
    }
}

/// The domain and vCPU behind a unit.
pub fn owner(unit: UnitId) -> Option<(Arc<Domain>, Arc<Vcpu>)> {
    registry::unit(unit)
}

#[cfg(test)]
mod tests;
