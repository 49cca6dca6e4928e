//! Which interrupt goes into which list register.
//!
//! * What is better goes in first. When all slots are taken, what waits takes the place of a worse pending one, or of
//!   the least important active one if no slot is pending, so that the best pending interrupt is always visible.
//! * An active interrupt pushed out so is spilled: hardware counts its end (`GICH_HCR.EOICount`), and as ends come in
//!   the order of priority, the count tells whose they are. It gets a slot back when one is left over.
//! * An interrupt that is in a slot already is joined to it ([`Vgic::merge_all`]) or, where a list register cannot
//!   express that, waits for the maintenance interrupt at its end.
//! * While something waits that found no slot, hardware reports when the guest has taken all that were pending, and
//!   nothing is left pending and active, as its next instance would come before better ones that wait.
//!
//! Each loop is bounded: by the slots, or by the interrupts that the domain has.
//!
//! Manual: IHI 0048B 5.2.2, 5.3.1 (EOICount, NPIE, LRENPIE), 5.3.8.

use super::irq::{Bank, bank_of, bit_of};
use super::lr::{ListRegisters, Lr, MAX_LRS, Maintenance};
use super::{Vgic, bits};
use crate::id::{IntId, VcpuId, VcpuSet};

impl Vgic {
    /// Joins interrupts that fired again with the slots that they are in.
    pub(super) fn merge_all(&mut self, vcpu: VcpuId, lrs: &impl ListRegisters) -> VcpuSet {
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
    pub(super) fn merge_sgi(&mut self, vcpu: VcpuId, sgi: u32, lr: Lr) -> Lr {
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

    pub(super) fn merge_line(&mut self, vcpu: VcpuId, number: u32, bit: u32, lr: Lr) -> Lr {
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
    pub(super) fn place_all(
        &mut self,
        vcpu: VcpuId,
        lrs: &mut impl ListRegisters,
    ) -> (VcpuSet, Maintenance) {
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
                self.hold_back(vcpu);
                return (kick, Maintenance::NO_PENDING);
            };
            let lr = self.take_waiting(vcpu, number, bit, priority);
            let state = self.vcpu_mut(vcpu);
            state.set_slot(index, lr);
            state.in_use |= 1 << index;
        }
        (kick, Maintenance::NONE)
    }

    /// While better ones wait, an interrupt must not turn from pending and active to pending behind our back: its next
    /// instance competes when the current one has ended.
    fn hold_back(&mut self, vcpu: VcpuId) {
        for index in bits(self.vcpu(vcpu).in_use.into()) {
            let lr = self.vcpu(vcpu).slot(index);
            if !(lr.is_pending() && lr.is_active()) {
                continue;
            }
            self.latch_from(vcpu, lr);
            let (number, bit) = (u32::from(lr.virq()) / 32, u32::from(lr.virq()) % 32);
            let state = self.vcpu_mut(vcpu);
            state.set_slot(index, lr.without_pending().reporting_end());
            if number != 0 {
                state.enqueue(number, 1 << bit);
            }
        }
    }

    /// The best interrupt that could go into a slot: bank, bit, priority. Of equals the lowest-numbered.
    fn best_waiting(&self, vcpu: VcpuId) -> Option<(u32, u32, u8)> {
        let state = self.vcpu(vcpu);
        let private = &state.private;
        let mut best = None;
        let mut consider = |number: u32, waiting: u32, bank: &Bank| {
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
        let held = bank.held & mask != 0;
        bank.enter_lr(mask);
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
    pub(super) fn best_spilled(&self, vcpu: VcpuId) -> Option<IntId> {
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
    pub(super) fn reload_spilled(&mut self, vcpu: VcpuId, count: usize) -> bool {
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
pub(super) fn usable(count: usize) -> u16 {
    if count >= MAX_LRS {
        u16::MAX
    } else {
        (1 << count) - 1
    }
}
