mod starts;

use super::{Action, Board, Step};
use crate::platform::host_dt::HostInfo;
use crate::platform::testing::{ARNDALE, VEXPRESS, VIRT, compile, compile_with};
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

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
    for cpu in [0, 1] {
        let steps = [write(0x1C01_0034, !0), entry];
        assert_eq!(board.start(cpu), Some(steps.as_slice()), "{cpu:#x}");
    }
    assert_eq!(board.start(2), None, "no such CPU");
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
        assert_eq!(board.starts, [], "{change:?}");
        assert_eq!((board.reset, board.off), (vec![], vec![]));
        assert!(board.hidden.contains(&"arm,hdlcd"));
    }
}

/// Power for CPU 1, and then where it goes.
fn entry(at: u64) -> [Step; 2] {
    let action = Action::Set(3);
    let power = Step {
        at: 0x1004_2080,
        action,
    };
    let action = Action::WriteEntry;
    [power, Step { at, action }]
}

#[test]
fn an_arndale_starts_its_counter_first_and_ends_by_its_power_controller() {
    let board = HostInfo::parse(&compile(ARNDALE)).unwrap().board;
    let start = Step {
        at: 0x101C_0240,
        action: Action::Set(1 << 8),
    };
    assert_eq!(board.prepare, [start]);
    assert_eq!(board.reset, [write(0x1004_0400, 1)]);
    assert_eq!(board.off, [write(0x1004_330C, 0x5200)]);
    assert_eq!(board.start(1), Some(entry(0x0202_0000).as_slice()));
    assert!(board.hidden.contains(&"samsung,exynos4210-mct"));
}

#[test]
fn secure_firmware_of_an_exynos_looks_into_the_other_sysram() {
    let firmware = "firmware { compatible = \"samsung,secure-firmware\"; }; sram@2020000 {";
    let tree = compile_with(ARNDALE, &[("sram@2020000 {", firmware)]);
    let board = HostInfo::parse(&tree).unwrap().board;
    assert_eq!(board.start(1), Some(entry(0x0204_F01C).as_slice()));
}

#[test]
fn an_exynos_without_the_registers_does_without() {
    const BOTH: (bool, bool) = (true, true);
    const NONE: (bool, bool) = (false, false);
    for (change, prepared, started, ends) in [
        (("samsung,exynos4210-mct", "other"), false, true, BOTH),
        (
            ("samsung,exynos4210-sysram\"", "other\""),
            true,
            false,
            BOTH,
        ),
        (
            ("0x02020000 0x30000>;", "0x02020000 0>;"),
            true,
            false,
            BOTH,
        ),
        // The tree has another word for the first of its ends.
        (
            ("samsung,exynos5250-pmu", "other"),
            true,
            true,
            (true, false),
        ),
        (("0x10040000 0x5000", "0x10040000 0x400"), true, true, NONE),
        (
            ("samsung,exynos5250\"", "samsung,exynos5410\""),
            true,
            true,
            BOTH,
        ),
    ] {
        let board = HostInfo::parse(&compile_with(ARNDALE, &[change]))
            .unwrap()
            .board;
        assert_eq!(!board.prepare.is_empty(), prepared, "{change:?}");
        assert_eq!(board.start(1).is_some(), started, "{change:?}");
        let end = (!board.off.is_empty(), !board.reset.is_empty());
        assert_eq!(end, ends, "{change:?}");
    }
}

/// Returns a system controller with a node in it.
fn controller(node: &str) -> Board {
    let controller =
        "syscon: syscon@10000 { compatible = \"syscon\"; reg = <0 0x10000 0 0x100>; };";
    let nodes = alloc::format!("{controller} {node} gpio-keys {{");
    let tree = compile_with(VIRT, &[("gpio-keys {", &nodes)]);
    HostInfo::parse(&tree).unwrap().board
}

#[test]
fn a_tree_may_say_which_word_restarts_any_board() {
    let reboot = |more: &str| {
        controller(&alloc::format!(
            "reboot {{ compatible = \"syscon-reboot\"; regmap = <&syscon>; {more} }};"
        ))
    };
    let at = 0x1_0014;
    assert_eq!(
        reboot("offset = <0x14>; value = <7>;").reset,
        [write(at, 7)]
    );
    assert_eq!(reboot("offset = <0x14>; mask = <1>;").reset, [write(at, 1)]);
    let replace = Step {
        at,
        action: Action::Replace { mask: 3, value: 2 },
    };
    assert_eq!(
        reboot("offset = <0x14>; mask = <3>; value = <2>;").reset,
        [replace]
    );
    for broken in [
        "value = <1>;",
        "offset = <0x14>;",
        "offset = <0x100>; value = <1>;",
        "offset = <0x13>; value = <1>;",
        "offset = <0xfffffffc>; value = <1>;",
        "offset = <0x14>; value = <1>; status = \"disabled\";",
    ] {
        assert_eq!(reboot(broken).reset, [], "{broken}");
    }
    let off =
        "off { compatible = \"syscon-poweroff\"; regmap = <&syscon>; offset = <8>; value = <5>; };";
    assert_eq!(controller(off).off, [write(0x1_0008, 5)]);
}

/// Returns how a board restarts that has these devices: compatible, address, size and status.
fn restarts(dogs: &[(&str, u32, u32, &str)]) -> Vec<Step> {
    let nodes = dogs.iter().map(|(name, at, size, status)| {
        alloc::format!(
            "dog@{at:x} {{ compatible = \"{name}\"; reg = <0 {at:#x} 0 {size:#x}>; status = \"{status}\"; }};"
        )
    });
    controller(&nodes.collect::<String>()).reset
}

#[test]
fn a_watchdog_restarts_where_nothing_else_is_known() {
    let half = |at| Step {
        at,
        action: Action::WriteHalf(4),
    };
    let set = |at| Step {
        at,
        action: Action::Set(0x10),
    };
    let at = 0x2_0000;
    for (name, steps) in [
        (
            "allwinner,sun6i-a31-wdt",
            vec![write(at + 0x14, 1), write(at + 0x18, 1)],
        ),
        (
            "allwinner,sun4i-a10-wdt",
            vec![write(at + 4, 3), write(at, 0x14AF)],
        ),
        (
            "aspeed,ast2600-wdt",
            vec![
                write(at + 4, 100_000),
                write(at + 8, 0x4755),
                write(at + 0xC, 0x33),
            ],
        ),
        ("fsl,imx21-wdt", vec![half(at); 3]),
        (
            "snps,dw-wdt",
            vec![write(at + 4, 0), write(at, 1), write(at + 0xC, 0x76)],
        ),
        ("nvidia,tegra124-pmc", vec![set(at)]),
    ] {
        assert_eq!(restarts(&[(name, 0x2_0000, 0x20, "okay")]), steps, "{name}");
    }
    let old = "allwinner,sun6i-a31-wdt";
    assert_eq!(restarts(&[(old, 0x2_0000, 0x10, "okay")]), [], "too short");
    let steps = restarts(&[
        (old, 0x2_0000, 0x20, "disabled"),
        (old, 0x3_0000, 0x20, "okay"),
    ]);
    assert_eq!(steps, [write(0x3_0014, 1), write(0x3_0018, 1)]);
    let steps = restarts(&[(old, 0x2_0000, 0x20, "disabled")]);
    assert_eq!(steps, [write(0x2_0014, 1), write(0x2_0018, 1)]);
}

#[test]
fn an_ast2600_names_its_second_cpu_in_a_word_behind_the_entry() {
    let mailbox = "mailbox@10180 { compatible = \"aspeed,ast2600-smpmem\"; reg = <0 0x10180 0 SIZE>; }; gpio-keys {";
    let start = |size: &str| {
        let mailbox = mailbox.replace("SIZE", size);
        let changes = [
            ("linux,dummy-virt", "aspeed,ast2600"),
            ("gpio-keys {", mailbox.as_str()),
        ];
        let host = HostInfo::parse(&compile_with(VIRT, &changes)).unwrap();
        host.board.start(1).map(Vec::from)
    };
    let entry = Step {
        at: 0x1_0180,
        action: Action::WriteEntry,
    };
    let steps = vec![write(0x1_0184, 0), entry, write(0x1_0184, 0xABBA_AB01)];
    assert_eq!(start("0x40"), Some(steps));
    assert_eq!(start("4"), None);
}
