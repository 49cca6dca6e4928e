use crate::domain::Rights;
use crate::domain::testing::{NO_TLB, guest};
use crate::time::now;
use crate::vcpu::{RunState, Vcpu, halt, work};

fn state(vcpu: &Vcpu) -> RunState {
    vcpu.runstate.lock().state()
}

#[test]
fn a_vcpu_is_switched_on_once_and_finds_where_it_starts() {
    let (_domain, vcpu) = guest(Rights::GUEST, NO_TLB, &[]);
    assert!(vcpu.start(0x8001, 7));
    assert!(!vcpu.start(0x9000, 8), "it is on");
    assert_ne!(vcpu.requested() & work::RESTART, 0);
    assert_eq!(vcpu.restart.lock().take(), Some((0x8001, 7)));
}

#[test]
fn a_vcpu_that_went_off_can_be_switched_on_before_it_is_saved() {
    let (_domain, vcpu) = guest(Rights::GUEST, NO_TLB, &[]);
    assert!(vcpu.start(0x8000, 0));
    vcpu.take_requests();
    vcpu.halt(halt::OFFLINE);
    assert_eq!(state(&vcpu), RunState::Offline);
    // The first start was never taken: the second one is what counts.
    assert!(vcpu.start(0x9000, 1));
    assert_ne!(vcpu.requested() & work::RESTART, 0);
    assert_eq!(vcpu.restart.lock().take(), Some((0x9000, 1)));
    assert_eq!((vcpu.halted(), state(&vcpu)), (0, RunState::Runnable));
}

#[test]
fn of_many_that_switch_a_vcpu_on_one_succeeds() {
    let (_domain, vcpu) = guest(Rights::GUEST, NO_TLB, &[]);
    for _ in 0..200 {
        let wins = std::thread::scope(|scope| {
            let starters = [1, 2, 3, 4].map(|n| {
                let vcpu = &vcpu;
                scope.spawn(move || vcpu.start(n << 12, n))
            });
            starters
                .into_iter()
                .filter_map(|starter| starter.join().ok())
                .filter(|won| *won)
                .count()
        });
        assert_eq!(wins, 1);
        assert!(vcpu.restart.lock().is_some());
        vcpu.halt(halt::OFFLINE);
    }
}

#[test]
fn accounts_agree_with_the_reasons_whoever_comes_first() {
    let (_domain, vcpu) = guest(Rights::GUEST, NO_TLB, &[]);
    vcpu.unhalt(halt::OFFLINE);
    for _ in 0..500 {
        std::thread::scope(|scope| {
            scope.spawn(|| vcpu.block());
            scope.spawn(|| vcpu.kick());
            scope.spawn(|| vcpu.account(RunState::Running, now()));
        });
        let expected = vcpu.halted() != 0;
        assert_eq!(state(&vcpu) == RunState::Blocked, expected);
        vcpu.unhalt(halt::BLOCKED);
        vcpu.take_requests();
    }
    let now = now();
    let spent = vcpu.runstate.lock().spent(now);
    assert!(spent.iter().map(|ticks| ticks.0).sum::<u64>() <= now.0);
}

#[test]
fn a_blocked_vcpu_that_is_paused_and_woken_is_offline() {
    let (_domain, vcpu) = guest(Rights::GUEST, NO_TLB, &[]);
    vcpu.unhalt(halt::OFFLINE);
    vcpu.halt(halt::BLOCKED);
    vcpu.halt(halt::PAUSED);
    assert_eq!(state(&vcpu), RunState::Blocked, "as Xen has it");
    vcpu.unhalt(halt::BLOCKED);
    assert_eq!(state(&vcpu), RunState::Offline);
    vcpu.account(RunState::Running, now());
    assert_eq!(state(&vcpu), RunState::Offline, "its CPU comes too late");
    vcpu.unhalt(halt::PAUSED);
    assert_eq!(state(&vcpu), RunState::Runnable);
}
