//! The part of a domain's device tree that comes with it as a module (`multiboot,device-tree`): its devices, and which of
//! the machine's they are (xen docs/misc/arm/passthrough.txt).
//!
//! `/aliases` and `/passthrough` are copied; `/gic` stands for the domain's interrupt controller, whose phandle is that
//! node's. `xen,path` names the machine's device, whose interrupts the domain gets, `xen,reg` the pages that it gets and
//! where, in the cells of the node's bus. Of both there must be one each, unless the word says otherwise.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use armv7::addr::PAGE_SIZE;
use dt::{Node, Tree, Writer, number};

use super::layout::taken;
use crate::domain::guest_map::Layout;
use crate::loader::Refused;
use crate::platform::partitions::{Config, WORD};
use crate::platform::ranges::PhysRange;

const REG: &str = "xen,reg";
const PATH: &str = "xen,path";
/// Properties that say where a device comes from; the domain does not see them.
const OMITTED: [&str; 3] = [REG, PATH, WORD];

/// A part of a domain's tree.
#[derive(Clone, Copy)]
pub struct Partial<'a> {
    /// Its nodes.
    pub tree: &'a Tree<'a>,
    /// Bytes of the blob.
    pub size: usize,
}

/// A device that a domain is to get.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Passed {
    /// Its node in the domain's tree.
    pub node: String,
    /// The machine's node whose interrupts the domain gets.
    pub host: Option<String>,
    /// Pages of the machine, and where the domain sees them.
    pub pages: Vec<(PhysRange, PhysRange)>,
    /// The word is there: it may do DMA.
    pub word: bool,
}

impl Partial<'_> {
    /// Returns the devices that the tree asks for.
    pub fn devices(&self, config: &Config, layout: &Layout) -> Result<Vec<Passed>, Refused> {
        let top = self.tree.find("/passthrough");
        let top = top.ok_or_else(|| Refused("its device tree has no /passthrough".into()))?;
        let mut devices = Vec::new();
        for node in top.subtree() {
            if OMITTED.iter().any(|name| node.has(name)) {
                let device = device(&node, config, layout);
                let path = node.path();
                devices.push(device.map_err(|why| Refused(format!("{path}: {why}")))?);
            }
        }
        match self.tree.exhausted_at() {
            None => Ok(devices),
            Some(_) => Err(Refused("its device tree takes too long to read".into())),
        }
    }

    /// Returns the phandle that the domain's interrupt controller is known by.
    pub fn gic_phandle(&self) -> Option<u32> {
        self.tree.find("/gic")?.phandle()
    }

    /// Copies the nodes that the domain sees.
    pub fn write(&self, out: &mut Writer<'_>) {
        for path in ["/aliases", "/passthrough"] {
            if let Some(node) = self.tree.find(path) {
                copy(&node, out);
            }
        }
    }
}

fn copy(top: &Node<'_>, out: &mut Writer<'_>) {
    // Where the nodes end that are open.
    let mut open: Vec<usize> = Vec::new();
    for node in top.subtree() {
        while open.pop_if(|end| *end <= node.index()).is_some() {
            out.end();
        }
        out.begin(node.name());
        open.push(node.subtree_end());
        let seen = |(name, _): &(&str, &[u8])| !OMITTED.contains(name);
        for (name, value) in node.properties().filter(seen) {
            out.property(name, value);
        }
    }
    open.iter().for_each(|_| out.end());
}

fn device(node: &Node<'_>, config: &Config, layout: &Layout) -> Result<Passed, String> {
    let word = node.has(WORD);
    if !word {
        for name in [REG, PATH] {
            if !node.has(name) {
                return Err(format!("{name} is missing, and {WORD} too"));
            }
        }
    }
    let host = match node.has(PATH) {
        true => Some(node.string(PATH).ok_or("xen,path: not a string")?),
        false => None,
    };
    Ok(Passed {
        node: node.path().to_string(),
        host: host.map(ToString::to_string),
        pages: pages(node, config, layout)?,
        word,
    })
}

/// Reads `xen,reg`: address, size, and address in the domain.
fn pages(
    node: &Node<'_>,
    config: &Config,
    layout: &Layout,
) -> Result<Vec<(PhysRange, PhysRange)>, String> {
    let Some(value) = node.property(REG) else {
        return Ok(Vec::new());
    };
    let cells = node
        .parent()
        .map_or((0, 0), |bus| (bus.address_cells(), bus.size_cells()));
    let (1 | 2, 1 | 2) = cells else {
        let (address, size) = cells;
        return Err(format!("{REG}: {address} and {size} cells cannot be"));
    };
    let (address, size) = (4 * cells.0, 4 * cells.1);
    let entry = address + size + address;
    if value.is_empty() || !value.len().is_multiple_of(entry) {
        return Err(format!("{REG}: not entries of {} cells", entry / 4));
    }
    let mut pages = Vec::new();
    for entry in value.chunks_exact(entry) {
        let (from, rest) = entry.split_at_checked(address).unwrap_or((&[], &[]));
        let (length, to) = rest.split_at_checked(size).unwrap_or((&[], &[]));
        let wrong = || format!("{REG}: an entry cannot be read");
        let from = number(from).ok_or_else(wrong)?;
        let length = number(length).ok_or_else(wrong)?;
        let to = number(to).ok_or_else(wrong)?;
        let page = PAGE_SIZE as u64;
        if [from, length, to].iter().any(|n| !n.is_multiple_of(page)) {
            return Err(format!(
                "{REG}: {length:#x} bytes at {from:#x} for {to:#x} are no whole pages"
            ));
        }
        let range = |at| PhysRange::new(at, length).ok_or_else(wrong);
        let (from, to) = (range(from)?, range(to)?);
        if let Some(what) = taken(&to, config, layout) {
            return Err(format!("{REG}: {to} is {what} in the domain"));
        }
        pages.push((from, to));
    }
    Ok(pages)
}

#[cfg(test)]
mod tests;
