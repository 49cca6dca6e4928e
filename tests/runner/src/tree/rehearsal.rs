//! A boot up to where it would touch the machine, by the hypervisor's own code, in the order of `src/boot`.

use dt::Tree;
use krypton::cmdline::{DEFAULT_DOM0_MEM, Options};
use krypton::dom0::plan::{self, Plan, Wish};
use krypton::dom0::selection::HostView;
use krypton::loader::kernel::KernelImage;
use krypton::mem::frame_table::FrameTable;
use krypton::platform::BootError;
use krypton::platform::console;
use krypton::platform::host_dt::{Conduit, CpuInfo, EnableMethod, HostInfo, UartInfo};
use krypton::platform::ranges::PhysRange;
use krypton::platform::tree;

use super::loader::Loaded;

/// Interrupt ids of the GIC, which only the hardware knows: the most that there can be.
const GIC_LINES: u32 = 1020;
/// Blocks that the hypervisor maps RAM by.
const BLOCK: u64 = 2 << 20;
/// Least heap of the hypervisor.
const HEAP: u64 = 2 << 20;
/// A kernel that runs anywhere, of the size of Debian's.
const KERNEL: KernelImage = KernelImage {
    offset: 0,
    size: 0x55_0000,
    load: None,
    entry_offset: 0,
};

/// How a CPU comes.
pub enum Arrival {
    Boots,
    Psci,
    Registers,
    OtherKind,
    Never(String),
}

/// The outcome of a boot with a device tree.
pub struct Rehearsal {
    pub host: HostInfo,
    pub console: Result<UartInfo, BootError>,
    pub cpus: Vec<(CpuInfo, Arrival)>,
    /// dom0, or why there is none.
    pub dom0: Result<Plan, BootError>,
}

impl Rehearsal {
    /// Does what a boot does with what a boot loader has loaded.
    pub fn of(loaded: &Loaded) -> Result<Self, BootError> {
        tree::with(&loaded.bytes, |tree| Self::of_tree(tree, loaded))
    }

    fn of_tree(tree: &Tree<'_>, loaded: &Loaded) -> Result<Self, BootError> {
        let mut host = HostInfo::of(tree, &|_| None)?;
        let (options, _) = Options::parse(&host.command_lines.hypervisor);
        let console = console::find(tree, options.dtuart.as_deref());
        let console = console.map(|found| found.uart);
        let memory = options.dom0_mem.unwrap_or(DEFAULT_DOM0_MEM);
        let cpus = arrivals(&host, options.hmp_unsafe);
        let running = cpus
            .iter()
            .filter(|(_, arrival)| {
                matches!(arrival, Arrival::Boots | Arrival::Psci | Arrival::Registers)
            })
            .count() as u32;
        let dom0 = take_memory(&mut host, loaded).and_then(|()| {
            host.kernel()?;
            plan::plan(&Wish {
                machine: HostView {
                    tree,
                    host: &host,
                    console: console.as_ref().ok(),
                    gic_lines: GIC_LINES,
                },
                free: &host.free_ram(),
                grant: grant(&loaded.image)?,
                kernel: &KERNEL,
                memory,
                vcpus: options.dom0_vcpus(running),
                ext_regions: options.ext_regions,
            })
        });
        Ok(Self {
            host,
            console,
            cpus,
            dom0,
        })
    }
}

/// Reserves what the hypervisor takes for itself.
fn take_memory(host: &mut HostInfo, loaded: &Loaded) -> Result<(), BootError> {
    host.claim(loaded.tree, loaded.image)?;
    host.reserve(loaded.image);
    let span = match (host.ram.first(), host.ram.last()) {
        (Some(first), Some(last)) => last.end() - first.base(),
        _ => 0,
    };
    let size = FrameTable::bytes_for((span >> 12) as u32) as u64 + HEAP;
    let size = size.next_multiple_of(BLOCK);
    let place = host
        .private_place(size, BLOCK)
        .ok_or(BootError::TooLittleRam {
            found: host.ram.iter().map(PhysRange::size).sum::<u64>() >> 20,
            need: size >> 20,
        })?;
    host.reserve(place);
    Ok(())
}

/// Returns the image's pages show dom0 its grants.
fn grant(image: &PhysRange) -> Result<PhysRange, BootError> {
    PhysRange::new(image.base(), 0x4_0000)
        .ok_or_else(|| BootError::Dom0("no place for grants".into()))
}

/// Returns how each CPU comes, taking the first for the one that boots.
fn arrivals(host: &HostInfo, all_kinds: bool) -> Vec<(CpuInfo, Arrival)> {
    let kind = host.cpus.first().map(|cpu| cpu.compatible.clone());
    let arrival = |(number, cpu): (usize, &CpuInfo)| match &cpu.enable_method {
        _ if number == 0 => Arrival::Boots,
        _ if !all_kinds && kind.as_ref() != Some(&cpu.compatible) => Arrival::OtherKind,
        _ if host.psci.is_some_and(|psci| psci.conduit == Conduit::Smc) => Arrival::Psci,
        EnableMethod::Unsaid | EnableMethod::Other(_) if host.board.start(cpu.mpidr).is_some() => {
            Arrival::Registers
        }
        EnableMethod::Other(method) => Arrival::Never(method.clone()),
        EnableMethod::Psci => Arrival::Never("PSCI without a node that says how".into()),
        EnableMethod::Unsaid => Arrival::Never("the tree says no enable-method".into()),
    };
    let cpus = host.cpus.iter().enumerate();
    cpus.map(|cpu| (cpu.1.clone(), arrival(cpu))).collect()
}
