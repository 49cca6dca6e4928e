//! Putting a vCPU into the hardware of this CPU and taking it out again: registers, virtual interrupts, virtual timer.

use alloc::sync::Arc;

use armv7::gic::{self, Gic};

use super::{Cpu, serror};
use crate::domain::run;
use crate::domain::vcpu::{Registers, Vcpu, work};
use crate::domain::{Domain, runstate::State};
use crate::emulate::set_way::SetWay;
use crate::time::Ticks;
use crate::vgic::{ListRegisters, Maintenance};
use crate::vtimer::PhysicalTimer;

/// INTID of the virtual timer's interrupt, physical and virtual (the Arm generic timer's PPI 11).
pub const VIRTUAL_TIMER_PPI: u32 = 27;

/// This CPU's list registers, as the vgic room sees them.
pub struct HardwareLrs<'a>(pub &'a Gic);

impl ListRegisters for HardwareLrs<'_> {
    #[inline]
    fn count(&self) -> usize {
        self.0.hyp.count()
    }
    #[inline]
    fn read(&self, index: usize) -> u32 {
        self.0.hyp.read(index)
    }
    #[inline]
    fn write(&mut self, index: usize, value: u32) {
        self.0.hyp.write(index, value);
    }
    #[inline]
    fn empty(&self) -> u64 {
        self.0.hyp.empty()
    }
    fn set_maintenance(&mut self, want: Maintenance) {
        self.0.hyp.set_maintenance(want.hcr_bits());
    }
    fn take_eoi_count(&mut self) -> u32 {
        self.0.hyp.take_eoi_count()
    }
    fn deactivate(&mut self, pirq: u16) {
        self.0.cpu.deactivate_intid(pirq.into());
    }
}

/// Loads a vCPU.
pub fn load(cpu: &Cpu, domain: &Arc<Domain>, vcpu: &Arc<Vcpu>, registers: &mut Registers) {
    vcpu.set_loaded_on(Some(cpu.id));
    run::disarm(vcpu.timer);
    registers.machine.load(&vcpu.identity);
    cpu.gic.hyp.load(&registers.interface);
    let active = domain.vgic.lock().active_ppis(vcpu.id);
    if active & 1 << VIRTUAL_TIMER_PPI != 0 {
        cpu.gic.dist.set_active(VIRTUAL_TIMER_PPI);
    }
    run::account(vcpu, State::Running);
    vcpu.request(work::INTERRUPTS);
}

/// Takes a vCPU out. Its virtual timer goes on as a software timer of this CPU.
pub fn unload(cpu: &Cpu, domain: &Arc<Domain>, vcpu: &Arc<Vcpu>, registers: &mut Registers) {
    serror::settle(domain, vcpu);
    let unloaded = domain
        .vgic
        .lock()
        .unload(vcpu.id, &mut HardwareLrs(cpu.gic));
    if unloaded.active_ppis & 1 << VIRTUAL_TIMER_PPI != 0 {
        cpu.gic.dist.clear_active(VIRTUAL_TIMER_PPI);
    }
    registers.interface = cpu.gic.hyp.save();
    registers.machine.save();
    if let Some(deadline) = registers.machine.timer.deadline() {
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

/// Answers a maintenance interrupt: reads back what the loaded vCPU did with its list registers, and fills them again. That
/// is what ends the condition which the interrupt signals, so it is done before the interrupt itself ends.
pub fn maintain(cpu: &Cpu, domain: &Arc<Domain>, vcpu: &Arc<Vcpu>) {
    let mut vgic = domain.vgic.lock();
    let mut kick = vgic.fold(vcpu.id, &mut HardwareLrs(cpu.gic));
    kick |= vgic.refill(vcpu.id, &mut HardwareLrs(cpu.gic));
    drop(vgic);
    run::kick(domain, kick);
}

/// Whether an interrupt is pending for the calling vCPU that would wake it.
pub fn has_deliverable(domain: &Domain, vcpu: &Vcpu) -> bool {
    let Some(gic) = gic::get() else { return false };
    let mut vgic = domain.vgic.lock();
    let kick = vgic.fold(vcpu.id, &mut HardwareLrs(gic));
    let deliverable = vgic.has_deliverable(vcpu.id);
    if vgic.is_dirty(vcpu.id) {
        vcpu.request(work::INTERRUPTS);
    }
    drop(vgic);
    run::kick(domain, kick);
    deliverable
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
    run::disarm(vcpu.timer);
    run::disarm(vcpu.physical_alarm);
    *vcpu.physical_timer.lock() = PhysicalTimer::default();
    *vcpu.set_way.lock() = SetWay::default();
    let kick = domain.vgic.lock().reset_vcpu(vcpu.id);
    run::kick(domain, kick);
    *registers = Registers::start(entry, context);
    load(cpu, domain, vcpu, registers);
}
