//! Facts about devices that are not in device trees, by a node's compatible. Boards are in `board`.

use dt::Node;

/// Interrupt controllers that only add wake-up and pass GIC specifiers on unchanged.
const SPECIFIERS_PASS: &[&str] = &[
    "samsung,exynos5250-pmu",
    "samsung,exynos5410-pmu",
    "samsung,exynos5420-pmu",
    "ti,omap5-wugen-mpu",
    "ti,omap4-wugen-mpu",
    "fsl,imx6q-gpc",
    "fsl,imx7d-gpc",
    "allwinner,sun6i-a31-r-intc",
    "allwinner,sun8i-a83t-r-intc",
    "allwinner,sun8i-h3-r-intc",
    "allwinner,sun50i-a64-r-intc",
    "nvidia,tegra124-ictlr",
    "nvidia,tegra30-ictlr",
];

/// Returns whether a controller passes GIC specifiers on unchanged.
pub fn passes_specifiers_on(controller: &Node<'_>) -> bool {
    controller.is_compatible(SPECIFIERS_PASS)
}
