//! TI's OMAP5 and DRA7 (registers and order as in Linux' driver).
//!
//! The second CPU waits in ROM with WFE until a word of the wake-up generator is not 0, then jumps to the address in the
//! next, in non-secure SVC. ROM's monitor enters HYP for it, as for the boot CPU.

use alloc::vec;

use dt::Tree;

use super::{Action, Board, register, second, step};
use crate::platform::cpus::CpuInfo;

pub(super) const COMPATIBLE: &[&str] = &["ti,omap5", "ti,dra7"];

/// The wake-up generator.
const WUGEN: &[&str] = &["ti,omap4-wugen-mpu"];
/// `AUX_CORE_BOOT_0`: the state of CPU 1.
const AUX_CORE_BOOT_0: u64 = 0x800;
const GO: u32 = 1 << 5;
/// `AUX_CORE_BOOT_1`: its address.
const AUX_CORE_BOOT_1: u64 = 0x804;
/// Function of ROM's monitor that enters HYP.
const ENTER_HYP: u32 = 0x102;

pub(super) fn board(tree: &Tree<'_>, cpus: &[CpuInfo]) -> Board {
    let steps = || {
        Some(vec![
            step(register(tree, WUGEN, AUX_CORE_BOOT_1)?, Action::WriteEntry),
            step(register(tree, WUGEN, AUX_CORE_BOOT_0)?, Action::Write(GO)),
        ])
    };
    Board {
        starts: second(cpus, steps),
        monitor_call: Some(ENTER_HYP),
        ..Board::default()
    }
}
