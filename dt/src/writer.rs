//! Writes a blob of version 17.
//!
//! It is never stricter than the reader: a name is written as it is, however long, whatever it begins with. What is written
//! in the wrong order (a property behind a subnode) makes a blob that no reader takes.

use crate::{BEGIN_NODE, END, END_NODE, HEADER, MAGIC, OLDEST, PROPERTY, VERSION};

/// Bytes of names that are looked through before a name is written again: real trees have half of it.
pub(crate) const SHARED_NAMES: usize = 8192;

/// A tree while it is written: nodes are begun and ended, a node's properties come before its subnodes.
pub struct Writer<'o> {
    /// Header, reservations and structure, and behind `limit` the names of properties.
    out: &'o mut [u8],
    at: usize,
    limit: usize,
    /// Where the structure block begins; 0 until the first node does.
    structure: usize,
    /// Bytes of names.
    names: usize,
    /// The part of them that is looked through.
    shared: usize,
    /// Nodes that are begun and not ended.
    open: usize,
    /// Something did not fit, and was left out.
    is_full: bool,
}

impl<'o> Writer<'o> {
    /// Begins a tree in `out`, of which `names` bytes are for the names of properties.
    pub fn new(out: &'o mut [u8], names: usize) -> Self {
        let mut writer = Self {
            at: 0,
            limit: out.len().saturating_sub(names),
            out,
            structure: 0,
            names: 0,
            shared: 0,
            open: 0,
            is_full: false,
        };
        writer.put(&[0; HEADER]);
        writer
    }

    /// Adds an entry to the memory reservation block, before the first node.
    pub fn reserve(&mut self, address: u64, size: u64) {
        self.put(&address.to_be_bytes());
        self.put(&size.to_be_bytes());
    }

    /// Begins a node below the one that is open; the root's name is empty.
    pub fn begin(&mut self, name: &str) {
        if self.structure == 0 {
            self.reserve(0, 0);
            self.structure = self.at;
        }
        self.word(BEGIN_NODE);
        self.put(up_to_nul(name).as_bytes());
        self.put(&[0]);
        self.pad();
        self.open += 1;
    }

    /// Ends the node that was begun last.
    pub fn end(&mut self) {
        if self.open > 0 {
            self.word(END_NODE);
            self.open -= 1;
        }
    }

    /// Writes a property of the open node.
    pub fn property(&mut self, name: &str, value: &[u8]) {
        self.parts(name, &[value]);
    }

    /// Writes a property whose value comes in parts.
    pub fn parts(&mut self, name: &str, parts: &[&[u8]]) {
        self.property_head(name, parts.iter().map(|part| part.len()).sum());
        for part in parts {
            self.put(part);
        }
        self.pad();
    }

    /// Writes a property that holds a string, of which a NUL would be the end.
    pub fn string(&mut self, name: &str, value: &str) {
        self.strings(name, &[up_to_nul(value)]);
    }

    /// Writes a property that holds a list of strings.
    pub fn strings(&mut self, name: &str, values: &[&str]) {
        self.property_head(name, values.iter().map(|value| value.len() + 1).sum());
        for value in values {
            self.put(value.as_bytes());
            self.put(&[0]);
        }
        self.pad();
    }

    /// Writes a property that holds cells.
    pub fn cells(&mut self, name: &str, cells: &[u32]) {
        self.property_head(name, cells.len() * 4);
        for cell in cells {
            self.word(*cell);
        }
    }

    /// Ends the nodes that are open and returns the length of the blob, which begins `out`; `None` when it does not fit.
    pub fn finish(mut self) -> Option<usize> {
        while self.open > 0 {
            self.end();
        }
        self.word(END);
        let names = self.limit..self.limit + self.names;
        let length = self.at + self.names;
        if self.is_full || names.end > self.out.len() {
            return None;
        }
        self.out.copy_within(names, self.at);
        let fields = [
            MAGIC as usize,
            length,
            self.structure,
            self.at,
            HEADER,
            VERSION as usize,
            OLDEST as usize,
            // The boot CPU's `reg`, which nobody reads.
            0,
            self.names,
            self.at - self.structure,
        ];
        for (place, field) in self.out.chunks_exact_mut(4).zip(fields) {
            place.copy_from_slice(&(field as u32).to_be_bytes());
        }
        Some(length)
    }

    /// Writes what comes before a value.
    fn property_head(&mut self, name: &str, length: usize) {
        let name = self.name(up_to_nul(name).as_bytes());
        self.word(PROPERTY);
        self.word(length as u32);
        self.word(name as u32);
    }

    /// Returns where among the names `name` is, and puts it there if need be.
    fn name(&mut self, name: &[u8]) -> usize {
        let known = self.out.get(self.limit..).unwrap_or(&[]);
        let mut at = 0;
        for known in known
            .get(..self.shared)
            .unwrap_or(&[])
            .split(|byte| *byte == 0)
        {
            if known == name && at < self.shared {
                return at;
            }
            at += known.len() + 1;
        }
        let at = self.names;
        for part in [name, &[0]] {
            self.is_full |= !copy_to(self.out, self.limit + self.names, part);
            self.names += part.len();
        }
        if self.names <= SHARED_NAMES {
            self.shared = self.names;
        }
        at
    }

    fn word(&mut self, word: u32) {
        self.put(&word.to_be_bytes());
    }

    fn pad(&mut self) {
        while !self.at.is_multiple_of(4) {
            self.put(&[0]);
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        let room = self.out.get_mut(..self.limit).unwrap_or(&mut []);
        self.is_full |= !copy_to(room, self.at, bytes);
        self.at += bytes.len();
    }
}

/// Returns whether `bytes` fit at this place.
fn copy_to(out: &mut [u8], at: usize, bytes: &[u8]) -> bool {
    let place = out
        .get_mut(at..)
        .and_then(|rest| rest.get_mut(..bytes.len()));
    place.map(|place| place.copy_from_slice(bytes)).is_some()
}

fn up_to_nul(text: &str) -> &str {
    text.split('\0').next().unwrap_or("")
}
