//! One decision per node of the host's tree: what dom0 gets of it.
//!
//! Dropped with everything below: what describes the hypervisor's own business (CPUs, memory, PSCI, performance monitors,
//! boot modules, the console's UART). Of what has a phandle a stub stays, so that no phandle in dom0's tree leads nowhere.
//! Disabled, with a line that says why: a device that needs a page or an interrupt which dom0 cannot have. The GIC, the
//! timer and `/chosen` are rewritten; all else is dom0's, registers and interrupts included.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use dt::{Node, Tree};

use crate::platform::console::UartInfo;
use crate::platform::cpus::PSCI;
use crate::platform::host_dt::HostInfo;
use crate::platform::interrupt::{self, Interrupt, Route};
use crate::platform::memory;
use crate::platform::modules::MODULE;
use crate::platform::ranges::{self, PhysRange};
use crate::platform::timer::TIMER;
use crate::platform::translate;

/// The facts that dom0's view of the machine depends on.
#[derive(Clone, Copy)]
pub struct HostView<'a> {
    /// The machine's device tree.
    pub tree: &'a Tree<'a>,
    /// The machine.
    pub host: &'a HostInfo,
    /// The hypervisor's UART, if it has one.
    pub console: Option<&'a UartInfo>,
    /// Interrupt ids that the GIC has, from GICD_TYPER: `32 * (ITLinesNumber + 1)`.
    pub gic_lines: u32,
}

/// The treatment of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// dom0 gets it as it is.
    Keep,
    /// dom0 does not see it.
    Drop,
    /// dom0 does not see it, but something in its tree may refer to it: what is left is its place and its phandle.
    Stub,
    /// dom0 sees it disabled: it is meant for another domain, or dom0 cannot have all that it needs.
    Disable,
    /// It is the GIC.
    Gic,
    /// It is the timer.
    Timer,
    /// It is `/chosen`.
    Chosen,
}

impl Fate {
    /// Returns whether dom0 has no use of the node.
    pub fn is_hidden(self) -> bool {
        matches!(self, Self::Drop | Self::Stub)
    }
}

/// The fate of every node.
pub struct Selection {
    fates: Vec<Fate>,
    /// Devices that dom0 would have got but for what they need, one line each.
    pub notes: Vec<String>,
}

const DROPPED: &[&str] = &[
    "xen,xen",
    "xen,domain",
    "arm,cortex-a7-pmu",
    "arm,cortex-a12-pmu",
    "arm,cortex-a15-pmu",
    "arm,cortex-a17-pmu",
    "arm,cortex-a53-edac",
    "arm,armv8-pmuv3",
    "arm,armv7-timer-mem",
];
/// Nodes that are built anew below the root.
const REBUILT: &[&str] = &["cpus", "psci", "hypervisor"];

/// Returns whether dom0's tree has a node of its own in this one's place.
pub(super) fn is_rebuilt(node: &Node<'_>) -> bool {
    node.parent().is_some_and(|parent| parent.index() == 0) && REBUILT.contains(&node.name())
}

impl Selection {
    /// Decides for every node of the machine's tree.
    pub fn of(machine: &HostView<'_>) -> Self {
        let tree = machine.tree;
        let mut selection = Self {
            fates: vec![Fate::Drop; tree.blob().nodes()],
            notes: Vec::new(),
        };
        let judge = Judge {
            machine,
            gic: tree.find(&machine.host.gic.path),
            hidden: Hidden::of(machine),
            buses: buses_of_console(machine),
        };
        for node in tree.all() {
            let above = node.parent().map_or(Fate::Keep, |p| selection.fate(&p));
            let fate = match above {
                Fate::Drop | Fate::Disable => above,
                // The children that the GIC's replacement keeps are written with it.
                Fate::Stub | Fate::Gic | Fate::Timer => Fate::Drop,
                Fate::Keep | Fate::Chosen => judge.decide(&node, &mut selection.notes),
            };
            selection.set(&node, fate);
        }
        selection.leave_stubs(tree);
        selection
    }

    /// Returns what becomes of a node.
    pub fn fate(&self, node: &Node<'_>) -> Fate {
        self.fates.get(node.index()).copied().unwrap_or(Fate::Drop)
    }

    fn set(&mut self, node: &Node<'_>, fate: Fate) {
        if let Some(slot) = self.fates.get_mut(node.index()) {
            *slot = fate;
        }
    }

    /// Leaves of each dropped node that has a phandle a stub, and of the dropped ones that it is below.
    fn leave_stubs(&mut self, tree: &Tree<'_>) {
        let named = tree.all().filter(|node| node.phandle().is_some());
        // Nobody refers to memory, and a stub would be taken for some.
        for node in named.filter(|node| !memory::is_memory(node)) {
            for node in node.ancestors() {
                if self.fate(&node) != Fate::Drop {
                    break;
                }
                self.set(&node, Fate::Stub);
            }
        }
    }
}

/// Returns the indices of the nodes above the console's.
fn buses_of_console(machine: &HostView<'_>) -> Vec<usize> {
    let console = machine.console;
    let node = console.and_then(|uart| machine.tree.find(&uart.path));
    let above = node.iter().flat_map(|node| node.ancestors().skip(1));
    above.map(|bus| bus.index()).collect()
}

/// The facts that a decision about a node depends on.
struct Judge<'a> {
    machine: &'a HostView<'a>,
    gic: Option<Node<'a>>,
    hidden: Hidden,
    /// Indices of the buses that the console is behind.
    buses: Vec<usize>,
}

impl Judge<'_> {
    fn decide(&self, node: &Node<'_>, notes: &mut Vec<String>) -> Fate {
        let machine = self.machine;
        let path = node.path();
        let hidden = [DROPPED, MODULE, PSCI, machine.host.board.hidden];
        if self.gic.as_ref() == Some(node) {
            return Fate::Gic;
        }
        if path == machine.host.timer.path.as_str() {
            return Fate::Timer;
        }
        if path == "/chosen" {
            return Fate::Chosen;
        }
        if hidden.iter().any(|list| node.is_compatible(list))
            || node.is_compatible(TIMER)
            || is_rebuilt(node)
            || memory::is_memory(node)
            || machine
                .console
                .is_some_and(|uart| path == uart.path.as_str())
        {
            return Fate::Drop;
        }
        if node.has("xen,passthrough") {
            return Fate::Disable;
        }
        let Some(reason) = self.withheld(node) else {
            return Fate::Keep;
        };
        if node.ancestors().all(|node| node.is_enabled()) {
            notes.push(format!("DOM0: {path} disabled: {reason}"));
        }
        Fate::Disable
    }

    /// Says what dom0 cannot have of what a device needs. It would touch the device all the same, and die of what is not
    /// there.
    fn withheld(&self, node: &Node<'_>) -> Option<String> {
        let mut regions = regions(node).into_iter().flatten();
        let is_bus = self.buses.contains(&node.index());
        let at = regions.find_map(|region| {
            node.spend(self.hidden.0.len());
            // The registers of a bus may be all of its window (i.MX's AIPS). What is hidden below it stays unmapped.
            let hidden = self.hidden.owner(&region);
            hidden.filter(|(range, _)| !is_bus || range.contains(&region))
        });
        if let Some((range, owner)) = at {
            return Some(format!("its registers are in {range}, which is {owner}"));
        }
        let machine = self.machine;
        let console = machine.console.and_then(|uart| uart.interrupt);
        let is_console = |line: &Interrupt| console.is_some_and(|own| own.intid == line.intid);
        let lines = self.gic.map(|gic| lines(node, &gic)).unwrap_or_default();
        lines.iter().find_map(|line| {
            if line.is_private() {
                Some(format!("interrupt {line} is private to each CPU"))
            } else if line.intid >= machine.gic_lines {
                let have = machine.gic_lines;
                Some(format!("interrupt {line} is beyond the GIC's {have} lines"))
            } else {
                is_console(line).then(|| format!("interrupt {line} is the console's"))
            }
        })
    }
}

/// Pages that dom0 never gets as a device's, whatever a node claims: whole pages and whose they are.
pub(super) struct Hidden(Vec<(PhysRange, &'static str)>);

impl Hidden {
    pub(super) fn of(machine: &HostView<'_>) -> Self {
        let host = machine.host;
        // Reserved RAM is dom0's, and mapped as such.
        let ram = ranges::subtract(&host.ram, &host.firmware_reserved);
        let ram = ram.into_iter().map(|range| (range, "RAM"));
        let gic = host.gic.regions().map(|range| (range, "the GIC's"));
        let console = machine.console.map(|uart| (uart.reg, "the console's"));
        let all = ram.chain(gic).chain(console);
        Self(
            all.map(|(range, owner)| (range.pages_outward(), owner))
                .collect(),
        )
    }

    pub(super) fn pages(&self) -> Vec<PhysRange> {
        self.0.iter().map(|(range, _)| *range).collect()
    }

    /// Returns the first hidden pages that a region's pages touch.
    fn owner(&self, region: &PhysRange) -> Option<(PhysRange, &'static str)> {
        let pages = region.pages_outward();
        self.0
            .iter()
            .find(|(range, _)| range.overlaps(&pages))
            .copied()
    }
}

/// Returns the machine's regions that a node brings: its registers, and for a PCI bridge its windows. What the CPU cannot
/// reach is `None`.
pub fn regions(node: &Node<'_>) -> Vec<Option<PhysRange>> {
    let mut regions: Vec<_> = translate::reg_ranges(node)
        // Registers on a bus without `ranges` are nobody's business but the bus's.
        .filter(Option::is_some)
        .collect();
    if is_pci_bridge(node) {
        regions.extend(translate::pci_windows(node));
    }
    regions
}

/// Returns the GIC's interrupts that a node brings: its own, and for a PCI bridge those of its map.
pub fn lines(node: &Node<'_>, gic: &Node<'_>) -> Vec<Interrupt> {
    let routes = routes(node, gic).into_iter();
    let lines = routes.filter_map(|route| match route {
        Route::Gic(line) => Some(line),
        _ => None,
    });
    lines.collect()
}

/// Follows the interrupts that a node brings.
pub(super) fn routes(node: &Node<'_>, gic: &Node<'_>) -> Vec<Route> {
    let mut routes = interrupt::routes(node, gic);
    if is_pci_bridge(node) {
        routes.extend(interrupt::routes_of_map(node, gic));
    }
    routes
}

fn is_pci_bridge(node: &Node<'_>) -> bool {
    node.is_type("pci") || node.is_type("pciex")
}
