//! The list registers of this CPU, and vCPUs that wait for an interrupt.
//!
//! A loaded vCPU has its most urgent interrupts in the list registers. Their state is folded back into the vGIC before
//! anything is decided about them.
//!
//! An interrupt that became pending for a vCPU on this CPU goes into the list registers at once, under the lock that is held
//! already ([`deliver`]). Every other vCPU is kicked ([`Domain::kick`]) and refills its list registers before it enters its
//! guest.

use armv7::gic::{self, Gic};
use armv7::smp;

use super::Domain;
use crate::id::VcpuSet;
use crate::sync::Guard;
use crate::vcpu::Vcpu;
use crate::vgic::{ListRegisters, Maintenance, Vgic};

/// This CPU's list registers, for the `vgic` room.
pub struct HardwareLrs<'a>(pub &'a Gic);

impl ListRegisters for HardwareLrs<'_> {
    fn count(&self) -> usize {
        self.0.hyp.count()
    }
    fn read(&self, index: usize) -> u32 {
        self.0.hyp.read(index)
    }
    fn write(&mut self, index: usize, value: u32) {
        self.0.hyp.write(index, value);
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

/// Returns whether an interrupt that wakes the calling vCPU is pending.
fn has_deliverable(domain: &Domain, vcpu: &Vcpu) -> bool {
    let Some(gic) = gic::get() else { return false };
    let mut vgic = domain.vgic.lock();
    let kick = vgic.fold(vcpu.id, &mut HardwareLrs(gic));
    let deliverable = vgic.has_deliverable(vcpu.id);
    drop(vgic);
    domain.kick(kick);
    deliverable
}

/// Blocks the calling vCPU until an interrupt is pending for it (WFI, SCHEDOP_block).
pub fn block(domain: &Domain, vcpu: &Vcpu) {
    if has_deliverable(domain, vcpu) {
        return;
    }
    // An interrupt that came since then has left a request, with which `block` returns at once.
    vcpu.block();
}

/// Delivers a change of the vGIC to the vCPUs in `named`, which it returned: refills the list registers of the one that runs
/// here, and kicks the others.
#[inline(always)]
pub fn deliver(domain: &Domain, mut vgic: Guard<'_, Vgic>, named: VcpuSet) {
    let mut kick = named;
    for id in named.iter() {
        if let Some(vcpu) = domain.vcpu(id)
            && runs_here(vcpu)
            && vgic.is_resident(id)
            && let Some(gic) = gic::get()
        {
            kick = kick.minus(VcpuSet::only(id)) | vgic.refill(id, &mut HardwareLrs(gic));
        }
    }
    drop(vgic);
    domain.kick(kick);
}

/// Returns whether `vcpu` is loaded on this CPU and not halted.
fn runs_here(vcpu: &Vcpu) -> bool {
    vcpu.is_loaded_on(smp::this_cpu()) && vcpu.halted() == 0
}
