use super::{DevicePlan, plan};
use crate::dom0::device_tree::{Config, build};
use crate::dom0::selection::Machine;
use crate::platform::blob::Blob;
use crate::platform::host_dt::HostInfo;
use crate::platform::interrupt::Trigger;
use crate::platform::ranges::PhysRange;
use crate::platform::testing::{ARNDALE, VEXPRESS, VIRT, compile, compile_with};
use alloc::vec::Vec;
use proptest::prelude::{any, prop, proptest};

fn range(base: u64, size: u64) -> PhysRange {
    PhysRange::new(base, size).unwrap()
}

fn plan_of(bytes: &[u8], gic_lines: u32) -> DevicePlan {
    let mut host = HostInfo::parse(bytes).unwrap();
    for frame in &mut host.gic.frames {
        frame.set_type_register(80 << 16 | 64);
    }
    let console = host.console.clone().ok();
    let machine = Machine {
        host: &host,
        console: console.as_ref(),
        gic_lines,
    };
    let plan = plan(&Blob::check(bytes).unwrap(), &machine).unwrap();
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
    assert_eq!(plan.notes, [] as [&str; 0]);
}

#[test]
fn a_device_with_an_interrupt_beyond_the_gics_lines_is_left_out_with_a_warning() {
    let plan = plan_of(&compile(VEXPRESS), 96);
    let note = "DOM0: /dma@7ffb0000 left out: interrupt 124 is beyond the GIC's 96 lines";
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
fn the_consoles_page_and_line_stay_with_the_hypervisor_even_when_shared() {
    let changes = [
        (
            "reg = <0 0x9010000 0 0x1000>",
            "reg = <0 0x9000800 0 0x1000>",
        ),
        ("interrupts = <0 2 4>", "interrupts = <0 1 4>"),
    ];
    let plan = plan_of(&compile_with(VIRT, &changes), 288);
    assert!(plan.mmio.contains(&range(0x900_1000, 0x1000)));
    assert!(plan.interrupts.iter().all(|i| i.intid != 33));
    let notes = [
        "DOM0: interrupt 33 is shared with the console, not routed",
        "DOM0: a device shares 0x9000000-0x9001000 with the console, not mapped",
    ];
    assert_eq!(plan.notes, notes);
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
            let machine = Machine {
                host: &host,
                console: host.console.as_ref().ok(),
                gic_lines,
            };
            let blob = Blob::check(&bytes).unwrap();
            let _ = plan(&blob, &machine);
            let config = Config {
                bootargs: "console=hvc0",
                ramdisk: None,
                memory: &host.ram[..1],
                vcpus: 2,
                grant: range(0x4001_0000, 0x4_0000),
                extended: &[],
                event_interrupt: 16,
            };
            if let Ok(tree) = build(&blob, &machine, &config) {
                Blob::check(&tree.blob).unwrap();
            }
        }
    }
}
