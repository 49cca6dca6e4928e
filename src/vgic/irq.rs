//! State of interrupts, 32 to a bank, and the queues of SPIs that wait for a list register.
//!
//! A bank has one bit per interrupt and property, so that a distributor register with one bit per interrupt is one
//! word. The state of an interrupt is in these places:
//!
//! * pending: in `pending` and, independently, in a list register; in both if it fired again since it was moved there;
//! * active: in a list register; in `active` while it has none; in `set_active` when the guest made it active by
//!   `GICD_ISACTIVER` without taking it;
//! * physically active (routed interrupts): a list register with the HW bit will deactivate the physical interrupt, or
//!   `phys_active` or `deactivate` is set. Exactly one of these holds per activation.
//!
//! Only the vCPU that holds an interrupt in a list register (`in_lr`) can change the state there. That vCPU is kicked,
//! and its refill moves the interrupt out, applies `drop_pending` and `drop_active`, and chooses again.
//!
//! Invariants:
//! * an SPI is in the list registers of at most one vCPU, its `holder`;
//! * an SPI is in the queue of at most one vCPU: its holder's while it is active without a list register, its target's
//!   while it is pending, enabled and in no list register.
//!
//! Manual: IHI 0048B 3.2.4 (the interrupt handling state machine), 4.3.

use super::lr::Lr;
use super::{Vgic, bits};
use crate::id::{IntId, VcpuId, VcpuSet};

/// Interrupts in a bank.
pub(super) const BANK: u32 = 32;

/// Implemented bits of four priorities: 32 levels, as in the list registers of a GICv2 (IHI 0048B 5.3.8).
pub(super) const PRIORITY_MASK: u32 = 0xF8F8_F8F8;

/// Reset priority of four interrupts, as in Xen (`GIC_PRI_IRQ`).
const PRIORITY_RESET: u32 = 0xA0A0_A0A0;

/// State of 32 interrupts, one bit each.
pub(super) struct Bank {
    /// Enabled by the guest.
    pub enabled: u32,
    /// Pending, independently of the list register's pending state.
    pub pending: u32,
    /// Taken by the guest, and active without a list register.
    pub active: u32,
    /// Made active by `GICD_ISACTIVER`: not delivered, never in a list register.
    pub set_active: u32,
    /// In a list register: of its vCPU, or of its holder.
    pub in_lr: u32,
    /// The physical interrupt is active for this one, and no list register will deactivate it.
    pub phys_active: u32,
    /// The next refill deactivates the physical interrupt.
    pub deactivate: u32,
    /// Cleared by `GICD_ICPENDR` while pending in a list register.
    pub drop_pending: u32,
    /// Cleared by `GICD_ICACTIVER` while active in a list register.
    pub drop_active: u32,
    /// Fed by a physical interrupt.
    pub routed: u32,
    /// Priorities, four to a word.
    pub priority: [u32; 8],
    /// INTIDs of the physical interrupts behind the `routed` ones.
    pub pirq: [u16; 32],
}

impl Bank {
    pub(super) const fn new(enabled: u32) -> Self {
        Self {
            enabled,
            pending: 0,
            active: 0,
            set_active: 0,
            in_lr: 0,
            phys_active: 0,
            deactivate: 0,
            drop_pending: 0,
            drop_active: 0,
            routed: 0,
            priority: [PRIORITY_RESET; 8],
            pirq: [0; 32],
        }
    }

    /// Returns the priority of interrupt `bit`.
    pub(super) const fn priority(&self, bit: u32) -> u8 {
        (self.priority[(bit / 4) as usize & 7] >> (bit % 4 * 8)) as u8
    }

    /// Returns the physical interrupt behind interrupt `bit`.
    pub(super) fn pirq(&self, bit: u32) -> Option<u16> {
        (self.routed >> (bit & 31) & 1 != 0).then_some(self.pirq[bit as usize & 31])
    }

    /// Moves the physical activation of interrupt `bit`, if any, to its list register `lr`.
    pub(super) fn link(&mut self, bit: u32, lr: Lr) -> Lr {
        let mask = 1 << (bit & 31);
        if self.phys_active & mask == 0 {
            return lr;
        }
        self.phys_active &= !mask;
        lr.linked(self.pirq[bit as usize & 31])
    }

    /// Returns the interrupts that the guest could take if they had a list register.
    pub(super) const fn deliverable(&self) -> u32 {
        self.pending & self.enabled & !(self.in_lr | self.active | self.set_active)
    }

    /// Returns the interrupts that must be requeued when their enable, priority, target or state changes.
    pub(super) const fn in_flight(&self) -> u32 {
        self.pending | self.active | self.in_lr
    }
}

/// State of 32 SPIs.
pub(super) struct SpiBank {
    pub bank: Bank,
    /// `GICD_ITARGETSR`, four to a word; bits of existing vCPUs only.
    pub target: [u32; 8],
    /// `GICD_ICFGR`, sixteen to a word; edge bits only.
    pub config: [u32; 2],
    /// The vCPU that has it active, or in a list register.
    pub holder: [VcpuId; 32],
    /// Lines of emulated devices that are high.
    pub level: u32,
}

impl SpiBank {
    pub(super) const fn new() -> Self {
        Self {
            bank: Bank::new(0),
            target: [0x0101_0101; 8],
            config: [0; 2],
            holder: [VcpuId::ZERO; 32],
            level: 0,
        }
    }

    /// Returns the vCPU to deliver to: the lowest in `GICD_ITARGETSR`, as in Xen.
    pub(super) fn target(&self, bit: u32) -> Option<VcpuId> {
        let set = (self.target[(bit / 4) as usize & 7] >> (bit % 4 * 8)) & 0xFF;
        VcpuId::new(set.trailing_zeros())
    }

    /// Returns the vCPU whose refill places the interrupt.
    pub(super) fn owner(&self, bit: u32) -> Option<VcpuId> {
        if (self.bank.in_lr | self.bank.active) & (1 << bit) != 0 {
            Some(self.holder(bit))
        } else {
            self.target(bit)
        }
    }

    pub(super) const fn holder(&self, bit: u32) -> VcpuId {
        self.holder[bit as usize & 31]
    }

    pub(super) const fn set_holder(&mut self, bit: u32, vcpu: VcpuId) {
        self.holder[bit as usize & 31] = vcpu;
    }
}

/// Returns the number of the bank that holds `irq`; bank 0 is private to the vCPU.
pub(super) const fn bank_of(irq: IntId) -> u32 {
    irq.raw() as u32 / BANK
}

/// Returns the bit of `irq` in its bank.
pub(super) const fn bit_of(irq: IntId) -> u32 {
    irq.raw() as u32 % BANK
}

impl Vgic {
    pub(super) fn bank(&self, vcpu: VcpuId, number: u32) -> Option<&Bank> {
        match number.checked_sub(1) {
            None => Some(&self.vcpu(vcpu).private),
            Some(n) => self.spis.get(n as usize).map(|spi| &spi.bank),
        }
    }

    pub(super) fn bank_mut(&mut self, vcpu: VcpuId, number: u32) -> Option<&mut Bank> {
        match number.checked_sub(1) {
            None => Some(&mut self.vcpu_mut(vcpu).private),
            Some(n) => self.spis.get_mut(n as usize).map(|spi| &mut spi.bank),
        }
    }

    /// Returns SPI bank `number`, counted from 1, as bank 0 is private.
    pub(super) fn spi(&self, number: u32) -> Option<&SpiBank> {
        self.spis.get(number.checked_sub(1)? as usize)
    }

    pub(super) fn spi_mut(&mut self, number: u32) -> Option<&mut SpiBank> {
        self.spis.get_mut(number.checked_sub(1)? as usize)
    }

    /// Marks `vcpu` dirty. Returns it for the caller to kick.
    pub(super) fn wake(&mut self, vcpu: VcpuId) -> VcpuSet {
        self.vcpu_mut(vcpu).dirty = true;
        VcpuSet::only(vcpu)
    }

    /// Makes `irq` pending. Does nothing if it is already pending, as its vCPU has been kicked.
    #[inline(always)]
    pub(super) fn raise(&mut self, vcpu: VcpuId, irq: IntId) -> VcpuSet {
        let (number, bit) = (bank_of(irq), bit_of(irq));
        let mask = 1u32 << bit;
        let Some(bank) = self.bank_mut(vcpu, number) else {
            return VcpuSet::EMPTY;
        };
        if bank.pending & mask != 0 {
            return VcpuSet::EMPTY;
        }
        bank.pending |= mask;
        if bank.enabled & mask == 0 {
            VcpuSet::EMPTY
        } else if number == 0 {
            self.wake(vcpu)
        } else {
            self.queue(number, bit)
        }
    }

    /// Makes SGI `irq` from `source` pending at `vcpu`, once per source (IHI 0048B 3.2.4, 4.3.16).
    #[inline(always)]
    pub(super) fn raise_sgi(&mut self, vcpu: VcpuId, irq: IntId, source: VcpuId) -> VcpuSet {
        let state = self.vcpu_mut(vcpu);
        let sources = &mut state.sgi_sources[irq.raw() as usize & 15];
        let from = VcpuSet::only(source).0;
        if *sources & from != 0 {
            return VcpuSet::EMPTY;
        }
        *sources |= from;
        state.private.pending |= 1 << bit_of(irq);
        self.wake(vcpu)
    }

    /// Queues an SPI at the vCPU that must place it, and wakes that vCPU.
    #[inline(always)]
    pub(super) fn queue(&mut self, number: u32, bit: u32) -> VcpuSet {
        let mask = 1 << bit;
        let Some(spi) = self.spi(number) else {
            return VcpuSet::EMPTY;
        };
        let bank = &spi.bank;
        let wanted = (bank.pending & bank.enabled | bank.active | bank.in_lr) & mask != 0;
        match spi.owner(bit) {
            Some(owner) if wanted => {
                if bank.in_lr & mask == 0 {
                    self.vcpu_mut(owner).enqueue(number, mask);
                }
                self.wake(owner)
            }
            _ => VcpuSet::EMPTY,
        }
    }

    /// Moves the SPIs `mask` to the queues they belong to, and wakes the vCPUs that must refill. Call it after the
    /// enable, priority, target or state of interrupts in flight changed.
    pub(super) fn requeue(&mut self, vcpu: VcpuId, number: u32, mask: u32) -> VcpuSet {
        if mask == 0 {
            VcpuSet::EMPTY
        } else {
            self.requeue_some(vcpu, number, mask)
        }
    }

    fn requeue_some(&mut self, vcpu: VcpuId, number: u32, mask: u32) -> VcpuSet {
        if number == 0 {
            return self.wake(vcpu);
        }
        for state in self.vcpus.iter_mut().take(self.nr_vcpus.into()) {
            state.dequeue(number, mask);
        }
        bits(mask).fold(VcpuSet::EMPTY, |kick, bit| kick | self.queue(number, bit))
    }

    /// Returns the interrupts of a bank that are active for `vcpu` without a list register.
    pub(super) fn active_in(&self, vcpu: VcpuId, number: u32) -> u32 {
        let state = self.vcpu(vcpu);
        match self.spi(number) {
            None => state.private.active,
            Some(spi) => spi.bank.active & state.queued(number),
        }
    }

    /// Ends interrupts that are active for `vcpu` without a list register.
    pub(super) fn end_active(&mut self, vcpu: VcpuId, number: u32, mask: u32) -> VcpuSet {
        let Some(bank) = self.bank_mut(vcpu, number) else {
            return VcpuSet::EMPTY;
        };
        bank.active &= !mask;
        if number != 0 {
            self.raise_high(number, mask);
        }
        let Some(bank) = self.bank_mut(vcpu, number) else {
            return VcpuSet::EMPTY;
        };
        // A pending interrupt keeps its physical activation until it ends.
        let ended = bank.phys_active & mask & !bank.pending;
        bank.phys_active &= !ended;
        self.deactivate(vcpu, number, ended);
        self.requeue(vcpu, number, mask)
    }

    /// Marks the physical interrupts behind `mask` for deactivation by the next refill.
    pub(super) fn deactivate(&mut self, vcpu: VcpuId, number: u32, mask: u32) {
        if let Some(bank) = self.bank_mut(vcpu, number) {
            bank.deactivate |= mask & bank.routed;
        }
        if number != 0 && mask != 0 {
            self.deactivate_banks |= 1 << (number % BANK);
        }
    }
}
