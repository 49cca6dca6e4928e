use super::{DevicePlan, plan};
use crate::dom0::device_tree::{Config, build};
use crate::dom0::selection::{HostView, Selection};
use crate::platform::host_dt::HostInfo;
use crate::platform::ranges::PhysRange;
use crate::platform::testing::{ARNDALE, VEXPRESS, VIRT, compile, compile_with, tree};
use crate::platform::tree::check_budget;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use armv7::gic::Trigger;
use dt::Blob;
use proptest::prelude::{any, prop, proptest};

fn range(base: u64, size: u64) -> PhysRange {
    PhysRange::new(base, size).unwrap()
}

/// The line about the sample's performance monitors, which no rule knows.
const PMU: &str = "DOM0: /pmu disabled: interrupt 23 is private to each CPU";

fn plan_of(bytes: &[u8], gic_lines: u32) -> DevicePlan {
    let mut host = HostInfo::parse(bytes).unwrap();
    for frame in &mut host.gic.frames {
        frame.set_type_register(80 << 16 | 64);
    }
    let console = host.console.clone().ok();
    let machine = HostView {
        tree: tree(bytes),
        host: &host,
        console: console.as_ref(),
        gic_lines,
    };
    let plan = plan(&machine, &Selection::of(&machine));
    check_budget(machine.tree).unwrap();
    let mut hidden: Vec<PhysRange> = host.ram.clone();
    hidden.extend(host.gic.regions());
    hidden.extend(console.map(|uart| uart.reg));
    for region in &plan.mmio {
        assert!(!hidden.iter().any(|h| h.overlaps(region)), "{region}");
        assert_eq!(region.pages_outward(), *region);
    }
    plan
}

#[test]
fn dom0_gets_all_devices_of_qemus_virt_machine() {
    let plan = plan_of(&compile(VIRT), 288);
    let expected = [
        range(0, 0x800_0000),
        range(0x802_0000, 0x1000),
        range(0x901_0000, 0x1000),
        range(0x902_0000, 0x1000),
        range(0x903_0000, 0x1000),
        range(0xa00_0000, 0x1000),
        range(0x1000_0000, 0x2f00_0000),
        range(0x40_1000_0000, 0x1000_0000),
        range(0x80_0000_0000, 0x80_0000_0000),
    ];
    assert_eq!(plan.mmio, expected);
    let lines: Vec<u32> = plan.interrupts.iter().map(|i| i.intid).collect();
    let mut wanted: Vec<u32> = Vec::from([34, 35, 36, 37, 39, 48, 49]);
    wanted.extend(80..144);
    assert_eq!(lines, wanted);
    let trigger = |intid| {
        plan.interrupts
            .iter()
            .find(|i| i.intid == intid)
            .unwrap()
            .trigger
    };
    assert_eq!(trigger(48), Trigger::Edge);
    assert_eq!(trigger(35), Trigger::Level);
    assert_eq!(trigger(80), Trigger::Edge);
    assert_eq!(plan.notes, [PMU]);
}

#[test]
fn a_device_with_an_interrupt_beyond_the_gics_lines_is_disabled_with_a_warning() {
    let plan = plan_of(&compile(VEXPRESS), 96);
    let note = "DOM0: /dma@7ffb0000 disabled: interrupt 124 is beyond the GIC's 96 lines";
    assert_eq!(plan.notes, [note]);
    assert!(!plan.mmio.iter().any(|r| r.base() == 0x7ffb_0000));
    let plan = plan_of(&compile(VEXPRESS), 160);
    assert!(plan.mmio.contains(&range(0x7ffb_0000, 0x1000)));
}

#[test]
fn devices_behind_three_buses_are_mapped_where_the_machine_has_them() {
    let plan = plan_of(&compile(VEXPRESS), 96);
    let expected = [
        range(0x1800_0000, 0x80_0000),
        range(0x1a00_0000, 0x1_0000),
        range(0x1c01_0000, 0x1000),
        range(0x1c17_0000, 0x1000),
    ];
    assert_eq!(plan.mmio, expected);
    let lines: Vec<u32> = plan.interrupts.iter().map(|i| i.intid).collect();
    assert_eq!(lines, [36, 47]);
    assert_eq!(plan.reserved_ram, [range(0xbf00_0000, 0x10_0000)]);
}

#[test]
fn interrupts_of_a_second_controller_are_not_taken_for_the_gics() {
    let plan = plan_of(&compile(ARNDALE), 160);
    let lines: Vec<u32> = plan.interrupts.iter().map(|i| i.intid).collect();
    // The combiner's own two, the clock's two by way of the wake-up controller; nothing of the hidden timer's.
    assert_eq!(lines, [32, 33, 75, 76]);
    assert!(!plan.mmio.iter().any(|r| r.base() == 0x101c_0000));
    assert!(plan.mmio.contains(&range(0x1044_0000, 0x1000)));
}

#[test]
fn a_bus_around_the_console_stays_without_its_page() {
    let source = VIRT.replacen(
        "pl011@9000000 {",
        "bus@9000000 {\n compatible = \"fsl,aips-bus\", \"simple-bus\";\n reg = <0 0x9000000 0 0x20000>;\n \
         #address-cells = <2>; #size-cells = <2>; ranges;\n \
         anatop@9004000 { compatible = \"fsl,imx6ul-anatop\"; reg = <0 0x9004000 0 0x1000>; }; };\n pl011@9000000 {",
        1,
    );
    // The console's node is moved to below the bus.
    let start = source.find("pl011@9000000 {").unwrap();
    let end = start + source[start..].find("};").unwrap() + 2;
    let console = source[start..end].to_owned();
    let mut source = source[..start].to_owned() + &source[end..];
    let bus = source.find("anatop@9004000").unwrap();
    source.insert_str(bus, &(console + "\n"));
    let source = source.replace("/pl011@9000000", "/bus@9000000/pl011@9000000");
    let plan = plan_of(&compile(&source), 288);
    assert!(
        !plan.notes.iter().any(|note| note.contains("/bus")),
        "{:?}",
        plan.notes
    );
    let around = range(0x900_1000, 0x1_f000);
    let mapped =
        |region: &PhysRange| region.base() <= around.base() && region.end() >= around.end();
    assert!(plan.mmio.iter().any(mapped), "{:x?}", plan.mmio);
}

#[test]
fn a_device_that_needs_what_dom0_cannot_have_gets_nothing_and_a_line() {
    let rtc = |regs: &str, lines: &str| {
        let changes = [
            ("reg = <0 0x9010000 0 0x1000>", regs),
            ("interrupts = <0 2 4>", lines),
        ];
        plan_of(&compile_with(VIRT, &changes), 288)
    };
    let (reg, line) = ("reg = <0 0x9010000 0 0x1000>", "interrupts = <0 2 4>");
    for (regs, interrupts, reason) in [
        (
            "reg = <0 0x9000800 0 0x100>",
            line,
            "its registers are in 0x9000000-0x9001000, which is the console's",
        ),
        (
            "reg = <0 0x9010000 0 0x1000>, <0 0x8010000 0 8>",
            line,
            "its registers are in 0x8010000-0x8020000, which is the GIC's",
        ),
        (
            "reg = <0 0x50000000 0 8>",
            line,
            "its registers are in 0x40000000-0xc0000000, which is RAM",
        ),
        (reg, "interrupts = <0 1 4>", "interrupt 33 is the console's"),
        (
            reg,
            "interrupts = <0 2 4>, <1 3 4>",
            "interrupt 19 is private to each CPU",
        ),
        (
            reg,
            "interrupts = <0 300 4>",
            "interrupt 332 is beyond the GIC's 288 lines",
        ),
    ] {
        let plan = rtc(regs, interrupts);
        let note = alloc::format!("DOM0: /pl031@9010000 disabled: {reason}");
        assert_eq!(plan.notes, [note.as_str(), PMU]);
        assert!(!plan.mmio.contains(&range(0x901_0000, 0x1000)));
        let lines: Vec<u32> = plan.interrupts.iter().map(|i| i.intid).collect();
        assert!(!lines.contains(&34) && !lines.contains(&33));
        // A disabled node needs no word.
        let off = alloc::format!("status = \"disabled\"; {regs}");
        assert_eq!(rtc(&off, interrupts).notes, [PMU]);
    }
}

#[test]
fn a_device_for_another_domain_is_not_dom0s() {
    let changes = [(
        "compatible = \"arm,pl031\"",
        "xen,passthrough; compatible = \"arm,pl031\"",
    )];
    let plan = plan_of(&compile_with(VIRT, &changes), 288);
    assert!(!plan.mmio.contains(&range(0x901_0000, 0x1000)));
    assert!(plan.interrupts.iter().all(|i| i.intid != 34));
}

#[test]
fn a_tree_made_to_search_forever_is_refused_by_the_node_that_takes_the_time() {
    // Each register is looked for in a long list that does not have it.
    let map = "0 0xc000000 0x1 ".repeat(20_000);
    let regs = "0xdead0000 0x1000 ".repeat(60);
    let nodes: String = (0..200)
        .map(|n| alloc::format!("n{n} {{ reg = <{regs}>; }};"))
        .collect();
    let simple_bus = "\"simple-bus\";";
    let changes = [
        ("<0 0 0xc000000 0x2000000>;", alloc::format!("<0 {map}>;")),
        (simple_bus, alloc::format!("{simple_bus} {nodes}")),
    ];
    let changes = changes.each_ref().map(|(from, to)| (*from, to.as_str()));
    let bytes = compile_with(VIRT, &changes);
    let host = HostInfo::parse(&bytes).unwrap();
    let machine = HostView {
        tree: tree(&bytes),
        host: &host,
        console: None,
        gic_lines: 288,
    };
    let _ = plan(&machine, &Selection::of(&machine));
    let line = check_budget(machine.tree).unwrap_err().to_string();
    assert!(
        line.ends_with("steps, the last at /platform-bus@c000000"),
        "{line}"
    );
}

#[test]
fn interrupts_that_are_cut_short_by_the_budget_are_named() {
    // Each of 24 lines is looked for in a map of very many entries that has it last.
    let map = "1 &gic 0 0 0 0 4 ".repeat(60_000);
    let last: String = (0..24)
        .map(|n| alloc::format!("{} &gic 0 0 0 {n} 4 ", 100 + n))
        .collect();
    let users: String = (0..24)
        .map(|n| {
            let lines = alloc::format!("<{}> ", 100 + n).repeat(40);
            alloc::format!("u{n} {{ interrupt-parent = <&nexus>; interrupts = {lines}; }};")
        })
        .collect();
    let nodes = alloc::format!(
        "nexus: nexus {{ #interrupt-cells = <1>; interrupt-map = <{map} {last}>; }}; {users} gpio-keys {{"
    );
    let bytes = compile_with(VIRT, &[("gpio-keys {", &nodes)]);
    let line = HostInfo::parse(&bytes).unwrap_err().to_string();
    assert!(line.contains("steps, the last at /"), "{line}");
}

proptest! {
    #[test]
    fn a_mutated_tree_gives_a_plan_and_a_tree_for_dom0_without_a_panic(
        sample in 0usize..3,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        gic_lines in 32u32..1020,
    ) {
        let mut bytes = compile([VIRT, VEXPRESS, ARNDALE][sample]);
        for (at, value) in changes {
            let at = 56 + at.index(bytes.len() - 56);
            bytes[at] = value;
        }
        if let Ok(host) = HostInfo::parse(&bytes) {
            let machine = HostView {
                tree: tree(&bytes),
                host: &host,
                console: host.console.as_ref().ok(),
                gic_lines,
            };
            let selection = Selection::of(&machine);
            let _ = plan(&machine, &selection);
            let config = Config {
                bootargs: "console=hvc0",
                ramdisk: None,
                memory: &host.ram[..1],
                vcpus: 2,
                grant: range(0x4001_0000, 0x4_0000),
                extended: &[],
                event_interrupt: 16,
            };
            if let Ok(tree) = build(&machine, &selection, &config) {
                Blob::check(&tree).unwrap();
            }
        }
    }
}

#[test]
fn interrupts_of_a_controller_that_no_rule_knows_are_named_once() {
    let users = "users { interrupt-parent = <&cross>; a { interrupts = <0 7 4>, <0 8 4>; }; b { interrupts = <0 9 4>; }; };";
    let controller = |rest: &str| {
        let more =
            alloc::format!("cross: cross {{ interrupt-controller; {rest} }}; {users} gpio-keys {{");
        plan_of(&compile_with(VIRT, &[("gpio-keys {", &more)]), 288).notes
    };
    for (unknown, count) in [
        // Nothing of its own leads to the GIC.
        ("compatible = \"x,crossbar\"; #interrupt-cells = <3>;", 3),
        ("compatible = \"x,crossbar\"; #interrupt-cells = <1>;", 9),
        // It speaks the GIC's language.
        (
            "compatible = \"x,crossbar\"; #interrupt-cells = <3>; interrupts = <0 40 4>;",
            3,
        ),
    ] {
        let note = alloc::format!(
            "DOM0: {count} interrupts by way of /cross (x,crossbar), whose driver chooses the SPIs"
        );
        assert_eq!(controller(unknown), [PMU, note.as_str()]);
    }
    for known in [
        "compatible = \"x,combiner\"; #interrupt-cells = <2>; interrupts = <0 40 4>;",
        "compatible = \"x,pins\"; #interrupt-cells = <3>; gpio-controller;",
        "#interrupt-cells = <1>;",
    ] {
        assert_eq!(controller(known), [PMU], "{known}");
    }
}
