//! Physical interrupts, while a guest runs or the CPU is idle.

use alloc::sync::Arc;

use armv7::gic::Ack;

use super::{Cpu, load};
use crate::console;
use crate::cpu::{self, SGI_LOOK, SGI_STOP};
use crate::debug_keys;
use crate::domain::interface::deliver;
use crate::domain::{Domain, registry, shutdown};
use crate::event::EventVirq;
use crate::id::{DomId, IntId, VcpuId};
use crate::irq::{self, Handler, Owner};
use crate::time::{self, Purpose};
use crate::vcpu::Vcpu;

type Loaded<'a> = Option<(&'a Arc<Domain>, &'a Arc<Vcpu>)>;

/// Interrupts handled before the CPU looks at what it is asked to do: other CPUs can send as fast as they are taken.
const AT_ONCE: u32 = 8;

/// Handles the pending interrupts of this CPU, as far as one go goes. What is left takes the CPU out of its guest, or out of
/// its wait, at once.
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
                // A domain with a vCPU on a CPU is in the registry: it is the one of that name.
                Some((domain, _)) if domain.id == dom => irq::deliver(domain, intid),
                _ => deliver_elsewhere(dom, intid),
            };
            if !taken {
                cpu.gic.dist.disable(intid);
            }
            taken
        }
        Owner::Hypervisor(Handler::VirtualTimer) => virtual_timer(loaded),
        owner => {
            ours(cpu, loaded, owner, ack);
            false
        }
    };
    // A guest ends itself what it has taken.
    if !taken {
        cpu.gic.cpu.deactivate(ack);
    }
}

/// Delivers an interrupt to a guest that is not on this CPU; false when it is gone or does not want it.
#[inline(never)]
fn deliver_elsewhere(dom: DomId, intid: u32) -> bool {
    registry::get(dom).is_some_and(|domain| irq::deliver(&domain, intid))
}

/// Handles an interrupt that is for no guest. Out of line, so that those for guests do not pay for its registers.
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
            // The sender set a bit in this CPU's or its vCPU's word, and leaving the guest was the point; or it wants a
            // barrier.
            SGI_LOOK => armv7::fence::acknowledge(),
            SGI_STOP => {
                cpu.gic.cpu.deactivate(ack);
                crate::panic::stop_this_cpu();
            }
            _ => irq::count_stray(),
        },
    }
}

/// Gives the loaded guest its virtual timer's interrupt; false when nobody wants it.
fn virtual_timer(loaded: Loaded<'_>) -> bool {
    let Some((domain, vcpu)) = loaded else {
        return false;
    };
    let mut vgic = domain.vgic.lock();
    let Ok(named) = vgic.inject_hw(vcpu.id, IntId::VIRTUAL_TIMER) else {
        return false;
    };
    deliver(domain, vgic, named);
    true
}

/// Software timers that are due, and the end of a turn.
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
    }
}

/// The console's UART has received something, or takes more to send.
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
    for key in received.keys {
        debug_keys::handle_typed(key);
    }
}
