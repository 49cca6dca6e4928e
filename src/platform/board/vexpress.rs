//! Versatile Express: V2P-CA15 (TC1) and V2P-CA15_A7 (TC2) on the V2M-P1 motherboard.
//!
//! The motherboard's system registers (DUI 0447 4.3) are the node compatible with "arm,vexpress-sysreg". The boot
//! monitor keeps secondary CPUs in WFI; on an interrupt, each jumps to the address in `SYS_FLAGS` unless that is 0.

use alloc::vec;
use alloc::vec::Vec;

use dt::Tree;

use super::{Action, Board, Step, starts, step};
use crate::platform::cpus::CpuInfo;
use crate::platform::translate;

pub(super) const COMPATIBLE: &[&str] = &["arm,vexpress"];

const SYSREG: &[&str] = &["arm,vexpress-sysreg"];

/// The coherent interconnect and the devices that reset the machine stay with the hypervisor.
const HIDDEN: &[&str] = &[
    "arm,cci-400",
    "arm,cci-400-pmu",
    "arm,hdlcd",
    "arm,vexpress-reset",
    "arm,vexpress-reboot",
    "arm,vexpress-shutdown",
];

/// Sets bits of `SYS_FLAGS`.
const SYS_FLAGSSET: u64 = 0x30;
/// Clears bits of `SYS_FLAGS`.
const SYS_FLAGSCLR: u64 = 0x34;
/// Data of a request to the board's configuration microcontroller.
const SYS_CFGDATA: u64 = 0xA0;
/// Starts a request.
const SYS_CFGCTRL: u64 = 0xA4;
/// Status of the last request.
const SYS_CFGSTAT: u64 = 0xA8;

/// `SYS_CFGCTRL`: start, write. Bits 25:20 are the function; site 0 is the motherboard.
const REQUEST: u32 = 1 << 31 | 1 << 30;
const FUNCTION_SHUTDOWN: u32 = 8;
const FUNCTION_REBOOT: u32 = 9;

pub(super) fn board(tree: &Tree<'_>, cpus: &[CpuInfo]) -> Board {
    let node = tree.compatible(SYSREG).next();
    let registers = node.and_then(|node| translate::reg_ranges(&node).next().flatten());
    let Some(registers) = registers.filter(|range| range.size() > SYS_CFGSTAT) else {
        return Board {
            hidden: HIDDEN,
            ..Board::default()
        };
    };
    let base = registers.base();
    Board {
        hidden: HIDDEN,
        starts: starts(cpus, |_| {
            Some(vec![
                step(base + SYS_FLAGSCLR, Action::Write(!0)),
                step(base + SYS_FLAGSSET, Action::WriteEntry),
            ])
        }),
        reset: request(base, FUNCTION_REBOOT),
        off: request(base, FUNCTION_SHUTDOWN),
        ..Board::default()
    }
}

fn request(base: u64, function: u32) -> Vec<Step> {
    vec![
        step(base + SYS_CFGSTAT, Action::Write(0)),
        step(base + SYS_CFGDATA, Action::Write(0)),
        step(base + SYS_CFGCTRL, Action::Write(REQUEST | function << 20)),
    ]
}
