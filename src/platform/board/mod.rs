//! Boards' needs beyond their device trees: one file per family, found by the root's compatible.
//!
//! A board is data, made from the tree once: which nodes dom0 must not have, and which registers are written to
//! begin, to start a CPU, to restart and to switch off. Boot maps the registers ahead (`boot::board`), so that the machine
//! can be ended from anywhere. What firmware does by PSCI needs no board; where there are both, PSCI wins.
//!
//! To add a board: a file here with `COMPATIBLE` and `board`, and a row in `BOARDS`.

mod exynos;
mod syscon;
mod vexpress;

use alloc::vec::Vec;

use dt::Tree;

/// A change of a register of 32 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// It is written.
    Write(u32),
    /// Bits are set in it.
    Set(u32),
    /// The bits of a mask get a value.
    Replace {
        /// The bits.
        mask: u32,
        /// Their value.
        value: u32,
    },
    /// The physical address is written at which another CPU is to enter the hypervisor.
    WriteEntry,
}

/// One access to a register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// Physical address of the register.
    pub at: u64,
    /// The change.
    pub action: Action,
}

/// How CPUs start that firmware does not start by PSCI.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Start {
    /// They do not.
    #[default]
    None,
    /// They wait for an interrupt in a pen of the boot loader's and then go where a register says: first these steps, then
    /// an SGI to the CPU. Whoever leaves the pen waits in boot/secondary.S until it is called by its MPIDR.
    Pen(Vec<Step>),
}

/// A board.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Board {
    /// Nodes that dom0 must not have, by compatible.
    pub hidden: &'static [&'static str],
    /// Device regions that dom0 gets although trees may not name them: base and size in bytes, whole pages.
    pub unnamed: &'static [(u64, u64)],
    /// Before all else: the counter runs when these are through.
    pub prepare: Vec<Step>,
    /// How other CPUs start.
    pub start: Start,
    /// Restarts the machine.
    pub reset: Vec<Step>,
    /// Switches the machine off.
    pub off: Vec<Step>,
}

struct Family {
    /// Compatibles of the root.
    compatible: &'static [&'static str],
    board: fn(&Tree<'_>) -> Board,
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
];

/// Returns the board that a tree describes; one that needs nothing if no family knows it, but for what the tree itself says
/// of the machine's end.
pub fn of(tree: &Tree<'_>) -> Board {
    let root = tree.root();
    let family = BOARDS
        .iter()
        .find(|family| root.is_compatible(family.compatible));
    let mut board = family.map_or_else(Board::default, |family| (family.board)(tree));
    if board.reset.is_empty() {
        board.reset = syscon::reset(tree);
    }
    if board.off.is_empty() {
        board.off = syscon::off(tree);
    }
    board
}

#[cfg(test)]
mod tests;
