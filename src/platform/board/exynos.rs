//! Samsung's Exynos 5.

use super::Board;
use crate::platform::tree::Tree;

pub(super) const COMPATIBLE: &[&str] = &[
    "samsung,exynos5250",
    "samsung,exynos5410",
    "samsung,exynos5",
];

/// The multi-core timer stays with the hypervisor, which keeps the counter running.
const HIDDEN: &[&str] = &["samsung,exynos4210-mct", "samsung,secure-firmware"];

pub(super) fn board(_: &Tree<'_>) -> Board {
    Board {
        hidden: HIDDEN,
        ..Board::default()
    }
}
