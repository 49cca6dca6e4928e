use proptest::prelude::{any, proptest};

use super::{
    Condition, CpAccess, CpWideAccess, DataAccess, Direction, Extend, FaultKind, HcptrAccess,
    Length, MemoryDirection, Trap, Wait, Width, condition, condition_passed, decode,
    emulated_access, it_state, length, next_instruction, psr,
};

const fn with_class(class: u32, iss: u32) -> u32 {
    class << 26 | 1 << 25 | iss
}

const fn with_it(it: u32) -> u32 {
    psr::T | psr::MODE_SVC | (it & 0xFC) << 8 | (it & 3) << 25
}

#[test]
fn an_access_is_found_again_in_the_syndrome_that_it_was_put_into() {
    let store = with_class(0x24, 1 << 24 | 2 << 22 | 0xE << 16 | 1 << 6 | 0b00_0111);
    for width in [Width::Byte, Width::Half, Width::Word] {
        for (extend, rt) in [(Extend::Zero, 0), (Extend::Sign, 14)] {
            let access = DataAccess { width, extend, rt };
            let hsr = access.described_in(store);
            let (found, direction) = emulated_access(hsr).unwrap();
            assert_eq!((found, direction), (access, MemoryDirection::Write));
        }
    }
}

#[test]
fn only_an_access_that_stage_2_does_not_translate_is_one_to_emulated_registers() {
    let load = with_class(0x24, 1 << 24 | 2 << 22 | 3 << 16);
    for status in 0..64 {
        let is_translation = matches!(status, 0b00_0100..=0b00_0111);
        let found = emulated_access(load | status);
        assert_eq!(found.is_some(), is_translation, "status {status:#08b}");
        assert_eq!(emulated_access(load | status | 1 << 7), None, "of a walk");
    }
}

#[test]
fn a_trapped_actlr_read_names_its_register_and_rt() {
    // MRC p15, 0, r3, c1, c0, 1 in ARM state, always.
    let hsr = with_class(3, 1 << 24 | 0xE << 20 | 1 << 17 | 1 << 10 | 3 << 5 | 1);
    let expected = CpAccess {
        opc1: 0,
        crn: 1,
        crm: 0,
        opc2: 1,
        rt: 3,
        direction: Direction::Read,
    };
    assert_eq!(decode(hsr), Trap::Cp15(expected));
    assert_eq!(condition(hsr), Condition::Code(0xE));
    assert_eq!(length(hsr), Length::Word);
}

#[test]
fn a_trapped_cntp_cval_write_names_both_registers() {
    // MCRR p15, 2, r4, r5, c14
    let hsr = with_class(
        4,
        1 << 24 | 0xE << 20 | 2 << 16 | 5 << 10 | 4 << 5 | 14 << 1,
    );
    assert_eq!(
        decode(hsr),
        Trap::Cp15Wide(CpWideAccess {
            opc1: 2,
            crm: 14,
            rt: 4,
            rt2: 5,
            direction: Direction::Write
        })
    );
}

#[test]
fn wfi_and_wfe_are_told_apart() {
    assert_eq!(decode(with_class(1, 0)), Trap::Wait(Wait::Interrupt));
    assert_eq!(decode(with_class(1, 1)), Trap::Wait(Wait::Event));
}

#[test]
fn calls_carry_their_immediate_and_are_unconditional() {
    assert_eq!(decode(with_class(0x12, 0xEA1)), Trap::Hvc(0xEA1));
    assert_eq!(decode(with_class(0x11, 0xFFFF)), Trap::Svc(0xFFFF));
    assert_eq!(decode(with_class(0x13, 0)), Trap::Smc);
    assert_eq!(condition(with_class(0x12, 0)), Condition::Always);
    assert_eq!(condition(with_class(0x13, 0)), Condition::Always);
}

#[test]
fn coprocessor_and_simd_traps_of_hcptr_are_told_apart() {
    assert_eq!(
        decode(with_class(7, 0xD)),
        Trap::Hcptr(HcptrAccess::Coprocessor(13))
    );
    assert_eq!(
        decode(with_class(7, 1 << 5 | 0xA)),
        Trap::Hcptr(HcptrAccess::Simd)
    );
}

#[test]
fn a_store_byte_abort_names_width_register_and_level() {
    // STRB r7 to an unmapped page, level-3 translation fault.
    let hsr = with_class(0x24, 1 << 24 | 7 << 16 | 1 << 6 | 0b00_0111);
    let Trap::DataAbort(abort) = decode(hsr) else {
        panic!("not a data abort")
    };
    assert_eq!(
        abort.access,
        Some(DataAccess {
            width: Width::Byte,
            extend: Extend::Zero,
            rt: 7
        })
    );
    assert_eq!(abort.direction, MemoryDirection::Write);
    assert_eq!(abort.fault, FaultKind::Translation(3));
    assert!(!abort.s1ptw && !abort.cache_maintenance && !abort.ea);
}

#[test]
fn an_abort_without_valid_syndrome_has_no_access() {
    let without_isv = with_class(0x24, 2 << 22 | 3 << 16 | 0b00_0110);
    let reserved_width = with_class(0x24, 1 << 24 | 3 << 22 | 3 << 16 | 0b00_0110);
    let to_pc = with_class(0x24, 1 << 24 | 2 << 22 | 15 << 16 | 0b00_0110);
    for hsr in [without_isv, reserved_width, to_pc] {
        let Trap::DataAbort(abort) = decode(hsr) else {
            panic!("not a data abort")
        };
        assert_eq!(abort.access, None);
    }
}

#[test]
fn loads_extend_as_the_instruction_says() {
    let load = |width, extend| DataAccess {
        width,
        extend,
        rt: 0,
    };
    assert_eq!(load(Width::Byte, Extend::Sign).extend(0x80), 0xFFFF_FF80);
    assert_eq!(load(Width::Byte, Extend::Zero).extend(0xABCD), 0xCD);
    assert_eq!(load(Width::Half, Extend::Sign).extend(0x8000), 0xFFFF_8000);
    assert_eq!(load(Width::Half, Extend::Zero).extend(0xFFFF_8000), 0x8000);
    assert_eq!(load(Width::Word, Extend::Sign).extend(u32::MAX), u32::MAX);
}

#[test]
fn aborts_of_the_memory_system_are_told_apart_by_when_they_come() {
    for status in 0..64 {
        let kind = FaultKind::from_status(status);
        let late = matches!(status, 0b01_0001 | 0b01_1001);
        assert_eq!(kind.is_asynchronous(), late, "{kind:?}");
        let there_and_then =
            matches!(status, 0b01_0000 | 0b01_1000 | 0b01_0101..=0b01_0111 | 0b01_1101..=0b01_1111);
        assert_eq!(kind.is_synchronous_external(), there_and_then, "{kind:?}");
        let all = [late, there_and_then, kind.is_stage2_map()];
        assert!(all.iter().filter(|is| **is).count() <= 1);
    }
}

#[test]
fn fault_status_codes_keep_kind_and_level() {
    let kind = |status| FaultKind::from_status(status);
    assert_eq!(kind(0b00_0101), FaultKind::Translation(1));
    assert_eq!(kind(0b00_1010), FaultKind::AccessFlag(2));
    assert_eq!(kind(0b00_1111), FaultKind::Permission(3));
    assert_eq!(kind(0b01_0000), FaultKind::External);
    assert_eq!(kind(0b01_0001), FaultKind::AsyncExternal);
    assert_eq!(kind(0b01_0110), FaultKind::ExternalOnWalk(2));
    assert_eq!(kind(0b01_1000), FaultKind::Parity);
    assert_eq!(kind(0b01_1001), FaultKind::AsyncParity);
    assert_eq!(kind(0b01_1111), FaultKind::ParityOnWalk(3));
    assert_eq!(kind(0b10_0001), FaultKind::Alignment);
    assert_eq!(kind(0b00_0100), FaultKind::Other(4), "level 0 is reserved");
    assert!(kind(0b00_0111).is_stage2_map());
    assert!(!kind(0b01_0000).is_stage2_map());
}

#[test]
fn every_condition_agrees_with_the_manuals_table() {
    // DDI 0406C.d table A8-1, written out rather than computed.
    type Rule = fn(bool, bool, bool, bool) -> bool;
    let table: [Rule; 16] = [
        |_, z, _, _| z,
        |_, z, _, _| !z,
        |_, _, c, _| c,
        |_, _, c, _| !c,
        |n, _, _, _| n,
        |n, _, _, _| !n,
        |_, _, _, v| v,
        |_, _, _, v| !v,
        |_, z, c, _| c && !z,
        |_, z, c, _| !c || z,
        |n, _, _, v| n == v,
        |n, _, _, v| n != v,
        |n, z, _, v| !z && n == v,
        |n, z, _, v| z || n != v,
        |_, _, _, _| true,
        |_, _, _, _| true,
    ];
    for flags in 0..16u32 {
        let cpsr = flags << 28 | psr::MODE_SVC;
        for (code, rule) in (0u8..).zip(table) {
            let expected = rule(
                flags & 8 != 0,
                flags & 4 != 0,
                flags & 2 != 0,
                flags & 1 != 0,
            );
            assert_eq!(
                condition_passed(Condition::Code(code), cpsr),
                expected,
                "code {code} flags {flags:04b}"
            );
        }
    }
}

#[test]
fn without_a_condition_field_the_it_state_decides() {
    // ITE EQ: first instruction EQ, second NE.
    let first = with_it(0b0000_1100);
    assert!(!condition_passed(Condition::FromItState, first));
    assert!(condition_passed(Condition::FromItState, first | psr::Z));
    let (_, second) = next_instruction(0, first, Length::Half);
    assert!(condition_passed(Condition::FromItState, second));
    assert!(
        condition_passed(Condition::FromItState, psr::T | psr::MODE_SVC),
        "outside an IT block"
    );
    assert!(
        condition_passed(Condition::FromItState, psr::MODE_SVC),
        "ARM state"
    );
}

#[test]
fn stepping_through_an_it_block_ends_it() {
    // ITTTT NE has ITSTATE 0b0001_1111 before its first instruction.
    let mut cpsr = with_it(0b0001_1111);
    let mut seen = Vec::new();
    let mut pc = 0x8000;
    for _ in 0..4 {
        seen.push(it_state(cpsr));
        (pc, cpsr) = next_instruction(pc, cpsr, Length::Half);
    }
    assert_eq!(seen, [0b0001_1111, 0b0001_1110, 0b0001_1100, 0b0001_1000]);
    assert_eq!(it_state(cpsr), 0);
    assert_eq!(pc, 0x8008);
}

#[test]
fn arm_instructions_are_four_bytes_whatever_il_says() {
    assert_eq!(
        next_instruction(0xFFFF_FFFC, psr::MODE_USR, Length::Half),
        (0, psr::MODE_USR)
    );
    assert_eq!(next_instruction(0x1000, psr::T, Length::Half).0, 0x1002);
    assert_eq!(next_instruction(0x1000, psr::T, Length::Word).0, 0x1004);
}

proptest! {
    #[test]
    fn every_syndrome_decodes_to_fields_in_range(hsr in any::<u32>(), cpsr in any::<u32>()) {
        match decode(hsr) {
            Trap::Cp15(a) | Trap::Cp14(a) | Trap::Cp10(a) => {
                assert!(a.opc1 < 8 && a.opc2 < 8 && a.crn < 16 && a.crm < 16 && a.rt < 16);
            }
            Trap::Cp15Wide(a) | Trap::Cp14Wide(a) => assert!(a.opc1 < 16 && a.crm < 16 && a.rt < 16 && a.rt2 < 16),
            Trap::DataAbort(a) | Trap::HypDataAbort(a) => assert!(a.access.is_none_or(|access| access.rt < 15)),
            _ => {}
        }
        condition_passed(condition(hsr), cpsr);
    }

    #[test]
    fn stepping_changes_nothing_but_pc_and_it(pc in any::<u32>(), cpsr in any::<u32>()) {
        let (_, after) = next_instruction(pc, cpsr, Length::Half);
        let it_bits = psr::IT_HIGH | psr::IT_LOW;
        assert_eq!(after & !it_bits, cpsr & !it_bits);
    }
}
