//! Inputs of the boot loader.

use dt::Tree;
use krypton::cmdline::{DEFAULT_DOM0_MEM, Options};
use krypton::dom0::plan::{self, Wish};
use krypton::dom0::selection::HostView;
use krypton::loader::kernel::KernelImage;
use krypton::mem::frame_table::FrameTable;
use krypton::platform::console;
use krypton::platform::host_dt::HostInfo;
use krypton::platform::ranges::PhysRange;
use krypton::platform::tree;
use krypton_efi::config::Config;

/// A device tree, as far as dom0's and its layout.
pub fn tree(data: &[u8]) {
    leads_to_dom0(data);
}

/// Does what a boot does with a device tree, and returns whether that came to a plan for dom0.
pub fn leads_to_dom0(data: &[u8]) -> bool {
    tree::with(data, |tree| Ok(plan_of(tree, data.len() as u64).is_some())).unwrap_or(false)
}

fn plan_of(tree: &Tree<'_>, size: u64) -> Option<()> {
    const IMAGE: u64 = 8 << 20;
    const KERNEL: KernelImage = KernelImage { offset: 0, size: 0x55_0000, load: None, entry_offset: 0 };
    let mut host = HostInfo::of(tree, &|_| None).ok()?;
    let (options, _) = Options::parse(&host.command_lines.hypervisor);
    let console = console::find(tree, options.dtuart.as_deref()).ok();
    let first = host.ram.first()?.base();
    let blob = PhysRange::new(first.checked_add(0x100_0000)?, size)?;
    let image = PhysRange::new(first.checked_add(0x20_0000)?, IMAGE)?;
    host.claim(blob, image).ok()?;
    host.reserve(image);
    let span = host.ram.last()?.end() - first;
    let tables = FrameTable::bytes_for((span >> 12) as u32) as u64;
    let place = host.private_place(tables.checked_add(2 << 20)?.next_multiple_of(2 << 20), 2 << 20)?;
    host.reserve(place);
    let free = host.free_ram();
    // Free pieces are RAM, and no address is in two of them.
    for (n, range) in free.iter().enumerate() {
        assert!(host.ram.iter().any(|bank| bank.base() <= range.base() && range.end() <= bank.end()));
        assert!(free[n + 1..].iter().all(|other| other.base() >= range.end() || other.end() <= range.base()));
    }
    let wish = Wish {
        machine: HostView { tree, host: &host, console: console.as_ref().map(|found| &found.uart), gic_lines: 1020 },
        free: &free,
        grant: PhysRange::new(image.base(), 0x4_0000)?,
        kernel: &KERNEL,
        memory: options.dom0_mem.unwrap_or(DEFAULT_DOM0_MEM),
        vcpus: options.dom0_vcpus(host.cpus.len() as u32),
        ext_regions: options.ext_regions,
    };
    // dom0's tree is part of the plan.
    plan::plan(&wish).ok().map(|_| ())
}

/// The command line.
pub fn command_line(data: &[u8]) {
    let (options, _) = Options::parse(&String::from_utf8_lossy(data));
    for cpus in [1, 2, 8, u32::MAX] {
        let vcpus = options.dom0_vcpus(cpus);
        assert!(vcpus >= 1);
    }
}

/// A kernel: its first bytes, and how long the module says that it is.
pub fn kernel(data: &[u8]) {
    for size in [data.len() as u64, 0, 64, 0x55_0000, u64::from(u32::MAX), u64::MAX] {
        if let Ok(kernel) = KernelImage::parse(data, size) {
            assert!(kernel.offset.checked_add(kernel.size).is_some_and(|end| end <= size));
        }
    }
}

/// The file beside the UEFI application.
pub fn config(data: &[u8]) {
    let _ = Config::parse(data);
}
