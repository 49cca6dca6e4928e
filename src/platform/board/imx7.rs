//! NXP's i.MX 7Dual (registers and order as in U-Boot's PSCI for it).
//!
//! Where U-Boot gives no PSCI, its second CPU is off. Once powered up and enabled, it starts in ROM, which jumps to the
//! address in a general-purpose register of the reset controller, in secure SVC.

use alloc::vec;

use dt::Tree;

use super::{Action, Board, register, second, step};
use crate::platform::cpus::CpuInfo;

pub(super) const COMPATIBLE: &[&str] = &["fsl,imx7d"];

/// The reset controller.
const SRC: &[&str] = &["fsl,imx7d-src"];
/// `A7RCR1`: bit 1 enables CPU 1.
const SRC_A7RCR1: u64 = 0x8;
const CPU1_ENABLE: u32 = 1 << 1;
/// `GPR3`, the address at which CPU 1 starts.
const SRC_GPR3: u64 = 0x7C;
/// The power controller.
const GPC: &[&str] = &["fsl,imx7d-gpc"];
/// `CPU_PGC_SW_PUP_REQ`: bit 1 requests power for CPU 1, until it has it.
const GPC_POWER_UP: u64 = 0xF0;
const CPU1_POWER: u32 = 1 << 1;
/// `PGC_A7CORE1_CTRL`: bit 0 lets a request change CPU 1's power.
const GPC_CPU1: u64 = 0x840;

pub(super) fn board(tree: &Tree<'_>, cpus: &[CpuInfo]) -> Board {
    let steps = || {
        let request = register(tree, GPC, GPC_POWER_UP)?;
        let control = register(tree, GPC, GPC_CPU1)?;
        let granted = Action::Wait {
            mask: CPU1_POWER,
            value: 0,
        };
        Some(vec![
            step(register(tree, SRC, SRC_GPR3)?, Action::WriteEntry),
            step(control, Action::Write(1)),
            step(request, Action::Set(CPU1_POWER)),
            step(request, granted),
            step(control, Action::Write(0)),
            step(register(tree, SRC, SRC_A7RCR1)?, Action::Set(CPU1_ENABLE)),
        ])
    };
    Board {
        starts: second(cpus, steps),
        ..Board::default()
    }
}
