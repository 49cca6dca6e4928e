//! Lines of emulated devices: pending while they are high.

use super::{ICPENDR, ISENABLER, ISPENDR, ITARGETSR, Machine, cpu, irq, set};
use crate::id::VcpuSet;

const LINE: u32 = 40;
const BIT: u32 = 1 << (LINE - 32);

fn set_level(machine: &mut Machine, high: bool) -> VcpuSet {
    let kick = machine.vgic.set_level(irq(LINE), high);
    machine.attend(kick);
    kick
}

#[test]
fn it_comes_again_at_each_end_while_the_line_is_high() {
    let mut machine = Machine::new(1);
    assert_eq!(set_level(&mut machine, true), set(&[0]));
    for _ in 0..3 {
        assert_eq!(machine.ack(0), Some(LINE as u16));
        assert_eq!(machine.ack(0), None, "it is active");
        machine.eoi(0);
    }
    assert_eq!(machine.ack(0), Some(LINE as u16));
    set_level(&mut machine, false);
    machine.eoi(0);
    assert_eq!(machine.ack(0), None);
}

#[test]
fn a_line_that_falls_before_it_is_taken_is_not_taken() {
    let mut machine = Machine::new(1);
    set_level(&mut machine, true);
    set_level(&mut machine, false);
    assert_eq!(machine.take_all(0), []);
    assert_eq!(machine.read(0, ISPENDR + 4) & BIT, 0);
}

#[test]
fn a_line_that_rises_while_it_is_handled_comes_once_more() {
    let mut machine = Machine::new(1);
    set_level(&mut machine, true);
    assert_eq!(machine.ack(0), Some(LINE as u16));
    set_level(&mut machine, false);
    set_level(&mut machine, true);
    machine.eoi(0);
    assert_eq!(machine.ack(0), Some(LINE as u16));
    set_level(&mut machine, false);
    machine.eoi(0);
    assert_eq!(machine.take_all(0), []);
}

#[test]
fn what_is_pending_by_its_line_stays_so_whatever_is_written() {
    let mut machine = Machine::new(1);
    set_level(&mut machine, true);
    machine.write(0, ICPENDR + 4, u32::MAX);
    assert_eq!(machine.read(0, ISPENDR + 4) & BIT, BIT);
    assert_eq!(machine.ack(0), Some(LINE as u16));
}

#[test]
fn a_line_that_stays_as_it_is_kicks_nobody() {
    let mut machine = Machine::new(1);
    assert_eq!(set_level(&mut machine, false), VcpuSet::EMPTY);
    set_level(&mut machine, true);
    assert_eq!(set_level(&mut machine, true), VcpuSet::EMPTY);
    assert_eq!(machine.vgic.set_level(irq(900), true), VcpuSet::EMPTY);
}

#[test]
fn a_line_that_rose_while_disabled_comes_when_it_is_enabled() {
    let mut machine = Machine::new(1);
    machine.write(0, super::ICENABLER + 4, BIT);
    assert_eq!(set_level(&mut machine, true), VcpuSet::EMPTY);
    assert_eq!(machine.take_all(0), []);
    machine.write(0, ISENABLER + 4, BIT);
    assert_eq!(machine.ack(0), Some(LINE as u16));
}

#[test]
fn it_survives_its_vcpus_unload_and_a_change_of_target() {
    let mut machine = Machine::new(2);
    set_level(&mut machine, true);
    assert_eq!(machine.ack(0), Some(LINE as u16));
    machine.eoi(0);
    machine.unload(0);
    assert!(machine.vgic.has_deliverable(cpu(0)));
    machine.write_byte(0, ITARGETSR + LINE, 2);
    assert!(!machine.vgic.has_deliverable(cpu(0)));
    assert_eq!(machine.ack(1), Some(LINE as u16));
    machine.eoi(1);
    assert_eq!(machine.ack(1), Some(LINE as u16));
}

#[test]
fn one_that_ends_without_a_list_register_comes_again() {
    let mut machine = Machine::new(1);
    set_level(&mut machine, true);
    assert_eq!(machine.ack(0), Some(LINE as u16));
    // Four better ones push it out while it is active.
    for n in 50..54 {
        machine.write_byte(0, super::IPRIORITYR + n, 0x10);
        machine.inject(0, n);
        assert_eq!(machine.ack(0), None.or(Some(n as u16)).filter(|_| n == 50));
    }
    for _ in 0..8 {
        machine.eoi(0);
        while let Some(taken) = machine.ack(0) {
            if taken == LINE as u16 {
                return;
            }
            machine.eoi(0);
        }
    }
    panic!("the line is high, and nothing comes");
}
