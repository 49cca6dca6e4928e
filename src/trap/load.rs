//! Putting a vCPU into the hardware of this CPU and taking it out again: registers, virtual interrupts, virtual timer.

use alloc::sync::Arc;

use super::{Cpu, serror};
use crate::domain::interface::HardwareLrs;
use crate::domain::run;
use crate::domain::vcpu::{Registers, Vcpu, work};
use crate::domain::{Domain, runstate::State};
use crate::emulate::set_way::SetWay;
use crate::emulate::timer::PhysicalTimer;
use crate::id::IntId;
use crate::time::Ticks;
use crate::vgic::Vgic;

/// The virtual timer's interrupt.
pub const VIRTUAL_TIMER: u32 = IntId::VIRTUAL_TIMER.raw() as u32;

/// Loads a vCPU, which runs from `now` on.
pub fn load(
    cpu: &Cpu,
    domain: &Arc<Domain>,
    vcpu: &Arc<Vcpu>,
    registers: &mut Registers,
    now: Ticks,
) {
    vcpu.set_loaded_on(Some(cpu.id));
    if vcpu.set_alarm(false) {
        run::disarm(vcpu.timer);
    }
    registers.machine.load(&vcpu.identity);
    cpu.gic.hyp.load(&registers.interface);
    run::account(vcpu, State::Running, now);
    // Whoever makes more pending after this finds the vCPU loaded here, and says so.
    vcpu.answer(work::INTERRUPTS);
    let mut vgic = domain.vgic.lock();
    if vcpu.moves_to(cpu.id) {
        bring_interrupts(cpu, &vgic, vcpu);
    }
    if vgic.active_ppis(vcpu.id) & 1 << VIRTUAL_TIMER != 0 {
        cpu.gic.dist.set_active(VIRTUAL_TIMER);
    }
    let kick = vgic.refill(vcpu.id, &mut HardwareLrs(cpu.gic));
    drop(vgic);
    run::kick(domain, kick);
}

/// Sends the physical interrupts that a vCPU's guest sends to it to this CPU: otherwise each would interrupt the one that the
/// vCPU ran on before, and this one for that.
#[cold]
fn bring_interrupts(cpu: &Cpu, vgic: &Vgic, vcpu: &Vcpu) {
    let mask = run::target_mask(cpu.id);
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
    registers.machine.save();
    if let Some(deadline) = registers.machine.timer.deadline() {
        vcpu.set_alarm(true);
        run::arm(vcpu.timer, Ticks(deadline.saturating_add(domain.cntvoff)));
    }
    run::kick(domain, unloaded.kick);
}

/// Moves what waits for the loaded vCPU into its list registers.
#[inline]
pub fn refill(cpu: &Cpu, domain: &Arc<Domain>, vcpu: &Arc<Vcpu>) {
    let kick = domain
        .vgic
        .lock()
        .refill(vcpu.id, &mut HardwareLrs(cpu.gic));
    run::kick(domain, kick);
}

/// Handles a maintenance interrupt: reads back what the loaded vCPU did with its list registers, and refills them. That ends
/// the condition which the interrupt signals, so it is done before the interrupt itself ends.
pub fn maintain(cpu: &Cpu, domain: &Arc<Domain>, vcpu: &Arc<Vcpu>) {
    let kick = domain.vgic.lock().fold(vcpu.id, &mut HardwareLrs(cpu.gic));
    run::kick(domain, kick);
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
    run::disarm(vcpu.physical_alarm);
    *vcpu.physical_timer.lock() = PhysicalTimer::default();
    *vcpu.set_way.lock() = SetWay::default();
    let kick = domain.vgic.lock().reset_vcpu(vcpu.id);
    run::kick(domain, kick);
    *registers = Registers::start(entry, context);
    load(cpu, domain, vcpu, registers, run::now());
}
