//! THE LOOP: choose a vCPU, run it, see why it left, act, again.
//!
//! Each physical CPU is in [`run()`] for ever. It loads a vCPU (`occupy`) and keeps it in the hardware until the scheduler
//! wants those registers saved; between exits nothing is moved but the general registers. What others ask of this CPU or
//! vCPU is in two words, so the way back into the guest costs two loads when nothing is asked.

mod abort;
pub mod chores;
mod exits;
pub mod inject;
mod interrupts;
mod load;
mod serror;

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use armv7::cpu::CpuId;
use armv7::gic::Gic;
use armv7::guest::{self, Exit};

use crate::cpu::{self, work::PICK};
use crate::domain::{Domain, registry};
use crate::latency::{self, Cause};
use crate::mem::heap;
use crate::sched::{self, UnitId};
use crate::time::{self, Ticks};
use crate::vcpu::{self, Registers, RunState, Vcpu, work};

/// A physical CPU in the loop.
pub struct Cpu {
    /// Which one.
    pub id: CpuId,
    /// The interrupt controller, with this CPU's interfaces.
    pub gic: &'static Gic,
    /// There is a scheduler.
    pub ready: sched::Ready,
}

/// Runs vCPUs on this CPU for ever.
pub fn run(cpu: &Cpu) -> ! {
    let mut next = (None, time::now());
    loop {
        next = match next.0.and_then(registry::unit) {
            Some((domain, vcpu)) => occupy(cpu, &domain, &vcpu, next.1),
            None => idle(cpu),
        };
    }
}

/// The unit that a CPU runs next, if any, and when it was chosen.
type Picked = (Option<UnitId>, Ticks);

/// Waits with nothing loaded until there is a unit to run.
fn idle(cpu: &Cpu) -> Picked {
    loop {
        let (choice, now) = vcpu::pick(cpu.id);
        if choice.unit.is_some() {
            return (choice.unit, now);
        }
        wait(cpu, None);
    }
}

/// Pages scrubbed at a time while idle, between looks at the interrupts.
const IDLE_SCRUB_PAGES: u32 = 8;

/// Waits for an interrupt that makes this CPU pick.
fn wait(cpu: &Cpu, loaded: Option<(&Arc<Domain>, &Arc<Vcpu>)>) {
    while !is_to_pick(cpu) {
        crate::control::reap();
        heap::replenish();
        heap::give_back();
        // QEMU's GIC overlooks a line that is high when the guest ends its interrupt (`LONGEST_IN_GUEST`, for a CPU that is
        // not idle): writing to it makes it look.
        if loaded.is_some() && armv7::timer::guest_signals() {
            cpu.gic.dist.enable(load::VIRTUAL_TIMER);
        }
        // Reaping, as everything, may have asked this very CPU for something: it gets no interrupt for that.
        let asked = cpu::word(cpu.id).load(Ordering::Relaxed) != 0;
        if !asked && !crate::mem::memory().scrub_some(IDLE_SCRUB_PAGES) {
            latency::end();
            armv7::barrier::wfi();
            latency::begin(|| Cause::Idle);
            serror::look_while_idle(loaded);
        }
        latency::look();
        interrupts::handle(cpu, loaded);
    }
}

/// Does what this CPU is asked to do, but for choosing what runs; whether it is to do that.
fn is_to_pick(cpu: &Cpu) -> bool {
    let mut pick = false;
    loop {
        let work = cpu::take_work(cpu.id);
        pick |= work & PICK != 0;
        if work & !PICK == 0 {
            return pick;
        }
        // May ask this CPU for more.
        chores::run(work);
    }
}

/// Loads a vCPU that was chosen at `since`, and runs it until its registers are to be saved, and returns what to run next.
fn occupy(cpu: &Cpu, domain: &Arc<Domain>, vcpu: &Arc<Vcpu>, since: Ticks) -> Picked {
    let mut registers = vcpu.registers.lock();
    load::load(cpu, domain, vcpu, &mut registers, since);
    let asked = cpu::word(cpu.id);
    loop {
        if (asked.load(Ordering::Relaxed) | vcpu.requested()) != 0
            && let Next::Leave(next) = serve(cpu, domain, vcpu, &mut registers)
        {
            return next;
        }
        latency::end();
        match guest::enter(&mut registers.context) {
            Exit::Trap => {
                latency::begin(|| exits::cause(&registers.context));
                exits::handle(domain, vcpu, &mut registers.context);
            }
            Exit::Interrupt => {
                latency::begin(|| Cause::Interrupt);
                interrupts::handle(cpu, Some((domain, vcpu)));
            }
        }
    }
}

/// The outcome of [`serve`].
enum Next {
    /// Enter the guest.
    Enter,
    /// The registers are saved: run this unit instead, or wait.
    Leave(Picked),
}

/// Does what this CPU and the loaded vCPU are asked to do. Out of line: the loop around the guest keeps its values in
/// registers.
#[inline(never)]
fn serve(cpu: &Cpu, domain: &Arc<Domain>, vcpu: &Arc<Vcpu>, registers: &mut Registers) -> Next {
    while is_to_pick(cpu) {
        let (choice, now) = vcpu::pick(cpu.id);
        if choice.save.is_some() {
            leave(cpu, domain, vcpu, registers, now);
            return Next::Leave((choice.unit, now));
        }
        if choice.unit.is_none() {
            // Idle with the vCPU still loaded: it will most likely be the next to run. One that is not halted waits for its
            // cap.
            vcpu.account(RunState::Runnable, now);
            wait(cpu, Some((domain, vcpu)));
            cpu::ask_this(PICK);
        } else {
            vcpu.account(RunState::Running, now);
        }
    }
    let requests = vcpu.take_requests();
    if requests & work::RESTART != 0 {
        let start = vcpu.restart.lock().take();
        if let Some((entry, context)) = start {
            load::restart(cpu, domain, vcpu, registers, entry, context);
        }
    }
    if requests & work::INTERRUPTS != 0 {
        load::refill(cpu, domain, vcpu);
    }
    Next::Enter
}

/// Saves the loaded vCPU, which does not run from `now` on, and lets other CPUs have it.
fn leave(cpu: &Cpu, domain: &Arc<Domain>, vcpu: &Arc<Vcpu>, registers: &mut Registers, now: Ticks) {
    load::unload(cpu, domain, vcpu, registers);
    vcpu.account(RunState::Runnable, now);
    vcpu.set_loaded_on(None);
    vcpu::release(vcpu.unit);
}
