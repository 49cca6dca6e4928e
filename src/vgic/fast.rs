//! The refill in the common case: one interrupt waits or none, and nothing else is to be done.
//!
//! [`Vgic::refill_one`] answers whether that was so. If not it has moved nothing, and the full refill of `flow.rs`
//! and [`super::place`] does the work; it would have come to the same result in the common case too, only slower. The
//! flag `calm` stands for the conditions that the full refill establishes, or a vCPU brings that comes with nothing.
//!
//! Manual: IHI 0048B 5.2.2.

use super::lr::{ListRegisters, Lr, MAX_LRS, Maintenance};
use super::place::usable;
use super::{VcpuState, Vgic};
use crate::id::{MAX_VCPUS, VcpuId, VcpuSet};

/// What [`VcpuState::find_slot`] found.
enum Slot {
    /// A slot to use.
    Usable(u32),
    /// The interrupt is in this one, with state.
    Taken(u32, Lr),
    /// None, or the matter is not that simple.
    None,
}

impl VcpuState {
    /// The slot for interrupt `virq`, bit `mask` of its bank, if it takes no more than a look at one.
    #[inline(always)]
    fn find_slot(
        &self,
        virq: u32,
        mask: u32,
        blocked: u32,
        in_lr: u32,
        lrs: &impl ListRegisters,
    ) -> Slot {
        if blocked & mask == 0 {
            let free = usable(lrs.count()) & !self.in_use;
            return if free == 0 {
                Slot::None
            } else {
                Slot::Usable(free.trailing_zeros())
            };
        }
        if in_lr & mask == 0 {
            return Slot::None;
        }
        match self.slot_of_number(virq) {
            Some(index) => {
                let lr = Lr::from_raw(lrs.read(index as usize));
                if lr.is_free() {
                    Slot::Usable(index)
                } else {
                    Slot::Taken(index, lr)
                }
            }
            None => Slot::None,
        }
    }

    /// Ends a refill by putting `lr` into a slot and the hardware.
    #[inline]
    fn fill(&mut self, index: u32, lr: Lr, lrs: &mut impl ListRegisters) {
        self.slots[index as usize % MAX_LRS] = lr;
        self.in_use |= 1 << (index % MAX_LRS as u32);
        self.dirty = false;
        lrs.write(index as usize, lr.raw());
    }
}

impl Vgic {
    /// Makes a vCPU resident that was taken off its CPU with empty list registers and nothing special left behind: what
    /// waits for it is then placed as at any other time. Whether it was such a one.
    fn settle_in(&mut self, vcpu: VcpuId) -> bool {
        let forwarding = self.forwarding;
        let state = self.vcpu_mut(vcpu);
        let special = state.resettle || state.spilled || state.private.owed != 0;
        let settles = forwarding && !state.resident && !special && state.in_use == 0;
        if settles {
            state.resident = true;
            state.stale = 0;
            state.calm = true;
            self.told = self.told.minus(VcpuSet::only(vcpu));
        }
        settles
    }

    /// Does the whole of a refill in the common case: at most one interrupt is waiting, and it is in a slot already, or one
    /// is free. Whether that was the case; if not, nothing has changed but that the vCPU may have settled in.
    #[inline]
    pub(super) fn refill_one(&mut self, vcpu: VcpuId, lrs: &mut impl ListRegisters) -> bool {
        if self.owed_banks != 0 || !self.vcpu(vcpu).calm && !self.settle_in(vcpu) {
            return false;
        }
        let state = self.vcpu(vcpu);
        debug_assert!(
            state.resident
                && self.forwarding
                && !state.resettle
                && !state.spilled
                && state.stale == 0
                && state.private.owed == 0
                && state.maintenance == Maintenance::NONE
        );
        let ready = state.private.pending & state.private.enabled;
        if state.ready_banks == 0 {
            if ready == 0 {
                self.vcpu_mut(vcpu).dirty = false;
                return true;
            }
            ready.is_power_of_two() && self.refill_private(vcpu, ready, lrs)
        } else {
            ready == 0 && state.ready_banks.is_power_of_two() && self.refill_shared(vcpu, lrs)
        }
    }

    #[inline]
    fn refill_private(&mut self, vcpu: VcpuId, mask: u32, lrs: &mut impl ListRegisters) -> bool {
        let bit = mask.trailing_zeros() & 31;
        let pirq = self.ppi_pirq[bit as usize & 15];
        let state = self.vcpu_mut(vcpu);
        let index =
            match state.find_slot(bit, mask, state.private.blocked(), state.private.in_lr, lrs) {
                Slot::Usable(index) => index,
                Slot::Taken(index, lr) => return self.join(vcpu, 0, bit, index, lr, lrs),
                Slot::None => return false,
            };
        let priority = state.private.priority(bit);
        let lr = if bit < 16 {
            let sources = &mut state.sgi_sources[bit as usize & 15];
            if !sources.is_power_of_two() {
                return false;
            }
            let lr = Lr::sgi(bit as u16, priority, sources.trailing_zeros() as u8);
            *sources = 0;
            lr
        } else {
            let lr = Lr::software(bit as u16, priority);
            if state.private.held & mask == 0 {
                lr
            } else {
                lr.linked(pirq)
            }
        };
        state.private.pending &= !mask;
        state.private.enter_lr(mask);
        state.fill(index, lr.with_pending(), lrs);
        true
    }

    #[inline]
    fn refill_shared(&mut self, vcpu: VcpuId, lrs: &mut impl ListRegisters) -> bool {
        let state = &mut self.vcpus[vcpu.index() % MAX_VCPUS as usize];
        let number = state.ready_banks.trailing_zeros();
        let mask = state.spi_ready[number as usize & 31];
        let Some(spi) = self.spis.get_mut((number as usize).wrapping_sub(1)) else {
            return false;
        };
        let bit = mask.trailing_zeros() & 31;
        if !mask.is_power_of_two() || spi.target(bit) != Some(vcpu) {
            return false;
        }
        let index = match state.find_slot(
            number * 32 + bit,
            mask,
            spi.bank.blocked(),
            spi.bank.in_lr,
            lrs,
        ) {
            Slot::Usable(index) => index,
            Slot::Taken(index, lr) => return self.join(vcpu, number, bit, index, lr, lrs),
            Slot::None => return false,
        };
        let lr = Lr::software((number * 32 + bit) as u16, spi.bank.priority(bit));
        let lr = if spi.bank.held & mask == 0 {
            lr
        } else {
            lr.linked(spi.pirq[bit as usize & 31])
        };
        spi.bank.pending &= !mask;
        spi.bank.enter_lr(mask);
        spi.set_holder(bit, vcpu);
        state.spi_ready[number as usize & 31] = 0;
        state.ready_banks = 0;
        state.fill(index, lr.with_pending(), lrs);
        true
    }

    /// Ends the refill by joining the interrupt that waits with the slot that it is in.
    fn join(
        &mut self,
        vcpu: VcpuId,
        number: u32,
        bit: u32,
        index: u32,
        lr: Lr,
        lrs: &mut impl ListRegisters,
    ) -> bool {
        let new = if number == 0 && bit < 16 {
            self.merge_sgi(vcpu, bit, lr)
        } else {
            self.merge_line(vcpu, number, bit, lr)
        };
        let state = self.vcpu_mut(vcpu);
        state.slots[index as usize % MAX_LRS] = new;
        state.dirty = false;
        if new != lr {
            lrs.write(index as usize, new.raw());
            self.pay(vcpu, lrs);
        }
        true
    }
}
