//! Senders behind the domain's lock against guest CPUs on the same words, on real threads.
//!
//! Each event carries a number that its sender increments before each send. A guest CPU scans only when interrupted. If
//! at the end a guest has not seen the last number of every event, an event or an interrupt was lost.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;

use super::support::{Guest, table_of, vcpu};
use crate::event::{EventTable, Notify, Port, Sent};
use crate::id::DomId;
use crate::sync::{Lock, rank};

const PORTS: u32 = 12;
const CPUS: usize = 2;
const SENDS: u32 = 30_000;

struct Shared {
    table: Lock<EventTable<super::support::TestPage>, { rank::EVENT }>,
    /// The event interrupt of each guest CPU.
    interrupt: [AtomicBool; CPUS],
    sent: Vec<AtomicU32>,
    seen: Vec<AtomicU32>,
    handled: AtomicU64,
    /// Senders are done.
    done: AtomicBool,
}

impl Shared {
    fn tell(&self, notify: Notify) {
        for cpu in notify.upcalls() {
            self.interrupt[cpu.index()].store(true, Ordering::SeqCst);
        }
    }
}

fn random(state: &mut u32) -> u32 {
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    *state
}

/// A guest CPU: handles what its interrupts announce, and masks and unmasks its ports now and then.
fn guest_cpu(shared: &Shared, guest: &mut Guest, cpu: usize) {
    let mut seed = 77 + cpu as u32;
    let mut masked: Option<Port> = None;
    loop {
        let last_round = shared.done.load(Ordering::SeqCst);
        if let Some(port) = masked.take_if(|_| last_round || random(&mut seed).is_multiple_of(4))
            && guest.unmask(port)
        {
            let notify = shared.table.lock().unmask(port).unwrap();
            shared.tell(notify);
        }
        let interrupted = shared.interrupt[cpu].swap(false, Ordering::SeqCst);
        if interrupted {
            guest.scan(cpu, u32::MAX, |guest, port, _| {
                guest.clear_pending(port);
                let now = shared.sent[port.0 as usize].load(Ordering::SeqCst);
                shared.seen[port.0 as usize].fetch_max(now, Ordering::SeqCst);
                shared.handled.fetch_add(1, Ordering::Relaxed);
                if masked.is_none() && random(&mut seed).is_multiple_of(8) {
                    guest.mask(port);
                    masked = Some(port);
                }
            });
        } else if last_round && masked.is_none() {
            return;
        } else {
            thread::yield_now();
        }
    }
}

fn run(move_ports: bool) {
    let (mut table, _) = table_of(DomId(1), 100, CPUS as u8);
    let guest = Guest::boot(&mut table, CPUS as u32, 1);
    for n in 1..=PORTS {
        // VIRQs would be too few; a loopback pair can be retargeted, an IPI cannot.
        let offered = table.alloc_unbound(DomId(1)).unwrap();
        let (port, _) = table.bind_loopback(offered).unwrap();
        let _ = table.bind_vcpu(port, n % CPUS as u32).unwrap();
        guest.clear_pending(port);
        guest.unmask(port);
    }
    for cpu in 0..CPUS {
        guest.take_upcall(cpu);
    }
    let numbers = || (0..=2 * PORTS).map(|_| AtomicU32::new(0)).collect();
    let shared = Shared {
        table: Lock::new(table),
        interrupt: [const { AtomicBool::new(false) }; CPUS],
        sent: numbers(),
        seen: numbers(),
        handled: AtomicU64::new(0),
        done: AtomicBool::new(false),
    };
    let guests: Vec<Mutex<Guest>> = (0..CPUS).map(|_| Mutex::new(guest.another())).collect();
    let start = Barrier::new(CPUS + 1);
    thread::scope(|scope| {
        for (cpu, guest) in guests.iter().enumerate() {
            let (shared, start) = (&shared, &start);
            scope.spawn(move || {
                start.wait();
                guest_cpu(shared, &mut guest.lock().unwrap(), cpu);
            });
        }
        let (shared, start) = (&shared, &start);
        scope.spawn(move || {
            let mut seed = 4711;
            start.wait();
            for _ in 0..SENDS {
                let pair = random(&mut seed) % PORTS;
                let (from, to) = (Port(2 * pair + 1), Port(2 * pair + 2));
                shared.sent[to.0 as usize].fetch_add(1, Ordering::SeqCst);
                let mut table = shared.table.lock();
                let Ok(Sent::Local(notify)) = table.send(from) else {
                    panic!("a loopback port")
                };
                if move_ports && random(&mut seed).is_multiple_of(16) {
                    let _ = table.bind_vcpu(to, random(&mut seed) % 2).unwrap();
                    table.set_priority(to, random(&mut seed) % 16).unwrap();
                }
                drop(table);
                shared.tell(notify);
                if random(&mut seed).is_multiple_of(32) {
                    thread::yield_now();
                }
            }
            shared.done.store(true, Ordering::SeqCst);
        });
    });
    // The last unmask of one CPU may have interrupted another that was done.
    for _ in 0..CPUS {
        for (cpu, guest) in guests.iter().enumerate() {
            guest_cpu(&shared, &mut guest.lock().unwrap(), cpu);
        }
    }
    for port in (2..=2 * PORTS).step_by(2) {
        let (sent, seen) = (&shared.sent[port as usize], &shared.seen[port as usize]);
        assert_eq!(
            sent.load(Ordering::SeqCst),
            seen.load(Ordering::SeqCst),
            "port {port}"
        );
    }
    assert!(shared.handled.load(Ordering::Relaxed) > 0);
    assert!(!shared.table.lock().is_upcall_pending(vcpu(0)));
}

#[test]
fn no_event_is_lost_between_senders_and_guest_cpus() {
    run(false);
}

#[test]
fn no_event_is_lost_while_ports_move_between_vcpus_and_queues() {
    run(true);
}

#[test]
fn a_guest_that_hammers_its_words_does_not_stop_a_sender() {
    let (mut table, shared) = table_of(DomId(1), 100, 1);
    let guest = Guest::boot(&mut table, 1, 1);
    let ports: Vec<Port> = (0..4).map(|_| table.bind_ipi(0).unwrap()).collect();
    let (done, start) = (AtomicBool::new(false), Barrier::new(2));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut seed = 99;
            start.wait();
            while !done.load(Ordering::Relaxed) {
                let value = random(&mut seed);
                guest
                    .word(ports[value as usize % 4])
                    .store(value, Ordering::Relaxed);
                guest.ready(0).store(value, Ordering::Relaxed);
                guest.take_upcall(0);
            }
        });
        start.wait();
        for n in 0..200_000 {
            assert!(matches!(table.send(ports[n % 4]), Ok(Sent::Local(_))));
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(shared.is_zero(), "FIFO does not write there");
}
