//! The registers that start CPUs, in their order.

use super::{compile_with, write};
use crate::platform::board::Action::{Clear, Delay, Set, Wait, Write, WriteEntry};
use crate::platform::board::{Action, Board, Step};
use crate::platform::host_dt::HostInfo;
use crate::platform::testing::VIRT;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Returns the board with this compatible and these devices (compatible, address, size), and two CPUs.
fn board(compatible: &str, devices: &[(&str, u32, u32)], cpus: [u32; 2], more: &str) -> Board {
    let nodes = devices.iter().map(|(name, at, size)| {
        format!(
            "dev{at:x}: dev@{at:x} {{ compatible = \"{name}\"; reg = <0 {at:#x} 0 {size:#x}>; }};\n"
        )
    });
    let nodes = format!("{} gpio-keys {{", nodes.collect::<String>());
    let cpu = |number: u32| format!("reg = <{number}>;\n\t\t\tcompatible = \"arm,cortex-a15\"");
    let affinities = cpus.map(|mpidr| cpu(mpidr).replace("<", "< ").replace(">", " >"));
    let changes = [
        ("linux,dummy-virt", compatible),
        ("gpio-keys {", &nodes),
        ("cpus {", &format!("cpus {{ {more}")),
        (&cpu(0), &affinities[0]),
        (&cpu(1), &affinities[1]),
    ];
    HostInfo::parse(&compile_with(VIRT, &changes))
        .unwrap()
        .board
}

/// Returns the steps at these addresses.
fn steps(all: &[(u64, Action)]) -> Vec<Step> {
    let step = |&(at, action)| Step { at, action };
    all.iter().map(step).collect()
}

fn is(mask: u32, value: u32) -> Action {
    Wait { mask, value }
}

/// Checks that each device is needed, and that its registers must be in it.
fn needs_each(compatible: &str, devices: &[(&str, u32, u32)], cpus: [u32; 2], more: &str) {
    for (index, device) in devices.iter().enumerate() {
        for change in [("other", device.1, device.2), (device.0, device.1, 4)] {
            let mut fewer = devices.to_vec();
            fewer[index] = change;
            let board = board(compatible, &fewer, cpus, more);
            assert_eq!(board.start(cpus[1]), None, "{change:?}");
        }
    }
}

#[test]
fn an_imx7_powers_its_second_cpu_up_and_enables_it() {
    let devices = [
        ("fsl,imx7d-src", 0x1_0000, 0x1000),
        ("fsl,imx7d-gpc", 0x2_0000, 0x1000),
    ];
    let board = board("fsl,imx7d", &devices, [0, 1], "");
    let expected = steps(&[
        (0x1_007C, WriteEntry),
        (0x2_0840, Write(1)),
        (0x2_00F0, Set(2)),
        (0x2_00F0, is(2, 0)),
        (0x2_0840, Write(0)),
        (0x1_0008, Set(2)),
    ]);
    assert_eq!(board.start(1), Some(expected.as_slice()));
    assert_eq!((board.start(0), board.monitor_call), (None, None));
    needs_each("fsl,imx7d", &devices, [0, 1], "");
}

#[test]
fn an_omap5_lets_its_second_cpu_out_of_rom_which_enters_hyp_for_it() {
    let devices = [("ti,omap4-wugen-mpu", 0x1_0000, 0x1000)];
    for compatible in ["ti,omap5", "ti,dra7"] {
        let board = board(compatible, &devices, [0, 1], "");
        let expected = steps(&[(0x1_0804, WriteEntry), (0x1_0800, Write(0x20))]);
        assert_eq!(board.start(1), Some(expected.as_slice()));
        assert_eq!((board.start(0), board.monitor_call), (None, Some(0x102)));
    }
    needs_each("ti,omap5", &devices, [0, 1], "");
}

#[test]
fn a_tegra_switches_a_cpu_on() {
    let devices = [("nvidia,tegra124-pmc", 0x1_0000, 0x400)];
    for (number, partition) in [(1, 9), (3, 11)] {
        let board = board("nvidia,tegra124", &devices, [0, number], "");
        let expected = steps(&[
            (0x6000_F100, WriteEntry),
            (0x1_0030, is(0x100, 0)),
            (0x1_0030, Write(0x100 | partition)),
            (0x1_0030, is(0x100, 0)),
            (0x1_0038, is(1 << partition, 1 << partition)),
        ]);
        assert_eq!(board.start(number), Some(expected.as_slice()));
    }
    assert_eq!(
        board("nvidia,tegra124", &devices, [0, 4], "").start(4),
        None
    );
    needs_each("nvidia,tegra124", &devices, [0, 1], "");
}

#[test]
fn an_rk3288_cycles_a_cpu_through_reset_and_tells_rom_where_it_goes() {
    let devices = [
        ("rockchip,rk3288-cru", 0x1_0000, 0x1000),
        ("rockchip,rk3288-pmu", 0x2_0000, 0x100),
        ("rockchip,rk3066-smp-sram", 0x3_0000, 0x10),
    ];
    let pmu = "rockchip,pmu = <&dev20000>;";
    let board = board("rockchip,rk3288", &devices, [0x500, 0x502], pmu);
    let expected = steps(&[
        (0x1_01B8, Write(0x4_0004)),
        (0x2_0008, Set(4)),
        (0x2_000C, is(4, 4)),
        (0x2_0008, Clear(4)),
        (0x2_000C, is(4, 0)),
        (0x1_01B8, Write(0x4_0000)),
        (0x1_01B8, Delay(1000)),
        (0x3_0008, WriteEntry),
        (0x3_0004, Write(0xDEAD_BEAF)),
    ]);
    assert_eq!(board.start(0x502), Some(expected.as_slice()));
    // The power controller is found by the property alone.
    needs_each("rockchip,rk3288", &[devices[0], devices[2]], [0, 1], "");
}

#[test]
fn an_rk3036_has_no_power_switches_for_cpus() {
    let devices = [
        ("rockchip,rk3036-cru", 0x1_0000, 0x1000),
        ("rockchip,rk3066-smp-sram", 0x3_0000, 0x10),
    ];
    let board = board("rockchip,rk3036", &devices, [0xF00, 0xF01], "");
    let expected = steps(&[
        (0x1_0110, Write(0x2_0002)),
        (0x1_0110, Write(0x2_0000)),
        (0x1_0110, Delay(1000)),
        (0x3_0008, WriteEntry),
        (0x3_0004, Write(0xDEAD_BEAF)),
    ]);
    assert_eq!(board.start(0xF01), Some(expected.as_slice()));
}

#[test]
fn an_a80_powers_a_cpu_of_its_first_cluster_up() {
    let devices = [
        ("allwinner,sun9i-a80-prcm", 0x1_0000, 0x200),
        ("allwinner,sun9i-a80-cpucfg", 0x2_0000, 0x100),
    ];
    let board_of = |cpus| board("allwinner,sun9i-a80", &devices, cpus, "");
    let mut expected = steps(&[
        (0x1_0164, WriteEntry),
        (0x1_0004, Clear(4)),
        (0x2_0000, Clear(4)),
        (0x2_0080, Clear(0x44_0000)),
    ]);
    for value in [0xFF, 0xFE, 0xF8, 0xF0, 0] {
        expected.extend(steps(&[(0x1_0148, Write(value)), (0x1_0148, Delay(10))]));
    }
    expected.extend(steps(&[
        (0x1_0100, Clear(4)),
        (0x1_0100, Delay(20)),
        (0x1_0004, Set(4)),
        (0x2_0080, Set(0x44_0004)),
    ]));
    assert_eq!(board_of([0, 2]).start(2), Some(expected.as_slice()));
    assert_eq!(board_of([0, 0x100]).start(0x100), None);
    needs_each("allwinner,sun9i-a80", &devices, [0, 1], "");
}

#[test]
fn an_exynos_5420_jumps_to_the_entry_from_sysram_and_resets_a_cortex_a7() {
    let devices = [
        ("samsung,exynos5420-pmu", 0x1_0000, 0x5000),
        ("samsung,exynos4210-sysram-ns", 0x2_0000, 0x1000),
    ];
    let jump = steps(&[
        (0x2_0000, Write(0xE59F_0000)),
        (0x2_0004, Write(0xE12F_FF10)),
        (0x2_0008, WriteEntry),
    ]);
    let root = "samsung,exynos5420\", \"samsung,exynos5";
    for (cpus, more) in [
        ([0, 1], steps(&[(0x1_2080, Set(3))])),
        ([0, 0x101], steps(&[(0x1_2280, Set(3))])),
        ([0x100, 3], steps(&[(0x1_2180, Set(3))])),
        (
            [0x100, 0x102],
            [
                steps(&[(0x1_2300, Set(3))]),
                [write(0x1_090C, 3)].to_vec(),
                steps(&[(0x1_0908, is(1, 1)), (0x1_0400, Write(0x40_0400))]),
            ]
            .concat(),
        ),
    ] {
        let board = board(root, &devices, cpus, "");
        assert_eq!(
            board.start(cpus[1]),
            Some([jump.clone(), more].concat().as_slice()),
            "{cpus:x?}"
        );
    }
    let board = board(root, &devices, [0, 4], "");
    assert_eq!(board.start(4), None);
}
