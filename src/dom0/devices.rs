//! Lists the device regions that dom0 sees at their own addresses, and the interrupts that it gets.
//!
//! A region is whole pages. The GIC's pages, the console's page and RAM are never among them, whatever a node claims: the
//! nodes that claim them are disabled ([`super::selection`]), and the subtraction comes last. An interrupt is dom0's when a
//! node that dom0 sees names it, through whatever maps lie between.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use armv7::gic::Trigger;
use dt::Node;

use super::selection::{Fate, Hidden, HostView, Selection, regions, routes};
use crate::platform::interrupt::{self, FIRST_SPI, Interrupt, Route};
use crate::platform::ranges::{self, PhysRange};

/// The part of the machine's devices that dom0 gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DevicePlan {
    /// Device regions to map 1:1: whole pages, sorted, apart from one another.
    pub mmio: Vec<PhysRange>,
    /// RAM that firmware has reserved for devices, to map 1:1 as well: `/reserved-memory` where it lies in RAM.
    pub reserved_ram: Vec<PhysRange>,
    /// Shared interrupts to route to dom0, sorted by id.
    pub interrupts: Vec<Interrupt>,
    /// A line for each device that was left out or is odd.
    pub notes: Vec<String>,
}

/// Collects regions and interrupts of all nodes that dom0 sees. It is incomplete where the tree's budget is used up.
pub fn plan(machine: &HostView<'_>, selection: &Selection) -> DevicePlan {
    let tree = machine.tree;
    let gic = tree.find(&machine.host.gic.path);
    let mut collected = Collected {
        mmio: Vec::new(),
        interrupts: Vec::new(),
        elsewhere: Vec::new(),
        notes: selection.notes.clone(),
    };
    let kept = |n: &Node<'_>| selection.fate(n) == Fate::Keep;
    for node in tree.all().filter(kept) {
        collected.take_regions(&node);
        if let Some(gic) = &gic {
            collected.take_interrupts(&node, gic);
        }
    }
    collected.name_unknown_controllers(machine, gic.as_ref());
    collected.take_message_frames(machine);
    let unnamed = machine.host.board.unnamed.iter();
    let unnamed = unnamed.filter_map(|(base, size)| PhysRange::new(*base, *size));
    collected.mmio.extend(unnamed);
    collected.finish(machine)
}

struct Collected {
    mmio: Vec<PhysRange>,
    /// Sorted by id.
    interrupts: Vec<Interrupt>,
    /// Controllers, by path, that interrupts end in before they reach the GIC, and how many do.
    elsewhere: Vec<(String, usize)>,
    notes: Vec<String>,
}

impl Collected {
    fn take_regions(&mut self, node: &Node<'_>) {
        for region in regions(node) {
            match region {
                Some(region) => self.mmio.push(region.pages_outward()),
                None => {
                    let path = node.path();
                    self.notes
                        .push(format!("DOM0: a window of {path} cannot be mapped"));
                }
            }
        }
    }

    fn take_interrupts(&mut self, node: &Node<'_>, gic: &Node<'_>) {
        // Of a device that is off nobody misses an interrupt.
        let is_on = || node.ancestors().all(|node| node.is_enabled());
        for route in routes(node, gic) {
            let note = match route {
                Route::Gic(line) if self.take_line(line).trigger == line.trigger => continue,
                Route::Gic(line) => {
                    format!("shares interrupt {line} with another trigger, ignored")
                }
                Route::Broken(why) => format!("has an interrupt that is not routed: {why}"),
                Route::Elsewhere(path) => {
                    node.spend(self.elsewhere.len());
                    if is_on() {
                        self.count_elsewhere(path);
                    }
                    continue;
                }
            };
            if is_on() {
                self.notes.push(format!("DOM0: {} {note}", node.path()));
            }
        }
    }

    fn count_elsewhere(&mut self, path: String) {
        match self.elsewhere.iter_mut().find(|(known, _)| *known == path) {
            Some((_, count)) => *count += 1,
            None => self.elsewhere.push((path, 1)),
        }
    }

    /// Names controllers that seem to hand interrupts on to the GIC in a way that no rule knows; dom0's drivers wait for those
    /// in vain.
    fn name_unknown_controllers(&mut self, machine: &HostView<'_>, gic: Option<&Node<'_>>) {
        for (path, count) in &self.elsewhere {
            let Some(node) = machine.tree.find(path) else {
                continue;
            };
            if !gic.is_some_and(|gic| interrupt::is_end(&node, gic)) {
                let name = node.string("compatible").unwrap_or("");
                self.notes.push(format!(
                    "DOM0: {count} interrupts by way of {path} ({name}) are not routed: no rule says where they lead"
                ));
            }
        }
    }

    /// Takes the message frames below the GIC; their interrupts are edges (Server Base System Architecture, appendix E).
    fn take_message_frames(&mut self, machine: &HostView<'_>) {
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

    /// Takes an interrupt unless it was taken before, and returns how it was taken first.
    fn take_line(&mut self, line: Interrupt) -> Interrupt {
        match self.place_of(line.intid) {
            Ok(place) => self.interrupts.get(place).copied().unwrap_or(line),
            Err(place) => {
                self.interrupts.insert(place, line);
                line
            }
        }
    }

    /// Finds where an interrupt is, or would be.
    fn place_of(&self, intid: u32) -> Result<usize, usize> {
        self.interrupts
            .binary_search_by_key(&intid, |line| line.intid)
    }

    fn finish(mut self, machine: &HostView<'_>) -> DevicePlan {
        let host = machine.host;
        // A message frame's range may hold the console's interrupt; no device that is kept does.
        if let Some(line) = machine.console.and_then(|uart| uart.interrupt)
            && let Ok(place) = self.place_of(line.intid)
        {
            self.interrupts.remove(place);
        }
        // Reserved RAM is mapped as RAM.
        let mut hidden = Hidden::of(machine).pages();
        hidden.extend(&host.ram);
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
