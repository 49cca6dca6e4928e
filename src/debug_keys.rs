//! Debug keys: output on a key typed on the console, or by `xl debug-keys`.
//!
//! Output goes to the console's queue, which usually has space for it, and does not wait for the serial line. Lists
//! whose length a guest chooses are cut off, with the number of omitted items.

use armv7::cpu::CpuId;

use crate::cpu;
use crate::domain::registry;
use crate::event::{Binding, Port};
use crate::irq::{self, Owner};
use crate::sched;
use crate::time;
use crate::{latency, machine, mem};

const KEYS: &[(u8, &str)] = &[
    (b'h', "show this message"),
    (b'q', "dump domain (and guest debug) info"),
    (b'r', "dump run queues"),
    (b'd', "dump registers"),
    (b'0', "dump Dom0 registers"),
    (b'e', "dump evtchn info"),
    (b'i', "dump interrupt bindings"),
    (b'm', "memory info"),
    (b'H', "dump heap info"),
    (b't', "display multi-cpu clock info"),
    (b'y', "audit memory"),
    (
        b'L',
        "longest times with interrupts masked (in a build that measures them)",
    ),
    (b'C', "trigger a crashdump"),
    (b'R', "reboot machine"),
    (b'*', "print all diagnostics"),
];

/// Maximum interrupts shown per vCPU, and event channels per domain.
const MOST_SHOWN: usize = 128;

macro_rules! say {
    ($($arg:tt)*) => { crate::log::print(format_args!($($arg)*)) };
}

/// Handles a key typed on the console: as [`handle`], plus the key that crashes the hypervisor, which no domain may
/// send.
pub fn handle_typed(key: u8) {
    if key == b'C' {
        say!("'C' pressed -> triggering crashdump");
        panic!("crash by debug key");
    }
    handle(key);
}

/// Handles a key. Unknown keys do nothing.
pub fn handle(key: u8) {
    match key {
        b'h' => help(),
        b'q' => domains(),
        b'r' => run_queues(),
        b'd' | b'0' => vcpus(),
        b'e' => events(),
        b'i' => interrupts(),
        b'm' => memory(),
        b'H' => heap(),
        b't' => clock(),
        b'y' => audit(),
        b'L' => latencies(),
        b'R' => {
            say!("'R' pressed -> rebooting machine");
            machine::reboot();
        }
        b'*' => {
            for dump in [
                domains, run_queues, vcpus, events, interrupts, memory, heap, clock, audit,
            ] {
                dump();
            }
        }
        _ => {}
    }
}

fn help() {
    say!("'h' pressed -> showing installed handlers");
    for (key, what) in KEYS {
        say!(" key '{}' (ascii '{key:02x}') => {what}", *key as char);
    }
}

fn domains() {
    say!("'q' pressed -> dumping domain info");
    for domain in registry::all() {
        let state = domain.state.lock();
        say!("General information for domain {}:", domain.id.0);
        say!(
            "    {:?} pause_count={} shutdown={:?} rights={:?}",
            state.life,
            state.pause_count,
            state.shutdown,
            domain.rights
        );
        drop(state);
        if let Some(account) = mem::memory().account(domain.id) {
            say!(
                "    nr_pages={} max_pages={} shared={}",
                account.total,
                account.limit,
                account.shared
            );
        }
        let p2m = domain.p2m.lock();
        say!(
            "    p2m: vttbr={:#x} tables={} pool={}",
            domain.vttbr,
            p2m.tables(),
            p2m.pool_pages()
        );
        drop(p2m);
        for vcpu in domain.vcpus() {
            say!(
                "    VCPU{}: {:?} requested={:#x}",
                vcpu.id.raw(),
                vcpu,
                vcpu.requested()
            );
            let vgic = domain.vgic.lock();
            let mut shots = vgic
                .dump(vcpu.id)
                .filter(|shot| shot.pending || shot.active || shot.in_lr);
            for shot in shots.by_ref().take(MOST_SHOWN) {
                let mark = |on: bool, letter: char| if on { letter } else { '-' };
                say!(
                    "      irq {}: {}{}{}{} priority {:#04x}",
                    shot.irq.raw(),
                    mark(shot.enabled, 'e'),
                    mark(shot.pending, 'p'),
                    mark(shot.active, 'a'),
                    mark(shot.in_lr, 'l'),
                    shot.priority
                );
            }
            print_rest(shots.count());
            for (index, value) in vgic.list_registers(vcpu.id) {
                say!("      LR{index}={value:#010x}");
            }
            for pirq in vgic.pirqs_sent_to(vcpu.id).take(MOST_SHOWN) {
                let intid = pirq.raw().into();
                let cpus = armv7::gic::get().map_or(0, |gic| gic.dist.targets(intid));
                say!("      pirq {intid}: to CPUs {cpus:#x}");
            }
        }
    }
    say!("stray interrupts: {}", irq::stray());
}

fn run_queues() {
    let now = time::now();
    let scheduler = sched::lock();
    say!("'r' pressed -> run queues at {}", now.0);
    for cpu in scheduler.online().iter() {
        say!(
            "  CPU{}: current {:?}, {} waiting",
            cpu.raw(),
            scheduler.current(cpu),
            scheduler.queue_len(cpu)
        );
    }
    for unit in scheduler.units(now) {
        say!("  {unit:?}");
    }
}

fn vcpus() {
    say!("'d' pressed -> dumping registers");
    for domain in registry::all() {
        for vcpu in domain.vcpus() {
            match vcpu.registers.try_lock() {
                Some(registers) => {
                    let context = &registers.context;
                    say!(
                        "{vcpu}: pc {:08x} cpsr {:08x} lr_usr {:08x}",
                        context.pc,
                        context.cpsr,
                        context.lr_usr
                    );
                    say!("  {:08x?}", context.r);
                    say!(
                        "  sctlr {:08x} ttbr0 {:x} ttbr1 {:x} vbar {:08x}",
                        registers.cpu.system.sctlr,
                        registers.cpu.system.ttbr0,
                        registers.cpu.system.ttbr1,
                        registers.cpu.system.vbar
                    );
                }
                None => say!(
                    "{vcpu}: loaded on CPU{}",
                    vcpu.loaded_on().map_or(255, CpuId::raw)
                ),
            }
        }
    }
}

fn events() {
    say!("'e' pressed -> dumping event-channel info");
    for domain in registry::all() {
        let events = domain.events.lock();
        say!("Event channel information for domain {}:", domain.id.0);
        let mut open = (1..events.end()).map(Port).filter_map(|port| {
            let status = events.status(port).ok()?;
            (status.binding != Binding::Closed).then_some((port, status))
        });
        for (port, status) in open.by_ref().take(MOST_SHOWN) {
            let pending = events.is_pending(port).unwrap_or(false);
            say!(
                "  {:4} {}: v={} {:?}",
                port.0,
                u8::from(pending),
                status.vcpu.raw(),
                status.binding
            );
        }
        print_rest(open.count());
        let upcall = domain
            .vcpus()
            .iter()
            .filter(|vcpu| events.is_upcall_pending(vcpu.id))
            .count();
        say!("  vCPUs with an upcall pending: {upcall}");
    }
}

/// Prints the number of omitted items of a list.
fn print_rest(count: usize) {
    if count != 0 {
        say!("      and {count} more");
    }
}

fn interrupts() {
    say!("'i' pressed -> dumping interrupt bindings");
    let ours = |owner| matches!(owner, Owner::Hypervisor(_));
    for intid in irq::owned(ours) {
        say!("    irq {intid}: {:?}", irq::owner(intid));
    }
    for domain in registry::all() {
        let count = irq::owned(|owner| owner == Owner::Guest(domain.id)).count();
        if count != 0 {
            say!("    {domain} has {count}");
        }
    }
    for intid in irq::taken() {
        say!("    irq {intid}: d0 enabled it, and nobody owned it");
    }
}

fn memory() {
    let memory = mem::memory();
    say!("Physical memory information:");
    // In Xen's wording, as scripts parse it.
    say!("    Dom heap: {}kB free", memory.free_pages() * 4);
    say!(
        "    total {}kB, claimed {}kB",
        memory.total_pages() * 4,
        memory.claimed_pages() * 4
    );
    for account in memory.accounts() {
        say!("  {account:?}");
    }
}

fn audit() {
    // The other CPUs wait, as the audit would miss frames that they hold.
    let result = cpu::hold::others_wait().map(|_held| crate::domain::audit::audit());
    match result {
        Some(Ok(())) => {
            say!("'y' pressed -> audit: every reference on every frame is accounted for")
        }
        Some(Err(wrong)) => say!("'y' pressed -> audit: {wrong:?}"),
        None => say!("'y' pressed -> another CPU audits"),
    }
}

fn latencies() {
    say!("'L' pressed -> longest times with interrupts masked");
    latency::report(|ticks, cause, operation| {
        say!("  {ticks} ticks: {cause:?}, operation {operation}");
    });
}

fn heap() {
    let (used, total) = armv7::heap::usage();
    say!("'H' pressed -> heap: {used} of {total} bytes in use");
}

fn clock() {
    let now = time::now();
    say!(
        "'t' pressed -> counter {} ticks = {} ns at {} Hz",
        now.0,
        time::clock().ns(now).0,
        time::clock().hz()
    );
}
