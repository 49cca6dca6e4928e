//! Which device regions dom0 sees at their own addresses, and which interrupts it gets.
//!
//! A region is whole pages. The GIC's pages, the console's page and RAM are never among them, whatever a node claims: the
//! subtraction comes last. An interrupt is dom0's when a node that dom0 sees names it, through whatever maps lie between.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::selection::{Fate, Machine, Selection, is_pci_bridge, lines};
use crate::platform::BootError;
use crate::platform::blob::Blob;
use crate::platform::interrupt::{FIRST_SPI, Interrupt, Route, Trigger, routes};
use crate::platform::ranges::{self, PhysRange};
use crate::platform::translate;
use crate::platform::tree::{Node, Tree};

/// What dom0 gets of the machine's devices.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DevicePlan {
    /// Device regions to map 1:1: whole pages, sorted, apart from one another.
    pub mmio: Vec<PhysRange>,
    /// RAM that firmware has reserved for devices, to map 1:1 as well: `/reserved-memory` where it lies in RAM.
    pub reserved_ram: Vec<PhysRange>,
    /// Shared interrupts to route to dom0, sorted by id.
    pub interrupts: Vec<Interrupt>,
    /// What was left out or is odd, one line each.
    pub notes: Vec<String>,
}

/// Collects regions and interrupts of all nodes that dom0 sees.
pub fn plan(blob: &Blob<'_>, machine: &Machine<'_>) -> Result<DevicePlan, BootError> {
    let tree = Tree::new(blob)?;
    let selection = Selection::of(&tree, machine);
    let gic = tree.find(&machine.host.gic.path);
    let mut collected = Collected {
        mmio: Vec::new(),
        interrupts: Vec::new(),
        notes: selection.notes.clone(),
    };
    for node in tree.all().filter(|n| selection.fate(n) == Fate::Keep) {
        collected.take_regions(&node);
        if let Some(gic) = &gic {
            collected.take_interrupts(&node, gic);
        }
    }
    collected.take_message_frames(machine);
    let unnamed = machine.host.board.unnamed.iter();
    let unnamed = unnamed.filter_map(|(base, size)| PhysRange::new(*base, *size));
    collected.mmio.extend(unnamed);
    Ok(collected.finish(machine))
}

struct Collected {
    mmio: Vec<PhysRange>,
    /// Sorted by id.
    interrupts: Vec<Interrupt>,
    notes: Vec<String>,
}

impl Collected {
    fn take_regions(&mut self, node: &Node<'_>) {
        let regions = translate::reg_ranges(node).flatten();
        self.mmio.extend(regions.map(|range| range.pages_outward()));
        if is_pci_bridge(node) {
            for window in translate::pci_windows(node) {
                match window {
                    Some(window) => self.mmio.push(window.pages_outward()),
                    None => {
                        let path = node.path();
                        self.notes
                            .push(format!("DOM0: a window of {path} cannot be mapped"));
                    }
                }
            }
        }
    }

    fn take_interrupts(&mut self, node: &Node<'_>, gic: &Node<'_>) {
        for route in routes(node, gic) {
            if let Route::Broken(why) = route {
                let path = node.path();
                self.notes
                    .push(format!("DOM0: an interrupt of {path} is not routed: {why}"));
            }
        }
        for line in lines(node, gic) {
            if self.take_line(line).trigger != line.trigger {
                let path = node.path();
                self.notes.push(format!(
                    "DOM0: {path} shares interrupt {line} with another trigger, ignored"
                ));
            }
        }
    }

    /// A message frame below the GIC is dom0's, its interrupts are edges (Server Base System Architecture, appendix E).
    fn take_message_frames(&mut self, machine: &Machine<'_>) {
        for frame in &machine.host.gic.frames {
            self.mmio.push(frame.reg.pages_outward());
            let Some((first, count)) = frame.interrupts else {
                continue;
            };
            let end = first.saturating_add(count).min(machine.gic_lines);
            for intid in first.max(FIRST_SPI)..end {
                self.take_line(Interrupt {
                    intid,
                    trigger: Trigger::Edge,
                });
            }
        }
    }

    /// Takes an interrupt unless it was taken before; answers how it was taken first.
    fn take_line(&mut self, line: Interrupt) -> Interrupt {
        match self.place_of(line.intid) {
            Ok(place) => self.interrupts.get(place).copied().unwrap_or(line),
            Err(place) => {
                self.interrupts.insert(place, line);
                line
            }
        }
    }

    /// Where an interrupt is, or would be.
    fn place_of(&self, intid: u32) -> Result<usize, usize> {
        self.interrupts
            .binary_search_by_key(&intid, |line| line.intid)
    }

    fn finish(mut self, machine: &Machine<'_>) -> DevicePlan {
        let host = machine.host;
        let console = machine.console;
        let own = console.and_then(|uart| uart.interrupt);
        if let Some(line) = own
            && let Ok(place) = self.place_of(line.intid)
        {
            self.interrupts.remove(place);
            self.notes.push(format!(
                "DOM0: interrupt {line} is shared with the console, not routed"
            ));
        }
        let console_page = console.map(|uart| uart.reg.pages_outward());
        if let Some(page) = console_page
            && self.mmio.iter().any(|region| region.overlaps(&page))
        {
            self.notes.push(format!(
                "DOM0: a device shares {page} with the console, not mapped"
            ));
        }
        let mut hidden: Vec<PhysRange> = host.ram.clone();
        hidden.extend(host.gic.regions().iter().map(PhysRange::pages_outward));
        hidden.extend(console_page);
        let outside_ram = ranges::subtract(&host.firmware_reserved, &host.ram);
        DevicePlan {
            mmio: ranges::subtract(&self.mmio, &hidden),
            reserved_ram: ranges::subtract(&host.firmware_reserved, &outside_ram),
            interrupts: self.interrupts,
            notes: self.notes,
        }
    }
}

#[cfg(test)]
mod tests;
