//! Reads all facts about the machine from the device tree, once per boot.
//!
//! [`HostInfo::of`] returns a consistent description, or an error of one line. Tolerable oddities become notes, printed
//! as warnings once there is a console. Only the boot code knows the addresses of the tree and the image:
//! [`HostInfo::claim`] adds them and checks the modules against them.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use armv7::addr::PhysAddr;
use dt::{Node, Tree};

pub use super::console::UartInfo;
pub use super::cpus::{Conduit, CpuInfo, EnableMethod, PsciInfo};
pub use super::gic::{GicInfo, MsiFrame};
pub use super::modules::{CommandLines, Module, ModuleKind};
pub use super::monitors::MonitorsLine;
pub use super::partitions::pools::Pool;
pub use super::partitions::{Config, Partition};
pub use super::timer::TimerInfo;

use super::board::{self, Board};
use super::interrupt;
use super::modules::ReadWord;
use super::partitions::channels;
use super::places::Places;
use super::ranges::{self, PhysRange};
use super::tree::{self, check_budget};
use super::{BootError, console, cpus, gic, memory, modules, monitors, partitions, timer};

/// The machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostInfo {
    /// The board's name.
    pub model: String,
    /// The root's `compatible`, most specific first.
    pub compatible: Vec<String>,
    /// Facts about the board that are not in the tree.
    pub board: Board,
    /// RAM banks: whole pages, sorted, not adjacent.
    pub ram: Vec<PhysRange>,
    /// RAM that must not be allocated: whole pages, sorted. Includes modules until they are used.
    pub reserved: Vec<PhysRange>,
    /// The permanent part of `reserved`, without modules.
    permanent: Vec<PhysRange>,
    /// Ranges that the hypervisor keeps.
    pub private: Vec<PhysRange>,
    /// Fixed ranges of `/reserved-memory`, which only dom0 gets, mapped 1:1.
    pub firmware_reserved: Vec<PhysRange>,
    /// Linux accepts `/reserved-memory` as it is. If not, dom0 must not be told of that RAM.
    pub reservations_hold: bool,
    /// The ranges that the boot loader has filled for dom0.
    pub modules: Vec<Module>,
    /// The domains to start beside dom0, or without one.
    pub partitions: Vec<Partition>,
    /// The CPU pools to make before any domain.
    pub pools: Vec<Pool>,
    /// dom0's ends of event channels.
    pub dom0_channels: Vec<channels::End>,
    /// The command lines.
    pub command_lines: CommandLines,
    /// The processors. Only MPIDR tells which is the boot CPU.
    pub cpus: Vec<CpuInfo>,
    /// Firmware's PSCI, if any.
    pub psci: Option<PsciInfo>,
    /// The interrupt controller.
    pub gic: GicInfo,
    /// The generic timer.
    pub timer: TimerInfo,
    /// The interrupts of the processors' performance monitors.
    pub monitors: Vec<MonitorsLine>,
    /// The console of `stdout-path`, or the reason there is none; see [`console::find`] for `dtuart=`.
    pub console: Result<UartInfo, BootError>,
    /// Bit n: the tree uses the private interrupt 16 + n.
    pub private_interrupts: u16,
    /// Oddities, one line each.
    pub notes: Vec<String>,
}

impl HostInfo {
    /// Reads the machine from the tree in `bytes`, without reading modules.
    pub fn parse(bytes: &[u8]) -> Result<Self, BootError> {
        tree::with(bytes, |tree| Self::of(tree, &|_| None))
    }

    /// Reads the machine from its tree. `read` serves to identify modules without a type.
    pub fn of(tree: &Tree<'_>, read: ReadWord<'_>) -> Result<Self, BootError> {
        let host = Self::read(tree, read);
        check_budget(tree)?;
        host
    }

    /// Reads the command lines only, for a console that can report errors in the rest.
    pub fn read_command_lines(tree: &Tree<'_>) -> Result<CommandLines, BootError> {
        // An unusable module is reported when the machine is read.
        let notes = &mut Vec::new();
        let modules = modules::find(tree, &|_| None, notes).unwrap_or_default();
        let lines = modules::command_lines(tree, &modules, notes);
        check_budget(tree)?;
        Ok(lines)
    }

    fn read<'a>(tree: &'a Tree<'a>, read: ReadWord<'_>) -> Result<Self, BootError> {
        let mut notes = Vec::new();
        let root = tree.root();
        let ram = memory::banks(tree, &mut notes)?;
        // Only RAM is read, as reading a device register may have an effect.
        let read_ram = |at: PhysAddr| {
            let word = PhysRange::new(at.raw(), 4)?;
            ram.iter()
                .any(|bank| bank.contains(&word))
                .then(|| read(at))
                .flatten()
        };
        let modules = modules::find(tree, &read_ram, &mut notes)?;
        modules::check_places(&modules, &ram, &Places::new())?;
        let room = modules::MAX_MODULES.saturating_sub(modules.len());
        let pools = partitions::pools::find(tree);
        let mut partitions = partitions::find(tree, &pools, room, &mut notes);
        partitions::places::check(&mut partitions, &ram, &places(&modules));
        let firmware_reserved = memory::reserved_nodes(tree, &mut notes);
        let mut permanent = memory::reserved_entries(tree.blob());
        permanent.extend(&firmware_reserved);
        let gic_node = gic::node(tree);
        let gic = gic::info(gic_node, tree, &mut notes)?;
        let timer = match &gic_node {
            Some(node) => timer::info(tree, node, &mut notes)?,
            None => return Err(BootError::Gic("none".to_string())),
        };
        let cpus = cpus::cpus(tree, &mut notes)?;
        let mut host = Self {
            model: root.string("model").unwrap_or("").to_string(),
            compatible: root
                .strings("compatible")
                .map(ToString::to_string)
                .collect(),
            board: board::of(tree, &cpus),
            monitors: monitors::lines(tree, gic_node.as_ref(), &cpus),
            command_lines: modules::command_lines(tree, &modules, &mut notes),
            ram,
            reserved: Vec::new(),
            permanent,
            private: Vec::new(),
            firmware_reserved,
            reservations_hold: memory::reservations_hold(tree),
            modules,
            partitions,
            pools,
            dom0_channels: dom0_channels(tree, &mut notes),
            cpus,
            psci: cpus::psci(tree, &mut notes),
            console: console::of_tree(tree, gic_node.as_ref(), None),
            private_interrupts: private_interrupts(tree, gic_node.as_ref()),
            gic,
            timer,
            notes,
        };
        host.set_reserved();
        Ok(host)
    }

    /// Computes the RAM that must not be allocated.
    fn set_reserved(&mut self) {
        let mut reserved = self.permanent.clone();
        reserved.extend(
            self.all_modules()
                .map(|module| module.range.pages_outward()),
        );
        reserved.extend(self.kept_ram());
        self.reserved = ranges::merge(reserved);
    }

    /// Returns the configurations of all domains that can be made.
    fn configs(&self) -> impl Iterator<Item = &Config> {
        let domains = self.partitions.iter();
        domains.filter_map(|partition| partition.config.as_ref().ok())
    }

    /// Returns the modules of dom0 and of all domains that can be made.
    fn all_modules(&self) -> impl Iterator<Item = &Module> {
        let of_domains = self.configs().flat_map(|config| config.modules());
        self.modules.iter().chain(of_domains)
    }

    /// Returns the RAM that is kept for domains. Several of them may share a range.
    pub fn kept_ram(&self) -> Vec<PhysRange> {
        let mut ranges = Vec::new();
        for config in self.configs() {
            ranges.extend(config.kept_ram());
        }
        ranges
    }

    /// Reserves the device tree and the hypervisor's image, after checking that no module of dom0's overlaps them. A
    /// domain whose module does is left out.
    pub fn claim(&mut self, tree: PhysRange, image: PhysRange) -> Result<(), BootError> {
        let both = [("the device tree", tree), ("the hypervisor", image)];
        modules::check_places(&self.modules, &self.ram, &both.to_vec())?;
        if tree.overlaps(&image) {
            let what = "the device tree overlaps the hypervisor";
            return Err(BootError::Module(what.to_string()));
        }
        let mut others = places(&self.modules);
        others.extend(both);
        partitions::places::check(&mut self.partitions, &self.ram, &others);
        self.permanent
            .extend([tree.pages_outward(), image.pages_outward()]);
        self.set_reserved();
        Ok(())
    }

    /// Returns the first module of a kind.
    pub fn module(&self, kind: ModuleKind) -> Option<&Module> {
        self.modules.iter().find(|m| m.kind == kind)
    }

    /// Returns dom0's kernel.
    pub fn kernel(&self) -> Result<&Module, BootError> {
        self.module(ModuleKind::Kernel).ok_or(BootError::NoKernel)
    }

    /// Returns RAM that is not reserved: whole pages, sorted.
    pub fn free_ram(&self) -> Vec<PhysRange> {
        ranges::subtract(&self.ram, &self.reserved)
    }

    /// Returns the whole pages that become free once the guests are built from the modules.
    pub fn module_pages(&self) -> Vec<PhysRange> {
        let modules = self.all_modules().map(|m| m.range.pages_outward());
        ranges::subtract(&ranges::merge(modules.collect()), &self.permanent)
    }

    /// Returns RAM that is never allocated: whole pages.
    pub fn permanent(&self) -> Vec<PhysRange> {
        ranges::merge(self.permanent.clone())
    }

    /// Returns the place of the hypervisor's private memory: the last free `size` bytes, in whole blocks, far from dom0
    /// and its modules.
    pub fn private_place(&self, size: u64, block: u64) -> Option<PhysRange> {
        self.free_ram().iter().rev().find_map(|range| {
            let aligned = range.aligned_inward(block)?;
            PhysRange::new(aligned.end().checked_sub(size)?, size)
                .filter(|place| aligned.contains(place))
        })
    }

    /// Reserves a range for the hypervisor.
    pub fn reserve(&mut self, range: PhysRange) {
        self.private.push(range);
        self.permanent.push(range);
        self.set_reserved();
    }

    /// Returns the private interrupt for dom0's event channels: the first one that no node uses.
    pub fn event_interrupt(&self) -> Option<u32> {
        let unused = self.private_interrupts.trailing_ones();
        (unused < 16).then_some(interrupt::FIRST_PPI + unused)
    }
}

/// Returns dom0's ends of event channels; none if there is an error in one.
fn dom0_channels(tree: &Tree<'_>, notes: &mut Vec<String>) -> Vec<channels::End> {
    let chosen = tree.find("/chosen");
    let ends = chosen.map_or(Ok(Vec::new()), |chosen| channels::of_domain(&chosen));
    ends.unwrap_or_else(|why| {
        notes.push(alloc::format!(
            "BOOT: dom0's event channels are ignored: {why}"
        ));
        Vec::new()
    })
}

/// Returns where modules are, by name.
fn places(modules: &[Module]) -> Places<'_> {
    let places = modules.iter().map(|m| (m.path.as_str(), m.range));
    places.collect()
}

fn private_interrupts(tree: &Tree<'_>, gic: Option<&Node<'_>>) -> u16 {
    let Some(gic) = gic else { return 0 };
    let all = tree.all().flat_map(|node| interrupt::of_gic(&node, gic));
    let private = all.filter(interrupt::Interrupt::is_private);
    private.fold(0, |used, line| {
        used | 1u16
            .checked_shl(line.intid - interrupt::FIRST_PPI)
            .unwrap_or(0)
    })
}

#[cfg(test)]
mod tests;
