//! The domains that a boot starts beside dom0, or without one: the children of `/chosen` that are compatible with
//! `xen,domain` (xen docs/misc/arm/device-tree/booting.txt).
//!
//! A domain that cannot be made as it is described has in the place of its description the property or node at fault; the
//! others are not touched by that.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use armv7::gic::{MAX_CPU_INTERFACES, MAX_SPIS};
use dt::{Node, Tree};

use super::modules::{self, DOMAIN, MODULE, Module, ModuleKind};
use super::ranges::PhysRange;

/// Marks a node of the machine's tree whose device is for another domain than dom0.
pub const MARK: &str = "xen,passthrough";
/// Says of a device that may do DMA that it is passed all the same.
pub const WORD: &str = "xen,force-assign-without-iommu";
/// Bytes of a page.
const PAGE: u64 = 4096;
/// Properties that say how a domain is to be made, and that are not carried out.
const NOT_DONE: &[(&str, &str)] = &[
    ("xen,static-mem", "memory is not given by address"),
    ("direct-map", "no domain but dom0 is mapped 1:1"),
    (
        "domain-cpupool",
        "there are no pools before dom0 makes them",
    ),
];
/// Nodes below a domain that say how it is to be made, and that are not carried out.
const NODES_NOT_DONE: &[(&str, &str)] = &[
    ("xen,evtchn-v1", "no event channel is connected at boot"),
    ("xen,domain-shared-memory-v1", "no memory is shared at boot"),
    ("xen,vcpu", "no affinity is set at boot"),
];
/// Nodes of `/chosen` that say what is to be made beside domains, and that are not carried out.
const OF_CHOSEN_NOT_DONE: &[&str] = &[
    "xen,cpupool",
    "xen,evtchn-v1",
    "xen,domain-shared-memory-v1",
];

/// A domain that the tree names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Partition {
    /// The node that it comes from.
    pub path: String,
    /// Its configuration, or the property or node at fault.
    pub config: Result<Config, String>,
}

/// Which of Xen's interfaces a domain is told of (`xen,enhanced`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Enhanced {
    /// None: its tree has no hypervisor node.
    No,
    /// All but xenstore.
    WithoutXenstore,
    /// All, with xenstore once dom0's `init-dom0less` has seen to it.
    Full,
}

/// A domain's configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Bytes of RAM, whole pages.
    pub memory: u64,
    /// vCPUs, 1 to 8.
    pub vcpus: u8,
    /// It has an emulated UART.
    pub uart: bool,
    /// Shared interrupts of its controller; as many as the machine's without a number.
    pub spis: Option<u32>,
    /// MiB for the tables of its memory map; as many as its size asks for without a number.
    pub table_mib: Option<u32>,
    /// The part of the hypervisor's interface that it is told of.
    pub enhanced: Enhanced,
    /// Its kernel, with its command line.
    pub kernel: Module,
    /// Its initial RAM disk.
    pub ramdisk: Option<Module>,
    /// The part of its device tree that has devices of the machine.
    pub devices: Option<Module>,
}

impl Config {
    /// Returns its modules.
    pub fn modules(&self) -> impl Iterator<Item = &Module> {
        let more = [&self.ramdisk, &self.devices];
        [&self.kernel].into_iter().chain(more.into_iter().flatten())
    }
}

/// Finds all domains, in the tree's order. `room` is the number of modules that they may have.
pub(super) fn find(tree: &Tree<'_>, room: usize, notes: &mut Vec<String>) -> Vec<Partition> {
    let chosen = tree.find("/chosen");
    let children = || chosen.into_iter().flat_map(|chosen| chosen.children());
    for node in children().filter(|node| node.is_compatible(OF_CHOSEN_NOT_DONE)) {
        let (path, kind) = (node.path(), node.string("compatible").unwrap_or(""));
        notes.push(format!("BOOT: {path} ({kind}) is ignored: it is not done"));
    }
    let has_dom0 = children().any(|node| is_kernel(&node));
    let mut left = room;
    let domains = children().filter(|node| node.is_compatible(DOMAIN));
    domains
        .map(|node| Partition {
            path: node.path().to_string(),
            config: config(&node, has_dom0, &mut left, notes),
        })
        .collect()
}

fn is_kernel(node: &Node<'_>) -> bool {
    node.is_compatible(MODULE) && modules::known_kind(node) == Some(ModuleKind::Kernel)
}

fn config(
    node: &Node<'_>,
    has_dom0: bool,
    left: &mut usize,
    notes: &mut Vec<String>,
) -> Result<Config, String> {
    for (name, why) in NOT_DONE {
        if node.has(name) {
            return Err(format!("{name}: {why}"));
        }
    }
    let memory = memory(node)?;
    let vcpus = vcpus(node)?;
    let uart = node.has("vpl011");
    let spis = number_of_spis(node, uart)?;
    let table_mib = optional(node, "xen,domain-p2m-mem-mb")?;
    let enhanced = enhanced(node, has_dom0)?;
    let [kernel, ramdisk, devices] = parts(node, left, notes)?;
    let kernel = kernel.ok_or("no node is its kernel (multiboot,kernel)")?;
    Ok(Config {
        memory,
        vcpus,
        uart,
        spis,
        table_mib,
        enhanced,
        kernel,
        ramdisk,
        devices,
    })
}

/// Reads `memory`, in KiB; one cell or two.
fn memory(node: &Node<'_>) -> Result<u64, String> {
    if !node.has("memory") {
        return Err("memory: missing".into());
    }
    let kib = node.number("memory");
    let kib = kib.ok_or("memory: neither one cell nor two")?;
    let bytes = kib.checked_mul(1024).filter(|bytes| *bytes > 0);
    let bytes = bytes.ok_or_else(|| format!("memory: {kib:#x} KiB cannot be"))?;
    match bytes.is_multiple_of(PAGE) {
        true => Ok(bytes),
        false => Err(format!("memory: {kib} KiB are no whole number of pages")),
    }
}

fn vcpus(node: &Node<'_>) -> Result<u8, String> {
    let cpus = optional(node, "cpus")?.ok_or("cpus: missing")?;
    let known = u8::try_from(cpus).ok();
    let known = known.filter(|cpus| (1..=MAX_CPU_INTERFACES).contains(cpus));
    known.ok_or_else(|| format!("cpus: {cpus} is not from 1 to {MAX_CPU_INTERFACES}"))
}

/// Reads a property of one cell that need not be there.
fn optional(node: &Node<'_>, name: &str) -> Result<Option<u32>, String> {
    let Some(value) = node.property(name) else {
        return Ok(None);
    };
    match value.try_into() {
        Ok(cell) => Ok(Some(u32::from_be_bytes(cell))),
        Err(_) => Err(format!("{name}: not one cell")),
    }
}

/// Reads `nr_spis`: the emulated UART has the first of them.
fn number_of_spis(node: &Node<'_>, uart: bool) -> Result<Option<u32>, String> {
    let spis = optional(node, "nr_spis")?;
    match spis {
        Some(spis) if spis > MAX_SPIS.into() => {
            Err(format!("nr_spis: {spis} is more than {MAX_SPIS}"))
        }
        _ => Ok(spis.map(|spis| spis.max(uart.into()))),
    }
}

/// Reads `xen,enhanced`. Xenstore is dom0's.
fn enhanced(node: &Node<'_>, has_dom0: bool) -> Result<Enhanced, String> {
    let Some(value) = node.property("xen,enhanced") else {
        return Ok(Enhanced::No);
    };
    let word = match value {
        [] => "enabled",
        _ => node
            .string("xen,enhanced")
            .ok_or("xen,enhanced: not a string")?,
    };
    match word {
        "enabled" if has_dom0 => Ok(Enhanced::Full),
        "enabled" => Err("xen,enhanced: xenstore needs dom0, and there is none".into()),
        "no-xenstore" => Ok(Enhanced::WithoutXenstore),
        "disabled" => Ok(Enhanced::No),
        _ => Err(format!("xen,enhanced: \"{word}\" is not known")),
    }
}

/// Returns a domain's kernel, its RAM disk, and the part of its tree that has devices.
fn parts(
    domain: &Node<'_>,
    left: &mut usize,
    notes: &mut Vec<String>,
) -> Result<[Option<Module>; 3], String> {
    let (mut kernel, mut ramdisk, mut devices) = (None, None, None);
    for node in domain.children() {
        let path = node.path();
        for (kind, why) in NODES_NOT_DONE {
            if node.is_compatible(&[kind]) {
                return Err(format!("{} ({kind}): {why}", node.name()));
            }
        }
        let kind = match node.is_compatible(MODULE) {
            true => modules::known_kind(&node),
            false => None,
        };
        let place = match kind {
            Some(ModuleKind::Kernel) => &mut kernel,
            Some(ModuleKind::Ramdisk) => &mut ramdisk,
            Some(ModuleKind::DeviceTree) => &mut devices,
            _ => {
                notes.push(format!("BOOT: {path} is ignored: it is not understood"));
                continue;
            }
        };
        let module = module(&node, kind, notes)?;
        if module.range.size() == 0 && kind == Some(ModuleKind::Ramdisk) {
            notes.push(format!("BOOT: ramdisk module {path} is empty, ignored"));
            continue;
        }
        match place {
            Some(Module { path: first, .. }) => {
                notes.push(format!("BOOT: module {path} is not used, {first} is"));
            }
            None if *left == 0 => {
                let most = modules::MAX_MODULES;
                return Err(format!("{}: more than {most} modules", node.name()));
            }
            None => {
                *left -= 1;
                *place = Some(module);
            }
        }
    }
    Ok([kernel, ramdisk, devices])
}

fn module(
    node: &Node<'_>,
    kind: Option<ModuleKind>,
    notes: &mut Vec<String>,
) -> Result<Module, String> {
    let name = node.name();
    let reg = modules::reg_of(node).map_err(|_| format!("{name}: reg cannot be used"))?;
    let range = PhysRange::new(reg.address, reg.size).ok_or_else(|| {
        let (address, size) = (reg.address, reg.size);
        format!("{name}: {size:#x} bytes at {address:#x} cannot be")
    })?;
    Ok(Module {
        kind: kind.unwrap_or(ModuleKind::Other),
        range,
        bootargs: modules::line_of(node, "bootargs", notes),
        path: node.path().to_string(),
    })
}

/// Leaves out domains with modules that are not in RAM, or that share a byte with others. A module that is the same range
/// as another domain's is one file that serves both.
pub(super) fn check_places(
    partitions: &mut [Partition],
    ram: &[PhysRange],
    others: &[(&str, PhysRange)],
) {
    let mut before: Vec<(String, PhysRange)> = Vec::new();
    for partition in partitions {
        let Ok(config) = &partition.config else {
            continue;
        };
        let known = before.len();
        let wrong = config.modules().find_map(|module| {
            let why = check_place(module, ram, others, &before).err();
            before.push((module.path.clone(), module.range));
            why
        });
        if let Some(why) = wrong {
            before.truncate(known);
            partition.config = Err(why);
        }
    }
}

fn check_place(
    module: &Module,
    ram: &[PhysRange],
    others: &[(&str, PhysRange)],
    before: &[(String, PhysRange)],
) -> Result<(), String> {
    let (path, range) = (&module.path, &module.range);
    if !ram.iter().any(|bank| bank.contains(range)) {
        return Err(format!("{path} at {range} is not in RAM"));
    }
    let before = before.iter().filter(|(_, other)| other != range);
    let before = before.map(|(name, other)| (name.as_str(), other));
    let others = others.iter().map(|(name, other)| (*name, other));
    match others
        .chain(before)
        .find(|(_, other)| other.overlaps(range))
    {
        Some((name, other)) => Err(format!("{path} at {range} overlaps {name} at {other}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
