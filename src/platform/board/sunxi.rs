//! Allwinner's A20 and H3.

use super::Board;
use crate::platform::tree::Tree;

pub(super) const COMPATIBLE: &[&str] = &["allwinner,sun7i-a20", "allwinner,sun8i-h3"];

/// All UARTs share one page with the console's.
const HIDDEN: &[&str] = &["snps,dw-apb-uart"];

pub(super) fn board(_: &Tree<'_>) -> Board {
    Board {
        hidden: HIDDEN,
        ..Board::default()
    }
}
