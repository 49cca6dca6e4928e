//! Opening, closing, status and limits.

use super::support::{DOM, Guest, PEER, close, reset, table, table_of, upcall};
use crate::error::Errno;
use crate::event::{Binding, End, EventError, EventTable, Notify, Port, Sent};
use crate::id::{DomId, VcpuId};

const EVERY_BAD_PORT: [u32; 8] = [0, 1, 127, 128, 4095, 4096, 131_072, u32::MAX];

#[test]
fn a_port_that_was_never_opened_is_refused_by_every_operation() {
    let (mut table, _) = table();
    for port in EVERY_BAD_PORT.map(Port) {
        assert_eq!(table.send(port), Err(EventError::BadPort));
        assert_eq!(table.close(port), Err(EventError::BadPort));
        assert_eq!(table.bind_vcpu(port, 0), Err(EventError::BadPort));
        assert_eq!(table.is_pending(port), Err(EventError::BadPort));
        assert_eq!(table.bind_loopback(port), Err(EventError::NotOffered));
        assert!(table.set_priority(port, 0).is_err());
        let end = End { dom: PEER, port };
        assert_eq!(table.raise_from_peer(port, end), Notify::NONE);
        table.peer_closed(port, end);
        table.finish_close(port);
    }
}

#[test]
fn a_closed_port_of_an_existing_bucket_has_a_status_and_may_be_unmasked() {
    let (mut table, _) = table();
    for port in [0, 1, 127] {
        assert_eq!(table.status(Port(port)).unwrap().binding, Binding::Closed);
        assert_eq!(table.unmask(Port(port)), Ok(Notify::NONE));
    }
    assert_eq!(table.status(Port(128)), Err(EventError::BadPort));
    assert_eq!(table.unmask(Port(128)), Err(EventError::BadPort));
}

#[test]
fn the_lowest_free_port_is_opened_first() {
    let (mut table, _) = table();
    for n in 1..300 {
        assert_eq!(table.alloc_unbound(PEER), Ok(Port(n)));
    }
    close(&mut table, Port(200));
    close(&mut table, Port(7));
    close(&mut table, Port(128));
    for n in [7, 128, 200, 300] {
        assert_eq!(table.bind_ipi(0), Ok(Port(n)));
    }
}

#[test]
fn two_levels_have_4095_ports_and_nothing_beyond_the_mask_is_written() {
    let (mut table, shared) = table();
    for n in 1..4096 {
        assert_eq!(table.bind_ipi(0), Ok(Port(n)));
    }
    assert_eq!(table.bind_ipi(0), Err(EventError::NoPort));
    assert_eq!(table.bind_virq(3, 0), Err(EventError::NoPort));
    assert_eq!(Errno::from(EventError::NoPort), Errno::NoSpc);
    for n in 1..4096 {
        assert!(matches!(table.send(Port(n)), Ok(Sent::Local(_))));
    }
    let words = shared.words();
    let word = |at: usize| words[at / 4].load(core::sync::atomic::Ordering::Relaxed);
    assert_eq!(word(48), !1);
    assert!((52..560).step_by(4).all(|at| word(at) == u32::MAX));
    assert!((560..4096).step_by(4).all(|at| word(at) == 0));
}

#[test]
fn the_domains_own_limit_holds_and_does_not_take_virqs_from_others() {
    let (mut table, _) = table_of(DOM, 1023, 1);
    for _ in 0..1023 {
        table.alloc_unbound(PEER).unwrap();
    }
    assert_eq!(table.alloc_unbound(PEER), Err(EventError::NoPort));
    // A refused bind leaves no trace (XSA-496): the VIRQ can be bound once there is a port.
    assert_eq!(table.bind_virq(3, 0), Err(EventError::NoPort));
    close(&mut table, Port(500));
    assert_eq!(table.bind_virq(3, 0), Ok(Port(500)));
}

#[test]
fn fifo_has_131071_ports_and_a_reset_of_all_of_them_goes_in_bounded_steps() {
    let (mut table, _) = table();
    let guest = Guest::boot(&mut table, 1, 128);
    for n in 1..131_072 {
        assert_eq!(table.alloc_unbound(PEER), Ok(Port(n)));
    }
    assert_eq!(table.alloc_unbound(PEER), Err(EventError::NoPort));
    table.reset_begin().unwrap();
    assert!(reset(&mut table, 64) >= 131_071 / 64);
    assert_eq!(table.bind_ipi(0), Ok(Port(1)));
    drop(guest);
}

#[test]
fn a_refused_open_at_a_bucket_boundary_leaves_the_next_bucket_unreachable() {
    let (mut table, _) = table();
    for _ in 1..128 {
        table.alloc_unbound(PEER).unwrap();
    }
    // XSA-47: the policy refuses, nothing was opened.
    let (mut remote, _) = table_of(PEER, u32::MAX, 1);
    assert_eq!(
        EventTable::bind_interdomain(&mut table, &mut remote, Port(1)),
        Err(EventError::NotOffered)
    );
    assert_eq!(table.send(Port(128)), Err(EventError::BadPort));
    assert_eq!(table.alloc_unbound(PEER), Ok(Port(128)));
}

#[test]
fn status_tells_what_each_port_is() {
    let (mut table, _) = table();
    let unbound = table.alloc_unbound(PEER).unwrap();
    let virq = table.bind_virq(3, 0).unwrap();
    let ipi = table.bind_ipi(1).unwrap();
    let offered = table.alloc_unbound(DOM).unwrap();
    let (looped, _) = table.bind_loopback(offered).unwrap();
    let binding = |port| table.status(port).unwrap().binding;
    assert_eq!(binding(unbound), Binding::Unbound(PEER));
    assert!(matches!(binding(virq), Binding::Virq(v) if v.raw() == 3));
    assert_eq!(binding(ipi), Binding::Ipi);
    assert_eq!(table.status(ipi).unwrap().vcpu.raw(), 1);
    let end = |port| Binding::Interdomain(End { dom: DOM, port });
    assert_eq!(binding(looped), end(offered));
    assert_eq!(binding(offered), end(looped));
}

#[test]
fn only_ports_of_a_peer_or_an_ipi_can_be_sent_on() {
    let (mut table, _) = table();
    let unbound = table.alloc_unbound(PEER).unwrap();
    let virq = table.bind_virq(3, 0).unwrap();
    let ipi = table.bind_ipi(0).unwrap();
    assert_eq!(table.send(unbound), Ok(Sent::Nowhere));
    assert_eq!(table.send(virq), Err(EventError::BadPort));
    assert_eq!(table.send(ipi), Ok(Sent::Local(upcall(0))));
}

#[test]
fn closing_a_loopback_end_makes_the_other_unbound() {
    let (mut table, _) = table();
    let offered = table.alloc_unbound(DOM).unwrap();
    let (looped, notify) = table.bind_loopback(offered).unwrap();
    assert_eq!(notify, upcall(0), "events may have been lost before");
    close(&mut table, looped);
    assert_eq!(
        table.status(offered).unwrap().binding,
        Binding::Unbound(DOM)
    );
    assert_eq!(table.send(offered), Ok(Sent::Nowhere));
    close(&mut table, offered);
}

#[test]
fn a_port_can_be_retargeted_unless_it_belongs_to_a_vcpu() {
    let (mut table, _) = table();
    let unbound = table.alloc_unbound(PEER).unwrap();
    let global = table.bind_virq(3, 0).unwrap();
    let own = table.bind_virq(1, 1).unwrap();
    let ipi = table.bind_ipi(0).unwrap();
    for port in [unbound, global] {
        assert_eq!(table.bind_vcpu(port, 1), Ok(Notify::NONE));
        assert_eq!(table.status(port).unwrap().vcpu.raw(), 1);
    }
    for port in [own, ipi] {
        assert_eq!(table.bind_vcpu(port, 1), Err(EventError::BadPort));
    }
    for absent in [2, 8, 256, u32::MAX] {
        assert_eq!(table.bind_vcpu(unbound, absent), Err(EventError::NoVcpu));
        assert_eq!(table.bind_ipi(absent), Err(EventError::NoVcpu));
    }
}

#[test]
fn a_closed_port_starts_anew_on_vcpu_0_without_its_event() {
    let (mut table, _) = table();
    let port = table.alloc_unbound(DOM).unwrap();
    let (looped, _) = table.bind_loopback(port).unwrap();
    let _ = table.bind_vcpu(looped, 1).unwrap();
    let _ = table.send(port).unwrap();
    assert_eq!(table.is_pending(looped), Ok(true));
    close(&mut table, looped);
    assert_eq!(table.alloc_unbound(PEER), Ok(looped));
    assert_eq!(table.is_pending(looped), Ok(false));
    assert_eq!(table.status(looped).unwrap().vcpu, VcpuId::ZERO);
}

#[test]
fn a_domain_cannot_have_more_vcpus_than_there_are() {
    let page = super::support::TestPage::new();
    assert!(EventTable::new(DomId(1), 1, 9, page).is_err());
}

#[test]
fn errors_have_the_numbers_of_the_abi() {
    use EventError as E;
    for (error, errno) in [
        (E::BadPort, Errno::Inval),
        (E::NotOffered, Errno::Inval),
        (E::NoMemory, Errno::NoMem),
        (E::NoVcpu, Errno::NoEnt),
        (E::BadVirq, Errno::Inval),
        (E::VirqBound, Errno::Exist),
        (E::BadControlOffset, Errno::Inval),
        (E::BadInfoOffset, Errno::NxIo),
        (E::AlreadyRegistered, Errno::Inval),
        (E::NoArray, Errno::OpNotSupp),
        (E::ArrayFull, Errno::NoSpc),
        (E::NoPriorities, Errno::NoSys),
        (E::BadPriority, Errno::Inval),
        (E::PriorityOfClosed, Errno::Acces),
        (E::ResetBusy, Errno::Busy),
        (E::ResetRaced, Errno::Again),
        (E::Retired, Errno::Inval),
    ] {
        assert_eq!(Errno::from(error), errno, "{error:?}");
    }
}

#[test]
fn the_port_table_leaves_the_last_of_the_heap_alone() {
    use armv7::heap::RESERVE;
    use armv7::host::heap::set_free;

    let (mut table, _) = table();
    for _ in 1..128 {
        table.alloc_unbound(PEER).unwrap();
    }
    set_free(RESERVE);
    assert_eq!(table.alloc_unbound(PEER), Err(EventError::NoMemory));
    set_free(usize::MAX);
    assert_eq!(table.alloc_unbound(PEER), Ok(Port(128)));
}
