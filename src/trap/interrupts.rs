//! Physical interrupts, taken while a guest runs or the CPU is idle.

use alloc::sync::Arc;

use armv7::gic::Ack;

use super::{Cpu, load};
use crate::console;
use crate::cpu::{self, SGI_STOP, SGI_WORK};
use crate::debug_keys;
use crate::domain::interface::deliver;
use crate::domain::{Domain, registry, shutdown, uart};
use crate::event::EventVirq;
use crate::id::{DomId, IntId, VcpuId};
use crate::irq::{self, Handler, Owner};
use crate::time::{self, Purpose};
use crate::vcpu::Vcpu;

type Loaded<'a> = Option<(&'a Arc<Domain>, &'a Arc<Vcpu>)>;

/// Maximum interrupts handled before the CPU checks its requests: other CPUs can send SGIs as fast as they are taken.
const AT_ONCE: u32 = 8;

/// Handles pending interrupts of this CPU, up to [`AT_ONCE`]. The remaining ones take the CPU out of its guest or its
/// wait at once.
pub fn handle(cpu: &Cpu, loaded: Loaded<'_>) {
    for _ in 0..AT_ONCE {
        let Some(ack) = cpu.gic.cpu.acknowledge() else {
            return;
        };
        cpu.gic.cpu.drop_priority(ack);
        one(cpu, loaded, ack);
    }
}

#[inline(always)]
fn one(cpu: &Cpu, loaded: Loaded<'_>, ack: Ack) {
    let intid = ack.intid();
    let taken = match irq::owner(intid) {
        Owner::Guest(dom) => {
            let taken = match loaded {
                // A domain with a loaded vCPU is in the registry, so its id identifies it.
                Some((domain, _)) if domain.id == dom => irq::deliver(domain, intid),
                _ => deliver_elsewhere(dom, intid),
            };
            // Between the two reads it may have been taken from a guest that died, and given to another.
            if !taken && irq::owner(intid) == Owner::Guest(dom) {
                cpu.gic.dist.disable(intid);
            }
            taken
        }
        Owner::Hypervisor(Handler::VirtualTimer) => private(loaded, IntId::VIRTUAL_TIMER),
        Owner::Hypervisor(Handler::Monitors) => private(loaded, IntId::MONITORS),
        owner => {
            ours(cpu, loaded, owner, ack);
            false
        }
    };
    // A guest deactivates the interrupts delivered to it.
    if !taken {
        cpu.gic.cpu.deactivate(ack);
    }
}

/// Delivers an interrupt to a guest that is not on this CPU. Returns false if the guest is gone or has no route for it.
#[inline(never)]
fn deliver_elsewhere(dom: DomId, intid: u32) -> bool {
    registry::get(dom).is_some_and(|domain| irq::deliver(&domain, intid))
}

/// Handles an interrupt of the hypervisor. Not inlined, so that guests' interrupts do not pay for the registers it
/// saves.
#[inline(never)]
fn ours(cpu: &Cpu, loaded: Loaded<'_>, owner: Owner, ack: Ack) {
    match owner {
        Owner::Hypervisor(Handler::Timer) => timers(cpu),
        Owner::Hypervisor(Handler::Console) => serve_console(),
        Owner::Hypervisor(Handler::Maintenance) => {
            if let Some((domain, vcpu)) = loaded {
                load::maintain(cpu, domain, vcpu);
            }
        }
        _ => match ack.intid() {
            // The request is in the CPU's or vCPU's word and is served on the way back; a fence request is acknowledged
            // here.
            SGI_WORK => armv7::fence::acknowledge(),
            SGI_STOP => {
                cpu.gic.cpu.deactivate(ack);
                crate::panic::stop_this_cpu();
            }
            _ => irq::count_stray(),
        },
    }
}

/// Delivers an interrupt of this CPU's timer or monitors to the loaded guest, as its PPI `virq`. Returns false if no vCPU is
/// loaded or the PPI is not routed.
#[inline(always)]
fn private(loaded: Loaded<'_>, virq: IntId) -> bool {
    let Some((domain, vcpu)) = loaded else {
        return false;
    };
    let mut vgic = domain.vgic.lock();
    let Ok(named) = vgic.inject_hw(vcpu.id, virq) else {
        return false;
    };
    deliver(domain, vgic, named);
    true
}

/// Handles the software timers that are due, and the end of a turn.
fn timers(cpu: &Cpu) {
    let now = time::now();
    while let Some(purpose) = time::expired(cpu.id, now) {
        expire(purpose);
    }
    if time::turn_is_over(cpu.id, now) {
        cpu::repick(cpu.id);
        time::set_turn_end(cpu.id, None);
    } else {
        time::program(cpu.id);
    }
}

fn expire(purpose: Purpose) {
    match purpose {
        Purpose::Virtual(unit) => {
            if let Some((_, vcpu)) = registry::unit(unit) {
                vcpu.wake();
            }
        }
        Purpose::Poll(unit) => {
            if let Some((domain, vcpu)) = registry::unit(unit) {
                domain.events.lock().end_poll(vcpu.id);
                vcpu.wake();
            }
        }
        Purpose::Physical(unit) => {
            if let Some((domain, vcpu)) = registry::unit(unit) {
                domain.inject(vcpu.id, IntId::PHYSICAL_TIMER);
            }
        }
        Purpose::Watchdog(dom) => {
            if let Some(domain) = registry::get(dom) {
                shutdown::shut_down(&domain, shutdown::Reason::Watchdog);
            }
        }
        Purpose::Console => console::drain(),
        Purpose::Restarts => cpu::request_this(cpu::work::RESTARTS),
    }
}

/// Handles the interrupt of the console's UART: input received, or space for output.
fn serve_console() {
    let received = console::serve();
    if let Some(line) = received.switched {
        log::info!("{line}");
    }
    if received.for_dom0
        && let Some(dom0) = registry::get(DomId::DOM0)
    {
        dom0.raise_virq(EventVirq::CONSOLE, VcpuId::ZERO);
    }
    for (domain, byte) in received.for_uarts {
        if let Some(domain) = registry::get(domain) {
            uart::receive(&domain, byte);
        }
    }
    for key in received.keys {
        debug_keys::handle_typed(key);
    }
}
