//! RAM banks and reserved ranges.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use dt::{Blob, Node, Tree};

use super::BootError;
use super::ranges::{self, PhysRange};
use super::translate;

/// Minimum RAM in MiB: for the hypervisor and a small dom0.
pub const MIN_RAM_MIB: u64 = 128;
/// Maximum number of banks; boards have up to 8.
const MAX_BANKS: usize = 64;
/// Maximum distance between RAM's ends, as a multiple of its size. The frame table then takes at most 1/32 of RAM, at 8
/// bytes per 4 KiB frame.
const MAX_SPREAD: u64 = 16;
/// Where the addresses end at which a CPU starts: with its MMU off it has 32 bits.
const LOW_END: u64 = 1 << 32;

/// Returns the machine's RAM, page-aligned, sorted and merged.
pub(super) fn banks(tree: &Tree<'_>, notes: &mut Vec<String>) -> Result<Vec<PhysRange>, BootError> {
    let mut banks: Vec<PhysRange> = Vec::new();
    for node in tree.all().filter(is_memory).filter(Node::is_enabled) {
        for reg in node.reg() {
            if reg.size == 0 {
                continue;
            }
            if banks.len() >= MAX_BANKS {
                notes.push(format!(
                    "BOOT: more than {MAX_BANKS} RAM banks, rest ignored"
                ));
                break;
            }
            let bank = usable(reg.address, reg.size, notes);
            let Some(bank) = bank.and_then(|bank| bank.pages_inward()) else {
                let (base, size) = (reg.address, reg.size);
                notes.push(format!("BOOT: RAM bank {base:#x} size {size:#x} ignored"));
                continue;
            };
            if let Some(other) = banks.iter().find(|other| other.overlaps(&bank)) {
                notes.push(format!("BOOT: RAM banks {bank} and {other} overlap"));
            }
            banks.push(bank);
        }
    }
    let banks = near(ranges::merge(banks), notes);
    let found = banks.iter().map(PhysRange::size).sum::<u64>() >> 20;
    let need = MIN_RAM_MIB;
    match banks.first().map(PhysRange::base) {
        _ if found < need => Err(BootError::TooLittleRam { found, need }),
        Some(base) if base >= LOW_END => Err(BootError::HighRam(base)),
        _ => Ok(banks),
    }
}

/// Returns whether the node is RAM, by `device_type`, which old trees omit below the root.
pub(crate) fn is_memory(node: &Node<'_>) -> bool {
    node.is_type("memory")
        || node.base_name() == "memory"
            && !node.has("device_type")
            && !node.has("compatible")
            && node.parent().is_some_and(|parent| parent.index() == 0)
}

/// Returns the part of a bank below 2^40.
fn usable(base: u64, size: u64, notes: &mut Vec<String>) -> Option<PhysRange> {
    let whole = PhysRange::new(base, size);
    if whole.is_some() {
        return whole;
    }
    let cut = PhysRange::from_ends(base, ranges::ADDR_END)?;
    notes.push(format!(
        "BOOT: RAM bank {base:#x} size {size:#x} cut at 40 address bits"
    ));
    Some(cut)
}

/// Removes banks so far away that the frame table entries in between would exceed their size.
fn near(mut banks: Vec<PhysRange>, notes: &mut Vec<String>) -> Vec<PhysRange> {
    loop {
        let total: u64 = banks.iter().map(PhysRange::size).sum();
        let (Some(first), Some(last)) = (banks.first(), banks.last()) else {
            return banks;
        };
        let span = last.end() - first.base();
        if banks.len() < 2 || span <= total.saturating_mul(MAX_SPREAD) {
            return banks;
        }
        // dom0's kernel needs low RAM, so the last bank is removed, unless that leaves too little.
        let far = match total - last.size() >= MIN_RAM_MIB << 20 {
            true => banks.pop(),
            false => Some(banks.remove(0)),
        };
        if let Some(far) = far {
            notes.push(format!(
                "BOOT: RAM bank {far} ignored: too far from the rest"
            ));
        }
    }
}

/// Returns the ranges of `/reserved-memory` with a fixed address, page-aligned.
pub(crate) fn reserved_nodes(tree: &Tree<'_>, notes: &mut Vec<String>) -> Vec<PhysRange> {
    let Some(parent) = reserved_memory(tree) else {
        return Vec::new();
    };
    let mut reserved = Vec::new();
    let mapped = parent.has("ranges");
    // Firmware that omits `ranges` omits the cell counts too, and uses the root's.
    let root = tree.root();
    let cells = |name| parent.cell_count(name).or_else(|| root.cell_count(name));
    let cells = (cells("#address-cells"), cells("#size-cells"));
    for node in parent.children().filter(Node::is_enabled) {
        let ranges: Vec<_> = match mapped {
            true => translate::reg_ranges(&node).collect(),
            false => node
                .reg_of_cells(cells.0.unwrap_or(2), cells.1.unwrap_or(1))
                .map(|reg| PhysRange::new(reg.address, reg.size))
                .collect(),
        };
        let path = node.path();
        let usable = ranges.iter().flatten().count();
        if node.has("reg") && (usable == 0 || usable < ranges.len()) {
            notes.push(format!("BOOT: {path} has no usable reg, not reserved"));
        }
        if !mapped && usable > 0 {
            notes.push(format!(
                "BOOT: {path} is reserved, although /reserved-memory has no ranges"
            ));
        }
        let ranges = ranges.into_iter().flatten();
        reserved.extend(ranges.map(|range| range.pages_outward()));
    }
    ranges::merge(reserved)
}

/// Returns whether Linux accepts `/reserved-memory`: it requires `ranges`, and the root's cell counts.
pub(super) fn reservations_hold(tree: &Tree<'_>) -> bool {
    let root = tree.root();
    let like_root = |name| {
        reserved_memory(tree).is_none_or(|node| node.cell_count(name) == root.cell_count(name))
    };
    reserved_memory(tree).is_none_or(|node| node.has("ranges"))
        && like_root("#address-cells")
        && like_root("#size-cells")
}

fn reserved_memory<'a>(tree: &'a Tree<'a>) -> Option<Node<'a>> {
    let mut children = tree.root().children();
    children.find(|node| node.name() == "reserved-memory")
}

/// Returns the ranges of the memory reservation block, page-aligned.
pub(super) fn reserved_entries(blob: &Blob<'_>) -> Vec<PhysRange> {
    blob.reserved()
        .filter_map(|(base, size)| PhysRange::new(base, size))
        .map(|range| range.pages_outward())
        .collect()
}
