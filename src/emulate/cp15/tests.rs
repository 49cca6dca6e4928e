use armv7::syndrome::{CpAccess, CpWideAccess, Direction, psr};

use super::{Cp15State, Outcome, Privilege, TimerAccess, cp14, cp15, cp15_wide};

const STATE: Cp15State = Cp15State {
    actlr: 0x40,
    midr: 0x412F_C0F1,
    cntkctl: 0,
};
const DIRECTIONS: [Direction; 2] = [Direction::Read, Direction::Write];
const PRIVILEGES: [Privilege; 2] = [Privilege::User, Privilege::Kernel];

fn reg(opc1: u8, crn: u8, crm: u8, opc2: u8, direction: Direction) -> CpAccess {
    CpAccess {
        opc1,
        crn,
        crm,
        opc2,
        rt: 0,
        direction,
    }
}

fn kernel_cp15(opc1: u8, crn: u8, crm: u8, opc2: u8, direction: Direction) -> Outcome {
    cp15(
        &reg(opc1, crn, crm, opc2, direction),
        Privilege::Kernel,
        &STATE,
    )
}

/// Returns every MCR and MRC encoding.
fn all_registers() -> impl Iterator<Item = CpAccess> {
    (0..1u32 << 15).map(|bits| {
        let direction = if bits >> 14 == 0 {
            Direction::Read
        } else {
            Direction::Write
        };
        reg(
            (bits >> 11 & 7) as u8,
            (bits >> 7 & 15) as u8,
            (bits >> 3 & 15) as u8,
            (bits & 7) as u8,
            direction,
        )
    })
}

#[test]
fn actlr_reads_as_the_host_and_ignores_writes() {
    assert_eq!(
        kernel_cp15(0, 1, 0, 1, Direction::Read),
        Outcome::Read(0x40)
    );
    assert_eq!(kernel_cp15(0, 1, 0, 1, Direction::Write), Outcome::Ignored);
}

#[test]
fn set_way_maintenance_is_write_only() {
    for crm in [6, 10, 14] {
        assert_eq!(kernel_cp15(0, 7, crm, 2, Direction::Write), Outcome::SetWay);
        assert_eq!(
            kernel_cp15(0, 7, crm, 2, Direction::Read),
            Outcome::Undefined
        );
    }
}

#[test]
fn performance_monitors_read_as_zero_for_the_kernel() {
    for (crm, opc2) in [(12, 0), (12, 5), (13, 0), (13, 2), (14, 1), (14, 3)] {
        assert_eq!(
            kernel_cp15(0, 9, crm, opc2, Direction::Read),
            Outcome::Read(0)
        );
        assert_eq!(
            kernel_cp15(0, 9, crm, opc2, Direction::Write),
            Outcome::Ignored
        );
    }
    assert_eq!(
        kernel_cp15(0, 9, 13, 3, Direction::Read),
        Outcome::Undefined
    );
}

#[test]
fn implementation_defined_registers_are_undefined() {
    for (opc1, crn, crm, opc2) in [
        (0, 15, 0, 0),
        (4, 15, 0, 0),
        (1, 9, 0, 2),
        (0, 10, 0, 0),
        (0, 11, 15, 0),
    ] {
        for direction in DIRECTIONS {
            assert_eq!(
                kernel_cp15(opc1, crn, crm, opc2, direction),
                Outcome::Undefined
            );
        }
    }
}

#[test]
fn exactly_the_registers_of_the_table_are_answered() {
    let answered = |privilege| {
        all_registers()
            .filter(|a| cp15(a, privilege, &STATE) != Outcome::Undefined)
            .count()
    };
    // ACTLR 2, set/way 3, PMUSERENR 2, c12 16, c13 6, c14 6, CNTP_TVAL and CNTP_CTL 4.
    assert_eq!(answered(Privilege::Kernel), 39);
    // PMUSERENR, read.
    assert_eq!(answered(Privilege::User), 1);
    let answered = |privilege| {
        all_registers()
            .filter(|a| cp14(a, privilege, &STATE) != Outcome::Undefined)
            .count()
    };
    // DBGDIDR, DBGDSCRint, DBGOSLAR, DBGOSLSR once; DBGVCR, DBGDSCRext, DBGOSDLR and six break/watchpoint registers twice.
    assert_eq!(answered(Privilege::Kernel), 22);
    assert_eq!(answered(Privilege::User), 2);
}

#[test]
fn user_mode_reaches_nothing_that_is_the_kernels() {
    for access in all_registers() {
        let user = cp15(&access, Privilege::User, &STATE);
        assert!(
            matches!(user, Outcome::Undefined | Outcome::Read(0)),
            "{access:?}"
        );
        let user = cp14(&access, Privilege::User, &STATE);
        assert!(
            matches!(user, Outcome::Undefined | Outcome::Read(_)),
            "{access:?}"
        );
    }
}

#[test]
fn the_physical_timer_is_emulated() {
    use TimerAccess::{
        ReadCompare, ReadControl, ReadValue, WriteCompare, WriteControl, WriteValue,
    };
    for (direction, value, control, compare) in [
        (Direction::Read, ReadValue, ReadControl, ReadCompare),
        (Direction::Write, WriteValue, WriteControl, WriteCompare),
    ] {
        assert_eq!(kernel_cp15(0, 14, 2, 0, direction), Outcome::Timer(value));
        assert_eq!(kernel_cp15(0, 14, 2, 1, direction), Outcome::Timer(control));
        let wide = CpWideAccess {
            opc1: 2,
            crm: 14,
            rt: 0,
            rt2: 1,
            direction,
        };
        assert_eq!(
            cp15_wide(&wide, Privilege::Kernel, &STATE),
            Outcome::Timer(compare)
        );
    }
}

#[test]
fn user_mode_has_the_physical_timer_when_its_kernel_allows() {
    let wide = CpWideAccess {
        opc1: 2,
        crm: 14,
        rt: 0,
        rt2: 1,
        direction: Direction::Read,
    };
    assert_eq!(
        cp15_wide(&wide, Privilege::User, &STATE),
        Outcome::Undefined
    );
    let open = Cp15State {
        cntkctl: 1 << 9,
        ..STATE
    };
    assert_eq!(
        cp15_wide(&wide, Privilege::User, &open),
        Outcome::Timer(TimerAccess::ReadCompare)
    );
    let control = reg(0, 14, 2, 1, Direction::Write);
    assert_eq!(
        cp15(&control, Privilege::User, &open),
        Outcome::Timer(TimerAccess::WriteControl)
    );
}

#[test]
fn other_64_bit_accesses_are_undefined() {
    for bits in 0..1u32 << 8 {
        let (opc1, crm) = ((bits >> 4) as u8, (bits & 15) as u8);
        for (direction, privilege) in DIRECTIONS.into_iter().zip(PRIVILEGES) {
            let outcome = cp15_wide(
                &CpWideAccess {
                    opc1,
                    crm,
                    rt: 0,
                    rt2: 0,
                    direction,
                },
                privilege,
                &STATE,
            );
            assert!(outcome == Outcome::Undefined || (opc1, crm) == (2, 14));
        }
    }
}

#[test]
fn the_debug_unit_identifies_itself_and_does_nothing() {
    let read = |crn, crm, opc2| {
        cp14(
            &reg(0, crn, crm, opc2, Direction::Read),
            Privilege::Kernel,
            &STATE,
        )
    };
    let write = |crn, crm, opc2| {
        cp14(
            &reg(0, crn, crm, opc2, Direction::Write),
            Privilege::Kernel,
            &STATE,
        )
    };
    assert_eq!(
        read(0, 0, 0),
        Outcome::Read(0x0105_0021),
        "r2p1 of the MIDR"
    );
    assert_eq!(write(0, 0, 0), Outcome::Undefined);
    assert_eq!(read(0, 1, 0), Outcome::Read(0));
    for (crm, opc2) in [
        (7, 0),
        (2, 2),
        (0, 4),
        (0, 5),
        (1, 4),
        (1, 5),
        (0, 6),
        (0, 7),
    ] {
        assert_eq!(read(0, crm, opc2), Outcome::Read(0));
        assert_eq!(write(0, crm, opc2), Outcome::Ignored);
    }
    assert_eq!(write(1, 0, 4), Outcome::Ignored);
    assert_eq!(read(1, 0, 4), Outcome::Undefined);
    assert_eq!(read(1, 1, 4), Outcome::Read(0));
    assert_eq!(read(1, 3, 4), Outcome::Read(0));
    assert_eq!(read(1, 0, 0), Outcome::Undefined, "DBGDRAR");
}

#[test]
fn trace_is_undefined_and_what_does_not_trap_has_no_answer() {
    // ThumbEE (6) and Jazelle (7) never come here.
    for opc1 in 1..8 {
        for direction in DIRECTIONS {
            assert_eq!(
                cp14(&reg(opc1, 0, 0, 0, direction), Privilege::Kernel, &STATE),
                Outcome::Undefined
            );
        }
    }
}

#[test]
fn privilege_comes_from_the_mode() {
    assert_eq!(Privilege::of(psr::MODE_USR | psr::T), Privilege::User);
    for mode in [
        psr::MODE_SVC,
        psr::MODE_ABT,
        psr::MODE_UND,
        0x1F,
        0x11,
        0x12,
    ] {
        assert_eq!(Privilege::of(mode), Privilege::Kernel);
    }
}
