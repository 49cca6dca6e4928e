//! `SCHEDOP_poll`.

use super::support::{DOM, Guest, table, upcall, vcpu, wake};
use crate::event::{EventError, Notify, Poll, Port, Sent};

#[test]
fn a_poll_of_a_pending_event_does_not_wait() {
    let (mut table, _) = table();
    let quiet = table.bind_ipi(0).unwrap();
    let port = table.bind_ipi(0).unwrap();
    let _ = table.send(port).unwrap();
    assert_eq!(table.poll(vcpu(1), &[quiet, port]), Ok(Poll::Ready));
    assert_eq!(table.send(quiet), Ok(Sent::Local(Notify::NONE)));
}

#[test]
fn ports_outside_the_table_cannot_be_polled() {
    let (mut table, _) = table();
    let port = table.bind_ipi(0).unwrap();
    for bad in [0, 2, 127, 128, 129, 4095, 4096, 131_072, u32::MAX] {
        let poll = table.poll(vcpu(0), &[port, Port(bad)]);
        assert_eq!(poll, Err(EventError::BadPort), "{bad}");
    }
    assert_eq!(table.send(port), Ok(Sent::Local(upcall(0))), "nobody polls");
}

#[test]
fn a_poller_of_one_port_is_woken_by_that_port_alone_and_once() {
    let (mut table, _) = table();
    let other = table.bind_ipi(0).unwrap();
    let port = table.bind_ipi(0).unwrap();
    assert_eq!(table.poll(vcpu(1), &[port]), Ok(Poll::Wait));
    assert_eq!(table.send(other), Ok(Sent::Local(upcall(0))));
    let Ok(Sent::Local(notify)) = table.send(port) else {
        panic!("an IPI is local")
    };
    assert_eq!(notify.wake, wake(1).wake);
    assert_eq!(notify.wakes().iter().collect::<Vec<_>>(), [vcpu(1)]);
    assert_eq!(table.send(port), Ok(Sent::Local(Notify::NONE)));
}

#[test]
fn a_poller_of_several_ports_or_none_is_woken_by_any_event_even_a_masked_one() {
    let (mut table, _) = table();
    let guest = Guest::boot(&mut table, 2, 1);
    let ports = [table.bind_ipi(0).unwrap(), table.bind_ipi(0).unwrap()];
    let third = table.bind_ipi(0).unwrap();
    for (vcpu_id, polled) in [(0, &ports[..]), (1, &[])] {
        assert_eq!(table.poll(vcpu(vcpu_id), polled), Ok(Poll::Wait));
    }
    let mut both = wake(0);
    both |= wake(1);
    assert_eq!(table.send(third), Ok(Sent::Local(both)));
    drop(guest);
}

#[test]
fn a_poll_that_ended_is_not_woken() {
    let (mut table, _) = table();
    let port = table.alloc_unbound(DOM).unwrap();
    let (looped, _) = table.bind_loopback(port).unwrap();
    assert_eq!(table.poll(vcpu(1), &[port]), Ok(Poll::Wait));
    table.end_poll(vcpu(1));
    assert_eq!(table.send(looped), Ok(Sent::Local(Notify::NONE)));
}
