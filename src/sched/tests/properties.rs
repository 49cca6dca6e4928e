//! Properties that hold whatever happens.

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, prop_oneof, proptest};
use proptest::test_runner::Config;

use super::machine::{HOG, Load, MS, Machine, PLAIN, assert_share, cpu, set, weighing};
use crate::sched::{PoolId, State};
use crate::time::Ticks;

const SECOND: PoolId = match PoolId::new(1) {
    Some(pool) => pool,
    None => PoolId::FIRST,
};

#[derive(Clone, Debug)]
enum Op {
    Run(u64),
    Affinity(usize, u32, u32),
    Weight(usize, u16),
    Cap(usize, u16),
    /// CPUs of the first pool; the second has the rest.
    Pools(u32),
    Move(usize, bool),
    Pause(usize),
    Unpause(usize),
    Yield(u32),
    Kick(u32),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (1..30 * MS).prop_map(Op::Run),
        2 => (0..12usize, 1..16u32, 1..16u32).prop_map(|(t, hard, soft)| Op::Affinity(t, hard, soft)),
        1 => (0..12usize, 1..=u16::MAX).prop_map(|(t, weight)| Op::Weight(t, weight)),
        1 => (0..12usize, 0..350u16).prop_map(|(t, cap)| Op::Cap(t, cap)),
        1 => (1..16u32).prop_map(Op::Pools),
        1 => (0..12usize, proptest::bool::ANY).prop_map(|(t, second)| Op::Move(t, second)),
        1 => (0..12usize).prop_map(Op::Pause),
        2 => (0..12usize).prop_map(Op::Unpause),
        1 => (0..4u32).prop_map(Op::Yield),
        1 => (0..4u32).prop_map(Op::Kick),
    ]
}

fn load() -> impl Strategy<Value = Load> {
    prop_oneof![
        Just(HOG),
        (1..5 * MS, 1..10 * MS).prop_map(|(burst, sleep)| Load { burst, sleep }),
    ]
}

proptest! {
    #![proptest_config(Config::with_cases(128))]

    #[test]
    fn whatever_happens_the_invariants_hold(loads in vec(load(), 1..12), ops in vec(op(), 0..60)) {
        let mut machine = Machine::new(4);
        let mut group = None;
        for (n, load) in loads.into_iter().enumerate() {
            match group.filter(|_| n % 3 != 0) {
                Some(group) => {
                    machine.add_member(group, load);
                }
                None => {
                    let first = machine.add(PLAIN, load);
                    group = Some(machine.group_of(first));
                }
            }
        }
        for op in ops {
            let now = Ticks(machine.now);
            let task = |t: usize| machine.tasks.get(t).map(|task| task.id);
            match op {
                Op::Run(span) => machine.run_for(span),
                Op::Affinity(t, hard, soft) => if let Some(id) = task(t) {
                    let kick = machine.sched.set_affinity(id, set(hard), set(soft), now).unwrap();
                    machine.kick(kick);
                },
                Op::Weight(t, weight) => if let Some(id) = task(t) {
                    machine.sched.set_weight(machine.group_of(id), weight).unwrap();
                },
                Op::Cap(t, cap) => if let Some(id) = task(t) {
                    machine.set_cap(machine.group_of(id), cap);
                },
                Op::Pools(bits) => {
                    // Nobody is left in a pool without CPUs.
                    if bits == 15 {
                        for group in machine.groups() {
                            let kick = machine.sched.move_group(group, PoolId::FIRST, now).unwrap();
                            machine.kick(kick);
                        }
                    }
                    // A CPU leaves its pool before it joins another.
                    let [first, second] = [set(bits), set(15 & !bits)];
                    let leaving = [
                        (PoolId::FIRST, machine.sched.pool(PoolId::FIRST).and(first)),
                        (SECOND, machine.sched.pool(SECOND).and(second)),
                    ];
                    for (pool, cpus) in leaving.into_iter().chain([(PoolId::FIRST, first), (SECOND, second)]) {
                        let kick = machine.sched.set_pool(pool, cpus, now);
                        machine.kick(kick);
                    }
                }
                Op::Move(t, second) => if let Some(id) = task(t) {
                    let pool = if second { SECOND } else { PoolId::FIRST };
                    if !machine.sched.pool(pool).is_empty() {
                        let kick = machine.sched.move_group(machine.group_of(id), pool, now).unwrap();
                        machine.kick(kick);
                    }
                },
                Op::Pause(t) => if let Some(id) = task(t) {
                    let kick = machine.sched.block(id, now);
                    machine.task(id).wakes_at = None;
                    machine.task(id).waits_since = None;
                    machine.kick(kick);
                    assert_eq!(machine.sched.state(id), Some(State::Blocked));
                },
                Op::Unpause(t) => if let Some(id) = task(t) && machine.task(id).wakes_at.is_none() {
                    let kick = machine.wake(id);
                    machine.kick(kick);
                },
                Op::Yield(n) => if let Some(id) = machine.cores[n as usize].running && machine.sched.yield_now(id, now) {
                    let kick = machine.pick(cpu(n));
                    assert_ne!(machine.cores[n as usize].running, Some(id));
                    machine.kick(kick);
                },
                Op::Kick(n) => machine.kick([cpu(n)]),
            }
            machine.check();
            machine.check_affinity();
        }
        machine.run_for(10 * MS);
        // At the end no runnable unit waits while the machine is idle.
        let idle = machine.sched.idle_cpus();
        for info in machine.sched.units(Ticks(machine.now)) {
            let (hard, _) = machine.sched.affinity(info.id).unwrap();
            let pool = machine.sched.cpus_of(machine.group_of(info.id));
            let allowed = if hard.and(pool).is_empty() { pool } else { hard.and(pool) };
            assert!(
                !info.state.is_waiting() || info.cap != 0 || idle.and(allowed).is_empty(),
                "{info:?} waits while {idle:?} idle"
            );
        }
    }

    #[test]
    fn every_runnable_unit_runs_within_a_bound(
        weights in vec(64..=1024u16, 2..10),
        cpus in 1..=4u32,
    ) {
        let mut machine = Machine::new(cpus);
        let ids: Vec<_> = weights.iter().map(|&weight| machine.add(weighing(weight), HOG)).collect();
        machine.run_for(5000 * MS);
        for id in ids {
            // At most every other unit's turns for one of its own: 16 times its weight, 4 ms each, per unit; and the
            // drift that migration tolerates.
            let bound = 4 * 16 * weights.len() as u64 * MS + 32 * MS;
            let longest = machine.task(id).longest_wait;
            assert!(longest <= bound, "waited {longest} of {bound}");
        }
    }

    #[test]
    fn feasible_weights_are_kept_over_several_cpus(weights in vec(128..=1024u16, 6..12), cpus in 1..=3u32) {
        let total: f64 = weights.iter().copied().map(f64::from).sum();
        let share = |weight: u16| f64::from(weight) * f64::from(cpus) / total;
        proptest::prop_assume!(weights.iter().all(|&weight| share(weight) < 0.9));
        let mut machine = Machine::new(cpus);
        let ids: Vec<_> = weights.iter().map(|&weight| (machine.add(weighing(weight), HOG), weight)).collect();
        machine.run_for(20_000 * MS);
        for (id, weight) in ids {
            assert_share(&machine, id, 20_000 * MS, share(weight));
        }
    }
}
