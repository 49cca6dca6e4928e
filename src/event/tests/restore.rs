//! The ports of a saved domain, opened in a new one.

use std::sync::atomic::Ordering;

use armv7::frame::SharedPage;
use proptest::prelude::{Strategy, any, prop, prop_oneof, proptest};

use super::support::{DOM, PEER, Table, close, reset, table_of, upcall};
use crate::abi::event_channel as abi;
use crate::event::{Binding, End, EventError, Notify, Port, Sent};
use crate::id::DomId;

const DOM0: DomId = DomId(0);
const SELF: u32 = 0x7FF0;
const VCPUS: u32 = 3;

/// Returns a table with the ports that the toolstack opens, the second not yet bound.
fn new_domain(dom: DomId) -> (Table, &'static SharedPage) {
    let (mut table, shared) = table_of(dom, 1023, VCPUS as u8);
    assert_eq!(table.alloc_unbound(DOM0), Ok(Port(1)));
    assert_eq!(table.alloc_unbound(DOM0), Ok(Port(2)));
    let peer = End {
        dom: DOM0,
        port: Port(40),
    };
    table.accept(Port(1), peer).unwrap();
    (table, shared)
}

/// Returns the record of a table's ports, as the toolstack makes it.
fn record(table: &Table) -> Vec<u32> {
    let dom = |dom: DomId| u32::from(if dom == DOM { SELF as u16 } else { dom.0 }) << 16;
    (0..table.end())
        .flat_map(|number| {
            let status = table.status(Port(number)).unwrap();
            let (kind, detail) = match status.binding {
                Binding::Closed => (abi::STATUS_CLOSED, 0),
                Binding::Unbound(remote) => (abi::STATUS_UNBOUND | dom(remote), 0),
                Binding::Interdomain(end) => (abi::STATUS_INTERDOMAIN | dom(end.dom), end.port.0),
                Binding::Virq(virq) => (abi::STATUS_VIRQ, virq.raw()),
                Binding::Ipi => (abi::STATUS_IPI, 0),
            };
            [kind | u32::from(status.vcpu.raw()) << 8, detail]
        })
        .collect()
}

/// Returns what a table tells of its ports.
fn told(table: &Table) -> Vec<(Binding, u8)> {
    (0..table.end())
        .map(|number| table.status(Port(number)).unwrap())
        .map(|status| (status.binding, status.vcpu.raw()))
        .collect()
}

/// As the hypervisor does: a check, and then what cannot fail.
fn restore(table: &mut Table, words: &[u32]) -> Result<Notify, u32> {
    let before = told(table);
    let checked = table.restore(words, false);
    let after = told(table);
    assert_eq!(after[..before.len()], before);
    assert!(
        after[before.len()..]
            .iter()
            .all(|(b, _)| *b == Binding::Closed)
    );
    if checked.is_ok() {
        assert_eq!(checked, Ok(Notify::NONE));
        return Ok(table.restore(words, true).unwrap());
    }
    checked
}

#[derive(Clone, Debug)]
enum Op {
    Ipi(u32),
    Offer(u16),
    Virq(u32, u32),
    Loop,
    Close(u32),
    BindVcpu(u32, u32),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..VCPUS).prop_map(Op::Ipi),
        2 => prop_oneof![DOM.0..DOM.0 + 1, 0..9u16].prop_map(Op::Offer),
        4 => (0..24u32, 0..VCPUS).prop_map(|(n, v)| Op::Virq(n, v)),
        2 => (0..1u32).prop_map(|_| Op::Loop),
        3 => (3..30u32).prop_map(Op::Close),
        3 => (1..30u32, 0..VCPUS).prop_map(|(p, v)| Op::BindVcpu(p, v)),
    ]
}

fn apply(table: &mut Table, op: &Op) {
    let done = match *op {
        Op::Ipi(vcpu) => table.bind_ipi(vcpu).err(),
        Op::Offer(remote) => table.alloc_unbound(DomId(remote)).err(),
        Op::Virq(virq, vcpu) => table.bind_virq(virq, vcpu).err(),
        Op::Loop => {
            let port = table.alloc_unbound(DOM).unwrap();
            table.bind_loopback(port).err()
        }
        Op::Close(port) => table.close(Port(port)).err(),
        Op::BindVcpu(port, vcpu) => table.bind_vcpu(Port(port), vcpu).err(),
    };
    // Some are refused, as in a real history.
    let _ = done;
}

proptest! {
    #[test]
    fn a_domain_has_the_ports_again_that_it_had(ops in prop::collection::vec(op(), 0..200)) {
        let (mut old, _) = new_domain(DOM);
        ops.iter().for_each(|op| apply(&mut old, op));
        let words = record(&old);
        let (mut new, shared) = new_domain(DOM);
        let _ = restore(&mut new, &words).unwrap();
        assert_eq!(told(&new)[..told(&old).len()], told(&old));
        // Those of the toolstack are raised, for what their peer sent before.
        assert!(new.is_pending(Port(1)).unwrap() && new.is_pending(Port(2)).unwrap());
        // VIRQs and channels are what they were, and all can be closed.
        for number in 0..old.end() {
            let port = Port(number);
            let (Ok(sent), Ok(wanted)) = (new.send(port), old.send(port)) else { continue };
            if let (Sent::Peer { to, .. }, Sent::Peer { to: wanted, .. }) = (sent, wanted) {
                assert_eq!(to, wanted);
            }
        }
        for virq in (0..abi::NR_VIRQS).filter_map(crate::event::EventVirq::new) {
            for vcpu in 0..VCPUS {
                let vcpu = super::support::vcpu(vcpu);
                assert_eq!(new.is_virq_bound(virq, vcpu), old.is_virq_bound(virq, vcpu));
            }
        }
        new.reset_begin().unwrap();
        reset(&mut new, 7);
        assert!(told(&new).iter().all(|(binding, _)| *binding == Binding::Closed));
        assert_eq!(shared.u32_at(48).unwrap().load(Ordering::Relaxed) & 6, 0);
    }

    #[test]
    fn words_that_may_be_anything_open_ports_or_change_nothing(
        words in prop::collection::vec(prop_oneof![any::<u32>(), 0..6u32, (0..6u32).prop_map(|n| n | SELF << 16)], 0..300)
    ) {
        let (mut table, _) = new_domain(DOM);
        let _ = restore(&mut table, &words);
        table.retire();
        reset(&mut table, 9);
    }
}

#[test]
fn what_is_wrong_is_named_by_its_port() {
    let (mut table, _) = new_domain(DOM);
    let closed = [0, 0];
    let entry = |n: usize, entry: [u32; 2]| {
        let mut words = vec![closed; n];
        words.push(entry);
        words.concat()
    };
    let faults = [
        // Port 0 is none.
        (0, [abi::STATUS_IPI, 0]),
        (0, [abi::STATUS_UNBOUND, 0]),
        // One of the toolstack's is no other.
        (1, [abi::STATUS_IPI, 0]),
        (2, [abi::STATUS_VIRQ, 1]),
        (5, [abi::STATUS_IPI | VCPUS << 8, 0]),
        (5, [abi::STATUS_IPI | 255 << 8, 0]),
        // To another domain, where the toolstack opened nothing.
        (5, [abi::STATUS_INTERDOMAIN, 3]),
        (5, [abi::STATUS_INTERDOMAIN | u32::from(PEER.0) << 16, 3]),
        (5, [abi::STATUS_PIRQ, 3]),
        (5, [abi::STATUS_VIRQ, abi::NR_VIRQS]),
        (5, [6, 0]),
        (1024, [abi::STATUS_IPI, 0]),
        (5000, [abi::STATUS_IPI, 0]),
    ];
    for (port, fault) in faults {
        assert_eq!(
            restore(&mut table, &entry(port, fault)),
            Err(port as u32),
            "{fault:?}"
        );
    }
    let mut twice = entry(5, [abi::STATUS_VIRQ, 1]);
    twice.extend([abi::STATUS_VIRQ | 1 << 8, 1, abi::STATUS_VIRQ, 1]);
    assert_eq!(restore(&mut table, &twice), Err(7));
    assert_eq!(restore(&mut table, &twice[..14]), Ok(Notify::NONE));
    assert_eq!(table.bind_virq(1, 0), Err(EventError::VirqBound));
    close(&mut table, Port(5));
    assert_eq!(table.bind_virq(1, 0), Ok(Port(3)));
}

#[test]
fn ports_of_the_toolstack_go_to_the_vcpu_that_they_went_to() {
    let (mut table, _) = new_domain(DOM);
    let words = [
        0,
        0,
        abi::STATUS_INTERDOMAIN,
        99,
        abi::STATUS_UNBOUND | 1 << 8,
        0,
    ];
    // vCPU 1 has no place for upcalls.
    assert_eq!(restore(&mut table, &words), Ok(upcall(0)));
    let peer = End {
        dom: DOM0,
        port: Port(40),
    };
    let told = told(&table);
    assert_eq!(told[1], (Binding::Interdomain(peer), 0));
    assert_eq!(told[2], (Binding::Unbound(DOM0), 1));
}
