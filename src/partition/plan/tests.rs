//! A domain's tree, read back from its blob, and the places of its parts.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use dt::{Node, Tree};

use super::{Machine, Plan, plan};
use crate::loader::kernel::KernelImage;
use crate::platform::BootError;
use crate::platform::modules::{Module, ModuleKind};
use crate::platform::partitions::memory::Shared;
use crate::platform::partitions::{Config, Enhanced};
use crate::platform::ranges::PhysRange;
use crate::platform::tree;

const MIB: u64 = 1 << 20;
const MACHINE: Machine<'_> = Machine {
    gic_lines: 288,
    clock_frequency: None,
    cpu: Some(b"arm,cortex-a15\0"),
    cpu_frequency: None,
    distributor: 0x800_0000,
    cpu_interface: 0x801_0000,
    console: None,
};
const IMAGE: KernelImage = KernelImage {
    offset: 0,
    size: 0x54_5200,
    load: None,
    entry_offset: 0,
};

fn module(kind: ModuleKind, size: u64, line: Option<&str>) -> Module {
    Module {
        kind,
        range: PhysRange::new(0x6000_0000, size).unwrap(),
        bootargs: line.map(String::from),
        path: String::new(),
    }
}

fn config(memory: u64) -> Config {
    let kernel = module(ModuleKind::Kernel, IMAGE.size, Some("console=ttyAMA0"));
    Config {
        uart: true,
        enhanced: Enhanced::Full,
        ramdisk: Some(module(ModuleKind::Ramdisk, 0x1234, None)),
        ..Config::new(memory, 1, kernel)
    }
}

fn made(config: &Config) -> Plan {
    plan(config, &IMAGE, &MACHINE, None).unwrap()
}

fn seen<T>(plan: &Plan, look: impl Fn(&Tree<'_>) -> T) -> T {
    tree::with(&plan.tree, |tree| Ok::<_, BootError>(look(tree))).unwrap()
}

fn cells(node: &Node<'_>, name: &str) -> Vec<u32> {
    node.cells(name).collect()
}

#[test]
fn the_places_are_those_of_xen() {
    let plan = made(&config(256 * MIB));
    assert_eq!(
        plan.banks,
        [PhysRange::new(0x4000_0000, 256 * MIB).unwrap()]
    );
    assert_eq!(plan.place.kernel.base(), 0x47a0_0000);
    assert_eq!(plan.place.tree.base(), 0x4800_0000);
    let ramdisk = plan.place.ramdisk.unwrap();
    assert_eq!((ramdisk.base(), ramdisk.size()), (0x4820_0000, 0x1234));
    assert_eq!(plan.pages, 0x1_0000);
}

#[test]
fn more_than_3_gib_go_on_in_the_second_bank() {
    let plan = made(&config(3100 * MIB));
    let ranges: Vec<_> = plan.banks.iter().map(|b| (b.base(), b.size())).collect();
    assert_eq!(
        ranges,
        [(0x4000_0000, 3072 * MIB), (0x2_0000_0000, 28 * MIB)]
    );
    let reg = seen(&plan, |tree| {
        cells(&tree.find("/memory@40000000").unwrap(), "reg")
    });
    assert_eq!(reg, [0, 0x4000_0000, 0, 0xC000_0000, 2, 0, 0, 28 << 20]);
    let endless = plan_of(!4095);
    assert!(
        endless
            .unwrap_err()
            .contains("more than the guest's addresses hold")
    );
}

fn plan_of(memory: u64) -> Result<Plan, String> {
    plan(&config(memory), &IMAGE, &MACHINE, None).map_err(|why| why.to_string())
}

#[test]
fn what_does_not_fit_is_refused() {
    assert!(plan_of(4 * MIB).unwrap_err().contains("does not fit"));
    assert!(plan_of(4096).unwrap_err().contains("does not fit"));
    assert!(plan_of(16 * MIB).is_ok());
}

#[test]
fn tables_are_by_the_formula_or_by_the_number() {
    // 256 pages for the vCPU, 128 for the RAM, and 128, in whole MiB.
    assert_eq!(made(&config(128 * MIB)).tables, 512);
    assert_eq!(made(&config(129 * MIB)).tables, 768);
    let three = Config {
        table_mib: Some(3),
        ..config(128 * MIB)
    };
    assert_eq!(made(&three).tables, 3 * 256);
    let all = Config {
        table_mib: Some(u32::MAX),
        ..config(128 * MIB)
    };
    assert_eq!(made(&all).tables, u32::MAX);
}

#[test]
fn interrupts_are_the_machines_or_as_many_as_asked_for() {
    assert_eq!(made(&config(MIB * 64)).spis, 256);
    for (spis, has) in [(0, 1), (1, 1), (960, 960), (5000, 960)] {
        let config = Config {
            spis: Some(spis),
            ..config(64 * MIB)
        };
        assert_eq!(made(&config).spis, has);
    }
    let few = Machine {
        gic_lines: 32,
        ..MACHINE
    };
    assert_eq!(plan(&config(64 * MIB), &IMAGE, &few, None).unwrap().spis, 1);
}

#[test]
fn its_tree_has_the_nodes_of_xen_in_their_order() {
    let plan = made(&config(256 * MIB));
    let names: Vec<String> = seen(&plan, |tree| {
        let children = tree.root().children();
        children.map(|node| node.name().to_string()).collect()
    });
    assert_eq!(
        names,
        [
            "chosen",
            "psci",
            "cpus",
            "memory@40000000",
            "interrupt-controller@3001000",
            "timer",
            "sbsa-uart@22000000",
            "hypervisor",
        ]
    );
}

#[test]
fn each_node_says_what_the_bindings_want() {
    let plan = made(&config(256 * MIB));
    seen(&plan, |tree| {
        let root = tree.root();
        assert_eq!(
            (root.u32("#address-cells"), root.u32("#size-cells")),
            (Some(2), Some(2))
        );
        let node = |path: &str| tree.find(path).unwrap();
        let chosen = node("/chosen");
        assert_eq!(chosen.string("bootargs"), Some("console=ttyAMA0"));
        assert_eq!(chosen.number("linux,initrd-start"), Some(0x4820_0000));
        assert_eq!(chosen.number("linux,initrd-end"), Some(0x4820_1234));
        let psci = node("/psci");
        assert_eq!(psci.string("method"), Some("hvc"));
        assert_eq!(
            (psci.u32("cpu_off"), psci.u32("cpu_on")),
            (Some(1), Some(2))
        );
        let cpu = node("/cpus/cpu@0");
        assert!(cpu.is_compatible(&["arm,cortex-a15"]) && cpu.is_type("cpu"));
        assert_eq!(cpu.u32("reg"), Some(0));
        let gic = node("/interrupt-controller@3001000");
        assert!(gic.is_compatible(&["arm,gic-400"]));
        assert_eq!(gic.phandle(), Some(65_000));
        assert_eq!(
            cells(&gic, "reg"),
            [0, 0x300_1000, 0, 0x1000, 0, 0x300_2000, 0, 0x2000]
        );
        let timer = node("/timer");
        assert_eq!(
            cells(&timer, "interrupts"),
            [1, 13, 0xf08, 1, 14, 0xf08, 1, 11, 0xf08]
        );
        assert_eq!(timer.u32("interrupt-parent"), Some(65_000));
        assert!(!timer.has("clock-frequency"));
        let uart = node("/sbsa-uart@22000000");
        assert!(uart.is_compatible(&["arm,sbsa-uart"]));
        assert_eq!(cells(&uart, "interrupts"), [0, 0, 0xf04]);
        assert_eq!(cells(&uart, "reg"), [0, 0x2200_0000, 0, 0x1000]);
        assert_eq!(uart.u32("current-speed"), Some(115_200));
        let hypervisor = node("/hypervisor");
        assert!(hypervisor.is_compatible(&["xen,xen"]));
        assert_eq!(cells(&hypervisor, "reg"), [0, 0x3800_0000, 0, 0x100_0000]);
        assert_eq!(cells(&hypervisor, "interrupts"), [1, 15, 0xf08]);
    });
}

#[test]
fn what_it_has_not_is_not_in_its_tree() {
    let plain = Config {
        uart: false,
        enhanced: Enhanced::No,
        ramdisk: None,
        kernel: module(ModuleKind::Kernel, IMAGE.size, None),
        vcpus: 8,
        ..config(256 * MIB)
    };
    let plan = made(&plain);
    assert_eq!(plan.spis, 256);
    seen(&plan, |tree| {
        assert!(tree.find("/hypervisor").is_none());
        assert!(tree.find("/sbsa-uart@22000000").is_none());
        let chosen = tree.find("/chosen").unwrap();
        assert_eq!(chosen.string("bootargs"), Some(""));
        assert!(!chosen.has("linux,initrd-start"));
        assert!(tree.find("/cpus/cpu@7").is_some() && tree.find("/cpus/cpu@8").is_none());
    });
    let told = Config {
        enhanced: Enhanced::WithoutXenstore,
        ..plain
    };
    assert!(seen(&made(&told), |tree| tree
        .find("/hypervisor")
        .is_some()));
}

#[test]
fn frequencies_are_told_where_the_machine_tells_them() {
    let machine = Machine {
        clock_frequency: Some(24_000_000),
        cpu_frequency: Some(1_700_000_000),
        ..MACHINE
    };
    let plan = plan(&config(64 * MIB), &IMAGE, &machine, None).unwrap();
    seen(&plan, |tree| {
        let of = |path: &str| tree.find(path).unwrap().u32("clock-frequency");
        assert_eq!(of("/timer"), Some(24_000_000));
        assert_eq!(of("/cpus/cpu@0"), Some(1_700_000_000));
    });
}

#[test]
fn the_tree_is_as_large_as_what_goes_into_it() {
    // Xen's has 4 KiB.
    let long = "x".repeat(4096);
    let kind = [b'c'; 500];
    let machine = Machine {
        cpu: Some(&kind),
        ..MACHINE
    };
    let full = Config {
        vcpus: 8,
        kernel: module(ModuleKind::Kernel, IMAGE.size, Some(&long)),
        ..config(256 * MIB)
    };
    let plan = plan(&full, &IMAGE, &machine, None).unwrap();
    assert!(plan.tree.len() > 8192);
    let line = seen(&plan, |tree| {
        let chosen = tree.find("/chosen").unwrap();
        chosen.string("bootargs").map(String::from)
    });
    assert_eq!(line.as_deref(), Some(long.as_str()));
}

#[test]
fn a_kernel_that_wants_a_place_gets_it_or_is_refused() {
    let fixed = |load| {
        let image = KernelImage {
            load: Some(load),
            entry_offset: 0x40,
            ..IMAGE
        };
        plan(&config(64 * MIB), &image, &MACHINE, None).map(|plan| plan.place.entry)
    };
    assert_eq!(fixed(0x4000_8000).ok(), Some(0x4000_8040));
    assert!(
        fixed(0x8000)
            .unwrap_err()
            .to_string()
            .contains("wants 0x8000")
    );
}

/// Returns a domain with RAM at these addresses of the machine.
fn with_memory(ranges: &[(u64, u64)], direct_map: bool) -> Config {
    let ranges = ranges
        .iter()
        .map(|(base, size)| PhysRange::new(*base, *size).unwrap());
    let static_memory: Vec<PhysRange> = ranges.collect();
    Config {
        static_memory: static_memory.clone(),
        direct_map,
        ..config(static_memory.iter().map(PhysRange::size).sum())
    }
}

fn bases(plan: &Plan) -> Vec<(u64, Option<u64>)> {
    let pieces = plan.pieces.iter();
    pieces
        .map(|piece| (piece.guest.base(), piece.host.map(|host| host.base())))
        .collect()
}

#[test]
fn static_memory_follows_on_one_another_and_goes_on_in_the_second_bank() {
    let two = made(&with_memory(
        &[(0x9000_0000, 32 * MIB), (0x7000_0000, 64 * MIB)],
        false,
    ));
    assert_eq!(two.banks, [PhysRange::new(0x4000_0000, 96 * MIB).unwrap()]);
    assert_eq!(
        bases(&two),
        [
            (0x4000_0000, Some(0x9000_0000)),
            (0x4200_0000, Some(0x7000_0000))
        ]
    );
    // Xen's sum was wrong for a range that crosses from one bank into the other.
    let across = made(&with_memory(
        &[(0x1_0000_0000, 2048 * MIB), (0x8_0000_0000, 2048 * MIB)],
        false,
    ));
    let expected = [
        (0x4000_0000, Some(0x1_0000_0000)),
        (0xC000_0000, Some(0x8_0000_0000)),
        (0x2_0000_0000, Some(0x8_4000_0000)),
    ];
    assert_eq!(bases(&across), expected);
    assert_eq!(across.banks.len(), 2);
    assert_eq!(across.pages, 4096 << 8);
}

#[test]
fn a_direct_map_has_ram_controller_and_uart_where_the_machine_has_them() {
    let machine = Machine {
        console: Some((PhysRange::new(0x900_0000, 0x1000).unwrap(), 33)),
        ..MACHINE
    };
    let config = with_memory(&[(0x7000_0000, 32 * MIB), (0x9000_0000, 32 * MIB)], true);
    let plan = plan(&config, &IMAGE, &machine, None).unwrap();
    assert_eq!(
        bases(&plan),
        [
            (0x7000_0000, Some(0x7000_0000)),
            (0x9000_0000, Some(0x9000_0000))
        ]
    );
    assert!(plan.banks[0].contains(&plan.place.kernel));
    assert_eq!(
        (plan.layout.gic().first_page, plan.layout.uart_irq.raw()),
        (0x8000, 33)
    );
    seen(&plan, |tree| {
        let gic = tree.find("/interrupt-controller@8000000").unwrap();
        assert_eq!(
            cells(&gic, "reg"),
            [0, 0x800_0000, 0, 0x1000, 0, 0x801_0000, 0, 0x2000]
        );
        let uart = tree.find("/sbsa-uart@9000000").unwrap();
        assert_eq!(cells(&uart, "interrupts"), [0, 1, 0xf04]);
        let memory = tree.find("/memory@70000000").unwrap();
        assert_eq!(
            cells(&memory, "reg"),
            [0, 0x7000_0000, 0, 32 << 20, 0, 0x9000_0000, 0, 32 << 20]
        );
    });
}

#[test]
fn a_direct_map_needs_a_page_for_its_uart_and_no_ram_where_something_else_is() {
    let of = |config: &Config, console| {
        let machine = Machine { console, ..MACHINE };
        plan(config, &IMAGE, &machine, None)
            .map(|_| ())
            .map_err(|why| why.to_string())
    };
    let ram = with_memory(&[(0x7000_0000, 64 * MIB)], true);
    let console = |base, size| Some((PhysRange::new(base, size).unwrap(), 33));
    assert!(
        of(&ram, None)
            .unwrap_err()
            .contains("vpl011: with direct-map")
    );
    for odd in [console(0x900_0000, 0x400), console(0x900_0400, 0x1000)] {
        assert!(
            of(&ram, odd)
                .unwrap_err()
                .contains("its registers are no whole page")
        );
    }
    let on_grants = with_memory(&[(0x3800_0000, 64 * MIB)], true);
    let why = of(&on_grants, console(0x900_0000, 0x1000)).unwrap_err();
    assert_eq!(
        why,
        "direct-map: 0x38000000-0x3c000000 is the grant table in the domain"
    );
    // A domain without a hypervisor node has no grant table there.
    let plain = Config {
        enhanced: Enhanced::No,
        uart: false,
        ..on_grants
    };
    assert_eq!(of(&plain, None), Ok(()));
}

#[test]
fn shared_memory_is_reserved_in_the_tree_and_beside_all_else() {
    let region = |guest| Shared {
        path: "/chosen/domU0/shm".into(),
        id: "ring".into(),
        host: PhysRange::new(0x8000_0000, 0x2000).unwrap(),
        guest: PhysRange::new(guest, 0x2000).unwrap(),
    };
    let with = |guest| Config {
        shared: [region(guest)].to_vec(),
        ..config(256 * MIB)
    };
    seen(&made(&with(0x2000_0000)), |tree| {
        let top = tree.find("/reserved-memory").unwrap();
        assert!(top.has("ranges"));
        let node = tree.find("/reserved-memory/xen-shmem@20000000").unwrap();
        assert!(node.is_compatible(&["xen,shared-memory-v1"]));
        assert_eq!(cells(&node, "reg"), [0, 0x2000_0000, 0, 0x2000]);
        assert_eq!(
            (node.string("xen,id"), node.number("xen,offset")),
            (Some("ring"), Some(0))
        );
    });
    for (guest, what) in [
        (0x4000_0000, "RAM"),
        (0x4fff_f000, "RAM"),
        (0x300_0000, "the interrupt controller"),
        (0x2200_0000, "the UART"),
        (0x3900_0000, "xenstore's page"),
    ] {
        let refused = plan(&with(guest), &IMAGE, &MACHINE, None)
            .unwrap_err()
            .to_string();
        let expected = format!("is {what} in the domain");
        assert!(refused.contains(&expected), "{refused}");
        assert!(refused.starts_with("/chosen/domU0/shm: "), "{refused}");
    }
}
