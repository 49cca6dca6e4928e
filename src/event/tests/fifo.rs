//! The FIFO ABI as the guest sees it.

use core::sync::atomic::Ordering::Relaxed;

use super::support::{DOM, Guest, Table, close, table, upcall, vcpu};
use crate::abi::event_channel::fifo::{BUSY, LINK, LINKED, MASKED, PENDING};
use crate::event::{EventError, EventVirq, Notify, Port, Sent};

fn boot(ipis: u32) -> (Table, Guest) {
    let (mut table, _) = table();
    let guest = Guest::boot(&mut table, 2, 1);
    for n in 1..=ipis {
        assert_eq!(table.bind_ipi(0), Ok(Port(n)));
        guest.unmask(Port(n));
    }
    for vcpu in 0..2 {
        guest.take_upcall(vcpu);
    }
    (table, guest)
}

fn sent(notify: Notify) -> Result<Sent, EventError> {
    Ok(Sent::Local(notify))
}

fn drain(guest: &mut Guest, vcpu: usize) -> Vec<(u32, usize)> {
    let mut seen = Vec::new();
    guest.scan(vcpu, 10_000, |guest, port, queue| {
        guest.clear_pending(port);
        seen.push((port.0, queue));
    });
    seen
}

#[test]
fn the_first_event_becomes_the_head_and_the_next_are_linked_behind_it() {
    let (mut table, mut guest) = boot(3);
    assert_eq!(table.send(Port(2)), sent(upcall(0)));
    assert_eq!(guest.head(0, 7).load(Relaxed), 2);
    assert_eq!(guest.ready(0).load(Relaxed), 1 << 7);
    assert_eq!(guest.word(Port(2)).load(Relaxed), PENDING | LINKED);
    assert_eq!(table.send(Port(1)), sent(Notify::NONE));
    assert_eq!(table.send(Port(3)), sent(Notify::NONE));
    assert_eq!(guest.word(Port(2)).load(Relaxed), PENDING | LINKED | 1);
    assert_eq!(guest.word(Port(1)).load(Relaxed), PENDING | LINKED | 3);
    assert_eq!(drain(&mut guest, 0), [(2, 7), (1, 7), (3, 7)]);
    assert!((1..4).all(|n| guest.word(Port(n)).load(Relaxed) == 0));
}

#[test]
fn an_event_that_is_pending_already_changes_nothing() {
    let (mut table, mut guest) = boot(1);
    assert_eq!(table.send(Port(1)), sent(upcall(0)));
    for _ in 0..3 {
        assert_eq!(table.send(Port(1)), sent(Notify::NONE));
    }
    assert_eq!(drain(&mut guest, 0), [(1, 7)]);
    assert_eq!(table.send(Port(1)), sent(upcall(0)));
}

#[test]
fn a_masked_event_is_pending_and_linked_by_the_unmask() {
    let (mut table, mut guest) = boot(1);
    guest.mask(Port(1));
    assert_eq!(table.send(Port(1)), sent(Notify::NONE));
    assert_eq!(guest.word(Port(1)).load(Relaxed), PENDING | MASKED);
    assert!(guest.unmask(Port(1)), "the guest has to ask");
    assert_eq!(table.unmask(Port(1)), Ok(upcall(0)));
    assert_eq!(drain(&mut guest, 0), [(1, 7)]);
    assert_eq!(table.unmask(Port(1)), Ok(Notify::NONE));
}

#[test]
fn an_event_masked_on_its_queue_is_skipped_and_comes_back() {
    let (mut table, mut guest) = boot(2);
    let _ = table.send(Port(1)).unwrap();
    let _ = table.send(Port(2)).unwrap();
    guest.mask(Port(1));
    assert_eq!(drain(&mut guest, 0), [(2, 7)]);
    assert!(guest.unmask(Port(1)));
    assert_eq!(table.unmask(Port(1)), Ok(upcall(0)));
    assert_eq!(drain(&mut guest, 0), [(1, 7)]);
}

#[test]
fn the_ready_bit_interrupts_only_when_it_was_clear() {
    let (mut table, guest) = boot(2);
    table.set_priority(Port(2), 3).unwrap();
    assert_eq!(table.send(Port(1)), sent(upcall(0)));
    // Another queue becomes ready, but the guest has not taken the upcall.
    assert_eq!(table.send(Port(2)), sent(Notify::NONE));
    assert_eq!(guest.ready(0).load(Relaxed), 1 << 7 | 1 << 3);
}

#[test]
fn higher_priorities_are_taken_first() {
    let (mut table, mut guest) = boot(16);
    for n in 0..16 {
        assert_eq!(table.set_priority(Port(n + 1), 15 - n), Ok(()));
        let _ = table.send(Port(n + 1)).unwrap();
    }
    let queues: Vec<usize> = drain(&mut guest, 0).iter().map(|(_, q)| *q).collect();
    assert_eq!(queues, (0..16).collect::<Vec<_>>());
}

#[test]
fn a_priority_is_0_to_15_of_an_open_port_and_fifo_only() {
    let (mut table, _guest) = boot(1);
    for bad in [16, 255, 256, u32::MAX] {
        assert_eq!(
            table.set_priority(Port(1), bad),
            Err(EventError::BadPriority)
        );
    }
    assert_eq!(table.set_priority(Port(1), 15), Ok(()));
    assert_eq!(
        table.set_priority(Port(2), 1),
        Err(EventError::PriorityOfClosed)
    );
    assert_eq!(table.set_priority(Port(128), 1), Err(EventError::BadPort));
    let (mut old, _) = super::support::table();
    let port = old.bind_ipi(0).unwrap();
    assert_eq!(old.set_priority(port, 1), Err(EventError::NoPriorities));
}

#[test]
fn an_event_linked_before_a_change_of_vcpu_or_priority_stays_on_its_queue() {
    let (mut table, mut guest) = boot(0);
    let virq = table.bind_virq(3, 0).unwrap();
    guest.unmask(virq);
    let raise = |table: &mut Table| table.raise_virq(EventVirq::DOM_EXC, vcpu(0));
    assert_eq!(raise(&mut table), upcall(0));
    assert_eq!(table.bind_vcpu(virq, 1), Ok(Notify::NONE));
    table.set_priority(virq, 2).unwrap();
    assert_eq!(raise(&mut table), Notify::NONE);
    assert_eq!(drain(&mut guest, 0), [(virq.0, 7)]);
    assert_eq!(raise(&mut table), upcall(1));
    assert_eq!(drain(&mut guest, 1), [(virq.0, 2)]);
}

#[test]
fn a_tail_that_moved_to_another_queue_is_no_tail_of_the_old_one() {
    let (mut table, mut guest) = boot(2);
    // Port 1 is the tail of queue 7, is consumed, and moves to queue 4.
    let _ = table.send(Port(1)).unwrap();
    assert_eq!(drain(&mut guest, 0), [(1, 7)]);
    table.set_priority(Port(1), 4).unwrap();
    let _ = table.send(Port(1)).unwrap();
    // It is LINKED again, yet nothing may be linked behind it on queue 7.
    let _ = table.send(Port(2)).unwrap();
    assert_eq!(guest.head(0, 7).load(Relaxed), 2);
    assert_eq!(guest.word(Port(1)).load(Relaxed), PENDING | LINKED);
    assert_eq!(drain(&mut guest, 0), [(1, 4), (2, 7)]);
}

#[test]
fn a_port_closed_on_its_queue_is_not_reused_until_the_guest_unlinked_it() {
    let (mut table, mut guest) = boot(3);
    for n in 1..4 {
        let _ = table.send(Port(n)).unwrap();
    }
    close(&mut table, Port(2));
    assert_eq!(guest.word(Port(2)).load(Relaxed), LINKED | 3);
    assert_eq!(table.bind_ipi(0), Ok(Port(4)));
    assert_eq!(drain(&mut guest, 0), [(1, 7), (3, 7)]);
    assert_eq!(table.bind_ipi(0), Ok(Port(2)));
}

#[test]
fn a_guest_that_claims_every_closed_port_is_linked_costs_a_bounded_search() {
    let (mut table, mut guest) = boot(0);
    for _ in 1..8 {
        guest.expand(&mut table);
    }
    for word in guest.array.iter().flat_map(|page| page.words()) {
        word.store(LINKED, Relaxed);
    }
    assert_eq!(table.bind_ipi(0), Err(EventError::NoPort));
    guest.word(Port(1000)).store(0, Relaxed);
    assert_eq!(table.bind_ipi(0), Ok(Port(1000)));
}

#[test]
fn events_without_a_page_of_words_are_saved_and_can_be_polled() {
    let (mut table, guest) = boot(0);
    let ports: Vec<Port> = (0..2000).map(|_| table.bind_ipi(0).unwrap()).collect();
    let far = ports[1999];
    assert_eq!(table.send(far), sent(Notify::NONE));
    assert_eq!(table.is_pending(far), Ok(true));
    close(&mut table, far);
    assert_eq!(table.bind_ipi(0), Ok(far));
    assert_eq!(table.is_pending(far), Ok(false), "of its former life");
    drop(guest);
}

#[test]
fn a_closed_port_leaves_no_pending_bit() {
    let (mut table, guest) = boot(1);
    guest.mask(Port(1));
    let _ = table.send(Port(1)).unwrap();
    close(&mut table, Port(1));
    assert_eq!(guest.word(Port(1)).load(Relaxed), MASKED);
}

#[test]
fn reserved_bits_of_a_word_are_left_alone() {
    let (mut table, guest) = boot(2);
    let reserved = !(PENDING | MASKED | LINKED | BUSY | LINK);
    guest.word(Port(1)).store(reserved, Relaxed);
    let _ = table.send(Port(1)).unwrap();
    let _ = table.send(Port(2)).unwrap();
    let word = guest.word(Port(1)).load(Relaxed);
    assert_eq!(word, reserved | PENDING | LINKED | 2);
}

#[test]
fn a_busy_bit_that_the_guest_set_does_not_stop_the_sender() {
    let (mut table, mut guest) = boot(2);
    let _ = table.send(Port(1)).unwrap();
    guest.word(Port(1)).fetch_or(BUSY, Relaxed);
    let _ = table.send(Port(2)).unwrap();
    assert_eq!(guest.word(Port(1)).load(Relaxed), PENDING | LINKED | 2);
    assert_eq!(drain(&mut guest, 0), [(1, 7), (2, 7)]);
}

#[test]
fn loopback_channels_use_the_queues_too() {
    let (mut table, mut guest) = boot(0);
    let offered = table.alloc_unbound(DOM).unwrap();
    let (looped, notify) = table.bind_loopback(offered).unwrap();
    assert_eq!(notify, Notify::NONE, "masked");
    assert!(guest.unmask(looped));
    assert_eq!(table.unmask(looped), Ok(upcall(0)));
    guest.unmask(offered);
    assert_eq!(table.send(looped), sent(Notify::NONE));
    assert_eq!(drain(&mut guest, 0), [(looped.0, 7), (offered.0, 7)]);
}
