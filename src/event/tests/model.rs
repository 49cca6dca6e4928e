//! Random histories of one FIFO domain against Linux's consumer: no unmasked event is lost, and none is delivered from a
//! queue that it was not bound to when it was linked.

use proptest::prelude::{Strategy, any, prop_oneof, proptest};

use super::support::{DOM, Guest, Table, reset, table_of, vcpu};
use crate::abi::event_channel::fifo::{LINKED, MASKED, PENDING};
use crate::event::{Close, EventVirq, Notify, Port, Sent};

const PORTS: u32 = 40;
const VCPUS: u32 = 3;

#[derive(Clone, Debug)]
enum Op {
    BindIpi(u32),
    Offer,
    BindVirq(u32, u32),
    Loop(u32),
    Close(u32),
    Send(u32),
    RaiseVirq(u32, u32),
    Mask(u32),
    Unmask(u32),
    BindVcpu(u32, u32),
    Priority(u32, u32),
    Scan(usize),
    /// The guest handles this many events and is then interrupted.
    ScanSome(usize, u32),
    Reset,
}

fn op() -> impl Strategy<Value = Op> {
    let port = || 0..PORTS + 2;
    let cpu = || 0..VCPUS + 1;
    prop_oneof![
        6 => cpu().prop_map(Op::BindIpi),
        2 => proptest::strategy::Just(Op::Offer),
        2 => (0..25u32, cpu()).prop_map(|(n, v)| Op::BindVirq(n, v)),
        3 => port().prop_map(Op::Loop),
        3 => port().prop_map(Op::Close),
        20 => port().prop_map(Op::Send),
        4 => (0..24u32, 0..VCPUS).prop_map(|(n, v)| Op::RaiseVirq(n, v)),
        6 => port().prop_map(Op::Mask),
        8 => port().prop_map(Op::Unmask),
        5 => (port(), cpu()).prop_map(|(p, v)| Op::BindVcpu(p, v)),
        5 => (port(), 0..17u32).prop_map(|(p, q)| Op::Priority(p, q)),
        5 => (0..VCPUS as usize).prop_map(Op::Scan),
        3 => (0..VCPUS as usize, 1..4u32).prop_map(|(v, n)| Op::ScanSome(v, n)),
        1 => any::<u8>().prop_map(|n| if n < 30 { Op::Reset } else { Op::Offer }),
    ]
}

/// The guest's view, as it should be.
struct World {
    table: Table,
    guest: Guest,
    /// Per port: an event was raised and not handled.
    due: Vec<bool>,
    /// Per port: the queue (vCPU, priority) it was on when it was last linked.
    linked_on: Vec<Option<(usize, usize)>>,
    /// Per port: where its next event goes.
    bound_to: Vec<(usize, usize)>,
    /// vCPUs with an interrupt that they did not take.
    interrupted: [bool; VCPUS as usize],
}

impl World {
    fn new() -> Self {
        let (mut table, _) = table_of(DOM, PORTS, VCPUS as u8);
        let guest = Guest::boot(&mut table, VCPUS, 1);
        let mut world = Self {
            table,
            guest,
            due: vec![false; 1024],
            linked_on: vec![None; 1024],
            bound_to: vec![(0, 7); 1024],
            interrupted: [true; VCPUS as usize],
        };
        for cpu in 0..VCPUS as usize {
            world.scan(cpu, u32::MAX);
        }
        world
    }

    fn is_open(&self, port: Port) -> bool {
        self.table.is_pending(port).is_ok()
    }

    fn opened(&mut self, port: Port, cpu: usize) {
        assert_eq!(
            self.guest
                .word(port)
                .load(std::sync::atomic::Ordering::SeqCst)
                & LINKED,
            0,
            "a linked port was reused"
        );
        self.due[port.0 as usize] = false;
        self.linked_on[port.0 as usize] = None;
        self.bound_to[port.0 as usize] = (cpu, 7);
    }

    /// Takes note of what a raise of `port` did.
    fn raised(&mut self, port: Port, notify: Notify, before: u32) {
        let index = port.0 as usize;
        self.due[index] = true;
        let now = self
            .guest
            .word(port)
            .load(std::sync::atomic::Ordering::SeqCst);
        assert_ne!(now & PENDING, 0);
        if before & MASKED == 0 {
            assert_ne!(now & LINKED, 0, "an unmasked event is on a queue");
        }
        if before & LINKED == 0 && now & LINKED != 0 {
            self.linked_on[index] = Some(self.bound_to[index]);
        }
        self.notified(notify);
    }

    fn notified(&mut self, notify: Notify) {
        for cpu in notify.upcalls() {
            self.interrupted[cpu.index()] = true;
        }
    }

    fn before(&self, port: Port) -> u32 {
        self.guest
            .word(port)
            .load(std::sync::atomic::Ordering::SeqCst)
    }

    fn scan(&mut self, cpu: usize, limit: u32) {
        if !self.interrupted[cpu] {
            return; // not interrupted: if an event was due, the end of the history shows it
        }
        let (due, linked_on) = (&mut self.due, &mut self.linked_on);
        let mut left = limit;
        self.guest.scan(cpu, 1_000, |guest, port, queue| {
            let index = port.0 as usize;
            assert_eq!(linked_on[index], Some((cpu, queue)), "wrong queue");
            if left == 0 {
                // Interrupted before the handler ran: masks, to come back later.
                guest.mask(port);
                return;
            }
            left -= 1;
            assert!(due[index], "an event that nobody sent");
            guest.clear_pending(port);
            due[index] = false;
        });
        self.interrupted[cpu] = false;
    }

    fn unmask(&mut self, port: Port) {
        if self.guest.unmask(port) {
            let before = self.before(port) & !MASKED;
            let notify = self.table.unmask(port).unwrap();
            if self.is_open(port) {
                self.raised(port, notify, before);
            }
        }
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::BindIpi(cpu) => {
                if let Ok(port) = self.table.bind_ipi(cpu) {
                    self.opened(port, cpu as usize);
                }
            }
            Op::Offer => {
                if let Ok(port) = self.table.alloc_unbound(DOM) {
                    self.opened(port, 0);
                }
            }
            Op::BindVirq(virq, cpu) => {
                if let Ok(port) = self.table.bind_virq(virq, cpu) {
                    self.opened(port, cpu as usize);
                }
            }
            Op::Loop(remote) => {
                let words: Vec<u32> = (0..PORTS + 1).map(|n| self.before(Port(n))).collect();
                if let Ok((port, notify)) = self.table.bind_loopback(Port(remote)) {
                    let before = words[port.0 as usize];
                    assert_eq!(before & LINKED, 0);
                    self.due[port.0 as usize] = false;
                    self.linked_on[port.0 as usize] = None;
                    self.bound_to[port.0 as usize] = (0, 7);
                    self.raised(port, notify, before);
                }
            }
            Op::Close(port) => {
                if let Ok(close) = self.table.close(Port(port)) {
                    assert_eq!(close, Close::Done);
                    self.due[port as usize] = false;
                }
            }
            Op::Send(port) => {
                let words: Vec<u32> = (0..PORTS + 1).map(|n| self.before(Port(n))).collect();
                let target = match self.table.status(Port(port)).map(|s| s.binding) {
                    Ok(crate::event::Binding::Interdomain(end)) => end.port,
                    _ => Port(port),
                };
                if let Ok(Sent::Local(notify)) = self.table.send(Port(port)) {
                    self.raised(target, notify, words[target.0 as usize]);
                }
            }
            Op::RaiseVirq(virq, cpu) => {
                let virq = EventVirq::new(virq).unwrap();
                let found = (1..PORTS + 1).map(Port).find(|port| {
                    let status = self.table.status(*port).unwrap();
                    status.binding == crate::event::Binding::Virq(virq)
                        && (virq.is_global() || status.vcpu == vcpu(cpu))
                });
                let before = found.map(|port| self.before(port));
                let notify = self.table.raise_virq(virq, vcpu(cpu));
                match (found, before) {
                    (Some(port), Some(before)) => self.raised(port, notify, before),
                    _ => assert_eq!(notify, Notify::NONE),
                }
            }
            Op::Mask(port) => self.guest.mask(Port(port)),
            Op::Unmask(port) => self.unmask(Port(port)),
            Op::BindVcpu(port, cpu) => {
                if let Ok(notify) = self.table.bind_vcpu(Port(port), cpu) {
                    assert_eq!(notify, Notify::NONE);
                    self.bound_to[port as usize].0 = cpu as usize;
                }
            }
            Op::Priority(port, priority) => {
                if self.table.set_priority(Port(port), priority).is_ok() {
                    self.bound_to[port as usize].1 = priority as usize;
                }
            }
            Op::Scan(cpu) => self.scan(cpu, u32::MAX),
            Op::ScanSome(cpu, limit) => self.scan(cpu, limit),
            Op::Reset => {
                self.table.reset_begin().unwrap();
                reset(&mut self.table, 7);
                *self = Self::new(); // the guest starts anew, as after kexec
            }
        }
    }

    /// Unmasks everything, lets the guest take its interrupts, and checks that no event is left.
    fn drain(&mut self) {
        for port in (1..PORTS + 1).map(Port) {
            self.unmask(port);
        }
        for cpu in 0..VCPUS as usize {
            self.scan(cpu, u32::MAX);
        }
        for port in 1..PORTS + 1 {
            assert!(!self.due[port as usize], "port {port} lost its event");
            assert_eq!(self.before(Port(port)) & (PENDING | LINKED), 0);
        }
    }
}

proptest! {
    #[test]
    fn no_unmasked_event_is_lost_and_none_comes_from_a_wrong_queue(
        ops in proptest::collection::vec(op(), 1..300)
    ) {
        let mut world = World::new();
        for op in ops {
            world.step(op);
        }
        world.drain();
    }
}
