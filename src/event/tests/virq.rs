//! VIRQs.

use super::support::{close, table, upcall, vcpu};
use crate::event::{EventError, EventVirq, Notify};

#[test]
fn a_virq_that_nobody_bound_is_dropped() {
    let (mut table, _) = table();
    assert_eq!(table.raise_virq(EventVirq::DOM_EXC, vcpu(0)), Notify::NONE);
}

#[test]
fn a_global_virq_is_bound_once_on_vcpu_0_and_goes_where_the_port_goes() {
    let (mut table, _) = table();
    assert_eq!(table.bind_virq(3, 1), Err(EventError::BadVirq));
    let port = table.bind_virq(3, 0).unwrap();
    assert_eq!(table.bind_virq(3, 0), Err(EventError::VirqBound));
    let _ = table.bind_vcpu(port, 1).unwrap();
    // vCPU 1 has no vcpu_info yet: the event waits in the bitmap.
    assert_eq!(table.raise_virq(EventVirq::DOM_EXC, vcpu(0)), Notify::NONE);
    assert_eq!(table.is_pending(port), Ok(true));
    // Closed on another vCPU than 0, it can be bound again.
    close(&mut table, port);
    assert!(!table.is_virq_bound(EventVirq::DOM_EXC, vcpu(0)));
    assert_eq!(table.bind_virq(3, 0), Ok(port));
}

#[test]
fn each_vcpu_has_its_own_debug_virq() {
    let (mut table, _) = table();
    let first = table.bind_virq(1, 0).unwrap();
    let second = table.bind_virq(1, 1).unwrap();
    assert_eq!(table.bind_virq(1, 1), Err(EventError::VirqBound));
    assert_eq!(table.raise_virq(EventVirq::DEBUG, vcpu(0)), upcall(0));
    assert_eq!(table.is_pending(first), Ok(true));
    assert_eq!(table.is_pending(second), Ok(false));
    close(&mut table, second);
    assert_eq!(table.raise_virq(EventVirq::DEBUG, vcpu(1)), Notify::NONE);
    assert!(table.is_virq_bound(EventVirq::DEBUG, vcpu(0)));
}

#[test]
fn virqs_beyond_23_do_not_exist() {
    let (mut table, _) = table();
    for virq in [24, 25, 256, u32::MAX] {
        assert_eq!(table.bind_virq(virq, 0), Err(EventError::BadVirq));
    }
    for virq in 0..24 {
        let global = EventVirq::new(virq).unwrap().is_global();
        assert_eq!(global, ![0, 1, 7, 13].contains(&virq), "{virq}");
        assert!(table.bind_virq(virq, 0).is_ok());
    }
    assert_eq!(table.bind_virq(0, 2), Err(EventError::NoVcpu));
}
