//! A word in a system controller's registers that ends the machine, which any tree may describe (bindings
//! `power/reset/syscon-reboot.yaml` and `syscon-poweroff.yaml`).

use alloc::vec;
use alloc::vec::Vec;

use dt::Tree;

use super::{Action, Step, register_of};

const REBOOT: &[&str] = &["syscon-reboot"];
const POWER_OFF: &[&str] = &["syscon-poweroff"];

/// Returns the steps that restart the machine by its tree; empty if it has none.
pub(super) fn reset(tree: &Tree<'_>) -> Vec<Step> {
    word(tree, REBOOT).unwrap_or_default()
}

/// Returns the steps that switch the machine off by its tree; empty if it has none.
pub(super) fn off(tree: &Tree<'_>) -> Vec<Step> {
    word(tree, POWER_OFF).unwrap_or_default()
}

fn word(tree: &Tree<'_>, compatible: &[&str]) -> Option<Vec<Step>> {
    let node = tree
        .all()
        .find(|node| node.is_compatible(compatible) && node.is_enabled())?;
    let controller = match node.u32("regmap") {
        Some(phandle) => tree.by_phandle(phandle)?,
        None => node.parent()?,
    };
    let at = register_of(&controller, node.u32("offset")?.into())?;
    // Without `value`, `mask` is the value.
    let (value, mask) = match (node.u32("value"), node.u32("mask")) {
        (Some(value), mask) => (value, mask.unwrap_or(!0)),
        (None, Some(value)) => (value, !0),
        (None, None) => return None,
    };
    let action = match mask {
        u32::MAX => Action::Write(value),
        _ => Action::Replace { mask, value },
    };
    Some(vec![Step { at, action }])
}
