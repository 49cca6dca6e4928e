//! What a write to the distributor does to the interrupts.
//!
//! Each function takes the number of the bank or word and the value written, changes the bank, and returns the vCPUs to
//! kick and the work for physical interrupts. Each change of an interrupt that is in flight goes the same way:
//! [`Vgic::requeue`] wakes the vCPU that holds it, and the refill takes it out of its list register and chooses anew.
//!
//! Manual: IHI 0048B 4.3.

use super::dist::{CPENDSGIR, EDGE, Effects, HostOp, SPENDSGIR, SPENDSGIR_END, eighth};
use super::irq::PRIORITY_MASK;
use super::lr::Lr;
use super::{SGIS, Vgic, bits};
use crate::id::{IntId, VcpuId, VcpuSet};

impl Vgic {
    pub(super) fn write_control(&mut self, value: u32) -> VcpuSet {
        let forwarding = value & 1 != 0;
        if forwarding == self.forwarding {
            return VcpuSet::EMPTY;
        }
        self.forwarding = forwarding;
        // A dirty vCPU has been kicked, and will see this change too.
        let clean = self.existing.iter().filter(|id| !self.vcpu(*id).dirty);
        let clean = clean.fold(VcpuSet::EMPTY, |set, id| set | VcpuSet::only(id));
        clean
            .iter()
            .fold(VcpuSet::EMPTY, |kick, vcpu| kick | self.wake(vcpu))
    }

    /// `GICD_SGIR` (IHI 0048B 4.3.15). Filter 3 is reserved and does nothing; absent vCPUs are passed over.
    pub(super) fn send_sgi(&mut self, from: VcpuId, value: u32) -> VcpuSet {
        let Some(sgi) = IntId::new(value & 0xF) else {
            return VcpuSet::EMPTY;
        };
        let itself = VcpuSet::only(from).0;
        let list = match value >> 24 & 3 {
            0 => (value >> 16 & 0xFF) as u8,
            1 => !itself,
            2 => itself,
            _ => 0,
        };
        let targets = list & self.existing.0;
        if targets == itself {
            return self.raise_sgi(from, sgi, from);
        }
        let mut kick = VcpuSet::EMPTY;
        for bit in bits(targets.into()) {
            if let Some(target) = VcpuId::new(bit) {
                kick |= self.raise_sgi(target, sgi, from);
            }
        }
        kick
    }

    pub(super) fn set_enable(&mut self, vcpu: VcpuId, number: u32, value: u32) -> Effects {
        let Some(bank) = self.bank_mut(vcpu, number) else {
            return Effects::NONE;
        };
        let new = value & !bank.enabled;
        if new == 0 {
            return Effects::NONE;
        }
        bank.enabled |= new;
        let (in_flight, routed) = (bank.in_flight() & new, bank.routed & new);
        let kick = self.requeue(vcpu, number, in_flight);
        Effects::kick(kick).and_host(HostOp::Enable, number, routed)
    }

    pub(super) fn clear_enable(&mut self, vcpu: VcpuId, number: u32, value: u32) -> Effects {
        let Some(bank) = self.bank_mut(vcpu, number) else {
            return Effects::NONE;
        };
        let gone = value & bank.enabled & !read_only(number);
        if gone == 0 {
            return Effects::NONE;
        }
        bank.enabled &= !gone;
        let (in_flight, routed) = (bank.in_flight() & gone, bank.routed & gone);
        let kick = self.requeue(vcpu, number, in_flight);
        Effects::kick(kick).and_host(HostOp::Disable, number, routed)
    }

    pub(super) fn set_pending(&mut self, vcpu: VcpuId, number: u32, value: u32) -> VcpuSet {
        bits(value & !read_only(number))
            .filter_map(|bit| IntId::new(number * 32 + bit))
            .fold(VcpuSet::EMPTY, |kick, irq| kick | self.raise(vcpu, irq))
    }

    pub(super) fn clear_pending(&mut self, vcpu: VcpuId, number: u32, value: u32) -> Effects {
        let value = value & !read_only(number);
        let Some(bank) = self.bank_mut(vcpu, number) else {
            return Effects::NONE;
        };
        let (in_flight, routed) = (bank.in_flight() & value, bank.routed & value);
        // The physical activation stays with an interrupt that is active, and ends with it.
        let ended = bank.phys_active & bank.pending & value & !bank.active;
        bank.phys_active &= !ended;
        bank.pending &= !value;
        bank.drop_pending |= bank.in_lr & value;
        self.deactivate(vcpu, number, ended);
        let kick = self.requeue(vcpu, number, in_flight);
        Effects::kick(kick).and_host(HostOp::ClearPending, number, routed)
    }

    /// `GICD_ISACTIVER`: an interrupt made active so is not delivered until `GICD_ICACTIVER`. As it is in no list
    /// register, the guest's deactivation through its CPU interface does not reach it.
    pub(super) fn set_active(&mut self, vcpu: VcpuId, number: u32, value: u32) -> VcpuSet {
        let Some(bank) = self.bank_mut(vcpu, number) else {
            return VcpuSet::EMPTY;
        };
        bank.set_active |= value & !bank.active;
        let in_flight = bank.in_flight() & value;
        self.requeue(vcpu, number, in_flight)
    }

    pub(super) fn clear_active(&mut self, vcpu: VcpuId, number: u32, value: u32) -> VcpuSet {
        let Some(bank) = self.bank_mut(vcpu, number) else {
            return VcpuSet::EMPTY;
        };
        bank.set_active &= !value;
        bank.drop_active |= bank.in_lr & value;
        let in_flight = bank.in_flight() & value;
        let ended = bank.active & value;
        self.end_active(vcpu, number, ended) | self.requeue(vcpu, number, in_flight)
    }

    pub(super) fn write_priority(
        &mut self,
        vcpu: VcpuId,
        index: u32,
        mask: u32,
        value: u32,
    ) -> VcpuSet {
        let (number, index) = eighth(index);
        let Some(bank) = self.bank_mut(vcpu, number) else {
            return VcpuSet::EMPTY;
        };
        let word = &mut bank.priority[index & 7];
        let old = core::mem::replace(word, *word & !mask | value & PRIORITY_MASK);
        if old == *word {
            return VcpuSet::EMPTY;
        }
        let changed = changed_bytes(old, *word) << ((index * 4) & 31);
        let in_flight = bank.in_flight() & changed;
        self.requeue(vcpu, number, in_flight)
    }

    pub(super) fn write_target(
        &mut self,
        vcpu: VcpuId,
        index: u32,
        mask: u32,
        value: u32,
    ) -> Effects {
        let (number, index) = eighth(index);
        let existing = u32::from(self.existing.0) * 0x0101_0101;
        if self.nr_vcpus == 1 {
            return Effects::NONE;
        }
        let Some(spi) = self.spi_mut(number) else {
            return Effects::NONE;
        };
        let word = &mut spi.target[index & 7];
        let old = core::mem::replace(word, *word & !mask | value & existing);
        let changed = changed_bytes(old, *word) << ((index * 4) & 31);
        let (in_flight, routed) = (spi.bank.in_flight() & changed, spi.bank.routed & changed);
        let kick = self.requeue(vcpu, number, in_flight);
        Effects::kick(kick).and_host(HostOp::Retarget, number, routed)
    }

    pub(super) fn write_config(&mut self, index: u32, value: u32) {
        if let Some(spi) = self.spi_mut(index / 2) {
            spi.config[index as usize & 1] = value & EDGE;
        }
    }

    /// `GICD_CPENDSGIR` and `GICD_SPENDSGIR` (IHI 0048B 4.3.16, 4.3.17).
    pub(super) fn write_sgi_pending(&mut self, vcpu: VcpuId, offset: u32, value: u32) -> VcpuSet {
        let mut kick = VcpuSet::EMPTY;
        let first = offset & 0xC;
        let existing = self.existing.0;
        for lane in 0..4 {
            let sources = (value >> (lane * 8)) as u8 & existing;
            let sgi = first + lane;
            match offset {
                _ if sources == 0 => {}
                CPENDSGIR..SPENDSGIR => kick |= self.clear_sgi(vcpu, sgi, sources),
                SPENDSGIR..SPENDSGIR_END => {
                    for source in VcpuSet(sources).iter() {
                        if let Some(irq) = IntId::new(sgi) {
                            kick |= self.raise_sgi(vcpu, irq, source);
                        }
                    }
                }
                _ => {}
            }
        }
        kick
    }

    pub(super) fn clear_sgi(&mut self, vcpu: VcpuId, sgi: u32, gone: u8) -> VcpuSet {
        let state = self.vcpu_mut(vcpu);
        let sources = &mut state.sgi_sources[sgi as usize & 15];
        *sources &= !gone;
        if *sources == 0 {
            state.private.pending &= !(1 << sgi);
        }
        let from_gone = |lr: Lr| u32::from(lr.virq()) == sgi && gone >> lr.source() & 1 != 0;
        if !state.used_lrs().any(from_gone) {
            return VcpuSet::EMPTY;
        }
        state.private.drop_pending |= 1 << sgi;
        self.wake(vcpu)
    }
}

/// The interrupts of a bank whose enables and pending states these registers cannot change.
const fn read_only(number: u32) -> u32 {
    if number == 0 { SGIS } else { 0 }
}

/// Bit n for byte n that differs.
const fn changed_bytes(old: u32, new: u32) -> u32 {
    let differ = old ^ new;
    (differ & 0xFF != 0) as u32
        | ((differ & 0xFF00 != 0) as u32) << 1
        | ((differ & 0xFF_0000 != 0) as u32) << 2
        | ((differ & 0xFF00_0000 != 0) as u32) << 3
}
