//! Allwinner's A80 (registers and order as in Linux' driver of `allwinner,sun9i-a80-smp`).
//!
//! A CPU that leaves reset starts at an address in a register, in secure SVC. Those of the first cluster, Cortex-A7, have
//! each a power switch, a gate, and four resets. The second cluster, Cortex-A15, is off as a whole; not implemented.

use alloc::vec;
use alloc::vec::Vec;

use dt::Tree;

use super::{Action, Board, Step, register, starts, step};
use crate::platform::cpus::CpuInfo;

pub(super) const COMPATIBLE: &[&str] = &["allwinner,sun9i-a80"];

/// The power, reset and clock manager.
const PRCM: &[&str] = &["allwinner,sun9i-a80-prcm"];
/// Power-on resets: a CPU's bit releases it.
const PRCM_RESET: u64 = 0x4;
/// Gates: a CPU's bit closes it.
const PRCM_GATE: u64 = 0x100;
/// Power switch of CPU 0; the others' follow.
const PRCM_SWITCH: u64 = 0x140;
/// Address at which CPUs start.
const PRCM_ENTRY: u64 = 0x164;
/// Values of a power switch from off to on, 10 microseconds each.
const SWITCH_ON: [u32; 5] = [0xFF, 0xFE, 0xF8, 0xF0, 0];

/// The CPU configuration.
const CPUCFG: &[&str] = &["allwinner,sun9i-a80-cpucfg"];
/// A CPU's bit keeps its level-1 caches as they are on reset.
const CPUCFG_KEEP: u64 = 0;
/// Resets: bits from 0 release the CPUs, from 16 their debug units, from 20 their trace units.
const CPUCFG_RESET: u64 = 0x80;

pub(super) fn board(tree: &Tree<'_>, cpus: &[CpuInfo]) -> Board {
    Board {
        starts: starts(cpus, |cpu| start(tree, cpu.mpidr)),
        ..Board::default()
    }
}

fn start(tree: &Tree<'_>, number: u32) -> Option<Vec<Step>> {
    if number > 3 {
        return None;
    }
    let bit = 1 << number;
    let power_on = register(tree, PRCM, PRCM_RESET)?;
    let switch = register(tree, PRCM, PRCM_SWITCH + 4 * u64::from(number))?;
    let gate = register(tree, PRCM, PRCM_GATE)?;
    let resets = register(tree, CPUCFG, CPUCFG_RESET)?;
    let mut all = vec![
        step(register(tree, PRCM, PRCM_ENTRY)?, Action::WriteEntry),
        step(power_on, Action::Clear(bit)),
        step(register(tree, CPUCFG, CPUCFG_KEEP)?, Action::Clear(bit)),
        step(resets, Action::Clear(bit << 16 | bit << 20)),
    ];
    for value in SWITCH_ON {
        all.push(step(switch, Action::Write(value)));
        all.push(step(switch, Action::Delay(10)));
    }
    all.extend([
        step(gate, Action::Clear(bit)),
        step(gate, Action::Delay(20)),
        step(power_on, Action::Set(bit)),
        step(resets, Action::Set(bit | bit << 16 | bit << 20)),
    ]);
    Some(all)
}
