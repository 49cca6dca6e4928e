//! Loading a vCPU into this CPU's hardware and unloading it: registers, virtual interrupts, virtual timer.

use alloc::sync::Arc;

use armv7::pmu;

use super::{Cpu, serror};
use crate::cpu::target_mask;
use crate::domain::Domain;
use crate::domain::interface::HardwareLrs;
use crate::emulate::set_way::SetWay;
use crate::emulate::timer::PhysicalTimer;
use crate::id::IntId;
use crate::irq;
use crate::time::{self, Ticks};
use crate::vcpu::{Registers, RunState, Vcpu, work};
use crate::vgic::Vgic;

/// INTID of the virtual timer's PPI.
pub const VIRTUAL_TIMER: u32 = IntId::VIRTUAL_TIMER.raw() as u32;
/// INTID of the performance monitors' PPI in a guest.
const MONITORS: u32 = IntId::MONITORS.raw() as u32;

/// Loads a vCPU, which runs from `now` on.
#[inline(never)]
pub fn load(
    cpu: &Cpu,
    domain: &Arc<Domain>,
    vcpu: &Arc<Vcpu>,
    registers: &mut Registers,
    now: Ticks,
) {
    vcpu.set_loaded_on(Some(cpu.id));
    vcpu.timers.virtual_timer.disarm();
    registers.cpu.load(&vcpu.identity, domain.cntvoff());
    cpu.gic.hyp.load(&registers.interface);
    vcpu.account(RunState::Running, now);
    // A CPU that makes an interrupt pending after this finds the vCPU loaded here, and kicks this CPU.
    vcpu.acknowledge(work::INTERRUPTS);
    let mut vgic = domain.vgic.lock();
    if vcpu.set_home(cpu.id) {
        bring_interrupts(cpu, &vgic, vcpu);
    }
    if vgic.active_ppis(vcpu.id) & 1 << VIRTUAL_TIMER != 0 {
        cpu.gic.dist.set_active(VIRTUAL_TIMER);
    }
    if vcpu.identity.monitors == pmu::Access::Native {
        link_monitors(cpu, &mut vgic, vcpu);
    }
    let kick = vgic.refill(vcpu.id, &mut HardwareLrs(cpu.gic));
    drop(vgic);
    domain.kick(kick);
}

/// Makes the interrupt of this CPU's performance monitors that of the vCPU, active if it was where the vCPU ran before.
#[cold]
fn link_monitors(cpu: &Cpu, vgic: &mut Vgic, vcpu: &Vcpu) {
    let Some(line) = irq::monitors_of(cpu.id) else {
        return;
    };
    vgic.relink(vcpu.id, IntId::MONITORS, line);
    if vgic.active_ppis(vcpu.id) & 1 << MONITORS != 0 {
        cpu.gic.dist.set_active(line.raw().into());
    }
}

/// Retargets the physical interrupts that a guest directs to the vCPU to this CPU. Otherwise each would interrupt the
/// CPU that the vCPU ran on before, which would then interrupt this one.
#[cold]
fn bring_interrupts(cpu: &Cpu, vgic: &Vgic, vcpu: &Vcpu) {
    let mask = target_mask(cpu.id);
    for pirq in vgic.pirqs_sent_to(vcpu.id) {
        cpu.gic.dist.set_targets(pirq.raw().into(), mask);
    }
}

/// Unloads a vCPU. Its virtual timer continues as a software timer of this CPU.
pub fn unload(cpu: &Cpu, domain: &Arc<Domain>, vcpu: &Arc<Vcpu>, registers: &mut Registers) {
    serror::synchronize(domain, vcpu);
    let unloaded = domain
        .vgic
        .lock()
        .unload(vcpu.id, &mut HardwareLrs(cpu.gic));
    if unloaded.active_ppis & 1 << VIRTUAL_TIMER != 0 {
        cpu.gic.dist.clear_active(VIRTUAL_TIMER);
    }
    if unloaded.active_ppis & 1 << MONITORS != 0
        && let Some(line) = irq::monitors_of(cpu.id)
    {
        cpu.gic.dist.clear_active(line.raw().into());
    }
    registers.interface = cpu.gic.hyp.save();
    registers.cpu.save();
    if let Some(deadline) = registers.cpu.timer.deadline() {
        let deadline = domain.ticks_of(deadline);
        vcpu.timers.virtual_timer.arm(deadline);
    }
    domain.kick(unloaded.kick);
}

/// Refills the loaded vCPU's list registers if it is dirty.
pub fn refill(cpu: &Cpu, domain: &Arc<Domain>, vcpu: &Arc<Vcpu>) {
    let kick = domain
        .vgic
        .lock()
        .refill(vcpu.id, &mut HardwareLrs(cpu.gic));
    domain.kick(kick);
}

/// Handles a maintenance interrupt: folds and refills the loaded vCPU's list registers. That clears the interrupt's
/// condition, so it must precede the deactivation.
pub fn maintain(cpu: &Cpu, domain: &Arc<Domain>, vcpu: &Arc<Vcpu>) {
    let kick = domain.vgic.lock().fold(vcpu.id, &mut HardwareLrs(cpu.gic));
    domain.kick(kick);
}

/// Resets a vCPU for PSCI CPU_ON.
pub fn restart(
    cpu: &Cpu,
    domain: &Arc<Domain>,
    vcpu: &Arc<Vcpu>,
    registers: &mut Registers,
    entry: u32,
    context: u32,
) {
    unload(cpu, domain, vcpu, registers);
    vcpu.timers.physical_timer.disarm();
    *vcpu.physical_timer.lock() = PhysicalTimer::default();
    *vcpu.set_way.lock() = SetWay::default();
    let kick = domain.vgic.lock().reset_vcpu(vcpu.id);
    domain.kick(kick);
    *registers = Registers::start(entry, context);
    load(cpu, domain, vcpu, registers, time::now());
}
