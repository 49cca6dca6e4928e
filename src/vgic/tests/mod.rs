//! A machine to test against: list registers with a guest behind them.

mod delivery;
mod level;
mod model;
mod passthrough;
mod registers;

use std::cell::Cell;

use super::lr::{ListRegisters, Lr, Maintenance};
use super::{HostWork, Vgic};
use crate::id::{IntId, VcpuId, VcpuSet};
use armv7::syndrome::Width;

pub(super) const CTLR: u32 = 0x000;
pub(super) const ISENABLER: u32 = 0x100;
pub(super) const ICENABLER: u32 = 0x180;
pub(super) const ISPENDR: u32 = 0x200;
pub(super) const ICPENDR: u32 = 0x280;
pub(super) const ISACTIVER: u32 = 0x300;
pub(super) const ICACTIVER: u32 = 0x380;
pub(super) const IPRIORITYR: u32 = 0x400;
pub(super) const ITARGETSR: u32 = 0x800;
pub(super) const SGIR: u32 = 0xF00;

pub(super) fn cpu(n: u32) -> VcpuId {
    VcpuId::new(n).expect("a vCPU number")
}

pub(super) fn irq(n: u32) -> IntId {
    IntId::new(n).expect("an INTID")
}

pub(super) fn set(vcpus: &[u32]) -> VcpuSet {
    vcpus
        .iter()
        .fold(VcpuSet::EMPTY, |set, n| set | VcpuSet::only(cpu(*n)))
}

/// A physical CPU's virtual interface with the guest that runs on it (IHI 0048B 5.2, 5.3).
pub(super) struct Gich {
    pub lrs: Vec<u32>,
    pub maintenance: Maintenance,
    pub eoi_count: u32,
    /// Priorities of the active interrupts and their INTIDs, as in `GICH_APR`: innermost last.
    pub running: Vec<(u16, u8, u8)>,
    /// Physical interrupts deactivated, by the guest's end of them or by us.
    pub deactivated: Vec<u16>,
    /// Accesses to list registers.
    pub reads: Cell<u32>,
    pub writes: u32,
}

impl Gich {
    pub fn new(count: usize) -> Self {
        Self {
            lrs: vec![0; count],
            maintenance: Maintenance::NONE,
            eoi_count: 0,
            running: Vec::new(),
            deactivated: Vec::new(),
            reads: Cell::new(0),
            writes: 0,
        }
    }

    pub fn lr(&self, index: usize) -> Lr {
        Lr::from_raw(self.lrs[index])
    }

    pub fn valid(&self) -> impl Iterator<Item = Lr> {
        self.lrs
            .iter()
            .map(|raw| Lr::from_raw(*raw))
            .filter(|lr| !lr.is_free())
    }

    /// Reads `GICV_IAR` as the guest does: number and sender.
    pub fn ack(&mut self) -> Option<(u16, u8)> {
        let below = self
            .running
            .last()
            .map_or(0x100, |(_, _, priority)| u32::from(*priority));
        let index = (0..self.lrs.len())
            .filter(|i| self.lr(*i).is_only_pending() && u32::from(self.lr(*i).priority()) < below)
            .min_by_key(|i| self.lr(*i).priority())?;
        let lr = self.lr(index);
        self.lrs[index] = lr.without_pending().with_active().raw();
        let source = if lr.virq() < 16 { lr.source() } else { 0 };
        self.running.push((lr.virq(), source, lr.priority()));
        Some((lr.virq(), source))
    }

    /// Ends, as the guest does, what it handles innermost (`GICV_EOIR`, EOImode 0).
    pub fn eoi(&mut self) -> Option<(u16, u8)> {
        let (virq, source, _) = self.running.pop()?;
        let found =
            (0..self.lrs.len()).find(|i| self.lr(*i).virq() == virq && self.lr(*i).is_active());
        match found {
            Some(index) => {
                let lr = self.lr(index);
                assert!(
                    !(lr.is_hw() && lr.is_pending()),
                    "HW and pending and active"
                );
                if lr.is_hw() {
                    self.deactivated.push((lr.raw() >> 10 & 0x3FF) as u16);
                }
                self.lrs[index] = lr.without_active().raw();
            }
            None => self.eoi_count += 1,
        }
        Some((virq, source))
    }

    /// Returns whether the maintenance interrupt is asserted (`GICH_MISR`).
    pub fn maintenance_asserted(&self) -> bool {
        let lrs = || self.lrs.iter().map(|raw| Lr::from_raw(*raw));
        lrs().any(|lr| lr.is_free() && lr.reports_end())
            || self.maintenance.contains(Maintenance::NO_PENDING) && !lrs().any(Lr::is_only_pending)
            || self.maintenance.contains(Maintenance::NOT_PRESENT) && self.eoi_count != 0
    }
}

impl ListRegisters for Gich {
    fn count(&self) -> usize {
        self.lrs.len()
    }
    fn read(&self, index: usize) -> u32 {
        self.reads.set(self.reads.get() + 1);
        self.lrs[index]
    }
    fn write(&mut self, index: usize, value: u32) {
        self.writes += 1;
        self.lrs[index] = value;
        let virq = Lr::from_raw(value).virq();
        let lr = Lr::from_raw(value);
        assert!(
            !(lr.is_hw() && lr.is_pending() && lr.is_active()),
            "HW and pending and active"
        );
        if !lr.is_free() {
            let same = self.valid().filter(|other| other.virq() == virq).count();
            assert_eq!(same, 1, "VirtualID {virq} twice");
        }
    }
    fn set_maintenance(&mut self, want: Maintenance) {
        self.maintenance = want;
    }
    fn take_eoi_count(&mut self) -> u32 {
        std::mem::take(&mut self.eoi_count)
    }
    fn deactivate(&mut self, pirq: u16) {
        self.deactivated.push(pirq);
    }
}

/// [`super::Effects`] that have been attended to.
pub(super) struct Done {
    pub kick: VcpuSet,
    pub host: Option<HostWork>,
}

/// A distributor that is on, with all SPIs enabled, and a CPU for each vCPU.
pub(super) struct Machine {
    pub vgic: Vgic,
    pub cpus: Vec<Gich>,
}

impl Machine {
    pub fn new(nr_vcpus: u8) -> Self {
        let vgic = Vgic::new(nr_vcpus, 64).expect("a distributor");
        let cpus = (0..nr_vcpus).map(|_| Gich::new(4)).collect();
        let mut machine = Self { vgic, cpus };
        machine.write(0, CTLR, 1);
        machine.write(0, ISENABLER + 4, u32::MAX);
        machine.write(0, ISENABLER + 8, u32::MAX);
        for n in 0..u32::from(nr_vcpus) {
            machine.write(n, ISENABLER, u32::MAX);
            machine.refill(n);
        }
        machine
    }

    /// Returns a word write whose kicks are attended to at once.
    pub fn write(&mut self, vcpu: u32, offset: u32, value: u32) -> Done {
        self.write_wide(vcpu, offset, Width::Word, value)
    }

    pub fn write_byte(&mut self, vcpu: u32, offset: u32, value: u32) -> Done {
        self.write_wide(vcpu, offset, Width::Byte, value)
    }

    fn write_wide(&mut self, vcpu: u32, offset: u32, width: Width, value: u32) -> Done {
        let effects = self
            .vgic
            .write(cpu(vcpu), offset, width, value)
            .expect("an allowed write");
        self.attend(effects.kick);
        Done {
            kick: effects.kick,
            host: effects.host(),
        }
    }

    pub fn read(&mut self, vcpu: u32, offset: u32) -> u32 {
        let kick = self
            .vgic
            .freshen(cpu(vcpu), offset, &mut self.cpus[vcpu as usize]);
        self.attend(kick);
        self.vgic
            .read(cpu(vcpu), offset, Width::Word)
            .expect("an allowed read")
    }

    /// Refills kicked vCPUs that are loaded.
    pub fn attend(&mut self, mut kick: VcpuSet) {
        while let Some(vcpu) = kick.iter().next() {
            kick.0 &= kick.0 - 1;
            if self.vgic.vcpu(vcpu).resident {
                kick |= self.vgic.refill(vcpu, &mut self.cpus[vcpu.index()]);
            }
        }
    }

    pub fn inject(&mut self, vcpu: u32, n: u32) {
        let kick = self.vgic.inject(cpu(vcpu), irq(n));
        self.attend(kick);
    }

    pub fn inject_hw(&mut self, vcpu: u32, n: u32) {
        let kick = self
            .vgic
            .inject_hw(cpu(vcpu), irq(n))
            .expect("a routed interrupt");
        self.attend(kick);
    }

    pub fn refill(&mut self, n: u32) {
        let kick = self.vgic.refill(cpu(n), &mut self.cpus[n as usize]);
        self.attend(kick);
    }

    pub fn unload(&mut self, n: u32) -> u32 {
        let unloaded = self.vgic.unload(cpu(n), &mut self.cpus[n as usize]);
        self.attend(unloaded.kick);
        let left = &self.cpus[n as usize];
        assert!(
            left.valid().count() == 0 && !left.maintenance_asserted(),
            "list registers left behind"
        );
        unloaded.active_ppis
    }

    /// Handles a maintenance interrupt as the hypervisor does.
    pub fn maintain(&mut self, n: u32) {
        if self.cpus[n as usize].maintenance_asserted() {
            let kick = self.vgic.fold(cpu(n), &mut self.cpus[n as usize]);
            self.refill(n);
            self.attend(kick);
            assert!(
                !self.cpus[n as usize].maintenance_asserted(),
                "maintenance interrupt storm"
            );
        }
    }

    pub fn ack(&mut self, n: u32) -> Option<u16> {
        let taken = self.cpus[n as usize].ack();
        self.maintain(n);
        taken.map(|(virq, _)| virq)
    }

    pub fn eoi(&mut self, n: u32) -> Option<u16> {
        let ended = self.cpus[n as usize].eoi();
        self.maintain(n);
        ended.map(|(virq, _)| virq)
    }

    /// Takes and ends one interrupt after the other until there is none.
    pub fn take_all(&mut self, n: u32) -> Vec<u16> {
        let mut taken = Vec::new();
        while let Some(virq) = self.ack(n) {
            taken.push(virq);
            self.eoi(n);
        }
        taken
    }
}
