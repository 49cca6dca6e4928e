use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_oneof, proptest};

use super::queue::TimerQueue;
use super::{Clock, Nanos, Ticks};

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
fn an_id_without_room_is_not_armed() {
    let mut queue = TimerQueue::new();
    queue.reserve(1).unwrap();
    queue.arm(0, "known", Ticks(10));
    queue.arm(1, "unknown", Ticks(5));
    assert_eq!(queue.expire(Ticks(10)), Some("known"));
    assert_eq!(queue.expire(Ticks(10)), None);
}

#[derive(Clone, Debug)]
enum Op {
    Arm(u16, u64),
    Cancel(u16),
    Advance(u64),
}

const TIMERS: u16 = 16;

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (0..TIMERS, 0..400u64).prop_map(|(timer, deadline)| Op::Arm(timer, deadline)),
        (0..TIMERS, 0..400u64).prop_map(|(timer, deadline)| Op::Arm(timer, deadline)),
        (0..TIMERS).prop_map(Op::Cancel),
        (0..100u64).prop_map(Op::Advance),
    ]
}

proptest! {
    #[test]
    fn timers_behave_like_a_sorted_map(ops in vec(op(), 0..200)) {
        let mut queue = TimerQueue::new();
        queue.reserve(TIMERS).unwrap();
        // timer -> key and deadline
        let mut model: BTreeMap<u16, (usize, Ticks)> = BTreeMap::new();
        let mut now = Ticks::ZERO;
        for (key, op) in ops.into_iter().enumerate() {
            match op {
                Op::Arm(timer, deadline) => {
                    queue.arm(timer, (timer, key), Ticks(deadline));
                    model.insert(timer, (key, Ticks(deadline)));
                }
                Op::Cancel(timer) => {
                    queue.cancel(timer);
                    model.remove(&timer);
                }
                Op::Advance(span) => {
                    now = now.plus(Ticks(span));
                    let mut last = Ticks::ZERO;
                    while let Some((timer, key)) = queue.expire(now) {
                        let (armed_as, deadline) = model.remove(&timer).expect("expired twice or never armed");
                        assert!(armed_as == key && deadline <= now && deadline >= last);
                        last = deadline;
                    }
                    assert!(model.values().all(|armed| armed.1 > now), "an overdue timer was kept");
                }
            }
            assert_eq!(queue.next(), model.values().map(|armed| armed.1).min());
        }
    }
}
