//! The main loop of a CPU: choose a vCPU, run it, handle its exit, repeat.
//!
//! Each physical CPU stays in [`run()`]. It loads a vCPU (`occupy`) and keeps its state in the hardware until the
//! scheduler requires those registers to be saved; an exit saves the general registers only. Requests to this CPU or
//! vCPU are in two words, so the return to the guest costs two loads if there are none.

mod abort;
pub mod chores;
mod exits;
pub mod inject;
mod interrupts;
mod load;
mod retire;
mod serror;

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use armv7::cpu::CpuId;
use armv7::gic::Gic;
use armv7::guest::{self, Exit};

use crate::cpu::{self, power, work::PICK};
use crate::domain::{Domain, registry};
use crate::latency::{self, Cause};
use crate::mem::heap;
use crate::sched::{self, UnitId};
use crate::time::{self, Ticks};
use crate::vcpu::{self, Registers, RunState, Vcpu, work};

/// A physical CPU in the main loop.
pub struct Cpu {
    /// Its logical number.
    pub id: CpuId,
    /// The interrupt controller, with this CPU's interfaces.
    pub gic: &'static Gic,
    /// Proof that the scheduler is set up.
    pub ready: sched::Ready,
}

/// Runs vCPUs on this CPU. Never returns.
pub fn run(cpu: &Cpu) -> ! {
    let mut next = (None, time::now());
    loop {
        next = match next.0.and_then(registry::unit) {
            Some((domain, vcpu)) => occupy(cpu, &domain, &vcpu, next.1),
            None => idle(cpu),
        };
    }
}

/// The unit a CPU runs next, if any, and the time of the choice.
type Picked = (Option<UnitId>, Ticks);

/// Waits without a loaded vCPU until there is a unit to run.
fn idle(cpu: &Cpu) -> Picked {
    loop {
        let (choice, now) = vcpu::pick(cpu.id);
        if choice.unit.is_some() {
            return (choice.unit, now);
        }
        if power::is_leaving(cpu.id) {
            retire::retire(cpu);
        }
        wait(cpu, None);
    }
}

/// Pages scrubbed in one go while idle, between checks for interrupts.
const IDLE_SCRUB_PAGES: u32 = 8;

/// Waits until a request makes this CPU pick, and does housekeeping meanwhile.
fn wait(cpu: &Cpu, loaded: Option<(&Arc<Domain>, &Arc<Vcpu>)>) {
    while !is_to_pick(cpu) {
        crate::control::reap();
        heap::replenish();
        heap::give_back();
        // Works around QEMU's GIC (see `LONGEST_IN_GUEST`) for an idle CPU: a write to the GIC makes it sample the
        // line.
        if loaded.is_some() && armv7::timer::guest_signals() {
            cpu.gic.dist.enable(load::VIRTUAL_TIMER);
        }
        // The housekeeping may have made a request of this CPU, which raises no interrupt.
        let asked = cpu::word(cpu.id).load(Ordering::Relaxed) != 0;
        if !asked && !crate::mem::memory().scrub_some(IDLE_SCRUB_PAGES) {
            latency::end();
            armv7::barrier::wfi();
            latency::begin(|| Cause::Idle);
            serror::poll_idle(loaded);
        }
        latency::split();
        interrupts::handle(cpu, loaded);
    }
}

/// Does the requested work except picking. Returns whether the CPU must pick.
fn is_to_pick(cpu: &Cpu) -> bool {
    let mut pick = false;
    loop {
        let work = cpu::take_work(cpu.id);
        pick |= work & PICK != 0;
        if work & !PICK == 0 {
            return pick;
        }
        // May add requests of this CPU.
        chores::run(work);
    }
}

/// Loads a vCPU that was chosen at `since`, and runs it until its registers must be saved. Returns what to run next.
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

/// Outcome of [`serve`].
enum Next {
    /// Enter the guest.
    Enter,
    /// The registers are saved: run this unit instead, or idle.
    Leave(Picked),
}

/// Serves the requests of this CPU and of the loaded vCPU. Not inlined, so that the loop around the guest keeps its
/// values in registers.
#[inline(never)]
fn serve(cpu: &Cpu, domain: &Arc<Domain>, vcpu: &Arc<Vcpu>, registers: &mut Registers) -> Next {
    while is_to_pick(cpu) {
        let (choice, now) = vcpu::pick(cpu.id);
        if choice.save.is_some() {
            leave(cpu, domain, vcpu, registers, now);
            return Next::Leave((choice.unit, now));
        }
        if choice.unit.is_none() {
            // Idles with the vCPU still loaded, as it is likely to run next. If not halted, it waits for its cap's next
            // period.
            vcpu.account(RunState::Runnable, now);
            wait(cpu, Some((domain, vcpu)));
            cpu::request_this(PICK);
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

/// Saves the loaded vCPU, which stops at `now`, and releases it to other CPUs.
fn leave(cpu: &Cpu, domain: &Arc<Domain>, vcpu: &Arc<Vcpu>, registers: &mut Registers, now: Ticks) {
    load::unload(cpu, domain, vcpu, registers);
    vcpu.account(RunState::Runnable, now);
    vcpu.set_loaded_on(None);
    vcpu::release(vcpu.unit);
}
