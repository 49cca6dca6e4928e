//! Reads the Arndale board's real tree, from the package with dom0's kernel that `make setup` has unpacked.
//!
//! It is other people's and not kept here; without it the tests say so and show nothing.

use std::path::PathBuf;

use dt::Tree;
use krypton::dom0::device_tree::{self, Config};
use krypton::dom0::devices;
use krypton::dom0::selection::{HostView, Selection};
use krypton::platform::board::{Action, Step};
use krypton::platform::host_dt::{EnableMethod, HostInfo};
use krypton::platform::ranges::PhysRange;
use krypton::platform::tree;
use krypton::platform::uart::Model;

/// `GICD_TYPER` of the Exynos 5250: 160 interrupt ids.
const GIC_LINES: u32 = 160;

fn cache() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    variable("KRYPTON_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|folder| folder.join("krypton")))
        .or_else(|| variable("HOME").map(|folder| folder.join(".cache/krypton")))
}

fn tree() -> Option<Vec<u8>> {
    let folders = std::fs::read_dir(cache()?.join("debian/root/usr/lib")).ok();
    let mut found = folders
        .into_iter()
        .flatten()
        .flatten()
        .map(|folder| folder.path().join("exynos5250-arndale.dtb"));
    let bytes = found.find_map(|path| std::fs::read(path).ok());
    if bytes.is_none() {
        println!("SKIPPED: no exynos5250-arndale.dtb in the cache; `make setup` fetches it");
    }
    bytes
}

fn range(base: u64, size: u64) -> PhysRange {
    PhysRange::new(base, size).unwrap()
}

#[test]
fn the_real_tree_of_an_arndale_is_read_in_full() {
    let Some(bytes) = tree() else { return };
    let host = HostInfo::parse(&bytes).unwrap();
    assert_eq!(host.notes, [] as [&str; 0]);
    assert_eq!(host.ram, [range(0x4000_0000, 0x8000_0000)]);
    assert_eq!(host.gic.distributor, range(0x1048_1000, 0x1000));
    assert_eq!(host.gic.cpu, range(0x1048_2000, 0x2000));
    assert_eq!(host.gic.hypervisor, range(0x1048_4000, 0x2000));
    assert_eq!(host.gic.virtual_cpu, range(0x1048_6000, 0x2000));
    assert_eq!(host.gic.maintenance, 25);
    assert_eq!((host.timer.virtual_timer, host.timer.hypervisor), (27, 26));
    assert_eq!(host.timer.frequency, Some(24_000_000));
    let console = host.console.as_ref().unwrap();
    assert_eq!(console.model, Model::Exynos4210);
    assert_eq!(console.reg.base(), 0x12C2_0000);
    assert_eq!(console.interrupt.unwrap().intid, 85);
    let cpus: Vec<_> = host.cpus.iter().map(|cpu| cpu.mpidr).collect();
    assert_eq!(cpus, [0, 1]);
    assert_eq!(host.cpus[1].enable_method, EnableMethod::Unsaid);
    assert_eq!(host.psci, None);
    let step = |at, action| vec![Step { at, action }];
    assert_eq!(host.board.prepare, step(0x101C_0240, Action::Set(1 << 8)));
    assert_eq!(host.board.reset, step(0x1004_0400, Action::Write(1)));
    assert_eq!(host.board.off, step(0x1004_330C, Action::Write(0x5200)));
    let power = step(0x1004_2080, Action::Set(3));
    let pen = step(0x0202_0000, Action::WriteEntry);
    assert_eq!(host.board.start(1), Some([power, pen].concat().as_slice()));
}

#[test]
fn dom0_gets_an_arndale_without_what_the_hypervisor_keeps() {
    let Some(bytes) = tree() else { return };
    tree::with(&bytes, |tree| {
        dom0_gets(tree);
        Ok(())
    })
    .unwrap();
}

fn dom0_gets(tree: &Tree<'_>) {
    let host = HostInfo::of(tree, &|_| None).unwrap();
    let machine = HostView {
        tree,
        host: &host,
        console: host.console.as_ref().ok(),
        gic_lines: GIC_LINES,
    };
    let selection = Selection::of(&machine);
    let plan = devices::plan(&machine, &selection);
    let maps = |at| {
        plan.mmio
            .iter()
            .any(|region| region.overlaps(&range(at, 4)))
    };
    // Combiner, SD card, USB 3, chip id, PWM.
    for at in [
        0x1044_0000,
        0x1220_0000,
        0x1200_0000,
        0x1000_0000,
        0x12DD_0000,
    ] {
        assert!(maps(at), "{at:#x}");
    }
    // GIC, console, RAM, multi-core timer.
    for at in [
        0x1048_1000,
        0x1048_6000,
        0x12C2_0000,
        0x4000_0000,
        0x101C_0000,
    ] {
        assert!(!maps(at), "{at:#x}");
    }
    let has = |intid| plan.interrupts.iter().any(|line| line.intid == intid);
    // UART 0 and the combiner's first are dom0's; the console's UART and the multi-core timer's are not.
    assert!(has(32 + 51) && has(32) && !has(85));
    assert!(!has(32 + 120) && !has(32 + 121));

    let config = Config {
        bootargs: "console=hvc0",
        ramdisk: None,
        memory: &[range(0x6000_0000, 0x2000_0000)],
        vcpus: 2,
        grant: range(0xB000_0000, 0x4_0000),
        extended: &[],
        event_interrupt: host.event_interrupt().unwrap(),
    };
    let built = device_tree::build(&machine, &selection, &config).unwrap();
    tree::with(&built, |tree| {
        dom0_keeps(tree);
        Ok(())
    })
    .unwrap();
}

fn dom0_keeps(tree: &Tree<'_>) {
    let gone = [
        "arm,cortex-a15-pmu",
        "samsung,exynos4210-mct",
        "syscon-poweroff",
        "syscon-reboot",
    ];
    assert!(!tree.all().any(|node| node.is_compatible(&gone)));
    let kept = ["samsung,exynos4210-combiner", "samsung,exynos5250-pmu"];
    for compatible in kept {
        assert!(
            tree.compatible(&[compatible]).next().is_some(),
            "{compatible}"
        );
    }
    let timer = tree.compatible(&["arm,armv7-timer"]).next().unwrap();
    assert_eq!(timer.u32("clock-frequency"), Some(24_000_000));
    assert_eq!(tree.compatible(&["samsung,exynos4210-uart"]).count(), 3);
}
