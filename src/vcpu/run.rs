//! Running and stopping vCPUs: joins the scheduler, the time accounts and the CPUs.
//!
//! A vCPU is runnable when it has no reason to be halted ([`halt`]). Reasons change in one function, under the
//! scheduler's lock, so that reasons, run queues and time accounts agree.

use core::sync::atomic::Ordering;

use armv7::cpu::CpuId;
use armv7::smp;

use super::{RunState, Vcpu, halt, work};
use crate::cpu;
use crate::sched::{self, Choice, UnitId};
use crate::time::{self, Ticks, now};

/// Longest time in a guest without an exit, in ticks (134 ms at 62.5 MHz). Works around QEMU's GIC, which does not
/// sample a line that is high when the guest ends its interrupt (list register with HW set) until another event reaches
/// the GIC. A vCPU that neither traps nor is interrupted, and whose timer is due again by then, would miss all further
/// ticks.
const LONGEST_IN_GUEST: Ticks = Ticks(1 << 23);

/// Chooses what `cpu`, which is this CPU, runs next, and kicks other CPUs that must choose again. Returns the choice
/// and its time.
pub fn pick(cpu: CpuId) -> (Choice, Ticks) {
    let mut scheduler = sched::lock();
    let now = now();
    let choice = scheduler.pick(cpu, now);
    drop(scheduler);
    let alone = choice.unit.map(|_| now.plus(LONGEST_IN_GUEST));
    time::set_turn_end(cpu, choice.until.or(alone));
    if !choice.kick.is_empty() {
        cpu::repick_all(choice.kick);
    }
    (choice, now)
}

/// Reports that a vCPU's registers are saved and may be loaded on another CPU.
pub fn release(unit: UnitId) {
    let cpu = sched::lock().release(unit, now());
    if let Some(cpu) = cpu {
        cpu::repick(cpu);
    }
}

impl Vcpu {
    /// Adds a reason not to run. If the vCPU is on a CPU, that CPU picks.
    pub fn halt(&self, reason: u32) {
        self.change_halt(|reasons| reasons | reason);
    }

    /// Removes a reason. Without reasons the vCPU becomes runnable.
    pub fn unhalt(&self, reason: u32) {
        self.change_halt(|reasons| reasons & !reason);
    }

    /// Wakes the vCPU if it is blocked.
    pub fn wake(&self) {
        if self.halted() & halt::BLOCKED != 0 {
            self.unhalt(halt::BLOCKED);
        }
    }

    /// Makes the vCPU refill its list registers: wakes it, or makes it leave its guest.
    pub fn kick(&self) {
        self.request(work::INTERRUPTS);
        if self.halted() & halt::BLOCKED != 0 {
            self.unhalt(halt::BLOCKED);
        } else if let Some(cpu) = self.loaded_on() {
            cpu::interrupt(cpu);
        }
    }

    fn change_halt(&self, change: impl FnOnce(u32) -> u32) {
        let mut scheduler = sched::lock();
        let before = self.halted();
        let after = change(before);
        if before == after {
            return;
        }
        self.halt.store(after, Ordering::SeqCst);
        let state = RunState::of_waiting(after);
        if before != 0 && RunState::of_waiting(before) == state {
            return;
        }
        let now = now();
        let cpu = match (before, after) {
            (0, _) => scheduler.block(self.unit, now),
            (_, 0) => scheduler.wake(self.unit, now),
            _ => None,
        };
        let turn_ends = match cpu {
            Some(cpu) if after == 0 && cpu == smp::this_cpu() => scheduler.goes_on(cpu, now),
            _ => None,
        };
        let mut runstate = self.runstate.lock();
        runstate.change(state, now);
        // The scheduler's lock is dropped before the guest's memory is written.
        drop(scheduler);
        runstate.publish();
        drop(runstate);
        match cpu {
            Some(cpu) if turn_ends.is_some() => time::set_turn_end(cpu, turn_ends),
            Some(cpu) => cpu::repick(cpu),
            None => {}
        }
    }

    /// Counts its time from `now` on as running or runnable, as seen by its CPU. A vCPU that was halted meanwhile keeps
    /// its state: `halt` stores the reason before it changes the account.
    pub fn account(&self, state: RunState, now: Ticks) {
        let mut runstate = self.runstate.lock();
        if self.halted() == 0 && runstate.state() != state {
            runstate.change(state, now);
            runstate.publish();
        }
    }

    /// Starts the vCPU, which is off, at `entry` (bit 0 selects Thumb state) with `context` in r0. Returns false if it
    /// is on or about to be.
    ///
    /// The lock is held until the vCPU is on, so the second of two callers finds it on. The start address and the
    /// request are stored before the OFFLINE reason is removed, so that the CPU that runs the vCPU finds them, even if
    /// its old registers have not been saved since it went off.
    pub fn start(&self, entry: u32, context: u32) -> bool {
        let mut restart = self.restart.lock();
        if self.is_online() {
            return false;
        }
        *restart = Some((entry, context));
        self.set_initialised(true);
        self.request(work::RESTART);
        self.unhalt(halt::OFFLINE);
        true
    }

    /// Blocks the calling vCPU until it is kicked, unless a request is pending.
    ///
    /// The reason is stored before the requests are read. A kick does the reverse, so one of the two sees the other.
    pub fn block(&self) {
        self.halt(halt::BLOCKED);
        if self.requested() != 0 {
            self.unhalt(halt::BLOCKED);
        }
    }

    /// Lets other vCPUs run before the calling vCPU continues.
    pub fn yield_now(&self) {
        if sched::lock().yield_now(self.unit, now()) {
            cpu::repick(smp::this_cpu());
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
