//! Nodes with parents, paths and typed properties of a checked [`Blob`].
//!
//! A property of the wrong shape reads as absent, and the caller decides whether it can do without.

use core::cell::Cell;
use core::fmt::{self, Write};

use crate::blob::{Blob, Cursor, MAX_NODES, Token};
use crate::{cells, number};

/// Steps that a boot may take with its tree, from the first look to dom0: properties and entries of tables that are looked
/// at, children that are passed. No real board needs a tenth of this; a tree that is made to be searched for ever is
/// refused.
pub const BUDGET: u32 = 20_000_000;
/// Bytes of a value that count as one step: whoever gets a value may look through it.
const BYTES_PER_STEP: usize = 16;

/// Properties that hold a node's phandle, the second in old trees.
pub const PHANDLE: [&str; 2] = ["phandle", "linux,phandle"];

/// More cells than any address, size or specifier has.
const TOO_MANY_CELLS: u32 = 255;

/// No node.
const NONE: u16 = u16::MAX;
const _: () = assert!(MAX_NODES < NONE as usize);

/// Place and relations of a node. The caller of [`Tree::new`] lends one for each node.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Where the node begins in the structure block.
    at: u32,
    phandle: u32,
    /// The parent's index; the root's is its own.
    parent: u16,
    /// One past the last node below.
    end: u16,
    /// First node whose phandle, divided by the number of nodes, leaves this entry's index.
    first: u16,
    /// The next such node after this one.
    next: u16,
}

impl Entry {
    /// An entry of no node.
    pub const EMPTY: Self = Self {
        at: 0,
        phandle: 0,
        parent: 0,
        end: 0,
        first: NONE,
        next: NONE,
    };
}

/// All nodes of a checked blob.
pub struct Tree<'a> {
    blob: Blob<'a>,
    entries: &'a [Entry],
    /// Steps that were asked for, also beyond the budget.
    spent: Cell<u32>,
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
    /// Reads the nodes of `blob` into `entries`; `None` when those are too few.
    pub fn new(blob: Blob<'a>, entries: &'a mut [Entry]) -> Option<Self> {
        let entries = entries.get_mut(..blob.nodes())?;
        entries.fill(Entry::EMPTY);
        index(&blob, entries);
        hash(&blob, entries);
        Some(Self {
            blob,
            entries,
            spent: Cell::new(0),
            exhausted_at: Cell::new(None),
        })
    }

    /// Returns the blob.
    pub fn blob(&self) -> &Blob<'a> {
        &self.blob
    }

    /// Returns the root node.
    pub fn root(&'a self) -> Node<'a> {
        self.node(0)
    }

    /// Returns all nodes, a parent before its children.
    pub fn all(&'a self) -> impl Iterator<Item = Node<'a>> {
        (0..self.entries.len()).map(|index| self.node(index))
    }

    /// Returns the node at an absolute path; a component without unit address matches the first node of that name.
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

    /// Returns the first node that carries `phandle`.
    pub fn by_phandle(&'a self, phandle: u32) -> Option<Node<'a>> {
        let mut next = self.entries.get(slot(phandle, self.entries.len()))?.first;
        loop {
            let node = self.node(next.into());
            let entry = self.entries.get(node.index)?;
            if entry.phandle == phandle {
                return Some(node);
            }
            next = entry.next;
            if !node.spend(1) {
                return None;
            }
        }
    }

    /// Returns the nodes that are compatible with one of `names`.
    pub fn compatible(&'a self, names: &'a [&'a str]) -> impl Iterator<Item = Node<'a>> {
        self.all().filter(move |node| node.is_compatible(names))
    }

    /// Returns the node at which the budget ran out; what was read from then on is incomplete.
    pub fn exhausted_at(&'a self) -> Option<Node<'a>> {
        self.exhausted_at.get().map(|index| self.node(index))
    }

    /// Returns the steps that were asked for: more than the budget once that has run out, as the readers come to their ends.
    pub fn spent(&self) -> u32 {
        self.spent.get()
    }

    fn node(&'a self, index: usize) -> Node<'a> {
        Node { tree: self, index }
    }
}

/// Fills in where each node begins and ends, and its parent.
fn index(blob: &Blob<'_>, entries: &mut [Entry]) {
    let mut cursor = blob.cursor(0);
    let (mut open, mut count) = (0, 0);
    loop {
        let at = cursor.at() as u32;
        match cursor.read() {
            Ok(Token::Begin(_)) => {
                if let Some(entry) = entries.get_mut(usize::from(count)) {
                    (entry.at, entry.parent) = (at, open);
                }
                (open, count) = (count, count + 1);
            }
            Ok(Token::Property { .. }) => {}
            Ok(Token::End) => {
                if let Some(entry) = entries.get_mut(usize::from(open)) {
                    (open, entry.end) = (entry.parent, count);
                }
            }
            Ok(Token::Last) | Err(_) => return,
        }
    }
}

/// Makes the nodes found by their phandles, the first of those with the same one first.
fn hash(blob: &Blob<'_>, entries: &mut [Entry]) {
    let count = entries.len();
    for index in (0..count).rev() {
        let at = entries.get(index).map_or(0, |entry| entry.at);
        let Some(phandle) = PHANDLE.iter().find_map(|name| {
            let mut all = Properties::at(blob, at);
            let (_, value) = all.find(|(known, _)| blob.is_named(*known, name))?;
            cells(value).next()
        }) else {
            continue;
        };
        let first = entries.get_mut(slot(phandle, count));
        let next = first.map_or(NONE, |slot| {
            core::mem::replace(&mut slot.first, index as u16)
        });
        if let Some(entry) = entries.get_mut(index) {
            (entry.phandle, entry.next) = (phandle, next);
        }
    }
}

/// Returns the entry that knows the first node of a phandle.
fn slot(phandle: u32, count: usize) -> usize {
    (phandle as usize).checked_rem(count).unwrap_or(0)
}

/// The properties of a node: where the name is, and the value.
struct Properties<'a>(Cursor<'a>);

impl<'a> Properties<'a> {
    fn at(blob: &Blob<'a>, node: u32) -> Self {
        let mut cursor = blob.cursor(node as usize);
        // Passes the node's own token.
        let begins = cursor.read().is_ok();
        debug_assert!(begins);
        Self(cursor)
    }
}

impl<'a> Iterator for Properties<'a> {
    type Item = (u32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        match self.0.read() {
            Ok(Token::Property { name, value }) => Some((name, value)),
            _ => None,
        }
    }
}

impl<'a> Node<'a> {
    /// Returns the place in the order of [`Tree::all`].
    pub fn index(&self) -> usize {
        self.index
    }

    /// Returns the tree.
    pub fn tree(&self) -> &'a Tree<'a> {
        self.tree
    }

    /// Takes steps of a search that begins at this node; `false` when the budget is used up, and then what was read is worth
    /// nothing: see [`Tree::exhausted_at`].
    pub fn spend(&self, steps: usize) -> bool {
        let tree = self.tree;
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        let spent = tree.spent.get().saturating_add(steps);
        tree.spent.set(spent);
        let is_left = spent <= BUDGET;
        if !is_left && tree.exhausted_at.get().is_none() {
            tree.exhausted_at.set(Some(self.index));
        }
        is_left
    }

    /// Returns the name with unit address; the root's is empty.
    pub fn name(&self) -> &'a str {
        let at = self.entry().map_or(0, |entry| entry.at);
        match self.tree.blob.cursor(at as usize).read() {
            Ok(Token::Begin(name)) => name,
            _ => "",
        }
    }

    /// Returns the name without unit address.
    pub fn base_name(&self) -> &'a str {
        self.name().split('@').next().unwrap_or("")
    }

    /// Returns the parent; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        let parent = self.entry()?.parent;
        (self.index > 0).then(|| self.tree.node(parent.into()))
    }

    /// Returns the node itself, its parent and so on up to the root.
    pub fn ancestors(&self) -> impl Iterator<Item = Self> + use<'a> {
        core::iter::successors(Some(*self), Self::parent)
    }

    /// Returns the nodes directly below.
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

    /// Returns the node itself and all nodes below, a parent before its children.
    pub fn subtree(&self) -> impl Iterator<Item = Self> + use<'a> {
        let tree = self.tree;
        (self.index..self.subtree_end()).map(move |index| tree.node(index))
    }

    /// Returns one past the index of the last node below.
    pub fn subtree_end(&self) -> usize {
        let next = self.index + 1;
        self.entry()
            .map_or(next, |entry| next.max(entry.end.into()))
    }

    /// Returns the absolute path.
    pub fn path(&self) -> Path<'a> {
        Path(*self)
    }

    /// Returns all properties: name and value.
    pub fn properties(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        let blob = self.tree.blob;
        let named = move |(name, value)| Some((blob.string(name)?, value));
        self.raw_properties().filter_map(named)
    }

    /// Returns the value of a property.
    pub fn property(&self, name: &str) -> Option<&'a [u8]> {
        let is_it = |property: &(u32, _)| self.tree.blob.is_named(property.0, name);
        let (_, value) = self.raw_properties().find(is_it)?;
        self.spend(value.len() / BYTES_PER_STEP).then_some(value)
    }

    fn raw_properties(&self) -> impl Iterator<Item = (u32, &'a [u8])> + use<'a> {
        let node = *self;
        let at = self.entry().map_or(0, |entry| entry.at);
        Properties::at(&self.tree.blob, at).take_while(move |_| node.spend(1))
    }

    /// Returns whether a property is there.
    pub fn has(&self, name: &str) -> bool {
        self.property(name).is_some()
    }

    /// Returns what other nodes refer to this one by.
    pub fn phandle(&self) -> Option<u32> {
        PHANDLE.into_iter().find_map(|name| self.u32(name))
    }

    /// Returns the cells of a property, none when it is absent.
    pub fn cells(&self, name: &str) -> impl Iterator<Item = u32> + use<'a> {
        cells(self.property(name).unwrap_or(&[]))
    }

    /// Returns the first cell of a property.
    #[inline(never)] // for size, as dt::number
    pub fn u32(&self, name: &str) -> Option<u32> {
        self.cells(name).next()
    }

    /// Returns a number of one or two cells.
    #[inline(never)] // for size, as dt::number
    pub fn number(&self, name: &str) -> Option<u64> {
        number(self.property(name)?)
    }

    /// Returns the strings of a list property.
    pub fn strings(&self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        let value = self.property(name).unwrap_or(&[]);
        value
            .split(|b| *b == 0)
            .filter(|s| !s.is_empty())
            .filter_map(|s| core::str::from_utf8(s).ok())
    }

    /// Returns a string property; an empty one is a string too.
    pub fn string(&self, name: &str) -> Option<&'a str> {
        let value = self.property(name)?;
        let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
        core::str::from_utf8(value.get(..end)?).ok()
    }

    /// Returns whether one of `names` stands in `compatible`.
    pub fn is_compatible(&self, names: &[&str]) -> bool {
        self.strings("compatible").any(|c| names.contains(&c))
    }

    /// Returns whether `device_type` is `kind`.
    pub fn is_type(&self, kind: &str) -> bool {
        self.string("device_type") == Some(kind)
    }

    /// Returns whether `status` does not switch the node off.
    pub fn is_enabled(&self) -> bool {
        matches!(self.string("status"), None | Some("okay" | "ok"))
    }

    /// Returns the cells of an address on the bus that this node is.
    pub fn address_cells(&self) -> usize {
        self.cell_count("#address-cells").unwrap_or(2)
    }

    /// Returns the cells of a size on the bus that this node is.
    pub fn size_cells(&self) -> usize {
        self.cell_count("#size-cells").unwrap_or(1)
    }

    /// Returns a property that counts cells; a count beyond all reason reads as 255, so that sums stay small.
    #[inline(never)] // for size, as dt::number
    pub fn cell_count(&self, name: &str) -> Option<usize> {
        self.u32(name).map(|n| n.min(TOO_MANY_CELLS) as usize)
    }

    /// Returns the entries of `reg`; none on a bus whose addresses are not numbers of one or two cells.
    pub fn reg(&self) -> impl Iterator<Item = Reg> + use<'a> {
        let (address, size) = self
            .parent()
            .map_or((0, 0), |bus| (bus.address_cells(), bus.size_cells()));
        self.reg_of_cells(address, size)
    }

    /// Returns the entries of `reg` for addresses and sizes of so many cells.
    pub fn reg_of_cells(&self, address: usize, size: usize) -> impl Iterator<Item = Reg> + use<'a> {
        let possible = matches!(address, 1 | 2) && size <= 2;
        let value = self.property("reg").filter(|_| possible).unwrap_or(&[]);
        value
            .chunks_exact(((address + size) * 4).clamp(4, 16))
            .filter_map(move |entry| {
                let (address, size) = entry.split_at_checked(address * 4)?;
                Some(Reg {
                    address: number(address)?,
                    size: if size.is_empty() { 0 } else { number(size)? },
                })
            })
    }

    fn entry(&self) -> Option<Entry> {
        self.tree.entries.get(self.index).copied()
    }
}

impl PartialEq for Node<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index
    }
}

/// The absolute path of a node.
#[derive(Clone, Copy)]
pub struct Path<'a>(Node<'a>);

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The root's own name is empty, so its path begins all others.
        match self.0.parent() {
            Some(parent) if parent.index > 0 => Self(parent).fmt(f)?,
            _ => {}
        }
        f.write_char('/')?;
        f.write_str(self.0.name())
    }
}

impl PartialEq<&str> for Path<'_> {
    fn eq(&self, other: &&str) -> bool {
        let (mut node, mut rest) = (self.0, *other);
        loop {
            let above = rest.strip_suffix(node.name());
            let Some(above) = above.and_then(|above| above.strip_suffix('/')) else {
                return false;
            };
            rest = above;
            match node.parent() {
                Some(parent) if parent.index > 0 => node = parent,
                _ => return rest.is_empty(),
            }
        }
    }
}
