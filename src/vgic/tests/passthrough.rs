//! Interrupts of hardware: links, hand-over of the physical active state.

use super::super::{RouteError, Unrouted};
use super::{ICACTIVER, ICENABLER, ICPENDR, ISENABLER, ISPENDR, ITARGETSR, Machine, cpu, irq};

const TIMER: u32 = 27;

fn machine() -> Machine {
    let mut machine = Machine::new(2);
    machine.vgic.route_hw(irq(40), irq(72)).unwrap();
    machine.vgic.route_hw(irq(TIMER), irq(TIMER)).unwrap();
    machine
}

#[test]
fn the_guests_end_deactivates_the_physical_interrupt() {
    let mut machine = machine();
    machine.inject_hw(0, 40);
    assert!(machine.cpus[0].lr(0).is_hw());
    assert_eq!(machine.take_all(0), [40]);
    assert_eq!(machine.cpus[0].deactivated, [72]);
    machine.inject_hw(0, 40);
    assert_eq!(machine.take_all(0), [40]);
    assert_eq!(machine.cpus[0].deactivated, [72, 72]);
}

#[test]
fn an_interrupt_that_is_not_routed_is_not_taken_from_hardware() {
    let mut machine = machine();
    assert!(machine.vgic.inject_hw(cpu(0), irq(41)).is_err());
    assert!(machine.vgic.inject_hw(cpu(0), irq(900)).is_err());
    assert!(machine.vgic.inject_hw(cpu(0), irq(3)).is_err());
}

#[test]
fn a_route_is_made_once_and_between_like_interrupts() {
    let mut machine = machine();
    let mut route = |virq, pirq| machine.vgic.route_hw(irq(virq), irq(pirq));
    assert_eq!(route(40, 73), Err(RouteError::Taken));
    assert_eq!(route(5, 73), Err(RouteError::NoSuchInterrupt));
    assert_eq!(route(41, 27), Err(RouteError::NoSuchInterrupt));
    assert_eq!(route(500, 73), Err(RouteError::NoSuchInterrupt));
    assert_eq!(route(41, 73), Ok(()));
    assert!(
        machine
            .vgic
            .routed_spis()
            .eq([(irq(40), irq(72)), (irq(41), irq(73))])
    );
}

#[test]
fn what_is_sent_to_a_vcpu_and_enabled_moves_with_it() {
    let mut machine = machine();
    for (virq, pirq) in [(32, 90), (41, 73), (70, 100)] {
        machine.vgic.route_hw(irq(virq), irq(pirq)).unwrap();
    }
    let sent_to = |machine: &Machine, vcpu| {
        let pirqs = machine.vgic.pirqs_sent_to(cpu(vcpu));
        pirqs.map(|pirq| pirq.raw()).collect::<Vec<_>>()
    };
    assert_eq!(sent_to(&machine, 0), [90, 72, 73, 100]);
    assert_eq!(sent_to(&machine, 1), []);
    // Interrupts 40 to 43: the second one to vCPU 1.
    machine.write(0, ITARGETSR + 40, 0x0101_0201);
    machine.write(0, ICENABLER + 8, 1 << 6);
    assert_eq!(sent_to(&machine, 0), [90, 72]);
    assert_eq!(sent_to(&machine, 1), [73]);
}

#[test]
fn a_disabled_hardware_interrupt_stays_linked_until_it_is_enabled() {
    let mut machine = machine();
    machine.inject_hw(0, 40);
    machine.write(0, ICENABLER + 4, 1 << 8);
    assert_eq!(machine.ack(0), None);
    machine.write(0, ISENABLER + 4, 1 << 8);
    assert_eq!(machine.take_all(0), [40]);
    assert_eq!(machine.cpus[0].deactivated, [72]);
}

#[test]
fn clearing_a_pending_hardware_interrupt_deactivates_it() {
    for listed in [false, true] {
        let mut machine = machine();
        if listed {
            machine.inject_hw(0, 40);
        } else {
            machine.write(0, ICENABLER + 4, 1 << 8);
            machine.inject_hw(0, 40);
        }
        machine.write(0, ICPENDR + 4, 1 << 8);
        assert_eq!(machine.ack(0), None);
        assert_eq!(machine.cpus[0].deactivated, [72]);
    }
}

#[test]
fn clearing_an_active_hardware_interrupt_deactivates_it() {
    let mut machine = machine();
    machine.inject_hw(0, 40);
    machine.ack(0);
    machine.write(1, ICACTIVER + 4, 1 << 8);
    assert_eq!(machine.cpus[0].deactivated, [72]);
    assert_eq!(machine.cpus[0].valid().count(), 0);
}

#[test]
fn a_hardware_interrupt_made_pending_while_active_is_cut_off_and_comes_again() {
    let mut machine = machine();
    machine.inject_hw(0, 40);
    machine.ack(0);
    machine.write(0, ISPENDR + 4, 1 << 8);
    assert_eq!(machine.cpus[0].deactivated, [72]);
    machine.eoi(0);
    assert_eq!(machine.take_all(0), [40]);
    assert_eq!(machine.cpus[0].deactivated, [72]);
}

#[test]
fn hardware_fires_while_a_software_instance_is_handled() {
    let mut machine = machine();
    machine.write(0, ISPENDR + 4, 1 << 8);
    machine.ack(0);
    machine.inject_hw(0, 40);
    machine.eoi(0);
    assert_eq!(machine.take_all(0), [40]);
    assert_eq!(machine.cpus[0].deactivated, [72]);
}

#[test]
fn hardware_fires_while_a_software_instance_is_pending() {
    let mut machine = machine();
    machine.write(0, ISPENDR + 4, 1 << 8);
    machine.inject_hw(0, 40);
    assert_eq!(machine.take_all(0), [40]);
    assert_eq!(machine.cpus[0].deactivated, [72]);
}

#[test]
fn a_hardware_interrupt_follows_its_target_with_its_link() {
    let mut machine = machine();
    machine.inject_hw(0, 40);
    machine.write_byte(0, ITARGETSR + 40, 2);
    assert_eq!(machine.ack(0), None);
    assert_eq!(machine.take_all(1), [40]);
    assert_eq!(machine.cpus[1].deactivated, [72]);
}

#[test]
fn spilled_hardware_interrupts_are_deactivated_at_their_counted_end() {
    let mut machine = machine();
    machine.inject_hw(0, 40);
    assert_eq!(machine.ack(0), Some(40));
    for n in 0..6 {
        machine.write_byte(0, super::IPRIORITYR + 50 + n, 0x80 - 8 * n);
        machine.inject(0, 50 + n);
        assert_eq!(machine.ack(0), Some(50 + n as u16));
    }
    while machine.eoi(0).is_some() {}
    assert_eq!(machine.cpus[0].deactivated, [72]);
}

#[test]
fn the_timers_active_state_moves_with_the_vcpu() {
    let mut machine = machine();
    machine.inject_hw(0, TIMER);
    assert_eq!(machine.unload(0), 1 << TIMER);
    assert_eq!(machine.vgic.active_ppis(cpu(0)), 1 << TIMER);
    machine.refill(0);
    assert_eq!(machine.take_all(0), [TIMER as u16]);
    assert_eq!(machine.cpus[0].deactivated, [TIMER as u16]);
    assert_eq!(machine.unload(0), 0);
    assert_eq!(machine.unload(1), 0);
}

#[test]
fn a_timer_that_expired_while_its_vcpu_was_away_is_delivered_linked() {
    let mut machine = machine();
    assert_eq!(machine.unload(0), 0);
    machine.inject_hw(0, TIMER);
    assert!(machine.vgic.has_deliverable(cpu(0)));
    assert_eq!(machine.vgic.active_ppis(cpu(0)), 1 << TIMER);
    machine.refill(0);
    assert_eq!(machine.take_all(0), [TIMER as u16]);
    assert_eq!(machine.cpus[0].deactivated, [TIMER as u16]);
}

#[test]
fn a_reset_vcpu_keeps_no_timer() {
    let mut machine = machine();
    machine.inject_hw(0, TIMER);
    assert_eq!(machine.unload(0), 1 << TIMER);
    machine.vgic.reset_vcpu(cpu(0));
    assert_eq!(machine.vgic.active_ppis(cpu(0)), 0);
    machine.refill(0);
    assert_eq!(machine.ack(0), None);
    assert!(machine.cpus[0].deactivated.is_empty());
}

#[test]
fn resetting_a_vcpu_deactivates_the_hardware_interrupt_it_handled() {
    let mut machine = machine();
    machine.inject_hw(0, 40);
    machine.ack(0);
    machine.unload(0);
    machine.vgic.reset_vcpu(cpu(0));
    machine.cpus[0].running.clear();
    machine.refill(0);
    assert_eq!(machine.cpus[0].deactivated, [72]);
    machine.inject_hw(0, 40);
    assert_eq!(machine.take_all(0), [40]);
}

#[test]
fn unrouting_tells_whether_the_physical_interrupt_is_active() {
    let idle = machine().vgic.unroute_hw(irq(40));
    assert_eq!(
        idle,
        Ok(Unrouted {
            pirq: irq(72),
            active: false
        })
    );

    let mut queued = machine();
    queued.unload(0);
    queued.inject_hw(0, 40);
    assert_eq!(
        queued.vgic.unroute_hw(irq(40)),
        Ok(Unrouted {
            pirq: irq(72),
            active: true
        })
    );
    assert!(!queued.vgic.has_deliverable(cpu(0)));

    let mut handled = machine();
    handled.inject_hw(0, 40);
    handled.ack(0);
    assert_eq!(handled.vgic.unroute_hw(irq(40)), Err(RouteError::InUse));
    handled.unload(0);
    assert_eq!(
        handled.vgic.unroute_hw(irq(40)),
        Ok(Unrouted {
            pirq: irq(72),
            active: true
        })
    );
    handled.refill(0);
    handled.eoi(0);
    assert!(handled.cpus[0].deactivated.is_empty());
    assert_eq!(handled.vgic.unroute_hw(irq(40)), Err(RouteError::NotRouted));
    assert_eq!(
        handled.vgic.unroute_hw(irq(TIMER)),
        Err(RouteError::NoSuchInterrupt)
    );
}
