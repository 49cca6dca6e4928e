//! Devices that restart the machine at once, when no word of a system controller does: watchdogs, and a power controller.

use alloc::vec::Vec;

use dt::{Node, Tree};

use super::{Action, Step, register_of};

struct Row {
    compatible: &'static str,
    /// Offsets and changes.
    steps: &'static [(u64, Action)],
}

const ROWS: &[Row] = &[
    // A31 and later: the action (1 resets the system), then enable with the shortest time (H3 user manual 4.7).
    Row {
        compatible: "allwinner,sun6i-a31-wdt",
        steps: &[(0x14, Action::Write(1)), (0x18, Action::Write(1))],
    },
    // A10 to A20: enable with reset and the shortest time, then restart with the key (A20 user manual 1.9.4).
    Row {
        compatible: "allwinner,sun4i-a10-wdt",
        steps: &[(4, Action::Write(3)), (0, Action::Write(0xA57 << 1 | 1))],
    },
    // Microseconds, the key that loads them, then: enable, reset the system, by a clock of 1 MHz, the full chip.
    Row {
        compatible: "aspeed,ast2600-wdt",
        steps: &[
            (0x4, Action::Write(100_000)),
            (0x8, Action::Write(0x4755)),
            (0xC, Action::Write(1 | 1 << 1 | 1 << 4 | 1 << 5)),
        ],
    },
    // WCR with WDE: SRS and WDA are clear, which resets the chip and pulls its pin (i.MX 6UltraLite reference manual 59.7).
    // The i.MX6 may miss a write (erratum ERR004346).
    Row {
        compatible: "fsl,imx21-wdt",
        steps: &[
            (0, Action::WriteHalf(1 << 2)),
            (0, Action::WriteHalf(1 << 2)),
            (0, Action::WriteHalf(1 << 2)),
        ],
    },
    // The shortest time, enable with reset, and restart with the key (RK3288 technical reference manual, chapter 23).
    Row {
        compatible: "snps,dw-wdt",
        steps: &[
            (0x4, Action::Write(0)),
            (0x0, Action::Write(1)),
            (0xC, Action::Write(0x76)),
        ],
    },
    // MAIN_RST of APBDEV_PMC_CNTRL (Tegra K1 technical reference manual 9.2).
    Row {
        compatible: "nvidia,tegra124-pmc",
        steps: &[(0, Action::Set(1 << 4))],
    },
];

/// Returns the steps that restart the machine; empty if it has no such device. Reads each node once.
pub(super) fn reset(tree: &Tree<'_>) -> Vec<Step> {
    let mut devices = tree.all().filter_map(|node| Some((row_of(&node)?, node)));
    // A disabled one is there all the same.
    let first = devices.next();
    let is_enabled = |(_, node): &(&Row, Node<'_>)| node.is_enabled();
    let enabled = first.iter().copied().chain(devices).find(is_enabled);
    let steps = enabled.or(first).and_then(|(row, node)| {
        let step = |(offset, action): &(u64, Action)| {
            Some(Step {
                at: register_of(&node, *offset)?,
                action: *action,
            })
        };
        row.steps.iter().map(step).collect()
    });
    steps.unwrap_or_default()
}

fn row_of(node: &Node<'_>) -> Option<&'static Row> {
    let mut names = node.strings("compatible");
    names.find_map(|name| ROWS.iter().find(|row| row.compatible == name))
}
