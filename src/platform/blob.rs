//! The gate in front of the `fdt` crate: nothing reads a blob that has not passed [`Blob::check`].
//!
//! `fdt` 0.1.5 reads a well-formed tree well and panics on others; it also loses nodes at the NOP tokens that QEMU leaves
//! where it deleted a node. So the whole structure block is walked once here, with every offset, length, string and nesting
//! checked, and a blob with NOPs is copied without them. What passes satisfies all that `fdt` takes for granted:
//!
//! - header fields lie within the blob, version 17 layout (Devicetree Specification 0.4, chapter 5);
//! - tokens nest, properties come before subnodes, END closes the block;
//! - every name is terminated, valid UTF-8 and of bounded length.
//!
//! The walk also records each node's parent, which `fdt` cannot tell.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use fdt::Fdt;

use super::BootError;

pub(super) const MAGIC: u32 = 0xd00d_feed;
pub(super) const HEADER: usize = 40;
pub(super) const VERSION: u32 = 17;
/// No board's tree comes near: QEMU pads its own to 1 MiB.
pub const MAX_SIZE: usize = 2 << 20;
/// `fdt` keeps 64 levels; buses nest fewer than ten.
const MAX_DEPTH: usize = 32;
/// Bounds the work on a damaged tree; the largest known board has some 3000.
const MAX_NODES: usize = 16384;
/// Longest accepted name of a node or property; the specification has 31, real trees exceed it a little.
const MAX_NAME: usize = 127;

pub(super) const BEGIN_NODE: u32 = 1;
pub(super) const END_NODE: u32 = 2;
pub(super) const PROP: u32 = 3;
const NOP: u32 = 4;
pub(super) const END: u32 = 9;

/// Where a node hangs: indices count nodes in the order of the structure block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    /// The parent's index; the root's is its own.
    pub parent: usize,
    /// One past the last node below this one.
    pub end: usize,
}

/// A device tree blob that has passed the check.
pub struct Blob<'a> {
    bytes: Cow<'a, [u8]>,
    links: Vec<Link>,
    reserved: Vec<(u64, u64)>,
    content: usize,
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
        let walk = Walk::run(structure, strings)?;
        let bytes = match walk.nops {
            true => Cow::Owned(without_nops(structure, strings)?),
            false => Cow::Borrowed(bytes),
        };
        Ok(Self {
            bytes,
            links: walk.links,
            reserved,
            content: HEADER + structure.len() + strings.len(),
        })
    }

    /// The reader of the tree.
    pub fn reader(&self) -> Result<Fdt<'_>, BootError> {
        Fdt::new(&self.bytes).map_err(|e| corrupt(&format!("{e}")))
    }

    /// Address and size of each entry of the memory reservation block.
    pub fn reserved(&self) -> &[(u64, u64)] {
        &self.reserved
    }

    /// Bytes of names, values and structure, without the padding that boot loaders leave.
    pub fn content_size(&self) -> usize {
        self.content
    }

    pub(super) fn links(&self) -> &[Link] {
        &self.links
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
    links: Vec<Link>,
    nops: bool,
}

impl<'a> Walk<'a> {
    fn run(structure: &'a [u8], strings: &'a [u8]) -> Result<Self, BootError> {
        let mut walk = Self {
            structure,
            strings,
            at: 0,
            links: Vec::new(),
            nops: false,
        };
        walk.nodes()?;
        Ok(walk)
    }

    fn nodes(&mut self) -> Result<(), BootError> {
        let mut open: Vec<usize> = Vec::new();
        // Properties may only come before the first subnode.
        let mut may_have_properties = false;
        loop {
            let token_at = self.at;
            match self.token()? {
                BEGIN_NODE => {
                    self.node_name(open.is_empty())?;
                    let index = self.links.len();
                    if open.is_empty() && index > 0 {
                        return Err(self.bad("a second root", token_at));
                    }
                    if open.len() >= MAX_DEPTH {
                        return Err(self.bad("nodes nest too deep", token_at));
                    }
                    if index >= MAX_NODES {
                        return Err(self.bad("too many nodes", token_at));
                    }
                    let parent = open.last().copied().unwrap_or(index);
                    self.links.push(Link {
                        parent,
                        end: index + 1,
                    });
                    open.push(index);
                    may_have_properties = true;
                }
                END_NODE => {
                    let end = self.links.len();
                    let link = open.pop().and_then(|index| self.links.get_mut(index));
                    match link {
                        Some(link) => link.end = end,
                        None => return Err(self.bad("unexpected end of node", token_at)),
                    }
                    may_have_properties = false;
                }
                PROP if may_have_properties => self.property()?,
                PROP => return Err(self.bad("property outside its place", token_at)),
                NOP => self.nops = true,
                END if open.is_empty() && !self.links.is_empty() => return Ok(()),
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

/// A version 17 blob of the same tree without NOP tokens and without the reservation block, which is read already.
fn without_nops(structure: &[u8], strings: &[u8]) -> Result<Vec<u8>, BootError> {
    // An empty reservation block is one zero entry of 16 bytes.
    const STRUCTURE: usize = HEADER + 16;
    let mut out = Vec::with_capacity(STRUCTURE + structure.len() + strings.len());
    out.resize(STRUCTURE, 0);
    let mut at = 0;
    loop {
        let token = word(structure, at).ok_or_else(|| corrupt("structure block"))?;
        let size = match token {
            BEGIN_NODE => {
                let name = name_at(structure, at + 4).ok_or_else(|| corrupt("node name"))?;
                4 + ((name.len() + 4) & !3)
            }
            PROP => {
                let len = word(structure, at + 4).ok_or_else(|| corrupt("property"))?;
                12 + ((len as usize + 3) & !3)
            }
            _ => 4,
        };
        if token != NOP {
            let item = slice(structure, (at, at + size)).ok_or_else(|| corrupt("property"))?;
            out.extend_from_slice(item);
        }
        at += size;
        if token == END {
            break;
        }
    }
    let strings_at = out.len();
    out.extend_from_slice(strings);
    let fields = [
        MAGIC as usize,
        out.len(),
        STRUCTURE,
        strings_at,
        HEADER,
        VERSION as usize,
        16,
        0,
        strings.len(),
        strings_at - STRUCTURE,
    ];
    for (place, field) in out.chunks_exact_mut(4).zip(fields) {
        place.copy_from_slice(&(field as u32).to_be_bytes());
    }
    Ok(out)
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
        if entries.len() > MAX_NODES {
            break;
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
