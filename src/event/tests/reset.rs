//! Resets.

use super::support::{DOM, PEER, close, reset, table, table_of};
use crate::event::{Binding, Close, End, EventError, EventTable, Port, Reset};

#[test]
fn a_reset_is_one_at_a_time_and_cannot_be_continued_before_it_began() {
    let (mut table, _) = table();
    assert_eq!(table.reset_step(1), Err(EventError::ResetBusy));
    table.reset_begin().unwrap();
    assert_eq!(table.reset_begin(), Err(EventError::ResetBusy));
    assert_eq!(table.reset_step(10), Ok(Reset::Done));
    assert_eq!(table.reset_step(10), Err(EventError::ResetBusy));
}

#[test]
fn a_reset_without_budget_goes_nowhere_and_does_no_harm() {
    let (mut table, _) = table();
    table.bind_ipi(0).unwrap();
    table.reset_begin().unwrap();
    assert_eq!(table.reset_step(0), Ok(Reset::More));
    assert!(table.is_resetting());
    assert_eq!(reset(&mut table, 1), 2);
}

#[test]
fn a_port_opened_behind_a_reset_makes_it_fail_but_not_hang() {
    let (mut table, _) = table();
    table.bind_ipi(0).unwrap();
    table.bind_virq(3, 0).unwrap();
    table.reset_begin().unwrap();
    assert_eq!(table.reset_step(1), Ok(Reset::More));
    assert_eq!(table.bind_ipi(0), Ok(Port(1)));
    assert_eq!(table.reset_step(10), Err(EventError::ResetRaced));
    table.reset_begin().unwrap();
    reset(&mut table, 10);
    assert_eq!(table.bind_virq(3, 0), Ok(Port(1)));
}

#[test]
fn a_reset_tells_each_peer() {
    let (mut local, _) = table();
    let (mut remote, _) = table_of(PEER, 100, 1);
    for _ in 0..3 {
        let offered = remote.alloc_unbound(DOM).unwrap();
        let _ = EventTable::bind_interdomain(&mut local, &mut remote, offered).unwrap();
    }
    local.reset_begin().unwrap();
    let mut told = 0;
    loop {
        match local.reset_step(100).unwrap() {
            Reset::Peer { to, from } => {
                assert_eq!((to.dom, from.dom), (PEER, DOM));
                remote.peer_closed(to.port, from);
                local.finish_close(from.port);
                told += 1;
            }
            Reset::More => {}
            Reset::Done => break,
        }
    }
    assert_eq!(told, 3);
    for port in 1..4 {
        let status = remote.status(Port(port)).unwrap();
        assert_eq!(status.binding, Binding::Unbound(DOM));
        close(&mut remote, Port(port));
    }
}

#[test]
fn the_end_of_a_domain_waits_for_those_who_are_closing_a_port_of_it() {
    let (mut local, _) = table();
    let (mut remote, _) = table_of(PEER, 100, 1);
    let offered = remote.alloc_unbound(DOM).unwrap();
    let (port, _) = EventTable::bind_interdomain(&mut local, &mut remote, offered).unwrap();
    let from = End { dom: DOM, port };
    let to = End {
        dom: PEER,
        port: offered,
    };
    assert_eq!(local.close(port), Ok(Close::Peer { to, from }));
    local.retire();
    assert_eq!(local.reset_step(10), Err(EventError::ResetRaced));
    local.finish_close(port);
    local.retire();
    assert_eq!(local.reset_step(10), Ok(Reset::Done));
}
