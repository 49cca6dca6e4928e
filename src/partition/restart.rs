//! Domains of the boot that are started again when they end (`krypton,restart-on`).
//!
//! What such a domain is made from is kept: its modules in memory, and the plan of it. When it has ended in one of the ways
//! that its node names, it is destroyed as the toolstack would do it, made anew under the same id, and started. One that
//! ends soon after its start waits for a while before that, and longer each time.
//!
//! No vCPU waits for this work, so a timer does it: a few pieces at a time, and none while an interrupt waits. A domain that
//! somebody else destroys or resumes is left alone.

use alloc::sync::Arc;
use alloc::vec::Vec;

use armv7::addr::PAGE_SHIFT;
use armv7::cpu::CpuId;

use super::channels;
use super::make::{Blueprint, Making};
use crate::call::must_pause;
use crate::control;
use crate::domain::shutdown;
use crate::domain::{Domain, Life, registry};
use crate::loader::{Refused, copy};
use crate::mem::memory;
use crate::platform::ranges::{self, PhysRange};
use crate::sync::{Lock, rank};
use crate::time::{self, Nanos, Purpose, Ticks, Timer, now};

/// Pieces of work in one go, each about as long as a hypercall that is not continued.
const PIECES: u32 = 4;
/// Pages of modules that one piece frees.
const FREED_AT_ONCE: u64 = 64;
/// Time between two goes, most of which is the vCPUs'.
const INTERVAL: Nanos = Nanos(250_000);
/// Time between two looks at memory that others still use.
const PATIENCE: Nanos = Nanos(100_000_000);
const SECOND: u64 = 1_000_000_000;
/// Seconds of the longest pause. A domain that has run for as long is started again at once.
const LONGEST_PAUSE: u64 = 64;

struct Restarts {
    domains: Vec<Restart>,
    timer: Option<Timer>,
    /// Pages of modules that stay after the boot.
    modules: Vec<PhysRange>,
    /// Those that no domain is made from any more, and which are to be freed.
    unused: Vec<PhysRange>,
}

static RESTARTS: Lock<Restarts, { rank::RESTARTS }> = Lock::new(Restarts {
    domains: Vec::new(),
    timer: None,
    modules: Vec::new(),
    unused: Vec::new(),
});

/// A domain that may be started again.
struct Restart {
    blueprint: Blueprint,
    phase: Phase,
    /// Its last start.
    started: Ticks,
    /// Ends that came soon, one after the other.
    soon: u32,
}

enum Phase {
    /// It runs, or has ended in a way that is none of those.
    Left,
    /// It has ended, and waits until then.
    Pausing(Ticks),
    /// It is being destroyed, or what was made of it, for good with a reason.
    Ending(Arc<Domain>, Option<Refused>),
    /// Others may still use its memory. True once that was said.
    Gone(bool),
    Making(Making),
    /// Nothing is left to do for it.
    Over,
}

/// Keeps what a domain is made from, so that it can be made again.
pub fn keep(domain: &Domain, blueprint: Blueprint) {
    let mut all = RESTARTS.lock();
    let restart = Restart {
        blueprint,
        phase: Phase::Left,
        started: now(),
        soon: 0,
    };
    if all.timer.is_none() {
        all.timer = Timer::new(Purpose::Restarts).ok();
    }
    if all.timer.is_none() || all.domains.try_reserve(1).is_err() {
        drop(all);
        log::error!("BOOT: {domain} is not started again when it ends: no memory");
        return domain.set_restart_on(core::iter::empty());
    }
    all.domains.push(restart);
}

/// Returns the pages of modules that stay after the boot. Those of `permanent` stay in any case, and are not among them.
pub fn keep_modules(permanent: &[PhysRange]) -> Vec<PhysRange> {
    let mut all = RESTARTS.lock();
    all.modules = ranges::subtract(&all.needed(), permanent);
    all.modules.clone()
}

/// Moves the timer of this work from one CPU to another ([`Timer::migrate`]).
pub fn migrate_timer(from: CpuId, to: CpuId) {
    if let Some(timer) = &RESTARTS.lock().timer {
        timer.migrate(from, to);
    }
}

/// Does what is due for domains that have ended, a few pieces of it.
pub fn go_on() {
    let mut all = RESTARTS.lock();
    let mut next = Ticks::NEVER;
    let mut pieces = PIECES;
    for restart in &mut all.domains {
        next = next.min(restart.go_on(&mut pieces));
    }
    let before = all.domains.len();
    all.domains
        .retain(|restart| !matches!(restart.phase, Phase::Over));
    let is_over = all.domains.len() != before;
    if is_over {
        all.find_unused();
    }
    if !all.free_some() {
        next = next.min(soon());
    }
    let returning = all.domains.iter().filter(|restart| restart.returns());
    shutdown::set_returning(returning.count() as u32);
    if let Some(timer) = all.timer.as_ref().filter(|_| next != Ticks::NEVER) {
        timer.arm(next);
    }
    drop(all);
    if is_over {
        shutdown::say_if_none_runs();
    }
}

impl Restarts {
    /// Returns the pages of the modules that its domains are made from.
    fn needed(&self) -> Vec<PhysRange> {
        let modules = self.domains.iter();
        let modules = modules.flat_map(|restart| restart.blueprint.config.modules());
        ranges::merge(modules.map(|module| module.range.pages_outward()).collect())
    }

    /// Finds modules that no domain is made from any more.
    fn find_unused(&mut self) {
        let unused = ranges::subtract(&self.modules, &self.needed());
        self.modules = ranges::subtract(&self.modules, &unused);
        self.unused.extend(unused);
    }

    /// Frees some pages of modules that are not used any more. Returns true when none is left.
    fn free_some(&mut self) -> bool {
        let Some(range) = self.unused.pop() else {
            return true;
        };
        let size = range.size().min(FREED_AT_ONCE << PAGE_SHIFT);
        memory().release(range.start().frame(), (size >> PAGE_SHIFT) as u32);
        self.unused
            .extend(PhysRange::new(range.base() + size, range.size() - size));
        self.unused.is_empty()
    }
}

impl Restart {
    /// Returns whether it has ended and is to be there again.
    fn returns(&self) -> bool {
        !matches!(self.phase, Phase::Left | Phase::Over)
    }

    /// Does some of what is due, at most so many pieces, and returns when to go on. A look at a domain for which nothing is due
    /// is no piece.
    fn go_on(&mut self, pieces: &mut u32) -> Ticks {
        while *pieces != 0 {
            if let Some(at) = self.step() {
                return at;
            }
            *pieces = if must_pause() { 0 } else { *pieces - 1 };
        }
        soon()
    }

    /// Does the next piece. Returns when to go on, if not at once.
    fn step(&mut self) -> Option<Ticks> {
        match &mut self.phase {
            Phase::Left => {
                let Some(domain) = self.alive() else {
                    self.phase = Phase::Over;
                    return Some(Ticks::NEVER);
                };
                if !has_ended(&domain) {
                    return Some(Ticks::NEVER);
                }
                self.phase = Phase::Pausing(self.begin_pause(&domain));
                None
            }
            Phase::Pausing(until) => {
                let until = *until;
                if now() < until {
                    return Some(until);
                }
                self.phase = match self.alive() {
                    None => Phase::Over,
                    Some(domain) if has_ended(&domain) => Phase::Ending(domain, None),
                    // The toolstack has resumed it.
                    Some(_) => Phase::Left,
                };
                None
            }
            Phase::Ending(domain, why) => {
                if control::undo_some(domain) {
                    let why = why.take();
                    self.phase = match why {
                        None => Phase::Gone(false),
                        Some(why) => {
                            let id = self.blueprint.id;
                            log::error!("{id} is not started again: {why}");
                            Phase::Over
                        }
                    };
                    control::reap();
                }
                None
            }
            Phase::Gone(said) => {
                control::reap();
                let id = self.blueprint.id;
                if registry::get(id).is_none() && memory().account(id).is_none() {
                    self.begin_making();
                    return None;
                }
                if !core::mem::replace(said, true) {
                    log::info!("{id} is started again when nobody uses its memory any more");
                }
                Some(now().plus(ticks(PATIENCE)))
            }
            Phase::Making(making) => {
                match making.step(&self.blueprint) {
                    Ok(false) => {}
                    Ok(true) => self.start(),
                    Err(why) => self.phase = Phase::Ending(making.domain.clone(), Some(why)),
                }
                None
            }
            Phase::Over => Some(Ticks::NEVER),
        }
    }

    /// Returns the domain, unless it is being destroyed.
    fn alive(&self) -> Option<Arc<Domain>> {
        let domain = registry::get(self.blueprint.id)?;
        let life = domain.state.lock().life;
        (life == Life::Alive).then_some(domain)
    }

    /// Returns the end of the pause that the domain has to make.
    fn begin_pause(&mut self, domain: &Domain) -> Ticks {
        let lived = time::clock().ns(now().since(self.started)).0 / SECOND;
        let seconds = pause(&mut self.soon, lived);
        match seconds {
            0 => log::info!("{domain} is started again"),
            _ => log::info!("{domain} is started again in {seconds} s: it ran for {lived} s"),
        }
        now().plus(ticks(Nanos(seconds * SECOND)))
    }

    fn begin_making(&mut self) {
        match Making::begin(&self.blueprint) {
            Ok(Some(making)) => self.phase = Phase::Making(making),
            Ok(None) => {}
            Err(why) => {
                log::error!("{} is not started again: {why}", self.blueprint.id);
                self.phase = Phase::Over;
            }
        }
    }

    /// Starts the domain that was made.
    fn start(&mut self) {
        let Phase::Making(making) = core::mem::replace(&mut self.phase, Phase::Left) else {
            return;
        };
        let blueprint = &self.blueprint;
        let domain = making.finish(blueprint).domain;
        channels::reconnect(&blueprint.config.channels);
        self.started = now();
        if let Err(why) = copy::start(&domain, &blueprint.plan.place) {
            self.phase = Phase::Ending(domain, Some(why));
        }
    }
}

/// Returns whether a domain has ended in a way after which it is started again.
fn has_ended(domain: &Domain) -> bool {
    let code = domain.state.lock().shutdown;
    code.is_some_and(|code| domain.restarts_on(code))
}

/// Returns the seconds that a domain waits which ran for `lived` seconds: none, or twice as many as the last time, from one
/// on. `soon` counts its ends that came soon.
fn pause(soon: &mut u32, lived: u64) -> u64 {
    if lived >= LONGEST_PAUSE {
        *soon = 0;
        return 0;
    }
    let seconds = 1u64.checked_shl(*soon).unwrap_or(LONGEST_PAUSE);
    *soon = soon.saturating_add(1);
    seconds.clamp(1, LONGEST_PAUSE)
}

/// Returns when to do the next pieces.
fn soon() -> Ticks {
    now().plus(ticks(INTERVAL))
}

fn ticks(span: Nanos) -> Ticks {
    time::clock().ticks(span)
}

#[cfg(test)]
mod tests {
    use super::{LONGEST_PAUSE, pause};

    #[test]
    fn a_domain_that_ends_soon_waits_longer_each_time_and_never_longer_than_the_most() {
        let mut soon = 0;
        let pauses: Vec<u64> = (0..9).map(|_| pause(&mut soon, 0)).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
        soon = u32::MAX;
        assert_eq!(pause(&mut soon, LONGEST_PAUSE - 1), LONGEST_PAUSE);
        // One that ran for long has no past.
        assert_eq!(pause(&mut soon, LONGEST_PAUSE), 0);
        assert_eq!(pause(&mut soon, 0), 1);
    }
}
