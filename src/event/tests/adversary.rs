//! A guest that writes anything anywhere between any two steps: nothing panics, the hypervisor's own state stays what its
//! operations made it, and a channel whose words are left alone afterwards works again.

use core::sync::atomic::Ordering::Relaxed;

use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};

use super::support::{
    CONTROL_OFFSET, DOM, Guest, PEER, Table, TestPage, reset, table_of, upcall, vcpu,
};
use crate::abi::event_channel::fifo::{BUSY, LINK, LINKED, MASKED, PENDING};
use crate::event::{Binding, Close, Control, EventVirq, Port, Sent};

const PORTS: u32 = 2000;

#[derive(Clone, Debug)]
enum Op {
    /// Writes a value to a word of the guest.
    Write(Place, u32),
    Open(u32, u32),
    Loop(u32),
    Close(u32),
    Send(u32),
    Virq(u32, u32),
    Unmask(u32),
    BindVcpu(u32, u32),
    Priority(u32, u32),
    InitControl(u32, u32),
    VcpuInfo(u32, u32),
    Expand,
    Poll(u32, Vec<u32>),
    Scan(usize),
    Reset(u32),
}

#[derive(Clone, Debug)]
enum Place {
    EventWord(u32),
    Control(u32, u32),
    VcpuInfo(u32, u32),
    SharedInfo(u32),
}

fn port() -> impl Strategy<Value = u32> {
    prop_oneof![
        8 => 0..24u32,
        2 => 0..PORTS + 200,
        1 => any::<u32>(),
        1 => (0..18u32).prop_map(|n| 128 * n),
    ]
}

/// Values like event words, and arbitrary values.
fn value() -> impl Strategy<Value = u32> {
    let flags = prop_oneof![
        Just(PENDING),
        Just(LINKED),
        Just(LINKED | PENDING),
        Just(MASKED),
        Just(BUSY | LINKED),
        Just(0),
    ];
    prop_oneof![
        4 => (flags, 0..24u32).prop_map(|(flags, link)| flags | link),
        1 => (0..=LINK).prop_map(|link| LINKED | link),
        2 => any::<u32>(),
    ]
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![
        8 => (0..24u32).prop_map(Place::EventWord),
        1 => (0..1024u32).prop_map(Place::EventWord),
        3 => (0..2u32, 0..18u32).prop_map(|(v, n)| Place::Control(v, n)),
        1 => (0..2u32, 0..12u32).prop_map(|(v, n)| Place::VcpuInfo(v, n)),
        1 => (0..1024u32).prop_map(Place::SharedInfo),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let cpu = || prop_oneof![4 => 0..3u32, 1 => any::<u32>()];
    prop_oneof![
        20 => (place(), value()).prop_map(|(p, v)| Op::Write(p, v)),
        8 => (0..3u32, cpu()).prop_map(|(k, v)| Op::Open(k, v)),
        3 => port().prop_map(Op::Loop),
        4 => port().prop_map(Op::Close),
        20 => port().prop_map(Op::Send),
        3 => (0..26u32, 0..2u32).prop_map(|(n, v)| Op::Virq(n, v)),
        6 => port().prop_map(Op::Unmask),
        4 => (port(), cpu()).prop_map(|(p, v)| Op::BindVcpu(p, v)),
        4 => (port(), 0..20u32).prop_map(|(p, q)| Op::Priority(p, q)),
        2 => (cpu(), any::<u32>()).prop_map(|(v, o)| Op::InitControl(v, o)),
        2 => (cpu(), any::<u32>()).prop_map(|(v, o)| Op::VcpuInfo(v, o)),
        1 => Just(Op::Expand),
        3 => (0..2u32, proptest::collection::vec(port(), 0..4)).prop_map(|(v, p)| Op::Poll(v, p)),
        4 => (0..2usize).prop_map(Op::Scan),
        1 => (1..50u32).prop_map(Op::Reset),
    ]
}

struct World {
    table: Table,
    shared: &'static armv7::frame::SharedPage,
    guest: Guest,
    /// The state that each port must have: only operations change it.
    bindings: Vec<Binding>,
}

impl World {
    fn new() -> Self {
        let (mut table, shared) = table_of(DOM, PORTS, 2);
        let guest = Guest::boot(&mut table, 2, 1);
        Self {
            table,
            shared,
            guest,
            bindings: vec![Binding::Closed; PORTS as usize + 200],
        }
    }

    fn binding(&self, port: u32) -> Binding {
        let status = self.table.status(Port(port));
        status.map_or(Binding::Closed, |status| status.binding)
    }

    fn write(&self, place: &Place, value: u32) {
        let control = CONTROL_OFFSET as usize;
        let word = match place {
            Place::EventWord(n) => self.guest.word(Port(*n)),
            Place::Control(vcpu, n) => self.guest.control[*vcpu as usize]
                .u32_at(control + *n as usize * 4)
                .unwrap(),
            Place::VcpuInfo(vcpu, n) => {
                let (page, offset) = self.guest.info[*vcpu as usize];
                page.u32_at(offset + *n as usize * 4).unwrap()
            }
            Place::SharedInfo(n) => &self.shared.words()[*n as usize],
        };
        word.store(value, Relaxed);
    }

    fn opened(&mut self, port: Port) {
        assert_eq!(self.bindings[port.0 as usize], Binding::Closed);
        self.bindings[port.0 as usize] = self.binding(port.0);
        assert_ne!(self.bindings[port.0 as usize], Binding::Closed);
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Write(place, value) => self.write(&place, value),
            Op::Open(kind, n) => {
                let result = match kind {
                    0 => self.table.bind_ipi(n),
                    1 => self
                        .table
                        .alloc_unbound(if n % 2 == 0 { DOM } else { PEER }),
                    _ => self.table.bind_virq(n, 0),
                };
                if let Ok(port) = result {
                    self.opened(port);
                }
            }
            Op::Loop(remote) => {
                if let Ok((port, _)) = self.table.bind_loopback(Port(remote)) {
                    self.opened(port);
                    assert_eq!(self.bindings[remote as usize], Binding::Unbound(DOM));
                    self.bindings[remote as usize] = self.binding(remote);
                }
            }
            Op::Close(port) => {
                if let Ok(close) = self.table.close(Port(port)) {
                    assert_eq!(close, Close::Done);
                    if let Binding::Interdomain(peer) = self.bindings[port as usize] {
                        self.bindings[peer.port.0 as usize] = Binding::Unbound(DOM);
                    }
                    self.bindings[port as usize] = Binding::Closed;
                }
            }
            Op::Send(port) => {
                let _ = self.table.send(Port(port));
            }
            Op::Virq(virq, cpu) => {
                if let Some(virq) = EventVirq::new(virq) {
                    let _ = self.table.raise_virq(virq, vcpu(cpu));
                }
            }
            Op::Unmask(port) => {
                let _ = self.table.unmask(Port(port));
            }
            Op::BindVcpu(port, cpu) => {
                let _ = self.table.bind_vcpu(Port(port), cpu);
            }
            Op::Priority(port, priority) => {
                let _ = self.table.set_priority(Port(port), priority);
            }
            Op::InitControl(cpu, offset) => {
                assert!(
                    self.table
                        .init_control(cpu, TestPage::new(), offset)
                        .is_err()
                );
            }
            Op::VcpuInfo(cpu, offset) => {
                let page = TestPage::new();
                assert!(self.table.register_vcpu_info(cpu, page, offset).is_err());
            }
            Op::Expand => {
                if self.guest.array.len() < 3 {
                    let page = TestPage::new();
                    let gfn = self.guest.array.len() as u64;
                    self.guest.array.push(page.guest());
                    let mut expanded = self.table.expand_array(page, gfn).unwrap();
                    while let Control::More(_) = expanded {
                        expanded = self.table.expand_array(TestPage::new(), gfn).unwrap();
                    }
                }
            }
            Op::Poll(cpu, ports) => {
                let ports: Vec<Port> = ports.into_iter().map(Port).collect();
                let _ = self.table.poll(vcpu(cpu), &ports);
            }
            Op::Scan(cpu) => self
                .guest
                .scan(cpu, 50, |guest, port, _| guest.clear_pending(port)),
            Op::Reset(budget) => {
                self.table.reset_begin().unwrap();
                reset(&mut self.table, budget);
                *self = Self::new();
            }
        }
    }
}

proptest! {
    #[test]
    fn whatever_a_guest_writes_its_ports_stay_what_its_operations_made_them(
        ops in proptest::collection::vec(op(), 1..300)
    ) {
        let mut world = World::new();
        for op in ops {
            world.step(op);
        }
        for port in 0..PORTS + 200 {
            assert_eq!(world.binding(port), world.bindings[port as usize], "{port}");
        }
    }
}

#[test]
fn a_queue_that_the_guest_tied_in_a_knot_works_again_once_it_is_consumed() {
    let mut world = World::new();
    let ports: Vec<Port> = (0..3).map(|_| world.table.bind_ipi(0).unwrap()).collect();
    for port in &ports {
        world.guest.word(*port).store(0, Relaxed);
    }
    world.guest.take_upcall(0);
    for port in &ports {
        let _ = world.table.send(*port).unwrap();
    }
    // Links to itself, to another queue's port, out of range.
    world
        .guest
        .word(ports[0])
        .store(LINKED | PENDING | ports[0].0, Relaxed);
    world.guest.word(ports[2]).store(LINKED | LINK, Relaxed);
    for port in &ports {
        let _ = world.table.send(*port).unwrap();
    }
    // The guest gives up on the queue and starts with clean words.
    for port in &ports {
        world.guest.word(*port).store(0, Relaxed);
    }
    world.guest.ready(0).store(0, Relaxed);
    world.guest.take_upcall(0);
    assert_eq!(world.table.send(ports[1]), Ok(Sent::Local(upcall(0))));
    assert_eq!(world.guest.head(0, 7).load(Relaxed), ports[1].0);
}
