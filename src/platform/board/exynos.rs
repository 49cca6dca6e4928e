//! Samsung's Exynos 5 (Exynos 5250 user's manual; for the others, registers and order as in Linux' drivers).
//!
//! The generic timer counts only while the multi-core timer's free-running counter does, so that is started first and
//! kept by the hypervisor. Secondary CPUs are powered up first: those of the 5250 may be off, all others are.
//!
//! On the 5250 and the 5410 they wait in the boot loader's pen for an interrupt, and jump to the address in a word of
//! SYSRAM, or of the non-secure one where there is secure firmware. On the 5420, 5422 and 5800 the boot loader's code,
//! or secure firmware, jumps to the start of the non-secure SYSRAM, where a jump to the entry is put. When the machine
//! has booted on a Cortex-A7, each other one must be reset as well, once ROM has prepared it.

use alloc::vec;
use alloc::vec::Vec;

use dt::Tree;

use super::{Action, Board, Step, register, starts, step};
use crate::platform::cpus::CpuInfo;

pub(super) const COMPATIBLE: &[&str] = &["samsung,exynos5"];

/// Processors whose secondary CPUs wait in a pen.
const WITH_PEN: &[&str] = &["samsung,exynos5250", "samsung,exynos5410"];
/// Processors with two clusters of four CPUs.
const WITH_CLUSTERS: &[&str] = &["samsung,exynos5420", "samsung,exynos5800"];

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
/// `ARM_COREn_CONFIGURATION` of the power controller: CPU 0's, and the distance to the next.
const PMU_CORE: u64 = 0x2000;
const PMU_CORE_DISTANCE: u64 = 0x80;
/// `ARM_COREn_CONFIGURATION`: powers the CPU.
const CORE_POWER: u32 = 3;
/// `PMU_SPARE2`: ROM sets bit 0 when a Cortex-A7 may be reset.
const PMU_SPARE2: u64 = 0x908;
/// `PMU_SPARE3`: both bits let `SWRESET` reset Cortex-A7.
const PMU_SPARE3: u64 = 0x90C;
/// `SWRESET`: the first Cortex-A7 and its trace unit.
const CORTEX_A7_RESET: u32 = 1 << 8 | 1 << 20;
/// Affinity of the first Cortex-A7.
const CORTEX_A7: u32 = 0x100;
/// `ldr r0, [pc]` and `bx r0`; the entry follows.
const JUMP: [u32; 2] = [0xE59F_0000, 0xE12F_FF10];
/// Word of the non-secure SYSRAM with the start address of a CPU in secure firmware's pen.
const NS_BOOT_WORD: u64 = 0x1C;

pub(super) fn board(tree: &Tree<'_>, cpus: &[CpuInfo]) -> Board {
    let mct = register(tree, MCT, MCT_G_TCON);
    // Trees have the CPU on which the machine boots first.
    let boots_on = cpus.first().map_or(0, |cpu| cpu.mpidr);
    Board {
        hidden: HIDDEN,
        unnamed: UNNAMED,
        prepare: steps(mct, Action::Set(G_TCON_START)),
        starts: starts(cpus, |cpu| start(tree, cpu.mpidr, boots_on)),
        reset: steps(register(tree, PMU, PMU_SWRESET), Action::Write(1)),
        off: steps(register(tree, PMU, PMU_PS_HOLD), Action::Write(PS_HOLD_LOW)),
        ..Board::default()
    }
}

fn start(tree: &Tree<'_>, mpidr: u32, boots_on: u32) -> Option<Vec<Step>> {
    let (cluster, number) = (mpidr >> 8, mpidr & 0xFF);
    if cluster > 1 || number > 3 {
        return None;
    }
    let core = PMU_CORE + PMU_CORE_DISTANCE * u64::from(4 * cluster + number);
    let power = steps(register(tree, PMU, core), Action::Set(CORE_POWER));
    if tree.root().is_compatible(WITH_PEN) {
        let word = match tree.compatible(SECURE_FIRMWARE).next() {
            Some(_) => register(tree, SYSRAM_NS, NS_BOOT_WORD),
            None => register(tree, SYSRAM, 0),
        };
        return Some([power, vec![step(word?, Action::WriteEntry)]].concat());
    }
    if !tree.root().is_compatible(WITH_CLUSTERS) {
        return None;
    }
    let sram = register(tree, SYSRAM_NS, 0)?;
    let jump = JUMP
        .map(Action::Write)
        .into_iter()
        .chain([Action::WriteEntry]);
    let mut all: Vec<Step> = (sram..)
        .step_by(4)
        .zip(jump)
        .map(|(at, action)| step(at, action))
        .collect();
    all.extend(power);
    if mpidr >= CORTEX_A7 && boots_on >= CORTEX_A7 {
        all.extend([
            step(register(tree, PMU, PMU_SPARE3)?, Action::Write(3)),
            step(
                register(tree, PMU, PMU_SPARE2)?,
                Action::Wait { mask: 1, value: 1 },
            ),
            step(
                register(tree, PMU, PMU_SWRESET)?,
                Action::Write(CORTEX_A7_RESET << number),
            ),
        ]);
    }
    Some(all)
}

fn steps(at: Option<u64>, action: Action) -> Vec<Step> {
    at.map_or_else(Vec::new, |at| vec![step(at, action)])
}
