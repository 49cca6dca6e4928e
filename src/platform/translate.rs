//! Translation of bus addresses to machine addresses, by the `ranges` of every bus up to the root.
//!
//! Devicetree Specification 0.4, 2.3.8: an empty `ranges` is the identity; without one the bus is not addressable from
//! its parent.

use dt::{Node, number};

use super::ranges::PhysRange;

/// Returns the machine ranges of a node's `reg`, in order; `None` for an entry that the CPU cannot access.
pub fn reg_ranges<'a>(node: &Node<'a>) -> impl Iterator<Item = Option<PhysRange>> + use<'a> {
    let bus = node.parent();
    node.reg()
        .map(move |reg| to_machine(bus.as_ref()?, reg.address, reg.size))
}

/// Translates `size` bytes at `address` of the address space of `bus`.
pub fn to_machine(bus: &Node<'_>, address: u64, size: u64) -> Option<PhysRange> {
    let mut address = address;
    for bus in bus.ancestors() {
        let Some(parent) = bus.parent() else {
            return PhysRange::new(address, size);
        };
        let ranges = bus.property("ranges")?;
        if ranges.is_empty() {
            continue;
        }
        let (own, up, sizes) = (
            bus.address_cells().checked_mul(4)?,
            parent.address_cells().checked_mul(4)?,
            bus.size_cells().checked_mul(4)?,
        );
        if ![4, 8].contains(&own) || ![4, 8].contains(&up) || ![4, 8].contains(&sizes) {
            return None;
        }
        address = ranges.chunks_exact(own + up + sizes).find_map(|entry| {
            if !bus.spend(1) {
                return None;
            }
            let (child, rest) = entry.split_at_checked(own)?;
            let (parent, length) = rest.split_at_checked(up)?;
            let offset = address.checked_sub(number(child)?)?;
            let inside = offset.checked_add(size)? <= number(length)?;
            inside
                .then(|| number(parent)?.checked_add(offset))
                .flatten()
        })?;
    }
    None
}

/// Returns the memory and I/O windows of a PCI host bridge, as machine ranges.
pub fn pci_windows<'a>(host: &Node<'a>) -> impl Iterator<Item = Option<PhysRange>> + use<'a> {
    let bus = host.parent();
    let up = bus.map_or(0, |bus| bus.address_cells()).min(2) * 4;
    let ranges = host.property("ranges").unwrap_or(&[]);
    // A PCI address is 3 cells, a size on it 2 (IEEE 1275 PCI binding 2.1.4).
    ranges.chunks_exact(12 + up + 8).map(move |entry| {
        let (_, rest) = entry.split_at_checked(12)?;
        let (parent, size) = rest.split_at_checked(up)?;
        to_machine(bus.as_ref()?, number(parent)?, number(size)?)
    })
}
