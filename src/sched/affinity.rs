//! Placement of units: on wake-up, by moving waiting units between CPUs, and by affinity and online CPUs.
//!
//! Every CPU has a clock, the lowest virtual time that competes there. Virtual times of two CPUs compare by adding each
//! CPU's `offset`, so that CPUs between which units may move advance alike and shares hold across CPUs. Where units may
//! not move (pinning), or one outweighs all others, clocks drift apart without meaning. So a difference over a limit is
//! discarded when it would count: the offset of the CPU that lags grows, which changes nothing among the units of that
//! CPU.

use armv7::cpu::{CpuId, CpuSet};

use crate::time::Ticks;

use super::fair::{Virtual, Waking};
use super::unit::State;
use super::{SchedError, Scheduler, UnitId, check};

/// Queue entries checked for a unit that may move. Units behind those run in their own queue, later.
const LOOK_AHEAD: usize = 16;

impl Scheduler {
    /// Sets a unit's hard and soft affinity. Returns the CPU that must pick.
    pub fn set_affinity(
        &mut self,
        id: UnitId,
        hard: CpuSet,
        soft: CpuSet,
        now: Ticks,
    ) -> Result<Option<CpuId>, SchedError> {
        check(hard, soft)?;
        let unit = self.units.get_mut(id).ok_or(SchedError::NoUnit)?;
        unit.hard = hard;
        unit.soft = soft;
        let group = unit.group;
        let mut residents = self.residents(group, id);
        self.reassign(id, &mut residents);
        Ok(self.obey_affinity(id, now))
    }

    /// Moves every unit off a CPU it may not use. Returns the CPUs that must pick.
    pub(super) fn obey_affinities(&mut self, now: Ticks) -> CpuSet {
        let mut kick = CpuSet::EMPTY;
        let mut next = 0;
        while let Some(id) = self.units.id_from(next) {
            kick = self
                .obey_affinity(id, now)
                .into_iter()
                .fold(kick, CpuSet::with);
            next = id.raw() + 1;
        }
        kick
    }

    /// Moves a unit off a CPU it may not use, whatever its state. Returns the CPU that must pick.
    #[cold]
    pub(super) fn obey_affinity(&mut self, id: UnitId, now: Ticks) -> Option<CpuId> {
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
            // Registers on a CPU that leaves the pool must be saved first; `release` then moves the unit.
            State::Blocked if !unit.loaded => {
                let home = self.best_cpu(id, now)?;
                self.relocate(id, home, now);
                None
            }
            State::Parked if !unit.loaded => {
                self.withdraw(id);
                let home = self.best_cpu(id, now)?;
                self.relocate(id, home, now);
                self.park(id)
            }
            _ => Some(cpu),
        }
    }

    /// Queues a unit that became runnable on the best CPU. Returns the CPU that must pick.
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
        let target = if allowed == CpuSet::of(home) {
            home
        } else {
            self.best_cpu(id, now)?
        };
        self.join(id, target, now)
    }

    /// Returns the CPU for a unit that is not loaded: an idle one, its last one first, or else the one of least claim.
    fn best_cpu(&mut self, id: UnitId, now: Ticks) -> Option<CpuId> {
        let unit = self.units.get(id)?;
        let idle = [self.idle.and(unit.preferred), self.idle.and(unit.allowed)]
            .into_iter()
            .find(|set| !set.is_empty());
        match idle {
            Some(set) if set.contains(unit.cpu) => Some(unit.cpu),
            Some(set) => set.first(),
            None => self.least_claim(id, now),
        }
    }

    /// Returns the preferred CPU whose units have had the most of their share; the last one unless another is well
    /// ahead.
    fn least_claim(&mut self, id: UnitId, now: Ticks) -> Option<CpuId> {
        let unit = self.units.get(id)?;
        let (home, preferred, weight) = (unit.cpu, unit.preferred, unit.weight);
        let start = if preferred.contains(home) {
            home
        } else {
            preferred.first()?
        };
        let mut best = start;
        let mut most = weight.migration;
        for cpu in preferred.without(start) {
            let lead = self.lead_over(cpu, start, None, weight.lag_limit, now);
            let shorter = self.queue_len(cpu) < self.queue_len(start);
            // Until a difference has built up, as right after boot, the shorter queue is better.
            let lead = if shorter {
                lead.max(weight.migration + 1)
            } else {
                lead
            };
            if lead > most {
                (best, most) = (cpu, lead);
            }
        }
        Some(best)
    }

    /// Queues a unit that slept on `cpu`. Returns `cpu` if it must pick now rather than at the end of the turn.
    fn join(&mut self, id: UnitId, cpu: CpuId, now: Ticks) -> Option<CpuId> {
        self.relocate(id, cpu, now);
        // The clock of a CPU that runs one unit may be long out of date, as that CPU does not pick.
        let current = self.current_virtual(cpu, now);
        self.standing(cpu, current);
        self.enqueue_woken(id, cpu);
        let unit = self.units.get(id)?;
        let ahead = current.is_none_or(|current| current.lead(unit.virtual_time) > 0);
        (ahead || !self.cpus[cpu.index()].ticking).then_some(cpu)
    }

    /// Queues a unit that slept and whose virtual time is relative to `cpu`. Sleep earns credit, up to a limit.
    pub(super) fn enqueue_woken(&mut self, id: UnitId, cpu: CpuId) {
        let Some(unit) = self.units.get_mut(id) else {
            return;
        };
        let clock = self.cpus[cpu.index()].clock;
        unit.virtual_time = unit
            .virtual_time
            .max(clock.minus(self.rules.sleeper_credit));
        let with_credit = clock.lead(unit.virtual_time) >= self.rules.margin;
        unit.waking = if with_credit {
            Waking::WithCredit
        } else {
            Waking::No
        };
        self.enqueue(id, cpu);
    }

    /// Moves at most one waiting unit of `from` to a CPU that is idle or well ahead. Returns the CPU that must pick.
    pub(super) fn push(&mut self, from: CpuId, now: Ticks) -> CpuSet {
        for at in 0..LOOK_AHEAD {
            let Some((id, virtual_time)) = self.cpus[from.index()].queue.nth(at) else {
                break;
            };
            let id = UnitId(id);
            let Some(unit) = self.units.get(id).filter(|unit| !unit.loaded) else {
                continue;
            };
            let (weight, preferred) = (unit.weight, unit.preferred.without(from));
            let idle = [
                self.idle.and(preferred),
                self.idle.and(unit.allowed).without(from),
            ];
            if let Some(cpu) = idle.into_iter().find_map(CpuSet::first) {
                self.dequeue(id, from);
                self.relocate(id, cpu, now);
                self.enqueue(id, cpu);
                return CpuSet::of(cpu);
            }
            // Only idle CPUs take units outside their soft affinity.
            let mut best = None;
            let mut most = weight.migration;
            for cpu in preferred {
                let lead = self.lead_over(cpu, from, Some(virtual_time), weight.lag_limit, now);
                if lead > most {
                    (best, most) = (Some(cpu), lead);
                }
            }
            if let Some(cpu) = best {
                self.dequeue(id, from);
                let shift = self.cpus[from.index()]
                    .offset
                    .wrapping_sub(self.cpus[cpu.index()].offset);
                if let Some(unit) = self.units.get_mut(id) {
                    unit.virtual_time = virtual_time.plus(shift);
                    unit.waking = Waking::AtOnce;
                }
                self.enqueue(id, cpu);
                return CpuSet::of(cpu);
            }
        }
        CpuSet::EMPTY
    }

    /// Removes a waiting unit from the longest queue of another CPU, for `cpu`, which has nothing to run. Chooses the
    /// first unit there that may run on `cpu`.
    pub(super) fn steal(&mut self, cpu: CpuId, now: Ticks) -> Option<UnitId> {
        let mut best: Option<(usize, UnitId, CpuId)> = None;
        for from in self.waiting.without(cpu) {
            let queue = &self.cpus[from.index()].queue;
            if best.is_some_and(|(most, ..)| queue.len() <= most) {
                continue;
            }
            let may_come = |id| {
                self.units
                    .get(id)
                    .is_some_and(|unit| !unit.loaded && unit.allowed.contains(cpu))
            };
            let candidates = queue.iter().take(LOOK_AHEAD).map(|(id, _)| UnitId(id));
            if let Some(id) = candidates.into_iter().find(|&id| may_come(id)) {
                best = Some((queue.len(), id, from));
            }
        }
        let (_, id, from) = best?;
        self.dequeue(id, from);
        self.relocate(id, cpu, now);
        Some(id)
    }

    /// Parks a unit whose group's cap is used up on its last CPU. Returns that CPU, which must pick.
    pub(super) fn park(&mut self, id: UnitId) -> Option<CpuId> {
        let unit = self.units.get_mut(id)?;
        unit.state = State::Parked;
        self.cpus[unit.cpu.index()].parked.push(id);
        Some(unit.cpu)
    }

    /// Queues the parked units of `cpu` whose next period has begun, and adds the CPUs that must pick to `kick`.
    pub(super) fn unpark(&mut self, cpu: CpuId, now: Ticks, kick: &mut CpuSet) {
        let mut at = 0;
        while let Some(&id) = self.cpus[cpu.index()].parked.get(at) {
            let group = self.units.get(id).map(|unit| unit.group);
            let due = group.is_none_or(|group| self.refill(group, now));
            if !due {
                at += 1;
                continue;
            }
            self.cpus[cpu.index()].parked.swap_remove(at);
            if let Some(unit) = self.units.get_mut(id) {
                unit.state = State::Blocked;
            }
            *kick = self
                .place_woken(id, now)
                .into_iter()
                .fold(*kick, CpuSet::with);
        }
    }

    /// Returns when the first parked unit of `cpu` may run again.
    pub(super) fn next_refill(&self, cpu: CpuId) -> Option<Ticks> {
        let refill = |&id: &UnitId| {
            let group = self.groups.get(self.units.get(id)?.group)?;
            group.budget.as_ref().map(|budget| budget.refill_at())
        };
        self.cpus[cpu.index()]
            .parked
            .iter()
            .filter_map(refill)
            .min()
    }

    /// Returns the virtual time of the current unit of `cpu`, including what it has run since the last charge.
    #[inline(always)]
    fn current_virtual(&self, cpu: CpuId, now: Ticks) -> Option<Virtual> {
        let here = &self.cpus[cpu.index()];
        let unit = self.units.get(here.current?)?;
        Some(unit.virtual_now(here.charged, now))
    }

    /// Updates the clock of `cpu`, whose current unit has the virtual time `current`. Returns the lowest virtual time
    /// there.
    #[inline(always)]
    fn standing(&mut self, cpu: CpuId, current: Option<Virtual>) -> Virtual {
        let here = &mut self.cpus[cpu.index()];
        let first = here.queue.first().map(|(_, virtual_time)| virtual_time);
        let lowest = match (current, first) {
            (Some(current), Some(first)) if first.lead(current) < 0 => first,
            (Some(current), _) => current,
            (None, Some(first)) => first,
            (None, None) => here.clock,
        };
        here.clock = here.clock.max(lowest);
        lowest
    }

    /// [`Scheduler::standing`] at `now`.
    fn standing_at(&mut self, cpu: CpuId, now: Ticks) -> Virtual {
        self.standing(cpu, self.current_virtual(cpu, now))
    }

    /// Returns how far the units of `cpu` are ahead of `virtual_time` on `other`, or of the units there if `None`.
    /// Discards a lead or lag over `limit` between the two CPUs' units, by raising the offset of the one that lags. The
    /// excess is not measured from `virtual_time`, which may be far from the others there: CPUs would raise each other
    /// in turns, and pass units to and fro. A light current unit on `cpu` raises the limit, as each of its turns is a
    /// leap in virtual time.
    fn lead_over(
        &mut self,
        cpu: CpuId,
        other: CpuId,
        virtual_time: Option<Virtual>,
        limit: i64,
        now: Ticks,
    ) -> i64 {
        let current = self.cpus[cpu.index()]
            .current
            .and_then(|id| self.units.get(id));
        let limit = current.map_or(limit, |unit| limit.max(unit.weight.lag_limit));
        let ahead = self
            .standing_at(cpu, now)
            .plus(self.cpus[cpu.index()].offset);
        let there = self.standing_at(other, now);
        let lead = ahead.lead(there.plus(self.cpus[other.index()].offset));
        let excess = lead.unsigned_abs().saturating_sub(limit.unsigned_abs());
        let lifted = if lead > 0 { other } else { cpu };
        let offset = &mut self.cpus[lifted.index()].offset;
        *offset = offset.wrapping_add(excess);
        let further = virtual_time.map_or(0, |virtual_time| virtual_time.lead(there));
        lead.clamp(-limit, limit).saturating_sub(further)
    }

    /// Moves a unit that is in no queue to `to`, and makes its virtual time relative to that CPU: it keeps its distance
    /// from the clock. An idle `to` takes over the clock of the unit's last CPU, as its own stood still.
    #[inline(always)]
    fn relocate(&mut self, id: UnitId, to: CpuId, now: Ticks) {
        if let Some(from) = self.cpu_of(id).filter(|&from| from != to) {
            self.translate(id, from, to, now);
        }
    }

    fn translate(&mut self, id: UnitId, from: CpuId, to: CpuId, now: Ticks) {
        self.standing_at(from, now);
        self.standing_at(to, now);
        let source = &self.cpus[from.index()];
        let (from_clock, from_global) = (source.clock, source.clock.plus(source.offset));
        let target = &mut self.cpus[to.index()];
        if target.current.is_none() && target.queue.is_empty() {
            target.offset = from_global.minus(target.clock.0).0;
        }
        let shift = target.clock.minus(from_clock.0);
        if let Some(unit) = self.units.get_mut(id) {
            unit.virtual_time = unit.virtual_time.plus(shift.0);
            unit.cpu = to;
        }
    }
}
