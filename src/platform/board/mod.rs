//! Facts about boards that are not in their device trees: one file per family, selected by the root's compatible.
//!
//! A board is data, made from the tree once: nodes that dom0 must not get, and registers to write at boot, to start a
//! CPU, to restart and to switch off. Boot maps the registers in advance (`boot::board`), so that the machine can be
//! ended at any time. PSCI needs no board, and takes precedence.
//!
//! To add a board: a file here with `COMPATIBLE` and `board`, and a row in `BOARDS`.

mod exynos;
mod syscon;
mod vexpress;

use alloc::vec::Vec;

use dt::Tree;

/// A change of a 32-bit register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Writes a value.
    Write(u32),
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
}

/// One access to a register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// Physical address of the register.
    pub at: u64,
    /// The change.
    pub action: Action,
}

/// Method to start CPUs without PSCI.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Start {
    /// None.
    #[default]
    None,
    /// They wait in a boot loader's pen for an interrupt, then jump to the address in a register: perform these steps,
    /// then send an SGI. A CPU from the pen waits in boot/secondary.S until it is called by its MPIDR.
    Pen(Vec<Step>),
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
    /// Method to start other CPUs.
    pub start: Start,
    /// Steps that restart the machine.
    pub reset: Vec<Step>,
    /// Steps that switch the machine off.
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

/// Returns the board that a tree describes. For an unknown one, only what the tree says about ending the machine.
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
