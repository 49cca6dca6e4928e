//! Decides for each node of the host's tree what dom0 gets of it.
//!
//! Nodes that the hypervisor keeps are dropped, with all nodes below (CPUs, memory, PSCI, performance monitors, boot
//! modules, the console's UART). A stub stays in place of one with a phandle, so that every phandle in dom0's tree resolves.
//! A device that needs a page or an interrupt which dom0 cannot have is disabled, with a line that says why. The GIC, the
//! timer and `/chosen` are rewritten. All other nodes are dom0's, with their registers and interrupts.

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
use crate::platform::monitors::MONITORS;
use crate::platform::partitions::MARK;
use crate::platform::ranges::{self, PhysRange};
use crate::platform::timer::TIMER;
use crate::platform::translate;

/// The input of the decisions.
#[derive(Clone, Copy)]
pub struct HostView<'a> {
    /// The machine's device tree.
    pub tree: &'a Tree<'a>,
    /// The machine.
    pub host: &'a HostInfo,
    /// The hypervisor's UART, if it has one.
    pub console: Option<&'a UartInfo>,
    /// The number of INTIDs that the GIC has, from GICD_TYPER: `32 * (ITLinesNumber + 1)`.
    pub gic_lines: u32,
}

/// The treatment of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It is copied unchanged.
    Keep,
    /// It is left out.
    Drop,
    /// Only its name and phandle are copied: another node may refer to it.
    Stub,
    /// It is copied and disabled: it is for another domain, or needs something that dom0 cannot have.
    Disable,
    /// It is the GIC.
    Gic,
    /// It is the timer.
    Timer,
    /// It is `/chosen`.
    Chosen,
}

impl Fate {
    /// Returns whether dom0 cannot use the node.
    pub fn is_hidden(self) -> bool {
        matches!(self, Self::Drop | Self::Stub)
    }
}

/// The fate of every node.
pub struct Selection {
    fates: Vec<Fate>,
    /// One line for each device that is disabled for what it needs.
    pub notes: Vec<String>,
}

const DROPPED: &[&str] = &[
    "xen,xen",
    "xen,domain",
    "arm,cortex-a53-edac",
    "arm,armv8-pmuv3",
    "arm,armv7-timer-mem",
];
/// The names of the nodes that are built anew below the root.
const REBUILT: &[&str] = &["cpus", "psci", "hypervisor"];

/// Returns whether a node is built anew for dom0's tree.
pub(super) fn is_rebuilt(node: &Node<'_>) -> bool {
    node.parent().is_some_and(|parent| parent.index() == 0) && REBUILT.contains(&node.name())
}

impl Selection {
    /// Decides the fate of every node of the machine's tree.
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

    /// Returns the fate of a node.
    pub fn fate(&self, node: &Node<'_>) -> Fate {
        self.fates.get(node.index()).copied().unwrap_or(Fate::Drop)
    }

    fn set(&mut self, node: &Node<'_>, fate: Fate) {
        if let Some(slot) = self.fates.get_mut(node.index()) {
            *slot = fate;
        }
    }

    /// Leaves a stub in place of each dropped node that has a phandle, and of the dropped nodes above it.
    fn leave_stubs(&mut self, tree: &Tree<'_>) {
        let named = tree.all().filter(|node| node.phandle().is_some());
        // No node refers to a memory node, and a kernel would take its stub for RAM.
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

/// The state that decisions depend on.
struct Judge<'a> {
    machine: &'a HostView<'a>,
    gic: Option<Node<'a>>,
    hidden: Hidden,
    /// The indices of the nodes above the console's.
    buses: Vec<usize>,
}

impl Judge<'_> {
    fn decide(&self, node: &Node<'_>, notes: &mut Vec<String>) -> Fate {
        let machine = self.machine;
        let path = node.path();
        let hidden = [DROPPED, MONITORS, MODULE, PSCI, machine.host.board.hidden];
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
        if node.has(MARK) {
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

    /// Names what a device needs and dom0 cannot have. A driver would fault on a register that is not mapped, so such a
    /// device is disabled.
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

/// The pages that dom0 never gets as a device's: ranges of whole pages, and their owners.
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

/// Returns the physical regions of a node: its registers, and the windows of a PCI bridge. A region that the CPU cannot
/// reach is `None`.
pub fn regions(node: &Node<'_>) -> Vec<Option<PhysRange>> {
    let mut regions: Vec<_> = translate::reg_ranges(node)
        // Addresses on a bus without `ranges` are not physical ones.
        .filter(Option::is_some)
        .collect();
    if is_pci_bridge(node) {
        regions.extend(translate::pci_windows(node));
    }
    regions
}

/// Returns the GIC's interrupts of a node: its own, and those of a PCI bridge's map.
pub fn lines(node: &Node<'_>, gic: &Node<'_>) -> Vec<Interrupt> {
    let routes = routes(node, gic).into_iter();
    let lines = routes.filter_map(|route| match route {
        Route::Gic(line) => Some(line),
        _ => None,
    });
    lines.collect()
}

/// Returns the routes of a node's interrupts.
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
