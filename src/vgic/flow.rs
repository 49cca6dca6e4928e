//! How interrupts get into list registers and back.
//!
//! [`Vgic::refill`] runs before a guest is entered whose state is dirty, [`Vgic::fold`] when something needs to know
//! what the guest did with its list registers, [`Vgic::unload`] when another vCPU is to use them.
//!
//! Rules of the refill:
//! * what is better goes in first; when all slots are taken, what waits takes the place of a worse pending one, or of
//!   the least important active one if no slot is pending, so that the best pending interrupt is always visible;
//! * an active interrupt pushed out so is `spilled`: its end is counted by hardware (`GICH_HCR.EOICount`), and as ends
//!   come in the order of priority, the count tells whose they are (IHI 0048B 5.2.2, 5.3.1);
//! * an interrupt that is in a slot already is joined to it (`merge`) or, where that cannot be expressed, waits for the
//!   maintenance interrupt at its end;
//! * while something waits that found no slot, hardware reports when the guest has taken all that were pending.
//!
//! Manual: IHI 0048B 5.2 (managing list registers), 5.3.

use super::irq::{bank_of, bit_of};
use super::lr::{ListRegisters, Lr, MAX_LRS, Maintenance};
use super::{Vgic, bits};
use crate::id::{IntId, VcpuId, VcpuSet};

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
        let mut kick = VcpuSet::EMPTY;
        let state = self.vcpu_mut(vcpu);
        let maintenance_before = if state.resident {
            Some(state.maintenance)
        } else {
            state.resident = true;
            state.stale = state.in_use;
            None
        };
        if state.resettle {
            kick |= self.fold(vcpu, lrs);
            kick |= self.settle(vcpu);
        }
        let mut want = Maintenance::NONE;
        if self.forwarding {
            kick |= self.merge_all(vcpu, lrs);
            let (moved, maintenance) = self.place_all(vcpu, lrs);
            kick |= moved;
            want = maintenance;
        }
        if self.vcpu(vcpu).spilled && self.reload_spilled(vcpu, lrs.count()) {
            want = want.and(Maintenance::NOT_PRESENT);
        }
        self.pay(vcpu, lrs);
        let counted_before =
            maintenance_before.is_some_and(|before| before.contains(Maintenance::NOT_PRESENT));
        if want.contains(Maintenance::NOT_PRESENT) && !counted_before {
            // What was counted until now were not the ends of spilled interrupts.
            let _ = lrs.take_eoi_count();
        }
        let state = self.vcpu_mut(vcpu);
        for index in bits(state.stale.into()) {
            lrs.write(index as usize, state.slot(index).raw());
        }
        state.stale = 0;
        state.dirty = false;
        state.maintenance = want;
        if maintenance_before != Some(want) {
            lrs.set_maintenance(want);
        }
        without(kick, vcpu)
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
                lrs.set_maintenance(Maintenance::NONE);
            }
            state.resident = false;
            state.dirty = true;
            state.stale = 0;
            if state.resettle {
                kick |= self.settle(vcpu);
            }
            self.pay(vcpu, lrs);
        }
        Unloaded {
            kick: without(kick, vcpu),
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
    pub fn pay(&mut self, vcpu: VcpuId, lrs: &mut impl ListRegisters) {
        let mut banks = self.owed_banks;
        if self.vcpu(vcpu).private.owed != 0 {
            banks |= 1;
        }
        if banks == 0 {
            return;
        }
        self.owed_banks = 0;
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
    fn current(&self, vcpu: VcpuId, index: u32, lrs: &impl ListRegisters) -> Lr {
        let state = self.vcpu(vcpu);
        if state.stale >> index & 1 != 0 {
            state.slot(index)
        } else {
            Lr::from_raw(lrs.read(index as usize))
        }
    }

    /// Frees a slot whose interrupt has ended. A shared one that fired again meanwhile goes to its target.
    fn vacate(&mut self, vcpu: VcpuId, index: u32) -> VcpuSet {
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
    fn latch_from(&mut self, vcpu: VcpuId, lr: Lr) {
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

    /// Joins interrupts that fired again with the slots that they are in.
    fn merge_all(&mut self, vcpu: VcpuId, lrs: &impl ListRegisters) -> VcpuSet {
        let mut kick = VcpuSet::EMPTY;
        let private = &self.vcpu(vcpu).private;
        for bit in bits(private.pending & private.enabled & private.in_lr) {
            kick |= self.merge(vcpu, 0, bit, lrs);
        }
        for number in bits(self.vcpu(vcpu).ready_banks) {
            let ready = self.vcpu(vcpu).spi_ready[number as usize & 31];
            let in_lr = self.spi(number).map_or(0, |spi| spi.bank.in_lr);
            for bit in bits(ready & in_lr) {
                kick |= self.merge(vcpu, number, bit, lrs);
            }
        }
        kick
    }

    fn merge(&mut self, vcpu: VcpuId, number: u32, bit: u32, lrs: &impl ListRegisters) -> VcpuSet {
        let Some(index) =
            IntId::new(number * 32 + bit).and_then(|irq| self.vcpu(vcpu).slot_of(irq))
        else {
            return VcpuSet::EMPTY;
        };
        let lr = self.current(vcpu, index, lrs);
        if lr.is_free() {
            if lr.reports_end() {
                self.vcpu_mut(vcpu).stale |= 1 << index;
            }
            return self.vacate(vcpu, index);
        }
        let new = if number == 0 && bit < 16 {
            self.merge_sgi(vcpu, bit, lr)
        } else {
            self.merge_line(vcpu, number, bit, lr)
        };
        let state = self.vcpu_mut(vcpu);
        if new == lr {
            state.slots[index as usize % MAX_LRS] = lr;
        } else {
            state.set_slot(index, new);
        }
        VcpuSet::EMPTY
    }

    /// Each source of an SGI is delivered once; a list register has room for one source.
    fn merge_sgi(&mut self, vcpu: VcpuId, sgi: u32, lr: Lr) -> Lr {
        let state = self.vcpu_mut(vcpu);
        let sources = &mut state.sgi_sources[sgi as usize & 15];
        let same = lr.source().map_or(0, |source| VcpuSet::only(source).0) & *sources;
        *sources &= !same;
        let new = if same != 0 { lr.with_pending() } else { lr };
        if *sources == 0 {
            state.private.pending &= !(1 << sgi);
            new
        } else {
            new.reporting_end()
        }
    }

    fn merge_line(&mut self, vcpu: VcpuId, number: u32, bit: u32, lr: Lr) -> Lr {
        let mask = 1u32 << bit;
        let pirq = self.pirq_at(number, bit);
        let here = self
            .spi(number)
            .is_none_or(|spi| spi.target(bit) == Some(vcpu));
        let Some(bank) = self.bank_mut(vcpu, number) else {
            return lr;
        };
        let held = bank.held & mask != 0;
        let (new, joined) = match (lr.is_active(), held) {
            (false, false) => (lr, true),
            (false, true) => {
                bank.held &= !mask;
                (pirq.map_or(lr, |pirq| lr.linked(pirq)), true)
            }
            // A new physical activation needs a list register to itself.
            (true, true) => (lr.without_pending().reporting_end(), false),
            (true, false) if here => (lr.unlinked().with_pending(), true),
            (true, false) => (lr.reporting_end(), false),
        };
        if joined {
            bank.pending &= !mask;
        }
        // Cut off from the physical interrupt before its end, and nothing else answers for it.
        if lr.is_hw() && !new.is_hw() && !held {
            self.owe(vcpu, number, mask);
        }
        if joined && number != 0 {
            self.vcpu_mut(vcpu).dequeue(number, mask);
        }
        new
    }

    /// Fills slots with what waits, best first. Whether to ask for a maintenance interrupt because not all fit.
    fn place_all(&mut self, vcpu: VcpuId, lrs: &mut impl ListRegisters) -> (VcpuSet, Maintenance) {
        let mut kick = VcpuSet::EMPTY;
        let usable = usable(lrs.count());
        let mut folded = false;
        while let Some((number, bit, priority)) = self.best_waiting(vcpu) {
            let free = usable & !self.vcpu(vcpu).in_use;
            let index = if free != 0 {
                free.trailing_zeros()
            } else if !folded {
                folded = true;
                kick |= self.fold(vcpu, lrs);
                continue;
            } else if let Some(victim) = self.victim(vcpu, priority) {
                kick |= self.evict(vcpu, victim);
                victim
            } else {
                return (kick, Maintenance::NO_PENDING);
            };
            let lr = self.take_waiting(vcpu, number, bit, priority);
            let state = self.vcpu_mut(vcpu);
            state.set_slot(index, lr);
            state.in_use |= 1 << index;
        }
        (kick, Maintenance::NONE)
    }

    /// The best interrupt that could go into a slot: bank, bit, priority. Of equals the lowest-numbered.
    fn best_waiting(&self, vcpu: VcpuId) -> Option<(u32, u32, u8)> {
        let state = self.vcpu(vcpu);
        let private = &state.private;
        let mut best = None;
        let mut consider = |number: u32, waiting: u32, bank: &super::irq::Bank| {
            for bit in bits(waiting) {
                let priority = bank.priority(bit);
                if best.is_none_or(|(_, _, than)| priority < than) {
                    best = Some((number, bit, priority));
                }
            }
        };
        consider(
            0,
            private.pending & private.enabled & !private.blocked(),
            private,
        );
        for number in bits(state.ready_banks) {
            if let Some(spi) = self.spi(number) {
                let ready = state.spi_ready[number as usize & 31];
                consider(number, ready & !spi.bank.blocked(), &spi.bank);
            }
        }
        best
    }

    /// The slot to empty for a pending interrupt of `priority`, if it is worth it.
    fn victim(&self, vcpu: VcpuId, priority: u8) -> Option<u32> {
        let state = self.vcpu(vcpu);
        let in_use = || bits(state.in_use.into());
        let worst = in_use()
            .filter(|index| state.slot(*index).is_only_pending())
            .max_by_key(|index| state.slot(*index).priority());
        match worst {
            Some(index) => (state.slot(index).priority() > priority).then_some(index),
            None => in_use().max_by_key(|index| state.slot(*index).priority()),
        }
    }

    /// Turns a waiting interrupt into a pending list register.
    fn take_waiting(&mut self, vcpu: VcpuId, number: u32, bit: u32, priority: u8) -> Lr {
        let mask = 1u32 << bit;
        let virq = (number * 32 + bit) as u16;
        if number == 0 && bit < 16 {
            let state = self.vcpu_mut(vcpu);
            state.private.in_lr |= mask;
            let sources = &mut state.sgi_sources[bit as usize & 15];
            let lr = Lr::sgi(virq, priority, sources.trailing_zeros() as u8).with_pending();
            *sources &= sources.wrapping_sub(1);
            if *sources == 0 {
                state.private.pending &= !mask;
                return lr;
            }
            return lr.reporting_end();
        }
        let pirq = self.pirq_at(number, bit);
        if number != 0 {
            self.vcpu_mut(vcpu).dequeue(number, mask);
            if let Some(spi) = self.spi_mut(number) {
                spi.set_holder(bit, vcpu);
            }
        }
        let lr = Lr::software(virq, priority).with_pending();
        let Some(bank) = self.bank_mut(vcpu, number) else {
            return lr;
        };
        bank.pending &= !mask;
        bank.in_lr |= mask;
        let held = bank.held & mask != 0;
        bank.held &= !mask;
        match pirq {
            Some(pirq) if held => lr.linked(pirq),
            _ => lr,
        }
    }

    /// Interrupts of a bank that are active for `vcpu` without a slot.
    pub(super) fn spilled_in(&self, vcpu: VcpuId, number: u32) -> u32 {
        match self.spi(number) {
            None => self.vcpu(vcpu).private.active & !self.vcpu(vcpu).private.in_lr,
            Some(spi) => bits(spi.bank.active & !spi.bank.in_lr)
                .filter(|bit| spi.holder(*bit) == vcpu)
                .fold(0, |mask, bit| mask | 1 << bit),
        }
    }

    /// The most important interrupt that is active without a slot: the next whose end is counted.
    fn best_spilled(&self, vcpu: VcpuId) -> Option<IntId> {
        (0..=self.spis.len() as u32)
            .flat_map(|number| bits(self.spilled_in(vcpu, number)).map(move |bit| (number, bit)))
            .min_by_key(|(number, bit)| self.bank(vcpu, *number).map(|bank| bank.priority(*bit)))
            .and_then(|(number, bit)| IntId::new(number * 32 + bit))
    }

    /// Ends interrupts that are active without a slot.
    pub(super) fn end_spilled(&mut self, vcpu: VcpuId, number: u32, mask: u32) -> VcpuSet {
        let Some(bank) = self.bank_mut(vcpu, number) else {
            return VcpuSet::EMPTY;
        };
        bank.active &= !mask;
        // What is pending keeps the physical activation: its own end will be the physical end.
        let ended = bank.held & mask & !bank.pending;
        bank.held &= !ended;
        let again = bank.pending & mask;
        if ended != 0 {
            self.owe(vcpu, number, ended);
            self.vcpu_mut(vcpu).dirty = true;
        }
        if again != 0 {
            self.requeue(vcpu, number, again)
        } else {
            VcpuSet::EMPTY
        }
    }

    /// Gives slots that are left over to interrupts that are active without one, so that hardware sees their end.
    /// Whether some remain without.
    fn reload_spilled(&mut self, vcpu: VcpuId, count: usize) -> bool {
        let usable = usable(count);
        while let Some(irq) = self.best_spilled(vcpu) {
            let free = usable & !self.vcpu(vcpu).in_use;
            if free == 0 {
                return true;
            }
            let (number, bit) = (bank_of(irq), bit_of(irq));
            let mask = 1u32 << bit;
            let pirq = self.pirq_at(number, bit);
            let from = self.vcpu(vcpu).sgi_active_from[irq.raw() as usize & 15];
            let Some(bank) = self.bank_mut(vcpu, number) else {
                break;
            };
            let mut lr = match irq.is_sgi() {
                true => Lr::sgi(irq.raw(), bank.priority(bit), from),
                false => Lr::software(irq.raw(), bank.priority(bit)),
            };
            bank.active &= !mask;
            bank.in_lr |= mask;
            if bank.pending & mask != 0 {
                lr = lr.reporting_end();
            } else if bank.held & mask != 0 {
                bank.held &= !mask;
                lr = pirq.map_or(lr, |pirq| lr.linked(pirq));
            }
            let index = free.trailing_zeros();
            let state = self.vcpu_mut(vcpu);
            state.set_slot(index, lr.with_active());
            state.in_use |= 1 << index;
        }
        self.vcpu_mut(vcpu).spilled = false;
        false
    }
}

/// The slots that `count` list registers make.
fn usable(count: usize) -> u16 {
    if count >= MAX_LRS {
        u16::MAX
    } else {
        (1 << count) - 1
    }
}

fn without(set: VcpuSet, vcpu: VcpuId) -> VcpuSet {
    VcpuSet(set.0 & !VcpuSet::only(vcpu).0)
}
