//! docs/boards/README.md: what a boot makes of all of Debian's trees, a row for each processor family, made by
//! `cargo xtask tree` and compared by the test.

use std::collections::BTreeMap;
use std::path::PathBuf;

use krypton::platform::host_dt::Conduit;
use krypton::platform::uart::Model;

use super::rehearsal::{Arrival, Rehearsal};
use crate::project;

/// The values of a tree in the table.
pub struct Facts {
    /// The root's last compatible, which names the processor or its family.
    family: String,
    console: &'static str,
    cpus: String,
    restart: &'static str,
    /// Its interrupts' SPIs are chosen by a driver.
    is_chosen: bool,
}

/// A tree of such a machine.
pub struct Surveyed {
    /// File name without its ending.
    pub name: String,
    /// Its values, or the error line of a boot that does not come to dom0.
    pub found: Result<Facts, String>,
}

/// Families whose U-Boot can give PSCI (its `CONFIG_ARMV7_PSCI`), although the trees do not say so.
const PSCI_BY_UBOOT: &[&str] = &[
    "allwinner,sun6i",
    "allwinner,sun7i",
    "allwinner,sun8i",
    "fsl,imx7",
    "nvidia,tegra124",
];

impl Facts {
    /// Collects them from a boot that came to dom0.
    pub fn of(rehearsal: &Rehearsal) -> Self {
        let host = &rehearsal.host;
        let family = host.compatible.last().cloned().unwrap_or_default();
        let by_uboot = PSCI_BY_UBOOT.iter().any(|name| family.starts_with(name));
        let notes = rehearsal.dom0.as_ref().map(|plan| &plan.devices.notes);
        Self {
            console: match rehearsal.console.as_ref().map(|uart| uart.model) {
                Ok(Model::Pl011) => "PL011",
                Ok(Model::Ns16550 { .. }) => "16550",
                Ok(Model::Exynos4210) => "Exynos",
                Ok(Model::Imx) => "i.MX",
                Ok(Model::Stm32h7) => "STM32",
                Ok(Model::Scif(_)) => "SCIF",
                Err(_) => "`dtuart=` needed",
            },
            cpus: cpus(rehearsal, by_uboot),
            restart: match (&host.psci, host.board.reset.is_empty()) {
                (Some(psci), _) if psci.conduit == Conduit::Smc && psci.standard => "PSCI",
                (_, false) => "registers",
                (_, true) if by_uboot => "U-Boot's PSCI",
                (_, true) => "**none**",
            },
            is_chosen: notes.is_ok_and(|notes| {
                notes
                    .iter()
                    .any(|note| note.ends_with("whose driver chooses the SPIs"))
            }),
            family,
        }
    }
}

fn cpus(rehearsal: &Rehearsal, by_uboot: bool) -> String {
    let all = rehearsal.cpus.len();
    let count = |is_it: fn(&Arrival) -> bool| {
        let cpus = rehearsal.cpus.iter();
        cpus.filter(|(_, arrival)| is_it(arrival)).count()
    };
    let other = count(|arrival| matches!(arrival, Arrival::OtherKind));
    let of_two = match other {
        0 => String::new(),
        other => format!(", {other} of another kind left out"),
    };
    let kind = all - other;
    let late = count(|arrival| matches!(arrival, Arrival::Never(_)));
    let way = match rehearsal.cpus.get(1).map(|(_, arrival)| arrival) {
        _ if kind == 1 => "",
        _ if late > 0 && by_uboot => " by U-Boot's PSCI",
        Some(Arrival::Registers) if by_uboot => " by U-Boot's PSCI, else by registers",
        Some(Arrival::Psci) => " by PSCI",
        Some(Arrival::Never(why)) => return format!("**1 of {kind}** ({why}){of_two}"),
        _ => " by registers",
    };
    format!("{kind}{way}{of_two}")
}

/// The file that the table is in.
pub fn file() -> PathBuf {
    project::root().join("docs/boards/README.md")
}

const HEAD: &str = "\
# Boards

Which boards ran, and where: [the table in README](../../README.md#boards). Those with a page here:

PAGES

## When a board has run

Or has not: what it said is worth as much. `make report` puts everything into `target/report.txt`, with a form in front:

```sh
# on the board, in dom0 or in Linux without a hypervisor:  cp /sys/firmware/fdt board.dtb
make report DTB=board.dtb LOG=console.txt        # the serial line, from the loader's first line on
```

## By their device trees

What a boot makes of the device trees in Debian's package `linux-image-armmp-lpae` that are of a Cortex-A7, A12, A15 or A17,
worked out on the host by the hypervisor's own code. `cargo xtask tree` writes this page, and the test `trees` compares it.
**It says what a tree leads to, not that a board ran.** RAM, PSCI and boot modules, which boot loaders add, are made up.

";

const NOTES: &str = "
- *Trees*: those that come to dom0, whose tree then equals the board's node by node but for a written list, with every enabled
  device mapped and its interrupts routed; and how many there are.
- *Console*: the driver; where a tree names no UART and has more than one, `dtuart=` must ([options](../boot.md#options)).
- *CPUs*: those of the boot CPU's kind, and how they start. \"U-Boot's PSCI\" is in no tree: U-Boot's configuration of the board
  must have it, and `bootm_boot_mode` must be `nonsec`. How the CPUs arrive that registers start: [below](#cpus-by-registers).
- *Restart*: what a restart and a panic use. Where there is nothing, the machine says so and stays.
- *SPIs chosen*: a driver of dom0 chooses the lines at the GIC, and gets each that it enables (debug key `i`).
";

const STARTS: &str = "
## CPUs by registers

Where firmware gives no PSCI, the board's own registers start the other CPUs (`src/platform/board`), as Linux' and U-Boot's
drivers for the board do. That helps only where a CPU arrives in HYP, or in a state from which it is brought there:

| family | the others wait | and arrive in | HYP by |
|---|---|---|---|
| Versatile Express, Exynos 5250 and 5410 | in the boot loader's pen | HYP, or secure SVC | `boot/secure.S` |
| AST2600 | in ROM, for two words | as firmware left the first (QEMU: HYP) | `boot/secure.S` |
| Exynos 5420, 5422, 5800 | off | secure SVC; by secure firmware unknown | `boot/secure.S` |
| i.MX 7Dual | off | secure SVC | `boot/secure.S` |
| Tegra K1 | off | secure SVC | `boot/secure.S` |
| Allwinner A80 | off (the Cortex-A15 stay so) | secure SVC | `boot/secure.S` |
| RK3036 | in ROM | secure SVC | `boot/secure.S` |
| RK3288 | in ROM | secure SVC of a Cortex-A17, **which `boot/secure.S` does not take** | nothing yet: it is parked |
| OMAP5, DRA7 | in ROM | non-secure SVC | ROM's monitor, function 0x102 |

QEMU has run these of `vexpress-a15`, `ast2600-evb` and `mcimx7d-sabre`; the sequences of all others are tested on the host
only. A BCM2836 (Raspberry Pi 2) has mailboxes for it, but no GIC, so that it is refused before.
";

/// Returns the page.
pub fn page(trees: &[Surveyed], pages: &str) -> String {
    let mut families: BTreeMap<&str, Vec<&Facts>> = BTreeMap::new();
    let mut refused = Vec::new();
    for tree in trees {
        match &tree.found {
            Ok(facts) => families.entry(&facts.family).or_default().push(facts),
            Err(why) => refused.push((&tree.name, why)),
        }
    }
    let came = trees.len() - refused.len();
    let mut page = HEAD.replace("PAGES", pages);
    page += &format!("{came} of {} trees come to dom0.\n\n", trees.len());
    page +=
        "| family | trees | console | CPUs | restart | SPIs chosen |\n|---|---|---|---|---|---|\n";
    for (family, facts) in &families {
        let of = |value: fn(&Facts) -> &str| counted(facts.iter().map(|facts| value(facts)));
        let chosen = facts.iter().filter(|facts| facts.is_chosen).count();
        page += &format!(
            "| `{family}` | {} | {} | {} | {} | {} |\n",
            facts.len(),
            of(|facts| facts.console),
            of(|facts| &facts.cpus),
            of(|facts| facts.restart),
            if chosen == 0 {
                String::new()
            } else {
                chosen.to_string()
            },
        );
    }
    page += NOTES;
    page += STARTS;
    page += "\nNot to dom0:\n\n";
    for (name, why) in refused {
        page += &format!("- `{name}`: {why}\n");
    }
    page
}

/// Returns the distinct values, the most frequent first, with their numbers if there are several.
fn counted<'a>(values: impl Iterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| usize::MAX - count);
    match counts.as_slice() {
        [(value, _)] => (*value).into(),
        several => {
            let each = several
                .iter()
                .map(|(value, count)| format!("{value}: {count}"));
            each.collect::<Vec<_>>().join("; ")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::counted;

    #[test]
    fn values_are_counted_where_they_differ() {
        assert_eq!(counted(["a", "a"].into_iter()), "a");
        assert_eq!(counted(["b", "a", "a"].into_iter()), "a: 2; b: 1");
    }
}
