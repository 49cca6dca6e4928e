use std::collections::BTreeMap;

use armv7::cpu::CpuId;
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};

use super::{Clock, Nanos, Ticks, TimerQueue};

const FREQUENCIES: [u32; 9] = [
    1000,
    32_768,
    1_000_000,
    19_200_000,
    24_000_000,
    62_500_000,
    100_000_000,
    1_000_000_000,
    u32::MAX,
];

#[test]
fn the_frequency_of_qemu_converts_exactly() {
    let clock = Clock::new(62_500_000).unwrap();
    assert_eq!(clock.ns(Ticks(1)), Nanos(16));
    assert_eq!(clock.ns(Ticks(1 << 50)), Nanos(1 << 54));
    assert_eq!(clock.ticks(Nanos(1_000_000)), Ticks(62_500));
}

#[test]
fn a_counter_without_frequency_is_refused() {
    assert!(Clock::new(0).is_none());
    assert!(Clock::new(999).is_none());
}

#[test]
fn times_beyond_the_end_saturate() {
    let clock = Clock::new(24_000_000).unwrap();
    assert_eq!(clock.ns(Ticks::NEVER), Nanos::NEVER);
    assert_eq!(clock.ns(Ticks(u64::MAX / 2)), Nanos::NEVER);
    assert_eq!(
        Clock::new(u32::MAX).unwrap().deadline(Nanos::NEVER),
        Ticks::NEVER
    );
    assert_eq!(Ticks(u64::MAX - 1).plus(Ticks(5)), Ticks::NEVER);
    assert_eq!(Ticks(1).since(Ticks(5)), Ticks::ZERO);
}

proptest! {
    #[test]
    fn conversion_drifts_less_than_a_part_per_million(
        hz in prop_oneof![proptest::sample::select(FREQUENCIES.as_slice()), 1000..=u32::MAX],
        value in any::<u64>(),
        shift in 0..64u32,
    ) {
        let clock = Clock::new(hz).unwrap();
        let value = value >> shift;
        let exact = u128::from(value) * 1_000_000_000 / u128::from(hz);
        let ns = u128::from(clock.ns(Ticks(value)).0);
        assert!(ns.abs_diff(exact.min(u128::from(u64::MAX))) <= exact / 1_000_000 + 1, "{hz} Hz {value} ticks");
        let exact = u128::from(value) * u128::from(hz) / 1_000_000_000;
        let ticks = u128::from(clock.ticks(Nanos(value)).0);
        assert!(ticks.abs_diff(exact.min(u128::from(u64::MAX))) <= exact / 1_000_000 + 1, "{hz} Hz {value} ns");
    }

    #[test]
    fn conversion_is_monotonic(hz in 1000..=u32::MAX, a in any::<u64>(), b in any::<u64>()) {
        let clock = Clock::new(hz).unwrap();
        let (a, b) = (a.min(b), a.max(b));
        assert!(clock.ns(Ticks(a)) <= clock.ns(Ticks(b)));
        assert!(clock.ticks(Nanos(a)) <= clock.ticks(Nanos(b)));
    }
}

#[test]
fn an_armed_timer_moves_with_its_cpu() {
    let one = CpuId::new(1).unwrap();
    let mut queue = TimerQueue::new();
    let id = queue.register("tick").unwrap();
    queue.arm(id, CpuId::BOOT, Ticks(10));
    queue.arm(id, one, Ticks(20));
    assert_eq!(queue.next(CpuId::BOOT), None);
    assert_eq!(queue.armed(id), Some((one, Ticks(20))));
    assert_eq!(queue.expire(one, Ticks(19)), None);
    assert_eq!(queue.expire(one, Ticks(20)), Some("tick"));
    assert_eq!(queue.expire(one, Ticks(20)), None, "a timer fires once");
}

#[test]
fn a_forgotten_timer_neither_fires_nor_arms() {
    let mut queue = TimerQueue::new();
    let id = queue.register(1).unwrap();
    queue.arm(id, CpuId::BOOT, Ticks(10));
    queue.unregister(id);
    queue.arm(id, CpuId::BOOT, Ticks(10));
    assert_eq!(queue.next(CpuId::BOOT), None);
    assert_eq!(queue.register(2), Ok(id), "ids are used again");
}

#[derive(Clone, Debug)]
enum Op {
    Register,
    Unregister(usize),
    Arm(usize, u32, u64),
    Cancel(usize),
    Advance(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        Just(Op::Register),
        (0..16usize).prop_map(Op::Unregister),
        (0..16usize, 0..8u32, 0..400u64).prop_map(|(t, cpu, d)| Op::Arm(t, cpu, d)),
        (0..16usize, 0..8u32, 0..400u64).prop_map(|(t, cpu, d)| Op::Arm(t, cpu, d)),
        (0..16usize).prop_map(Op::Cancel),
        (0..100u64).prop_map(Op::Advance),
    ]
}

proptest! {
    #[test]
    fn timers_behave_like_a_sorted_map(ops in vec(op(), 0..200)) {
        let mut queue = TimerQueue::new();
        // timer -> where and when it is armed
        let mut model: BTreeMap<usize, (CpuId, Ticks)> = BTreeMap::new();
        let mut ids = Vec::new();
        let mut now = Ticks::ZERO;
        for op in ops {
            match op {
                Op::Register => ids.push(Some(queue.register(ids.len()).unwrap())),
                Op::Unregister(t) => {
                    if let Some(slot) = ids.get_mut(t)
                        && let Some(id) = slot.take()
                    {
                        queue.unregister(id);
                        model.remove(&t);
                    }
                }
                Op::Arm(t, cpu, deadline) => {
                    if let Some(&Some(id)) = ids.get(t) {
                        let at = (CpuId::new(cpu).unwrap(), Ticks(deadline));
                        queue.arm(id, at.0, at.1);
                        model.insert(t, at);
                    }
                }
                Op::Cancel(t) => {
                    if let Some(&Some(id)) = ids.get(t) {
                        queue.cancel(id);
                        model.remove(&t);
                    }
                }
                Op::Advance(span) => {
                    now = now.plus(Ticks(span));
                    for cpu in CpuId::all() {
                        let mut last = Ticks::ZERO;
                        while let Some(t) = queue.expire(cpu, now) {
                            let (on, deadline) = model.remove(&t).expect("expired twice or never armed");
                            assert!(on == cpu && deadline <= now && deadline >= last);
                            last = deadline;
                        }
                    }
                    assert!(model.values().all(|&(_, deadline)| deadline > now), "an overdue timer was kept");
                }
            }
            for cpu in CpuId::all() {
                let earliest = model.values().filter(|at| at.0 == cpu).map(|at| at.1).min();
                assert_eq!(queue.next(cpu), earliest);
            }
        }
    }
}
