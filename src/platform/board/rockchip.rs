//! Rockchip's RK3036 and RK3288 (registers and order as in Linux' driver of `rockchip,rk3036-smp` and
//! `rockchip,rk3066-smp`).
//!
//! A secondary CPU that leaves reset runs ROM, which waits with WFE until a word of SRAM has a number, then jumps to the
//! address in the next, in secure SVC. It is reset first, on the RK3288 with its power off and on, as a boot loader may
//! have taken it out of ROM.

use alloc::vec;
use alloc::vec::Vec;

use dt::Tree;

use super::{Action, Board, Step, register, register_of, starts, step};
use crate::platform::cpus::CpuInfo;

pub(super) const COMPATIBLE: &[&str] = &["rockchip,rk3036", "rockchip,rk3288"];

/// The words that ROM reads.
const SRAM: &[&str] = &["rockchip,rk3066-smp-sram"];
const SRAM_GO: u64 = 4;
const SRAM_ADDRESS: u64 = 8;
const GO: u32 = 0xDEAD_BEAF;
/// Microseconds from reset to ROM's WFE.
const ROM_TIME: u32 = 1000;

/// Reset controllers, with the offset of the register that has the CPUs: a bit each, and 16 bits higher its write enable.
const RESETS: &[(&str, u64)] = &[
    ("rockchip,rk3036-cru", 0x110),
    ("rockchip,rk3288-cru", 0x1B8),
];

/// Power controller's `PWRDN_CON`: a CPU's bit switches it off.
const PMU_POWER_DOWN: u64 = 0x8;
/// Power controller's `PWRDN_ST`: a CPU's bit says that it is off.
const PMU_STATUS: u64 = 0xC;

pub(super) fn board(tree: &Tree<'_>, cpus: &[CpuInfo]) -> Board {
    Board {
        starts: starts(cpus, |cpu| start(tree, cpu.mpidr & 0xFF)),
        ..Board::default()
    }
}

fn start(tree: &Tree<'_>, number: u32) -> Option<Vec<Step>> {
    if number > 3 {
        return None;
    }
    let bit = 1 << number;
    let reset = |(name, offset): &(&str, u64)| register(tree, &[*name], *offset);
    let reset = RESETS.iter().find_map(reset)?;
    let (address, go) = (
        register(tree, SRAM, SRAM_ADDRESS)?,
        register(tree, SRAM, SRAM_GO)?,
    );
    let power = match tree.find("/cpus")?.u32("rockchip,pmu") {
        Some(phandle) => {
            let pmu = tree.by_phandle(phandle)?;
            let control = register_of(&pmu, PMU_POWER_DOWN)?;
            let status = register_of(&pmu, PMU_STATUS)?;
            let is = |value| Action::Wait { mask: bit, value };
            vec![
                step(control, Action::Set(bit)),
                step(status, is(bit)),
                step(control, Action::Clear(bit)),
                step(status, is(0)),
            ]
        }
        None => Vec::new(),
    };
    let mut all = vec![step(reset, Action::Write(bit << 16 | bit))];
    all.extend(power);
    all.extend([
        step(reset, Action::Write(bit << 16)),
        step(reset, Action::Delay(ROM_TIME)),
        step(address, Action::WriteEntry),
        step(go, Action::Write(GO)),
    ]);
    Some(all)
}
