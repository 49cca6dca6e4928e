//! Which physical interrupt feeds which virtual one.
//!
//! A routed interrupt arrives acknowledged and with its priority dropped, but still active, so that it cannot fire
//! again (`GICC_CTLR.EOImode` = 1). It is delivered with the list register's HW bit, and the guest's own end of it
//! deactivates the physical one without an exit. Shared interrupts are routed one by one; a PPI (the virtual timer) is
//! routed for all vCPUs at once, and its physical state is banked per CPU and moves with the vCPU.
//!
//! Invariant: something deactivates each physical interrupt that is active, see [`super::irq`].
//!
//! Manual: IHI 0048B 3.2.1 (priority drop), 5.2.2 and 5.3.8 (HW bit).

use armv7::gic::Trigger;

use super::irq::{bank_of, bit_of};
use super::{Vgic, bits};
use crate::id::{IntId, VcpuId, VcpuSet};

/// Why a route was not changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RouteError {
    /// The domain has no such interrupt, or it cannot be routed.
    NoSuchInterrupt,
    /// A physical interrupt feeds it already.
    Taken,
    /// None does.
    NotRouted,
    /// It is in the list registers of a vCPU that is loaded.
    InUse,
}

/// No physical interrupt feeds the interrupt: the caller keeps it, and should deactivate it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotRouted;

/// A physical interrupt that a domain no longer has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct Unrouted {
    /// The physical interrupt.
    pub pirq: IntId,
    /// It is active and must be deactivated.
    pub active: bool,
}

impl Vgic {
    /// Lets physical interrupt `pirq` feed `virq`, an SPI, or a PPI of every vCPU. Enable it physically afterwards if
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
        // A PPI is routed for every vCPU.
        for vcpu in self.existing.iter() {
            let bank = self.bank_mut(vcpu, number);
            let bank = bank.ok_or(RouteError::NoSuchInterrupt)?;
            bank.pirq[bit as usize & 31] = pirq.raw();
            bank.routed |= mask;
        }
        Ok(())
    }

    /// Takes SPI `virq` away from its physical interrupt. Disable that first. If it made the SPI pending, that is dropped; a
    /// vCPU that handles it may finish. When a domain dies, unload its vCPUs, then unroute [`Self::routes`] one after the other.
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

    /// Makes `virq` pending because its physical interrupt fired, which is active from then on until the guest ends
    /// it: for a PPI at `vcpu`, for an SPI at its target.
    #[inline]
    pub fn inject_hw(&mut self, vcpu: VcpuId, virq: IntId) -> Result<VcpuSet, NotRouted> {
        let mask = 1u32 << bit_of(virq);
        let bank = self.bank_mut(vcpu, bank_of(virq)).ok_or(NotRouted)?;
        if bank.routed & mask == 0 {
            return Err(NotRouted);
        }
        bank.phys_active |= mask;
        Ok(self.raise(vcpu, virq))
    }

    /// Returns the physical interrupt behind `virq`.
    pub fn pirq_of(&self, virq: IntId) -> Option<IntId> {
        let bank = self.bank(VcpuId::ZERO, bank_of(virq))?;
        IntId::new(bank.pirq(bit_of(virq))?.into())
    }

    /// Returns the routed interrupts among the 32 from `first` on whose bits are set in `mask`: virtual and physical number.
    pub fn routes(&self, first: IntId, mask: u32) -> impl Iterator<Item = (IntId, IntId)> {
        let base = u32::from(first.raw());
        bits(mask).filter_map(move |bit| {
            let virq = IntId::new(base + bit)?;
            Some((virq, self.pirq_of(virq)?))
        })
    }

    /// Returns every routed SPI: virtual and physical number.
    pub fn routed_spis(&self) -> impl Iterator<Item = (IntId, IntId)> {
        (32..self.nr_intids()).filter_map(|n| {
            let virq = IntId::new(n)?;
            Some((virq, self.pirq_of(virq)?))
        })
    }

    /// Returns the physical interrupts of enabled SPIs that the guest sends to `vcpu`.
    pub fn pirqs_sent_to(&self, vcpu: VcpuId) -> impl Iterator<Item = IntId> {
        self.spis.iter().flat_map(move |spi| {
            bits(spi.bank.routed & spi.bank.enabled)
                .filter(move |bit| spi.target(*bit) == Some(vcpu))
                .filter_map(|bit| IntId::new(spi.bank.pirq(bit)?.into()))
        })
    }

    /// vCPU that the guest sends SPI `virq` to: where to send its physical interrupt.
    pub fn target_of(&self, virq: IntId) -> Option<VcpuId> {
        self.spi(bank_of(virq))?.target(bit_of(virq))
    }

    /// Returns whether the guest enabled `virq` at `vcpu`.
    pub fn is_enabled(&self, vcpu: VcpuId, virq: IntId) -> bool {
        self.bank(vcpu, bank_of(virq))
            .is_some_and(|bank| bank.enabled & 1 << bit_of(virq) != 0)
    }

    /// Returns how the guest configured SPI `virq` (`GICD_ICFGR`).
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
