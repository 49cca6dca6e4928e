//! The virtual interrupt interface of this CPU, and waiting for what it may deliver.
//!
//! A vCPU that is loaded has its best interrupts in the list registers; what its guest did with them is read back from
//! there before anything is decided about it.
//!
//! An interrupt that the vgic has latched for a vCPU that runs on this CPU goes into the list registers at once, under the
//! lock that is held already ([`deliver`]). Every other vCPU is kicked ([`Domain::kick`]): it refills them itself before it
//! enters its guest.

use armv7::gic::{self, Gic};
use armv7::smp;

use super::Domain;
use crate::id::VcpuSet;
use crate::sync::Guard;
use crate::vcpu::Vcpu;
use crate::vgic::{ListRegisters, Maintenance, Vgic};

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

/// Returns whether an interrupt is pending for the calling vCPU that would wake it.
fn has_deliverable(domain: &Domain, vcpu: &Vcpu) -> bool {
    let Some(gic) = gic::get() else { return false };
    let mut vgic = domain.vgic.lock();
    let kick = vgic.fold(vcpu.id, &mut HardwareLrs(gic));
    let deliverable = vgic.has_deliverable(vcpu.id);
    drop(vgic);
    domain.kick(kick);
    deliverable
}

/// Blocks the calling vCPU until something is pending for it (WFI, SCHEDOP_block).
pub fn block(domain: &Domain, vcpu: &Vcpu) {
    if has_deliverable(domain, vcpu) {
        return;
    }
    // An interrupt that came since then has left a request.
    vcpu.block();
}

/// Makes the vCPUs in `named`, as `vgic` returned them, see what changed for them.
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

/// Returns whether `vcpu` is loaded on this CPU and waits for nothing.
#[inline]
fn runs_here(vcpu: &Vcpu) -> bool {
    vcpu.is_loaded_on(smp::this_cpu()) && vcpu.halted() == 0
}
