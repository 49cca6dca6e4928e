//! Methods to end a machine that any tree may describe: a word in a system controller's registers (bindings
//! `power/reset/syscon-reboot.yaml` and `syscon-poweroff.yaml`), and an expiring watchdog.

use alloc::vec;
use alloc::vec::Vec;

use dt::{Node, Tree};

use super::{Action, Step};
use crate::platform::translate;

const REBOOT: &[&str] = &["syscon-reboot"];
const POWER_OFF: &[&str] = &["syscon-poweroff"];

/// Allwinner's watchdog since the A31 (H3 user manual 4.7).
const SUN6I_WATCHDOG: &[&str] = &["allwinner,sun6i-a31-wdt"];
/// Action at expiry; 1 resets the whole system.
const WDOG_CFG: u64 = 0x14;
/// Enable, and the time-out: 0 is half a second.
const WDOG_MODE: u64 = 0x18;

/// Returns the steps that restart the machine by its tree; empty if it has none.
pub(super) fn reset(tree: &Tree<'_>) -> Vec<Step> {
    word(tree, REBOOT)
        .or_else(|| watchdog(tree))
        .unwrap_or_default()
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
    let at = register(&controller, node.u32("offset")?.into())?;
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

fn watchdog(tree: &Tree<'_>) -> Option<Vec<Step>> {
    let node = tree.all().find(|node| node.is_compatible(SUN6I_WATCHDOG))?;
    let write = |at, value| Step {
        at,
        action: Action::Write(value),
    };
    Some(vec![
        write(register(&node, WDOG_CFG)?, 1),
        write(register(&node, WDOG_MODE)?, 1),
    ])
}

/// Returns the address of the word at `offset` of a node's registers; `None` if it is outside.
fn register(node: &Node<'_>, offset: u64) -> Option<u64> {
    let registers = translate::reg_ranges(node).next()??;
    let is_inside = offset.is_multiple_of(4) && offset.checked_add(4)? <= registers.size();
    is_inside.then(|| registers.base() + offset)
}
