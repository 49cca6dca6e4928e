//! Channels between two domains: rules, and random histories of two tables against one model of the pair.

use proptest::prelude::{Strategy, any, prop_oneof, proptest};

use super::support::{DOM, Guest, PEER, Table, table_of, upcall};
use crate::event::{Binding, Close, End, EventError, EventTable, Notify, Port, Reset, Sent};

fn pair() -> [Table; 2] {
    [table_of(PEER, 12, 1).0, table_of(DOM, 12, 1).0]
}

const DOMS: [crate::id::DomId; 2] = [PEER, DOM];

fn both(tables: &mut [Table; 2], local: usize) -> (&mut Table, &mut Table) {
    let [a, b] = tables;
    if local == 0 { (a, b) } else { (b, a) }
}

fn bind(tables: &mut [Table; 2], local: usize, port: Port) -> Result<(Port, Notify), EventError> {
    let (local, remote) = both(tables, local);
    EventTable::bind_interdomain(local, remote, port)
}

#[test]
fn only_the_domain_that_was_named_can_bind_and_only_once() {
    let mut tables = pair();
    let other = tables[1].alloc_unbound(crate::id::DomId(9)).unwrap();
    let offered = tables[1].alloc_unbound(PEER).unwrap();
    assert_eq!(bind(&mut tables, 0, other), Err(EventError::NotOffered));
    assert_eq!(bind(&mut tables, 0, Port(9)), Err(EventError::NotOffered));
    let (port, notify) = bind(&mut tables, 0, offered).unwrap();
    assert_eq!(notify, upcall(0), "the binder may have missed events");
    assert_eq!(bind(&mut tables, 0, offered), Err(EventError::NotOffered));
    assert_eq!(tables[0].alloc_unbound(DOM), Ok(Port(port.0 + 1)));
}

#[test]
fn an_event_arrives_at_the_other_end() {
    let mut tables = pair();
    let offered = tables[1].alloc_unbound(PEER).unwrap();
    let (port, _) = bind(&mut tables, 0, offered).unwrap();
    let from = End { dom: PEER, port };
    let to = End {
        dom: DOM,
        port: offered,
    };
    assert_eq!(tables[0].send(port), Ok(Sent::Peer { to, from }));
    assert_eq!(tables[1].raise_from_peer(offered, from), upcall(0));
    assert_eq!(tables[1].is_pending(offered), Ok(true));
}

#[test]
fn a_port_of_the_hypervisor_s_is_not_the_domain_s_to_use() {
    let mut tables = pair();
    let offered = tables[1].offer(PEER).unwrap();
    assert_eq!(tables[1].send_of_hypervisor(offered), Sent::Nowhere);
    let (port, _) = bind(&mut tables, 0, offered).unwrap();
    let (from, to) = (
        End { dom: PEER, port },
        End {
            dom: DOM,
            port: offered,
        },
    );
    // The other end uses it as any other: what it sends is not raised here.
    assert_eq!(tables[0].send(port), Ok(Sent::Peer { to, from }));
    assert_eq!(tables[1].raise_from_peer(offered, from), Notify::NONE);
    let sent = tables[1].send_of_hypervisor(offered);
    assert_eq!(sent, Sent::Peer { to: from, from: to });
    // The domain's own calls do not reach it, and its reset leaves it alone.
    let bad = Some(EventError::BadPort);
    assert_eq!(tables[1].send(offered).err(), bad);
    assert_eq!(tables[1].close(offered).err(), bad);
    assert_eq!(tables[1].bind_vcpu(offered, 0).err(), bad);
    assert_eq!(tables[1].is_pending(offered).err(), bad);
    tables[1].reset_begin().unwrap();
    assert_eq!(tables[1].reset_step(64), Ok(Reset::Done));
    assert_eq!(tables[1].send_of_hypervisor(offered), sent);
    // The other end may go and come again.
    assert_eq!(tables[0].close(port), Ok(Close::Peer { to, from }));
    tables[1].peer_closed(offered, from);
    tables[0].finish_close(port);
    assert!(bind(&mut tables, 0, offered).is_ok());
    // It closes with the domain.
    tables[1].retire();
    assert_eq!(
        tables[1].reset_step(64),
        Ok(Reset::Peer { to: from, from: to })
    );
    tables[1].finish_close(offered);
    assert_eq!(tables[1].reset_step(64), Ok(Reset::Done));
}

#[test]
fn an_event_that_was_under_way_when_the_channel_closed_is_dropped() {
    let mut tables = pair();
    let offered = tables[1].alloc_unbound(PEER).unwrap();
    let (port, _) = bind(&mut tables, 0, offered).unwrap();
    let Ok(Sent::Peer { to, from }) = tables[0].send(port) else {
        panic!("the peer is another domain")
    };
    assert_eq!(
        tables[1].close(offered),
        Ok(Close::Peer { to: from, from: to })
    );
    assert_eq!(tables[1].raise_from_peer(to.port, from), Notify::NONE);
    tables[0].peer_closed(port, to);
    tables[1].finish_close(offered);
    let ipi = tables[1].bind_ipi(0).unwrap();
    assert_eq!(ipi, offered);
    assert_eq!(tables[1].raise_from_peer(ipi, from), Notify::NONE);
}

#[test]
fn a_port_is_not_reused_before_its_peer_knows_that_it_closed() {
    let mut tables = pair();
    let offered = tables[1].alloc_unbound(PEER).unwrap();
    let (port, _) = bind(&mut tables, 0, offered).unwrap();
    let Ok(Close::Peer { to, from }) = tables[0].close(port) else {
        panic!("the peer is another domain")
    };
    // Not notified yet. The peer closes its end itself, and both are opened again.
    let Ok(Close::Peer { to: back, from: by }) = tables[1].close(offered) else {
        panic!("still connected")
    };
    tables[0].peer_closed(back.port, by);
    tables[1].finish_close(offered);
    assert_eq!(tables[1].alloc_unbound(PEER), Ok(offered));
    let (again, _) = bind(&mut tables, 0, offered).unwrap();
    assert_ne!(again, port);
    // The message of the first close arrives at last: it is about a channel of the past.
    tables[1].peer_closed(to.port, from);
    let peer = End {
        dom: PEER,
        port: again,
    };
    assert_eq!(
        tables[1].status(offered).unwrap().binding,
        Binding::Interdomain(peer)
    );
    tables[0].finish_close(port);
    assert_eq!(tables[0].bind_ipi(0), Ok(port));
}

#[test]
fn a_port_that_is_being_closed_can_do_nothing() {
    let mut tables = pair();
    let offered = tables[1].alloc_unbound(PEER).unwrap();
    let (port, _) = bind(&mut tables, 0, offered).unwrap();
    let guest = Guest::boot(&mut tables[0], 1, 1);
    let _ = tables[0].close(port).unwrap();
    let table = &mut tables[0];
    assert_eq!(table.close(port), Err(EventError::BadPort));
    assert_eq!(table.send(port), Err(EventError::BadPort));
    assert_eq!(table.bind_vcpu(port, 0), Err(EventError::BadPort));
    assert_eq!(table.is_pending(port), Err(EventError::BadPort));
    assert_eq!(
        table.set_priority(port, 1),
        Err(EventError::PriorityOfClosed)
    );
    assert_eq!(table.status(port).unwrap().binding, Binding::Closed);
    assert_eq!(table.unmask(port), Ok(Notify::NONE));
    drop(guest);
}

#[derive(Clone, Debug)]
enum Op {
    Alloc(usize),
    Bind(usize, u32),
    Close(usize, u32),
    Send(usize, u32),
    /// One of the messages under way arrives.
    Arrive(usize),
}

#[derive(Clone, Copy, Debug)]
enum Message {
    Event { to: End, from: End },
    Closed { to: End, from: End },
    Finish(End),
}

fn op() -> impl Strategy<Value = Op> {
    let side = 0..2usize;
    prop_oneof![
        2 => side.clone().prop_map(Op::Alloc),
        3 => (side.clone(), 0..14u32).prop_map(|(s, p)| Op::Bind(s, p)),
        3 => (side.clone(), 0..14u32).prop_map(|(s, p)| Op::Close(s, p)),
        3 => (side, 0..14u32).prop_map(|(s, p)| Op::Send(s, p)),
        6 => any::<usize>().prop_map(Op::Arrive),
    ]
}

fn side_of(end: End) -> usize {
    usize::from(end.dom == DOM)
}

/// Every connected port has a peer that is connected back, or a message under way that will disconnect it.
fn check(tables: &[Table; 2], under_way: &[Message]) {
    for (side, table) in tables.iter().enumerate() {
        for port in (1..13).map(Port) {
            let Binding::Interdomain(peer) = table.status(port).unwrap().binding else {
                continue;
            };
            let me = End {
                dom: DOMS[side],
                port,
            };
            let back = tables[side_of(peer)].status(peer.port).unwrap().binding;
            let told = under_way
                .iter()
                .any(|m| matches!(m, Message::Closed { to, from } if *to == me && *from == peer));
            assert!(
                (back == Binding::Interdomain(me)) != told,
                "{me:?} {peer:?} {back:?} {under_way:?}"
            );
        }
    }
}

proptest! {
    #[test]
    fn both_ends_of_every_channel_agree_in_any_order_of_messages(
        ops in proptest::collection::vec(op(), 1..200)
    ) {
        let mut tables = pair();
        let mut under_way: Vec<Message> = Vec::new();
        for op in ops {
            match op {
                Op::Alloc(side) => {
                    let _ = tables[side].alloc_unbound(DOMS[1 - side]);
                }
                Op::Bind(side, port) => {
                    let offered = tables[1 - side].status(Port(port)).map(|s| s.binding);
                    let result = bind(&mut tables, side, Port(port));
                    if result != Err(EventError::NoPort) {
                        assert_eq!(result.is_ok(), offered == Ok(Binding::Unbound(DOMS[side])));
                    }
                }
                Op::Close(side, port) => {
                    let before = tables[side].status(Port(port)).unwrap().binding;
                    match tables[side].close(Port(port)) {
                        Ok(Close::Done) => assert!(matches!(before, Binding::Unbound(_))),
                        Ok(Close::Peer { to, from }) => {
                            assert_eq!(before, Binding::Interdomain(to));
                            under_way.push(Message::Closed { to, from });
                        }
                        Err(_) => assert_eq!(before, Binding::Closed),
                    }
                }
                Op::Send(side, port) => {
                    let before = tables[side].status(Port(port)).unwrap().binding;
                    match tables[side].send(Port(port)) {
                        Ok(Sent::Peer { to, from }) => {
                            assert_eq!(before, Binding::Interdomain(to));
                            under_way.push(Message::Event { to, from });
                        }
                        Ok(Sent::Nowhere) => assert!(matches!(before, Binding::Unbound(_))),
                        Ok(Sent::Local(_)) => panic!("no channel of a domain to itself"),
                        Err(_) => assert_eq!(before, Binding::Closed),
                    }
                }
                Op::Arrive(which) if !under_way.is_empty() => {
                    match under_way.swap_remove(which % under_way.len()) {
                        Message::Event { to, from } => {
                            let linked = tables[side_of(to)].status(to.port).unwrap().binding;
                            let notify = tables[side_of(to)].raise_from_peer(to.port, from);
                            if linked != Binding::Interdomain(from) {
                                assert_eq!(notify, Notify::NONE);
                            }
                        }
                        Message::Closed { to, from } => {
                            tables[side_of(to)].peer_closed(to.port, from);
                            under_way.push(Message::Finish(from));
                        }
                        Message::Finish(end) => tables[side_of(end)].finish_close(end.port),
                    }
                }
                Op::Arrive(_) => {}
            }
            check(&tables, &under_way);
        }
    }
}
