//! Putting a vCPU into the hardware of this CPU and taking it out again: registers, virtual interrupts, virtual timer.

use alloc::sync::Arc;

use super::{Cpu, serror};
use crate::cpu::target_mask;
use crate::domain::Domain;
use crate::domain::interface::HardwareLrs;
use crate::emulate::set_way::SetWay;
use crate::emulate::timer::PhysicalTimer;
use crate::id::IntId;
use crate::time::{self, Ticks};
use crate::vcpu::{Registers, RunState, Vcpu, work};
use crate::vgic::Vgic;

/// The virtual timer's interrupt.
pub const VIRTUAL_TIMER: u32 = IntId::VIRTUAL_TIMER.raw() as u32;

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
    registers.cpu.load(&vcpu.identity);
    cpu.gic.hyp.load(&registers.interface);
    vcpu.account(RunState::Running, now);
    // Whoever makes more pending after this finds the vCPU loaded here, and says so.
    vcpu.acknowledge(work::INTERRUPTS);
    let mut vgic = domain.vgic.lock();
    if vcpu.moves_to(cpu.id) {
        bring_interrupts(cpu, &vgic, vcpu);
    }
    if vgic.active_ppis(vcpu.id) & 1 << VIRTUAL_TIMER != 0 {
        cpu.gic.dist.set_active(VIRTUAL_TIMER);
    }
    let kick = vgic.refill(vcpu.id, &mut HardwareLrs(cpu.gic));
    drop(vgic);
    domain.kick(kick);
}

/// Sends the physical interrupts that a vCPU's guest sends to it to this CPU: otherwise each would interrupt the one that the
/// vCPU ran on before, and this one for that.
#[cold]
fn bring_interrupts(cpu: &Cpu, vgic: &Vgic, vcpu: &Vcpu) {
    let mask = target_mask(cpu.id);
    for pirq in vgic.pirqs_sent_to(vcpu.id) {
        cpu.gic.dist.set_targets(pirq.raw().into(), mask);
    }
}

/// Takes a vCPU out. Its virtual timer goes on as a software timer of this CPU.
pub fn unload(cpu: &Cpu, domain: &Arc<Domain>, vcpu: &Arc<Vcpu>, registers: &mut Registers) {
    serror::settle(domain, vcpu);
    let unloaded = domain
        .vgic
        .lock()
        .unload(vcpu.id, &mut HardwareLrs(cpu.gic));
    if unloaded.active_ppis & 1 << VIRTUAL_TIMER != 0 {
        cpu.gic.dist.clear_active(VIRTUAL_TIMER);
    }
    registers.interface = cpu.gic.hyp.save();
    registers.cpu.save();
    if let Some(deadline) = registers.cpu.timer.deadline() {
        let deadline = Ticks(deadline.saturating_add(domain.cntvoff));
        vcpu.timers.virtual_timer.arm(deadline);
    }
    domain.kick(unloaded.kick);
}

/// Moves what waits for the loaded vCPU into its list registers.
#[inline]
pub fn refill(cpu: &Cpu, domain: &Arc<Domain>, vcpu: &Arc<Vcpu>) {
    let kick = domain
        .vgic
        .lock()
        .refill(vcpu.id, &mut HardwareLrs(cpu.gic));
    domain.kick(kick);
}

/// Handles a maintenance interrupt: reads back what the loaded vCPU did with its list registers, and refills them. That ends
/// the condition which the interrupt signals, so it is done before the interrupt itself ends.
pub fn maintain(cpu: &Cpu, domain: &Arc<Domain>, vcpu: &Arc<Vcpu>) {
    let kick = domain.vgic.lock().fold(vcpu.id, &mut HardwareLrs(cpu.gic));
    domain.kick(kick);
}

/// Starts a vCPU from scratch, as PSCI CPU_ON asked.
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
