//! Where units go: placement on wake-up, moving waiting units between CPUs, affinity and online CPUs.
//!
//! Every CPU has a clock, the lowest virtual time that competes there. Virtual times of two CPUs compare through each
//! CPU's `offset`. Clocks drift apart when units may not move (pinning) or one unit outweighs all others; a clock that
//! lags more than [`Rules::spread`](super::fair::Rules) behind the fastest is lifted by raising its offset, which
//! changes nothing on its own CPU and forgets old grievances between CPUs. So a unit that moves competes at once.

use armv7::cpu::{CpuId, CpuSet, MAX_CPUS};

use crate::time::Ticks;

use super::fair::{Virtual, Waking};
use super::unit::{State, UnitId};
use super::{SchedError, Scheduler, check};

/// Queue entries looked at for one that may move. Those behind run in their own queue, later.
const LOOK_AHEAD: usize = 16;

impl Scheduler {
    /// Changes where a unit may and should run. Returns the CPU that must pick.
    pub fn set_affinity(&mut self, id: UnitId, hard: CpuSet, soft: CpuSet, now: Ticks) -> Result<Option<CpuId>, SchedError> {
        check(1, hard, soft)?;
        let online = self.online;
        let unit = self.units.get_mut(id).ok_or(SchedError::NoUnit)?;
        unit.hard = hard;
        unit.soft = soft;
        unit.settle_affinity(online);
        Ok(self.obey_affinity(id, now))
    }

    /// Changes which CPUs may run units. Returns the CPUs that must pick. One that was taken out still has to pick and
    /// release until it has nothing loaded.
    pub fn set_online(&mut self, online: CpuSet, now: Ticks) -> CpuSet {
        self.online = online;
        self.units.iter_mut().for_each(|unit| unit.settle_affinity(online));
        for cpu in CpuId::all() {
            let here = &self.cpus[cpu.index()];
            if !online.contains(cpu) {
                self.idle.remove(cpu);
            } else if here.current.is_none() && here.queue.is_empty() {
                self.idle.insert(cpu);
            }
        }
        let mut kick = CpuSet::EMPTY;
        let mut next = 0;
        while let Some(id) = self.units.id_from(next) {
            kick = self.obey_affinity(id, now).into_iter().fold(kick, CpuSet::with);
            next = id.raw() + 1;
        }
        kick
    }

    /// Gets a unit off a CPU it may not use. Returns the CPU that must pick.
    fn obey_affinity(&mut self, id: UnitId, now: Ticks) -> Option<CpuId> {
        let unit = self.units.get_mut(id)?;
        let cpu = unit.cpu;
        if unit.allowed.contains(cpu) {
            return None;
        }
        match unit.state {
            State::Queued => {
                self.withdraw(id);
                self.place_woken(id, now)
            }
            // A parked unit moves when its period begins, a blocked one when it wakes up; but registers on a CPU that
            // goes away must be saved now.
            State::Blocked if !unit.loaded => None,
            State::Parked if !unit.loaded => None,
            _ => Some(cpu),
        }
    }

    /// Queues a unit that became runnable on the best CPU there is. Returns the CPU that must pick.
    pub(super) fn place_woken(&mut self, id: UnitId, now: Ticks) -> Option<CpuId> {
        let idle = self.idle;
        let unit = self.units.get_mut(id)?;
        let (home, allowed, preferred) = (unit.cpu, unit.allowed, unit.preferred);
        let better = idle.and(preferred);
        if unit.loaded {
            if allowed.contains(home) && (preferred.contains(home) || better.is_empty()) {
                return self.join(id, home, now);
            }
            unit.state = State::Stranded;
            unit.unload = true;
            return Some(home);
        }
        let idle_choice = [better, idle.and(allowed)].into_iter().find(|set| !set.is_empty());
        let target = match idle_choice {
            Some(set) if set.contains(home) => home,
            Some(set) => set.first()?,
            None => self.least_claim(preferred, home, now)?,
        };
        self.join(id, target, now)
    }

    /// The CPU of `among` whose units have had most of their share, `home` unless another is well ahead.
    fn least_claim(&mut self, among: CpuSet, home: CpuId, now: Ticks) -> Option<CpuId> {
        let mut best = among.first()?;
        let mut best_standing = self.standing(best, now);
        for cpu in among.without(best) {
            let standing = self.standing(cpu, now);
            let lead = standing.lead(best_standing);
            if lead > 0 || lead == 0 && self.queue_len(cpu) < self.queue_len(best) {
                (best, best_standing) = (cpu, standing);
            }
        }
        if among.contains(home) && self.queue_len(home) <= self.queue_len(best) {
            let lead = best_standing.lead(self.standing(home, now));
            if lead <= self.rules.migration {
                return Some(home);
            }
        }
        Some(best)
    }

    /// Queues a unit on `cpu`. Returns the CPU when it must pick now rather than at the end of the current turn.
    fn join(&mut self, id: UnitId, cpu: CpuId, now: Ticks) -> Option<CpuId> {
        self.standing(cpu, now);
        self.relocate(id, cpu, now);
        self.enqueue_woken(id, cpu);
        let here = &self.cpus[cpu.index()];
        let unit = self.units.get(id)?;
        let ahead = match self.current_virtual(cpu, now) {
            Some(current) => current.lead(unit.virtual_time) > 0,
            None => true,
        };
        (ahead || !here.ticking).then_some(cpu)
    }

    /// Queues a unit that slept, on a CPU whose frame its virtual time is in. Sleep earns credit, up to a limit.
    #[inline]
    pub(super) fn enqueue_woken(&mut self, id: UnitId, cpu: CpuId) {
        let Some(unit) = self.units.get_mut(id) else { return };
        let clock = self.cpus[cpu.index()].clock;
        unit.virtual_time = unit.virtual_time.max(clock.minus(self.rules.sleeper_credit));
        let with_credit = clock.lead(unit.virtual_time) >= self.rules.margin;
        unit.waking = if with_credit { Waking::WithCredit } else { Waking::No };
        self.enqueue(id, cpu);
    }

    /// Moves at most one waiting unit of `from` to a CPU that is idle or well ahead. Returns the CPU that must pick.
    pub(super) fn push(&mut self, from: CpuId, now: Ticks) -> CpuSet {
        let others = self.online.without(from);
        let mut standings = [None; MAX_CPUS];
        let here = self.standing_clock(from, now);
        for cpu in others {
            standings[cpu.index()] = Some(self.standing(cpu, now));
        }
        let mut found = None;
        for (id, virtual_time) in self.cpus[from.index()].queue.iter().take(LOOK_AHEAD) {
            let Some(unit) = self.units.get(UnitId(id)).filter(|unit| !unit.loaded) else { continue };
            let (allowed, preferred) = (unit.allowed.and(others), unit.preferred.and(others));
            let idle = [self.idle.and(preferred), self.idle.and(allowed)];
            if let Some(cpu) = idle.into_iter().find_map(CpuSet::first) {
                found = Some((UnitId(id), cpu));
                break;
            }
            // Only idle CPUs take units that should be elsewhere.
            let ahead = |cpu: CpuId| {
                let standing: Virtual = standings[cpu.index()]?;
                Some((standing.lead(virtual_time.plus(here)), cpu))
            };
            if let Some((lead, cpu)) = preferred.iter().filter_map(ahead).max_by_key(|&(lead, _)| lead)
                && lead > self.rules.migration
            {
                found = Some((UnitId(id), cpu));
                break;
            }
        }
        let Some((id, cpu)) = found else { return CpuSet::EMPTY };
        self.dequeue(id, from);
        self.relocate(id, cpu, now);
        self.enqueue(id, cpu);
        CpuSet::of(cpu)
    }

    /// Takes the waiting unit with most claim from other CPUs' queues, for a CPU without anything to do. The unit is in
    /// no queue then.
    pub(super) fn steal(&mut self, cpu: CpuId, now: Ticks) -> Option<UnitId> {
        let mut best: Option<(Virtual, UnitId, CpuId)> = None;
        for from in self.waiting.without(cpu) {
            let offset = self.standing_clock(from, now);
            for (id, virtual_time) in self.cpus[from.index()].queue.iter().take(LOOK_AHEAD) {
                let may_come = |id| self.units.get(id).is_some_and(|unit| !unit.loaded && unit.allowed.contains(cpu));
                let claim = virtual_time.plus(offset);
                let better = best.is_none_or(|(least, ..)| claim.lead(least) < 0);
                if better && may_come(UnitId(id)) {
                    best = Some((claim, UnitId(id), from));
                }
            }
        }
        let (_, id, from) = best?;
        self.dequeue(id, from);
        self.relocate(id, cpu, now);
        Some(id)
    }

    /// Parks a unit whose cap is used up on the CPU it was last on.
    pub(super) fn park(&mut self, id: UnitId) -> Option<CpuId> {
        let unit = self.units.get_mut(id)?;
        unit.state = State::Parked;
        self.cpus[unit.cpu.index()].parked.push(id);
        Some(unit.cpu)
    }

    /// Queues the parked units of `cpu` whose next period has begun.
    pub(super) fn unpark(&mut self, cpu: CpuId, now: Ticks, kick: &mut CpuSet) {
        let mut at = 0;
        while let Some(&id) = self.cpus[cpu.index()].parked.get(at) {
            let due = self.units.get_mut(id).is_none_or(|unit| match &mut unit.budget {
                Some(budget) => budget.refill(now, &self.rules),
                None => true,
            });
            if !due {
                at += 1;
                continue;
            }
            self.cpus[cpu.index()].parked.swap_remove(at);
            if let Some(unit) = self.units.get_mut(id) {
                unit.state = State::Blocked;
            }
            *kick = self.place_woken(id, now).into_iter().fold(*kick, CpuSet::with);
        }
    }

    /// When the first parked unit of `cpu` may run again.
    #[inline]
    pub(super) fn next_refill(&self, cpu: CpuId) -> Option<Ticks> {
        let refill = |&id: &UnitId| self.units.get(id)?.budget.as_ref().map(|budget| budget.refill_at());
        self.cpus[cpu.index()].parked.iter().filter_map(refill).min()
    }

    /// Virtual time of the current unit of `cpu`, what it has run since it was charged included.
    fn current_virtual(&self, cpu: CpuId, now: Ticks) -> Option<Virtual> {
        let here = &self.cpus[cpu.index()];
        let unit = self.units.get(here.current?)?;
        Some(unit.virtual_time.plus(unit.weight.charge(now.since(here.charged).0)))
    }

    /// Brings the clock of `cpu` up to date, lifts it when it lags too far, and returns it as other CPUs see it: where
    /// the unit with most claim there stands.
    fn standing(&mut self, cpu: CpuId, now: Ticks) -> Virtual {
        let current = self.current_virtual(cpu, now);
        let here = &mut self.cpus[cpu.index()];
        let first = here.queue.first().map(|(_, virtual_time)| virtual_time);
        let lowest = match (current, first) {
            (Some(current), Some(first)) if first.lead(current) < 0 => first,
            (Some(current), _) => current,
            (None, Some(first)) => first,
            (None, None) => here.clock,
        };
        here.clock = here.clock.max(lowest);
        let lag = self.fastest.lead(here.clock.plus(here.offset));
        if lag > self.rules.spread {
            here.offset = here.offset.wrapping_add((lag - self.rules.spread).unsigned_abs());
        }
        let global = here.clock.plus(here.offset);
        self.fastest = self.fastest.max(global);
        lowest.plus(here.offset)
    }

    /// The offset of `cpu` after bringing its clock up to date.
    fn standing_clock(&mut self, cpu: CpuId, now: Ticks) -> u64 {
        self.standing(cpu, now);
        self.cpus[cpu.index()].offset
    }

    /// Translates the virtual time of a unit that is in no queue to the frame of `to`.
    fn relocate(&mut self, id: UnitId, to: CpuId, now: Ticks) {
        let Some(from) = self.cpu_of(id).filter(|&from| from != to) else { return };
        let from_offset = self.standing_clock(from, now);
        let to_offset = self.standing_clock(to, now);
        let Some(unit) = self.units.get_mut(id) else { return };
        let floor = self.cpus[to.index()].clock.minus(self.rules.spread.unsigned_abs());
        unit.virtual_time = unit.virtual_time.plus(from_offset.wrapping_sub(to_offset)).max(floor);
        unit.cpu = to;
    }
}
