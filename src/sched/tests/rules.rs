//! Single rules, step by step.

use armv7::cpu::CpuSet;

use super::machine::{HOG, HZ, MS, Machine, PLAIN, Single, cpu, pinned, set, weighing};
use crate::sched::fair::{Budget, Rules, Virtual, Weight};
use crate::sched::{
    Choice, DEFAULT_RATELIMIT_US, PoolId, SchedError, Scheduler, State, UnitParams,
};
use crate::time::Ticks;

#[test]
fn a_woken_unit_goes_to_its_last_cpu_then_to_an_idle_one() {
    let mut sched = Scheduler::new(set(0b111), HZ);
    let a = PLAIN.add_to(&mut sched).unwrap();
    let b = PLAIN.add_to(&mut sched).unwrap();
    let home = sched.wake(a, Ticks(0)).unwrap();
    assert_eq!(sched.pick(home, Ticks(0)).unit, Some(a));
    assert_eq!(sched.block(a, Ticks(5)), Some(home));
    assert_eq!(
        sched.pick(home, Ticks(5)),
        Choice {
            unit: None,
            until: None,
            save: None,
            kick: CpuSet::EMPTY
        }
    );
    assert_eq!(
        sched.loaded_on(a),
        Some(home),
        "registers stay while the CPU idles"
    );
    assert_eq!(sched.wake(a, Ticks(9)), Some(home));
    assert_eq!(sched.pick(home, Ticks(9)).unit, Some(a));
    let elsewhere = sched.wake(b, Ticks(9)).unwrap();
    assert_ne!(elsewhere, home);
}

#[test]
fn registers_hold_a_unit_on_its_cpu_until_they_are_released() {
    let mut sched = Scheduler::new(set(0b11), HZ);
    let unit = pinned(0b01).add_to(&mut sched).unwrap();
    assert_eq!(sched.wake(unit, Ticks(0)), Some(cpu(0)));
    assert_eq!(sched.pick(cpu(0), Ticks(0)).unit, Some(unit));
    assert_eq!(
        sched.set_affinity(unit, set(0b10), CpuSet::ALL, Ticks(1)),
        Ok(Some(cpu(0)))
    );
    assert_eq!(sched.pick(cpu(1), Ticks(1)).unit, None, "not released yet");
    let choice = sched.pick(cpu(0), Ticks(2));
    assert_eq!((choice.unit, choice.save), (None, Some(unit)));
    assert_eq!(sched.pick(cpu(1), Ticks(2)).unit, None, "not released yet");
    assert_eq!(sched.release(unit, Ticks(3)), Some(cpu(1)));
    assert_eq!(sched.pick(cpu(1), Ticks(3)).unit, Some(unit));
}

#[test]
fn a_sleeping_unit_leaves_a_cpu_it_may_not_use_at_once() {
    let mut sched = Scheduler::new(set(0b11), HZ);
    let unit = pinned(0b10).add_to(&mut sched).unwrap();
    let pin = |sched: &mut Scheduler, cpus, at| {
        sched
            .set_affinity(unit, set(cpus), CpuSet::ALL, Ticks(at))
            .unwrap()
    };
    assert_eq!(pin(&mut sched, 0b01, 0), None, "nobody has to pick for it");
    assert_eq!(sched.cpu_of(unit), Some(cpu(0)));
    // Its registers stay behind until the CPU that has them saves them.
    sched.wake(unit, Ticks(1));
    sched.pick(cpu(0), Ticks(1));
    sched.block(unit, Ticks(2));
    sched.pick(cpu(0), Ticks(2));
    assert_eq!(pin(&mut sched, 0b10, 3), Some(cpu(0)));
    assert_eq!(sched.pick(cpu(0), Ticks(4)).save, Some(unit));
    assert_eq!(sched.release(unit, Ticks(4)), None, "it sleeps on");
    assert_eq!(sched.cpu_of(unit), Some(cpu(1)));
    assert_eq!(sched.wake(unit, Ticks(5)), Some(cpu(1)));
    assert_eq!(sched.pick(cpu(1), Ticks(5)).unit, Some(unit));
}

#[test]
fn a_unit_over_its_cap_leaves_a_cpu_it_may_not_use_and_runs_again_in_its_period() {
    let mut machine = Machine::new(2);
    let unit = machine.add(
        Single {
            cap: 10,
            ..pinned(0b01)
        },
        HOG,
    );
    machine.run_for(55 * MS);
    let state = machine.sched.state(unit);
    assert!(state.is_some_and(State::is_waiting), "over: {state:?}");
    let now = Ticks(machine.now);
    let kick = machine
        .sched
        .set_affinity(unit, set(0b10), CpuSet::ALL, now)
        .unwrap();
    machine.kick(kick);
    assert_eq!(machine.sched.cpu_of(unit), Some(cpu(1)));
    let before = machine.ran(unit);
    machine.run_for(1000 * MS);
    let share = (machine.ran(unit) - before) as f64 / (1000 * MS) as f64;
    assert!((0.09..=0.11).contains(&share), "{share}");
}

#[test]
fn yielding_lets_the_other_run_and_alone_is_no_work() {
    let mut sched = Scheduler::new(set(1), HZ);
    let a = PLAIN.add_to(&mut sched).unwrap();
    sched.wake(a, Ticks(0));
    assert_eq!(sched.pick(cpu(0), Ticks(0)).unit, Some(a));
    assert!(
        !sched.yield_now(a, Ticks(1)),
        "nobody else: not even a pick"
    );
    let b = PLAIN.add_to(&mut sched).unwrap();
    sched.wake(b, Ticks(2));
    let first = sched.pick(cpu(0), Ticks(2)).unit.unwrap();
    assert!(sched.yield_now(first, Ticks(3)));
    let choice = sched.pick(cpu(0), Ticks(3));
    assert_eq!(choice.save, Some(first));
    assert_ne!(choice.unit, Some(first));
    assert!(choice.until.is_some());
}

#[test]
fn a_unit_that_wakes_with_credit_waits_an_eighth_of_the_rate_limit() {
    let mut sched = Scheduler::new(set(1), HZ);
    let [busy, io] = [0; 2].map(|_| PLAIN.add_to(&mut sched).unwrap());
    sched.wake(busy, Ticks(0));
    assert_eq!(sched.pick(cpu(0), Ticks(0)).unit, Some(busy));
    assert_eq!(sched.wake(io, Ticks(10_000)), Some(cpu(0)));
    assert_eq!(sched.pick(cpu(0), Ticks(10_000)).unit, Some(io), "at once");
    sched.block(io, Ticks(10_020));
    assert_eq!(sched.pick(cpu(0), Ticks(10_020)).unit, Some(busy));
    sched.wake(io, Ticks(10_050));
    let until = Ticks(10_020 + u64::from(DEFAULT_RATELIMIT_US) / 8);
    let choice = sched.pick(cpu(0), Ticks(10_050));
    assert_eq!((choice.unit, choice.until), (Some(busy), Some(until)));
    assert_eq!(sched.pick(cpu(0), until).unit, Some(io));
}

#[test]
fn a_unit_that_wakes_with_credit_does_not_wait_for_another_of_its_group() {
    let mut sched = Scheduler::new(set(1), HZ);
    let group = sched.add_group(PoolId::FIRST).unwrap();
    let [busy, other] = [0; 2].map(|_| {
        let all = CpuSet::ALL;
        let params = UnitParams {
            group,
            hard: all,
            soft: all,
        };
        sched.add(params).unwrap()
    });
    sched.wake(busy, Ticks(0));
    sched.pick(cpu(0), Ticks(0));
    sched.wake(other, Ticks(10_000));
    sched.pick(cpu(0), Ticks(10_000));
    sched.block(other, Ticks(10_020));
    assert_eq!(sched.pick(cpu(0), Ticks(10_020)).unit, Some(busy));
    assert_eq!(sched.wake(other, Ticks(10_050)), Some(cpu(0)));
    assert_eq!(sched.pick(cpu(0), Ticks(10_050)).unit, Some(other));
}

#[test]
fn a_wake_up_between_block_and_pick_is_not_lost() {
    let mut sched = Scheduler::new(set(1), HZ);
    let a = PLAIN.add_to(&mut sched).unwrap();
    sched.wake(a, Ticks(0));
    sched.pick(cpu(0), Ticks(0));
    sched.block(a, Ticks(1));
    assert_eq!(sched.wake(a, Ticks(1)), None, "its CPU is about to pick");
    assert_eq!(sched.pick(cpu(0), Ticks(2)).unit, Some(a));
}

#[test]
fn a_unit_is_removed_only_after_its_registers_are_saved() {
    let mut sched = Scheduler::new(set(1), HZ);
    let a = PLAIN.add_to(&mut sched).unwrap();
    sched.wake(a, Ticks(0));
    sched.pick(cpu(0), Ticks(0));
    assert_eq!(sched.remove(a), Err(SchedError::Busy));
    sched.block(a, Ticks(1));
    sched.pick(cpu(0), Ticks(1));
    assert_eq!(sched.remove(a), Err(SchedError::Busy));
    assert_eq!(sched.unload(a), Some(cpu(0)));
    assert_eq!(sched.pick(cpu(0), Ticks(2)).save, Some(a));
    sched.release(a, Ticks(2));
    assert_eq!(sched.unload(a), None);
    assert_eq!(sched.remove(a), Ok(()));
    assert_eq!(sched.wake(a, Ticks(3)), None);
    assert_eq!(sched.remove(a), Err(SchedError::NoUnit));
    assert_eq!(PLAIN.add_to(&mut sched), Ok(a), "ids are used again");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let mut sched = Scheduler::new(set(1), HZ);
    assert_eq!(weighing(0).add_to(&mut sched), Err(SchedError::ZeroWeight));
    assert_eq!(pinned(0).add_to(&mut sched), Err(SchedError::EmptyAffinity));
    let a = PLAIN.add_to(&mut sched).unwrap();
    assert_eq!(
        sched.set_weight(sched.group_of(a).unwrap(), 0),
        Err(SchedError::ZeroWeight)
    );
    assert_eq!(
        sched.set_affinity(a, set(1), CpuSet::EMPTY, Ticks(0)),
        Err(SchedError::EmptyAffinity)
    );
}

#[test]
fn units_of_a_cpu_that_goes_offline_run_elsewhere() {
    let mut machine = Machine::new(2);
    let ids = [0; 4].map(|_| machine.add(PLAIN, HOG));
    let bound = machine.add(pinned(2), HOG);
    machine.run_for(100 * MS);
    let now = Ticks(machine.now);
    let kick = machine.sched.set_pool(PoolId::FIRST, set(1), now);
    machine.kick(kick);
    machine.run_for(10 * MS);
    assert_eq!(
        (machine.cores[1].running, machine.cores[1].loaded),
        (None, None)
    );
    let before = machine.ran(bound);
    machine.run_for(1000 * MS);
    assert!(
        machine.ran(bound) - before > 150 * MS,
        "hard affinity without an online CPU falls back to all"
    );
    assert!(
        ids.iter()
            .all(|&id| machine.sched.cpu_of(id) == Some(cpu(0)))
    );
    let kick = machine
        .sched
        .set_pool(PoolId::FIRST, set(3), Ticks(machine.now));
    machine.kick(kick);
    machine.run_for(100 * MS);
    assert!(machine.cores[1].running.is_some());
}

#[test]
fn cpu_time_adds_up_also_in_mid_turn() {
    let mut machine = Machine::new(1);
    let ids = [0; 3].map(|_| machine.add(PLAIN, HOG));
    machine.run_for(1234);
    let now = Ticks(machine.now);
    let total: u64 = ids.iter().map(|&id| machine.sched.runtime(id, now).0).sum();
    assert_eq!(total, 1234);
}

#[test]
fn virtual_time_compares_across_the_wrap() {
    let late = Virtual(u64::MAX - 5);
    assert_eq!(late.plus(10).lead(late), 10);
    assert_eq!(late.max(late.plus(10)), late.plus(10));
    let rules = Rules::new(HZ);
    assert_eq!(Weight::new(256, &rules).charge(1000), 64_000);
    assert_eq!(Weight::new(1, &rules).charge(1000), 64_000 * 256);
    assert!(Weight::new(65_535, &rules).charge(u64::MAX) > 0);
    assert!(Budget::new(0, Ticks(0), &rules).is_none());
}

#[test]
fn a_unit_can_run_for_months_with_the_lightest_weight() {
    let mut sched = Scheduler::new(set(1), 1_000_000_000);
    let a = weighing(1).add_to(&mut sched).unwrap();
    let b = weighing(1).add_to(&mut sched).unwrap();
    sched.wake(a, Ticks(0));
    sched.wake(b, Ticks(0));
    let mut now = 0;
    for _ in 0..2000 {
        now += u64::from(u32::MAX) * 1000;
        sched.pick(cpu(0), Ticks(now));
    }
    let (a, b) = (
        sched.runtime(a, Ticks(now)).0,
        sched.runtime(b, Ticks(now)).0,
    );
    assert!(a.abs_diff(b) <= now / 500, "{a} {b}");
}

#[test]
fn in_a_dedicated_pool_each_unit_has_a_cpu_of_its_own() {
    let mut sched = Scheduler::new(set(0b11), HZ);
    sched.set_dedicated(PoolId::FIRST, true);
    let a = PLAIN.add_to(&mut sched).unwrap();
    let b = PLAIN.add_to(&mut sched).unwrap();
    for (unit, home) in [(a, cpu(0)), (b, cpu(1))] {
        assert_eq!(sched.wake(unit, Ticks(0)), Some(home));
        let choice = sched.pick(home, Ticks(0));
        assert_eq!((choice.unit, choice.until), (Some(unit), None));
    }
    // An idle CPU does not take it over, and it does not wait for a busy one.
    sched.block(a, Ticks(5));
    assert_eq!(sched.pick(cpu(0), Ticks(5)).unit, None);
    sched.block(b, Ticks(6));
    assert_eq!(sched.pick(cpu(1), Ticks(6)).unit, None);
    assert_eq!(sched.wake(b, Ticks(7)), Some(cpu(1)));
    // One more than there are CPUs shares, and a CPU that is left is the next one's.
    let c = PLAIN.add_to(&mut sched).unwrap();
    assert_eq!(sched.wake(c, Ticks(8)), Some(cpu(0)));
    assert_eq!(sched.pick(cpu(0), Ticks(8)).unit, Some(c));
    assert_eq!(sched.pick(cpu(1), Ticks(8)).unit, Some(b));
}

#[test]
fn a_dedicated_cpu_changes_with_the_pool_and_with_affinity() {
    let mut sched = Scheduler::new(set(0b01), HZ);
    sched.set_dedicated(PoolId::FIRST, true);
    let a = PLAIN.add_to(&mut sched).unwrap();
    let b = PLAIN.add_to(&mut sched).unwrap();
    sched.set_pool(PoolId::FIRST, set(0b11), Ticks(1));
    assert_eq!(sched.wake(a, Ticks(2)), Some(cpu(0)), "it stays");
    assert_eq!(sched.wake(b, Ticks(2)), Some(cpu(1)), "it has room now");
    assert_eq!(sched.pick(cpu(0), Ticks(2)).unit, Some(a));
    assert_eq!(sched.pick(cpu(1), Ticks(2)).unit, Some(b));
    // Pinned to the other's CPU it shares that one.
    let kick = sched.set_affinity(b, set(0b01), CpuSet::ALL, Ticks(3));
    assert_eq!(kick, Ok(Some(cpu(1))));
    let choice = sched.pick(cpu(1), Ticks(3));
    assert_eq!((choice.unit, choice.save), (None, Some(b)));
    assert_eq!(sched.release(b, Ticks(3)), Some(cpu(0)));
    assert!(sched.pick(cpu(0), Ticks(3)).until.is_some());
}
