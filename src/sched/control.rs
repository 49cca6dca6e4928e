//! Parameters and state of units, for domain control and debug keys.

use armv7::cpu::{CpuId, CpuSet};

use crate::time::Ticks;

use super::unit::State;
use super::{GroupId, PoolId, Scheduler, UnitId};

/// A unit, for debug output.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnitInfo {
    /// Its id.
    pub id: UnitId,
    /// Its state.
    pub state: State,
    /// CPU it runs on, waits for or last ran on.
    pub cpu: CpuId,
    /// Its weight.
    pub weight: u16,
    /// Its group's cap, in percent of one CPU (0: no cap).
    pub cap: u16,
    /// CPU time used.
    pub runtime: Ticks,
}

impl Scheduler {
    /// Sets a pool's rate limit (`sched_ratelimit_us`): the time a unit runs before one of equal standing may pre-empt
    /// it. 0 turns the limit off.
    pub fn set_ratelimit(&mut self, pool: PoolId, microseconds: u32) {
        self.ratelimits[pool.index()] = microseconds;
        for cpu in self.pool(pool) {
            self.cpus[cpu.index()].ratelimit = self.rules.ratelimit(microseconds);
        }
    }

    /// Returns the rate limit of a pool, in microseconds.
    pub fn ratelimit(&self, pool: PoolId) -> u32 {
        self.ratelimits[pool.index()]
    }

    /// Returns the group a unit is in.
    pub fn group_of(&self, id: UnitId) -> Option<GroupId> {
        self.units.get(id).map(|unit| unit.group)
    }

    /// Returns a unit's hard and soft affinity, as set.
    pub fn affinity(&self, id: UnitId) -> Option<(CpuSet, CpuSet)> {
        self.units.get(id).map(|unit| (unit.hard, unit.soft))
    }

    /// Returns the CPU time a unit has used, up to `now`.
    pub fn runtime(&self, id: UnitId, now: Ticks) -> Ticks {
        let Some(unit) = self.units.get(id) else {
            return Ticks::ZERO;
        };
        let past = Ticks(unit.runtime);
        match unit.state {
            State::Running | State::Leaving => {
                past.plus(now.since(self.cpus[unit.cpu.index()].charged))
            }
            _ => past,
        }
    }

    /// Returns the CPU a unit runs on, waits for or last ran on.
    pub fn cpu_of(&self, id: UnitId) -> Option<CpuId> {
        self.units.get(id).map(|unit| unit.cpu)
    }

    /// Returns the CPU that holds a unit's registers, or `None` if they are saved.
    pub fn loaded_on(&self, id: UnitId) -> Option<CpuId> {
        self.units
            .get(id)
            .filter(|unit| unit.loaded)
            .map(|unit| unit.cpu)
    }

    /// Returns a unit's state.
    pub fn state(&self, id: UnitId) -> Option<State> {
        self.units.get(id).map(|unit| unit.state)
    }

    /// Returns whether a unit is current on a CPU, including one that the next pick removes.
    pub fn is_on_cpu(&self, id: UnitId) -> bool {
        self.state(id).is_some_and(State::is_on_cpu)
    }

    /// Returns the current unit of a CPU.
    pub fn current(&self, cpu: CpuId) -> Option<UnitId> {
        self.cpus[cpu.index()].current
    }

    /// Returns the ticks for which a CPU had nothing to run, up to `now`.
    pub fn idle_time(&self, cpu: CpuId, now: Ticks) -> Ticks {
        let here = &self.cpus[cpu.index()];
        let turn = if here.current.is_some() {
            now.since(here.charged).0
        } else {
            0
        };
        Ticks(now.0.saturating_sub(here.busy.saturating_add(turn)))
    }

    /// Returns the number of units in the queue of `cpu`.
    pub fn queue_len(&self, cpu: CpuId) -> usize {
        self.cpus[cpu.index()].queue.len()
    }

    /// Returns the CPUs that have nothing to run.
    pub fn idle_cpus(&self) -> CpuSet {
        self.idle
    }

    /// Returns the CPUs that are in a pool.
    pub fn online(&self) -> CpuSet {
        self.online
    }

    /// Returns all units, for debug output.
    pub fn units(&self, now: Ticks) -> impl Iterator<Item = UnitInfo> {
        self.units.iter().map(move |(id, unit)| UnitInfo {
            id,
            state: unit.state,
            cpu: unit.cpu,
            weight: unit.weight.weight,
            cap: self.share(unit.group).map_or(0, |(_, cap)| cap),
            runtime: self.runtime(id, now),
        })
    }
}
