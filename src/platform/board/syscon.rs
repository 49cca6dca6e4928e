//! Ends of a machine that any tree may describe: a word in the registers of a system controller (bindings
//! `power/reset/syscon-reboot.yaml` and `syscon-poweroff.yaml`), and a watchdog that nobody feeds.

use alloc::vec;
use alloc::vec::Vec;

use dt::{Node, Tree};

use super::{Action, Step};
use crate::platform::translate;

const REBOOT: &[&str] = &["syscon-reboot"];
const POWER_OFF: &[&str] = &["syscon-poweroff"];

/// Allwinner's watchdog since the A31 (H3 user manual 4.7).
const SUN6I_WATCHDOG: &[&str] = &["allwinner,sun6i-a31-wdt"];
/// The action when time is up; 1: the whole system is reset.
const WDOG_CFG: u64 = 0x14;
/// On and the time, half a second with 0.
const WDOG_MODE: u64 = 0x18;

/// Returns what restarts the machine by its tree; nothing when that names nothing.
pub(super) fn reset(tree: &Tree<'_>) -> Vec<Step> {
    word(tree, REBOOT)
        .or_else(|| watchdog(tree))
        .unwrap_or_default()
}

/// Returns what switches the machine off by its tree.
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

/// Returns the word at `offset` of a node's registers; `None` when it has none there.
fn register(node: &Node<'_>, offset: u64) -> Option<u64> {
    let registers = translate::reg_ranges(node).next()??;
    let is_inside = offset.is_multiple_of(4) && offset.checked_add(4)? <= registers.size();
    is_inside.then(|| registers.base() + offset)
}
