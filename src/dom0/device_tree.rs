//! dom0's device tree: the host's, without the nodes that the hypervisor keeps, and with those that a guest needs.
//!
//! Nodes are in the host's order. Rewritten nodes stay in their place, new ones are appended to the root. Names and values
//! are copied as bytes, and every phandle that resolves in the host's tree resolves here. The reservation block is empty:
//! all RAM in this tree is dom0's.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use dt::{Node, PHANDLE, Writer};

use super::selection::{Fate, HostView, Selection, is_rebuilt};
use crate::loader;
use crate::platform::BootError;
use crate::platform::partitions::MARK;
use crate::platform::ranges::{self, PhysRange};

mod nodes;

/// The facts about dom0 that the host's tree does not give.
#[derive(Clone, Copy, Debug)]
pub struct Config<'a> {
    /// dom0's command line.
    pub bootargs: &'a str,
    /// The range of the RAM disk, to the byte.
    pub ramdisk: Option<PhysRange>,
    /// dom0's RAM.
    pub memory: &'a [PhysRange],
    /// Number of vCPUs.
    pub vcpus: u32,
    /// The addresses at which dom0 may map its grant table. No RAM or device of its own is there.
    pub grant: PhysRange,
    /// More unused addresses, for foreign mappings.
    pub extended: &'a [PhysRange],
    /// The INTID of the PPI that announces events.
    pub event_interrupt: u32,
}

/// The properties of `/chosen` that are left out or written anew.
const NOT_FROM_CHOSEN: &[&str] = &[
    "bootargs",
    "xen,xen-bootargs",
    "xen,dom0-bootargs",
    "stdout-path",
    "linux,stdout-path",
    "linux,initrd-start",
    "linux,initrd-end",
];
const UEFI: &str = "linux,uefi-";
/// The bytes that a `status` of our own adds to a node.
const STATUS: usize = 12 + "disabled\0".len().next_multiple_of(4);
/// The bytes of all new nodes at their largest.
const OWN_NODES: usize = 8192;
/// The bytes of the property names that the host's tree does not have.
const OWN_NAMES: usize = 512;

/// Builds the blob of dom0's tree. It is incomplete when the budget of the host's tree is used up.
///
/// The blob's size does not depend on the place of the RAM disk. A caller builds it once to learn the size, and once more.
pub fn build(
    machine: &HostView<'_>,
    selection: &Selection,
    config: &Config<'_>,
) -> Result<Vec<u8>, BootError> {
    let tree = machine.tree;
    let blob = tree.blob();
    // Names in the host's tree may share their ends; ours do not.
    let names = 2 * blob.names_size() + OWN_NAMES;
    let room = blob.content_size() + blob.nodes() * STATUS + config.bootargs.len() + OWN_NODES;
    let mut out = vec![0; room + names];
    let mut builder = Builder {
        machine,
        config,
        selection,
        out: Writer::new(&mut out, names),
        gic_phandle: tree
            .find(&machine.host.gic.path)
            .and_then(|gic| gic.phandle()),
        bus: Bus::of_root(&tree.root())?,
    };
    builder.root(&tree.root())?;
    let length = builder.out.finish();
    let length = length.ok_or_else(|| BootError::Dom0("no room for its device tree".into()))?;
    out.truncate(length);
    Ok(out)
}

/// The numbers of address and size cells below the root.
#[derive(Clone, Copy)]
struct Bus {
    address: usize,
    size: usize,
}

impl Bus {
    fn of_root(root: &Node<'_>) -> Result<Self, BootError> {
        let (address, size) = (root.address_cells(), root.size_cells());
        match (address, size) {
            (1 | 2, 1 | 2) => Ok(Self { address, size }),
            _ => Err(BootError::Dom0(format!(
                "the tree's root has {address} address cells and {size} size cells"
            ))),
        }
    }

    /// Returns the value of a `reg` with these ranges.
    fn reg(&self, ranges: &[PhysRange]) -> Result<Vec<u8>, BootError> {
        let mut value = Vec::new();
        for range in ranges {
            for (number, cells) in [(range.base(), self.address), (range.size(), self.size)] {
                match (cells, u32::try_from(number)) {
                    (2, _) => value.extend(number.to_be_bytes()),
                    (_, Ok(number)) => value.extend(number.to_be_bytes()),
                    (_, Err(_)) => {
                        return Err(BootError::Dom0(format!(
                            "{range} does not fit the one-cell addresses of the tree"
                        )));
                    }
                }
            }
        }
        Ok(value)
    }
}

struct Builder<'a> {
    machine: &'a HostView<'a>,
    config: &'a Config<'a>,
    selection: &'a Selection,
    out: Writer<'a>,
    gic_phandle: Option<u32>,
    bus: Bus,
}

impl Builder<'_> {
    fn root(&mut self, root: &Node<'_>) -> Result<(), BootError> {
        self.out.begin("");
        self.copy_properties(root, |_| true);
        for child in root.children().filter(|child| !is_rebuilt(child)) {
            self.node(&child);
        }
        if !root
            .children()
            .any(|n| self.selection.fate(&n) == Fate::Chosen)
        {
            self.chosen(None);
        }
        if root.tree().find(&self.machine.host.timer.path).is_none() {
            self.timer(None);
        }
        self.hypervisor()?;
        self.psci();
        self.cpus();
        self.memory(self.config.memory)?;
        let host = self.machine.host;
        if host.reservations_hold {
            let outside_ram = ranges::subtract(&host.firmware_reserved, &host.ram);
            self.memory(&ranges::subtract(&host.firmware_reserved, &outside_ram))?;
        }
        self.out.end();
        Ok(())
    }

    fn node(&mut self, node: &Node<'_>) {
        let fate = self.selection.fate(node);
        match fate {
            Fate::Drop => return,
            Fate::Stub => return self.stub(node),
            Fate::Gic => return self.gic(node),
            Fate::Timer => return self.timer(Some(node)),
            Fate::Chosen => return self.chosen(Some(node)),
            Fate::Keep | Fate::Disable => {}
        }
        self.out.begin(node.name());
        match fate {
            // The nodes below a disabled one are copied unchanged.
            Fate::Disable => {
                let parent = node.parent().map(|parent| self.selection.fate(&parent));
                let topmost = parent != Some(Fate::Disable);
                let keep = |name: &str| name != MARK && !(topmost && name == "status");
                self.copy_properties(node, keep);
                if topmost {
                    self.out.string("status", "disabled");
                }
            }
            _ if node.path() == "/aliases" => self.aliases(node),
            _ => self.copy_properties(node, |_| true),
        }
        self.children(node);
        self.out.end();
    }

    fn children(&mut self, node: &Node<'_>) {
        for child in node.children() {
            self.node(&child);
        }
    }

    /// Copies the aliases but those of hidden nodes.
    fn aliases(&mut self, node: &Node<'_>) {
        let tree = node.tree();
        for (name, value) in node.properties() {
            let target = node.string(name).and_then(|path| tree.find(path));
            if target.is_none_or(|target| !self.selection.fate(&target).is_hidden()) {
                self.out.property(name, value);
            }
        }
    }

    fn chosen(&mut self, node: Option<&Node<'_>>) {
        self.out.begin("chosen");
        if let Some(node) = node {
            let keep = |name: &str| !NOT_FROM_CHOSEN.contains(&name) && !name.starts_with(UEFI);
            self.copy_properties(node, keep);
        }
        self.out.string("bootargs", self.config.bootargs);
        if let Some(ramdisk) = self.config.ramdisk {
            loader::nodes::ramdisk(&mut self.out, ramdisk.base(), ramdisk.end());
        }
        if let Some(node) = node {
            self.children(node);
        }
        self.out.end();
    }

    fn copy_properties(&mut self, node: &Node<'_>, keep: impl Fn(&str) -> bool) {
        for (name, value) in node.properties().filter(|(name, _)| keep(name)) {
            self.out.property(name, value);
        }
    }

    /// Copies the phandle of a node.
    fn copy_phandle(&mut self, node: &Node<'_>) {
        self.copy_properties(node, |name| PHANDLE.contains(&name));
    }
}

#[cfg(test)]
mod tests;
