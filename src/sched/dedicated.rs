//! Assigns units to CPUs: to all that their affinity allows, or to one of their own in pools like those of Xen's null
//! scheduler.
//!
//! In such a pool a new unit gets a CPU that no other unit has, and keeps it until the pool's CPUs or its affinity change. A
//! CPU with one unit has nothing to decide, so no timer interrupts it. Where there are more units than CPUs, some share one
//! by their weights; Xen's wait until a CPU is free.

use armv7::cpu::{CpuId, CpuSet, MAX_CPUS};

use super::unit::Unit;
use super::{GroupId, PoolId, Scheduler, UnitId};

/// The number of units that have each CPU.
pub(super) type Residents = [u16; MAX_CPUS];

impl Scheduler {
    /// Sets whether each unit of a pool has a CPU of its own. The pool has no units yet.
    pub fn set_dedicated(&mut self, pool: PoolId, dedicated: bool) {
        self.dedicated[pool.index()] = dedicated;
    }

    /// Returns whether each unit of a pool has a CPU of its own.
    pub fn is_dedicated(&self, pool: PoolId) -> bool {
        self.dedicated[pool.index()]
    }

    /// Counts the units of a group's pool on each CPU, without one of them; none where they are not dedicated.
    pub(super) fn residents(&self, group: GroupId, without: UnitId) -> Residents {
        let mut residents = [0; MAX_CPUS];
        let pool = self.pool_of(group).filter(|pool| self.is_dedicated(*pool));
        if pool.is_some() {
            for (id, unit) in self.units.iter() {
                if id != without && self.pool_of(unit.group) == pool {
                    count(&mut residents, unit.allowed);
                }
            }
        }
        residents
    }

    /// Sets the CPUs on which a unit may and should run. In a dedicated pool that is the one CPU that the fewest units have.
    pub(super) fn assign(&self, unit: &mut Unit, residents: &mut Residents) {
        unit.update_affinity(self.cpus_of(unit.group));
        let pool = self.pool_of(unit.group);
        if !pool.is_some_and(|pool| self.is_dedicated(pool)) {
            return;
        }
        let few = |cpu: &CpuId| (residents[cpu.index()], *cpu != unit.cpu);
        if let Some(cpu) = unit.allowed.iter().min_by_key(few) {
            unit.give(cpu);
            count(residents, unit.allowed);
        }
    }

    /// [`Scheduler::assign`] for a unit in the table.
    pub(super) fn reassign(&mut self, id: UnitId, residents: &mut Residents) {
        if let Some(mut unit) = self.units.take(id) {
            self.assign(&mut unit, residents);
            self.units.put(id, unit);
        }
    }

    /// Assigns the units of a pool whose groups are `these` anew. A unit whose CPU no other has keeps it.
    pub(super) fn reassign_all(&mut self, pool: PoolId, these: impl Fn(GroupId) -> bool) {
        let cpus = self.pool(pool);
        let mut residents = [0; MAX_CPUS];
        for unit in self.units.iter_mut() {
            let theirs = self.groups.get(unit.group).map(|group| group.pool);
            match theirs == Some(pool) {
                // Nowhere, until it is assigned.
                true if these(unit.group) => unit.allowed = CpuSet::EMPTY,
                true => count(&mut residents, unit.allowed),
                false => {}
            }
        }
        for unit in self
            .units
            .iter_mut()
            .filter(|_| self.dedicated[pool.index()])
        {
            let theirs = self.groups.get(unit.group).map(|group| group.pool);
            let may_stay = cpus.contains(unit.cpu) && unit.hard.contains(unit.cpu);
            if theirs == Some(pool)
                && unit.allowed.is_empty()
                && may_stay
                && residents[unit.cpu.index()] == 0
            {
                unit.give(unit.cpu);
                count(&mut residents, unit.allowed);
            }
        }
        let mut next = 0;
        while let Some(id) = self.units.id_from(next) {
            next = id.raw() + 1;
            let unit = self.units.get(id);
            let is_left =
                |unit: &Unit| unit.allowed.is_empty() && self.pool_of(unit.group) == Some(pool);
            if unit.is_some_and(is_left) {
                self.reassign(id, &mut residents);
            }
        }
    }
}

/// Counts a unit that may run on one CPU only.
fn count(residents: &mut Residents, allowed: CpuSet) {
    let only = allowed.first().filter(|cpu| allowed == CpuSet::of(*cpu));
    if let Some(cpu) = only {
        residents[cpu.index()] += 1;
    }
}
