//! Translation of devices' interrupt specifiers to INTIDs.
//!
//! A specifier belongs to the node's interrupt parent: the GIC, a nexus whose `interrupt-map` rewrites it (Versatile
//! Express, PCI host bridges), a controller that passes GIC specifiers on unchanged, or a second-level controller. dom0
//! handles the last; only the controller's own line is the GIC's (Devicetree Specification 0.4, 2.4).

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use armv7::gic::{MAX_INTIDS, Trigger};
use arrayvec::ArrayVec;
use dt::Node;

use super::quirks;

/// Maximum number of cells in a specifier or a unit address.
const MAX_CELLS: usize = 8;
/// Maximum number of nexus nodes between a device and the GIC.
const MAX_HOPS: usize = 8;
/// First shared peripheral interrupt (IHI 0048B 2.2.1).
pub const FIRST_SPI: u32 = 32;
/// First private peripheral interrupt.
pub const FIRST_PPI: u32 = 16;

/// An interrupt of the GIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interrupt {
    /// INTID: 16 to 31 private, 32 to 1019 shared.
    pub intid: u32,
    /// Its trigger.
    pub trigger: Trigger,
}

impl Interrupt {
    /// Returns whether it is a PPI.
    pub const fn is_private(&self) -> bool {
        self.intid < FIRST_SPI
    }
}

impl fmt::Display for Interrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.intid)
    }
}

/// Destination of a specifier.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Route {
    /// The GIC.
    Gic(Interrupt),
    /// A second-level controller, by its path.
    Elsewhere(String),
    /// Invalid, for this reason.
    Broken(&'static str),
}

type Cells = ArrayVec<u32, MAX_CELLS>;

struct Specifier<'a> {
    parent: Node<'a>,
    cells: Cells,
}

/// Resolves each specifier of a node's `interrupts-extended`, or else `interrupts`.
pub fn routes(node: &Node<'_>, gic: &Node<'_>) -> Vec<Route> {
    if node.has("interrupts-extended") {
        return extended(node, gic);
    }
    if !node.has("interrupts") {
        return Vec::new();
    }
    let Some(parent) = parent_of(node) else {
        return Vec::from([Route::Broken("no interrupt parent")]);
    };
    let width = specifier_cells(&parent);
    if width == 0 || width > MAX_CELLS {
        return Vec::from([Route::Broken("#interrupt-cells of the parent")]);
    }
    let address = unit_address(node);
    let cells: Vec<u32> = node.cells("interrupts").collect();
    cells
        .chunks_exact(width)
        .map(|chunk| {
            let cells = chunk.iter().copied().collect();
            resolve(Specifier { parent, cells }, &address, gic)
        })
        .collect()
}

/// Returns the GIC interrupts of a node.
pub fn of_gic(node: &Node<'_>, gic: &Node<'_>) -> Vec<Interrupt> {
    let routes = routes(node, gic).into_iter();
    routes
        .filter_map(|route| match route {
            Route::Gic(interrupt) => Some(interrupt),
            _ => None,
        })
        .collect()
}

/// Returns whether a controller other than the GIC handles its inputs itself and raises lines of its own. One without
/// lines, or with specifiers like the GIC's, may pass interrupts on, one line each. A node that is no device of its own
/// (the legacy interrupts of a PCI bridge) belongs to its parent.
pub fn is_end(controller: &Node<'_>, gic: &Node<'_>) -> bool {
    let like_the_gic = specifier_cells(controller) == specifier_cells(gic);
    let has_lines = controller.has("interrupts") || controller.has("interrupts-extended");
    let is_part = !controller.has("compatible");
    is_part || controller.has("gpio-controller") || has_lines && !like_the_gic
}

/// Resolves all entries of a node's own `interrupt-map`, which devices behind a PCI bridge may use.
pub fn routes_of_map(node: &Node<'_>, gic: &Node<'_>) -> Vec<Route> {
    let mut routes = Vec::new();
    let own = map_address_cells(node) + specifier_cells(node);
    if node.has("interrupt-map") && !(1..=2 * MAX_CELLS).contains(&own) {
        return Vec::from([Route::Broken("cells of its interrupt-map")]);
    }
    let mut cells = node.cells("interrupt-map");
    while node.spend(1 + routes.len()) && cells.nth(own.saturating_sub(1)).is_some() {
        let Some((next, address)) = map_target(node, &mut cells) else {
            routes.push(Route::Broken("interrupt-map"));
            break;
        };
        let route = resolve(next, &address, gic);
        if !routes.contains(&route) {
            routes.push(route);
        }
    }
    routes
}

fn extended(node: &Node<'_>, gic: &Node<'_>) -> Vec<Route> {
    let address = unit_address(node);
    let mut routes = Vec::new();
    let mut cells = node.cells("interrupts-extended");
    while let Some(phandle) = cells.next() {
        // A phandle of 0 marks an unconnected interrupt.
        if phandle == 0 {
            continue;
        }
        let Some(parent) = node.tree().by_phandle(phandle) else {
            routes.push(Route::Broken("interrupts-extended names no node"));
            break;
        };
        let Some(cells) = take(&mut cells, specifier_cells(&parent)) else {
            routes.push(Route::Broken("interrupts-extended ends early"));
            break;
        };
        routes.push(resolve(Specifier { parent, cells }, &address, gic));
    }
    routes
}

/// Follows nexus maps to a controller.
fn resolve(specifier: Specifier<'_>, address: &Cells, gic: &Node<'_>) -> Route {
    let mut specifier = specifier;
    let mut address = address.clone();
    for _ in 0..MAX_HOPS {
        let parent = specifier.parent;
        if parent == *gic {
            return gic_interrupt(&specifier.cells);
        }
        if parent.has("interrupt-map") {
            match find_entry(&specifier, &address) {
                Some((next, next_address)) => (specifier, address) = (next, next_address),
                None => return Route::Broken("no entry in interrupt-map"),
            }
        } else if parent.has("interrupt-controller") && !quirks::passes_specifiers_on(&parent) {
            return Route::Elsewhere(parent.path().to_string());
        } else {
            match parent_of(&parent) {
                Some(next) => specifier.parent = next,
                None => return Route::Broken("no interrupt parent"),
            }
        }
    }
    Route::Broken("interrupt parents form a loop")
}

/// Finds the entry of the nexus' map for the masked unit address and specifier.
fn find_entry<'a>(specifier: &Specifier<'a>, address: &Cells) -> Option<(Specifier<'a>, Cells)> {
    let nexus = specifier.parent;
    let addresses = map_address_cells(&nexus);
    let width = addresses.checked_add(specifier_cells(&nexus))?;
    if specifier.cells.len() != specifier_cells(&nexus) {
        return None;
    }
    let padding = core::iter::repeat_n(0, addresses.saturating_sub(address.len()).min(MAX_CELLS));
    let key = address.iter().copied().take(addresses).chain(padding);
    let key: ArrayVec<u32, { 2 * MAX_CELLS }> = key
        .chain(specifier.cells.iter().copied())
        .take(2 * MAX_CELLS)
        .collect();
    let mask: ArrayVec<u32, { 2 * MAX_CELLS }> = nexus
        .cells("interrupt-map-mask")
        .chain(core::iter::repeat(u32::MAX))
        .take(2 * MAX_CELLS)
        .collect();
    if key.len() != width {
        return None;
    }
    let mut cells = nexus.cells("interrupt-map");
    while nexus.spend(1) {
        let mut fits = true;
        for (key, mask) in key.iter().zip(&mask) {
            fits &= (cells.next()? ^ key) & mask == 0;
        }
        let target = map_target(&nexus, &mut cells)?;
        if fits {
            return Some(target);
        }
    }
    None
}

/// Parses the right-hand side of one entry of an `interrupt-map`.
fn map_target<'a>(
    nexus: &Node<'a>,
    cells: &mut impl Iterator<Item = u32>,
) -> Option<(Specifier<'a>, Cells)> {
    let parent = nexus.tree().by_phandle(cells.next()?)?;
    let address = take(cells, map_address_cells(&parent))?;
    let cells = take(cells, specifier_cells(&parent))?;
    Some((Specifier { parent, cells }, address))
}

/// Returns the number of address cells in interrupt maps. Unlike on buses, a node without `#address-cells` has none.
fn map_address_cells(node: &Node<'_>) -> usize {
    node.cell_count("#address-cells").unwrap_or(0)
}

fn specifier_cells(node: &Node<'_>) -> usize {
    node.cell_count("#interrupt-cells").unwrap_or(0)
}

fn take(cells: &mut impl Iterator<Item = u32>, count: usize) -> Option<Cells> {
    let mut taken = Cells::new();
    for _ in 0..count {
        taken.try_push(cells.next()?).ok()?;
    }
    Some(taken)
}

/// Returns the unit address: the first cells of `reg`.
fn unit_address(node: &Node<'_>) -> Cells {
    let count = node.parent().map_or(0, |bus| bus.address_cells());
    node.cells("reg").take(count.min(MAX_CELLS)).collect()
}

/// Returns the interrupt parent, which defines the node's specifiers.
fn parent_of<'a>(node: &Node<'a>) -> Option<Node<'a>> {
    let mut node = *node;
    for _ in 0..MAX_HOPS * MAX_HOPS {
        node = match node.u32("interrupt-parent") {
            Some(phandle) => node.tree().by_phandle(phandle)?,
            None => node.parent()?,
        };
        if node.has("#interrupt-cells") {
            return Some(node);
        }
    }
    None
}

/// Parses three cells: 0 shared or 1 private, number, flags (Linux' arm,gic binding).
fn gic_interrupt(cells: &[u32]) -> Route {
    let &[kind, number, flags] = cells else {
        return Route::Broken("a GIC interrupt has 3 cells");
    };
    let (first, end) = match kind {
        0 => (FIRST_SPI, MAX_INTIDS),
        1 => (FIRST_PPI, FIRST_SPI),
        _ => return Route::Broken("a GIC interrupt is shared (0) or private (1)"),
    };
    match number.checked_add(first) {
        Some(intid) if intid < end => Route::Gic(Interrupt {
            intid,
            // Flags: 1 rising edge, 2 falling edge, 4 high level, 8 low level.
            trigger: match flags & 0xf {
                1..=3 => Trigger::Edge,
                _ => Trigger::Level,
            },
        }),
        _ => Route::Broken("a GIC interrupt number is out of range"),
    }
}
