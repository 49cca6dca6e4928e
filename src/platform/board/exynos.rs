//! Samsung's Exynos 5 (Exynos 5250 user's manual).
//!
//! The generic timer counts only while the multi-core timer's free-running counter does, so that is started first and
//! kept by the hypervisor. The 5250's second CPU waits in the boot loader's pen for an interrupt, and jumps to the
//! address in a word of SYSRAM; it is powered up first, in case the boot loader left it off. On the 5410 and 542x it
//! must be powered up first and starts in ROM; not implemented, so they run on one CPU.

use alloc::vec;
use alloc::vec::Vec;

use dt::Tree;

use super::{Action, Board, Start, Step, register};

pub(super) const COMPATIBLE: &[&str] = &[
    PEN_BOARD,
    "samsung,exynos5410",
    "samsung,exynos5420",
    "samsung,exynos5800",
    "samsung,exynos5",
];

/// The board whose secondary CPU waits in a pen.
const PEN_BOARD: &str = "samsung,exynos5250";

const MCT: &[&str] = &["samsung,exynos4210-mct"];
const PMU: &[&str] = &[
    "samsung,exynos5250-pmu",
    "samsung,exynos5410-pmu",
    "samsung,exynos5420-pmu",
];
const SYSRAM: &[&str] = &["samsung,exynos4210-sysram"];
const SYSRAM_NS: &[&str] = &["samsung,exynos4210-sysram-ns"];
const SECURE_FIRMWARE: &[&str] = &["samsung,secure-firmware"];

/// The multi-core timer, firmware's calls, and the devices that end the machine stay with the hypervisor.
const HIDDEN: &[&str] = &[
    "samsung,exynos4210-mct",
    "samsung,secure-firmware",
    "syscon-poweroff",
    "syscon-reboot",
];

/// Chip id and PWM timer, which old trees omit although Linux uses them: base and size in bytes.
const UNNAMED: &[(u64, u64)] = &[(0x1000_0000, 0x1000), (0x12DD_0000, 0x2000)];

/// `G_TCON` of the multi-core timer.
const MCT_G_TCON: u64 = 0x240;
/// `G_TCON`: starts the free-running counter.
const G_TCON_START: u32 = 1 << 8;
/// `SWRESET` of the power controller.
const PMU_SWRESET: u64 = 0x400;
/// `PS_HOLD_CONTROL` of the power controller.
const PMU_PS_HOLD: u64 = 0x330C;
/// `PS_HOLD_CONTROL`: makes the pin a low output, which switches the regulators off.
const PS_HOLD_LOW: u32 = 0x5200;
/// `ARM_CORE1_CONFIGURATION` of the power controller.
const PMU_CORE1: u64 = 0x2080;
/// `ARM_CORE1_CONFIGURATION`: powers the CPU.
const CORE_POWER: u32 = 3;
/// Word of the non-secure SYSRAM with the start address of a CPU in secure firmware's pen.
const NS_BOOT_WORD: u64 = 0x1C;

pub(super) fn board(tree: &Tree<'_>) -> Board {
    let mct = register(tree, MCT, MCT_G_TCON);
    Board {
        hidden: HIDDEN,
        unnamed: UNNAMED,
        prepare: steps(mct, Action::Set(G_TCON_START)),
        start: start(tree),
        reset: steps(register(tree, PMU, PMU_SWRESET), Action::Write(1)),
        off: steps(register(tree, PMU, PMU_PS_HOLD), Action::Write(PS_HOLD_LOW)),
    }
}

fn start(tree: &Tree<'_>) -> Start {
    if !tree.root().is_compatible(&[PEN_BOARD]) {
        return Start::None;
    }
    let word = match tree.compatible(SECURE_FIRMWARE).next() {
        Some(_) => register(tree, SYSRAM_NS, NS_BOOT_WORD),
        None => register(tree, SYSRAM, 0),
    };
    match word {
        Some(_) => {
            let mut all = steps(register(tree, PMU, PMU_CORE1), Action::Set(CORE_POWER));
            all.extend(steps(word, Action::WriteEntry));
            Start::Pen(all)
        }
        None => Start::None,
    }
}

fn steps(at: Option<u64>, action: Action) -> Vec<Step> {
    at.map_or_else(Vec::new, |at| vec![Step { at, action }])
}
