//! The two-level ABI as the guest sees it.

use core::sync::atomic::Ordering::Relaxed;

use armv7::frame::SharedPage;

use super::support::{INFO_OFFSET, Table, TestPage, table, upcall};
use crate::event::{EventError, Notify, Port, Sent};

const PENDING: usize = 48;
const MASK: usize = 560;
const SELECTOR: usize = 8;

fn word(page: &SharedPage, at: usize, index: usize) -> u64 {
    page.u64_at(at + index * 8).unwrap().load(Relaxed)
}

fn mask(page: &SharedPage, port: Port) {
    let at = MASK + port.0 as usize / 64 * 8;
    page.u64_at(at)
        .unwrap()
        .fetch_or(1 << (port.0 % 64), Relaxed);
}

fn ipis(table: &mut Table, count: u32) {
    for _ in 0..count {
        table.bind_ipi(0).unwrap();
    }
}

fn sent(notify: Notify) -> Result<Sent, EventError> {
    Ok(Sent::Local(notify))
}

#[test]
fn an_event_sets_pending_selector_and_upcall_and_interrupts_once() {
    let (mut table, shared) = table();
    ipis(&mut table, 200);
    assert_eq!(table.send(Port(130)), sent(upcall(0)));
    assert_eq!(word(shared, PENDING, 2), 1 << 2);
    assert_eq!(word(shared, SELECTOR, 0), 1 << 2);
    assert_eq!(shared.u8_at(0).unwrap().load(Relaxed), 1);
    assert_eq!(
        shared.u8_at(1).unwrap().load(Relaxed),
        0,
        "no upcall mask on ARM"
    );
    assert_eq!(table.send(Port(130)), sent(Notify::NONE));
    assert_eq!(
        table.send(Port(131)),
        sent(Notify::NONE),
        "selector was set"
    );
    assert_eq!(
        table.send(Port(3)),
        sent(Notify::NONE),
        "upcall was pending"
    );
    assert_eq!(word(shared, SELECTOR, 0), 1 << 2 | 1);
    assert!(table.is_upcall_pending(super::support::vcpu(0)));
}

#[test]
fn a_selector_above_31_is_in_the_upper_half() {
    let (mut table, shared) = table();
    ipis(&mut table, 4095);
    assert_eq!(table.send(Port(4095)), sent(upcall(0)));
    assert_eq!(word(shared, SELECTOR, 0), 1 << 63);
    assert_eq!(word(shared, PENDING, 63), 1 << 63);
}

#[test]
fn a_masked_event_waits_for_the_unmask() {
    let (mut table, shared) = table();
    ipis(&mut table, 1);
    mask(shared, Port(1));
    assert_eq!(table.send(Port(1)), sent(Notify::NONE));
    assert_eq!(word(shared, PENDING, 0), 2);
    assert_eq!(word(shared, SELECTOR, 0), 0);
    assert_eq!(table.unmask(Port(1)), Ok(upcall(0)));
    assert_eq!(word(shared, MASK, 0), 0);
    assert_eq!(table.unmask(Port(1)), Ok(Notify::NONE), "was not masked");
}

#[test]
fn an_event_for_a_vcpu_without_vcpu_info_arrives_when_it_has_one() {
    let (mut table, shared) = table();
    let port = table.bind_ipi(1).unwrap();
    assert_eq!(table.send(port), sent(Notify::NONE));
    assert_eq!(word(shared, PENDING, 0), 1 << port.0);
    let page = TestPage::new();
    let guest = page.guest();
    guest.write(INFO_OFFSET as usize, &[0x55; 48]);
    assert_eq!(
        table.register_vcpu_info(1, page, INFO_OFFSET),
        Ok(upcall(1))
    );
    let info = INFO_OFFSET as usize;
    assert_eq!(
        guest.u64_at(info).unwrap().load(Relaxed),
        1,
        "zeroed, then marked"
    );
    assert_eq!(word(guest, info + SELECTOR, 0), u64::MAX);
    assert_eq!(word(guest, info + 16, 0), 0);
}
