//! Facts about boards that are not in their device trees: one file per family, selected by the root's compatible.
//!
//! A board is data, made from the tree once: nodes that dom0 must not get, and registers to write at boot, to start a
//! CPU, to restart and to switch off. Boot maps the registers in advance (`boot::board`), so that the machine can be
//! ended at any time. PSCI needs no board, and takes precedence.
//!
//! To add a board: a file here with `COMPATIBLE` and `board`, and a row in `BOARDS`.

mod aspeed;
mod exynos;
mod imx7;
mod omap;
mod rockchip;
mod sun9i;
mod syscon;
mod tegra;
mod vexpress;
mod watchdog;

use alloc::vec::Vec;

use dt::{Node, Tree};

use super::cpus::CpuInfo;
use super::translate;

/// A change of a register of 32 bits, where not said otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Writes a value.
    Write(u32),
    /// Writes a value to a register of 16 bits.
    WriteHalf(u16),
    /// Sets bits.
    Set(u32),
    /// Replaces the bits of a mask.
    Replace {
        /// The bits.
        mask: u32,
        /// Their value.
        value: u32,
    },
    /// Writes the physical address at which another CPU enters the hypervisor.
    WriteEntry,
    /// Clears bits.
    Clear(u32),
    /// Waits until the bits of a mask have a value, for 10 ms at most.
    Wait {
        /// The bits.
        mask: u32,
        /// Their value.
        value: u32,
    },
    /// Waits for this many microseconds, without an access.
    Delay(u32),
}

/// One access to a register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// Physical address of the register.
    pub at: u64,
    /// The change.
    pub action: Action,
}

/// Method to start a CPU without PSCI.
///
/// After the steps, and an event and an interrupt for one that waits for them, the CPU enters boot/secondary.S, where it
/// waits until it is called by its MPIDR. It may enter in HYP, or in secure SVC where boot/secure.S knows the processor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Start {
    /// Affinity fields of its MPIDR.
    pub mpidr: u32,
    /// The steps.
    pub steps: Vec<Step>,
}

/// A board.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Board {
    /// Nodes that dom0 must not get, by compatible.
    pub hidden: &'static [&'static str],
    /// Device regions that dom0 gets although trees may omit them: base and size in bytes, whole pages.
    pub unnamed: &'static [(u64, u64)],
    /// Steps before all else; the counter runs after them.
    pub prepare: Vec<Step>,
    /// Methods to start CPUs.
    pub starts: Vec<Start>,
    /// Function of the monitor in ROM by which a started CPU enters HYP from SVC: number in r12, address to go on in r0.
    pub monitor_call: Option<u32>,
    /// Steps that restart the machine.
    pub reset: Vec<Step>,
    /// Steps that switch the machine off.
    pub off: Vec<Step>,
}

impl Board {
    /// Returns the steps that start the CPU with this affinity, if it can be started.
    pub fn start(&self, mpidr: u32) -> Option<&[Step]> {
        let start = self.starts.iter().find(|start| start.mpidr == mpidr)?;
        Some(&start.steps)
    }
}

struct Family {
    /// Compatibles of the root.
    compatible: &'static [&'static str],
    board: fn(&Tree<'_>, &[CpuInfo]) -> Board,
}

const BOARDS: &[Family] = &[
    Family {
        compatible: vexpress::COMPATIBLE,
        board: vexpress::board,
    },
    Family {
        compatible: exynos::COMPATIBLE,
        board: exynos::board,
    },
    Family {
        compatible: aspeed::COMPATIBLE,
        board: aspeed::board,
    },
    Family {
        compatible: imx7::COMPATIBLE,
        board: imx7::board,
    },
    Family {
        compatible: omap::COMPATIBLE,
        board: omap::board,
    },
    Family {
        compatible: rockchip::COMPATIBLE,
        board: rockchip::board,
    },
    Family {
        compatible: sun9i::COMPATIBLE,
        board: sun9i::board,
    },
    Family {
        compatible: tegra::COMPATIBLE,
        board: tegra::board,
    },
];

/// Returns the board that a tree describes. For an unknown one, only what the tree says about ending the machine.
pub fn of(tree: &Tree<'_>, cpus: &[CpuInfo]) -> Board {
    let root = tree.root();
    let family = BOARDS
        .iter()
        .find(|family| root.is_compatible(family.compatible));
    let mut board = family.map_or_else(Board::default, |family| (family.board)(tree, cpus));
    if board.reset.is_empty() {
        board.reset = syscon::reset(tree);
    }
    if board.reset.is_empty() {
        board.reset = watchdog::reset(tree);
    }
    if board.off.is_empty() {
        board.off = syscon::off(tree);
    }
    board
}

/// Returns how each CPU starts for which `steps` returns its steps.
fn starts(cpus: &[CpuInfo], steps: impl Fn(&CpuInfo) -> Option<Vec<Step>>) -> Vec<Start> {
    let start = |cpu: &CpuInfo| {
        let (mpidr, steps) = (cpu.mpidr, steps(cpu)?);
        Some(Start { mpidr, steps })
    };
    cpus.iter().filter_map(start).collect()
}

/// Returns how CPU 1 starts, of a processor with two CPUs of one cluster.
fn second(cpus: &[CpuInfo], steps: impl Fn() -> Option<Vec<Step>>) -> Vec<Start> {
    starts(cpus, |cpu| if cpu.mpidr == 1 { steps() } else { None })
}

const fn step(at: u64, action: Action) -> Step {
    Step { at, action }
}

/// Returns the address of the word at `offset` of the first node with one of these compatibles; `None` if there is none.
fn register(tree: &Tree<'_>, compatible: &[&str], offset: u64) -> Option<u64> {
    register_of(&tree.compatible(compatible).next()?, offset)
}

/// Returns the address of the word at `offset` of a node's registers; `None` if it is outside.
fn register_of(node: &Node<'_>, offset: u64) -> Option<u64> {
    let registers = translate::reg_ranges(node).next()??;
    let is_inside = offset.is_multiple_of(4) && offset.checked_add(4)? <= registers.size();
    is_inside.then(|| registers.base() + offset)
}

#[cfg(test)]
mod tests;
