use super::{Action, Board, Start, Step};
use crate::platform::host_dt::HostInfo;
use crate::platform::testing::{VEXPRESS, VIRT, compile, compile_with};
use alloc::vec;

fn write(at: u64, value: u32) -> Step {
    Step {
        at,
        action: Action::Write(value),
    }
}

#[test]
fn a_board_that_nobody_knows_needs_nothing() {
    let host = HostInfo::parse(&compile(VIRT)).unwrap();
    assert_eq!(host.board, Board::default());
}

#[test]
fn a_versatile_express_wakes_cpus_by_its_flags_and_ends_by_its_microcontroller() {
    let board = HostInfo::parse(&compile(VEXPRESS)).unwrap().board;
    let entry = Step {
        at: 0x1C01_0030,
        action: Action::WriteEntry,
    };
    let pen = Start::Pen(vec![write(0x1C01_0034, !0), entry]);
    assert_eq!(board.start, pen);
    let request = |ctrl| {
        vec![
            write(0x1C01_00A8, 0),
            write(0x1C01_00A0, 0),
            write(0x1C01_00A4, ctrl),
        ]
    };
    assert_eq!(board.reset, request(0xC090_0000));
    assert_eq!(board.off, request(0xC080_0000));
    assert!(board.hidden.contains(&"arm,cci-400"));
}

#[test]
fn a_versatile_express_without_system_registers_has_one_cpu_and_no_end() {
    for change in [
        ("arm,vexpress-sysreg", "arm,other"),
        ("reg = <0x10000 0x1000>", "reg = <0x10000 0x10>"),
        ("reg = <0x10000 0x1000>", "reg = <0x400000 0x1000>"),
    ] {
        let tree = compile_with(VEXPRESS, &[change]);
        let board = HostInfo::parse(&tree).unwrap().board;
        assert_eq!(board.start, Start::None, "{change:?}");
        assert_eq!((board.reset, board.off), (vec![], vec![]));
        assert!(board.hidden.contains(&"arm,hdlcd"));
    }
}
