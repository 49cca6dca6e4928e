//! The domains that a boot starts beside dom0, or without one: the children of `/chosen` that are compatible with
//! `xen,domain` (xen docs/misc/arm/device-tree/booting.txt).
//!
//! A domain that cannot be made as it is described has in the place of its description the property or node at fault; the
//! others are not touched by that.

pub mod channels;
pub mod memory;
pub mod places;
pub mod pools;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Display;

use armv7::cpu::CpuSet;
use armv7::gic::{MAX_CPU_INTERFACES, MAX_SPIS};
use dt::{Node, Tree};

use super::modules::{self, DOMAIN, MODULE, Module, ModuleKind};
use super::ranges::PhysRange;
use channels::{CHANNEL, End};
use memory::{SHARED_MEMORY, Shared};
use pools::{Affinities, Pool};

/// Marks a node of the machine's tree whose device is for another domain than dom0.
pub const MARK: &str = "xen,passthrough";
/// Says of a device that may do DMA that it is passed all the same.
pub const WORD: &str = "xen,force-assign-without-iommu";
/// Bytes of a page.
const PAGE: u64 = 4096;
/// Says after which ends a domain is started again.
const RESTART_ON: &str = "krypton,restart-on";
/// Compatible of a node that says on which CPUs a vCPU may run.
const VCPU: &str = "xen,vcpu";
/// Nodes of `/chosen` that are not carried out, and why.
const OF_CHOSEN_NOT_DONE: &[(&str, &str)] = &[(SHARED_MEMORY, "dom0 shares memory by grants only")];

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

/// An end of a domain after which it may be started again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// It switched itself off.
    Poweroff,
    /// It asked for a restart.
    Reboot,
    /// It crashed.
    Crash,
    /// Its watchdog expired.
    Watchdog,
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
    /// It has the processor's performance monitors.
    pub monitors: bool,
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
    /// The machine's addresses that are its RAM, in its order; none where any will do.
    pub static_memory: Vec<PhysRange>,
    /// It finds RAM, interrupt controller and UART at the machine's addresses.
    pub direct_map: bool,
    /// The place of its pool in the tree; pool 0 without one.
    pub pool: Option<usize>,
    /// The CPUs on which each of its vCPUs may run.
    pub affinities: Affinities,
    /// Memory that it shares with others.
    pub shared: Vec<Shared>,
    /// Its ends of event channels.
    pub channels: Vec<End>,
    /// The ends after which it is started again; none by default.
    pub restart_on: Vec<Ending>,
}

impl Config {
    /// Returns a configuration of what must be there, and nothing else.
    pub fn new(memory: u64, vcpus: u8, kernel: Module) -> Self {
        Self {
            memory,
            vcpus,
            uart: false,
            monitors: false,
            spis: None,
            table_mib: None,
            enhanced: Enhanced::No,
            kernel,
            ramdisk: None,
            devices: None,
            static_memory: Vec::new(),
            direct_map: false,
            pool: None,
            affinities: [CpuSet::ALL; _],
            shared: Vec::new(),
            channels: Vec::new(),
            restart_on: Vec::new(),
        }
    }

    /// Returns the machine's RAM that is kept for it.
    pub fn kept_ram(&self) -> Vec<PhysRange> {
        let mut ranges = self.static_memory.clone();
        ranges.extend(self.shared.iter().map(|shared| shared.host));
        ranges
    }

    /// Returns its modules.
    pub fn modules(&self) -> impl Iterator<Item = &Module> {
        let more = [&self.ramdisk, &self.devices];
        [&self.kernel].into_iter().chain(more.into_iter().flatten())
    }
}

/// Finds all domains, in the tree's order. `room` is the number of modules that they may have.
pub(super) fn find(
    tree: &Tree<'_>,
    pools: &[Pool],
    room: usize,
    notes: &mut Vec<String>,
) -> Vec<Partition> {
    let chosen = tree.find("/chosen");
    let children = || chosen.into_iter().flat_map(|chosen| chosen.children());
    for node in children() {
        for (kind, why) in OF_CHOSEN_NOT_DONE {
            if node.is_compatible(&[kind]) {
                notes.push(format!("BOOT: {} ({kind}) is ignored: {why}", node.path()));
            }
        }
    }
    let has_dom0 = children().any(|node| is_kernel(&node));
    let mut left = room;
    let domains = children().filter(|node| node.is_compatible(DOMAIN));
    domains
        .map(|node| Partition {
            path: node.path().to_string(),
            config: config(&node, pools, has_dom0, &mut left, notes),
        })
        .collect()
}

fn is_kernel(node: &Node<'_>) -> bool {
    node.is_compatible(MODULE) && modules::known_kind(node) == Some(ModuleKind::Kernel)
}

fn config(
    node: &Node<'_>,
    pools: &[Pool],
    has_dom0: bool,
    left: &mut usize,
    notes: &mut Vec<String>,
) -> Result<Config, String> {
    let size = ram_size(node)?;
    let vcpus = vcpus(node)?;
    let uart = node.has("vpl011");
    let monitors = node.has("vpmu");
    let spis = number_of_spis(node, uart)?;
    let table_mib = optional(node, "xen,domain-p2m-mem-mb")?;
    let enhanced = enhanced(node, has_dom0)?;
    let static_memory = memory::static_memory(node, size)?;
    let direct_map = node.has("direct-map");
    if direct_map && static_memory.is_empty() {
        return Err("direct-map: xen,static-mem is missing".into());
    }
    let pool = pools::of_domain(node, pools)?;
    let channels = channels::of_domain(node)?;
    if channels.iter().any(|end| end.peer == 0) && !has_dom0 {
        return Err(format!(
            "{CHANNEL}: its other end is dom0's, and there is none"
        ));
    }
    let restart_on = endings(node)?;
    if !restart_on.is_empty() && !static_memory.is_empty() {
        let why = "not with xen,static-mem, which anybody has once the domain has ended";
        return Err(fault(RESTART_ON, &why));
    }
    let (affinities, shared) = below(node, vcpus)?;
    let [kernel, ramdisk, devices] = parts(node, left, notes)?;
    let kernel = kernel.ok_or("no node is its kernel (multiboot,kernel)")?;
    Ok(Config {
        uart,
        monitors,
        spis,
        table_mib,
        enhanced,
        ramdisk,
        devices,
        static_memory,
        direct_map,
        pool,
        affinities,
        shared,
        channels,
        restart_on,
        memory: size,
        vcpus,
        kernel,
    })
}

/// Reads the nodes below a domain's that are no modules: where its vCPUs may run, and what memory it shares.
fn below(domain: &Node<'_>, vcpus: u8) -> Result<(Affinities, Vec<Shared>), String> {
    let mut affinities = [CpuSet::ALL; _];
    let mut shared: Vec<Shared> = Vec::new();
    for node in domain.children() {
        if node.is_compatible(&[VCPU]) {
            pools::read_vcpu(&node, vcpus, &mut affinities)?;
        }
        if node.is_compatible(&[SHARED_MEMORY]) {
            let name = node.name();
            let region = memory::shared(&node).map_err(|why| fault(name, &why))?;
            shared.push(region);
        }
    }
    Ok((affinities, shared))
}

/// Returns the line about a property or node at fault.
#[inline(never)]
fn fault(name: &str, why: &dyn Display) -> String {
    format!("{name}: {why}")
}

/// Reads `memory`, in KiB; one cell or two.
fn ram_size(node: &Node<'_>) -> Result<u64, String> {
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

/// Reads the list of ends after which a domain is started again.
fn endings(node: &Node<'_>) -> Result<Vec<Ending>, String> {
    let Some(value) = node.property(RESTART_ON) else {
        return Ok(Vec::new());
    };
    let words = value.strip_suffix(&[0]).unwrap_or(value);
    let mut endings = Vec::new();
    for word in words.split(|byte| *byte == 0) {
        let ending = match word {
            b"poweroff" => Ending::Poweroff,
            b"reboot" => Ending::Reboot,
            b"crash" => Ending::Crash,
            b"watchdog" => Ending::Watchdog,
            _ => {
                let word = String::from_utf8_lossy(word);
                return Err(format!("{RESTART_ON}: \"{word}\" is not known"));
            }
        };
        if !endings.contains(&ending) {
            endings.push(ending);
        }
    }
    Ok(endings)
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
        if node.is_compatible(&[VCPU, CHANNEL, SHARED_MEMORY]) {
            continue;
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

#[cfg(test)]
mod tests;
