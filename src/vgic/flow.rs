//! How interrupts get into list registers and back.
//!
//! [`Vgic::refill`] runs before a guest is entered whose state is dirty, [`Vgic::fold`] when something needs to know
//! what the guest did with its list registers, [`Vgic::unload`] when another vCPU is to use them.
//!
//! Nearly always one interrupt waits and there is room: [`super::fast`] does that and no more. Otherwise what goes where
//! is decided in [`super::place`]. Before that a refill *settles* the slots if the guest changed an
//! interrupt in one of them, here or from another vCPU; and last it writes the slots that changed.
//!
//! Manual: IHI 0048B 5.2 (managing list registers), 5.3.

use super::irq::{bank_of, bit_of};
use super::lr::{ListRegisters, Lr, MAX_LRS, Maintenance};
use super::{Vgic, bits};
use crate::id::{VcpuId, VcpuSet};

/// What is left to do for a vCPU that was taken off its CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct Unloaded {
    /// Other vCPUs that have something to deliver now.
    pub kick: VcpuSet,
    /// PPIs (bit n for INTID n) whose physical interrupt is active for this vCPU: clear that state on this CPU
    /// (`GICD_ICACTIVER0`), and set it where the vCPU is loaded next ([`Vgic::active_ppis`]).
    pub active_ppis: u32,
}

impl Vgic {
    /// Moves what waits for `vcpu` into list registers. Call it before entering the guest; cheap when there is nothing
    /// to do. The first call after an unload loads the vCPU: set the state of [`Self::active_ppis`] before it.
    #[inline]
    pub fn refill(&mut self, vcpu: VcpuId, lrs: &mut impl ListRegisters) -> VcpuSet {
        if self.vcpu(vcpu).dirty {
            self.refill_dirty(vcpu, lrs)
        } else {
            VcpuSet::EMPTY
        }
    }

    fn refill_dirty(&mut self, vcpu: VcpuId, lrs: &mut impl ListRegisters) -> VcpuSet {
        if self.refill_one(vcpu, lrs) {
            VcpuSet::EMPTY
        } else {
            self.refill_all(vcpu, lrs)
        }
    }

    #[inline(never)]
    fn refill_all(&mut self, vcpu: VcpuId, lrs: &mut impl ListRegisters) -> VcpuSet {
        let mut kick = VcpuSet::EMPTY;
        let state = self.vcpu_mut(vcpu);
        let loading = !state.resident;
        if loading {
            state.resident = true;
            state.stale = state.in_use;
        }
        let maintenance_before = state.maintenance;
        if state.resettle {
            kick |= self.fold(vcpu, lrs);
            kick |= self.settle(vcpu);
        }
        let mut want = Maintenance::NONE;
        if self.forwarding && self.vcpu(vcpu).waits() {
            kick |= self.merge_all(vcpu, lrs);
            let (moved, maintenance) = self.place_all(vcpu, lrs);
            kick |= moved;
            want = maintenance;
        }
        if self.vcpu(vcpu).spilled && self.reload_spilled(vcpu, lrs.count()) {
            want = want.and(Maintenance::NOT_PRESENT);
        }
        self.pay(vcpu, lrs);
        let counted_before = maintenance_before.contains(Maintenance::NOT_PRESENT);
        if want.contains(Maintenance::NOT_PRESENT) && !counted_before {
            // What was counted until now were not the ends of spilled interrupts.
            let _ = lrs.take_eoi_count();
        }
        let forwarding = self.forwarding;
        let state = self.vcpu_mut(vcpu);
        if !loading && !state.stale.is_power_of_two() {
            // An interrupt may have moved from slot to slot: no VirtualID may be in two, not even between two writes.
            for index in bits(state.stale.into()) {
                lrs.write(index as usize, Lr::FREE.raw());
            }
        }
        for index in bits(state.stale.into()) {
            lrs.write(index as usize, state.slot(index).raw());
        }
        state.stale = 0;
        state.dirty = false;
        state.calm = forwarding && !state.spilled && want == Maintenance::NONE;
        state.maintenance = want;
        if maintenance_before != want {
            lrs.set_maintenance(want);
        }
        self.told = self.told.minus(VcpuSet::only(vcpu));
        kick.minus(VcpuSet::only(vcpu))
    }

    /// Reads back the list registers in use. Answers with vCPUs that have something to deliver now. Follow it with
    /// [`Self::refill`] before the guest is entered.
    pub fn fold(&mut self, vcpu: VcpuId, lrs: &mut impl ListRegisters) -> VcpuSet {
        let mut kick = VcpuSet::EMPTY;
        let state = self.vcpu_mut(vcpu);
        if !state.resident {
            return kick;
        }
        if state.maintenance.contains(Maintenance::NO_PENDING) {
            state.dirty = true;
        }
        let look = state.in_use & !state.stale;
        if look != 0 {
            let empty = lrs.empty();
            for index in bits(look.into()) {
                if empty >> index & 1 != 0 {
                    kick |= self.vacate(vcpu, index);
                    continue;
                }
                let lr = Lr::from_raw(lrs.read(index as usize));
                self.vcpu_mut(vcpu).slots[index as usize % MAX_LRS] = lr;
                if lr.is_free() {
                    // Its end is being reported until it is rewritten.
                    lrs.write(index as usize, 0);
                    kick |= self.vacate(vcpu, index);
                }
            }
        }
        if self.vcpu(vcpu).spilled {
            self.vcpu_mut(vcpu).dirty = true;
            for _ in 0..lrs.take_eoi_count() {
                let Some(irq) = self.best_spilled(vcpu) else {
                    break;
                };
                kick |= self.end_spilled(vcpu, bank_of(irq), 1 << bit_of(irq));
            }
        }
        kick
    }

    /// Takes `vcpu` off its CPU: reads its list registers back and clears them. The layer above saves `GICH_VMCR` and
    /// `GICH_APR`, and deals with the PPIs named.
    pub fn unload(&mut self, vcpu: VcpuId, lrs: &mut impl ListRegisters) -> Unloaded {
        let mut kick = VcpuSet::EMPTY;
        if self.vcpu(vcpu).resident {
            kick |= self.fold(vcpu, lrs);
            let state = self.vcpu_mut(vcpu);
            for index in bits((state.in_use | state.stale).into()) {
                lrs.write(index as usize, 0);
            }
            if state.maintenance != Maintenance::NONE {
                state.maintenance = Maintenance::NONE;
                lrs.set_maintenance(Maintenance::NONE);
            }
            state.resident = false;
            state.calm = false;
            state.dirty = true;
            state.stale = 0;
            if state.resettle {
                kick |= self.settle(vcpu);
            }
            self.pay(vcpu, lrs);
        }
        Unloaded {
            kick: kick.minus(VcpuSet::only(vcpu)),
            active_ppis: self.active_ppis(vcpu),
        }
    }

    /// PPIs (bit n for INTID n) whose physical interrupt must be active on the CPU that `vcpu` is loaded on.
    pub fn active_ppis(&self, vcpu: VcpuId) -> u32 {
        let state = self.vcpu(vcpu);
        bits(state.in_use.into())
            .map(|index| state.slot(index))
            .filter(|lr| lr.is_hw() && lr.is_private())
            .fold(state.private.held | state.private.owed, |ppis, lr| {
                ppis | 1 << (lr.virq() & 31)
            })
    }

    /// Deactivates physical interrupts that the guest's register writes or a reset have ended. Part of every refill
    /// and unload of this vCPU.
    #[inline(always)]
    pub fn pay(&mut self, vcpu: VcpuId, lrs: &mut impl ListRegisters) {
        if self.owed_banks | self.vcpu(vcpu).private.owed != 0 {
            self.pay_owed(vcpu, lrs);
        }
    }

    #[cold]
    #[inline(never)]
    fn pay_owed(&mut self, vcpu: VcpuId, lrs: &mut impl ListRegisters) {
        let mut banks = core::mem::take(&mut self.owed_banks);
        if self.vcpu(vcpu).private.owed != 0 {
            banks |= 1;
        }
        for number in bits(banks) {
            let Some(bank) = self.bank_mut(vcpu, number) else {
                continue;
            };
            let owed = core::mem::take(&mut bank.owed);
            for bit in bits(owed) {
                if let Some(pirq) = self.pirq_at(number, bit) {
                    lrs.deactivate(pirq);
                }
            }
        }
    }

    /// The slot's contents now.
    pub(super) fn current(&self, vcpu: VcpuId, index: u32, lrs: &impl ListRegisters) -> Lr {
        let state = self.vcpu(vcpu);
        if state.stale >> index & 1 != 0 {
            state.slot(index)
        } else {
            Lr::from_raw(lrs.read(index as usize))
        }
    }

    /// Frees a slot whose interrupt has ended. A shared one that fired again meanwhile goes to its target.
    pub(super) fn vacate(&mut self, vcpu: VcpuId, index: u32) -> VcpuSet {
        let state = self.vcpu_mut(vcpu);
        let virq = u32::from(state.slot(index).virq());
        state.slots[index as usize % MAX_LRS] = Lr::FREE;
        state.in_use &= !(1 << index);
        let (number, mask) = (virq / 32, 1 << (virq % 32));
        let Some(bank) = self.bank_mut(vcpu, number) else {
            return VcpuSet::EMPTY;
        };
        bank.leave_lr(mask);
        if bank.pending & mask == 0 {
            VcpuSet::EMPTY
        } else {
            self.requeue(vcpu, number, mask)
        }
    }

    /// Takes pending state out of a list register and latches it here.
    pub(super) fn latch_from(&mut self, vcpu: VcpuId, lr: Lr) {
        let virq = u32::from(lr.virq());
        if virq < 16 {
            let from = lr.source().map_or(VcpuSet::EMPTY, VcpuSet::only);
            self.vcpu_mut(vcpu).sgi_sources[virq as usize & 15] |= from.0;
        }
        let mask = 1 << (virq % 32);
        if let Some(bank) = self.bank_mut(vcpu, virq / 32) {
            bank.pending |= mask;
            if lr.is_hw() {
                bank.held |= mask;
            }
        }
    }

    /// Empties a slot whose interrupt still has state, which is kept here.
    pub(super) fn evict(&mut self, vcpu: VcpuId, index: u32) -> VcpuSet {
        let lr = self.vcpu(vcpu).slot(index);
        let virq = u32::from(lr.virq());
        let mask = 1 << (virq % 32);
        if lr.is_pending() {
            self.latch_from(vcpu, lr);
        }
        if lr.is_active() {
            let state = self.vcpu_mut(vcpu);
            state.spilled = true;
            if virq < 16 {
                state.sgi_active_from[virq as usize & 15] = lr.source().map_or(0, VcpuId::raw);
            }
            if let Some(bank) = self.bank_mut(vcpu, virq / 32) {
                bank.active |= mask;
                if lr.is_hw() {
                    bank.held |= mask;
                }
            }
        }
        self.vcpu_mut(vcpu).stale |= 1 << index;
        self.vacate(vcpu, index)
    }

    /// Brings the slots of `vcpu`, whose contents are known, into line with what the distributor says: cleared,
    /// disabled, retargeted and reprioritized interrupts.
    pub(super) fn settle(&mut self, vcpu: VcpuId) -> VcpuSet {
        let mut kick = VcpuSet::EMPTY;
        self.vcpu_mut(vcpu).resettle = false;
        for index in bits(self.vcpu(vcpu).in_use.into()) {
            let lr = self.vcpu(vcpu).slot(index);
            let (number, bit) = (u32::from(lr.virq()) / 32, u32::from(lr.virq()) % 32);
            let mask = 1u32 << bit;
            let here = self
                .spi(number)
                .is_none_or(|spi| spi.target(bit) == Some(vcpu));
            let forwarding = self.forwarding;
            let Some(bank) = self.bank_mut(vcpu, number) else {
                continue;
            };
            let mut new = lr;
            if bank.drop_pending & mask != 0 {
                new = new.without_pending();
            }
            if bank.drop_active & mask != 0 {
                new = new.without_active();
            }
            bank.drop_pending &= !mask;
            bank.drop_active &= !mask;
            let cut_off = new.is_free() && lr.is_hw();
            if new.is_active() {
                bank.forced &= !mask;
            }
            let forced = bank.forced & mask != 0;
            let deliver = forwarding && here && !forced && bank.enabled & mask != 0;
            new = new.with_priority(if new.is_only_pending() {
                bank.priority(bit)
            } else {
                new.priority()
            });
            if cut_off {
                self.owe(vcpu, number, mask);
            }
            let withdraw = new.is_pending() && !deliver;
            if withdraw {
                self.latch_from(vcpu, new);
                new = new.without_pending();
            }
            if new != lr {
                self.vcpu_mut(vcpu).set_slot(index, new);
            }
            if new.is_free() {
                kick |= self.vacate(vcpu, index);
            } else if withdraw {
                kick |= self.requeue(vcpu, number, mask);
            }
        }
        kick
    }
}
