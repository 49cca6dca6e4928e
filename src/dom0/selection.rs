//! One decision per node of the host's tree: what dom0 gets of it.
//!
//! Dropped with everything below: what describes the hypervisor's own business (CPUs, memory, PSCI, performance monitors,
//! boot modules, the console's UART), whatever has a private interrupt, and devices whose interrupt the GIC does not
//! have. The GIC, the timer and `/chosen` are rewritten; all else is dom0's, registers and interrupts included.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use crate::platform::console::UartInfo;
use crate::platform::cpus::PSCI;
use crate::platform::host_dt::HostInfo;
use crate::platform::interrupt::{self, Interrupt, Route};
use crate::platform::memory;
use crate::platform::modules::MODULE;
use crate::platform::timer::TIMER;
use crate::platform::tree::{Node, Tree};

/// What dom0's view of the machine depends on.
#[derive(Clone, Copy, Debug)]
pub struct Machine<'a> {
    /// The machine.
    pub host: &'a HostInfo,
    /// The hypervisor's UART, if it has one.
    pub console: Option<&'a UartInfo>,
    /// Interrupt ids that the GIC has, from GICD_TYPER: `32 * (ITLinesNumber + 1)`.
    pub gic_lines: u32,
}

/// What becomes of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// dom0 gets it as it is.
    Keep,
    /// dom0 does not see it.
    Drop,
    /// dom0 sees it disabled: it is meant for another domain.
    Disable,
    /// It is the GIC.
    Gic,
    /// It is the timer.
    Timer,
    /// It is `/chosen`.
    Chosen,
}

/// The fate of every node.
pub struct Selection {
    fates: Vec<Fate>,
    /// Devices left out although dom0 would have got them, one line each.
    pub notes: Vec<String>,
}

const DROPPED: &[&str] = &[
    "xen,xen",
    "xen,domain",
    "arm,cortex-a7-pmu",
    "arm,cortex-a15-pmu",
    "arm,cortex-a53-edac",
    "arm,armv8-pmuv3",
    "arm,armv7-timer-mem",
];
/// Nodes that are built anew below the root.
const REBUILT: &[&str] = &["/cpus", "/psci", "/hypervisor"];

impl Selection {
    /// Decides for every node of the tree.
    pub fn of(tree: &Tree<'_>, machine: &Machine<'_>) -> Self {
        let mut selection = Self {
            fates: vec![Fate::Drop; tree.len()],
            notes: Vec::new(),
        };
        let gic = tree.find(&machine.host.gic.path);
        for node in tree.all() {
            let above = node.parent().map_or(Fate::Keep, |p| selection.fate(&p));
            let fate = match above {
                Fate::Drop | Fate::Disable => above,
                // What the GIC's replacement keeps of its children is written with it.
                Fate::Gic | Fate::Timer => Fate::Drop,
                Fate::Keep | Fate::Chosen => selection.decide(&node, gic.as_ref(), machine),
            };
            if let Some(slot) = selection.fates.get_mut(node.index()) {
                *slot = fate;
            }
        }
        selection
    }

    /// What becomes of a node.
    pub fn fate(&self, node: &Node<'_>) -> Fate {
        self.fates.get(node.index()).copied().unwrap_or(Fate::Drop)
    }

    fn decide(&mut self, node: &Node<'_>, gic: Option<&Node<'_>>, machine: &Machine<'_>) -> Fate {
        let path = node.path();
        let hidden = [DROPPED, MODULE, PSCI, machine.host.board.hidden];
        if gic == Some(node) {
            return Fate::Gic;
        }
        if path == machine.host.timer.path {
            return Fate::Timer;
        }
        if path == "/chosen" {
            return Fate::Chosen;
        }
        if hidden.iter().any(|list| node.is_compatible(list))
            || node.is_compatible(TIMER)
            || REBUILT.contains(&path.as_str())
            || memory::is_memory(node)
            || machine.console.is_some_and(|uart| uart.path == path)
        {
            return Fate::Drop;
        }
        if node.has("xen,passthrough") {
            return Fate::Disable;
        }
        let lines = gic.map(|gic| lines(node, gic)).unwrap_or_default();
        if lines.iter().any(Interrupt::is_private) {
            return Fate::Drop;
        }
        let beyond = lines.iter().find(|line| line.intid >= machine.gic_lines);
        if let Some(line) = beyond {
            let have = machine.gic_lines;
            self.notes.push(format!(
                "DOM0: {path} left out: interrupt {line} is beyond the GIC's {have} lines"
            ));
            return Fate::Drop;
        }
        Fate::Keep
    }
}

/// The GIC's interrupts that a node brings: its own, and for a PCI bridge those of its map.
pub(super) fn lines(node: &Node<'_>, gic: &Node<'_>) -> Vec<Interrupt> {
    let mut routes = interrupt::routes(node, gic);
    if is_pci_bridge(node) {
        routes.extend(interrupt::routes_of_map(node, gic));
    }
    let lines = routes.into_iter().filter_map(|route| match route {
        Route::Gic(line) => Some(line),
        _ => None,
    });
    lines.collect()
}

pub(super) fn is_pci_bridge(node: &Node<'_>) -> bool {
    node.is_type("pci") || node.is_type("pciex")
}
