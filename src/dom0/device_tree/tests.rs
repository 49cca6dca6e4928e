use super::{Config, build};
use crate::dom0::selection::{HostView, Selection};
use crate::platform::host_dt::HostInfo;
use crate::platform::ranges::PhysRange;
use crate::platform::testing::{ARNDALE, VEXPRESS, VIRT, compile, compile_with, tree};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

const VIRT_DOM0: &str = include_str!("../../../tests/dts/virt.dom0.dts");
const VEXPRESS_DOM0: &str = include_str!("../../../tests/dts/vexpress.dom0.dts");

fn range(base: u64, size: u64) -> PhysRange {
    PhysRange::new(base, size).unwrap()
}

fn built(bytes: &[u8], bank: PhysRange, extended: &[PhysRange], gic_lines: u32) -> Vec<u8> {
    let host = HostInfo::parse(bytes).unwrap();
    let config = Config {
        bootargs: "console=hvc0 root=/dev/ram0",
        ramdisk: Some(range(bank.base() + 0x820_0000, 0xe0_0123)),
        memory: &[bank],
        vcpus: 2,
        grant: range(bank.base() & 0xc000_0000 | 0x1_0000, 0x4_0000),
        extended,
        event_interrupt: host.event_interrupt().unwrap(),
    };
    let machine = HostView {
        tree: tree(bytes),
        host: &host,
        console: host.console.as_ref().ok(),
        gic_lines,
    };
    build(&machine, &Selection::of(&machine), &config).unwrap()
}

fn virt(bytes: &[u8]) -> Vec<u8> {
    built(
        bytes,
        range(0x6000_0000, 0x2000_0000),
        &[range(0x8000_0000, 0x4000_0000)],
        288,
    )
}

/// Returns one line per node and property; the order of a node's properties means nothing.
fn lines(bytes: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    for node in tree(bytes).all() {
        let path = node.path().to_string();
        let hex = |value: &[u8]| value.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let mut properties: Vec<String> = node
            .properties()
            .map(|(name, value)| format!("{path} {name} = {}", hex(value)))
            .collect();
        properties.sort();
        lines.push(path);
        lines.extend(properties);
    }
    lines
}

fn assert_same_tree(built: &[u8], expected: &str) {
    let (built, expected) = (lines(built), lines(&compile(expected)));
    let differs = built.iter().zip(&expected).find(|(a, b)| a != b);
    assert_eq!(differs, None);
    assert_eq!(built.len(), expected.len());
}

#[test]
fn dom0s_tree_on_qemus_virt_machine_is_as_written_down() {
    let tree = virt(&compile(VIRT));
    assert_same_tree(&tree, VIRT_DOM0);
}

#[test]
fn dom0s_tree_on_a_versatile_express_is_as_written_down() {
    let tree = built(&compile(VEXPRESS), range(0x9800_0000, 0x1800_0000), &[], 96);
    assert_same_tree(&tree, VEXPRESS_DOM0);
}

#[test]
fn a_missing_chosen_node_is_made() {
    let at = ARNDALE.find("\tchosen {").unwrap();
    let end = ARNDALE[at..].find("};").unwrap() + at + 2;
    let host = compile_with(ARNDALE, &[(&ARNDALE[at..end], "")]);
    let tree = built(&host, range(0x6000_0000, 0x2000_0000), &[], 160);
    let lines = lines(&tree);
    assert!(
        lines
            .iter()
            .any(|l| l.starts_with("/chosen bootargs = 636f6e736f6c65"))
    );
    assert!(lines.contains(&String::from("/timer clock-frequency = 016e3600")));
    assert!(lines.contains(&String::from("/cpus/cpu@1 clock-frequency = 6553f100")));
}

#[test]
fn a_missing_timer_node_is_made() {
    let host = compile_with(VIRT, &[("arm,armv7-timer", "other,timer")]);
    let lines = lines(&virt(&host));
    let compatible = "/arch-timer compatible = 61726d2c61726d76372d74696d657200";
    assert!(lines.iter().any(|line| line == compatible), "{lines:?}");
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("/arch-timer interrupts = "))
    );
}

/// Lines of dom0's tree on QEMU's virt machine with something more before `gpio-keys`.
fn virt_lines_with(more: &str) -> Vec<String> {
    let host = compile_with(VIRT, &[("gpio-keys {", &format!("{more} gpio-keys {{"))]);
    lines(&virt(&host))
}

#[test]
fn a_gic_that_does_not_inherit_its_parent_keeps_it() {
    // i.MX7: the root's is a wake-up controller, whose own is the GIC. Without its own Linux finds a circle and sets up none.
    let changes = [(
        "interrupt-controller;",
        "interrupt-controller; interrupt-parent = <&gic>;",
    )];
    let lines = lines(&virt(&compile_with(VIRT, &changes)));
    let parents: Vec<&String> = lines
        .iter()
        .filter(|l| l.starts_with("/intc@8000000 interrupt-parent"))
        .collect();
    assert_eq!(parents.len(), 1, "{lines:?}");
}

#[test]
fn names_beyond_the_specification_are_kept() {
    let lines = virt_lines_with(
        "1w@0 { }; 3v3-regulator { _x = <1>; 9p; }; a:b { c:d; };
         regulator-with-a-very-long-node-name { samsung,exynos-sataphy-i2c-phandle = <1>; };",
    );
    for line in [
        "/1w@0",
        "/3v3-regulator _x = 00000001",
        "/3v3-regulator 9p = ",
        "/a:b c:d = ",
        "/regulator-with-a-very-long-node-name samsung,exynos-sataphy-i2c-phandle = 00000001",
    ] {
        assert!(lines.contains(&String::from(line)), "{line}");
    }
}

/// Returns the phandle of the first node whose path ends so.
fn phandle_of(lines: &[String], path: &str) -> String {
    let line = lines
        .iter()
        .find_map(|line| line.split_once(&format!("{path} phandle = ")));
    line.unwrap().1.into()
}

#[test]
fn what_is_left_out_is_a_stub_where_something_refers_to_it() {
    let changes = [
        // Three CPUs, of which dom0 has two, and sleep states.
        ("cpu@0 {", "c0: cpu@0 { #cooling-cells = <2>;"),
        (
            "cpu@1 {",
            "c1: cpu@2 { reg = <2>; nap: nap { }; }; idle { deep: deep { }; }; other { }; c2: cpu@1 {",
        ),
        (
            "pl011@9000000 {",
            "uart: pl011@9000000 { #clock-cells = <0>;",
        ),
        ("psci {", "fw: psci {"),
        (
            "serial0 = \"/pl011@9000000\";",
            "serial0 = \"/pl011@9000000\"; rtc0 = \"/pl031@9010000\"; odd = <1>;",
        ),
        (
            "gpio-keys {",
            "users { x = <&c0 &c1 &c2 &deep &nap &uart &fw>; }; gpio-keys {",
        ),
    ];
    let lines = lines(&virt(&compile_with(VIRT, &changes)));
    let has = |line: &str| lines.contains(&String::from(line));
    let wanted = lines.iter().find_map(|l| l.strip_prefix("/users x = "));
    let found: String = [
        "/cpus/cpu@0",
        "/cpus/cpu@1",
        "/cpus/absent-0",
        "/cpus/idle/deep",
        "/cpus/cpu@1/nap",
        "/pl011@9000000",
        "/psci",
    ]
    .iter()
    .map(|path| phandle_of(&lines, path))
    .collect();
    assert_eq!(wanted, Some(found.as_str()));
    assert!(has("/cpus/cpu@0 #cooling-cells = 00000002"));
    assert!(has("/pl011@9000000 #clock-cells = 00000000"));
    assert!(has("/pl011@9000000 status = 64697361626c656400"));
    assert!(
        !lines
            .iter()
            .any(|l| l.starts_with("/pl011@9000000 compatible"))
    );
    assert!(!has("/cpus/other"));
    // An alias of what is hidden leads nowhere; what is no path stays.
    assert!(!lines.iter().any(|l| l.starts_with("/aliases serial0")));
    assert!(lines.iter().any(|l| l.starts_with("/aliases rtc0")));
    assert!(has("/aliases odd = 00000001"));
}

#[test]
fn a_device_that_needs_what_dom0_cannot_have_is_disabled() {
    let lines = virt_lines_with(
        "serial@9000800 { reg = <0 0x9000800 0 0x100>; status = \"okay\"; x { status = \"okay\"; }; };",
    );
    assert!(lines.contains(&String::from("/serial@9000800 status = 64697361626c656400")));
    assert!(lines.contains(&String::from("/serial@9000800/x status = 6f6b617900")));
}

#[test]
fn a_device_for_another_domain_is_shown_disabled() {
    let changes = [(
        "compatible = \"arm,pl031\"",
        "xen,passthrough; status = \"okay\"; compatible = \"arm,pl031\"",
    )];
    let lines = lines(&virt(&compile_with(VIRT, &changes)));
    assert!(lines.contains(&String::from("/pl031@9010000 status = 64697361626c656400")));
    assert!(!lines.iter().any(|l| l.contains("passthrough")));
}

#[test]
fn the_interrupts_of_a_message_frame_are_told_once_they_are_known() {
    let bytes = compile(VIRT);
    let mut host = HostInfo::parse(&bytes).unwrap();
    host.gic.frames[0].set_type_register(80 << 16 | 64);
    let machine = HostView {
        tree: tree(&bytes),
        host: &host,
        console: None,
        gic_lines: 288,
    };
    let config = Config {
        bootargs: "",
        ramdisk: None,
        memory: &[],
        vcpus: 1,
        grant: range(0x4001_0000, 0x4_0000),
        extended: &[],
        event_interrupt: 16,
    };
    let tree = build(&machine, &Selection::of(&machine), &config).unwrap();
    let lines = lines(&tree);
    let frame = "/intc@8000000/v2m@8020000";
    assert!(lines.contains(&format!("{frame} arm,msi-base-spi = 00000050")));
    assert!(lines.contains(&format!("{frame} arm,msi-num-spis = 00000040")));
    assert!(!lines.iter().any(|l| l.contains("initrd")));
    // Without a console of the hypervisor's the UART is dom0's.
    assert!(lines.contains(&String::from("/pl011@9000000")));
}

#[test]
fn a_bank_beyond_one_cell_addresses_is_refused() {
    let bytes = compile(ARNDALE);
    let host = HostInfo::parse(&bytes).unwrap();
    let machine = HostView {
        tree: tree(&bytes),
        host: &host,
        console: None,
        gic_lines: 160,
    };
    let config = Config {
        bootargs: "",
        ramdisk: None,
        memory: &[range(0x1_0000_0000, 0x1000_0000)],
        vcpus: 1,
        grant: range(0x4001_0000, 0x4_0000),
        extended: &[],
        event_interrupt: 16,
    };
    let refused = build(&machine, &Selection::of(&machine), &config);
    assert!(refused.is_err());
}
