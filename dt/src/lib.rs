//! Reads and writes flattened device trees (Devicetree Specification 0.4, chapter 5) in memory that the caller lends.
//!
//! [`Blob::check`] walks all of a blob once. [`Tree`] then reads its nodes and typed properties, and [`Writer`] writes a new
//! blob. The blob comes from a boot loader, which is trusted but not infallible: a damaged one is an [`Error`], and never a
//! panic. Whoever searches a tree pays for it out of one [`BUDGET`].
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod blob;
mod tree;
mod writer;

pub use blob::{Blob, Cursor, Error, MAX_NODES, MAX_SIZE, Token, size};
pub use tree::{BUDGET, Entry, Node, PHANDLE, Path, Reg, Tree};
pub use writer::Writer;

const MAGIC: u32 = 0xd00d_feed;
const HEADER: usize = 40;
const VERSION: u32 = 17;
/// The oldest version that this one can be read as.
const OLDEST: u32 = 16;

const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;

/// Returns the big-endian number in 4 or 8 bytes.
#[inline(never)] // for size: it has many callers, all of the boot
pub fn number(bytes: &[u8]) -> Option<u64> {
    match bytes.len() {
        4 => Some(u64::from(u32::from_be_bytes(bytes.try_into().ok()?))),
        8 => Some(u64::from_be_bytes(bytes.try_into().ok()?)),
        _ => None,
    }
}

/// Returns the cells of a value: numbers of 32 bits.
pub fn cells(value: &[u8]) -> impl Iterator<Item = u32> {
    value
        .chunks_exact(4)
        .filter_map(|cell| Some(u32::from_be_bytes(cell.try_into().ok()?)))
}

#[cfg(test)]
mod tests;
