//! Moving interrupts into list registers and back.
//!
//! [`Vgic::refill`] runs before a dirty vCPU enters its guest. It moves every interrupt from its list register to its
//! bank, with the state the guest left, then places interrupts that want a list register, and writes the list registers
//! whose contents changed. With four list registers that is at most eight accesses.
//!
//! * Usually all interrupts fit. Otherwise they are taken out again, and [`Limit`] chooses.
//! * An active interrupt without a list register is spilled. Hardware counts its end (`GICH_HCR.EOICount`, LRENPIE);
//!   ends come in order of priority, so the count identifies the interrupts.
//! * While a pending interrupt waits for a list register, hardware signals when the guest has taken all that are
//!   pending in one (NPIE).
//! * An interrupt that is pending again while active has both states in its list register. Three cases wait for the
//!   maintenance interrupt at its end instead: a physical activation, which needs the HW bit; an SGI from another
//!   sender; and any interrupt while others wait, as those may be better.
//! * An interrupt whose line is high reports its end too, and is then pending again.
//!
//! Manual: IHI 0048B 5.2.2 (managing list registers), 5.3.1 (EOICount, NPIE, LRENPIE), 5.3.8 (`GICH_LRn`).

use super::choose::Limit;
use super::irq::{bank_of, bit_of};
use super::lr::{ListRegisters, Lr, MAX_LRS, Maintenance};
use super::{Vgic, bits};
use crate::id::{IntId, MAX_VCPUS, VcpuId, VcpuSet};

/// Actions the caller of [`Vgic::unload`] must take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct Unloaded {
    /// Other vCPUs that now have an interrupt to deliver.
    pub kick: VcpuSet,
    /// PPIs (bit n for INTID n) whose physical interrupt is active for this vCPU. Clear that state on this CPU
    /// (`GICD_ICACTIVER0`), and set it where the vCPU is loaded next ([`Vgic::active_ppis`]).
    pub active_ppis: u32,
}

/// The list registers that a refill uses, and those whose contents it changed, one bit each.
#[derive(Clone, Copy, Default)]
struct Placed {
    used: u32,
    changed: u32,
}

impl Vgic {
    /// Refills the list registers of `vcpu` if it is dirty. The first call after an unload loads the vCPU; before it,
    /// set the physical state of [`Self::active_ppis`]. Returns other vCPUs that must refill.
    pub fn refill(&mut self, vcpu: VcpuId, lrs: &mut impl ListRegisters) -> VcpuSet {
        let state = self.vcpu(vcpu);
        if state.dirty || !state.resident {
            self.refill_now(vcpu, lrs)
        } else {
            VcpuSet::EMPTY
        }
    }

    /// Reads the list registers back and refills them unconditionally, so that the banks show what the guest did. Does
    /// nothing for a vCPU that is not resident. Returns other vCPUs that must refill.
    pub fn fold(&mut self, vcpu: VcpuId, lrs: &mut impl ListRegisters) -> VcpuSet {
        if self.vcpu(vcpu).resident {
            self.refill_now(vcpu, lrs)
        } else {
            VcpuSet::EMPTY
        }
    }

    /// Takes `vcpu` off its CPU: reads its list registers back and clears them. The caller saves `GICH_VMCR` and
    /// `GICH_APR`, and moves the state of the returned PPIs.
    pub fn unload(&mut self, vcpu: VcpuId, lrs: &mut impl ListRegisters) -> Unloaded {
        let kick = self.read_back(vcpu, lrs);
        self.write_changed(vcpu, Placed::default(), lrs);
        self.set_maintenance(vcpu, Maintenance::NONE, lrs);
        self.vcpu_mut(vcpu).resident = false;
        self.deactivate_ended(vcpu, lrs);
        Unloaded {
            kick: kick.minus(VcpuSet::only(vcpu)),
            active_ppis: self.active_ppis(vcpu),
        }
    }

    /// Returns the PPIs (bit n for INTID n) whose physical interrupt must be active on the CPU that loads `vcpu`, which
    /// is unloaded.
    pub fn active_ppis(&self, vcpu: VcpuId) -> u32 {
        let private = &self.vcpu(vcpu).private;
        private.phys_active | private.deactivate
    }

    fn refill_now(&mut self, vcpu: VcpuId, lrs: &mut impl ListRegisters) -> VcpuSet {
        let kick = self.read_back(vcpu, lrs);
        let room = lrs.count().min(MAX_LRS);
        let mut placed = Placed::default();
        let mut maintenance = Maintenance::NONE;
        if !self.put_in(vcpu, &mut placed, room, None) {
            (placed, maintenance) = self.put_in_best(vcpu, placed, room);
        }
        self.write_changed(vcpu, placed, lrs);
        self.deactivate_ended(vcpu, lrs);
        if self.vcpu(vcpu).maintenance != maintenance {
            self.set_maintenance(vcpu, maintenance, lrs);
        }
        let state = self.vcpu_mut(vcpu);
        state.resident = true;
        state.dirty = false;
        kick.minus(VcpuSet::only(vcpu))
    }

    /// Reads the list registers and moves their interrupts to the banks. Returns vCPUs that must refill.
    #[inline(always)]
    fn read_back(&mut self, vcpu: VcpuId, lrs: &mut impl ListRegisters) -> VcpuSet {
        let mut kick = VcpuSet::EMPTY;
        let state = self.vcpu(vcpu);
        if state.maintenance.contains(Maintenance::NOT_PRESENT) {
            kick |= self.end_spilled(vcpu, lrs.take_eoi_count());
        }
        for index in bits(self.vcpu(vcpu).used) {
            let lr = Lr::from_raw(lrs.read(index as usize));
            self.vcpu_mut(vcpu).lrs[index as usize % MAX_LRS] = lr;
            if lr.is_free() && !lr.reports_end() {
                self.vcpu_mut(vcpu).used &= !(1 << index);
            }
            kick |= self.take_out(vcpu, lr);
        }
        kick
    }

    /// Moves the state of the interrupt in `lr` to its bank. Returns the vCPU that must place it now, if any.
    #[inline(always)]
    fn take_out(&mut self, vcpu: VcpuId, lr: Lr) -> VcpuSet {
        let (number, bit) = lr.place();
        let mask = 1 << bit;
        if !lr.is_free() {
            self.take_out_state(vcpu, lr);
        } else if number != 0 && lr.reports_end() {
            self.raise_high(number, mask);
        }
        let Some(bank) = self.bank_mut(vcpu, number) else {
            return VcpuSet::EMPTY;
        };
        bank.in_lr &= !mask;
        bank.drop_pending &= !mask;
        bank.drop_active &= !mask;
        if number == 0 || bank.in_flight() & mask == 0 {
            VcpuSet::EMPTY
        } else {
            self.queue(number, bit)
        }
    }

    /// Moves the state of a list register that is not empty, except what the guest cleared in the distributor
    /// meanwhile.
    fn take_out_state(&mut self, vcpu: VcpuId, lr: Lr) {
        let (number, bit) = lr.place();
        let mask = 1 << bit;
        let Some(bank) = self.bank_mut(vcpu, number) else {
            return;
        };
        let pending = lr.is_pending() && bank.drop_pending & mask == 0;
        let active = lr.is_active() && bank.drop_active & mask == 0;
        // An active interrupt that is pending again loses its physical activation: its list register will be pending
        // and active, or report the end, and HW excludes both.
        let ended = if active {
            bank.pending & mask != 0
        } else {
            !pending
        };
        if active {
            bank.active |= mask;
            bank.set_active &= !mask;
        }
        if pending {
            bank.pending |= mask;
        }
        if lr.is_hw() {
            if ended {
                self.deactivate(vcpu, number, mask);
            } else {
                bank.phys_active |= mask;
            }
        } else if lr.virq() < 16 {
            let state = self.vcpu_mut(vcpu);
            let sgi = bit as usize & 15;
            state.sgi_active_from[sgi] = lr.source();
            if pending {
                state.sgi_sources[sgi] |= 1 << lr.source();
            }
        }
    }

    /// Places the interrupts that want a list register, or those within `limit`. An interrupt keeps the list register
    /// it had, so that a VirtualID is never in two. Returns false if there are too many.
    #[inline(always)]
    fn put_in(
        &mut self,
        vcpu: VcpuId,
        placed: &mut Placed,
        room: usize,
        limit: Option<&Limit>,
    ) -> bool {
        for index in bits(self.vcpu(vcpu).used) {
            let (number, bit) = self.vcpu(vcpu).lr(index).place();
            if self.wanting(vcpu, number, limit) >> bit & 1 != 0 {
                self.place_again(vcpu, number, bit, index, placed, limit.is_some());
            }
        }
        for number in bits(self.vcpu(vcpu).queued_banks | 1) {
            for bit in bits(self.wanting(vcpu, number, limit)) {
                let index = (!placed.used).trailing_zeros();
                if index as usize >= room {
                    return false;
                }
                self.place(vcpu, number, bit, index, placed, limit.is_some());
            }
        }
        true
    }

    /// Places the best interrupts when there are too many. Returns the maintenance interrupts that signal when to
    /// choose again.
    #[cold]
    #[inline(never)]
    fn put_in_best(
        &mut self,
        vcpu: VcpuId,
        mut placed: Placed,
        room: usize,
    ) -> (Placed, Maintenance) {
        for index in bits(core::mem::take(&mut placed.used)) {
            // This vCPU has just placed it, so `take_out` returns no other vCPU to kick.
            let _ = self.take_out(vcpu, self.vcpu(vcpu).lr(index));
            self.vcpu_mut(vcpu).used |= 1 << (index & 31);
        }
        let limit = self.limit(vcpu, room);
        self.put_in(vcpu, &mut placed, room, Some(&limit));
        (placed, limit.maintenance())
    }

    /// Returns the choice of up to `room` interrupts of `vcpu`.
    fn limit(&self, vcpu: VcpuId, room: usize) -> Limit {
        let mut limit = Limit::new(room);
        for number in bits(self.vcpu(vcpu).queued_banks | 1) {
            if let Some(bank) = self.bank(vcpu, number) {
                for bit in bits(self.wanting(vcpu, number, None)) {
                    limit.add(bank, number, bit);
                }
            }
        }
        limit.finish();
        limit
    }

    /// Returns the interrupts of a bank that want a list register of `vcpu` (active or deliverable) and are within
    /// `limit`.
    #[inline(always)]
    fn wanting(&self, vcpu: VcpuId, number: u32, limit: Option<&Limit>) -> u32 {
        let Some(bank) = self.bank(vcpu, number) else {
            return 0;
        };
        let mut wanting = bank.active;
        if self.forwarding {
            wanting |= bank.deliverable();
        }
        if number != 0 {
            wanting &= self.vcpu(vcpu).queued(number);
        }
        match limit {
            None => wanting,
            Some(limit) => limit.within(bank, number, wanting),
        }
    }

    /// Writes the list registers whose contents changed.
    #[inline(always)]
    fn write_changed(&mut self, vcpu: VcpuId, placed: Placed, lrs: &mut impl ListRegisters) {
        let state = self.vcpu_mut(vcpu);
        for index in bits(placed.changed & placed.used) {
            lrs.write(index as usize, state.lr(index).raw());
        }
        for index in bits(state.used & !placed.used) {
            state.lrs[index as usize % MAX_LRS] = Lr::FREE;
            lrs.write(index as usize, Lr::FREE.raw());
        }
        state.used = placed.used;
    }

    /// [`Self::place`] in the list register it had. Not inlined: most interrupts have ended by the time they are read
    /// back.
    #[inline(never)]
    fn place_again(
        &mut self,
        vcpu: VcpuId,
        number: u32,
        bit: u32,
        index: u32,
        placed: &mut Placed,
        crowded: bool,
    ) {
        self.place(vcpu, number, bit, index, placed, crowded);
    }

    /// Moves the state of an interrupt from its bank to list register `index`. `crowded`: others wait for a list
    /// register.
    #[inline(always)]
    fn place(
        &mut self,
        vcpu: VcpuId,
        number: u32,
        bit: u32,
        index: u32,
        placed: &mut Placed,
        crowded: bool,
    ) {
        let mask = 1 << (bit & 31);
        let state = &mut self.vcpus[vcpu.index() % MAX_VCPUS as usize];
        let (bank, is_high) = match number.checked_sub(1) {
            None => (&mut state.private, false),
            Some(n) => {
                state.dequeue(number, mask);
                let Some(spi) = self.spis.get_mut(n as usize) else {
                    return;
                };
                spi.set_holder(bit, vcpu);
                (&mut spi.bank, spi.level & mask != 0)
            }
        };
        bank.in_lr |= mask;
        let mut lr = Lr::software((number * 32 + bit) as u16, bank.priority(bit));
        if is_high {
            lr = lr.reporting_end();
        }
        let lr = if bank.active & mask != 0 {
            self.with_active_state(vcpu, number, bit, lr, !crowded)
        } else if number == 0 && bit < 16 {
            self.with_pending_sgi(vcpu, bit, lr)
        } else {
            bank.pending &= !mask;
            bank.link(bit, lr.with_pending())
        };
        let known = &mut self.vcpu_mut(vcpu).lrs[index as usize % MAX_LRS];
        let here = 1 << (index % MAX_LRS as u32);
        placed.used |= here;
        if *known != lr {
            *known = lr;
            placed.changed |= here;
        }
    }

    /// Moves a pending SGI from its bank to `lr`. A list register holds one sender.
    #[inline(always)]
    fn with_pending_sgi(&mut self, vcpu: VcpuId, sgi: u32, lr: Lr) -> Lr {
        let state = self.vcpu_mut(vcpu);
        let sources = &mut state.sgi_sources[sgi as usize & 15];
        let lr = lr.sent_by(sources.trailing_zeros() as u8).with_pending();
        *sources &= sources.wrapping_sub(1);
        if *sources == 0 {
            state.private.pending &= !(1 << (sgi & 15));
            lr
        } else {
            lr.reporting_end()
        }
    }

    /// Moves the state of an active interrupt from its bank to `lr`.
    #[inline(never)]
    fn with_active_state(
        &mut self,
        vcpu: VcpuId,
        number: u32,
        bit: u32,
        lr: Lr,
        may_be_both: bool,
    ) -> Lr {
        let mask = 1 << (bit & 31);
        let spi = self.spi(number);
        let is_here = spi.is_none_or(|spi| spi.target(bit) == Some(vcpu));
        let may_be_both = may_be_both && self.forwarding && is_here;
        if number == 0 && bit < 16 {
            return self.with_active_sgi(vcpu, bit, lr, may_be_both);
        }
        let Some(bank) = self.bank_mut(vcpu, number) else {
            return lr;
        };
        bank.active &= !mask;
        let lr = lr.with_active();
        if bank.pending & mask == 0 {
            bank.link(bit, lr)
        } else if may_be_both && bank.enabled & !bank.phys_active & mask != 0 {
            bank.pending &= !mask;
            lr.with_pending()
        } else {
            lr.reporting_end()
        }
    }

    fn with_active_sgi(&mut self, vcpu: VcpuId, sgi: u32, lr: Lr, may_be_both: bool) -> Lr {
        let state = self.vcpu_mut(vcpu);
        let private = &mut state.private;
        let sources = &mut state.sgi_sources[sgi as usize & 15];
        let source = state.sgi_active_from[sgi as usize & 15] & 7;
        let mut lr = lr.sent_by(source).with_active();
        private.active &= !(1 << (sgi & 15));
        if may_be_both && *sources >> source & 1 != 0 {
            lr = lr.with_pending();
            *sources &= !(1 << source);
        }
        if *sources == 0 {
            private.pending &= !(1 << (sgi & 15));
            lr
        } else {
            lr.reporting_end()
        }
    }

    #[cold]
    #[inline(never)]
    fn set_maintenance(&mut self, vcpu: VcpuId, want: Maintenance, lrs: &mut impl ListRegisters) {
        let state = self.vcpu_mut(vcpu);
        let before = core::mem::replace(&mut state.maintenance, want);
        if before == want {
            return;
        }
        if want.contains(Maintenance::NOT_PRESENT) && !before.contains(Maintenance::NOT_PRESENT) {
            // The ends counted so far were not those of spilled interrupts.
            let _ = lrs.take_eoi_count();
        }
        lrs.set_maintenance(want);
    }

    /// Ends the `count` best of the spilled interrupts: those active in the banks while others are in list registers.
    #[cold]
    #[inline(never)]
    fn end_spilled(&mut self, vcpu: VcpuId, count: u32) -> VcpuSet {
        let mut kick = VcpuSet::EMPTY;
        for _ in 0..count {
            let Some(irq) = self.best_active(vcpu) else {
                break;
            };
            kick |= self.end_active(vcpu, bank_of(irq), 1 << bit_of(irq));
        }
        kick
    }

    fn best_active(&self, vcpu: VcpuId) -> Option<IntId> {
        (0..=self.spis.len() as u32)
            .flat_map(|number| bits(self.active_in(vcpu, number)).map(move |bit| (number, bit)))
            .min_by_key(|(number, bit)| self.bank(vcpu, *number).map(|bank| bank.priority(*bit)))
            .and_then(|(number, bit)| IntId::new(number * 32 + bit))
    }

    /// Deactivates physical interrupts whose virtual interrupts ended in software.
    fn deactivate_ended(&mut self, vcpu: VcpuId, lrs: &mut impl ListRegisters) {
        if self.deactivate_banks | self.vcpu(vcpu).private.deactivate != 0 {
            self.deactivate_each(vcpu, lrs);
        }
    }

    #[cold]
    #[inline(never)]
    fn deactivate_each(&mut self, vcpu: VcpuId, lrs: &mut impl ListRegisters) {
        // Bank 0 is private to this vCPU.
        for number in bits(core::mem::take(&mut self.deactivate_banks) | 1) {
            let Some(bank) = self.bank_mut(vcpu, number) else {
                continue;
            };
            let ended = core::mem::take(&mut bank.deactivate);
            bits(ended)
                .filter_map(|bit| bank.pirq(bit))
                .for_each(|pirq| lrs.deactivate(pirq));
        }
    }
}
