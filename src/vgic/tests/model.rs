//! Random histories of a domain against a model of the interrupts owed to its guest.
//!
//! The model holds, for each interrupt (and sender, for SGIs), whether an edge is owed to the guest, and where it is
//! active. An interrupt that the guest takes must be owed, enabled and sent to the vCPU that takes it. After every
//! step, for each vCPU, every interrupt owed to it is in its list registers, or waits behind better ones with a
//! maintenance interrupt enabled. Only kicked vCPUs are refilled, so the returned kicks are tested as well.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::{HostOp, Maintenance};
use super::{
    CTLR, ICENABLER, ICPENDR, IPRIORITYR, ISENABLER, ISPENDR, ITARGETSR, Machine, SGIR, cpu, irq,
};

/// PPIs and SPIs that take part; 27 and 40 to 43 come from hardware too.
const LINES: [u32; 12] = [27, 29, 31, 32, 33, 34, 35, 36, 40, 41, 42, 43];
const HARDWARE: [u32; 5] = [27, 40, 41, 42, 43];

#[derive(Clone, Copy, Debug)]
enum Op {
    Sgi {
        from: u32,
        filter: u32,
        list: u32,
        id: u32,
    },
    Inject {
        vcpu: u32,
        line: usize,
    },
    Fire {
        vcpu: u32,
        line: usize,
    },
    SetPending {
        vcpu: u32,
        line: usize,
    },
    ClearPending {
        vcpu: u32,
        line: usize,
    },
    Enable {
        vcpu: u32,
        line: usize,
    },
    Disable {
        vcpu: u32,
        line: usize,
    },
    Priority {
        vcpu: u32,
        line: usize,
        priority: u32,
    },
    Target {
        vcpu: u32,
        line: usize,
        mask: u32,
    },
    Control {
        on: bool,
    },
    Ack {
        vcpu: u32,
    },
    Eoi {
        vcpu: u32,
    },
    Load {
        vcpu: u32,
    },
    Unload {
        vcpu: u32,
    },
    Fold {
        vcpu: u32,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let vcpu = || 0u32..4;
    let line = || 0..LINES.len();
    prop_oneof![
        4 => (vcpu(), 0u32..4, 0u32..16, 0u32..4).prop_map(|(from, filter, list, id)| Op::Sgi { from, filter, list, id }),
        8 => (vcpu(), line()).prop_map(|(vcpu, line)| Op::Inject { vcpu, line }),
        6 => (vcpu(), 0..HARDWARE.len()).prop_map(|(vcpu, line)| Op::Fire { vcpu, line }),
        2 => (vcpu(), line()).prop_map(|(vcpu, line)| Op::SetPending { vcpu, line }),
        2 => (vcpu(), line()).prop_map(|(vcpu, line)| Op::ClearPending { vcpu, line }),
        3 => (vcpu(), line()).prop_map(|(vcpu, line)| Op::Enable { vcpu, line }),
        2 => (vcpu(), line()).prop_map(|(vcpu, line)| Op::Disable { vcpu, line }),
        3 => (vcpu(), line(), 0u32..32).prop_map(|(vcpu, line, p)| Op::Priority { vcpu, line, priority: p * 8 }),
        3 => (vcpu(), line(), 0u32..16).prop_map(|(vcpu, line, mask)| Op::Target { vcpu, line, mask }),
        1 => any::<bool>().prop_map(|on| Op::Control { on }),
        12 => vcpu().prop_map(|vcpu| Op::Ack { vcpu }),
        10 => vcpu().prop_map(|vcpu| Op::Eoi { vcpu }),
        4 => vcpu().prop_map(|vcpu| Op::Load { vcpu }),
        2 => vcpu().prop_map(|vcpu| Op::Unload { vcpu }),
        1 => vcpu().prop_map(|vcpu| Op::Fold { vcpu }),
    ]
}

/// An interrupt as the guest identifies it: vCPU for private ones, sender for SGIs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Key {
    vcpu: Option<u32>,
    intid: u32,
    source: u8,
}

fn key(vcpu: u32, intid: u32, source: u8) -> Key {
    Key {
        vcpu: (intid < 32).then_some(vcpu),
        intid,
        source,
    }
}

struct World {
    machine: Machine,
    nr: u32,
    loaded: Vec<bool>,
    forwarding: bool,
    owed: BTreeSet<Key>,
    /// By vCPU (private) and number: where it is active.
    active: BTreeMap<(Option<u32>, u32), u32>,
    disabled: BTreeSet<(Option<u32>, u32)>,
    priority: BTreeMap<(Option<u32>, u32), u32>,
    target: BTreeMap<u32, u32>,
    /// Physical interrupts that are active; PPIs by vCPU.
    physical: BTreeSet<(Option<u32>, u32)>,
}

impl World {
    fn new(nr: u32) -> Self {
        let mut machine = Machine::new(nr as u8);
        for line in HARDWARE {
            machine.vgic.route_hw(irq(line), irq(line)).unwrap();
        }
        Self {
            machine,
            nr,
            loaded: vec![true; nr as usize],
            forwarding: true,
            owed: BTreeSet::new(),
            active: BTreeMap::new(),
            disabled: BTreeSet::new(),
            priority: BTreeMap::new(),
            target: BTreeMap::new(),
            physical: BTreeSet::new(),
        }
    }

    fn slot(vcpu: u32, intid: u32) -> (Option<u32>, u32) {
        ((intid < 32).then_some(vcpu), intid)
    }

    fn priority(&self, vcpu: u32, intid: u32) -> u32 {
        *self.priority.get(&Self::slot(vcpu, intid)).unwrap_or(&0xA0)
    }

    fn target(&self, intid: u32) -> Option<u32> {
        let mask = *self.target.get(&intid).unwrap_or(&1);
        (mask != 0).then(|| mask.trailing_zeros())
    }

    /// Returns what `vcpu` should be offered, or has been.
    fn deliverable(&self, vcpu: u32) -> Vec<Key> {
        let mine = |key: &&Key| match key.vcpu {
            Some(owner) => owner == vcpu,
            None => self.target(key.intid) == Some(vcpu),
        };
        let ready = |key: &&Key| {
            let slot = (key.vcpu, key.intid);
            self.forwarding && !self.disabled.contains(&slot) && !self.active.contains_key(&slot)
        };
        self.owed
            .iter()
            .filter(mine)
            .filter(ready)
            .copied()
            .collect()
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Sgi {
                from,
                filter,
                list,
                id,
            } => {
                let from = from % self.nr;
                self.machine
                    .write(from, SGIR, filter << 24 | list << 16 | id);
                for to in 0..self.nr {
                    let hit = match filter {
                        0 => list >> to & 1 != 0,
                        1 => to != from,
                        2 => to == from,
                        _ => false,
                    };
                    if hit {
                        self.owed.insert(key(to, id, from as u8));
                    }
                }
            }
            Op::Inject { vcpu, line } => {
                let vcpu = vcpu % self.nr;
                self.machine.inject(vcpu, LINES[line]);
                self.owed.insert(key(vcpu, LINES[line], 0));
            }
            Op::Fire { vcpu, line } => {
                let (vcpu, intid) = (vcpu % self.nr, HARDWARE[line]);
                let slot = Self::slot(vcpu, intid);
                let enabled = intid < 32 || !self.disabled.contains(&slot);
                if enabled && self.physical.insert(slot) {
                    self.machine.inject_hw(vcpu, intid);
                    self.owed.insert(key(vcpu, intid, 0));
                }
            }
            Op::SetPending { vcpu, line } => {
                let (vcpu, intid) = (vcpu % self.nr, LINES[line]);
                self.machine
                    .write(vcpu, ISPENDR + intid / 32 * 4, 1 << (intid % 32));
                self.owed.insert(key(vcpu, intid, 0));
            }
            Op::ClearPending { vcpu, line } => {
                let (vcpu, intid) = (vcpu % self.nr, LINES[line]);
                self.machine
                    .write(vcpu, ICPENDR + intid / 32 * 4, 1 << (intid % 32));
                self.owed.remove(&key(vcpu, intid, 0));
            }
            Op::Enable { vcpu, line } => {
                let (vcpu, intid) = (vcpu % self.nr, LINES[line]);
                self.machine
                    .write(vcpu, ISENABLER + intid / 32 * 4, 1 << (intid % 32));
                self.disabled.remove(&Self::slot(vcpu, intid));
            }
            Op::Disable { vcpu, line } => {
                let (vcpu, intid) = (vcpu % self.nr, LINES[line]);
                let done = self
                    .machine
                    .write(vcpu, ICENABLER + intid / 32 * 4, 1 << (intid % 32));
                let fresh = self.disabled.insert(Self::slot(vcpu, intid));
                let host = done.host.map(|work| (work.op, work.mask));
                let expected = fresh && intid >= 32 && HARDWARE.contains(&intid);
                assert_eq!(
                    host,
                    expected.then_some((HostOp::Disable, 1 << (intid % 32)))
                );
            }
            Op::Priority {
                vcpu,
                line,
                priority,
            } => {
                let (vcpu, intid) = (vcpu % self.nr, LINES[line]);
                // The priority of an active interrupt must not change for its end to be found (IHI 0048B 3.3).
                if !self.active.contains_key(&Self::slot(vcpu, intid)) {
                    self.machine
                        .write_byte(vcpu, IPRIORITYR + intid, priority | 7);
                    self.priority.insert(Self::slot(vcpu, intid), priority);
                }
            }
            Op::Target { vcpu, line, mask } => {
                let (vcpu, intid) = (vcpu % self.nr, LINES[line]);
                if intid >= 32 {
                    self.machine.write_byte(vcpu, ITARGETSR + intid, mask);
                    if self.nr > 1 {
                        self.target.insert(intid, mask & ((1 << self.nr) - 1));
                    }
                }
            }
            Op::Control { on } => {
                self.machine.write(0, CTLR, on.into());
                self.forwarding = on;
            }
            Op::Ack { vcpu } => {
                let vcpu = vcpu % self.nr;
                if self.loaded[vcpu as usize] {
                    self.ack(vcpu);
                }
            }
            Op::Eoi { vcpu } => {
                let vcpu = vcpu % self.nr;
                if self.loaded[vcpu as usize] {
                    self.eoi(vcpu);
                }
            }
            Op::Load { vcpu } => {
                let vcpu = vcpu % self.nr;
                self.loaded[vcpu as usize] = true;
                self.machine.refill(vcpu);
            }
            Op::Unload { vcpu } => {
                let vcpu = vcpu % self.nr;
                let ppis = self.machine.unload(vcpu);
                self.loaded[vcpu as usize] = false;
                self.account();
                let timer = self.physical.contains(&(Some(vcpu), 27));
                assert_eq!(
                    ppis,
                    u32::from(timer) << 27,
                    "physical state of the timer of vCPU {vcpu}"
                );
            }
            Op::Fold { vcpu } => {
                let vcpu = vcpu % self.nr;
                let kick = self
                    .machine
                    .vgic
                    .fold(cpu(vcpu), &mut self.machine.cpus[vcpu as usize]);
                self.machine.attend(kick);
                self.machine
                    .refill_if_loaded(vcpu, self.loaded[vcpu as usize]);
            }
        }
        self.account();
        self.check();
    }

    fn ack(&mut self, vcpu: u32) -> bool {
        let Some((virq, source)) = self.machine.cpus[vcpu as usize].ack() else {
            return false;
        };
        let taken = key(vcpu, virq.into(), source);
        assert!(
            self.deliverable(vcpu).contains(&taken),
            "vCPU {vcpu} took {taken:?}"
        );
        self.owed.remove(&taken);
        self.active.insert((taken.vcpu, taken.intid), vcpu);
        self.machine.maintain(vcpu);
        true
    }

    fn eoi(&mut self, vcpu: u32) -> bool {
        let Some((virq, _)) = self.machine.cpus[vcpu as usize].eoi() else {
            return false;
        };
        let by = self.active.remove(&Self::slot(vcpu, virq.into()));
        assert_eq!(by, Some(vcpu));
        self.machine.maintain(vcpu);
        true
    }

    /// Physical deactivations: each of an interrupt that is active.
    fn account(&mut self) {
        for vcpu in 0..self.nr {
            for pirq in std::mem::take(&mut self.machine.cpus[vcpu as usize].deactivated) {
                let slot = Self::slot(vcpu, pirq.into());
                assert!(self.physical.remove(&slot), "{slot:?} deactivated twice");
            }
        }
    }

    fn check(&self) {
        for vcpu in 0..self.nr {
            let due = self.deliverable(vcpu);
            if !self.loaded[vcpu as usize] {
                let wakes = self.machine.vgic.has_deliverable(cpu(vcpu));
                assert_eq!(wakes, !due.is_empty(), "vCPU {vcpu} wakes for {due:?}");
                continue;
            }
            let gich = &self.machine.cpus[vcpu as usize];
            assert!(!gich.maintenance_asserted());
            let offered: Vec<_> = gich.valid().filter(|lr| lr.is_only_pending()).collect();
            for lr in &offered {
                let intid = lr.virq().into();
                let source = if intid < 16 { lr.source() } else { 0 };
                assert!(
                    due.contains(&key(vcpu, intid, source)),
                    "vCPU {vcpu} is offered {lr:?}"
                );
                assert_eq!(u32::from(lr.priority()), self.priority(vcpu, intid));
            }
            let worst = offered.iter().map(|lr| u32::from(lr.priority())).max();
            for key in due {
                if offered.iter().any(|lr| u32::from(lr.virq()) == key.intid) {
                    continue;
                }
                assert!(
                    gich.maintenance.contains(Maintenance::NO_PENDING),
                    "{key:?} was lost"
                );
                assert!(
                    worst.is_some_and(|worst| worst <= self.priority(vcpu, key.intid)),
                    "{key:?} should be offered before {offered:?}"
                );
            }
        }
    }

    /// Lets every interrupt through and the guest handle all: nothing may be left.
    fn drain(&mut self) {
        self.step(Op::Control { on: true });
        for (line, intid) in LINES.into_iter().enumerate() {
            for vcpu in 0..self.nr {
                self.step(Op::Enable { vcpu, line });
            }
            if self.target(intid).is_none() {
                self.step(Op::Target {
                    vcpu: 0,
                    line,
                    mask: 1,
                });
            }
        }
        for vcpu in 0..self.nr {
            self.step(Op::Load { vcpu });
        }
        loop {
            let mut progress = false;
            for vcpu in 0..self.nr {
                while self.ack(vcpu) {
                    progress = true;
                }
                while self.eoi(vcpu) {
                    progress = true;
                }
                self.account();
                self.check();
            }
            if !progress {
                break;
            }
        }
        for vcpu in 0..self.nr {
            self.step(Op::Unload { vcpu });
        }
        assert!(self.owed.is_empty(), "never delivered: {:?}", self.owed);
        assert!(self.active.is_empty());
        assert!(
            self.physical.is_empty(),
            "still physically active: {:?}",
            self.physical
        );
    }
}

impl Machine {
    fn refill_if_loaded(&mut self, vcpu: u32, loaded: bool) {
        if loaded {
            self.refill(vcpu);
        }
    }
}

proptest! {
    #[test]
    fn every_edge_is_delivered_once_where_it_belongs_best_first(
        nr in 1u32..=4,
        ops in prop::collection::vec(op(), 0..300),
    ) {
        let mut world = World::new(nr);
        for op in &ops {
            world.step(*op);
        }
        world.drain();
    }
}
