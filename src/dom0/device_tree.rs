//! dom0's device tree: the host's, with the hypervisor's share taken out and what a guest needs put in.
//!
//! The order of nodes is the host's; rewritten nodes stay in their place, new ones are appended to the root. Values are
//! copied as bytes. A name that the writer refuses (over 31 characters, odd letters) costs that node or property, not the
//! boot: it is noted. The reservation block is empty: dom0 has only RAM of its own.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::selection::{Fate, Machine, Selection};
use crate::platform::BootError;
use crate::platform::blob::Blob;
use crate::platform::ranges::{self, PhysRange};
use crate::platform::tree::{Node, Tree};

mod nodes;
mod writer;

use writer::Writer;

/// What the host's tree does not say about dom0.
#[derive(Clone, Copy, Debug)]
pub struct Config<'a> {
    /// dom0's command line.
    pub bootargs: &'a str,
    /// Where the RAM disk is, to the byte.
    pub ramdisk: Option<PhysRange>,
    /// dom0's RAM.
    pub memory: &'a [PhysRange],
    /// Number of vCPUs.
    pub vcpus: u32,
    /// Addresses at which dom0 may map its grant table: no RAM or device of its own.
    pub grant: PhysRange,
    /// Further unused addresses, for foreign mappings.
    pub extended: &'a [PhysRange],
    /// Private interrupt for event channels, an interrupt id.
    pub event_interrupt: u32,
}

/// A finished tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dom0Tree {
    /// The blob.
    pub blob: Vec<u8>,
    /// What was left out of it, one line each.
    pub notes: Vec<String>,
}

/// Properties of `/chosen` that are about the hypervisor's boot, or written anew.
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

/// Builds dom0's tree from the host's.
///
/// The blob's size does not depend on where the RAM disk is: build once with any place to learn it, and once more.
pub fn build(
    blob: &Blob<'_>,
    machine: &Machine<'_>,
    config: &Config<'_>,
) -> Result<Dom0Tree, BootError> {
    let tree = Tree::new(blob)?;
    let selection = Selection::of(&tree, machine);
    let mut builder = Builder {
        machine,
        config,
        selection: &selection,
        out: Writer::new()?,
        gic_phandle: tree
            .find(&machine.host.gic.path)
            .and_then(|gic| gic.u32("phandle").or_else(|| gic.u32("linux,phandle"))),
        bus: Bus::of_root(&tree.root())?,
    };
    builder.root(&tree.root())?;
    let (blob, notes) = builder.out.finish()?;
    Ok(Dom0Tree { blob, notes })
}

/// Cells of addresses and sizes below the root.
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

    /// The value of a `reg` with these ranges.
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
    machine: &'a Machine<'a>,
    config: &'a Config<'a>,
    selection: &'a Selection,
    out: Writer,
    gic_phandle: Option<u32>,
    bus: Bus,
}

impl Builder<'_> {
    fn root(&mut self, root: &Node<'_>) -> Result<(), BootError> {
        let Some(open) = self.out.begin("", "/")? else {
            return Err(BootError::Dom0("no root node".to_string()));
        };
        self.copy_properties(root, |_| true)?;
        for child in root.children() {
            self.node(&child)?;
        }
        if !root
            .children()
            .any(|n| self.selection.fate(&n) == Fate::Chosen)
        {
            self.chosen(None)?;
        }
        self.hypervisor()?;
        self.psci()?;
        self.cpus(root.tree())?;
        self.memory(self.config.memory)?;
        let outside_ram =
            ranges::subtract(&self.machine.host.firmware_reserved, &self.machine.host.ram);
        self.memory(&ranges::subtract(
            &self.machine.host.firmware_reserved,
            &outside_ram,
        ))?;
        self.out.end(open)
    }

    fn node(&mut self, node: &Node<'_>) -> Result<(), BootError> {
        let fate = self.selection.fate(node);
        match fate {
            Fate::Drop => return Ok(()),
            Fate::Gic => return self.gic(node),
            Fate::Timer => return self.timer(node),
            Fate::Chosen => return self.chosen(Some(node)),
            Fate::Keep | Fate::Disable => {}
        }
        let Some(open) = self.out.begin(node.name(), &node.path())? else {
            return Ok(());
        };
        match fate {
            // Below a disabled node all is as it was: nothing there is looked at.
            Fate::Disable => {
                let parent = node.parent().map(|parent| self.selection.fate(&parent));
                let topmost = parent != Some(Fate::Disable);
                let keep = |name: &str| name != "xen,passthrough" && !(topmost && name == "status");
                self.copy_properties(node, keep)?;
                if topmost {
                    self.out.string("status", "disabled")?;
                }
            }
            _ => self.copy_properties(node, |_| true)?,
        }
        self.children(node)?;
        self.out.end(open)
    }

    fn children(&mut self, node: &Node<'_>) -> Result<(), BootError> {
        for child in node.children() {
            self.node(&child)?;
        }
        Ok(())
    }

    fn chosen(&mut self, node: Option<&Node<'_>>) -> Result<(), BootError> {
        let Some(open) = self.out.begin("chosen", "/chosen")? else {
            return Ok(());
        };
        if let Some(node) = node {
            let keep = |name: &str| !NOT_FROM_CHOSEN.contains(&name) && !name.starts_with(UEFI);
            self.copy_properties(node, keep)?;
        }
        self.out.string("bootargs", self.config.bootargs)?;
        if let Some(ramdisk) = self.config.ramdisk {
            self.out
                .bytes("linux,initrd-start", &ramdisk.base().to_be_bytes())?;
            self.out
                .bytes("linux,initrd-end", &ramdisk.end().to_be_bytes())?;
        }
        if let Some(node) = node {
            self.children(node)?;
        }
        self.out.end(open)
    }

    fn copy_properties(
        &mut self,
        node: &Node<'_>,
        keep: impl Fn(&str) -> bool,
    ) -> Result<(), BootError> {
        for (name, value) in node.properties().filter(|(name, _)| keep(name)) {
            self.out.property(&node.path(), name, value)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
