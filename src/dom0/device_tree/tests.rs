use super::{Config, Dom0Tree, build};
use crate::dom0::selection::Machine;
use crate::platform::blob::Blob;
use crate::platform::host_dt::HostInfo;
use crate::platform::ranges::PhysRange;
use crate::platform::testing::{ARNDALE, VEXPRESS, VIRT, compile, compile_with};
use crate::platform::tree::Tree;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

const VIRT_DOM0: &str = include_str!("../../../tests/dts/virt.dom0.dts");
const VEXPRESS_DOM0: &str = include_str!("../../../tests/dts/vexpress.dom0.dts");

fn range(base: u64, size: u64) -> PhysRange {
    PhysRange::new(base, size).unwrap()
}

fn built(bytes: &[u8], bank: PhysRange, extended: &[PhysRange], gic_lines: u32) -> Dom0Tree {
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
    let machine = Machine {
        host: &host,
        console: host.console.as_ref().ok(),
        gic_lines,
    };
    build(&Blob::check(bytes).unwrap(), &machine, &config).unwrap()
}

fn virt(bytes: &[u8]) -> Dom0Tree {
    built(
        bytes,
        range(0x6000_0000, 0x2000_0000),
        &[range(0x8000_0000, 0x4000_0000)],
        288,
    )
}

/// One line per node and property; the order of a node's properties means nothing.
fn lines(bytes: &[u8]) -> Vec<String> {
    let blob = Blob::check(bytes).unwrap();
    let tree = Tree::new(&blob).unwrap();
    let mut lines = Vec::new();
    for node in tree.all() {
        let path = node.path();
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
    assert_eq!(tree.notes, [] as [&str; 0]);
    assert_same_tree(&tree.blob, VIRT_DOM0);
}

#[test]
fn dom0s_tree_on_a_versatile_express_is_as_written_down() {
    let tree = built(&compile(VEXPRESS), range(0x9800_0000, 0x1800_0000), &[], 96);
    assert_same_tree(&tree.blob, VEXPRESS_DOM0);
}

#[test]
fn a_missing_chosen_node_is_made() {
    let at = ARNDALE.find("\tchosen {").unwrap();
    let end = ARNDALE[at..].find("};").unwrap() + at + 2;
    let host = compile_with(ARNDALE, &[(&ARNDALE[at..end], "")]);
    let tree = built(&host, range(0x6000_0000, 0x2000_0000), &[], 160);
    let lines = lines(&tree.blob);
    assert!(
        lines
            .iter()
            .any(|l| l.starts_with("/chosen bootargs = 636f6e736f6c65"))
    );
    assert!(lines.contains(&String::from("/timer clock-frequency = 016e3600")));
    assert!(lines.contains(&String::from("/cpus/cpu@1 clock-frequency = 6553f100")));
}

#[test]
fn a_gic_that_does_not_inherit_its_parent_keeps_it() {
    // i.MX7: the root's is a wake-up controller, whose own is the GIC. Without its own Linux finds a circle and sets up none.
    let changes = [(
        "interrupt-controller;",
        "interrupt-controller; interrupt-parent = <&gic>;",
    )];
    let lines = lines(&virt(&compile_with(VIRT, &changes)).blob);
    let parents: Vec<&String> = lines
        .iter()
        .filter(|l| l.starts_with("/interrupt-controller interrupt-parent"))
        .collect();
    assert_eq!(parents.len(), 1, "{lines:?}");
}

#[test]
fn refused_names_are_noted_and_skipped() {
    // The samples are written by the same writer, so the names it refuses are put in afterwards.
    let changes = "anode { x = <1>; y { }; }; gpio-keys { some-name = <1>;";
    let mut host = compile_with(VIRT, &[("gpio-keys {", changes)]);
    let mut put = |from: &[u8], to: &[u8]| {
        let at = host.windows(from.len()).position(|w| w == from).unwrap();
        host[at..at + to.len()].copy_from_slice(to);
    };
    put(b"anode\0", b"a:ode\0");
    put(b"some-name\0", b"some:name\0");
    let tree = virt(&host);
    let notes = [
        "DOM0: /a:ode left out: its name is refused",
        "DOM0: property some:name of /gpio-keys left out: its name is refused",
    ];
    assert_eq!(tree.notes, notes);
    assert_same_tree(&tree.blob, VIRT_DOM0);
}

#[test]
fn a_device_for_another_domain_is_shown_disabled() {
    let changes = [(
        "compatible = \"arm,pl031\"",
        "xen,passthrough; status = \"okay\"; compatible = \"arm,pl031\"",
    )];
    let lines = lines(&virt(&compile_with(VIRT, &changes)).blob);
    assert!(lines.contains(&String::from("/pl031@9010000 status = 64697361626c656400")));
    assert!(!lines.iter().any(|l| l.contains("passthrough")));
}

#[test]
fn the_interrupts_of_a_message_frame_are_told_once_they_are_known() {
    let bytes = compile(VIRT);
    let mut host = HostInfo::parse(&bytes).unwrap();
    host.gic.frames[0].set_type_register(80 << 16 | 64);
    let machine = Machine {
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
    let tree = build(&Blob::check(&bytes).unwrap(), &machine, &config).unwrap();
    let lines = lines(&tree.blob);
    let frame = "/interrupt-controller/v2m@8020000";
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
    let machine = Machine {
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
    let refused = build(&Blob::check(&bytes).unwrap(), &machine, &config);
    assert!(refused.is_err());
}
