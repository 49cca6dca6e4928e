//! What device trees do not say, as data: by the root's compatible for boards, by a node's for devices.

use super::tree::Node;

/// How secondary CPUs of a board without PSCI are started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SecondaryStart {
    /// Only by PSCI.
    Psci,
    /// Versatile Express: all ones to `SYS_FLAGSCLR` (flags + 4), the entry to `SYS_FLAGSSET`, then an SGI. The system
    /// registers are the node compatible with "arm,vexpress-sysreg".
    VexpressFlags,
    /// Exynos 5250: the entry goes to SYSRAM, then an SGI; 542x also needs the power controller.
    ExynosSysram,
}

/// What a board needs beyond its tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Board {
    /// The root's compatible.
    pub compatible: &'static str,
    /// How secondary CPUs start when there is no PSCI.
    pub secondaries: SecondaryStart,
    /// Nodes that dom0 must not have, by compatible.
    pub hidden: &'static [&'static str],
}

const NOTHING_SPECIAL: Board = Board {
    compatible: "",
    secondaries: SecondaryStart::Psci,
    hidden: &[],
};

const BOARDS: &[Board] = &[
    Board {
        compatible: "arm,vexpress",
        secondaries: SecondaryStart::VexpressFlags,
        hidden: &[
            "arm,cci-400",
            "arm,cci-400-pmu",
            "arm,hdlcd",
            "arm,vexpress-reset",
            "arm,vexpress-reboot",
            "arm,vexpress-shutdown",
        ],
    },
    Board {
        compatible: "samsung,exynos5250",
        secondaries: SecondaryStart::ExynosSysram,
        hidden: EXYNOS_HIDDEN,
    },
    Board {
        compatible: "samsung,exynos5410",
        secondaries: SecondaryStart::ExynosSysram,
        hidden: EXYNOS_HIDDEN,
    },
    Board {
        compatible: "samsung,exynos5",
        secondaries: SecondaryStart::ExynosSysram,
        hidden: EXYNOS_HIDDEN,
    },
    // All UARTs share one page with the console's.
    Board {
        compatible: "allwinner,sun7i-a20",
        secondaries: SecondaryStart::Psci,
        hidden: &["snps,dw-apb-uart"],
    },
    Board {
        compatible: "allwinner,sun8i-h3",
        secondaries: SecondaryStart::Psci,
        hidden: &["snps,dw-apb-uart"],
    },
];

/// The multi-core timer stays with the hypervisor, which keeps the counter running.
const EXYNOS_HIDDEN: &[&str] = &["samsung,exynos4210-mct", "samsung,secure-firmware"];

/// Interrupt controllers that only add wake-up and hand GIC specifiers on unchanged.
const SPECIFIERS_PASS: &[&str] = &[
    "samsung,exynos5250-pmu",
    "samsung,exynos5410-pmu",
    "samsung,exynos5420-pmu",
    "ti,omap5-wugen-mpu",
    "ti,omap4-wugen-mpu",
    "fsl,imx7d-gpc",
    "nvidia,tegra124-ictlr",
    "nvidia,tegra30-ictlr",
];

/// The board whose root node this is.
pub fn board(root: &Node<'_>) -> Board {
    let of_root = |board: &&Board| root.is_compatible(&[board.compatible]);
    BOARDS
        .iter()
        .find(of_root)
        .copied()
        .unwrap_or(NOTHING_SPECIAL)
}

/// Whether a controller's specifiers are the GIC's.
pub fn passes_specifiers_on(controller: &Node<'_>) -> bool {
    controller.is_compatible(SPECIFIERS_PASS)
}
