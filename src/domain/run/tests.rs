use super::{account, halt, kick_vcpu, now, start, unhalt};
use crate::domain::Rights;
use crate::domain::runstate::State;
use crate::domain::testing::{NO_TLB, guest};
use crate::domain::vcpu::{Vcpu, halt as reason, work};

fn state(vcpu: &Vcpu) -> State {
    vcpu.runstate.lock().state()
}

#[test]
fn a_vcpu_is_switched_on_once_and_finds_where_it_starts() {
    let (_domain, vcpu) = guest(Rights::GUEST, NO_TLB, &[]);
    assert!(start(&vcpu, 0x8001, 7));
    assert!(!start(&vcpu, 0x9000, 8), "it is on");
    assert_ne!(vcpu.requested() & work::RESTART, 0);
    assert_eq!(vcpu.restart.lock().take(), Some((0x8001, 7)));
}

#[test]
fn a_vcpu_that_went_off_can_be_switched_on_before_it_is_saved() {
    let (_domain, vcpu) = guest(Rights::GUEST, NO_TLB, &[]);
    assert!(start(&vcpu, 0x8000, 0));
    vcpu.take_requests();
    halt(&vcpu, reason::OFFLINE);
    assert_eq!(state(&vcpu), State::Offline);
    // The first start was never taken: the second one is what counts.
    assert!(start(&vcpu, 0x9000, 1));
    assert_ne!(vcpu.requested() & work::RESTART, 0);
    assert_eq!(vcpu.restart.lock().take(), Some((0x9000, 1)));
    assert_eq!((vcpu.halted(), state(&vcpu)), (0, State::Runnable));
}

#[test]
fn of_many_that_switch_a_vcpu_on_one_succeeds() {
    let (_domain, vcpu) = guest(Rights::GUEST, NO_TLB, &[]);
    for _ in 0..200 {
        let wins = std::thread::scope(|scope| {
            let starters = [1, 2, 3, 4].map(|n| {
                let vcpu = &vcpu;
                scope.spawn(move || start(vcpu, n << 12, n))
            });
            starters
                .into_iter()
                .filter_map(|starter| starter.join().ok())
                .filter(|won| *won)
                .count()
        });
        assert_eq!(wins, 1);
        assert!(vcpu.restart.lock().is_some());
        halt(&vcpu, reason::OFFLINE);
    }
}

#[test]
fn accounts_agree_with_the_reasons_whoever_comes_first() {
    let (_domain, vcpu) = guest(Rights::GUEST, NO_TLB, &[]);
    unhalt(&vcpu, reason::OFFLINE);
    for _ in 0..500 {
        std::thread::scope(|scope| {
            scope.spawn(|| super::block(&vcpu));
            scope.spawn(|| kick_vcpu(&vcpu));
            scope.spawn(|| account(&vcpu, State::Running, now()));
        });
        let expected = vcpu.halted() != 0;
        assert_eq!(state(&vcpu) == State::Blocked, expected);
        unhalt(&vcpu, reason::BLOCKED);
        vcpu.take_requests();
    }
    let now = now();
    let spent = vcpu.runstate.lock().spent(now);
    assert!(spent.iter().map(|ticks| ticks.0).sum::<u64>() <= now.0);
}

#[test]
fn a_blocked_vcpu_that_is_paused_and_woken_is_offline() {
    let (_domain, vcpu) = guest(Rights::GUEST, NO_TLB, &[]);
    unhalt(&vcpu, reason::OFFLINE);
    halt(&vcpu, reason::BLOCKED);
    halt(&vcpu, reason::PAUSED);
    assert_eq!(state(&vcpu), State::Blocked, "as Xen has it");
    unhalt(&vcpu, reason::BLOCKED);
    assert_eq!(state(&vcpu), State::Offline);
    account(&vcpu, State::Running, now());
    assert_eq!(state(&vcpu), State::Offline, "its CPU comes too late");
    unhalt(&vcpu, reason::PAUSED);
    assert_eq!(state(&vcpu), State::Runnable);
}
