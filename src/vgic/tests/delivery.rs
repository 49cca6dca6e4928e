//! Interrupts of software: latching, list registers, overflow, moves.

use super::super::Maintenance;
use super::{
    CTLR, Gich, ICACTIVER, ICENABLER, ICPENDR, IPRIORITYR, ISACTIVER, ISENABLER, ISPENDR,
    ITARGETSR, Machine, SGIR, cpu, irq, set,
};
use crate::id::VcpuSet;

const EVENT: u32 = 31;

#[test]
fn an_injected_interrupt_is_taken_once() {
    let mut machine = Machine::new(1);
    machine.inject(0, EVENT);
    assert_eq!(machine.take_all(0), [EVENT as u16]);
    machine.inject(0, EVENT);
    assert_eq!(machine.take_all(0), [EVENT as u16]);
}

#[test]
fn edges_coalesce_while_pending() {
    let mut machine = Machine::new(1);
    for _ in 0..5 {
        machine.inject(0, EVENT);
    }
    assert_eq!(machine.take_all(0), [EVENT as u16]);
}

#[test]
fn an_interrupt_that_is_latched_already_kicks_nobody() {
    let mut machine = Machine::new(1);
    assert_eq!(machine.vgic.inject(cpu(0), irq(EVENT)), set(&[0]));
    assert_eq!(machine.vgic.inject(cpu(0), irq(EVENT)), VcpuSet::EMPTY);
}

#[test]
fn interrupts_and_vcpus_that_do_not_exist_are_ignored() {
    let mut machine = Machine::new(1);
    assert_eq!(machine.vgic.inject(cpu(3), irq(EVENT)), VcpuSet::EMPTY);
    assert_eq!(machine.vgic.inject(cpu(0), irq(900)), VcpuSet::EMPTY);
}

#[test]
fn an_edge_while_active_is_delivered_after_the_end() {
    let mut machine = Machine::new(1);
    machine.inject(0, EVENT);
    assert_eq!(machine.ack(0), Some(EVENT as u16));
    machine.inject(0, EVENT);
    assert_eq!(machine.ack(0), None);
    machine.eoi(0);
    assert_eq!(machine.take_all(0), [EVENT as u16]);
}

#[test]
fn one_interrupt_with_a_free_slot_costs_one_write_and_no_read() {
    let mut machine = Machine::new(1);
    machine.cpus[0].writes = 0;
    machine.inject(0, 33);
    assert_eq!(
        (machine.cpus[0].writes, machine.cpus[0].reads.get()),
        (1, 0)
    );
    machine.refill(0);
    assert_eq!(
        (machine.cpus[0].writes, machine.cpus[0].reads.get()),
        (1, 0)
    );
}

#[test]
fn the_same_interrupt_again_costs_one_read_and_one_write() {
    let mut machine = Machine::new(1);
    machine.write(0, SGIR, 2 << 24);
    machine.take_all(0);
    machine.cpus[0].writes = 0;
    machine.write(0, SGIR, 2 << 24);
    assert_eq!(
        (machine.cpus[0].writes, machine.cpus[0].reads.get()),
        (1, 1)
    );
    assert_eq!(machine.take_all(0), [0]);
}

#[test]
fn a_disabled_interrupt_waits_until_it_is_enabled() {
    let mut machine = Machine::new(1);
    machine.write(0, ICENABLER + 4, 1);
    machine.inject(0, 32);
    assert!(!machine.vgic.has_deliverable(cpu(0)));
    assert_eq!(machine.ack(0), None);
    machine.write(0, ISENABLER + 4, 1);
    assert_eq!(machine.take_all(0), [32]);
}

#[test]
fn disabling_withdraws_from_the_list_registers_of_another_vcpu() {
    // XSA-223.
    let mut machine = Machine::new(2);
    machine.inject(0, 32);
    let effects = machine.write(1, ICENABLER + 4, 1);
    assert!(effects.kick.contains(cpu(0)));
    assert_eq!(machine.ack(0), None);
    machine.write(1, ISENABLER + 4, 1);
    assert_eq!(machine.take_all(0), [32]);
}

#[test]
fn clearing_pending_withdraws_for_good() {
    let mut machine = Machine::new(2);
    machine.inject(0, 32);
    machine.write(1, ICPENDR + 4, 1);
    assert_eq!(machine.ack(0), None);
    machine.inject(0, 32);
    assert_eq!(machine.take_all(0), [32]);
}

#[test]
fn an_edge_after_clearing_pending_counts() {
    let mut machine = Machine::new(2);
    machine.inject(0, 32);
    // The holder has not yet attended to the kick when the next edge comes.
    let mut kick = machine
        .vgic
        .write(cpu(1), ICPENDR + 4, super::Width::Word, 1)
        .unwrap()
        .kick;
    kick |= machine.vgic.inject(cpu(1), irq(32));
    machine.attend(kick);
    assert_eq!(machine.take_all(0), [32]);
}

#[test]
fn interrupts_that_change_slots_are_never_in_two() {
    // The list registers of the fake refuse a VirtualID that another one holds.
    let mut machine = Machine::new(1);
    for n in 32..36 {
        machine.inject(0, n);
    }
    let off = machine
        .vgic
        .write(cpu(0), CTLR, super::Width::Word, 0)
        .unwrap();
    let clear = machine
        .vgic
        .write(cpu(0), ICPENDR + 4, super::Width::Word, 1)
        .unwrap();
    let on = machine
        .vgic
        .write(cpu(0), CTLR, super::Width::Word, 1)
        .unwrap();
    machine.attend(off.kick | clear.kick | on.kick);
    for (n, priority) in [(33, 0x80), (34, 0x70), (35, 0x60)] {
        machine.write_byte(0, IPRIORITYR + n, priority);
    }
    machine.write(0, CTLR, 0);
    machine.inject(0, 36);
    machine.write(0, CTLR, 1);
    assert_eq!(machine.take_all(0), [35, 34, 33, 36]);
}

#[test]
fn the_distributor_forwards_only_while_it_is_on() {
    let mut machine = Machine::new(1);
    machine.inject(0, 32);
    machine.write(0, CTLR, 0);
    machine.inject(0, 33);
    assert_eq!(machine.ack(0), None);
    assert!(!machine.vgic.has_deliverable(cpu(0)));
    let on = machine.write(0, CTLR, 1);
    assert_eq!(on.kick, set(&[0]));
    assert_eq!(machine.take_all(0), [32, 33]);
}

#[test]
fn each_sender_of_an_sgi_is_heard() {
    let mut machine = Machine::new(4);
    for n in 0..4 {
        machine.write(n, SGIR, 1 << 16 | 5);
        machine.write(n, SGIR, 1 << 16 | 5);
    }
    let mut senders = Vec::new();
    while let Some((virq, source)) = machine.cpus[0].ack() {
        assert_eq!(virq, 5);
        senders.push(source);
        machine.eoi(0);
    }
    senders.sort_unstable();
    assert_eq!(senders, [0, 1, 2, 3]);
}

#[test]
fn an_sgi_that_comes_again_while_handled_is_delivered_again() {
    let mut machine = Machine::new(2);
    machine.write(1, SGIR, 1 << 16 | 5);
    machine.ack(0);
    machine.write(1, SGIR, 1 << 16 | 5);
    machine.write(0, SGIR, 1 << 16 | 5);
    machine.eoi(0);
    assert_eq!(machine.take_all(0), [5, 5]);
}

#[test]
fn more_interrupts_than_list_registers_come_in_order_of_priority() {
    let mut machine = Machine::new(1);
    for n in 0..32u32 {
        machine.write_byte(0, IPRIORITYR + 32 + n, 0xF8 - 8 * n);
    }
    for n in 0..32 {
        machine.inject(0, 32 + n);
    }
    let taken = machine.take_all(0);
    assert!(taken.iter().copied().eq((32..64).rev()), "{taken:?}");
}

#[test]
fn nested_handlers_deeper_than_the_list_registers_all_run_and_end() {
    let mut machine = Machine::new(1);
    for n in 0..32u32 {
        machine.write_byte(0, IPRIORITYR + 32 + n, 0xF8 - 8 * n);
        machine.inject(0, 32 + n);
        assert_eq!(machine.ack(0), Some(32 + n as u16));
    }
    assert!(
        machine.cpus[0]
            .maintenance
            .contains(Maintenance::NOT_PRESENT)
    );
    machine.inject(0, 40);
    for n in (0..32u32).rev() {
        assert_eq!(machine.read(0, ISACTIVER + 4), u32::MAX >> (31 - n), "{n}");
        assert_eq!(machine.eoi(0), Some(32 + n as u16));
        if n == 8 {
            assert_eq!(machine.take_all(0), [40]);
        }
    }
    assert_eq!(machine.read(0, ISACTIVER + 4), 0);
    assert!(
        !machine.cpus[0]
            .maintenance
            .contains(Maintenance::NOT_PRESENT)
    );
    machine.inject(0, 41);
    assert_eq!(machine.take_all(0), [41]);
}

#[test]
fn a_better_interrupt_takes_the_place_of_a_worse_pending_one() {
    let mut machine = Machine::new(1);
    for n in 32..36 {
        machine.inject(0, n);
    }
    machine.write_byte(0, IPRIORITYR + 50, 0);
    machine.inject(0, 50);
    assert!(
        machine.cpus[0]
            .maintenance
            .contains(Maintenance::NO_PENDING)
    );
    assert_eq!(machine.take_all(0), [50, 32, 33, 34, 35]);
    assert_eq!(machine.cpus[0].maintenance, Maintenance::NONE);
}

#[test]
fn a_new_priority_reaches_the_list_register() {
    let mut machine = Machine::new(1);
    machine.inject(0, 32);
    machine.inject(0, 33);
    machine.write_byte(0, IPRIORITYR + 33, 0x20);
    assert_eq!(machine.take_all(0), [33, 32]);
}

#[test]
fn one_list_register_is_enough() {
    let mut machine = Machine::new(1);
    machine.unload(0);
    machine.cpus[0] = Gich::new(1);
    for n in 32..40 {
        machine.inject(0, n);
    }
    machine.refill(0);
    assert_eq!(machine.take_all(0), [32, 33, 34, 35, 36, 37, 38, 39]);
}

#[test]
fn a_pending_spi_follows_its_target() {
    let mut machine = Machine::new(2);
    machine.inject(0, 32);
    machine.write_byte(0, ITARGETSR + 32, 2);
    assert_eq!(machine.ack(0), None);
    assert_eq!(machine.take_all(1), [32]);
}

#[test]
fn a_pending_spi_leaves_a_vcpu_that_does_not_run() {
    let mut machine = Machine::new(2);
    machine.inject(0, 32);
    machine.unload(0);
    assert!(machine.vgic.has_deliverable(cpu(0)));
    machine.write_byte(1, ITARGETSR + 32, 2);
    assert!(!machine.vgic.has_deliverable(cpu(0)));
    assert_eq!(machine.take_all(1), [32]);
}

#[test]
fn an_active_spi_that_fires_again_comes_to_its_new_target_after_the_end() {
    let mut machine = Machine::new(2);
    machine.inject(0, 32);
    machine.ack(0);
    machine.write_byte(0, ITARGETSR + 32, 2);
    machine.inject(0, 32);
    assert_eq!((machine.ack(0), machine.ack(1)), (None, None));
    machine.eoi(0);
    assert_eq!(machine.ack(0), None);
    assert_eq!(machine.take_all(1), [32]);
}

#[test]
fn a_pending_and_active_spi_takes_its_pending_state_along() {
    let mut machine = Machine::new(2);
    machine.inject(0, 32);
    machine.ack(0);
    machine.inject(0, 32);
    machine.write_byte(0, ITARGETSR + 32, 2);
    machine.eoi(0);
    assert_eq!(machine.ack(0), None);
    assert_eq!(machine.take_all(1), [32]);
}

#[test]
fn an_spi_without_target_waits() {
    let mut machine = Machine::new(2);
    machine.write_byte(0, ITARGETSR + 32, 0);
    machine.inject(0, 32);
    assert_eq!((machine.ack(0), machine.ack(1)), (None, None));
    machine.write_byte(0, ITARGETSR + 32, 2);
    assert_eq!(machine.take_all(1), [32]);
}

#[test]
fn unload_and_reload_keep_pending_and_active_state() {
    let mut machine = Machine::new(1);
    machine.inject(0, 32);
    machine.ack(0);
    machine.inject(0, 32);
    machine.write_byte(0, IPRIORITYR + 33, 0x20);
    machine.inject(0, 33);
    machine.unload(0);
    machine.inject(0, 34);
    machine.refill(0);
    assert_eq!(machine.ack(0), Some(33));
    machine.eoi(0);
    machine.eoi(0);
    assert_eq!(machine.take_all(0), [32, 34]);
}

#[test]
fn wfi_wakes_for_what_could_be_taken() {
    let mut machine = Machine::new(1);
    assert!(!machine.vgic.has_deliverable(cpu(0)));
    machine.inject(0, 32);
    assert!(machine.vgic.has_deliverable(cpu(0)));
    machine.ack(0);
    machine.unload(0);
    assert!(!machine.vgic.has_deliverable(cpu(0)));
    // Pending again, but it waits for its own end.
    machine.inject(0, 32);
    assert!(!machine.vgic.has_deliverable(cpu(0)));
    machine.inject(0, EVENT);
    assert!(machine.vgic.has_deliverable(cpu(0)));
}

#[test]
fn isactiver_keeps_an_interrupt_from_delivery_and_icactiver_releases_it() {
    let mut machine = Machine::new(2);
    machine.inject(0, 32);
    machine.write(1, ISACTIVER + 4, 1);
    assert_eq!(machine.ack(0), None);
    assert_eq!(machine.read(1, ISACTIVER + 4), 1);
    assert_eq!(machine.read(1, ISPENDR + 4), 1);
    machine.write(1, ICACTIVER + 4, 1);
    assert_eq!(machine.read(1, ISACTIVER + 4), 0);
    assert_eq!(machine.take_all(0), [32]);
}

#[test]
fn interrupts_made_active_do_not_block_the_list_registers() {
    let mut machine = Machine::new(1);
    machine.write(0, ISACTIVER + 4, 0xFF);
    for n in 50..56 {
        machine.inject(0, n);
    }
    assert_eq!(machine.take_all(0), [50, 51, 52, 53, 54, 55]);
    assert_eq!(machine.read(0, ISACTIVER + 4), 0xFF);
    machine.write(0, ICACTIVER + 4, u32::MAX);
    machine.inject(0, 32);
    assert_eq!(machine.take_all(0), [32]);
}

#[test]
fn icactiver_ends_an_interrupt_in_a_list_register() {
    let mut machine = Machine::new(2);
    machine.inject(0, 32);
    machine.ack(0);
    machine.inject(0, 32);
    machine.write(1, ICACTIVER + 4, 1);
    assert_eq!(machine.read(1, ISACTIVER + 4), 0);
    assert_eq!(machine.read(1, ISPENDR + 4), 1);
}

#[test]
fn the_end_of_an_interrupt_cleared_before_is_not_taken_for_that_of_a_spilled_one() {
    let mut machine = Machine::new(1);
    machine.inject(0, 32);
    machine.ack(0);
    machine.write(0, ICACTIVER + 4, 1);
    machine.eoi(0);
    for n in 0..6u32 {
        machine.write_byte(0, IPRIORITYR + 40 + n, 0x80 - 8 * n);
        machine.inject(0, 40 + n);
        assert_eq!(machine.ack(0), Some(40 + n as u16));
    }
    assert_eq!(machine.read(0, ISACTIVER + 4), 0x3F << 8);
}

#[test]
fn linux_clearing_all_at_boot_is_accepted() {
    let mut machine = Machine::new(2);
    for bank in 0..32 {
        machine.write(0, ICACTIVER + 4 * bank, u32::MAX);
        machine.write(0, ICENABLER + 4 * bank, u32::MAX);
    }
    assert_eq!(machine.read(0, ISENABLER), 0xFFFF);
}

#[test]
fn a_reset_vcpu_has_nothing_pending() {
    let mut machine = Machine::new(2);
    machine.inject(1, EVENT);
    machine.write(0, SGIR, 2 << 16 | 1);
    machine.inject(1, 29);
    machine.ack(1);
    machine.unload(1);
    machine.inject(1, 30);
    machine.vgic.reset_vcpu(cpu(1));
    machine.cpus[1] = Gich::new(4);
    assert!(!machine.vgic.has_deliverable(cpu(1)));
    machine.refill(1);
    assert_eq!(machine.ack(1), None);
    assert_eq!(machine.read(1, ISPENDR), 0);
    assert_eq!(machine.read(1, ISACTIVER), 0);
    machine.inject(1, EVENT);
    assert_eq!(machine.take_all(1), [EVENT as u16]);
}

#[test]
fn a_shared_interrupt_outlives_the_reset_of_its_target() {
    let mut machine = Machine::new(2);
    machine.write_byte(0, ITARGETSR + 32, 2);
    machine.inject(0, 32);
    machine.unload(1);
    machine.vgic.reset_vcpu(cpu(1));
    machine.write_byte(0, ITARGETSR + 32, 1);
    assert_eq!(machine.take_all(0), [32]);
}

#[test]
fn the_dump_lists_what_is_in_flight() {
    let mut machine = Machine::new(1);
    machine.inject(0, 32);
    machine.ack(0);
    machine.inject(0, EVENT);
    machine.read(0, ISACTIVER);
    let shots: Vec<_> = machine
        .vgic
        .dump(cpu(0))
        .map(|shot| (shot.irq.raw(), shot.pending, shot.active))
        .collect();
    assert_eq!(shots, [(31, true, false), (32, false, true)]);
    assert_eq!(machine.vgic.list_registers(cpu(0)).count(), 2);
}
