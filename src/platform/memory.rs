//! RAM banks and what is reserved in them.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::BootError;
use super::blob::Blob;
use super::ranges::{self, PhysRange};
use super::translate;
use super::tree::{Node, Tree};

/// The least RAM that a boot can do with, MiB: the hypervisor and a small dom0.
pub const MIN_RAM_MIB: u64 = 128;
/// Banks that are looked at; boards have up to 8.
const MAX_BANKS: usize = 64;

/// The machine's RAM, page-aligned, sorted and joined.
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
    let banks = ranges::merge(banks);
    let found = banks.iter().map(PhysRange::size).sum::<u64>() >> 20;
    let need = MIN_RAM_MIB;
    match found < need {
        true => Err(BootError::TooLittleRam { found, need }),
        false => Ok(banks),
    }
}

/// Memory nodes are told by `device_type`; old trees leave it out below the root.
pub(crate) fn is_memory(node: &Node<'_>) -> bool {
    node.is_type("memory")
        || node.base_name() == "memory"
            && !node.has("device_type")
            && !node.has("compatible")
            && node.parent().is_some_and(|parent| parent.index() == 0)
}

/// The part of a bank below 2^40.
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

/// Ranges of `/reserved-memory` that have a fixed place, page-aligned.
pub(crate) fn reserved_nodes(tree: &Tree<'_>) -> Vec<PhysRange> {
    let parent = tree
        .root()
        .children()
        .find(|n| n.name() == "reserved-memory");
    let children = parent.into_iter().flat_map(|parent| parent.children());
    let ranges = children
        .filter(Node::is_enabled)
        .flat_map(|node| translate::reg_ranges(&node).flatten().collect::<Vec<_>>())
        .map(|range| range.pages_outward());
    ranges::merge(ranges.collect())
}

/// What the reservation block holds back, page-aligned.
pub(super) fn reserved_entries(blob: &Blob<'_>) -> Vec<PhysRange> {
    let entries = blob.reserved().iter();
    entries
        .filter_map(|(base, size)| PhysRange::new(*base, *size))
        .map(|range| range.pages_outward())
        .collect()
}
