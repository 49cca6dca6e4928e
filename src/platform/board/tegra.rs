//! Nvidia's Tegra K1 (registers and order as in Linux' driver).
//!
//! Where U-Boot gives no PSCI, the other CPUs are off. Each starts, once the power controller has switched it on, at the
//! address in the exception vector for resets, in secure SVC.

use alloc::vec;
use alloc::vec::Vec;

use dt::Tree;

use super::{Action, Board, Step, register, starts, step};
use crate::platform::cpus::CpuInfo;

pub(super) const COMPATIBLE: &[&str] = &["nvidia,tegra124"];

/// `EVP_CPU_RESET_VECTOR`, of which trees have no node.
const RESET_VECTOR: u64 = 0x6000_F100;
/// The power controller.
const PMC: &[&str] = &["nvidia,tegra124-pmc"];
/// `PWRGATE_TOGGLE`: changes the power of the partition in the low bits.
const PMC_TOGGLE: u64 = 0x30;
const TOGGLE_START: u32 = 1 << 8;
/// `PWRGATE_STATUS`: a bit for each partition that is on.
const PMC_STATUS: u64 = 0x38;
/// Partitions of the CPUs.
const PARTITIONS: [u32; 4] = [14, 9, 10, 11];

pub(super) fn board(tree: &Tree<'_>, cpus: &[CpuInfo]) -> Board {
    Board {
        starts: starts(cpus, |cpu| start(tree, cpu.mpidr)),
        ..Board::default()
    }
}

fn start(tree: &Tree<'_>, number: u32) -> Option<Vec<Step>> {
    let partition = PARTITIONS.get(number as usize)?;
    let (toggle, status) = (
        register(tree, PMC, PMC_TOGGLE)?,
        register(tree, PMC, PMC_STATUS)?,
    );
    let accepted = Action::Wait {
        mask: TOGGLE_START,
        value: 0,
    };
    let is_on = Action::Wait {
        mask: 1 << partition,
        value: 1 << partition,
    };
    Some(vec![
        step(RESET_VECTOR, Action::WriteEntry),
        step(toggle, accepted),
        step(toggle, Action::Write(TOGGLE_START | partition)),
        step(toggle, accepted),
        step(status, is_on),
    ])
}
