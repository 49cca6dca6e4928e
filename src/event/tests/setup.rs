//! Pages that the guest registers.

use core::sync::atomic::Ordering::Relaxed;

use super::support::{
    CONTROL_OFFSET, Guest, INFO_OFFSET, TestPage, close, reset, table, table_of, upcall, vcpu,
};
use crate::abi::event_channel::fifo::{LINKED, MASKED, PENDING};
use crate::event::{Control, EventError, Notify, Port, Sent};

#[test]
fn a_vcpu_info_is_copied_marked_and_stays() {
    let (mut table, shared) = table();
    shared.write(0, &[0, 0, 7, 7]);
    shared.write(40, &[9; 8]);
    let page = TestPage::new();
    let guest = page.guest();
    assert_eq!(table.register_vcpu_info(0, page, 4048), Ok(upcall(0)));
    let mut copy = [0; 48];
    guest.read(4048, &mut copy);
    assert_eq!(copy[..4], [1, 0, 7, 7]);
    assert_eq!(copy[8..16], [0xFF; 8]);
    assert_eq!(copy[40..], [9; 8]);
    // From now on the upcall is set there, and not in the old place.
    guest.u8_at(4048).unwrap().store(0, Relaxed);
    guest.u64_at(4056).unwrap().store(0, Relaxed);
    let port = table.bind_ipi(0).unwrap();
    assert_eq!(table.send(port), Ok(Sent::Local(upcall(0))));
    assert_eq!(guest.u8_at(4048).unwrap().load(Relaxed), 1);
    assert_eq!(shared.u8_at(0).unwrap().load(Relaxed), 0);
    assert_eq!(
        table.register_vcpu_info(0, TestPage::new(), 0),
        Err(EventError::AlreadyRegistered)
    );
}

#[test]
fn a_vcpu_info_must_be_aligned_and_inside_its_page() {
    let (mut table, _) = table();
    for offset in [1, 4, 4049, 4052, 4056, 4096, u32::MAX - 7, u32::MAX] {
        let page = TestPage::new();
        let guest = page.guest();
        assert_eq!(
            table.register_vcpu_info(1, page, offset),
            Err(EventError::BadInfoOffset)
        );
        assert!(guest.is_zero());
    }
    assert_eq!(
        table.register_vcpu_info(2, TestPage::new(), 0),
        Err(EventError::NoVcpu)
    );
}

#[test]
fn a_refused_page_is_let_go_at_once_and_an_accepted_one_with_the_reset() {
    let (mut table, _) = table();
    let watched = || {
        let page = TestPage::new();
        let watch = page.watch();
        (page, watch)
    };
    let (page, refused) = watched();
    assert!(table.init_control(0, page, 1).is_err());
    assert!(refused.upgrade().is_none());
    let (page, control) = watched();
    let _ = table.init_control(0, page, 0).unwrap();
    let (page, words) = watched();
    let _ = table.expand_array(page, 0).unwrap();
    let (page, info) = watched();
    let _ = table.register_vcpu_info(0, page, 0).unwrap();
    let held = |page: &std::sync::Weak<()>| page.upgrade().is_some();
    assert!(held(&control) && held(&words) && held(&info));
    table.reset_begin().unwrap();
    reset(&mut table, 1);
    assert!(!held(&control) && !held(&words) && held(&info));
    table.retire();
    reset(&mut table, 1);
    assert!(!held(&info));
}

#[test]
fn a_control_block_must_be_aligned_inside_its_page_and_the_first_of_its_vcpu() {
    let (mut table, _) = table();
    for offset in [4, 7, 4025, 4028, 4032, 4096, u32::MAX] {
        assert_eq!(
            table.init_control(0, TestPage::new(), offset),
            Err(EventError::BadControlOffset)
        );
    }
    for absent in [2, 8, u32::MAX] {
        assert_eq!(
            table.init_control(absent, TestPage::new(), 0),
            Err(EventError::NoVcpu)
        );
    }
    // The refusals changed nothing: still two-level (XSA-188).
    assert_eq!(
        table.expand_array(TestPage::new(), 1000),
        Err(EventError::NoArray)
    );
    assert_eq!(
        table.init_control(0, TestPage::new(), 4024),
        Ok(Control::Done(Notify::NONE))
    );
    assert_eq!(
        table.init_control(0, TestPage::new(), 0),
        Err(EventError::AlreadyRegistered)
    );
    assert_eq!(
        table.init_control(1, TestPage::new(), 0),
        Ok(Control::Done(Notify::NONE))
    );
}

#[test]
fn the_array_has_128_pages() {
    let (mut table, _) = table();
    let mut guest = Guest::boot(&mut table, 1, 0);
    for _ in 0..128 {
        guest.expand(&mut table);
    }
    assert_eq!(
        table.expand_array(TestPage::new(), 1000),
        Err(EventError::ArrayFull)
    );
}

#[test]
fn saved_events_are_raised_in_pieces_and_another_page_waits_for_them() {
    let (mut table, _) = table();
    let ports: Vec<_> = (0..150).map(|_| table.bind_ipi(0).unwrap()).collect();
    for port in &ports {
        let _ = table.send(*port).unwrap();
    }
    let _guest = Guest::boot(&mut table, 1, 0);
    let mut expand = |gfn| table.expand_array(TestPage::new(), gfn).unwrap();
    assert!(matches!(expand(5), Control::More(_)));
    assert!(matches!(expand(6), Control::More(_)), "5 is not finished");
    // The other page's call has raised the rest, and comes again for its own.
    assert!(matches!(expand(6), Control::More(_)));
    assert_eq!(expand(6), Control::Done(Notify::NONE));
    assert!(ports.iter().all(|port| table.is_pending(*port) == Ok(true)));
    assert_eq!(table.check_array(), Ok(()));
}

#[test]
fn the_change_to_fifo_keeps_what_is_pending() {
    let (mut table, shared) = table();
    let first = table.bind_ipi(0).unwrap();
    let second = table.bind_ipi(1).unwrap();
    let quiet = table.bind_ipi(0).unwrap();
    for port in [first, second] {
        let _ = table.send(port).unwrap();
    }
    let mut guest = Guest::boot(&mut table, 2, 0);
    assert_eq!(table.is_pending(first), Ok(true));
    assert_eq!(shared.u64_at(48).unwrap().load(Relaxed), 0);
    for vcpu in 0..2 {
        guest.take_upcall(vcpu);
    }
    // The words are there, not masked: now the events are delivered.
    let page = TestPage::new();
    guest.array.push(page.guest());
    let mut both = upcall(0);
    both |= upcall(1);
    assert_eq!(table.expand_array(page, 0), Ok(Control::Done(both)));
    let mut seen = Vec::new();
    for vcpu in 0..2 {
        guest.scan(vcpu, 100, |guest, port, queue| {
            guest.clear_pending(port);
            seen.push((vcpu, port, queue));
        });
    }
    assert_eq!(seen, [(0, first, 7), (1, second, 7)]);
    assert_eq!(table.is_pending(quiet), Ok(false));
}

#[test]
fn an_event_of_a_vcpu_without_control_block_is_kept_until_it_has_one() {
    let (mut table, _) = table();
    let port = table.bind_ipi(1).unwrap();
    let masked = table.bind_ipi(1).unwrap();
    let mut guest = Guest::boot(&mut table, 1, 1);
    let _ = table.register_vcpu_info(1, TestPage::new(), 0).unwrap();
    guest.unmask(port);
    assert_eq!(table.send(port), Ok(Sent::Local(Notify::NONE)));
    assert_eq!(table.send(masked), Ok(Sent::Local(Notify::NONE)));
    assert_eq!(guest.word(port).load(Relaxed), PENDING, "not linked");
    let control = TestPage::new();
    guest.control.push(control.guest());
    // The upcall is pending since the registration, so there is no new one.
    assert_eq!(
        table.init_control(1, control, CONTROL_OFFSET),
        Ok(Control::Done(Notify::NONE))
    );
    assert_eq!(guest.word(port).load(Relaxed), PENDING | LINKED);
    assert_eq!(guest.word(masked).load(Relaxed), PENDING | MASKED);
    assert_eq!(guest.head(1, 7).load(Relaxed), port.0);
    assert_eq!(guest.ready(1).load(Relaxed), 1 << 7);
    assert!(table.is_upcall_pending(vcpu(1)));
}

#[test]
fn many_events_that_wait_for_a_control_block_are_raised_in_steps() {
    /// More ports than two steps check.
    const PORTS: u32 = 2 * 64 + 30;
    let (mut table, _) = table();
    let mut guest = Guest::boot(&mut table, 1, 3);
    for _ in 0..PORTS {
        let port = table.bind_ipi(1).unwrap();
        guest.unmask(port);
        assert_eq!(table.send(port), Ok(Sent::Local(Notify::NONE)));
    }
    let control = TestPage::new();
    guest.control.push(control.guest());
    let linked = |guest: &Guest| {
        let is_linked = |port: &u32| guest.word(Port(*port)).load(Relaxed) & LINKED != 0;
        (1..=PORTS).filter(is_linked).count() as u32
    };
    let more = table.init_control(1, control, CONTROL_OFFSET);
    assert!(matches!(more, Ok(Control::More(_))));
    assert_eq!(linked(&guest), 64);
    // Registered again, it goes on, and keeps the first page.
    let more = table.init_control(1, TestPage::new(), CONTROL_OFFSET);
    assert!(matches!(more, Ok(Control::More(_))));
    let done = table.init_control(1, TestPage::new(), CONTROL_OFFSET);
    assert!(matches!(done, Ok(Control::Done(_))));
    assert_eq!(linked(&guest), PORTS);
    assert_eq!(guest.head(1, 7).load(Relaxed), 1);
    let again = table.init_control(1, TestPage::new(), CONTROL_OFFSET);
    assert_eq!(again, Err(EventError::AlreadyRegistered));
}

#[test]
fn an_event_that_waits_for_a_control_block_moves_with_its_port() {
    let (mut table, _) = table();
    let virq = table.bind_virq(3, 0).unwrap();
    let guest = Guest::boot(&mut table, 1, 1);
    guest.unmask(virq);
    guest.take_upcall(0);
    assert_eq!(table.bind_vcpu(virq, 1), Ok(Notify::NONE));
    let _ = table.raise_virq(crate::event::EventVirq::DOM_EXC, vcpu(0));
    assert_eq!(guest.word(virq).load(Relaxed), PENDING);
    assert_eq!(table.bind_vcpu(virq, 0), Ok(upcall(0)));
    assert_eq!(guest.word(virq).load(Relaxed), PENDING | LINKED);
}

#[test]
fn a_retired_table_takes_neither_ports_nor_pages_and_lets_go_of_those_it_has() {
    let (mut table, _) = table_of(super::support::DOM, 1023, 2);
    let guest = Guest::boot(&mut table, 2, 2);
    table.bind_ipi(0).unwrap();
    table.retire();
    assert_eq!(table.bind_ipi(0), Err(EventError::Retired));
    let page = TestPage::new;
    assert_eq!(
        table.register_vcpu_info(1, page(), 0),
        Err(EventError::Retired)
    );
    assert_eq!(table.init_control(1, page(), 0), Err(EventError::Retired));
    assert_eq!(table.expand_array(page(), 0), Err(EventError::Retired));
    reset(&mut table, 10);
    assert_eq!(table.close(Port(1)), Err(EventError::BadPort));
    let _ = table.raise_virq(crate::event::EventVirq::CONSOLE, vcpu(0));
    // The vcpu_info of vCPU 1 is gone with its page.
    guest.info[1]
        .0
        .u8_at(INFO_OFFSET as usize)
        .unwrap()
        .store(1, Relaxed);
    assert!(!table.is_upcall_pending(vcpu(1)));
}

#[test]
fn after_a_reset_ports_start_without_the_events_of_their_former_life() {
    let (mut table, _) = table();
    let port = table.bind_ipi(0).unwrap();
    let _ = table.send(port).unwrap();
    let guest = Guest::boot(&mut table, 1, 1);
    guest.take_upcall(0);
    table.reset_begin().unwrap();
    reset(&mut table, 10);
    assert_eq!(table.bind_ipi(0), Ok(port));
    assert_eq!(table.is_pending(port), Ok(false));
    // Two-level again, through the vcpu_info that is still registered (its selectors are all set).
    let (info, offset) = guest.info[0];
    info.u64_at(offset + 8).unwrap().store(0, Relaxed);
    assert_eq!(table.send(port), Ok(Sent::Local(upcall(0))));
    close(&mut table, port);
}
