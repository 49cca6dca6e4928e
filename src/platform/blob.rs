//! Device tree blobs: the gate in front of all that reads them, and the reader of nodes and properties.
//!
//! Nothing reads a blob that has not passed [`Blob::check`], which walks the whole structure block once, with every offset,
//! length, string and nesting checked. What passes holds:
//!
//! - header fields lie within the blob, version 17 layout (Devicetree Specification 0.4, chapter 5);
//! - tokens nest, properties come before subnodes, END closes the block;
//! - every name is terminated, valid UTF-8 and of bounded length.
//!
//! NOP tokens, which loaders leave where they deleted something, are passed over wherever they stand. The walk records where
//! each node is, 8 bytes for each. Nothing is copied: the largest tree is read out of the early heap, which is small.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ffi::CStr;

use arrayvec::ArrayVec;

use super::BootError;

pub(super) const MAGIC: u32 = 0xd00d_feed;
pub(super) const HEADER: usize = 40;
pub(super) const VERSION: u32 = 17;
/// No board's tree comes near: QEMU pads its own to 1 MiB.
pub const MAX_SIZE: usize = 2 << 20;
/// Buses nest fewer than ten.
const MAX_DEPTH: usize = 32;
/// Bounds the work on a damaged tree; the largest known board has some 3000. Indices of nodes fit into 16 bits.
pub const MAX_NODES: usize = 16384;
const _: () = assert!(MAX_NODES <= u16::MAX as usize);
/// The smallest node: its two tokens and the terminator of its name, padded.
const MIN_NODE: usize = 12;
/// Entries of the memory reservation block; boards have a handful.
const MAX_RESERVED: usize = 1024;
/// Longest accepted name of a node or property; the specification has 31, real trees exceed it a little.
const MAX_NAME: usize = 127;

pub(super) const BEGIN_NODE: u32 = 1;
pub(super) const END_NODE: u32 = 2;
pub(super) const PROP: u32 = 3;
const NOP: u32 = 4;
pub(super) const END: u32 = 9;

/// A node: indices count nodes in the order of the structure block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Where its name starts in the structure block.
    name: u32,
    parent: u16,
    end: u16,
}

impl Entry {
    /// The parent's index; the root's is its own.
    pub fn parent(&self) -> usize {
        self.parent.into()
    }

    /// One past the last node below this one.
    pub fn end(&self) -> usize {
        self.end.into()
    }
}

/// A device tree blob that has passed the check.
pub struct Blob<'a> {
    structure: &'a [u8],
    strings: &'a [u8],
    nodes: Vec<Entry>,
    reserved: Vec<(u64, u64)>,
}

struct Header {
    total: usize,
    structure: (usize, usize),
    strings: (usize, usize),
    reserve_map: usize,
}

impl<'a> Blob<'a> {
    /// Checks all of `bytes`, which may be longer than the tree.
    pub fn check(bytes: &'a [u8]) -> Result<Self, BootError> {
        let header = Header::read(bytes)?;
        let bytes = bytes
            .get(..header.total)
            .ok_or_else(|| corrupt("totalsize"))?;
        let strings = slice(bytes, header.strings).ok_or_else(|| corrupt("off_dt_strings"))?;
        let structure = slice(bytes, header.structure).ok_or_else(|| corrupt("off_dt_struct"))?;
        let reserved = reserve_map(bytes, header.reserve_map)?;
        Ok(Self {
            structure,
            strings,
            nodes: Walk::run(structure, strings)?,
            reserved,
        })
    }

    /// Address and size of each entry of the memory reservation block.
    pub fn reserved(&self) -> &[(u64, u64)] {
        &self.reserved
    }

    /// Bytes of names, values and structure, without the padding that boot loaders leave.
    pub fn content_size(&self) -> usize {
        HEADER + self.structure.len() + self.strings.len()
    }

    /// All nodes, a parent before its children.
    pub(super) fn nodes(&self) -> &[Entry] {
        &self.nodes
    }

    /// Name of a node with unit address.
    pub(super) fn name(&self, node: Entry) -> &'a str {
        text_at(self.structure, node.name as usize).unwrap_or("")
    }

    /// The properties of a node: name and value.
    pub(super) fn properties(
        &self,
        node: Entry,
    ) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        let strings = self.strings;
        self.raw_properties(node)
            .filter_map(move |(name, value)| Some((text_at(strings, name)?, value)))
    }

    /// The value of a property.
    pub(super) fn property(&self, node: Entry, name: &str) -> Option<&'a [u8]> {
        let is_named = |at: usize| {
            let rest = self.strings.get(at..)?.strip_prefix(name.as_bytes())?;
            (*rest.first()? == 0).then_some(())
        };
        self.raw_properties(node)
            .find_map(|(at, value)| is_named(at).map(|()| value))
    }

    /// The properties of a node: where the name is among the strings, and the value.
    fn raw_properties(&self, node: Entry) -> impl Iterator<Item = (usize, &'a [u8])> + use<'a> {
        let structure = self.structure;
        let mut at = node.name as usize + ((self.name(node).len() + 4) & !3);
        core::iter::from_fn(move || {
            while word(structure, at)? == NOP {
                at += 4;
            }
            if word(structure, at)? != PROP {
                return None;
            }
            let len = word(structure, at + 4)? as usize;
            let name = word(structure, at + 8)? as usize;
            let value = structure.get(at + 12..)?.get(..len)?;
            at += 12 + ((len + 3) & !3);
            Some((name, value))
        })
    }
}

impl Header {
    fn read_size(bytes: &[u8]) -> Result<usize, BootError> {
        let magic = word(bytes, 0).ok_or_else(|| corrupt("header"))?;
        if magic != MAGIC {
            return Err(BootError::NoTree(magic));
        }
        let total = word(bytes, 4).ok_or_else(|| corrupt("header"))? as usize;
        if !(HEADER..=MAX_SIZE).contains(&total) {
            return Err(corrupt(&format!("totalsize {total:#x}")));
        }
        Ok(total)
    }

    fn read(bytes: &[u8]) -> Result<Self, BootError> {
        let total = Self::read_size(bytes)?;
        if total > bytes.len() {
            let have = bytes.len();
            return Err(corrupt(&format!(
                "totalsize {total:#x}, only {have:#x} here"
            )));
        }
        let field = |at| word(bytes, at).ok_or_else(|| corrupt("header"));
        let version = field(20)?;
        if version < VERSION || field(24)? > VERSION {
            return Err(BootError::TreeVersion(version));
        }
        let block = |name, offset: u32, size: u32| {
            let (offset, size) = (offset as usize, size as usize);
            match offset.checked_add(size) {
                Some(end) if offset >= HEADER && end <= total => Ok((offset, end)),
                _ => Err(corrupt(&format!("{name} {offset:#x} size {size:#x}"))),
            }
        };
        let structure = block("off_dt_struct", field(8)?, field(36)?)?;
        if structure.0 % 4 != 0 {
            return Err(corrupt("off_dt_struct is not a multiple of 4"));
        }
        Ok(Self {
            total,
            structure,
            strings: block("off_dt_strings", field(12)?, field(32)?)?,
            reserve_map: block("off_mem_rsvmap", field(16)?, 0)?.0,
        })
    }
}

/// The one pass over the structure block.
struct Walk<'a> {
    structure: &'a [u8],
    strings: &'a [u8],
    at: usize,
    nodes: Vec<Entry>,
}

impl<'a> Walk<'a> {
    fn run(structure: &'a [u8], strings: &'a [u8]) -> Result<Vec<Entry>, BootError> {
        let mut walk = Self {
            structure,
            strings,
            at: 0,
            nodes: Vec::new(),
        };
        // Once and for all: a vector that grows needs both its old and its new place.
        let most = (structure.len() / MIN_NODE + MAX_DEPTH).min(MAX_NODES);
        walk.nodes
            .try_reserve_exact(most)
            .map_err(|_| corrupt("no memory to read it"))?;
        walk.all()?;
        walk.nodes.shrink_to_fit();
        Ok(walk.nodes)
    }

    fn all(&mut self) -> Result<(), BootError> {
        let mut open: ArrayVec<u16, MAX_DEPTH> = ArrayVec::new();
        // Properties may only come before the first subnode.
        let mut may_have_properties = false;
        loop {
            let token_at = self.at;
            match self.token()? {
                BEGIN_NODE => {
                    let name = self.at as u32;
                    self.node_name(open.is_empty())?;
                    let index = self.nodes.len();
                    if open.is_empty() && index > 0 {
                        return Err(self.bad("a second root", token_at));
                    }
                    if index >= MAX_NODES {
                        return Err(self.bad("too many nodes", token_at));
                    }
                    let index = index as u16;
                    let parent = open.last().copied().unwrap_or(index);
                    if open.try_push(index).is_err() {
                        return Err(self.bad("nodes nest too deep", token_at));
                    }
                    self.nodes.push(Entry {
                        name,
                        parent,
                        end: index + 1,
                    });
                    may_have_properties = true;
                }
                END_NODE => {
                    let end = self.nodes.len() as u16;
                    let node = open
                        .pop()
                        .and_then(|index| self.nodes.get_mut(usize::from(index)));
                    match node {
                        Some(node) => node.end = end,
                        None => return Err(self.bad("unexpected end of node", token_at)),
                    }
                    may_have_properties = false;
                }
                PROP if may_have_properties => self.property()?,
                PROP => return Err(self.bad("property outside its place", token_at)),
                NOP => {}
                END if open.is_empty() && !self.nodes.is_empty() => return Ok(()),
                END => return Err(self.bad("end inside a node", token_at)),
                token => return Err(self.bad(&format!("token {token:#x}"), token_at)),
            }
        }
    }

    fn token(&mut self) -> Result<u32, BootError> {
        let token = word(self.structure, self.at)
            .ok_or_else(|| self.bad("structure block ends early", self.at))?;
        self.at += 4;
        Ok(token)
    }

    fn node_name(&mut self, root: bool) -> Result<(), BootError> {
        let name =
            name_at(self.structure, self.at).ok_or_else(|| self.bad("node name", self.at))?;
        if name.is_empty() != root {
            return Err(self.bad("node name", self.at));
        }
        self.at += (name.len() + 4) & !3;
        Ok(())
    }

    fn property(&mut self) -> Result<(), BootError> {
        let at = self.at;
        let len = self.token()? as usize;
        let name_offset = self.token()? as usize;
        match name_at(self.strings, name_offset) {
            Some(name) if !name.is_empty() => {}
            _ => return Err(self.bad("property name", at)),
        }
        if len > self.structure.len() - self.at.min(self.structure.len()) {
            return Err(self.bad("property length", at));
        }
        self.at += (len + 3) & !3;
        Ok(())
    }

    fn bad(&self, what: &str, at: usize) -> BootError {
        corrupt(&format!("{what} at {at:#x} of the structure block"))
    }
}

fn reserve_map(bytes: &[u8], offset: usize) -> Result<Vec<(u64, u64)>, BootError> {
    let mut entries = Vec::new();
    let rest = bytes.get(offset..).unwrap_or(&[]);
    for entry in rest.chunks_exact(16) {
        let (address, size) = entry.split_at(8);
        let entry = (super::tree::be(address), super::tree::be(size));
        match entry {
            (Some(0), Some(0)) => return Ok(entries),
            (Some(address), Some(size)) => entries.push((address, size)),
            _ => break,
        }
        if entries.len() > MAX_RESERVED {
            return Err(corrupt("more than 1024 memory reservations"));
        }
    }
    Err(corrupt("memory reservation block does not end"))
}

/// The terminated, valid name at `at`.
fn name_at(block: &[u8], at: usize) -> Option<&str> {
    let rest = block.get(at..)?;
    let window = rest.get(..rest.len().min(MAX_NAME + 1))?;
    let end = window.iter().position(|b| *b == 0)?;
    let name = core::str::from_utf8(window.get(..end)?).ok()?;
    name.bytes().all(|b| b.is_ascii_graphic()).then_some(name)
}

/// The same of a block that has been checked, where the name is known to be good.
fn text_at(block: &[u8], at: usize) -> Option<&str> {
    CStr::from_bytes_until_nul(block.get(at..)?)
        .ok()?
        .to_str()
        .ok()
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

fn slice(bytes: &[u8], (start, end): (usize, usize)) -> Option<&[u8]> {
    bytes.get(start..end)
}

fn corrupt(what: &str) -> BootError {
    BootError::Corrupt(String::from(what))
}
