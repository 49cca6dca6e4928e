//! Lists the device regions that dom0 has mapped 1:1, and the interrupts that are routed to it.
//!
//! A region consists of whole pages. The GIC's pages, the console's page and RAM are never among them: nodes that claim them
//! are disabled ([`super::selection`]), and they are subtracted in the end as well. An interrupt is dom0's when a node in
//! its tree names it, by interrupt maps or directly.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use armv7::gic::Trigger;
use dt::Node;

use super::selection::{Fate, Hidden, HostView, Selection, regions, routes};
use crate::platform::interrupt::{self, FIRST_SPI, Interrupt, Route};
use crate::platform::ranges::{self, PhysRange};

/// The regions and interrupts that dom0 gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DevicePlan {
    /// The device regions to map 1:1: whole pages, sorted, with gaps between them.
    pub mmio: Vec<PhysRange>,
    /// The parts of `/reserved-memory` that lie in RAM, to map 1:1 as well.
    pub reserved_ram: Vec<PhysRange>,
    /// The SPIs to route to dom0, sorted by INTID.
    pub interrupts: Vec<Interrupt>,
    /// One line for each device that is disabled or odd.
    pub notes: Vec<String>,
}

/// Collects the regions and interrupts of all nodes in dom0's tree. It is incomplete when the tree's budget is used up.
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
    /// Sorted by INTID.
    interrupts: Vec<Interrupt>,
    /// The controllers in which interrupts end before they reach the GIC: path, and number of interrupts.
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
        // A disabled device needs no interrupt.
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

    /// Names the controllers that seem to pass interrupts on to the GIC by no known rule. dom0 gets each SPI that it enables
    /// for them and nobody owns.
    fn name_unknown_controllers(&mut self, machine: &HostView<'_>, gic: Option<&Node<'_>>) {
        for (path, count) in &self.elsewhere {
            let Some(node) = machine.tree.find(path) else {
                continue;
            };
            if !gic.is_some_and(|gic| interrupt::is_end(&node, gic)) {
                let name = node.string("compatible").unwrap_or("");
                self.notes.push(format!(
                    "DOM0: {count} interrupts by way of {path} ({name}), whose driver chooses the SPIs"
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

    /// Adds an interrupt unless it is there, and returns it as it was added first.
    fn take_line(&mut self, line: Interrupt) -> Interrupt {
        match self.place_of(line.intid) {
            Ok(place) => self.interrupts.get(place).copied().unwrap_or(line),
            Err(place) => {
                self.interrupts.insert(place, line);
                line
            }
        }
    }

    /// Returns the index of an interrupt, or the one at which to insert it.
    fn place_of(&self, intid: u32) -> Result<usize, usize> {
        self.interrupts
            .binary_search_by_key(&intid, |line| line.intid)
    }

    fn finish(mut self, machine: &HostView<'_>) -> DevicePlan {
        let host = machine.host;
        // The range of a message frame may include the console's interrupt. No other device in the tree does.
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
