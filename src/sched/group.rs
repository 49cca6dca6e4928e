//! Groups of units: the weight, cap and CPU pool that the vCPUs of one domain share.
//!
//! All units of a group draw on one budget, so that one busy vCPU of eight may use the whole cap, as in credit2.

use alloc::vec::Vec;

use armv7::cpu::{CpuId, CpuSet};

use crate::time::Ticks;

use super::fair::{Budget, DEFAULT_WEIGHT, Rules, Weight};
use super::id::{GroupId, PoolId, UnitId};
use super::unit::State;
use super::{SchedError, Scheduler};

pub(super) struct Group {
    pub pool: PoolId,
    pub weight: u16,
    pub cap: u16,
    /// Remainder of the cap in this period; `None` without a cap.
    pub budget: Option<Budget>,
    pub units: u16,
}

/// All groups by id.
pub(super) struct Groups(Vec<Option<Group>>);

impl Groups {
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    pub fn get(&self, id: GroupId) -> Option<&Group> {
        self.0.get(usize::from(id.0))?.as_ref()
    }

    pub fn get_mut(&mut self, id: GroupId) -> Option<&mut Group> {
        self.0.get_mut(usize::from(id.0))?.as_mut()
    }

    fn add(&mut self, group: Group) -> Result<GroupId, SchedError> {
        let index = self
            .0
            .iter()
            .position(Option::is_none)
            .unwrap_or(self.0.len());
        let id = u16::try_from(index).map_err(|_| SchedError::NoId)?;
        match self.0.get_mut(index) {
            Some(slot) => *slot = Some(group),
            None => {
                self.0.try_reserve(1).map_err(|_| SchedError::NoMemory)?;
                self.0.push(Some(group));
            }
        }
        Ok(GroupId(id))
    }

    /// Charges `span` to a group's budget. Returns whether any is left at `now`.
    pub fn charge(&mut self, id: GroupId, span: u64, now: Ticks, rules: &Rules) -> bool {
        let budget = self.get_mut(id).and_then(|group| group.budget.as_mut());
        budget.is_none_or(|budget| budget.charge(span, now, rules))
    }

    fn take(&mut self, id: GroupId) {
        if let Some(slot) = self.0.get_mut(usize::from(id.0)) {
            *slot = None;
        }
    }
}

impl Scheduler {
    /// Adds a group without units, with the default weight, no cap and the CPUs of `pool`.
    pub fn add_group(&mut self, pool: PoolId) -> Result<GroupId, SchedError> {
        self.groups.add(Group {
            pool,
            weight: DEFAULT_WEIGHT,
            cap: 0,
            budget: None,
            units: 0,
        })
    }

    /// Removes a group without units.
    pub fn remove_group(&mut self, id: GroupId) -> Result<(), SchedError> {
        match self.groups.get(id) {
            None => Err(SchedError::NoGroup),
            Some(group) if group.units > 0 => Err(SchedError::Busy),
            Some(_) => {
                self.groups.take(id);
                Ok(())
            }
        }
    }

    /// Returns the number of groups.
    pub fn groups(&self) -> usize {
        self.groups.0.iter().flatten().count()
    }

    /// Returns the weight of a group's units, and its cap in percent of one CPU (0: no cap).
    pub fn share(&self, id: GroupId) -> Option<(u16, u16)> {
        self.groups.get(id).map(|group| (group.weight, group.cap))
    }

    /// Changes the weight of a group's units, from their next charge on.
    pub fn set_weight(&mut self, id: GroupId, weight: u16) -> Result<(), SchedError> {
        if weight == 0 {
            return Err(SchedError::ZeroWeight);
        }
        self.groups.get_mut(id).ok_or(SchedError::NoGroup)?.weight = weight;
        let weight = Weight::new(weight, &self.rules);
        for unit in self.units.iter_mut().filter(|unit| unit.group == id) {
            unit.weight = weight;
        }
        Ok(())
    }

    /// Changes a group's cap, in percent of one CPU, from `now` on. Returns the CPUs that must pick for it to take
    /// effect.
    pub fn set_cap(&mut self, id: GroupId, cap: u16, now: Ticks) -> Result<CpuSet, SchedError> {
        let group = self.groups.get_mut(id).ok_or(SchedError::NoGroup)?;
        if group.cap == cap {
            return Ok(CpuSet::EMPTY);
        }
        group.cap = cap;
        group.budget = Budget::new(cap, now, &self.rules);
        let capped = group.budget.is_some();
        let mut kick = CpuSet::EMPTY;
        for unit in self.units.iter_mut().filter(|unit| unit.group == id) {
            unit.capped = capped;
            if matches!(unit.state, State::Running | State::Parked) {
                kick.insert(unit.cpu);
            }
        }
        Ok(kick)
    }

    /// Returns the pool of a group.
    pub fn pool_of(&self, id: GroupId) -> Option<PoolId> {
        self.groups.get(id).map(|group| group.pool)
    }

    /// Returns the CPUs of a pool.
    pub fn pool(&self, pool: PoolId) -> CpuSet {
        self.pools[pool.index()]
    }

    /// Returns the CPUs of a group's pool.
    pub fn cpus_of(&self, id: GroupId) -> CpuSet {
        self.pool_of(id)
            .map_or(CpuSet::EMPTY, |pool| self.pool(pool))
    }

    /// Moves a group to another pool, and resets the affinities of its units to all CPUs. Returns the CPUs that must
    /// pick.
    pub fn move_group(
        &mut self,
        id: GroupId,
        pool: PoolId,
        now: Ticks,
    ) -> Result<CpuSet, SchedError> {
        self.groups.get_mut(id).ok_or(SchedError::NoGroup)?.pool = pool;
        for unit in self.units.iter_mut().filter(|unit| unit.group == id) {
            unit.hard = CpuSet::ALL;
            unit.soft = CpuSet::ALL;
        }
        self.reassign_all(pool, |group| group == id);
        Ok(self.obey_affinities(now))
    }

    /// Changes the CPUs of a pool; a CPU is in at most one pool. Returns the CPUs that must pick. A removed CPU must
    /// still pick and release until it has no unit loaded.
    pub fn set_pool(&mut self, pool: PoolId, cpus: CpuSet, now: Ticks) -> CpuSet {
        self.pools[pool.index()] = cpus;
        self.set_ratelimit(pool, self.ratelimit(pool));
        self.online = self
            .pools
            .iter()
            .fold(CpuSet::EMPTY, |all, cpus| all.or(*cpus));
        self.reassign_all(pool, |_| true);
        for cpu in CpuId::all() {
            let here = &self.cpus[cpu.index()];
            if !self.online.contains(cpu) {
                self.idle.remove(cpu);
            } else if here.current.is_none() && here.queue.is_empty() {
                self.idle.insert(cpu);
            }
        }
        // Idle CPUs, the new ones among them, must pick to find work.
        let idle = self.idle;
        self.obey_affinities(now).or(idle)
    }

    /// Adds to a capped group what is due at `now`. Returns whether it has any budget left.
    pub(super) fn refill(&mut self, id: GroupId, now: Ticks) -> bool {
        let budget = self
            .groups
            .get_mut(id)
            .and_then(|group| group.budget.as_mut());
        budget.is_none_or(|budget| budget.refill(now, &self.rules))
    }

    /// Returns when the budget of a capped group is used up if all of its running units go on.
    pub(super) fn budget_ends(&self, id: GroupId, now: Ticks) -> Option<Ticks> {
        let budget = self.groups.get(id)?.budget.as_ref()?;
        let is_member = |unit: UnitId| self.units.get(unit).is_some_and(|unit| unit.group == id);
        let running = self
            .cpus
            .iter()
            .filter(|cpu| cpu.current.is_some_and(is_member))
            .count();
        Some(budget.ends(now, running as u32, &self.rules))
    }
}
