//! Reads from the device tree which machine the hypervisor shows.

use core::cell::UnsafeCell;

use fdt::Fdt;
use fdt::node::FdtNode;

pub struct Platform {
    bootargs: &'static str,
    pub ram_base: u32,
    pub ram_size: u32,
    pub distributor: u32,
    pub cpu_interface: u32,
    /// INTID of the event-channel upcall, a PPI; 0 without a hypervisor.
    pub event_interrupt: u32,
    /// Registers of a PL011, for output where there is no hypervisor; 0 if there is none.
    pub uart: u32,
    /// Registers of the emulated SBSA UART that a domain of the hypervisor's own making has; 0 if there is none.
    pub sbsa_uart: u32,
    pub cpus: u32,
}

/// Written once on the boot CPU before anything reads it.
struct Once(UnsafeCell<Option<Platform>>);

// SAFETY: `discover` runs before secondaries start and before `get`; after it nobody writes.
unsafe impl Sync for Once {}

static PLATFORM: Once = Once(UnsafeCell::new(None));

/// The machine, or none before `discover`.
pub fn known() -> Option<&'static Platform> {
    // SAFETY: see `Once`.
    unsafe { (*PLATFORM.0.get()).as_ref() }
}

/// The machine; panics before `discover`.
pub fn get() -> &'static Platform {
    known().expect("the device tree is read at boot")
}

impl Platform {
    /// Returns whether there is a hypervisor below.
    pub fn is_guest(&self) -> bool {
        self.event_interrupt != 0
    }

    /// The values of all `name=value` in the boot arguments.
    pub fn arguments(&self, name: &str) -> impl Iterator<Item = &'static str> {
        self.bootargs.split_ascii_whitespace().filter_map(move |word| word.strip_prefix(name)?.strip_prefix('='))
    }
}

pub(crate) fn discover(address: u32) {
    // SAFETY: the boot protocol passes a device tree's address in r2, and boot.S maps RAM identically. A wrong one is
    // refused by its magic.
    let tree = unsafe { Fdt::from_ptr(address as *const u8) }.expect("r2 must point to a device tree");
    let platform = read(&tree);
    // SAFETY: see `Once`.
    unsafe { *PLATFORM.0.get() = Some(platform) };
}

fn read(tree: &Fdt<'static>) -> Platform {
    let memory = tree.all_nodes().find(|node| string(node, "device_type") == Some("memory")).expect("a memory node");
    let gic = tree.all_nodes().find(|node| node.property("interrupt-controller").is_some()).expect("a GIC node");
    let hypervisor = named(tree, "hypervisor");
    let first_region = |kind| tree.find_compatible(&[kind]).and_then(|node| node.raw_reg()?.next());
    let (uart, sbsa_uart) = (first_region("arm,pl011"), first_region("arm,sbsa-uart"));
    let cpus = named(tree, "cpus").expect("a cpus node");
    let mut memory_regions = memory.raw_reg().expect("memory's reg");
    let mut gic_regions = gic.raw_reg().expect("the GIC's reg");
    let ram = memory_regions.next().expect("a memory bank");

    Platform {
        bootargs: named(tree, "chosen").and_then(|chosen| string(&chosen, "bootargs")).unwrap_or(""),
        ram_base: number(ram.address),
        ram_size: number(ram.size),
        distributor: number(gic_regions.next().expect("a distributor").address),
        cpu_interface: number(gic_regions.next().expect("a CPU interface").address),
        // GIC binding: the second cell counts PPIs from INTID 16.
        event_interrupt: hypervisor.map_or(0, |node| cells(&node, "interrupts").get(1) + 16),
        uart: uart.map_or(0, |registers| number(registers.address)),
        sbsa_uart: sbsa_uart.map_or(0, |registers| number(registers.address)),
        cpus: cpus.children().filter(|node| string(node, "device_type") == Some("cpu")).count() as u32,
    }
}

/// A node by its name. Not by path: libxl leaves holes (FDT_NOP) where it took nodes out, past which no path leads here.
fn named<'a>(tree: &'a Fdt<'static>, name: &str) -> Option<FdtNode<'a, 'static>> {
    tree.all_nodes().find(|node| node.name == name)
}

fn string(node: &FdtNode<'_, 'static>, name: &str) -> Option<&'static str> {
    node.property(name)?.as_str()
}

/// A property of big-endian cells.
struct Cells(&'static [u8]);

impl Cells {
    fn get(&self, index: usize) -> u32 {
        number(&self.0[index * 4..][..4])
    }
}

fn cells(node: &FdtNode<'_, 'static>, name: &str) -> Cells {
    Cells(node.property(name).expect("a cells property").value)
}

/// A big-endian number of one or two cells; guests live below 4 GiB.
fn number(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |value, &byte| value << 8 | u32::from(byte))
}
