//! Nodes with parents, paths and typed properties of a checked [`Blob`].
//!
//! A property of the wrong shape reads as absent, and the caller decides whether it can do without.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::Cell;

use super::BootError;
use super::blob::{Blob, Entry};
use super::ranges;

/// Steps that whoever reads a tree may take with it: entries of tables, properties, children that are looked at. A boot reads
/// it five times, and no real board needs a tenth of this; a tree that is made to be searched for ever is refused.
pub(super) const BUDGET: u32 = 20_000_000;
/// Bytes of a value that count as one step: whoever gets a value may look through it.
const BYTES_PER_STEP: usize = 16;

/// Properties that say a node's phandle, the second in old trees.
pub const PHANDLE: [&str; 2] = ["phandle", "linux,phandle"];

/// More cells than any address, size or specifier has.
const TOO_MANY_CELLS: u32 = 255;

/// All nodes of a checked tree.
pub struct Tree<'a> {
    blob: &'a Blob<'a>,
    /// Each phandle with the index of its first node, sorted.
    phandles: Vec<(u32, u16)>,
    /// What is left of the budget.
    left: Cell<u32>,
    /// The node at which it ran out.
    exhausted_at: Cell<Option<usize>>,
}

/// One node.
#[derive(Clone, Copy)]
pub struct Node<'a> {
    tree: &'a Tree<'a>,
    index: usize,
}

/// One entry of `reg`, in the address space of the node's bus.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reg {
    /// Address on the bus.
    pub address: u64,
    /// Bytes; 0 where the bus has no sizes.
    pub size: u64,
}

impl<'a> Tree<'a> {
    /// Indexes the nodes of `blob`.
    pub fn new(blob: &'a Blob<'a>) -> Result<Self, BootError> {
        let found = || {
            (0u16..).zip(blob.nodes()).filter_map(|(index, node)| {
                let mut named = PHANDLE.into_iter();
                let phandle = named.find_map(|name| blob.property(*node, name))?;
                Some((cells(phandle).next()?, index))
            })
        };
        let mut phandles = Vec::new();
        phandles
            .try_reserve_exact(found().count())
            .map_err(|_| BootError::Corrupt(String::from("no memory for its phandles")))?;
        phandles.extend(found());
        ranges::sort_by_key(&mut phandles, |entry| *entry);
        phandles.dedup_by_key(|(phandle, _)| *phandle);
        Ok(Self {
            blob,
            phandles,
            left: Cell::new(BUDGET),
            exhausted_at: Cell::new(None),
        })
    }

    /// The root node.
    pub fn root(&'a self) -> Node<'a> {
        self.node(0)
    }

    /// Number of nodes; indices run from 0 up to it.
    pub fn len(&self) -> usize {
        self.blob.nodes().len()
    }

    /// Whether there is no node, which cannot be.
    pub fn is_empty(&self) -> bool {
        self.blob.nodes().is_empty()
    }

    /// All nodes, a parent before its children.
    pub fn all(&'a self) -> impl Iterator<Item = Node<'a>> {
        (0..self.blob.nodes().len()).map(|index| self.node(index))
    }

    /// The node at an absolute path; a component without unit address matches the first node of that name.
    pub fn find(&'a self, path: &str) -> Option<Node<'a>> {
        let mut node = self.root();
        for part in path.strip_prefix('/')?.split('/').filter(|p| !p.is_empty()) {
            let exact = node.children().find(|c| c.name() == part);
            node = match exact {
                Some(child) => child,
                None if part.contains('@') => return None,
                None => node.children().find(|c| c.base_name() == part)?,
            };
        }
        Some(node)
    }

    /// The node that carries `phandle`.
    pub fn by_phandle(&'a self, phandle: u32) -> Option<Node<'a>> {
        let place = self
            .phandles
            .binary_search_by_key(&phandle, |(known, _)| *known);
        let (_, index) = self.phandles.get(place.ok()?)?;
        Some(self.node(usize::from(*index)))
    }

    /// Nodes that are compatible with one of `names`.
    pub fn compatible(&'a self, names: &'a [&'a str]) -> impl Iterator<Item = Node<'a>> {
        self.all().filter(move |node| node.is_compatible(names))
    }

    fn node(&'a self, index: usize) -> Node<'a> {
        Node { tree: self, index }
    }

    /// Refuses a tree whose reader has run out of steps, so that what it read is incomplete.
    pub fn check_budget(&self) -> Result<(), BootError> {
        match self.exhausted_at.get() {
            None => Ok(()),
            Some(index) => {
                let path = self.node(index).path();
                let what = format!("reading it takes more than {BUDGET} steps, the last at {path}");
                Err(BootError::Corrupt(what))
            }
        }
    }

    /// Steps that were taken.
    pub fn spent(&self) -> u32 {
        BUDGET - self.left.get()
    }

    fn spend(&self, steps: usize, index: usize) -> bool {
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        let left = self.left.get().checked_sub(steps);
        self.left.set(left.unwrap_or(0));
        if left.is_none() && self.exhausted_at.get().is_none() {
            self.exhausted_at.set(Some(index));
        }
        left.is_some()
    }
}

impl<'a> Node<'a> {
    /// Place in the order of [`Tree::all`].
    pub fn index(&self) -> usize {
        self.index
    }

    /// The tree.
    pub fn tree(&self) -> &'a Tree<'a> {
        self.tree
    }

    /// Takes steps of a search that begins at this node; `false` when the tree has had its share, and then what was read of it
    /// is worth nothing: see [`Tree::check_budget`].
    pub(crate) fn spend(&self, steps: usize) -> bool {
        self.tree.spend(steps, self.index)
    }

    /// Name with unit address; the root's is empty.
    pub fn name(&self) -> &'a str {
        self.entry().map_or("", |node| self.tree.blob.name(node))
    }

    /// Name without unit address.
    pub fn base_name(&self) -> &'a str {
        self.name().split('@').next().unwrap_or("")
    }

    /// The parent; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        let parent = self.entry()?.parent();
        (self.index > 0).then(|| self.tree.node(parent))
    }

    /// The node itself, its parent and so on up to the root.
    pub fn ancestors(&self) -> impl Iterator<Item = Self> + use<'a> {
        core::iter::successors(Some(*self), Self::parent)
    }

    /// The nodes directly below.
    pub fn children(&self) -> impl Iterator<Item = Self> + use<'a> {
        let bus = *self;
        let end = self.subtree_end();
        let mut next = self.index + 1;
        core::iter::from_fn(move || {
            let child = (next < end && bus.spend(1)).then(|| bus.tree.node(next))?;
            next = child.subtree_end();
            Some(child)
        })
    }

    /// One past the index of the last node below.
    pub fn subtree_end(&self) -> usize {
        let next = self.index + 1;
        self.entry().map_or(next, |node| node.end().max(next))
    }

    /// Absolute path.
    pub fn path(&self) -> String {
        let mut names: Vec<&str> = self.ancestors().map(|n| n.name()).collect();
        names.pop();
        if names.is_empty() {
            return String::from("/");
        }
        names.iter().rev().fold(String::new(), |mut path, name| {
            path.push('/');
            path.push_str(name);
            path
        })
    }

    /// All properties: name and value.
    pub fn properties(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        let node = *self;
        let blob = self.tree.blob;
        self.entry()
            .into_iter()
            .flat_map(|node| blob.properties(node))
            .take_while(move |_| node.spend(1))
    }

    /// The value of a property.
    pub fn property(&self, name: &str) -> Option<&'a [u8]> {
        let (_, value) = self.properties().find(|(known, _)| *known == name)?;
        self.spend(value.len() / BYTES_PER_STEP).then_some(value)
    }

    /// Whether a property is there.
    pub fn has(&self, name: &str) -> bool {
        self.property(name).is_some()
    }

    /// By what other nodes refer to this one.
    pub fn phandle(&self) -> Option<u32> {
        PHANDLE.into_iter().find_map(|name| self.u32(name))
    }

    /// The cells of a property, none when it is absent.
    pub fn cells(&self, name: &str) -> impl Iterator<Item = u32> + use<'a> {
        cells(self.property(name).unwrap_or(&[]))
    }

    /// The first cell of a property.
    pub fn u32(&self, name: &str) -> Option<u32> {
        self.cells(name).next()
    }

    /// A number of one or two cells.
    pub fn number(&self, name: &str) -> Option<u64> {
        be(self.property(name)?)
    }

    /// The strings of a list property.
    pub fn strings(&self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        let value = self.property(name).unwrap_or(&[]);
        value
            .split(|b| *b == 0)
            .filter(|s| !s.is_empty())
            .filter_map(|s| core::str::from_utf8(s).ok())
    }

    /// A string property; an empty one is a string too.
    pub fn string(&self, name: &str) -> Option<&'a str> {
        let value = self.property(name)?;
        let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
        core::str::from_utf8(value.get(..end)?).ok()
    }

    /// Whether one of `names` stands in `compatible`.
    pub fn is_compatible(&self, names: &[&str]) -> bool {
        self.strings("compatible").any(|c| names.contains(&c))
    }

    /// Whether `device_type` is `kind`.
    pub fn is_type(&self, kind: &str) -> bool {
        self.string("device_type") == Some(kind)
    }

    /// Whether `status` does not switch the node off.
    pub fn is_enabled(&self) -> bool {
        matches!(self.string("status"), None | Some("okay" | "ok"))
    }

    /// Cells of an address on the bus that this node is.
    pub fn address_cells(&self) -> usize {
        self.cell_count("#address-cells").unwrap_or(2)
    }

    /// Cells of a size on the bus that this node is.
    pub fn size_cells(&self) -> usize {
        self.cell_count("#size-cells").unwrap_or(1)
    }

    /// A property that counts cells; a count beyond all reason reads as `TOO_MANY_CELLS`, so that sums stay small.
    pub fn cell_count(&self, name: &str) -> Option<usize> {
        self.u32(name).map(|n| n.min(TOO_MANY_CELLS) as usize)
    }

    /// The entries of `reg`; none on a bus whose addresses are not numbers of one or two cells.
    pub fn reg(&self) -> impl Iterator<Item = Reg> + use<'a> {
        let (address, size) = self
            .parent()
            .map_or((0, 0), |bus| (bus.address_cells(), bus.size_cells()));
        self.reg_of_cells(address, size)
    }

    /// The entries of `reg` for addresses and sizes of so many cells.
    pub fn reg_of_cells(&self, address: usize, size: usize) -> impl Iterator<Item = Reg> + use<'a> {
        let possible = matches!(address, 1 | 2) && size <= 2;
        let value = self.property("reg").filter(|_| possible).unwrap_or(&[]);
        value
            .chunks_exact(((address + size) * 4).clamp(4, 16))
            .filter_map(move |entry| {
                let (address, size) = entry.split_at_checked(address * 4)?;
                Some(Reg {
                    address: be(address)?,
                    size: if size.is_empty() { 0 } else { be(size)? },
                })
            })
    }

    fn entry(&self) -> Option<Entry> {
        self.tree.blob.nodes().get(self.index).copied()
    }
}

impl PartialEq for Node<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index
    }
}

/// The big-endian number in 4 or 8 bytes.
pub(super) fn be(bytes: &[u8]) -> Option<u64> {
    match bytes.len() {
        4 => Some(u64::from(u32::from_be_bytes(bytes.try_into().ok()?))),
        8 => Some(u64::from_be_bytes(bytes.try_into().ok()?)),
        _ => None,
    }
}

/// The cells of a value.
pub(super) fn cells(value: &[u8]) -> impl Iterator<Item = u32> {
    value
        .chunks_exact(4)
        .filter_map(|cell| Some(u32::from_be_bytes(cell.try_into().ok()?)))
}
