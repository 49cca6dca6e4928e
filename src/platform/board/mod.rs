//! Facts about boards that are not in their device trees: one file per family, selected by the root's compatible.
//!
//! A board is data, made from the tree once: nodes that dom0 must not get, and registers to write at boot, to start a
//! CPU, to restart and to switch off. Boot maps the registers in advance (`boot::board`), so that the machine can be
//! ended at any time. PSCI needs no board, and takes precedence.
//!
//! To add a board: a file here with `COMPATIBLE` and `board`, and a row in `BOARDS`.

mod aspeed;
mod exynos;
mod syscon;
mod vexpress;
mod watchdog;

use alloc::vec::Vec;

use dt::{Node, Tree};

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
    /// They wait in a boot loader's pen for an interrupt or event, then jump to the address in a register: perform these
    /// steps, then send both. A CPU from the pen waits in boot/secondary.S until it is called by its MPIDR.
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
    Family {
        compatible: aspeed::COMPATIBLE,
        board: aspeed::board,
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
    if board.reset.is_empty() {
        board.reset = watchdog::reset(tree);
    }
    if board.off.is_empty() {
        board.off = syscon::off(tree);
    }
    board
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
