//! Who gets how much, and how soon.

use armv7::cpu::CpuSet;

use super::machine::{
    HOG, Load, MS, Machine, PLAIN, Single, assert_share, capped, pinned, set, weighing,
};
use crate::sched::{DEFAULT_RATELIMIT_US, PoolId, SchedError};
use crate::time::Ticks;

#[test]
fn one_cpu_is_shared_by_weight() {
    let mut machine = Machine::new(1);
    let ids =
        [64, 256, 512, 1024].map(|weight| (machine.add(weighing(weight), HOG), f64::from(weight)));
    machine.run_for(20_000 * MS);
    for (id, weight) in ids {
        assert_share(&machine, id, 20_000 * MS, weight / 1856.0);
    }
}

#[test]
fn extreme_weights_still_get_their_share() {
    let mut machine = Machine::new(1);
    let light = machine.add(weighing(1), HOG);
    let heavy = machine.add(weighing(100), HOG);
    machine.run_for(60_000 * MS);
    assert_share(&machine, light, 60_000 * MS, 1.0 / 101.0);
    assert_share(&machine, heavy, 60_000 * MS, 100.0 / 101.0);
}

#[test]
fn who_comes_to_a_unit_that_ran_alone_gets_its_share_and_no_more() {
    for longest in [1, 10_000] {
        let mut machine = Machine::new(1);
        let alone = machine.add(weighing(768), HOG);
        machine.run_for(longest * MS);
        let before = machine.ran(alone);
        let other = machine.add(weighing(256), HOG);
        machine.run_for(2000 * MS);
        let share = (machine.ran(alone) - before) as f64 / (2000 * MS) as f64;
        assert!(
            (share - 0.75).abs() < 0.02,
            "{share} after {longest} ms alone"
        );
        assert_share(&machine, other, 2000 * MS, 0.25);
    }
}

#[test]
fn three_equal_units_share_two_cpus_evenly() {
    let mut machine = Machine::new(2);
    let ids = [0; 3].map(|_| machine.add(PLAIN, HOG));
    machine.run_for(10_000 * MS);
    for id in ids {
        assert_share(&machine, id, 10_000 * MS, 2.0 / 3.0);
    }
}

#[test]
fn weights_hold_over_several_cpus() {
    let mut machine = Machine::new(4);
    // 16 units, sum of weights 4 * 1920: each gets weight / 1920 of a CPU.
    let weights = [128u16, 256, 512, 1024].repeat(4);
    let ids: Vec<_> = weights
        .iter()
        .map(|&weight| (machine.add(weighing(weight), HOG), f64::from(weight)))
        .collect();
    machine.run_for(60_000 * MS);
    for (id, weight) in ids {
        assert_share(&machine, id, 60_000 * MS, weight / 1920.0);
    }
}

#[test]
fn a_unit_too_heavy_for_its_share_gets_a_cpu_and_the_rest_is_shared() {
    let mut machine = Machine::new(2);
    let heavy = machine.add(weighing(65_535), HOG);
    let light = [0; 2].map(|_| machine.add(weighing(1), HOG));
    machine.run_for(10_000 * MS);
    assert_share(&machine, heavy, 10_000 * MS, 1.0);
    for id in light {
        assert_share(&machine, id, 10_000 * MS, 0.5);
    }
    // Its weight taken away, the past does not count for ever.
    machine
        .sched
        .set_weight(machine.group_of(heavy), 1)
        .unwrap();
    machine.run_for(1000 * MS);
    let before = light.map(|id| machine.ran(id));
    machine.run_for(9000 * MS);
    for (id, before) in light.into_iter().zip(before) {
        let share = (machine.ran(id) - before) as f64 / (9000 * MS) as f64;
        assert!((share - 2.0 / 3.0).abs() < 0.034, "{share}");
    }
}

#[test]
fn pinning_and_unpinning_starves_nobody() {
    let mut machine = Machine::new(2);
    let alone = machine.add(pinned(1), HOG);
    let crowd = [0; 3].map(|_| machine.add(pinned(2), HOG));
    machine.run_for(20_000 * MS);
    assert_share(&machine, alone, 20_000 * MS, 1.0);
    let now = Ticks(machine.now);
    let kick = machine
        .sched
        .set_affinity(alone, set(2), set(2), now)
        .unwrap();
    machine.kick(kick);
    let before = machine.ran(alone);
    machine.run_for(1000 * MS);
    assert!(
        machine.ran(alone) - before >= 200 * MS,
        "ran {} of 1000 ms",
        (machine.ran(alone) - before) / MS
    );
    for id in crowd {
        let now = Ticks(machine.now);
        let kick = machine
            .sched
            .set_affinity(id, CpuSet::ALL, CpuSet::ALL, now)
            .unwrap();
        machine.kick(kick);
    }
    let before = crowd.map(|id| machine.ran(id));
    machine.run_for(10_000 * MS);
    for (id, before) in crowd.into_iter().zip(before) {
        assert!((machine.ran(id) - before) as f64 / (10_000 * MS) as f64 > 0.45);
    }
}

#[test]
fn a_cap_holds_on_an_idle_machine_and_leaves_the_rest_to_others() {
    let mut machine = Machine::new(1);
    let capped = machine.add(capped(25), HOG);
    machine.run_for(5000 * MS);
    assert_share(&machine, capped, 5000 * MS, 0.25);
    let other = machine.add(PLAIN, HOG);
    machine.run_for(5000 * MS);
    assert_share(&machine, capped, 10_000 * MS, 0.25);
    assert_share(&machine, other, 5000 * MS, 0.75);
    machine.set_cap(machine.group_of(capped), 0);
    let before = machine.ran(capped);
    machine.run_for(5000 * MS);
    assert!(machine.ran(capped) - before > 2300 * MS);
}

#[test]
fn a_group_shares_its_cap_and_one_unit_may_have_all_of_it() {
    let mut machine = Machine::new(4);
    let first = machine.add(capped(150), HOG);
    let group = machine.group_of(first);
    let ids: Vec<_> = (0..3)
        .map(|_| machine.add_member(group, HOG))
        .chain([first])
        .collect();
    machine.run_for(5000 * MS);
    let ran = |machine: &Machine| ids.iter().map(|id| machine.ran(*id)).sum::<u64>();
    let share = ran(&machine) as f64 / (5000 * MS) as f64;
    assert!((1.45..=1.55).contains(&share), "four busy: {share}");
    for id in &ids[1..] {
        let kick = machine.sched.block(*id, Ticks(machine.now));
        machine.kick(kick);
    }
    machine.set_cap(group, 50);
    let before = ran(&machine);
    machine.run_for(5000 * MS);
    let share = (ran(&machine) - before) as f64 / (5000 * MS) as f64;
    assert!((0.475..=0.525).contains(&share), "one busy: {share}");
}

#[test]
fn what_ran_before_a_cap_was_set_does_not_count() {
    let mut machine = Machine::new(1);
    let alone = machine.add(PLAIN, HOG);
    machine.run_for(5000 * MS);
    machine.set_cap(machine.group_of(alone), 30);
    let before = machine.ran(alone);
    machine.run_for(1000 * MS);
    let share = (machine.ran(alone) - before) as f64 / (1000 * MS) as f64;
    assert!((0.28..=0.32).contains(&share), "{share}");
}

#[test]
fn a_cap_above_what_the_units_can_use_is_none() {
    let mut machine = Machine::new(1);
    let id = machine.add(capped(100), HOG);
    machine.run_for(5000 * MS);
    assert_share(&machine, id, 5000 * MS, 1.0);
}

#[test]
fn pools_keep_to_themselves() {
    let mut machine = Machine::new(4);
    let second = PoolId::new(1).unwrap();
    for (pool, cpus) in [(PoolId::FIRST, 0b0011), (second, 0b1100)] {
        let kick = machine.sched.set_pool(pool, set(cpus), Ticks(0));
        machine.kick(kick);
    }
    let crowd = [0; 6].map(|_| machine.add(PLAIN, HOG));
    let alone = machine.add(
        Single {
            pool: second,
            ..PLAIN
        },
        HOG,
    );
    machine.run_for(5000 * MS);
    for id in crowd {
        assert_share(&machine, id, 5000 * MS, 2.0 / 6.0);
    }
    assert_share(&machine, alone, 5000 * MS, 1.0);
    // One goes over, where there is room.
    let group = machine.group_of(crowd[0]);
    let kick = machine
        .sched
        .move_group(group, second, Ticks(machine.now))
        .unwrap();
    machine.kick(kick);
    assert_eq!(machine.sched.pool_of(group), Some(second));
    let before = machine.ran(crowd[0]);
    machine.run_for(1000 * MS);
    assert!(machine.ran(crowd[0]) - before > 990 * MS);
}

#[test]
fn each_pool_has_its_rate_limit_and_cpus_that_join_it_obey() {
    let mut machine = Machine::new(2);
    let second = PoolId::new(1).unwrap();
    machine.sched.set_ratelimit(second, 50_000);
    let mut units = Vec::new();
    for (pool, cpus) in [(PoolId::FIRST, 0b01), (second, 0b10)] {
        let kick = machine.sched.set_pool(pool, set(cpus), Ticks(0));
        machine.kick(kick);
        units.extend([0; 2].map(|_| machine.add(Single { pool, ..PLAIN }, HOG)));
    }
    assert_eq!(machine.sched.ratelimit(second), 50_000);
    assert_eq!(machine.sched.ratelimit(PoolId::FIRST), DEFAULT_RATELIMIT_US);
    machine.run_for(1000 * MS);
    let waits: Vec<_> = units
        .into_iter()
        .map(|id| machine.task(id).longest_wait / MS)
        .collect();
    let (first, second) = waits.split_at(2);
    assert!(first.iter().all(|ms| *ms < 25), "{first:?}");
    assert!(second.iter().all(|ms| *ms >= 50), "{second:?}");
}

#[test]
fn a_group_goes_only_after_its_units() {
    let mut machine = Machine::new(1);
    let id = machine.add(PLAIN, HOG);
    let group = machine.group_of(id);
    assert_eq!(machine.sched.remove_group(group), Err(SchedError::Busy));
    assert_eq!(machine.sched.remove(id), Ok(()));
    assert_eq!(machine.sched.remove_group(group), Ok(()));
    assert_eq!(machine.sched.remove_group(group), Err(SchedError::NoGroup));
}

#[test]
fn sleeping_often_does_not_evade_a_cap() {
    let mut machine = Machine::new(2);
    let capped = machine.add(
        capped(10),
        Load {
            burst: MS / 5,
            sleep: 10,
        },
    );
    machine.run_for(5000 * MS);
    let share = machine.ran(capped) as f64 / (5000 * MS) as f64;
    assert!((0.09..=0.105).contains(&share), "{share}");
}

#[test]
fn a_unit_alone_on_its_cpu_needs_no_timer() {
    let mut machine = Machine::new(2);
    machine.add(PLAIN, HOG);
    machine.add(PLAIN, HOG);
    machine.run_for(10_000 * MS);
    assert!(
        machine
            .cores
            .iter()
            .all(|core| core.until.is_none() && core.picks <= 2)
    );
}

#[test]
fn a_unit_alone_on_its_cpu_needs_no_timer_while_others_crowd_elsewhere() {
    let mut machine = Machine::new(2);
    machine.add(pinned(1), HOG);
    machine.add(pinned(2), HOG);
    machine.add(pinned(2), HOG);
    machine.run_for(10_000 * MS);
    assert!(machine.cores[0].until.is_none() && machine.cores[0].picks <= 2);
    assert!(machine.cores[1].until.is_some());
}

#[test]
fn hogs_are_switched_a_few_hundred_times_a_second_at_most() {
    let mut machine = Machine::new(2);
    for _ in 0..6 {
        machine.add(PLAIN, HOG);
    }
    machine.run_for(1000 * MS);
    assert!(machine.switches < 600, "{}", machine.switches);
}

#[test]
fn an_io_unit_runs_at_once_between_hogs() {
    let mut machine = Machine::new(1);
    machine.add(PLAIN, HOG);
    machine.add(PLAIN, HOG);
    let io = machine.add(
        PLAIN,
        Load {
            burst: MS / 10,
            sleep: 2 * MS,
        },
    );
    machine.run_for(50 * MS);
    machine.task(io).longest_wait = 0;
    machine.run_for(2000 * MS);
    assert!(
        machine.task(io).longest_wait < MS / 10,
        "waited {} us",
        machine.task(io).longest_wait
    );
}

#[test]
fn a_unit_that_sleeps_a_little_gets_no_more_than_its_share() {
    let mut machine = Machine::new(1);
    let hog = machine.add(PLAIN, HOG);
    let sleeper = machine.add(
        weighing(64),
        Load {
            burst: MS,
            sleep: 1,
        },
    );
    machine.run_for(10_000 * MS);
    let share = machine.ran(sleeper) as f64 / (10_000 * MS) as f64;
    assert!(share < 0.21, "weight 64 of 320 ran {share}");
    assert!(machine.ran(hog) > 7900 * MS);
}
