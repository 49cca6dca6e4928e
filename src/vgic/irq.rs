//! State of interrupts, 32 to a bank, and the queues of what waits for a list register.
//!
//! A bank holds one bit per interrupt and question, so that a distributor register of one bit per interrupt is one
//! word. Where an interrupt's state lives:
//!
//! * pending: in `pending` (latched here) and, independently, in a list register. An interrupt that fires while it is
//!   handled is both; the refill joins them where the hardware can express it (pending and active).
//! * active: in a list register (`in_lr`); in `active` when it was taken but spilled for want of list registers; in
//!   `forced` when the guest did not take it but set it through `GICD_ISACTIVER`.
//! * physically active (interrupts routed from hardware): a list register with its HW bit answers for it, or `held`
//!   does, or `owed` says that it must be deactivated now. Never two of these for one activation.
//!
//! Invariants:
//! * a shared interrupt is in list registers of at most one vCPU, its `holder` (IHI 0048B 5.3.8: VirtualIDs are unique);
//! * a shared interrupt that is pending and enabled is in the queue of exactly one vCPU: its holder's while it is in
//!   a list register or active, else its target's, or of none when it has no target.
//!
//! Manual: IHI 0048B 3.2.4 (the interrupt handling state machine), 4.3.

use super::{Vgic, bits};
use crate::id::{IntId, VcpuId, VcpuSet};

/// Interrupts in a bank.
pub(super) const BANK: u32 = 32;

/// The implemented bits of four priorities: 32 levels, as the list registers of a GICv2 know (IHI 0048B 5.3.8).
pub(super) const PRIORITY_MASK: u32 = 0xF8F8_F8F8;

/// Priority of each interrupt at first, as in Xen (`GIC_PRI_IRQ`), four in a word.
const PRIORITY_RESET: u32 = 0xA0A0_A0A0;

/// State of 32 interrupts. A bit is an interrupt.
pub(super) struct Bank {
    /// The guest wants it.
    pub enabled: u32,
    /// Latched and not yet put into a list register.
    pub pending: u32,
    /// Taken by the guest, and now active without a list register.
    pub active: u32,
    /// Active because the guest said so; kept from delivery. Never has a list register.
    pub forced: u32,
    /// In a list register of its vCPU or holder, as far as we have looked.
    pub in_lr: u32,
    /// The physical interrupt is active for this one, and no list register will deactivate it.
    pub held: u32,
    /// The physical interrupt is to be deactivated; paid by the next refill.
    pub owed: u32,
    /// The list register's pending state is to be withdrawn for good (`GICD_ICPENDR`).
    pub drop_pending: u32,
    /// The list register's active state is to be cleared (`GICD_ICACTIVER`).
    pub drop_active: u32,
    /// Fed by a physical interrupt.
    pub routed: u32,
    /// Priorities, four to a word.
    pub priority: [u32; 8],
}

impl Bank {
    pub(super) const fn new(enabled: u32) -> Self {
        Self {
            enabled,
            pending: 0,
            active: 0,
            forced: 0,
            in_lr: 0,
            held: 0,
            owed: 0,
            drop_pending: 0,
            drop_active: 0,
            routed: 0,
            priority: [PRIORITY_RESET; 8],
        }
    }

    /// Priority of interrupt `bit`.
    #[inline]
    pub(super) const fn priority(&self, bit: u32) -> u8 {
        (self.priority[(bit / 4) as usize & 7] >> (bit % 4 * 8)) as u8
    }

    /// Interrupts that cannot be given a list register now: they have one, or must end first.
    #[inline]
    pub(super) const fn blocked(&self) -> u32 {
        self.in_lr | self.active | self.forced
    }

    /// Notes that a list register now answers for the interrupts `mask`, and for their physical activation.
    #[inline]
    pub(super) const fn enter_lr(&mut self, mask: u32) {
        self.in_lr |= mask;
        self.held &= !mask;
    }

    /// Forgets the list register of the interrupts `mask`.
    #[inline]
    pub(super) const fn leave_lr(&mut self, mask: u32) {
        self.in_lr &= !mask;
        self.drop_pending &= !mask;
        self.drop_active &= !mask;
    }
}

/// 32 shared interrupts.
pub(super) struct SpiBank {
    pub bank: Bank,
    /// `GICD_ITARGETSR`, four to a word; only bits of existing vCPUs.
    pub target: [u32; 8],
    /// `GICD_ICFGR`, sixteen to a word; only the edge bits.
    pub config: [u32; 2],
    /// vCPU in whose list registers it is, or for which it is active.
    pub holder: [VcpuId; 32],
    /// Physical interrupt behind it, where `routed`.
    pub pirq: [u16; 32],
}

impl SpiBank {
    pub(super) const fn new() -> Self {
        Self {
            bank: Bank::new(0),
            target: [0x0101_0101; 8],
            config: [0; 2],
            holder: [VcpuId::ZERO; 32],
            pirq: [0; 32],
        }
    }

    /// vCPU that the guest's routing names: the lowest of the set, as in Xen.
    #[inline]
    pub(super) fn target(&self, bit: u32) -> Option<VcpuId> {
        let set = (self.target[(bit / 4) as usize & 7] >> (bit % 4 * 8)) & 0xFF;
        VcpuId::new(set.trailing_zeros())
    }

    /// vCPU in whose queue the interrupt belongs.
    #[inline]
    pub(super) fn owner(&self, bit: u32) -> Option<VcpuId> {
        if (self.bank.in_lr | self.bank.active) & (1 << bit) != 0 {
            Some(self.holder(bit))
        } else {
            self.target(bit)
        }
    }

    #[inline]
    pub(super) const fn holder(&self, bit: u32) -> VcpuId {
        self.holder[bit as usize & 31]
    }

    #[inline]
    pub(super) const fn set_holder(&mut self, bit: u32, vcpu: VcpuId) {
        self.holder[bit as usize & 31] = vcpu;
    }
}

/// Number of the bank that holds `irq`: 0 is private to the vCPU.
#[inline]
pub(super) const fn bank_of(irq: IntId) -> u32 {
    irq.raw() as u32 / BANK
}

/// Place of `irq` in its bank.
#[inline]
pub(super) const fn bit_of(irq: IntId) -> u32 {
    irq.raw() as u32 % BANK
}

impl Vgic {
    #[inline]
    pub(super) fn bank(&self, vcpu: VcpuId, number: u32) -> Option<&Bank> {
        match number.checked_sub(1) {
            None => Some(&self.vcpu(vcpu).private),
            Some(n) => self.spis.get(n as usize).map(|spi| &spi.bank),
        }
    }

    #[inline]
    pub(super) fn bank_mut(&mut self, vcpu: VcpuId, number: u32) -> Option<&mut Bank> {
        match number.checked_sub(1) {
            None => Some(&mut self.vcpu_mut(vcpu).private),
            Some(n) => self.spis.get_mut(n as usize).map(|spi| &mut spi.bank),
        }
    }

    /// Shared bank `number`, which counts from 1 as bank 0 is private.
    #[inline]
    pub(super) fn spi(&self, number: u32) -> Option<&SpiBank> {
        self.spis.get(number.checked_sub(1)? as usize)
    }

    #[inline]
    pub(super) fn spi_mut(&mut self, number: u32) -> Option<&mut SpiBank> {
        self.spis.get_mut(number.checked_sub(1)? as usize)
    }

    /// Marks that `vcpu` must pass through a refill before it runs on, and says so to the layer above.
    #[inline]
    pub(super) fn wake(&mut self, vcpu: VcpuId) -> VcpuSet {
        self.vcpu_mut(vcpu).dirty = true;
        VcpuSet::only(vcpu)
    }

    /// As [`Self::wake`], for a refill that looks at every slot.
    pub(super) fn wake_to_settle(&mut self, vcpu: VcpuId) -> VcpuSet {
        let state = self.vcpu_mut(vcpu);
        state.resettle = true;
        state.calm = false;
        self.wake(vcpu)
    }

    /// Latches `irq` and queues it. Nothing happens when it is latched already: whoever did that has kicked.
    #[inline]
    pub(super) fn raise(&mut self, vcpu: VcpuId, irq: IntId) -> VcpuSet {
        let (number, bit) = (bank_of(irq), bit_of(irq));
        let mask = 1u32 << bit;
        let forwarding = self.forwarding;
        let owner = if number == 0 {
            let bank = &mut self.vcpu_mut(vcpu).private;
            if bank.pending & mask != 0 {
                return VcpuSet::EMPTY;
            }
            bank.pending |= mask;
            if bank.enabled & mask == 0 {
                return VcpuSet::EMPTY;
            }
            vcpu
        } else {
            let Some(spi) = self.spi_mut(number) else {
                return VcpuSet::EMPTY;
            };
            if spi.bank.pending & mask != 0 {
                return VcpuSet::EMPTY;
            }
            spi.bank.pending |= mask;
            if spi.bank.enabled & mask == 0 {
                return VcpuSet::EMPTY;
            }
            let Some(owner) = spi.owner(bit) else {
                return VcpuSet::EMPTY;
            };
            self.vcpu_mut(owner).enqueue(number, mask);
            owner
        };
        if forwarding {
            self.wake(owner)
        } else {
            VcpuSet::EMPTY
        }
    }

    /// Latches SGI `irq` from `source` at `vcpu`: one latch per source (IHI 0048B 3.2.4, 4.3.16).
    #[inline(always)]
    pub(super) fn raise_sgi(&mut self, vcpu: VcpuId, irq: IntId, source: VcpuId) -> VcpuSet {
        let forwarding = self.forwarding;
        let state = self.vcpu_mut(vcpu);
        let sources = &mut state.sgi_sources[irq.raw() as usize & 15];
        let from = VcpuSet::only(source).0;
        if *sources & from != 0 {
            return VcpuSet::EMPTY;
        }
        *sources |= from;
        state.private.pending |= 1 << bit_of(irq);
        if forwarding {
            self.wake(vcpu)
        } else {
            VcpuSet::EMPTY
        }
    }

    /// Puts the interrupts `mask` of a bank where they belong after their enable, target or state changed.
    pub(super) fn requeue(&mut self, vcpu: VcpuId, number: u32, mask: u32) -> VcpuSet {
        let mut kick = VcpuSet::EMPTY;
        if number == 0 {
            let bank = &self.vcpu(vcpu).private;
            if bank.pending & bank.enabled & mask != 0 {
                kick |= self.wake(vcpu);
            }
            return if self.forwarding {
                kick
            } else {
                VcpuSet::EMPTY
            };
        }
        self.dequeue(number, mask);
        let Some(spi) = self.spi(number) else {
            return kick;
        };
        for bit in bits(spi.bank.pending & spi.bank.enabled & mask) {
            if let Some(owner) = self.spi(number).and_then(|spi| spi.owner(bit)) {
                self.vcpu_mut(owner).enqueue(number, 1 << bit);
                kick |= self.wake(owner);
            }
        }
        if self.forwarding {
            kick
        } else {
            VcpuSet::EMPTY
        }
    }

    /// Takes shared interrupts out of whichever queue they are in.
    pub(super) fn dequeue(&mut self, number: u32, mask: u32) {
        for state in self.vcpus.iter_mut().take(self.nr_vcpus.into()) {
            state.dequeue(number, mask);
        }
    }

    /// Notes that the physical interrupts behind `mask` are to be deactivated.
    pub(super) fn owe(&mut self, vcpu: VcpuId, number: u32, mask: u32) {
        if let Some(bank) = self.bank_mut(vcpu, number) {
            bank.owed |= mask & bank.routed;
        }
        if number == 0 {
            self.vcpu_mut(vcpu).calm = false;
        } else if mask != 0 {
            self.owed_banks |= 1 << (number % BANK);
        }
    }

    /// Asks the vCPUs in whose list registers the interrupts `mask` are to bring them up to date. One that is not
    /// loaded is brought up to date at once.
    pub(super) fn touch(&mut self, vcpu: VcpuId, number: u32, mask: u32) -> VcpuSet {
        let mut holders = VcpuSet::EMPTY;
        if number == 0 {
            if mask != 0 {
                holders = VcpuSet::only(vcpu);
            }
        } else if let Some(spi) = self.spi(number) {
            for bit in bits(mask) {
                holders |= VcpuSet::only(spi.holder(bit));
            }
        }
        let mut kick = VcpuSet::EMPTY;
        for holder in holders.iter() {
            if self.vcpu(holder).resident {
                kick |= self.wake_to_settle(holder);
            } else {
                kick |= self.settle(holder);
            }
        }
        kick
    }
}
