//! The generic timer's interrupts and frequency.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use dt::{Node, Tree};

use super::BootError;
use super::interrupt::{self, Route};

pub(crate) const TIMER: &[&str] = &["arm,armv7-timer", "arm,armv8-timer"];

/// The interrupts of the secure physical, physical, virtual and hypervisor's timer (Cortex-A15 TRM 8.2.1, Cortex-A7 TRM
/// 8.2.1).
const FIXED: [u32; 4] = [29, 30, 27, 26];
/// Path of the node that dom0 gets where the tree has none.
const UNNAMED: &str = "/arch-timer";

/// The generic timer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TimerInfo {
    /// Path of its node, in dom0's tree at least.
    pub path: String,
    /// Interrupt id of the secure physical timer.
    pub secure_physical: u32,
    /// Interrupt id of the non-secure physical timer.
    pub physical: u32,
    /// Interrupt id of the virtual timer.
    pub virtual_timer: u32,
    /// Interrupt id of the hypervisor's timer.
    pub hypervisor: u32,
    /// Frequency in Hz from the tree. Overrides CNTFRQ, which old firmware sets wrongly.
    pub frequency: Option<u32>,
}

pub(super) fn info(
    tree: &Tree<'_>,
    gic: &Node<'_>,
    notes: &mut Vec<String>,
) -> Result<TimerInfo, BootError> {
    let candidates: Vec<Node<'_>> = tree.all().filter(|n| n.is_compatible(TIMER)).collect();
    // Some boards' trees mark the only node disabled; it is used if there is no other.
    let enabled = candidates.iter().find(|n| n.is_enabled());
    let Some(node) = enabled.or(candidates.first()) else {
        notes.push(
            "TIMER: no node of a generic timer; its interrupts are taken to be the processor's"
                .to_string(),
        );
        let [secure_physical, physical, virtual_timer, hypervisor] = FIXED;
        return Ok(TimerInfo {
            path: UNNAMED.to_string(),
            secure_physical,
            physical,
            virtual_timer,
            hypervisor,
            frequency: None,
        });
    };
    let path = node.path();
    if !node.is_enabled() {
        notes.push(format!(
            "TIMER: {path} is disabled in the tree, used all the same"
        ));
    }
    let routes = interrupt::routes(node, gic);
    let names: Vec<&str> = node.strings("interrupt-names").collect();
    // In the binding's order, unless there are names (Linux' arm,arch_timer.yaml).
    let place = |index: usize, name: &str| match names.is_empty() {
        true => Some(index),
        false => names.iter().position(|known| *known == name),
    };
    let mut line = |index: usize, name: &str, what: &str| {
        let route = place(index, name).and_then(|place| routes.get(place));
        match (route, FIXED.get(index)) {
            (Some(Route::Gic(line)), _) if line.is_private() => Ok(line.intid),
            (None, Some(fixed)) => {
                // Names may omit the secure timer.
                if index > 0 {
                    notes.push(format!(
                        "TIMER: {path} has no interrupt of the {what} timer, taken to be {fixed}"
                    ));
                }
                Ok(*fixed)
            }
            _ => Err(BootError::Timer(format!(
                "no interrupt of the {what} timer at {path}"
            ))),
        }
    };
    Ok(TimerInfo {
        secure_physical: line(0, "sec-phys", "secure physical")?,
        physical: line(1, "phys", "physical")?,
        virtual_timer: line(2, "virt", "virtual")?,
        hypervisor: line(3, "hyp-phys", "hypervisor")?,
        frequency: node.u32("clock-frequency").filter(|hz| *hz > 0),
        path: path.to_string(),
    })
}
