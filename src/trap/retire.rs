//! The end of a CPU that is to be switched off: its timers and interrupts go to the boot CPU.

use armv7::cpu::CpuId;

use super::{Cpu, chores};
use crate::cpu::{self, hold, power};
use crate::domain::registry;
use crate::partition::restart;
use crate::time::{self, Purpose, Ticks};

/// Switches this CPU off, which is in no CPU pool and has no vCPU loaded. Returns if another CPU holds this one first, or
/// if firmware refuses.
pub fn retire(cpu: &Cpu) {
    // The held CPUs have made all requests that they were about to make, and wait for none.
    let Some(held) = hold::others_wait() else {
        return cpu::request_this(cpu::work::PICK);
    };
    let mask = cpu.gic.dist.target_mask();
    power::retire(cpu.id);
    move_timers(cpu.id, CpuId::BOOT);
    cpu.gic
        .dist
        .move_targets(mask, cpu::target_mask(CpuId::BOOT));
    drop(held);
    // Programs its hardware timer.
    cpu::repick(CpuId::BOOT);
    cpu.gic.cpu.close();
    armv7::timer::set_deadline(None);
    let refusal = power::off(cpu.id);
    log::error!("CPU{} stays on: {refusal:?}", cpu.id.raw());
    cpu.gic.cpu.init_cpu();
    cpu::set_online(cpu.id, mask);
    power::set_on(cpu.id);
}

/// Moves all timers in the queue of `from` to `to`.
fn move_timers(from: CpuId, to: CpuId) {
    while let Some(purpose) = time::first(from) {
        migrate(purpose, from, to);
        if time::first(from) == Some(purpose) {
            // Its owner is being destroyed: nobody waits for it.
            time::expired(from, Ticks::NEVER);
        }
    }
}

fn migrate(purpose: Purpose, from: CpuId, to: CpuId) {
    match purpose {
        Purpose::Virtual(unit) | Purpose::Poll(unit) | Purpose::Physical(unit) => {
            if let Some((_, vcpu)) = registry::unit(unit) {
                for timer in vcpu.timers.all() {
                    timer.migrate(from, to);
                }
            }
        }
        Purpose::Watchdog(dom) => {
            if let Some(domain) = registry::get(dom) {
                for timer in domain.watchdogs.lock().iter().flatten() {
                    timer.migrate(from, to);
                }
            }
        }
        Purpose::Console => chores::migrate_console_timer(from, to),
        Purpose::Restarts => restart::migrate_timer(from, to),
    }
}
