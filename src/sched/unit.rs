//! A schedulable vCPU as the scheduler sees it, and the table of units.

use alloc::vec::Vec;

use armv7::cpu::{CpuId, CpuSet};

use super::SchedError;
use super::fair::{Virtual, Waking, Weight};
use super::id::{GroupId, UnitId};
use crate::time::Ticks;

/// Place of a unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Not runnable.
    Blocked,
    /// Runnable and current on its CPU.
    Running,
    /// Current on its CPU but no longer runnable; the next pick there removes it.
    Leaving,
    /// In its CPU's run queue.
    Queued,
    /// Runnable, but its group's cap is used up; in its CPU's parked list.
    Parked,
    /// Runnable, but its registers are still on a CPU it may not run on; waits for their release.
    Stranded,
}

impl State {
    /// Returns whether the unit is current on its CPU, including one that the next pick removes.
    pub const fn is_on_cpu(self) -> bool {
        matches!(self, Self::Running | Self::Leaving)
    }

    /// Returns whether the unit waits for a CPU or for its group's next period.
    pub const fn is_waiting(self) -> bool {
        matches!(self, Self::Queued | Self::Parked | Self::Stranded)
    }
}

pub(super) struct Unit {
    pub virtual_time: Virtual,
    pub state: State,
    pub waking: Waking,
    /// CPU it runs on, waits for or last ran on. Virtual time is relative to this CPU's clock.
    pub cpu: CpuId,
    /// Its registers are on `cpu`; it can run on no other CPU.
    pub loaded: bool,
    /// Its registers must be saved at the next pick (see `Scheduler::unload`).
    pub unload: bool,
    /// Hard affinity among the CPUs of its pool; all CPUs of the pool if that set is empty.
    pub allowed: CpuSet,
    /// Soft affinity among `allowed`; all of `allowed` if that set is empty.
    pub preferred: CpuSet,
    pub weight: Weight,
    pub group: GroupId,
    /// Its group has a cap.
    pub capped: bool,
    /// Ticks run, up to the last charge.
    pub runtime: u64,
    pub hard: CpuSet,
    pub soft: CpuSet,
}

impl Unit {
    /// Returns the virtual time at `now` of a unit that runs and has been charged until `charged`.
    pub fn virtual_now(&self, charged: Ticks, now: Ticks) -> Virtual {
        self.virtual_time
            .plus(self.weight.charge(now.since(charged).0))
    }

    /// Returns how its wake-up counts against `running`.
    pub fn waking_against(&self, running: &Self) -> Waking {
        match self.waking {
            Waking::WithCredit if self.group == running.group => Waking::AtOnce,
            waking => waking,
        }
    }

    /// Gives it one CPU.
    pub fn give(&mut self, cpu: CpuId) {
        self.allowed = CpuSet::of(cpu);
        self.preferred = self.allowed;
    }

    /// Recomputes [`Unit::allowed`] and [`Unit::preferred`] for a pool with the CPUs `pool`.
    pub fn update_affinity(&mut self, pool: CpuSet) {
        let or_all = |set: CpuSet, all| if set.is_empty() { all } else { set };
        self.allowed = or_all(self.hard.and(pool), pool);
        self.preferred = or_all(self.allowed.and(self.soft), self.allowed);
    }
}

/// All units by id.
pub(super) struct Units(Vec<Option<Unit>>);

impl Units {
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    pub fn get(&self, id: UnitId) -> Option<&Unit> {
        self.0.get(usize::from(id.0))?.as_ref()
    }

    pub fn get_mut(&mut self, id: UnitId) -> Option<&mut Unit> {
        self.0.get_mut(usize::from(id.0))?.as_mut()
    }

    pub fn iter(&self) -> impl Iterator<Item = (UnitId, &Unit)> {
        (0u16..)
            .zip(&self.0)
            .filter_map(|(id, unit)| Some((UnitId(id), unit.as_ref()?)))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Unit> {
        self.0.iter_mut().flatten()
    }

    /// Returns the lowest id in use at or above `from`.
    pub fn id_from(&self, from: u16) -> Option<UnitId> {
        let above = self.0.get(usize::from(from)..)?;
        let skipped = above.iter().position(Option::is_some)?;
        u16::try_from(skipped).ok()?.checked_add(from).map(UnitId)
    }

    /// Reserves room for a free id. Returns the id and one more than it, the number of ids a table needs.
    pub fn vacancy(&mut self) -> Result<(UnitId, u16), SchedError> {
        let index = self
            .0
            .iter()
            .position(Option::is_none)
            .unwrap_or(self.0.len());
        let id = u16::try_from(index)
            .ok()
            .filter(|&id| id < MAX_UNITS)
            .ok_or(SchedError::NoId)?;
        if index == self.0.len() {
            self.0.try_reserve(1).map_err(|_| SchedError::NoMemory)?;
        }
        Ok((UnitId(id), id + 1))
    }

    /// Stores `unit` at an id that [`Units::vacancy`] returned.
    pub fn put(&mut self, id: UnitId, unit: Unit) {
        match self.0.get_mut(usize::from(id.0)) {
            Some(slot) => *slot = Some(unit),
            None => self.0.push(Some(unit)),
        }
    }

    pub fn take(&mut self, id: UnitId) -> Option<Unit> {
        self.0.get_mut(usize::from(id.0))?.take()
    }
}

/// One past the highest id, as positions in a run queue are 16 bits.
const MAX_UNITS: u16 = 0x8000;
