//! The scheduler: which vCPU runs on which physical CPU, and for how long.
//!
//! Pure state: the caller holds one lock around the [`Scheduler`], reports events, and acts on the returned values (a
//! CPU to kick, a deadline to arm, registers to save). The scheduler does not access vCPUs; a *unit* is a vCPU's entry
//! here.
//!
//! Policy: every CPU has a queue ordered by virtual time (`fair`), and runs the unit that has had the least of its
//! share. A woken unit goes to an idle CPU, its last one first, or else to the CPU whose units have had the most
//! (`affinity`). A CPU with waiting units pushes them to idle CPUs and to CPUs whose units are well ahead, and an idle
//! CPU steals from the others. So the queues act like one, without a tick on CPUs that have nothing to decide. In a pool
//! whose scheduler is null each unit has a CPU instead, and stays there (`dedicated`).
//!
//! Invariants:
//! - a unit is on one CPU or in one queue, never two (`unit::State`);
//! - the registers of a unit stay on the CPU that ran it until that CPU calls [`Scheduler::release`], when
//!   `Choice::save` requires it; only then may another CPU run the unit;
//! - only adding a unit or a group allocates.
//!
//! Trap loop: call `block`/`yield_now`/kick/timer, then `pick`. If `save` is set, store that unit's registers and
//! `release` it. Load `unit` if it is not loaded; arm the hypervisor timer at `until`; send the kicks.

mod affinity;
mod control;
mod dedicated;
mod fair;
mod group;
mod id;
mod machine;
mod unit;

use alloc::vec::Vec;

use armv7::cpu::{CpuId, CpuSet, MAX_CPUS};

use crate::pqueue::PriorityQueue;
use crate::time::Ticks;

pub use control::UnitInfo;
pub use fair::{DEFAULT_RATELIMIT_US, DEFAULT_WEIGHT};
pub use id::{GroupId, MAX_POOLS, PoolId, UnitId};
pub use machine::{Group, Ready, init, lock, ready};
pub use unit::State;

use fair::{Contender, Rules, Verdict, Virtual, Waking, Weight};
use group::Groups;
use unit::{Unit, Units};

/// The parameters of a new unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnitParams {
    /// The group whose weight, cap and CPU pool apply.
    pub group: GroupId,
    /// CPUs it may run on. If the pool contains none of them, all CPUs of the pool.
    pub hard: CpuSet,
    /// CPUs it should run on.
    pub soft: CpuSet,
}

/// Reason a request was refused; the scheduler is unchanged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SchedError {
    /// Out of heap memory.
    NoMemory,
    /// All ids are in use.
    NoId,
    /// The unit does not exist.
    NoUnit,
    /// The group does not exist.
    NoGroup,
    /// The weight is zero.
    ZeroWeight,
    /// The hard or soft affinity is empty.
    EmptyAffinity,
    /// The unit is on a CPU, or its registers are; or the group has units.
    Busy,
}

/// The next step of a CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Choice {
    /// The unit to run; `None` to idle.
    pub unit: Option<UnitId>,
    /// Time of the next pick if no event comes before; `None` if no timer is needed.
    pub until: Option<Ticks>,
    /// The unit whose registers are on this CPU and must be saved now, before [`Scheduler::release`]. If `None`, the
    /// loaded registers stay: those of `unit`, or on an idle CPU those of the unit that ran last and will probably run
    /// next.
    pub save: Option<UnitId>,
    /// Other CPUs that must pick.
    pub kick: CpuSet,
}

struct Cpu {
    queue: PriorityQueue<Virtual>,
    /// Units of capped groups that wait here for the next period.
    parked: Vec<UnitId>,
    current: Option<UnitId>,
    /// The unit whose registers are in the CPU; kept when the CPU goes idle.
    loaded: Option<UnitId>,
    /// Time until which `current` has been charged.
    charged: Ticks,
    turn_began: Ticks,
    /// Ticks that units ran here, up to `charged`.
    busy: u64,
    /// The last pick set a timer.
    ticking: bool,
    yielded: bool,
    /// Rate limit of the CPU's pool, in ticks.
    ratelimit: u64,
    /// Lowest virtual time that competes here; never decreases.
    clock: Virtual,
    /// Added to a virtual time of this CPU, makes it comparable with those of other CPUs.
    offset: u64,
}

impl Cpu {
    const fn new() -> Self {
        Self {
            queue: PriorityQueue::new(),
            parked: Vec::new(),
            current: None,
            loaded: None,
            charged: Ticks::ZERO,
            turn_began: Ticks::ZERO,
            busy: 0,
            ticking: false,
            yielded: false,
            ratelimit: 0,
            clock: Virtual(0),
            offset: 0,
        }
    }

    /// Returns the current unit as a contender against one that waits.
    #[inline(always)]
    fn contender(&self, unit: &Unit, virtual_time: Virtual, now: Ticks) -> Contender {
        Contender {
            virtual_time,
            ran: now.since(self.turn_began).0,
            ratelimit: self.ratelimit,
            slice: unit.weight.slice,
        }
    }
}

/// The run queues of the machine.
pub struct Scheduler {
    units: Units,
    groups: Groups,
    cpus: [Cpu; MAX_CPUS],
    pools: [CpuSet; MAX_POOLS],
    /// Pools in which each unit has a CPU of its own (`dedicated`).
    dedicated: [bool; MAX_POOLS],
    /// In microseconds.
    ratelimits: [u32; MAX_POOLS],
    /// All CPUs of all pools.
    online: CpuSet,
    /// CPUs that run nothing and have nothing queued.
    idle: CpuSet,
    /// CPUs with a non-empty queue.
    waiting: CpuSet,
    rules: Rules,
}

impl Scheduler {
    /// Returns a scheduler without units, for a system counter of `ticks_per_second`. All CPUs are in the first pool,
    /// and count as idle until their first pick.
    pub const fn new(online: CpuSet, ticks_per_second: u32) -> Self {
        let mut pools = [CpuSet::EMPTY; MAX_POOLS];
        pools[PoolId::FIRST.index()] = online;
        let rules = Rules::new(ticks_per_second);
        let mut cpus = [const { Cpu::new() }; MAX_CPUS];
        let mut n = 0;
        while n < MAX_CPUS {
            cpus[n].ratelimit = rules.ratelimit(DEFAULT_RATELIMIT_US);
            n += 1;
        }
        Self {
            units: Units::new(),
            groups: Groups::new(),
            pools,
            dedicated: [false; MAX_POOLS],
            ratelimits: [DEFAULT_RATELIMIT_US; MAX_POOLS],
            cpus,
            online,
            idle: online,
            waiting: CpuSet::EMPTY,
            rules,
        }
    }

    /// Adds a blocked unit. Allocates, as only this and [`Scheduler::add_group`] do.
    pub fn add(&mut self, params: UnitParams) -> Result<UnitId, SchedError> {
        check(params.hard, params.soft)?;
        let group = self.groups.get(params.group).ok_or(SchedError::NoGroup)?;
        let (weight, capped) = (group.weight, group.budget.is_some());
        let (id, ids) = self.units.vacancy()?;
        for cpu in &mut self.cpus {
            cpu.queue
                .reserve_ids(ids)
                .map_err(|_| SchedError::NoMemory)?;
            let spare = usize::from(ids).saturating_sub(cpu.parked.len());
            cpu.parked
                .try_reserve(spare)
                .map_err(|_| SchedError::NoMemory)?;
        }
        let mut unit = Unit {
            virtual_time: Virtual(0),
            state: State::Blocked,
            waking: Waking::No,
            cpu: CpuId::BOOT,
            loaded: false,
            unload: false,
            allowed: CpuSet::EMPTY,
            preferred: CpuSet::EMPTY,
            weight: Weight::new(weight, &self.rules),
            group: params.group,
            capped,
            runtime: 0,
            hard: params.hard,
            soft: params.soft,
        };
        self.assign(&mut unit, &mut self.residents(params.group, id));
        let population = |cpu: &CpuId| {
            self.units
                .iter()
                .filter(|(_, other)| other.cpu == *cpu)
                .count()
        };
        unit.cpu = unit
            .preferred
            .iter()
            .min_by_key(population)
            .unwrap_or(CpuId::BOOT);
        unit.virtual_time = self.cpus[unit.cpu.index()].clock;
        self.units.put(id, unit);
        if let Some(group) = self.groups.get_mut(params.group) {
            group.units += 1;
        }
        Ok(id)
    }

    /// Removes a unit that is on no CPU and whose registers are saved. If it fails with `Busy`, [`Scheduler::block`]
    /// the unit, kick the CPU that [`Scheduler::unload`] returns, and retry.
    pub fn remove(&mut self, id: UnitId) -> Result<(), SchedError> {
        let unit = self.units.get(id).ok_or(SchedError::NoUnit)?;
        if unit.loaded || matches!(unit.state, State::Running | State::Leaving) {
            return Err(SchedError::Busy);
        }
        if let Some(group) = self.groups.get_mut(unit.group) {
            group.units = group.units.saturating_sub(1);
        }
        self.withdraw(id);
        self.units.take(id);
        Ok(())
    }

    /// Makes a unit runnable. Returns the CPU that must pick, which may be the caller's own.
    pub fn wake(&mut self, id: UnitId, now: Ticks) -> Option<CpuId> {
        let unit = self.units.get_mut(id)?;
        match unit.state {
            State::Blocked => {}
            // Its CPU has not picked since the unit blocked, and will find it runnable.
            State::Leaving => {
                unit.state = State::Running;
                return None;
            }
            State::Running | State::Queued | State::Parked | State::Stranded => return None,
        }
        let home = unit.cpu;
        if unit.capped {
            let group = unit.group;
            if !self.refill(group, now) {
                return self.park(id);
            }
            return self.place_woken(id, now);
        }
        if self.idle.contains(home) && unit.preferred.contains(home) {
            self.enqueue_woken(id, home);
            return Some(home);
        }
        self.place_woken(id, now)
    }

    /// Returns the time until which `cpu`, which a wake-up returned, may go on with its current unit while another
    /// waits: a timer then suffices. `None` if it must pick now.
    ///
    /// The verdict is the same as that of a pick. Does not charge the current unit; the next pick does.
    pub fn goes_on(&mut self, cpu: CpuId, now: Ticks) -> Option<Ticks> {
        let here = &self.cpus[cpu.index()];
        if here.ticking || here.yielded || !here.parked.is_empty() {
            return None;
        }
        let unit = self.units.get(here.current?)?;
        if unit.state != State::Running || unit.capped || !unit.allowed.contains(cpu) {
            return None;
        }
        let (first, waiting) = here.queue.first()?;
        let contender = here.contender(unit, unit.virtual_now(here.charged, now), now);
        let waking = self.units.get(UnitId(first))?.waking_against(unit);
        let span = match self.rules.contest(&contender, waiting, waking) {
            Verdict::GoOn { for_ticks } => for_ticks,
            Verdict::NewTurn => contender.slice.checked_sub(contender.ran)?,
            Verdict::GiveWay => 0,
        };
        if span == 0 {
            return None;
        }
        self.cpus[cpu.index()].ticking = true;
        Some(now.plus(Ticks(span)))
    }

    /// Makes a unit not runnable: it waits, is paused or goes offline. If the unit is on a CPU, returns that CPU, which
    /// must pick to stop it. The caller's own CPU picks anyway.
    pub fn block(&mut self, id: UnitId, _now: Ticks) -> Option<CpuId> {
        let unit = self.units.get_mut(id)?;
        match unit.state {
            State::Running => {
                unit.state = State::Leaving;
                Some(unit.cpu)
            }
            State::Blocked | State::Leaving => None,
            State::Queued | State::Parked | State::Stranded => {
                self.withdraw(id);
                None
            }
        }
    }

    /// Lets the other units on its CPU run before the running unit. Returns whether there are any, so that the CPU must
    /// pick.
    pub fn yield_now(&mut self, id: UnitId, _now: Ticks) -> bool {
        let Some(unit) = self.units.get(id) else {
            return false;
        };
        let cpu = &mut self.cpus[unit.cpu.index()];
        if unit.state != State::Running || cpu.queue.is_empty() {
            return false;
        }
        cpu.yielded = true;
        true
    }

    /// Charges the unit that ran on `cpu` until now, and decides what runs next.
    pub fn pick(&mut self, cpu: CpuId, now: Ticks) -> Choice {
        let mut kick = CpuSet::EMPTY;
        if !self.cpus[cpu.index()].parked.is_empty() {
            self.unpark(cpu, now, &mut kick);
        }
        let running = self.stop_current(cpu, now);
        let mut next = running;
        let mut until = None;
        if self.waiting.contains(cpu) {
            (next, until) = self.choose(cpu, running, now);
        } else if running.is_none() && !self.waiting.is_empty() {
            next = self.steal(cpu, now);
        }
        let save = self.start(cpu, next, now);
        if self.waiting.contains(cpu) && self.online.len() > 1 {
            kick = self.push(cpu, now).or(kick);
        }
        if !self.waiting.contains(cpu) {
            // The only runnable unit here: nothing to decide until the next event.
            until = None;
        }
        if let Some(unit) = next.and_then(|id| self.units.get(id))
            && unit.capped
            && let Some(ends) = self.budget_ends(unit.group, now)
        {
            until = earlier(until, ends);
        }
        let here = &mut self.cpus[cpu.index()];
        here.ticking = until.is_some();
        if !here.parked.is_empty()
            && let Some(refill) = self.next_refill(cpu)
        {
            until = earlier(until, refill);
        }
        Choice {
            unit: next,
            until,
            save,
            kick: kick.without(cpu),
        }
    }

    /// Records that the registers of a unit have been saved, as `Choice::save` required. From now on other CPUs may run
    /// the unit; returns one that should pick for that.
    pub fn release(&mut self, id: UnitId, now: Ticks) -> Option<CpuId> {
        let unit = self.units.get_mut(id)?;
        unit.loaded = false;
        unit.unload = false;
        let from = unit.cpu;
        match unit.state {
            State::Stranded => {
                unit.state = State::Blocked;
                self.place_woken(id, now)
            }
            State::Queued if self.online.len() > 1 => self.push(from, now).without(from).first(),
            State::Blocked | State::Parked if !unit.allowed.contains(from) => {
                self.obey_affinity(id, now)
            }
            _ => None,
        }
    }

    /// Requests that the registers of a unit be saved even if the unit may run next on the same CPU. Returns the CPU
    /// that must pick; `None` if the registers are saved already. Meant for blocked units.
    pub fn unload(&mut self, id: UnitId) -> Option<CpuId> {
        let unit = self.units.get_mut(id)?;
        if !unit.loaded {
            return None;
        }
        unit.unload = true;
        Some(unit.cpu)
    }

    /// Charges the current unit of `cpu` and removes it. Returns the unit if it may go on running here.
    fn stop_current(&mut self, cpu: CpuId, now: Ticks) -> Option<UnitId> {
        let here = &mut self.cpus[cpu.index()];
        let id = here.current.take()?;
        let span = now.since(here.charged).0;
        here.charged = now;
        // These sums wrap with the counter, after centuries.
        here.busy = here.busy.wrapping_add(span);
        let unit = self.units.get_mut(id)?;
        unit.runtime = unit.runtime.wrapping_add(span);
        unit.virtual_time = unit.virtual_time.plus(unit.weight.charge(span));
        let lowest = match here.queue.first() {
            Some((_, first)) if first.lead(unit.virtual_time) < 0 => first,
            _ => unit.virtual_time,
        };
        here.clock = here.clock.max(lowest);
        let funded = !unit.capped || self.groups.charge(unit.group, span, now, &self.rules);
        if unit.state != State::Running {
            unit.state = State::Blocked;
            return None;
        }
        if !unit.allowed.contains(cpu) {
            unit.state = State::Stranded;
            return None;
        }
        if !funded {
            unit.state = State::Parked;
            here.parked.push(id);
            return None;
        }
        Some(id)
    }

    /// Chooses between the unit that was running and the first in the queue. Returns the time of the next pick if one
    /// waits.
    fn choose(
        &mut self,
        cpu: CpuId,
        running: Option<UnitId>,
        now: Ticks,
    ) -> (Option<UnitId>, Option<Ticks>) {
        let here = &mut self.cpus[cpu.index()];
        let Some((first, waiting)) = here.queue.first() else {
            return (running, None);
        };
        let first = UnitId(first);
        let next = self.units.get(first);
        let slice = next.map_or(0, |next| next.weight.slice);
        if !here.yielded
            && let Some(id) = running
            && let Some(unit) = self.units.get(id)
        {
            let contender = here.contender(unit, unit.virtual_time, now);
            let waking = next.map_or(Waking::No, |next| next.waking_against(unit));
            match self.rules.contest(&contender, waiting, waking) {
                Verdict::GoOn { for_ticks } => return (running, Some(now.plus(Ticks(for_ticks)))),
                Verdict::NewTurn => {
                    if contender.ran >= contender.slice {
                        here.turn_began = now;
                    }
                    let turn_ends = here.turn_began.plus(Ticks(contender.slice));
                    return (running, Some(turn_ends));
                }
                Verdict::GiveWay => {}
            }
        }
        here.queue.pop();
        if here.queue.is_empty() {
            self.waiting.remove(cpu);
        }
        if let Some(id) = running {
            self.enqueue(id, cpu);
        }
        (Some(first), Some(now.plus(Ticks(slice))))
    }

    /// Makes `next` current on `cpu`. Returns the unit whose registers must be saved.
    fn start(&mut self, cpu: CpuId, next: Option<UnitId>, now: Ticks) -> Option<UnitId> {
        let here = &mut self.cpus[cpu.index()];
        here.charged = now;
        here.yielded = false;
        let loaded = here.loaded;
        let Some(id) = next else {
            if self.online.contains(cpu) {
                self.idle.insert(cpu);
            }
            let stranded = |unit: &Unit| unit.unload || !unit.allowed.contains(cpu);
            let save = loaded.filter(|&id| self.units.get(id).is_some_and(stranded));
            if save.is_some() {
                here.loaded = None;
            }
            return save;
        };
        self.idle.remove(cpu);
        here.current = Some(id);
        here.loaded = Some(id);
        if let Some(unit) = self.units.get_mut(id) {
            if unit.state != State::Running {
                here.turn_began = now;
            }
            unit.state = State::Running;
            unit.loaded = true;
            unit.waking = Waking::No;
        }
        loaded.filter(|&old| old != id)
    }

    /// Removes a unit that is on no CPU from the queue or list it waits in, and makes it blocked.
    fn withdraw(&mut self, id: UnitId) {
        let Some(unit) = self.units.get_mut(id) else {
            return;
        };
        let (state, cpu) = (unit.state, unit.cpu);
        unit.state = State::Blocked;
        match state {
            State::Queued => {
                self.dequeue(id, cpu);
            }
            State::Parked => self.cpus[cpu.index()].parked.retain(|&other| other != id),
            _ => {}
        }
    }

    #[inline(always)]
    fn enqueue(&mut self, id: UnitId, cpu: CpuId) {
        if let Some(unit) = self.units.get_mut(id) {
            unit.state = State::Queued;
            unit.cpu = cpu;
            self.cpus[cpu.index()].queue.insert(id.0, unit.virtual_time);
            self.waiting.insert(cpu);
            self.idle.remove(cpu);
        }
    }

    #[inline(always)]
    fn dequeue(&mut self, id: UnitId, cpu: CpuId) {
        let queue = &mut self.cpus[cpu.index()].queue;
        queue.remove(id.0);
        if queue.is_empty() {
            self.waiting.remove(cpu);
        }
    }
}

fn check(hard: CpuSet, soft: CpuSet) -> Result<(), SchedError> {
    if hard.is_empty() || soft.is_empty() {
        return Err(SchedError::EmptyAffinity);
    }
    Ok(())
}

fn earlier(until: Option<Ticks>, other: Ticks) -> Option<Ticks> {
    Some(until.map_or(other, |until| until.min(other)))
}

#[cfg(test)]
mod tests;
