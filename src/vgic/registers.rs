//! The registers of the distributor: the value of a read, and the effect of a write.
//!
//! The table in [`super::dist`] refers to these functions. A read returns the word at an index. A write changes the
//! bank, and returns the vCPUs to kick and the work for physical interrupts. Every change of an interrupt in flight
//! takes the same path: [`Vgic::requeue`] wakes the vCPU that holds it, whose refill moves it out of its list register
//! and chooses again.
//!
//! Manual: IHI 0048B 4.3.

use super::dist::{Effects, HostOp, Written};
use super::irq::PRIORITY_MASK;
use super::lr::Lr;
use super::{SGIS, Vgic, bits};
use crate::id::{IntId, VcpuId, VcpuSet};

/// `GICD_IIDR`: implementer Arm, as in Xen.
const IIDR: u32 = 0x43B;
/// `ICPIDR2`: architecture version 2, JEP106 code of Arm (IHI 0048B 4.3.18).
const ICPIDR2: u32 = 0x2B;
/// Edge bits of `GICD_ICFGR`.
const EDGE: u32 = 0xAAAA_AAAA;

impl Vgic {
    pub(super) fn read_zero(&self, _: VcpuId, _: u32) -> u32 {
        0
    }

    pub(super) fn ignore(&mut self, _: VcpuId, _: u32, _: Written) -> Effects {
        Effects::NONE
    }

    /// Returns CTLR, TYPER or IIDR.
    pub(super) fn read_identity(&self, _: VcpuId, index: u32) -> u32 {
        match index {
            0 => self.forwarding.into(),
            1 => self.spis.len() as u32 & 0x1F | u32::from(self.nr_vcpus.saturating_sub(1)) << 5,
            2 => IIDR,
            _ => 0,
        }
    }

    /// Writes CTLR. TYPER and IIDR are read-only.
    pub(super) fn write_ctlr(&mut self, _: VcpuId, index: u32, written: Written) -> Effects {
        let forwarding = written.value & 1 != 0;
        if index != 0 || forwarding == self.forwarding {
            return Effects::NONE;
        }
        self.forwarding = forwarding;
        // A dirty vCPU has been kicked already, and its refill sees the new value.
        let clean = self.existing.iter().filter(|id| !self.vcpu(*id).dirty);
        let clean = clean.fold(VcpuSet::EMPTY, |set, id| set | VcpuSet::only(id));
        for vcpu in clean.iter() {
            self.wake(vcpu);
        }
        Effects::kick(clean)
    }

    /// Returns ICPIDR2; the other words are reserved.
    pub(super) fn read_peripheral_id(&self, _: VcpuId, index: u32) -> u32 {
        if index == 2 { ICPIDR2 } else { 0 }
    }

    pub(super) fn read_enabled(&self, vcpu: VcpuId, number: u32) -> u32 {
        self.bank(vcpu, number).map_or(0, |bank| bank.enabled)
    }

    pub(super) fn write_isenabler(
        &mut self,
        vcpu: VcpuId,
        number: u32,
        written: Written,
    ) -> Effects {
        let Some(bank) = self.bank_mut(vcpu, number) else {
            return Effects::NONE;
        };
        let new = written.value & !bank.enabled;
        if new == 0 {
            return Effects::NONE;
        }
        bank.enabled |= new;
        let (in_flight, routed) = (bank.in_flight() & new, bank.routed & new);
        Effects::kick(self.requeue(vcpu, number, in_flight)).and_host(
            HostOp::Enable,
            number,
            routed,
        )
    }

    pub(super) fn write_icenabler(
        &mut self,
        vcpu: VcpuId,
        number: u32,
        written: Written,
    ) -> Effects {
        let Some(bank) = self.bank_mut(vcpu, number) else {
            return Effects::NONE;
        };
        let gone = written.value & bank.enabled & !read_only(number);
        if gone == 0 {
            return Effects::NONE;
        }
        bank.enabled &= !gone;
        let (in_flight, routed) = (bank.in_flight() & gone, bank.routed & gone);
        Effects::kick(self.requeue(vcpu, number, in_flight)).and_host(
            HostOp::Disable,
            number,
            routed,
        )
    }

    /// Returns the pending state, from the bank and from list registers as of the last refill.
    pub(super) fn read_pending(&self, vcpu: VcpuId, number: u32) -> u32 {
        self.bank(vcpu, number).map_or(0, |bank| {
            let listed = self.listed(vcpu, number, bank.in_lr, Lr::is_pending);
            bank.pending | listed & !bank.drop_pending
        })
    }

    pub(super) fn write_ispendr(&mut self, vcpu: VcpuId, number: u32, written: Written) -> Effects {
        let kick = bits(written.value & !read_only(number))
            .filter_map(|bit| IntId::new(number * 32 + bit))
            .fold(VcpuSet::EMPTY, |kick, irq| kick | self.raise(vcpu, irq));
        Effects::kick(kick)
    }

    pub(super) fn write_icpendr(&mut self, vcpu: VcpuId, number: u32, written: Written) -> Effects {
        let high = self.spi(number).map_or(0, |spi| spi.level);
        let gone = written.value & !read_only(number) & !high;
        let Some(bank) = self.bank_mut(vcpu, number) else {
            return Effects::NONE;
        };
        let (in_flight, routed) = (bank.in_flight() & gone, bank.routed & gone);
        // An active interrupt keeps its physical activation until it ends.
        let ended = bank.phys_active & bank.pending & gone & !bank.active;
        bank.phys_active &= !ended;
        bank.pending &= !gone;
        bank.drop_pending |= bank.in_lr & gone;
        self.deactivate(vcpu, number, ended);
        Effects::kick(self.requeue(vcpu, number, in_flight)).and_host(
            HostOp::ClearPending,
            number,
            routed,
        )
    }

    /// Returns the active state, from the bank and from list registers as of the last refill.
    pub(super) fn read_active(&self, vcpu: VcpuId, number: u32) -> u32 {
        self.bank(vcpu, number).map_or(0, |bank| {
            let listed = self.listed(vcpu, number, bank.in_lr, Lr::is_active);
            bank.active | bank.set_active | listed & !bank.drop_active
        })
    }

    /// Makes interrupts active, which blocks their delivery until `GICD_ICACTIVER`. They are in no list register, so
    /// the guest cannot deactivate them through its CPU interface.
    pub(super) fn write_isactiver(
        &mut self,
        vcpu: VcpuId,
        number: u32,
        written: Written,
    ) -> Effects {
        let Some(bank) = self.bank_mut(vcpu, number) else {
            return Effects::NONE;
        };
        bank.set_active |= written.value & !bank.active;
        let in_flight = bank.in_flight() & written.value;
        Effects::kick(self.requeue(vcpu, number, in_flight))
    }

    pub(super) fn write_icactiver(
        &mut self,
        vcpu: VcpuId,
        number: u32,
        written: Written,
    ) -> Effects {
        let Some(bank) = self.bank_mut(vcpu, number) else {
            return Effects::NONE;
        };
        bank.set_active &= !written.value;
        bank.drop_active |= bank.in_lr & written.value;
        let in_flight = bank.in_flight() & written.value;
        let ended = bank.active & written.value;
        let kick = self.end_active(vcpu, number, ended);
        Effects::kick(kick | self.requeue(vcpu, number, in_flight))
    }

    pub(super) fn read_ipriorityr(&self, vcpu: VcpuId, index: u32) -> u32 {
        let bank = self.bank(vcpu, index / 8);
        bank.map_or(0, |bank| bank.priority[index as usize % 8])
    }

    pub(super) fn write_ipriorityr(
        &mut self,
        vcpu: VcpuId,
        index: u32,
        written: Written,
    ) -> Effects {
        let number = index / 8;
        let Some(bank) = self.bank_mut(vcpu, number) else {
            return Effects::NONE;
        };
        let changed = replace_lanes(&mut bank.priority, index, written, PRIORITY_MASK);
        if changed == 0 {
            return Effects::NONE;
        }
        let in_flight = bank.in_flight() & changed;
        Effects::kick(self.requeue(vcpu, number, in_flight))
    }

    /// Returns the reader's own mask for private interrupts. SPIs are RAZ/WI with one vCPU.
    pub(super) fn read_itargetsr(&self, vcpu: VcpuId, index: u32) -> u32 {
        let number = index / 8;
        if number == 0 {
            u32::from(VcpuSet::only(vcpu).0) * 0x0101_0101
        } else if self.nr_vcpus == 1 {
            0
        } else {
            let spi = self.spi(number);
            spi.map_or(0, |spi| spi.target[index as usize % 8])
        }
    }

    pub(super) fn write_itargetsr(
        &mut self,
        vcpu: VcpuId,
        index: u32,
        written: Written,
    ) -> Effects {
        let (number, nr_vcpus) = (index / 8, self.nr_vcpus);
        let existing = u32::from(self.existing.0) * 0x0101_0101;
        let Some(spi) = self.spi_mut(number).filter(|_| nr_vcpus > 1) else {
            return Effects::NONE;
        };
        let changed = replace_lanes(&mut spi.target, index, written, existing);
        let (in_flight, routed) = (spi.bank.in_flight() & changed, spi.bank.routed & changed);
        Effects::kick(self.requeue(vcpu, number, in_flight)).and_host(
            HostOp::Retarget,
            number,
            routed,
        )
    }

    pub(super) fn read_icfgr(&self, _: VcpuId, index: u32) -> u32 {
        match index {
            0 => EDGE,
            _ => self
                .spi(index / 2)
                .map_or(0, |spi| spi.config[index as usize % 2]),
        }
    }

    pub(super) fn write_icfgr(&mut self, _: VcpuId, index: u32, written: Written) -> Effects {
        if let Some(spi) = self.spi_mut(index / 2) {
            spi.config[index as usize % 2] = written.value & EDGE;
        }
        Effects::NONE
    }

    pub(super) fn write_sgir(&mut self, vcpu: VcpuId, index: u32, written: Written) -> Effects {
        match index {
            0 => Effects::kick(self.send_sgi(vcpu, written.value)),
            _ => Effects::NONE,
        }
    }

    /// Handles a write to `GICD_SGIR` (IHI 0048B 4.3.15). The reserved filter 3 does nothing; targets that do not exist
    /// are ignored.
    pub(super) fn send_sgi(&mut self, from: VcpuId, value: u32) -> VcpuSet {
        let Some(sgi) = IntId::new(value & 0xF) else {
            return VcpuSet::EMPTY;
        };
        let itself = VcpuSet::only(from);
        let targets = match value >> 24 & 3 {
            0 => VcpuSet((value >> 16) as u8),
            1 => VcpuSet(!itself.0),
            2 => itself,
            _ => VcpuSet::EMPTY,
        };
        let targets = VcpuSet(targets.0 & self.existing.0);
        if targets == itself {
            return self.raise_sgi(from, sgi, from);
        }
        targets.iter().fold(VcpuSet::EMPTY, |kick, target| {
            kick | self.raise_sgi(target, sgi, from)
        })
    }

    /// Returns one byte per SGI: the vCPUs from which it is pending (IHI 0048B 4.3.16, 4.3.17).
    pub(super) fn read_pendsgir(&self, vcpu: VcpuId, index: u32) -> u32 {
        let state = self.vcpu(vcpu);
        let mut sources =
            [0, 1, 2, 3].map(|lane| state.sgi_sources[(index as usize * 4 + lane) % 16]);
        let listed = state.used_lrs().filter(|lr| lr.is_pending());
        for lr in listed.filter(|lr| u32::from(lr.virq()) / 4 == index) {
            if state.private.drop_pending >> lr.virq() & 1 == 0 {
                sources[usize::from(lr.virq()) % 4] |= 1 << lr.source();
            }
        }
        u32::from_le_bytes(sources)
    }

    pub(super) fn write_spendsgir(
        &mut self,
        vcpu: VcpuId,
        index: u32,
        written: Written,
    ) -> Effects {
        let mut kick = VcpuSet::EMPTY;
        for (sgi, sources) in (index * 4..).zip(written.value.to_le_bytes()) {
            for source in VcpuSet(sources & self.existing.0).iter() {
                if let Some(irq) = IntId::new(sgi) {
                    kick |= self.raise_sgi(vcpu, irq, source);
                }
            }
        }
        Effects::kick(kick)
    }

    pub(super) fn write_cpendsgir(
        &mut self,
        vcpu: VcpuId,
        index: u32,
        written: Written,
    ) -> Effects {
        let state = self.vcpu_mut(vcpu);
        let mut kick = VcpuSet::EMPTY;
        for (sgi, gone) in (index * 4..).zip(written.value.to_le_bytes()) {
            let sources = &mut state.sgi_sources[sgi as usize % 16];
            *sources &= !gone;
            if *sources == 0 {
                state.private.pending &= !(1 << (sgi % 16));
            }
            let is_gone = |lr: Lr| u32::from(lr.virq()) == sgi && gone >> lr.source() & 1 != 0;
            if state.used_lrs().any(is_gone) {
                state.private.drop_pending |= 1 << (sgi % 16);
                kick = VcpuSet::only(vcpu);
            }
        }
        state.dirty |= kick != VcpuSet::EMPTY;
        Effects::kick(kick)
    }

    /// Returns the interrupts of bank `number` whose list register satisfies `has`; none if `in_lr` is 0.
    fn listed(&self, vcpu: VcpuId, number: u32, in_lr: u32, has: impl Fn(Lr) -> bool) -> u32 {
        if in_lr == 0 {
            return 0;
        }
        let whose = if number == 0 {
            VcpuSet::only(vcpu)
        } else {
            self.existing
        };
        let mut mask = 0;
        for vcpu in whose.iter() {
            for lr in self.vcpu(vcpu).used_lrs().filter(|lr| has(*lr)) {
                if lr.place().0 == number {
                    mask |= 1 << lr.place().1;
                }
            }
        }
        mask
    }
}

/// Returns the interrupts of a bank whose enable and pending bits are read-only.
const fn read_only(number: u32) -> u32 {
    if number == 0 { SGIS } else { 0 }
}

/// Writes the word at `index`, eight to a bank, where only the bits `implemented` exist. Returns the interrupts of the
/// bank whose byte changed, one bit each.
fn replace_lanes(words: &mut [u32; 8], index: u32, written: Written, implemented: u32) -> u32 {
    let word = &mut words[index as usize % 8];
    let old = *word;
    *word = old & !written.lanes | written.value & implemented;
    if *word == old {
        return 0;
    }
    let changed = (old ^ *word).to_le_bytes();
    let bit = |lane: usize| u32::from(changed[lane] != 0) << lane;
    (bit(0) | bit(1) | bit(2) | bit(3)) << (index % 8 * 4)
}
