use super::{Conduit, EnableMethod, HostInfo, ModuleKind};
use crate::platform::ranges::PhysRange;
use crate::platform::testing::{ARNDALE, VEXPRESS, VIRT, compile, compile_with, tree};
use crate::platform::tree::check_budget;
use crate::platform::uart::Model;
use crate::platform::{BootError, console};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use armv7::addr::PhysAddr;
use armv7::gic::Trigger;
use dt::{BUDGET, Blob};
use proptest::prelude::{any, prop, prop_assert, proptest};

mod ram;
mod unsaid;

fn range(base: u64, size: u64) -> PhysRange {
    PhysRange::new(base, size).unwrap()
}

fn parse(source: &str) -> HostInfo {
    HostInfo::parse(&compile(source)).unwrap()
}

fn changed(source: &str, changes: &[(&str, &str)]) -> Result<HostInfo, BootError> {
    HostInfo::parse(&compile_with(source, changes))
}

fn error(source: &str, changes: &[(&str, &str)]) -> String {
    changed(source, changes).unwrap_err().to_string()
}

#[test]
fn qemus_virt_machine_is_read_in_full() {
    let host = parse(VIRT);
    assert_eq!(host.notes, [] as [&str; 0]);
    assert_eq!(host.ram, [range(0x4000_0000, 0x8000_0000)]);
    assert_eq!(host.gic.distributor, range(0x0800_0000, 0x1_0000));
    assert_eq!(host.gic.cpu, range(0x0801_0000, 0x1_0000));
    assert_eq!(host.gic.hypervisor, range(0x0803_0000, 0x1_0000));
    assert_eq!(host.gic.virtual_cpu, range(0x0804_0000, 0x1_0000));
    assert_eq!(host.gic.maintenance, 25);
    assert_eq!(host.gic.frames[0].reg, range(0x0802_0000, 0x1000));
    assert_eq!(host.timer.secure_physical, 29);
    assert_eq!(host.timer.physical, 30);
    assert_eq!(host.timer.virtual_timer, 27);
    assert_eq!(host.timer.hypervisor, 26);
    assert_eq!(host.timer.frequency, None);
    assert_eq!(host.cpus.len(), 2);
    assert_eq!(host.cpus[1].mpidr, 1);
    assert_eq!(host.cpus[1].enable_method, EnableMethod::Psci);
    let psci = host.psci.unwrap();
    assert_eq!((psci.conduit, psci.standard), (Conduit::Smc, true));
    assert_eq!(psci.cpu_on, 0x8400_0003);
    let console = host.console.as_ref().unwrap();
    assert_eq!(console.path, "/pl011@9000000");
    assert_eq!(console.model, Model::Pl011);
    assert_eq!(console.reg, range(0x0900_0000, 0x1000));
    assert_eq!(console.interrupt.unwrap().intid, 33);
    assert_eq!(host.event_interrupt(), Some(16));
    let kernel = host.kernel().unwrap();
    assert_eq!(kernel.range, range(0x5000_0000, 0x5a_7000));
    assert_eq!(
        host.module(ModuleKind::Ramdisk).unwrap().range.size(),
        0xe0_0123
    );
    assert_eq!(
        host.command_lines.hypervisor,
        "console=dtuart dom0_mem=512M"
    );
    assert_eq!(host.command_lines.dom0, "console=hvc0");
}

#[test]
fn a_versatile_express_is_read_through_its_buses_and_its_interrupt_map() {
    let host = parse(VEXPRESS);
    let console = host.console.as_ref().unwrap();
    assert_eq!(console.reg, range(0x1c09_0000, 0x1000));
    assert_eq!(console.interrupt.unwrap().intid, 37);
    assert_eq!(console.options, "38400n8");
    assert_eq!(host.psci, None);
    assert_eq!(host.cpus[0].enable_method, EnableMethod::Unsaid);
    assert_eq!(
        host.command_lines.hypervisor,
        "console=dtuart dom0_mem=384M"
    );
    assert_eq!(host.command_lines.dom0, "console=hvc0");
    let ramdisk = host.module(ModuleKind::Ramdisk).unwrap();
    assert_eq!(ramdisk.range, range(0x9200_0000, 0x100_0000));
    let firmware = [range(0x1800_0000, 0x80_0000), range(0xbf00_0000, 0x10_0000)];
    assert_eq!(host.firmware_reserved, firmware);
}

#[test]
fn an_old_gic_node_gets_its_missing_regions() {
    let host = parse(ARNDALE);
    assert_eq!(host.gic.cpu, range(0x1048_2000, 0x2000));
    assert_eq!(host.gic.hypervisor, range(0x1048_4000, 0x2000));
    assert_eq!(host.gic.virtual_cpu, range(0x1048_6000, 0x2000));
    assert_eq!(host.gic.maintenance, 25);
    assert!(host.notes[0].contains("names no GICH"), "{:?}", host.notes);
    assert_eq!(host.timer.frequency, Some(24_000_000));
    assert_eq!(host.ram, [range(0x4000_0000, 0x7fe0_0000)]);
    assert_eq!(host.reserved, [range(0x43e0_0000, 0x10_0000)]);
    let console = host.console.as_ref().unwrap();
    assert_eq!(console.model, Model::Exynos4210);
    assert_eq!(console.interrupt.unwrap().intid, 85);
    assert_eq!(console.interrupt.unwrap().trigger, Trigger::Level);
    assert_eq!(host.kernel(), Err(BootError::NoKernel));
    assert_eq!(host.command_lines.dom0, "console=hvc0");
    assert_eq!(host.command_lines.hypervisor, "");
}

#[test]
fn a_bank_above_four_gib_keeps_all_its_bits() {
    let big = [("0x40000000 0 0x80000000", "0x40000000 1 0")];
    assert_eq!(changed(VIRT, &big).unwrap().ram[0].end(), 0x1_4000_0000);
}

#[test]
fn odd_banks_are_noted_and_the_rest_is_used() {
    let two = [(
        "reg = <0 0x40000000 0 0x80000000>",
        "reg = <0 0x40000000 0 0x80000000>, <0 0x50000000 0 0x80000000>, <0x100 0 0 0x1000>, <0xff 0 2 0>",
    )];
    let host = changed(VIRT, &two).unwrap();
    assert_eq!(host.ram[0], range(0x4000_0000, 0x9000_0000));
    // The rest of the last one is too far away.
    assert_eq!(host.ram.len(), 1);
    assert_eq!(host.notes.len(), 4, "{:?}", host.notes);
}

#[test]
fn each_missing_part_is_named_in_one_line() {
    let cases: &[(&str, &str, &str)] = &[
        (
            "0 0x80000000>;",
            "0 0x4000000>;",
            "BOOT: RAM 64 MiB, need 128 MiB",
        ),
        (
            "device_type = \"memory\"",
            "device_type = \"board\"",
            "BOOT: RAM 0 MiB",
        ),
        (
            "arm,cortex-a15-gic",
            "arm,gic-v3",
            "GIC: need GICv2 with virtualization (found arm,gic-v3)",
        ),
        ("arm,cortex-a15-gic", "other,pic", "found no node of one"),
        (
            "interrupts = <1 9 4>;",
            "interrupts = <0 9 4>;",
            "no maintenance interrupt",
        ),
        (
            "<1 10 0x304>",
            "<0 10 0x304>",
            "TIMER: no interrupt of the hypervisor timer at /timer",
        ),
        ("device_type = \"cpu\"", "reg = <0x1000000>", ""),
        (
            "reg = <0 0x50000000 0 0x5a7000>",
            "reg = <0 0x50000000 0 0>",
            "kernel module /chosen/module@0x50000000 at 0x50000000 cannot have size 0x0",
        ),
        (
            "reg = <0 0x54000000 0 0xe00123>",
            "reg = <0>",
            "module /chosen/module@0x54000000 has no usable reg",
        ),
        (
            "0x54000000 0 0xe00123",
            "0xbf800000 0 0xe00123",
            "ramdisk module /chosen/module@0x54000000 at 0xbf800000-0xc0600123 is not in RAM",
        ),
        (
            "0x54000000 0 0xe00123",
            "0x50100000 0 0xe00123",
            "/chosen/module@0x54000000 at 0x50100000-0x50f00123 overlaps /chosen/module@0x50000000 at 0x50000000-0x505a7000",
        ),
        (
            "0x54000000 0 0xe00123",
            "0x14000000 0 0xe00123",
            "is not in RAM",
        ),
    ];
    for (from, to, expected) in cases {
        match changed(VIRT, &[(from, to)]) {
            Err(error) => {
                let line = error.to_string();
                assert!(line.contains(expected) && !line.contains('\n'), "{line}");
            }
            Ok(_) => assert_eq!(*expected, "", "{from} -> {to}"),
        }
    }
}

#[test]
fn modules_may_not_lie_over_the_tree_or_the_image() {
    let mut host = parse(VIRT);
    let tree = range(0x4800_0000, 0x10_0000);
    let image = range(0x4001_0000, 0x8_0000);
    let over_kernel = range(0x5000_0000, 0x1000);
    let line = host
        .clone()
        .claim(tree, over_kernel)
        .unwrap_err()
        .to_string();
    assert!(
        line.contains("overlaps the hypervisor at 0x50000000"),
        "{line}"
    );
    assert!(host.clone().claim(over_kernel, image).is_err());
    assert!(host.clone().claim(image, image).is_err());
    host.claim(tree, image).unwrap();
    assert!(host.reserved.contains(&tree) && host.reserved.contains(&image));
    let modules = [range(0x5000_0000, 0x5a_7000), range(0x5400_0000, 0xe0_1000)];
    assert_eq!(host.module_pages(), modules);
    let free = host.free_ram();
    assert_eq!(free[0], range(0x4000_0000, 0x1_0000));
    assert!(
        host.reserved
            .iter()
            .all(|r| !free.iter().any(|f| f.overlaps(r)))
    );
}

#[test]
fn the_command_lines_follow_the_table_of_xen() {
    let chosen = "bootargs = \"console=dtuart dom0_mem=512M\";";
    let module = "bootargs = \"console=hvc0\";";
    let lines = |chosen_to: &str, module_to: &str| {
        let lines = changed(VIRT, &[(chosen, chosen_to), (module, module_to)]);
        let lines = lines.unwrap().command_lines;
        (lines.hypervisor, lines.dom0)
    };
    let both = |a: &str, b: &str| (a.to_string(), b.to_string());
    let own = "xen,xen-bootargs = \"x\"; bootargs = \"b\";";
    let all = "xen,xen-bootargs = \"x\"; xen,dom0-bootargs = \"d\"; bootargs = \"b\";";
    let dom0 = "xen,dom0-bootargs = \"d\"; bootargs = \"b\";";
    assert_eq!(lines(own, ""), both("x", "b"));
    assert_eq!(lines(all, ""), both("x", "d"));
    assert_eq!(lines(all, "bootargs = \"m\";"), both("x", "m"));
    assert_eq!(lines(dom0, ""), both("b", "d"));
    assert_eq!(
        lines("bootargs = \"b\";", "bootargs = \"m\";"),
        both("b", "m")
    );
    assert_eq!(lines("bootargs = \"b\";", ""), both("", "b"));
    assert_eq!(lines("", ""), both("", ""));
    assert_eq!(
        lines("bootargs = \"b\";", "bootargs = \"\";"),
        both("", "b")
    );
    assert_eq!(lines(dom0, "bootargs = \"\";"), both("b", "d"));
    assert_eq!(lines(all, "bootargs = \"\";"), both("x", "d"));
}

#[test]
fn a_command_line_longer_than_anybody_reads_is_cut() {
    let long = alloc::format!("bootargs = \"x{}\";", "é".repeat(4096));
    let host = changed(VIRT, &[("bootargs = \"console=hvc0\";", &long)]).unwrap();
    assert_eq!(host.command_lines.dom0.len(), 4095);
    assert_eq!(
        host.notes,
        ["BOOT: bootargs of /chosen/module@0x50000000 has 8193 bytes, 4096 are used"]
    );
}

#[test]
fn modules_of_unknown_kind_are_taken_by_order() {
    let changes = [("multiboot,kernel", "a,b"), ("multiboot,ramdisk", "c,d")];
    let host = changed(VIRT, &changes).unwrap();
    assert_eq!(host.modules[0].kind, ModuleKind::Kernel);
    assert_eq!(host.modules[1].kind, ModuleKind::Ramdisk);
}

#[test]
fn a_policy_among_modules_of_unknown_kind_is_told_by_its_beginning() {
    let changes = [
        ("multiboot,kernel", "a,b"),
        ("multiboot,ramdisk", "c,d"),
        (
            "module@0x54000000 {",
            "module@52000000 { compatible = \"multiboot,module\"; reg = <0 0x52000000 0 0x1000>; };
             module@0x54000000 {",
        ),
    ];
    let bytes = compile_with(VIRT, &changes);
    let kinds = |host: HostInfo| host.modules.iter().map(|m| m.kind).collect::<Vec<_>>();
    let policy = |at: PhysAddr| (at.raw() == 0x5200_0000).then_some(0xf97c_ff8c);
    let told = [
        ModuleKind::Kernel,
        ModuleKind::XsmPolicy,
        ModuleKind::Ramdisk,
    ];
    assert_eq!(kinds(HostInfo::of(tree(&bytes), &policy).unwrap()), told);
    let untold = [ModuleKind::Kernel, ModuleKind::Ramdisk, ModuleKind::Other];
    assert_eq!(
        kinds(HostInfo::of(tree(&bytes), &|_| Some(0)).unwrap()),
        untold
    );
    assert_eq!(kinds(HostInfo::parse(&bytes).unwrap()), untold);
    // A module that declares its type, or is not in RAM, is not read.
    let never = |_: PhysAddr| -> Option<u32> { unreachable!() };
    assert!(HostInfo::of(tree(&compile(VIRT)), &never).is_ok());
    let outside = compile_with(
        VIRT,
        &[
            changes[0],
            changes[1],
            ("0x54000000 0 0xe00123", "0x14000000 0 0xe00123"),
        ],
    );
    assert!(HostInfo::of(tree(&outside), &never).is_err());
}

#[test]
fn an_empty_ramdisk_is_none() {
    let host = changed(VIRT, &[("0x54000000 0 0xe00123", "0x54000000 0 0")]).unwrap();
    assert_eq!(host.module(ModuleKind::Ramdisk), None);
    assert_eq!(
        host.notes,
        ["BOOT: ramdisk module /chosen/module@0x54000000 is empty, ignored"]
    );
}

#[test]
fn a_second_kernel_or_ramdisk_is_named() {
    let second = |kind: &str| {
        let module = alloc::format!(
            "module@52000000 {{ compatible = \"multiboot,{kind}\", \"multiboot,module\"; reg = <0 0x52000000 0 0x1000>; }};
             module@0x54000000 {{"
        );
        changed(VIRT, &[("module@0x54000000 {", &module)]).unwrap()
    };
    let host = second("kernel");
    assert_eq!(
        host.notes,
        ["BOOT: kernel module /chosen/module@52000000 is not used, /chosen/module@0x50000000 is"]
    );
    assert_eq!(host.kernel().unwrap().range.base(), 0x5000_0000);
    let host = second("ramdisk");
    assert_eq!(
        host.notes,
        ["BOOT: ramdisk module /chosen/module@0x54000000 is not used, /chosen/module@52000000 is"]
    );
    assert_eq!(
        host.module(ModuleKind::Ramdisk).unwrap().range.base(),
        0x5200_0000
    );
}

#[test]
fn the_processor_s_timer_interrupts_serve_where_the_tree_omits_them() {
    for (change, note) in [
        (
            (", <1 10 0x304>", ""),
            "TIMER: /timer has no interrupt of the hypervisor timer, taken to be 26",
        ),
        (
            ("arm,armv7-timer", "other,timer"),
            "TIMER: no node of a generic timer; its interrupts are taken to be the processor's",
        ),
    ] {
        let host = changed(VIRT, &[change]).unwrap();
        let timer = &host.timer;
        let lines = [
            timer.secure_physical,
            timer.physical,
            timer.virtual_timer,
            timer.hypervisor,
        ];
        assert_eq!(lines, [29, 30, 27, 26]);
        assert!(
            host.notes.iter().any(|said| said == note),
            "{:?}",
            host.notes
        );
    }
}

#[test]
fn a_module_may_end_where_ram_does() {
    let host = changed(VIRT, &[("0x54000000 0 0xe00123", "0xbfe00000 0 0x200000")]).unwrap();
    assert_eq!(
        host.module(ModuleKind::Ramdisk).unwrap().range.end(),
        0xc000_0000
    );
    assert_eq!(host.free_ram().last().unwrap().end(), 0xbfe0_0000);
}

/// Returns the blob with a NOP token before every other one, and the sizes in the header to match.
fn with_nops(blob: &[u8]) -> Vec<u8> {
    let word = |at: usize| u32::from_be_bytes(blob[at..at + 4].try_into().unwrap()) as usize;
    let (start, size) = (word(8), word(36));
    let mut out = blob[..start].to_vec();
    let mut at = start;
    while at < start + size {
        let len = match word(at) {
            1 => 4 + (blob[at + 4..].iter().position(|b| *b == 0).unwrap() + 4) / 4 * 4,
            3 => 12 + word(at + 4).div_ceil(4) * 4,
            _ => 4,
        };
        out.extend(4u32.to_be_bytes());
        out.extend(&blob[at..at + len]);
        at += len;
    }
    let strings = (out.len() as u32, &blob[word(12)..word(12) + word(32)]);
    out.extend(strings.1);
    let total = out.len() as u32;
    out[4..8].copy_from_slice(&total.to_be_bytes());
    out[12..16].copy_from_slice(&strings.0.to_be_bytes());
    out[36..40].copy_from_slice(&(strings.0 - start as u32).to_be_bytes());
    out
}

#[test]
fn nodes_that_a_loader_has_nopped_away_hide_nothing_else() {
    for source in [VIRT, VEXPRESS, ARNDALE] {
        let blob = compile(source);
        let nopped = HostInfo::parse(&with_nops(&blob)).unwrap();
        assert_eq!(HostInfo::parse(&blob).unwrap(), nopped);
    }
}

#[test]
fn another_reader_finds_the_same_nodes_and_properties() {
    for source in [VIRT, VEXPRESS, ARNDALE] {
        let bytes = compile(source);
        let other = fdt::Fdt::new(&bytes).unwrap();
        let tree = tree(&bytes);
        assert_eq!(tree.all().count(), other.all_nodes().count());
        for (node, other) in tree.all().zip(other.all_nodes()).skip(1) {
            assert_eq!(node.name(), other.name);
            let theirs: Vec<_> = other.properties().map(|p| (p.name, p.value)).collect();
            assert_eq!(
                node.properties().collect::<Vec<_>>(),
                theirs,
                "{}",
                node.path()
            );
            for (name, value) in theirs {
                assert_eq!(
                    node.property(name),
                    Some(value),
                    "{name} of {}",
                    node.path()
                );
                assert_eq!(node.property(&name[1..]), None, "the end of {name}");
            }
        }
    }
}

#[test]
fn damaged_headers_are_named() {
    let blob = compile(VIRT);
    let with = |at: usize, value: u32| {
        let mut blob = blob.clone();
        blob[at..at + 4].copy_from_slice(&value.to_be_bytes());
        HostInfo::parse(&blob).unwrap_err().to_string()
    };
    assert_eq!(with(0, 0x1234), "BOOT: no device tree (magic 0x00001234)");
    assert!(with(4, 0x7fff_ffff).contains("totalsize 0x7fffffff"));
    assert!(with(4, 8).contains("totalsize"));
    assert!(with(8, 0xffff_fff0).contains("off_dt_struct"));
    assert!(with(8, 57).contains("off_dt_struct"));
    assert!(with(12, 0xffff_fff0).contains("off_dt_strings"));
    assert!(with(16, 0xffff_fff0).contains("off_mem_rsvmap"));
    assert_eq!(with(20, 16), "BOOT: device tree version 16 is not 17");
    assert!(with(36, 8).contains("structure block"));
    assert!(HostInfo::parse(&[]).is_err());
    assert!(HostInfo::parse(&blob[..blob.len() - 1]).is_err());
}

#[test]
fn a_tree_that_is_deeper_or_longer_than_any_board_is_refused_quickly() {
    let deep = "a { ".repeat(40) + &"}; ".repeat(40);
    assert!(error(VIRT, &[("pmu {", &(deep + "pmu {"))]).contains("too deep"));
    let many: String = (0..17000).map(|n| alloc::format!("n{n} {{ }}; ")).collect();
    assert!(error(VIRT, &[("pmu {", &(many + "pmu {"))]).contains("too many"));
}

/// Steps that reading a tree takes, and what comes of it.
fn steps_of(bytes: &[u8]) -> (u32, Result<HostInfo, BootError>) {
    let tree = tree(bytes);
    let host = HostInfo::read(tree, &|_| None);
    let refused = check_budget(tree);
    (tree.spent(), refused.and(host))
}

#[test]
fn a_tree_made_to_search_forever_is_refused_by_the_node_that_takes_the_time() {
    // For each node the cell count of addresses is searched among very many properties of the root.
    let properties: String = (0..20_000).map(|n| alloc::format!("p{n}; ")).collect();
    let nodes: String = (0..2000)
        .map(|n| alloc::format!("n{n} {{ reg = <0 1 0 1>; interrupts = <0 5 4>; }};"))
        .collect();
    let model = "model = \"linux,dummy-virt\";";
    let changes = [
        (model, alloc::format!("{properties} {model}")),
        ("pmu {", alloc::format!("{nodes} pmu {{")),
    ];
    let changes = changes.each_ref().map(|(from, to)| (*from, to.as_str()));
    let line = error(VIRT, &changes);
    assert!(line.ends_with("steps, the last at /"), "{line}");
}

#[test]
fn all_readings_of_a_boot_share_one_budget() {
    let tree = tree(&compile(VIRT));
    HostInfo::read_command_lines(tree).unwrap();
    let lines = tree.spent();
    console::find(tree, None).unwrap();
    let console = tree.spent();
    HostInfo::of(tree, &|_| None).unwrap();
    assert!(0 < lines && lines < console && console < tree.spent());
    // Leaves fewer steps than one more reading takes.
    tree.root().spend((BUDGET - tree.spent() - 1) as usize);
    assert_eq!(check_budget(tree), Ok(()));
    let line = HostInfo::of(tree, &|_| None).unwrap_err().to_string();
    assert!(line.contains("steps, the last at /"), "{line}");
}

#[test]
fn as_many_nodes_as_are_promised_are_read_within_a_quarter_of_the_budget() {
    let count = 16_384 - 40;
    let node = |n| {
        alloc::format!(
            "n{n} {{ compatible = \"a,b\", \"c,d\"; reg = <0 {n} 0 4>; interrupts = <0 5 4>; status = \"okay\"; }};"
        )
    };
    let nodes: String = (0..count).map(node).collect();
    let bytes = compile_with(VIRT, &[("pmu {", &(nodes + "pmu {"))]);
    let (steps, host) = steps_of(&bytes);
    host.unwrap();
    assert!(steps < BUDGET / 4, "{steps}");
}

proptest! {
    #[test]
    fn a_mutated_tree_is_read_or_refused_but_never_panics(
        sample in 0usize..3,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..24),
        cut in any::<prop::sample::Index>(),
        truncate in any::<bool>(),
    ) {
        let mut blob = compile([VIRT, VEXPRESS, ARNDALE][sample]);
        for (at, value) in changes {
            let at = at.index(blob.len());
            blob[at] = value;
        }
        if truncate {
            blob.truncate(cut.index(blob.len()));
        }
        if let Err(error) = HostInfo::parse(&blob) {
            prop_assert!(!error.to_string().contains('\n'));
        }
        if Blob::check(&blob).is_ok() {
            // Trees of this size take some thousand steps, whatever their bytes are.
            prop_assert!(steps_of(&blob).0 < BUDGET / 10);
        }
    }

    #[test]
    fn a_tree_with_mutated_tokens_and_cells_never_panics(
        sample in 0usize..3,
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0u32..12), 1..8),
    ) {
        let mut blob = compile([VIRT, VEXPRESS, ARNDALE][sample]);
        for (at, value) in changes {
            let at = at.index(blob.len() / 4 - 10) * 4 + 40;
            blob[at..at + 4].copy_from_slice(&value.to_be_bytes());
        }
        let _ = HostInfo::parse(&blob);
    }
}
