//! A simulated machine: CPUs that obey every `Choice`, and units that compute and sleep.

use armv7::cpu::{CpuId, CpuSet};

use crate::sched::{
    Choice, DEFAULT_WEIGHT, GroupId, PoolId, SchedError, Scheduler, State, UnitId, UnitParams,
};
use crate::time::Ticks;

pub const HZ: u32 = 1_000_000;
pub const MS: u64 = HZ as u64 / 1000;

pub fn cpu(n: u32) -> CpuId {
    CpuId::new(n).unwrap()
}

pub fn set(bits: u32) -> CpuSet {
    CpuSet::from_bits(bits)
}

/// A unit that is a group of its own.
#[derive(Clone, Copy, Debug)]
pub struct Single {
    pub weight: u16,
    pub cap: u16,
    pub hard: CpuSet,
    pub pool: PoolId,
}

pub const PLAIN: Single = Single {
    weight: DEFAULT_WEIGHT,
    cap: 0,
    hard: CpuSet::ALL,
    pool: PoolId::FIRST,
};

pub fn weighing(weight: u16) -> Single {
    Single { weight, ..PLAIN }
}

pub fn capped(cap: u16) -> Single {
    Single { cap, ..PLAIN }
}

pub fn pinned(bits: u32) -> Single {
    Single {
        hard: set(bits),
        ..PLAIN
    }
}

impl Single {
    pub fn add_to(self, sched: &mut Scheduler) -> Result<UnitId, SchedError> {
        let group = sched.add_group(self.pool)?;
        sched.set_weight(group, self.weight)?;
        sched.set_cap(group, self.cap, Ticks(0))?;
        sched.add(UnitParams {
            group,
            hard: self.hard,
            soft: CpuSet::ALL,
        })
    }
}

/// Computes for `burst`, sleeps for `sleep`, again and again.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub burst: u64,
    pub sleep: u64,
}

pub const HOG: Load = Load {
    burst: u64::MAX,
    sleep: 0,
};

pub struct Task {
    pub id: UnitId,
    pub load: Load,
    pub left: u64,
    pub wakes_at: Option<u64>,
    pub ran: u64,
    /// When it last became runnable or stopped running, while it waits for a CPU.
    pub waits_since: Option<u64>,
    pub longest_wait: u64,
}

#[derive(Default, Clone, Copy)]
pub struct Core {
    pub running: Option<UnitId>,
    pub loaded: Option<UnitId>,
    pub until: Option<u64>,
    pub picks: u64,
}

pub struct Machine {
    pub sched: Scheduler,
    pub now: u64,
    pub tasks: Vec<Task>,
    pub cores: Vec<Core>,
    pub switches: u64,
    wakes: u64,
}

impl Machine {
    pub fn new(cpus: u32) -> Self {
        let online = CpuId::all().take(cpus as usize).collect();
        Self {
            sched: Scheduler::new(online, HZ),
            now: 0,
            tasks: Vec::new(),
            cores: vec![Core::default(); cpus as usize],
            switches: 0,
            wakes: 0,
        }
    }

    pub fn add(&mut self, single: Single, load: Load) -> UnitId {
        let id = single.add_to(&mut self.sched).unwrap();
        self.start(id, load)
    }

    /// Adds one more unit to a group.
    pub fn add_member(&mut self, group: GroupId, load: Load) -> UnitId {
        let id = self
            .sched
            .add(UnitParams {
                group,
                hard: CpuSet::ALL,
                soft: CpuSet::ALL,
            })
            .unwrap();
        self.start(id, load)
    }

    fn start(&mut self, id: UnitId, load: Load) -> UnitId {
        self.tasks.push(Task {
            id,
            load,
            left: load.burst,
            wakes_at: Some(self.now),
            ran: 0,
            waits_since: None,
            longest_wait: 0,
        });
        id
    }

    pub fn task(&mut self, id: UnitId) -> &mut Task {
        self.tasks.iter_mut().find(|task| task.id == id).unwrap()
    }

    /// Wakes a unit. Half of the time on the CPU that would have to pick, which then may only set its timer.
    pub fn wake(&mut self, id: UnitId) -> Option<CpuId> {
        let now = Ticks(self.now);
        let cpu = self.sched.wake(id, now)?;
        self.wakes += 1;
        if self.wakes.is_multiple_of(2)
            && let Some(until) = self.sched.goes_on(cpu, now)
        {
            assert!(until > now, "a turn that is over is no turn");
            self.cores[cpu.index()].until = Some(until.0);
            self.check();
            return None;
        }
        Some(cpu)
    }

    pub fn kick(&mut self, cpus: impl IntoIterator<Item = CpuId>) {
        let mut todo: CpuSet = cpus.into_iter().collect();
        for _ in 0..1000 {
            let Some(cpu) = todo.first() else {
                self.check_affinity();
                return;
            };
            todo.remove(cpu);
            todo = todo.or(self.pick(cpu));
        }
        panic!("CPUs kick each other for ever");
    }

    /// Does what the trap loop does on a CPU that must pick.
    pub fn pick(&mut self, cpu: CpuId) -> CpuSet {
        let Choice {
            unit,
            until,
            save,
            kick,
        } = self.sched.pick(cpu, Ticks(self.now));
        let mut kick = kick;
        let core = &mut self.cores[cpu.index()];
        core.picks += 1;
        let before = core.running;
        core.running = unit;
        core.until = until.map(|until| until.0);
        if let Some(old) = save {
            assert_eq!(core.loaded, Some(old), "asked to save what is not loaded");
            core.loaded = None;
            kick = self
                .sched
                .release(old, Ticks(self.now))
                .into_iter()
                .fold(kick, CpuSet::with);
        }
        let core = &mut self.cores[cpu.index()];
        if let Some(id) = unit {
            assert!(
                core.loaded.is_none_or(|loaded| loaded == id),
                "registers of another unit are still here"
            );
            core.loaded = Some(id);
        }
        let now = self.now;
        if before != unit {
            self.switches += 1;
            if let Some(old) = before {
                let runnable = self.sched.state(old).is_some_and(State::is_waiting);
                self.task(old).waits_since = runnable.then_some(now);
            }
        }
        if let Some(new) = unit {
            let task = self.task(new);
            if let Some(since) = task.waits_since.take() {
                task.longest_wait = task.longest_wait.max(now - since);
            }
        }
        self.check();
        kick
    }

    /// Checks the rules that hold at every moment.
    pub fn check(&self) {
        for (n, core) in self.cores.iter().enumerate() {
            let here = cpu(n as u32);
            assert_eq!(self.sched.current(here), core.running);
            for other in &self.cores[n + 1..] {
                assert!(
                    core.loaded.is_none() || core.loaded != other.loaded,
                    "one unit on two CPUs"
                );
            }
            if let Some(id) = core.running {
                assert_eq!(core.loaded, Some(id));
            }
        }
    }

    /// Checks the rules that hold once every kicked CPU has picked: units are where they may be, asleep or not.
    /// In a pool without CPUs none runs.
    pub fn check_affinity(&self) {
        for task in &self.tasks {
            let (hard, _) = self.sched.affinity(task.id).unwrap();
            let pool = self.sched.cpus_of(self.group_of(task.id));
            let allowed = hard.and(pool);
            let allowed = if allowed.is_empty() { pool } else { allowed };
            let here = self.sched.cpu_of(task.id).unwrap();
            let stuck = pool.is_empty() && !self.sched.is_on_cpu(task.id);
            assert!(stuck || allowed.contains(here), "{:?} on {here}", task.id);
        }
    }

    pub fn run_for(&mut self, span: u64) {
        let end = self.now + span;
        loop {
            // Units that are due wake up.
            let due: Vec<UnitId> = self
                .tasks
                .iter()
                .filter(|t| t.wakes_at.is_some_and(|at| at <= self.now))
                .map(|t| t.id)
                .collect();
            for id in due {
                let now = self.now;
                let task = self.task(id);
                task.wakes_at = None;
                task.left = task.load.burst;
                task.waits_since = Some(now);
                let kick = self.wake(id);
                self.kick(kick);
            }
            // Timers that are due fire.
            let fired: Vec<CpuId> = (0..self.cores.len() as u32)
                .map(cpu)
                .filter(|c| {
                    self.cores[c.index()]
                        .until
                        .is_some_and(|until| until <= self.now)
                })
                .collect();
            self.kick(fired);
            if self.now >= end {
                return;
            }
            let mut next = end;
            for core in &self.cores {
                next = core
                    .until
                    .map_or(next, |until| next.min(until.max(self.now + 1)));
            }
            for task in &self.tasks {
                next = task.wakes_at.map_or(next, |at| next.min(at));
                if self.cores.iter().any(|core| core.running == Some(task.id)) {
                    next = next.min(self.now.saturating_add(task.left));
                }
            }
            let span = next - self.now;
            self.now = next;
            for n in 0..self.cores.len() {
                let Some(id) = self.cores[n].running else {
                    continue;
                };
                let now = self.now;
                let task = self.task(id);
                task.ran += span;
                if task.load.burst != u64::MAX {
                    task.left -= span.min(task.left);
                }
                if task.left == 0 {
                    task.wakes_at = Some(now + task.load.sleep.max(1));
                    self.sched.block(id, Ticks(now));
                    self.kick([cpu(n as u32)]);
                }
            }
        }
    }

    /// Sets a group's cap, and picks on the returned CPUs.
    pub fn set_cap(&mut self, group: GroupId, cap: u16) {
        let kick = self.sched.set_cap(group, cap, Ticks(self.now)).unwrap();
        self.kick(kick);
    }

    pub fn group_of(&self, id: UnitId) -> GroupId {
        self.sched.group_of(id).unwrap()
    }

    pub fn groups(&self) -> Vec<GroupId> {
        self.tasks
            .iter()
            .map(|task| self.group_of(task.id))
            .collect()
    }

    pub fn ran(&self, id: UnitId) -> u64 {
        self.tasks.iter().find(|task| task.id == id).unwrap().ran
    }
}

#[track_caller]
pub fn assert_share(machine: &Machine, id: UnitId, span: u64, expected: f64) {
    let share = machine.ran(id) as f64 / span as f64;
    assert!(
        (share - expected).abs() <= 0.05 * expected,
        "{id:?} ran {share:.4} instead of {expected:.4}"
    );
}
