//! Blobs: the check in front of all that reads them, and the reader of their tokens.
//!
//! Of a blob that has passed the check these hold:
//!
//! - the header's fields lie within the blob, and its layout is that of version 17;
//! - the tokens nest, a node's properties come before its subnodes, and END closes the structure block;
//! - each name is terminated, printable ASCII, and of bounded length.
//!
//! NOP tokens, which loaders leave where they deleted something, are passed over wherever they stand.

use core::fmt;

use crate::{BEGIN_NODE, END, END_NODE, HEADER, MAGIC, NOP, PROPERTY, VERSION, number};

/// Longest blob that is read. QEMU pads its own to 1 MiB, and no board's comes near.
pub const MAX_SIZE: usize = 2 << 20;
/// Most nodes that are read; the largest known board has some 3000. Indices of nodes fit into 16 bits.
pub const MAX_NODES: usize = 16384;
/// Most nodes inside one another; buses nest fewer than ten.
const MAX_DEPTH: usize = 32;
/// Most entries of the memory reservation block; boards have a handful.
const MAX_RESERVED: usize = 1024;
/// Longest name of a node or property; the specification has 31, real trees exceed it a little.
const MAX_NAME: usize = 127;

/// A fault of a blob.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// It does not begin like one; holds its first word.
    NoTree(u32),
    /// Its version cannot be read.
    Version(u32),
    /// A field of the header; holds its name and value.
    Header(&'static str, usize),
    /// The structure block; holds what is wrong and where.
    Structure(&'static str, usize),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTree(magic) => write!(f, "no device tree (magic {magic:#010x})"),
            Self::Version(version) => write!(f, "device tree version {version} is not 17"),
            Self::Header(what, value) => write!(f, "device tree corrupt: {what} {value:#x}"),
            Self::Structure(what, at) => {
                write!(
                    f,
                    "device tree corrupt: {what} at {at:#x} of the structure block"
                )
            }
        }
    }
}

/// A token of the structure block.
#[derive(Clone, Copy, Debug)]
pub enum Token<'a> {
    /// A node begins; holds its name with unit address.
    Begin(&'a str),
    /// A property of the open node.
    Property {
        /// Place of its name, for [`Blob::string`].
        name: u32,
        /// Its value.
        value: &'a [u8],
    },
    /// The open node ends.
    End,
    /// The structure block ends.
    Last,
}

/// A device tree blob that has passed the check.
#[derive(Clone, Copy)]
pub struct Blob<'a> {
    structure: &'a [u8],
    strings: &'a [u8],
    reservations: &'a [u8],
    nodes: usize,
}

impl<'a> Blob<'a> {
    /// Checks all of `bytes`, which may be longer than the tree. It is the first to read what a boot loader left.
    #[inline(never)]
    pub fn check(bytes: &'a [u8]) -> Result<Self, Error> {
        let total = size(bytes)?;
        let bytes = bytes
            .get(..total)
            .ok_or(Error::Header("totalsize", total))?;
        let field = |at| word(bytes, at).unwrap_or(0);
        let version = field(20);
        if version < VERSION || field(24) > VERSION {
            return Err(Error::Version(version));
        }
        let block = |what, offset: u32, size: usize| {
            let offset = offset as usize;
            let block = bytes.get(offset..).and_then(|rest| rest.get(..size));
            let block = block.filter(|_| offset >= HEADER);
            block.ok_or(Error::Header(what, offset))
        };
        let structure = block("off_dt_struct", field(8), field(36) as usize)?;
        if !field(8).is_multiple_of(4) {
            return Err(Error::Header("odd off_dt_struct", field(8) as usize));
        }
        let strings = block("off_dt_strings", field(12), field(32) as usize)?;
        let place = field(16);
        let rest = block(
            "off_mem_rsvmap",
            place,
            total.saturating_sub(place as usize),
        )?;
        // A pair of zeros is the last.
        let is_last = |pair: &[u8]| pair.iter().all(|byte| *byte == 0);
        let end = rest
            .chunks_exact(16)
            .take(MAX_RESERVED + 1)
            .position(is_last);
        let reservations = end.and_then(|count| rest.get(..count * 16));
        let endless = Error::Header("endless memory reservation block", place as usize);
        let mut blob = Self {
            structure,
            strings,
            reservations: reservations.ok_or(endless)?,
            nodes: 0,
        };
        blob.nodes = blob.count_nodes()?;
        Ok(blob)
    }

    /// Walks the structure block, checks what a [`Cursor`] does not, and returns how many nodes there are.
    fn count_nodes(&self) -> Result<usize, Error> {
        let mut cursor = self.cursor(0);
        let (mut nodes, mut depth) = (0, 0);
        // Properties may only come before the first subnode.
        let mut may_have_properties = false;
        loop {
            let at = cursor.at;
            let what = match cursor.read()? {
                Token::Begin(name) if name.is_empty() != (depth == 0) => "node name",
                Token::Begin(_) if depth == 0 && nodes > 0 => "a second root",
                Token::Begin(_) if nodes >= MAX_NODES => "too many nodes",
                Token::Begin(_) if depth >= MAX_DEPTH => "nodes nest too deep",
                Token::Begin(_) => {
                    (nodes, depth) = (nodes + 1, depth + 1);
                    may_have_properties = true;
                    continue;
                }
                Token::Property { .. } if !may_have_properties => "property outside its place",
                Token::Property { name, .. } => match self.string(name) {
                    Some(name) if !name.is_empty() => continue,
                    _ => "property name",
                },
                Token::End if depth > 0 => {
                    depth -= 1;
                    may_have_properties = false;
                    continue;
                }
                Token::End => "unexpected end of node",
                Token::Last if depth == 0 && nodes > 0 => return Ok(nodes),
                Token::Last => "end inside a node",
            };
            return Err(Error::Structure(what, at));
        }
    }

    /// Returns address and size of each entry of the memory reservation block.
    pub fn reserved(&self) -> impl Iterator<Item = (u64, u64)> + use<'a> {
        self.reservations.chunks_exact(16).filter_map(|entry| {
            let (address, size) = entry.split_at_checked(8)?;
            Some((number(address)?, number(size)?))
        })
    }

    /// Returns the bytes of names, values and structure, without the padding that boot loaders leave.
    pub fn content_size(&self) -> usize {
        HEADER + self.structure.len() + self.strings.len()
    }

    /// Returns the bytes of the names of properties.
    pub fn names_size(&self) -> usize {
        self.strings.len()
    }

    /// Returns the number of nodes.
    pub fn nodes(&self) -> usize {
        self.nodes
    }

    /// Returns a reader of the tokens from a place in the structure block on; 0 is the start.
    pub fn cursor(&self, at: usize) -> Cursor<'a> {
        Cursor {
            structure: self.structure,
            at,
        }
    }

    /// Returns the name of a property.
    pub fn string(&self, name: u32) -> Option<&'a str> {
        name_at(self.strings, name as usize)
    }

    /// Returns whether a property has this name.
    pub(crate) fn is_named(&self, property: u32, name: &str) -> bool {
        let rest = self.strings.get(property as usize..);
        let rest = rest.and_then(|rest| rest.strip_prefix(name.as_bytes()));
        rest.and_then(<[u8]>::first) == Some(&0)
    }
}

/// A reader of tokens.
#[derive(Clone)]
pub struct Cursor<'a> {
    structure: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Returns the place of the next token, or of a NOP before it.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Reads the next token.
    pub fn read(&mut self) -> Result<Token<'a>, Error> {
        while word(self.structure, self.at) == Some(NOP) {
            self.at += 4;
        }
        let start = self.at;
        let bad = |what| Error::Structure(what, start);
        let ends_early = bad("structure block ends early");
        let word = |at| word(self.structure, at).ok_or(ends_early);
        let (token, used) = match word(start)? {
            BEGIN_NODE => {
                let name = name_at(self.structure, start + 4).ok_or(bad("node name"))?;
                (Token::Begin(name), name.len() + 1)
            }
            PROPERTY => {
                let (length, name) = (word(start + 4)? as usize, word(start + 8)?);
                let rest = self.structure.get(start + 12..);
                let value = rest.and_then(|rest| rest.get(..length));
                let value = value.ok_or(bad("property length"))?;
                (Token::Property { name, value }, 8 + length)
            }
            END_NODE => (Token::End, 0),
            END => (Token::Last, 0),
            _ => return Err(bad("unknown token")),
        };
        // So many bytes were there, and a blob is short.
        self.at = start + 4 + used.next_multiple_of(4);
        Ok(token)
    }
}

/// Returns the length of the tree that begins with these bytes.
pub fn size(bytes: &[u8]) -> Result<usize, Error> {
    match word(bytes, 0) {
        Some(MAGIC) => {}
        other => return Err(Error::NoTree(other.unwrap_or(0))),
    }
    let total = word(bytes, 4).unwrap_or(0) as usize;
    match total {
        HEADER..=MAX_SIZE => Ok(total),
        _ => Err(Error::Header("totalsize", total)),
    }
}

/// Returns the terminated, valid name at `at`.
fn name_at(block: &[u8], at: usize) -> Option<&str> {
    let rest = block.get(at..)?;
    let window = rest.get(..rest.len().min(MAX_NAME + 1))?;
    let end = window.iter().position(|byte| *byte == 0)?;
    let name = window.get(..end)?;
    let is_good = name.iter().all(u8::is_ascii_graphic);
    core::str::from_utf8(name).ok().filter(|_| is_good)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes(*bytes))
}
