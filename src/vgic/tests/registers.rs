//! Distributor registers.

use proptest::prelude::*;

use super::super::{HostOp, NewError, Refused, Vgic};
use super::{
    CTLR, ICENABLER, ICPENDR, IPRIORITYR, ISACTIVER, ISENABLER, ISPENDR, ITARGETSR, Machine, SGIR,
    cpu, irq, set,
};
use crate::id::VcpuSet;
use armv7::gic::Trigger;
use armv7::syndrome::Width;

#[test]
fn only_one_to_eight_vcpus_and_up_to_960_spis_make_a_distributor() {
    assert_eq!(Vgic::new(0, 0).err(), Some(NewError::VcpuCount));
    assert_eq!(Vgic::new(9, 0).err(), Some(NewError::VcpuCount));
    assert_eq!(Vgic::new(8, 961).err(), Some(NewError::SpiCount));
    assert!(Vgic::new(8, 960).is_ok());
}

#[test]
fn typer_tells_interrupts_and_vcpus() {
    let typer = |vcpus, spis| Vgic::new(vcpus, spis).unwrap().read(cpu(0), 4, Width::Word);
    assert_eq!(typer(1, 0), Ok(0));
    assert_eq!(typer(2, 256), Ok(0x28));
    assert_eq!(typer(8, 33), Ok(0xE2));
}

#[test]
fn identification_registers_are_those_of_an_arm_gicv2() {
    let mut machine = Machine::new(1);
    assert_eq!(machine.read(0, 8), 0x43B);
    assert_eq!(machine.read(0, 0xFE8), 0x2B);
    machine.write(0, 4, u32::MAX);
    machine.write(0, 8, u32::MAX);
    assert_eq!(machine.read(0, 8), 0x43B);
}

#[test]
fn ctlr_keeps_only_enable() {
    let mut machine = Machine::new(1);
    machine.write(0, CTLR, u32::MAX);
    assert_eq!(machine.read(0, CTLR), 1);
    machine.write(0, CTLR, 0xFFFF_FFFE);
    assert_eq!(machine.read(0, CTLR), 0);
}

#[test]
fn sgis_stay_enabled() {
    let mut machine = Machine::new(1);
    machine.write(0, ICENABLER, u32::MAX);
    assert_eq!(machine.read(0, ISENABLER), 0xFFFF);
    assert_eq!(machine.read(0, ICENABLER), 0xFFFF);
}

#[test]
fn private_registers_are_banked_and_shared_ones_are_not() {
    let mut machine = Machine::new(2);
    machine.write(1, ICENABLER, 1 << 27);
    assert_ne!(machine.read(0, ISENABLER) & 1 << 27, 0);
    assert_eq!(machine.read(1, ISENABLER) & 1 << 27, 0);
    machine.write(1, ICENABLER + 4, 2);
    assert_eq!(machine.read(0, ISENABLER + 4), !2);
    machine.write(1, IPRIORITYR + 24, 0x10);
    assert_eq!(machine.read(0, IPRIORITYR + 24), 0xA0A0_A0A0);
}

#[test]
fn priorities_have_five_bits_and_bytes() {
    let mut machine = Machine::new(1);
    machine.write(0, IPRIORITYR + 32, 0xFFFF_FFFF);
    assert_eq!(machine.read(0, IPRIORITYR + 32), 0xF8F8_F8F8);
    machine.write_byte(0, IPRIORITYR + 34, 0x17);
    assert_eq!(machine.read(0, IPRIORITYR + 32), 0xF810_F8F8);
    assert_eq!(
        machine.vgic.read(cpu(0), IPRIORITYR + 34, Width::Byte),
        Ok(0x10)
    );
}

#[test]
fn private_targets_read_the_readers_own_mask() {
    let mut machine = Machine::new(4);
    for n in 0..4 {
        machine.write(n, ITARGETSR, u32::MAX);
        assert_eq!(machine.read(n, ITARGETSR), 0x0101_0101 << n);
        assert_eq!(machine.read(n, ITARGETSR + 28), 0x0101_0101 << n);
    }
}

#[test]
fn targets_name_existing_vcpus_only() {
    let mut machine = Machine::new(3);
    machine.write(0, ITARGETSR + 32, u32::MAX);
    assert_eq!(machine.read(0, ITARGETSR + 32), 0x0707_0707);
    machine.write_byte(0, ITARGETSR + 33, 0xF2);
    assert_eq!(machine.read(0, ITARGETSR + 32), 0x0707_0207);
}

#[test]
fn shared_targets_of_a_single_vcpu_are_fixed() {
    let mut machine = Machine::new(1);
    machine.write(0, ITARGETSR + 32, 0);
    assert_eq!(machine.read(0, ITARGETSR + 32), 0);
    machine.inject(0, 32);
    assert_eq!(machine.ack(0), Some(32));
}

#[test]
fn config_of_private_interrupts_is_fixed() {
    let mut machine = Machine::new(1);
    machine.write(0, 0xC00, 0);
    machine.write(0, 0xC04, u32::MAX);
    machine.write(0, 0xC08, u32::MAX);
    assert_eq!(machine.read(0, 0xC00), 0xAAAA_AAAA);
    assert_eq!(machine.read(0, 0xC04), 0);
    assert_eq!(machine.read(0, 0xC08), 0xAAAA_AAAA);
    let triggers = [32, 47, 48, 27].map(|virq| machine.vgic.trigger_of(irq(virq)));
    let (edge, level) = (Trigger::Edge, Trigger::Level);
    assert_eq!(triggers, [edge, edge, level, level]);
}

#[test]
fn interrupts_beyond_the_last_read_as_zero_and_ignore_writes() {
    // XSA-94.
    let mut machine = Machine::new(2);
    for (base, stride) in [
        (0x100, 4),
        (0x180, 4),
        (0x200, 4),
        (0x300, 4),
        (0x400, 32),
        (0x800, 32),
        (0xC00, 8),
    ] {
        for bank in 3..32 {
            machine.write(0, base + bank * stride, u32::MAX);
            assert_eq!(
                machine.read(0, base + bank * stride),
                0,
                "{base:x} bank {bank}"
            );
        }
    }
}

#[test]
fn bytes_are_allowed_only_where_the_architecture_has_them() {
    let vgic = Vgic::new(1, 32).unwrap();
    let byte = |offset| vgic.read(cpu(0), offset, Width::Byte);
    for offset in [
        0, 4, 8, 0x80, 0x100, 0x180, 0x200, 0x280, 0x300, 0x380, 0xC00, 0xF00, 0xFE8,
    ] {
        assert_eq!(byte(offset), Err(Refused), "{offset:x}");
    }
    for offset in [0x400, 0x421, 0x800, 0x83F, 0xF10, 0xF2F] {
        assert!(byte(offset).is_ok(), "{offset:x}");
    }
    assert_eq!(vgic.read(cpu(0), 0x400, Width::Half), Err(Refused));
    assert_eq!(vgic.read(cpu(0), 0x402, Width::Word), Err(Refused));
    assert_eq!(vgic.read(cpu(0), 0x1000, Width::Word), Err(Refused));
}

#[test]
fn pending_state_can_be_set_and_cleared() {
    let mut machine = Machine::new(1);
    machine.write(0, ICENABLER + 4, 1);
    machine.write(0, ISPENDR + 4, 1);
    assert_eq!(machine.read(0, ISPENDR + 4), 1);
    assert_eq!(machine.read(0, ICPENDR + 4), 1);
    machine.write(0, ICPENDR + 4, 1);
    assert_eq!(machine.read(0, ISPENDR + 4), 0);
}

#[test]
fn sgis_cannot_be_made_pending_through_ispendr() {
    let mut machine = Machine::new(1);
    machine.write(0, ISPENDR, 0xFFFF);
    assert_eq!(machine.read(0, ISPENDR), 0);
    machine.write(0, SGIR, 2 << 24 | 3);
    machine.write(0, ICPENDR, 0xFFFF);
    assert_eq!(machine.read(0, ISPENDR), 1 << 3);
}

#[test]
fn pending_and_active_state_show_through_list_registers() {
    let mut machine = Machine::new(2);
    machine.inject(0, 40);
    assert_eq!(machine.read(1, ISPENDR + 4), 1 << 8);
    assert_eq!(machine.read(1, ISACTIVER + 4), 0);
    machine.ack(0);
    assert_eq!(machine.read(1, ISPENDR + 4), 0);
    assert_eq!(machine.read(1, ISACTIVER + 4), 1 << 8);
    machine.eoi(0);
    assert_eq!(machine.read(1, ISACTIVER + 4), 0);
}

#[test]
fn sgir_reaches_those_its_filter_names() {
    let mut vgic = Vgic::new(3, 0).unwrap();
    let _ = vgic.write(cpu(0), CTLR, Width::Word, 1);
    let mut send = |value| vgic.write(cpu(1), SGIR, Width::Word, value).unwrap().kick;
    assert_eq!(send(0x05 << 16), set(&[0, 2]));
    assert_eq!(send(1 << 24 | 1), set(&[0, 2]));
    assert_eq!(send(2 << 24 | 2), set(&[1]));
    // XSA-117: filter 3 is reserved. XSA-225: vCPUs that do not exist.
    assert_eq!(send(3 << 24 | 0xFF << 16 | 3), VcpuSet::EMPTY);
    assert_eq!(send(0xFF << 16 | 4), set(&[0, 1, 2]));
    assert_eq!(send(0xF8 << 16 | 5), VcpuSet::EMPTY);
}

#[test]
fn a_change_of_control_kicks_nobody_who_has_not_seen_the_last_one() {
    let Machine {
        mut vgic,
        cpus: mut lrs,
    } = Machine::new(3);
    let vgic = &mut vgic;
    for vcpu in 0..3 {
        let _ = vgic.refill(cpu(vcpu), &mut lrs[vcpu as usize]);
    }
    let toggle = |vgic: &mut Vgic, on| vgic.write(cpu(0), CTLR, Width::Word, on).unwrap().kick;
    assert_eq!(toggle(vgic, 0), set(&[0, 1, 2]));
    assert_eq!(toggle(vgic, 1), VcpuSet::EMPTY);
    let _ = vgic.refill(cpu(1), &mut lrs[1]);
    assert_eq!(toggle(vgic, 0), set(&[1]));
    assert_eq!(toggle(vgic, 1), VcpuSet::EMPTY);
    for vcpu in 0..3 {
        let _ = vgic.refill(cpu(vcpu), &mut lrs[vcpu as usize]);
    }
    assert_eq!(toggle(vgic, 0), set(&[0, 1, 2]));
}

#[test]
fn pending_sgis_show_their_senders_and_can_be_set_and_cleared() {
    let mut machine = Machine::new(4);
    for n in [1, 2, 3] {
        machine.write(n, SGIR, 1 << 16 | 6);
    }
    assert_eq!(machine.read(0, 0xF14), 0b1110 << 16);
    machine.write_byte(0, 0xF16, 0b0110);
    assert_eq!(machine.read(0, 0xF24), 0b1000 << 16);
    machine.write_byte(0, 0xF26, 0xF1);
    assert_eq!(machine.read(0, 0xF24), 0b1001 << 16);
    assert_eq!(machine.take_all(0), [6, 6]);
    assert_eq!(machine.read(0, 0xF24), 0);
}

#[test]
fn enabling_and_moving_a_routed_spi_asks_for_physical_work() {
    let mut machine = Machine::new(2);
    machine.vgic.route_hw(irq(40), irq(72)).unwrap();
    let off = machine.write(0, ICENABLER + 4, u32::MAX).host.unwrap();
    assert_eq!(
        (off.op, off.first, off.mask),
        (HostOp::Disable, irq(32), 1 << 8)
    );
    assert!(machine.write(0, ICENABLER + 4, u32::MAX).host.is_none());
    let on = machine.write(0, ISENABLER + 4, u32::MAX).host.unwrap();
    assert_eq!((on.op, on.mask), (HostOp::Enable, 1 << 8));
    assert!(
        machine
            .vgic
            .routes(on.first, on.mask)
            .eq([(irq(40), irq(72))])
    );
    let to = machine.write_byte(0, ITARGETSR + 40, 2).host.unwrap();
    assert_eq!(
        (to.op, to.first, to.mask),
        (HostOp::Retarget, irq(32), 1 << 8)
    );
    assert_eq!(machine.vgic.target_of(irq(40)), Some(cpu(1)));
    assert!(machine.write_byte(0, ITARGETSR + 41, 2).host.is_none());
}

proptest! {
    #[test]
    fn no_access_panics_and_refusals_change_nothing(
        vcpus in 1u8..=8,
        spis in 0u16..=960,
        accesses in prop::collection::vec((0u32..8, 0u32..0x1010, 0u8..4, any::<u32>()), 0..400),
    ) {
        let mut vgic = Vgic::new(vcpus, spis).unwrap();
        let _ = vgic.write(cpu(0), CTLR, Width::Word, 1);
        let mut cpus: Vec<_> = (0..8).map(|_| super::Gich::new(4)).collect();
        for (who, offset, kind, value) in accesses {
            let who = who % u32::from(vcpus);
            let (offset, width) = match kind {
                0 => (offset, Width::Byte),
                1 => (offset, Width::Half),
                _ => (offset & !3, Width::Word),
            };
            let gich = &mut cpus[who as usize];
            let _ = vgic.freshen(cpu(who), offset, gich);
            let read = vgic.read(cpu(who), offset, width);
            let written = vgic.write(cpu(who), offset, width, value);
            prop_assert_eq!(read.is_ok(), written.is_ok());
            if width == Width::Byte {
                prop_assert!(read.is_ok_and(|value| value < 0x100) || read.is_err());
            }
            match value % 5 {
                0 => drop(gich.ack()),
                1 => drop(gich.eoi()),
                2 => { let _ = vgic.unload(cpu(who), gich); }
                _ => {}
            }
            let _ = vgic.refill(cpu(who), gich);
        }
    }

    #[test]
    fn state_registers_read_back_what_was_written(writes in prop::collection::vec((0u32..3, any::<u32>(), any::<bool>()), 1..40)) {
        let mut machine = Machine::new(2);
        let mut model = [0xFFFF_FFFFu32; 3];
        for (bank, value, on) in writes {
            let fixed = if bank == 0 { 0xFFFF } else { 0 };
            if on {
                model[bank as usize] |= value;
                machine.write(0, ISENABLER + 4 * bank, value);
            } else {
                model[bank as usize] &= !value | fixed;
                machine.write(0, ICENABLER + 4 * bank, value);
            }
            prop_assert_eq!(machine.read(0, ISENABLER + 4 * bank), model[bank as usize]);
            prop_assert_eq!(machine.read(0, ICENABLER + 4 * bank), model[bank as usize]);
        }
    }
}

#[test]
fn only_a_word_of_isenabler_for_spis_enables_some() {
    assert_eq!(Vgic::first_enabled(ISENABLER), None);
    assert_eq!(Vgic::first_enabled(ISENABLER + 4), Some(32));
    assert_eq!(Vgic::first_enabled(ISENABLER + 6), None);
    assert_eq!(Vgic::first_enabled(ISENABLER + 0x7C), Some(992));
    assert_eq!(Vgic::first_enabled(ICENABLER), None);
}
