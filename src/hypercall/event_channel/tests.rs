//! Resets, which are continued. On the host every guest pointer leads into guest frame 0.

use std::sync::Arc;

use armv7::addr::Gfn;
use armv7::frame::page;
use zerocopy::{Immutable, IntoBytes};

use crate::abi::event_channel as abi;
use crate::call::{Args, Caller, Outcome, Reply};
use crate::domain::testing::{NO_TLB, guest};
use crate::domain::{Domain, PEERS_AT_ONCE, PORTS_AT_ONCE, Rights, registry};
use crate::error::Errno;
use crate::event::{Binding, EventTable, Port};
use crate::id::DomId;
use crate::vcpu::Vcpu;

struct Guest {
    domain: Arc<Domain>,
    vcpu: Arc<Vcpu>,
}

impl Guest {
    fn new(rights: Rights) -> Self {
        let (domain, vcpu) = guest(rights, NO_TLB, &[0]);
        Self { domain, vcpu }
    }

    fn bind(&self, ports: u32) {
        let mut events = self.domain.events.lock();
        for _ in 0..ports {
            events.bind_ipi(0).unwrap();
        }
    }

    /// Asks for a reset of `dom`, once.
    fn reset(&self, dom: DomId) -> Outcome {
        let entry = self.domain.p2m.lock().lookup(Gfn::new(0).unwrap()).unwrap();
        let op = abi::ResetArgument { dom: dom.0 };
        assert!(page(entry.mfn).unwrap().write(0, op.as_bytes()));
        let caller = Caller {
            domain: &self.domain,
            vcpu: &self.vcpu,
        };
        super::call(&caller, &ARGS)
    }

    /// Makes any other call.
    fn call<T: IntoBytes + Immutable>(&self, number: u32, op: &T) -> Outcome {
        let entry = self.domain.p2m.lock().lookup(Gfn::new(0).unwrap()).unwrap();
        assert!(page(entry.mfn).unwrap().write(0, op.as_bytes()));
        let caller = Caller {
            domain: &self.domain,
            vcpu: &self.vcpu,
        };
        super::call(&caller, &Args([number, 0, 2, 3, 4]))
    }

    fn open_ports(&self) -> usize {
        let events = self.domain.events.lock();
        let open = |port: &u32| {
            let status = events.status(Port(*port));
            status.is_ok_and(|status| status.binding != Binding::Closed)
        };
        (1..events.end()).filter(open).count()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        registry::remove(self.domain.id);
    }
}

const ARGS: Args = Args([abi::OP_RESET, 0, 2, 3, 4]);

#[test]
fn a_long_reset_goes_on_with_the_same_call() {
    let guest = Guest::new(Rights::GUEST);
    guest.bind(2 * PORTS_AT_ONCE + 5);
    for left in [PORTS_AT_ONCE + 5, 5] {
        assert_eq!(guest.reset(DomId::SELF), Ok(Reply::Again(ARGS)));
        assert_eq!(guest.open_ports(), left as usize);
        assert!(guest.domain.events.lock().is_resetting());
    }
    assert_eq!(guest.reset(DomId::SELF), Ok(Reply::OK));
    assert_eq!(guest.open_ports(), 0);
    assert!(!guest.domain.events.lock().is_resetting());
}

#[test]
fn a_reset_of_ports_that_fit_is_done_at_once() {
    let guest = Guest::new(Rights::GUEST);
    guest.bind(PORTS_AT_ONCE - 1);
    assert_eq!(guest.reset(DomId::SELF), Ok(Reply::OK));
    assert_eq!(guest.open_ports(), 0);
}

#[test]
fn a_port_opened_between_two_calls_ends_the_reset_with_eagain() {
    let guest = Guest::new(Rights::GUEST);
    guest.bind(PORTS_AT_ONCE + 1);
    assert_eq!(guest.reset(DomId::SELF), Ok(Reply::Again(ARGS)));
    guest.bind(1);
    assert_eq!(guest.reset(DomId::SELF), Err(Errno::Again));
    // It is over, and the next one starts from the beginning.
    assert!(!guest.domain.events.lock().is_resetting());
    assert_eq!(guest.reset(DomId::SELF), Ok(Reply::OK));
    assert_eq!(guest.open_ports(), 0);
}

#[test]
fn each_peer_is_told_whichever_call_closes_its_port() {
    const PAIRS: u32 = 10;
    let (local, remote) = (Guest::new(Rights::GUEST), Guest::new(Rights::GUEST));
    let connect = || {
        let mut near = local.domain.events.lock();
        let mut far = remote.domain.events.lock();
        let offered = far.alloc_unbound(local.domain.id).unwrap();
        let _ = EventTable::bind_interdomain(&mut near, &mut far, offered).unwrap();
    };
    (0..PAIRS).for_each(|_| connect());
    local.bind(PORTS_AT_ONCE);
    (0..PAIRS).for_each(|_| connect());
    let mut calls = 1;
    while local.reset(DomId::SELF) == Ok(Reply::Again(ARGS)) {
        calls += 1;
    }
    assert!(calls > 1);
    assert_eq!(local.open_ports(), 0);
    let events = remote.domain.events.lock();
    for port in 1..=2 * PAIRS {
        let status = events.status(Port(port)).unwrap();
        assert_eq!(status.binding, Binding::Unbound(local.domain.id));
    }
}

#[test]
fn no_more_peers_are_told_in_one_go_than_ports_cost() {
    let (local, remote) = (Guest::new(Rights::GUEST), Guest::new(Rights::GUEST));
    for _ in 0..PEERS_AT_ONCE + 1 {
        let mut near = local.domain.events.lock();
        let mut far = remote.domain.events.lock();
        let offered = far.alloc_unbound(local.domain.id).unwrap();
        let _ = EventTable::bind_interdomain(&mut near, &mut far, offered).unwrap();
    }
    assert_eq!(local.reset(DomId::SELF), Ok(Reply::Again(ARGS)));
    assert_eq!(local.open_ports(), 1);
    assert_eq!(local.reset(DomId::SELF), Ok(Reply::OK));
    assert_eq!(local.open_ports(), 0);
}

#[test]
fn what_is_wrong_with_the_form_is_told_before_what_is_wrong_with_the_page() {
    /// Where the test domain has nothing.
    const NOWHERE: u64 = 0x7777;
    let guest = Guest::new(Rights::GUEST);
    let expand = abi::ExpandArray { array_gfn: NOWHERE };
    let init = |vcpu, offset| abi::InitControl {
        control_gfn: NOWHERE,
        offset,
        vcpu,
        ..abi::InitControl::ZERO
    };
    let two_level = guest.call(abi::OP_EXPAND_ARRAY, &expand);
    assert_eq!(two_level, Err(Errno::OpNotSupp));
    assert_eq!(
        guest.call(abi::OP_INIT_CONTROL, &init(1, 1)),
        Err(Errno::NoEnt)
    );
    assert_eq!(
        guest.call(abi::OP_INIT_CONTROL, &init(0, 4)),
        Err(Errno::Inval)
    );
    assert_eq!(
        guest.call(abi::OP_INIT_CONTROL, &init(0, 0)),
        Err(Errno::Inval)
    );
    let good = abi::InitControl {
        control_gfn: 0,
        ..init(0, 1024)
    };
    assert_eq!(guest.call(abi::OP_INIT_CONTROL, &good), Ok(Reply::OK));
    assert_eq!(guest.call(abi::OP_EXPAND_ARRAY, &expand), Err(Errno::Inval));
}

#[test]
fn another_domain_is_reset_by_the_control_domain_while_it_is_paused() {
    let (control, other) = (Guest::new(Rights::DOM0), Guest::new(Rights::GUEST));
    other.bind(PORTS_AT_ONCE + 1);
    let id = other.domain.id;
    assert_eq!(other.reset(control.domain.id), Err(Errno::Perm));
    assert_eq!(control.reset(id), Err(Errno::Inval), "it runs");
    other.domain.state.lock().pause_count = 1;
    assert_eq!(control.reset(id), Ok(Reply::Again(ARGS)));
    // It runs again before the reset is through: that goes on when it is paused once more.
    other.domain.state.lock().pause_count = 0;
    assert_eq!(control.reset(id), Err(Errno::Inval));
    other.domain.state.lock().pause_count = 1;
    assert_eq!(control.reset(id), Ok(Reply::OK));
    assert_eq!(other.open_ports(), 0);
}
