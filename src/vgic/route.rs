//! Routes from physical to virtual interrupts.
//!
//! A routed interrupt arrives acknowledged and with its priority dropped, but still active, so that it cannot fire
//! again (`GICC_CTLR.EOImode` = 1). Its list register has the HW bit, so that the guest's own end of it deactivates the
//! physical interrupt without an exit. SPIs are routed one by one. A PPI (the virtual timer) is routed for all vCPUs at
//! once; its physical state is banked per CPU and moves with the vCPU.
//!
//! Invariant: every active physical interrupt will be deactivated, see [`super::irq`].
//!
//! Manual: IHI 0048B 3.2.1 (priority drop), 5.2.2 and 5.3.8 (HW bit).

use armv7::gic::Trigger;

use super::irq::{bank_of, bit_of};
use super::{Vgic, bits};
use crate::id::{IntId, VcpuId, VcpuSet};

/// Reason a route was not changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RouteError {
    /// The domain has no such interrupt, or it cannot be routed.
    NoSuchInterrupt,
    /// A physical interrupt is already routed to it.
    Taken,
    /// No physical interrupt is routed to it.
    NotRouted,
    /// It is in a list register of a loaded vCPU.
    InUse,
}

/// No physical interrupt is routed to the virtual one: the caller keeps the physical interrupt and should deactivate
/// it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotRouted;

/// A physical interrupt whose route was removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct Unrouted {
    /// The physical interrupt.
    pub pirq: IntId,
    /// It is active and must be deactivated.
    pub active: bool,
}

impl Vgic {
    /// Routes physical interrupt `pirq` to `virq`: an SPI, or a PPI of every vCPU. Afterwards, enable it physically if
    /// [`Self::is_enabled`].
    pub fn route_hw(&mut self, virq: IntId, pirq: IntId) -> Result<(), RouteError> {
        if virq.is_sgi() || pirq.is_sgi() || virq.is_spi() != pirq.is_spi() {
            return Err(RouteError::NoSuchInterrupt);
        }
        let (number, bit) = (bank_of(virq), bit_of(virq));
        let mask = 1u32 << bit;
        if self.pirq_of(virq).is_some() {
            return Err(RouteError::Taken);
        }
        // A PPI is routed for every vCPU; an SPI's bank is the same for all.
        for vcpu in self.existing.iter() {
            let bank = self.bank_mut(vcpu, number);
            let bank = bank.ok_or(RouteError::NoSuchInterrupt)?;
            bank.pirq[bit as usize & 31] = pirq.raw();
            bank.routed |= mask;
        }
        Ok(())
    }

    /// Replaces the physical interrupt behind PPI `virq` of `vcpu`, which is unloaded, if it is routed.
    pub fn relink(&mut self, vcpu: VcpuId, virq: IntId, pirq: IntId) {
        let bit = bit_of(virq);
        let bank = &mut self.vcpu_mut(vcpu).private;
        if virq.is_ppi() && bank.routed & 1 << bit != 0 {
            bank.pirq[bit as usize & 31] = pirq.raw();
        }
    }

    /// Removes the route to SPI `virq`. Disable the physical interrupt first. Drops the pending state that the physical
    /// interrupt caused; a vCPU that handles the SPI may finish. When a domain dies, unload its vCPUs, then unroute
    /// each of [`Self::routed_spis`].
    pub fn unroute_hw(&mut self, virq: IntId) -> Result<Unrouted, RouteError> {
        let (number, bit) = (bank_of(virq), bit_of(virq));
        let mask = 1u32 << bit;
        let pirq = self.pirq_of(virq).ok_or(RouteError::NotRouted)?;
        let spi = self.spi_mut(number).ok_or(RouteError::NoSuchInterrupt)?;
        let bank = &mut spi.bank;
        if bank.in_lr & mask != 0 {
            return Err(RouteError::InUse);
        }
        let active = (bank.phys_active | bank.deactivate) & mask != 0;
        if bank.phys_active & mask != 0 {
            bank.pending &= !mask;
        }
        bank.phys_active &= !mask;
        bank.deactivate &= !mask;
        bank.routed &= !mask;
        let _ = self.requeue(VcpuId::ZERO, number, mask);
        Ok(Unrouted { pirq, active })
    }

    /// Makes `virq` pending because its physical interrupt fired: a PPI at `vcpu`, an SPI at its target. The physical
    /// interrupt is active from then on until the guest ends `virq`.
    pub fn inject_hw(&mut self, vcpu: VcpuId, virq: IntId) -> Result<VcpuSet, NotRouted> {
        let mask = 1u32 << bit_of(virq);
        let bank = self.bank_mut(vcpu, bank_of(virq)).ok_or(NotRouted)?;
        if bank.routed & mask == 0 {
            return Err(NotRouted);
        }
        bank.phys_active |= mask;
        Ok(self.raise(vcpu, virq))
    }

    /// Returns the physical interrupt routed to `virq`.
    pub fn pirq_of(&self, virq: IntId) -> Option<IntId> {
        let bank = self.bank(VcpuId::ZERO, bank_of(virq))?;
        IntId::new(bank.pirq(bit_of(virq))?.into())
    }

    /// Returns the routed interrupts among the 32 from `first` whose bits are set in `mask`, as pairs (virq, pirq).
    pub fn routes(&self, first: IntId, mask: u32) -> impl Iterator<Item = (IntId, IntId)> {
        let base = u32::from(first.raw());
        bits(mask).filter_map(move |bit| {
            let virq = IntId::new(base + bit)?;
            Some((virq, self.pirq_of(virq)?))
        })
    }

    /// Returns every routed SPI as a pair (virq, pirq).
    pub fn routed_spis(&self) -> impl Iterator<Item = (IntId, IntId)> {
        (32..self.nr_intids()).filter_map(|n| {
            let virq = IntId::new(n)?;
            Some((virq, self.pirq_of(virq)?))
        })
    }

    /// Returns the physical interrupts of enabled SPIs whose target is `vcpu`.
    pub fn pirqs_sent_to(&self, vcpu: VcpuId) -> impl Iterator<Item = IntId> {
        self.spis.iter().flat_map(move |spi| {
            bits(spi.bank.routed & spi.bank.enabled)
                .filter(move |bit| spi.target(*bit) == Some(vcpu))
                .filter_map(|bit| IntId::new(spi.bank.pirq(bit)?.into()))
        })
    }

    /// Returns the vCPU to which the guest sends SPI `virq`, whose CPU is the target of the physical interrupt.
    pub fn target_of(&self, virq: IntId) -> Option<VcpuId> {
        self.spi(bank_of(virq))?.target(bit_of(virq))
    }

    /// Returns whether the guest enabled `virq` at `vcpu`.
    pub fn is_enabled(&self, vcpu: VcpuId, virq: IntId) -> bool {
        self.bank(vcpu, bank_of(virq))
            .is_some_and(|bank| bank.enabled & 1 << bit_of(virq) != 0)
    }

    /// Returns the trigger the guest configured for SPI `virq` (`GICD_ICFGR`).
    pub fn trigger_of(&self, virq: IntId) -> Trigger {
        let bit = bit_of(virq);
        let config = |spi: &super::irq::SpiBank| spi.config[(bit / 16) as usize & 1];
        let is_edge = |spi| config(spi) & 2 << (bit % 16 * 2) != 0;
        match self.spi(bank_of(virq)).is_some_and(is_edge) {
            true => Trigger::Edge,
            false => Trigger::Level,
        }
    }
}
