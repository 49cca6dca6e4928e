//! `make bench-check`: Krypton's figures against the stored ones, and against the limits that hold whatever is stored.

use crate::Result;
use crate::options::Options;
use crate::session::Echo;

use super::figures::{Figures, Store};
use super::guest::{Ground, Part};
use super::whole;

/// Most instructions that a row may cost; Xen 4.17.5 as Debian builds it needs the number behind it.
const LIMITS: &[(&str, f64)] = &[
    ("reset_to_guest", 70e6),              // 270.5e6
    ("hypercall_xen_version", 170.0),      // 487
    ("gicd_read_typer", 230.0),            // 767
    ("gicd_read_isenabler0", 234.0),       // 781
    ("gicd_write_isenabler0_noop", 292.0), // 835
    ("psci_version", 169.0),               // 563
    ("hypercall_sched_yield", 450.0),      // 4501
    ("mem_decrease_2m", 263_535.0),        // 1054140
];

/// How much worse than stored a row may get.
const SLACK: f64 = 1.03;
/// Figures are rounded to 0.1, and a tick of the counter is 16 instructions of a whole row.
const ROUNDING: f64 = 0.3;

/// Measures Krypton's rows of one and two vCPUs and its image's size, and judges them.
pub fn check(options: &Options, echo: Echo) -> Result {
    let mut figures = Part::Two.measure(Ground::Krypton, options, echo)?;
    figures.extend(Part::One.measure(Ground::Krypton, options, echo)?);
    figures.extend(whole::image_size(Ground::Krypton, options)?);
    let stored = Store::load()?.section(Ground::Krypton.section());
    for line in improvements(&figures, &stored) {
        println!("{line}");
    }
    judge(&figures, &stored)
}

fn judge(figures: &Figures, stored: &Figures) -> Result {
    let mut complaints = Vec::new();
    for (row, limit) in LIMITS {
        match figures.get(*row) {
            Some(cost) if cost <= limit => {}
            Some(cost) => complaints.push(format!("{row} costs {cost}, limit {limit}")),
            None => complaints.push(format!("{row} is missing")),
        }
    }
    for (row, cost) in figures {
        match stored.get(row) {
            Some(before) if *cost > before * SLACK + ROUNDING => complaints.push(format!(
                "{row} costs {cost}, {:.1} % more than the {before} in tests/bench/figures.toml",
                (cost / before - 1.0) * 100.0
            )),
            Some(_) => {}
            None => complaints.push(format!("{row} has no stored figure: run `make bench`")),
        }
    }
    if complaints.is_empty() {
        Ok(())
    } else {
        Err(complaints.join("\n"))
    }
}

/// Rows that got so much better that the stored figure would hide a later loss.
fn improvements(figures: &Figures, stored: &Figures) -> Vec<String> {
    figures
        .iter()
        .filter_map(|(row, cost)| Some((row, cost, stored.get(row)?)))
        .filter(|(_, cost, before)| **cost * SLACK + ROUNDING < **before)
        .map(|(row, cost, before)| {
            format!("{row}: {cost} instead of {before}; `make bench` stores it")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Figures, LIMITS, improvements, judge};

    fn at_the_limits() -> Figures {
        LIMITS
            .iter()
            .map(|(row, limit)| ((*row).to_owned(), *limit))
            .collect()
    }

    #[test]
    fn figures_as_stored_and_within_the_limits_pass() {
        let figures = at_the_limits();
        assert_eq!(judge(&figures, &figures), Ok(()));
    }

    #[test]
    fn a_row_beyond_its_limit_fails_even_if_it_is_stored_so() {
        let mut figures = at_the_limits();
        figures.insert("psci_version".into(), 170.0);
        assert!(judge(&figures, &figures.clone()).is_err());
    }

    #[test]
    fn a_row_more_than_3_percent_worse_fails() {
        let stored = Figures::from_iter(
            at_the_limits()
                .into_iter()
                .chain([("grant_map_unmap".into(), 1000.0)]),
        );
        let with = |cost: f64| {
            let mut figures = stored.clone();
            figures.insert("grant_map_unmap".into(), cost);
            figures
        };
        assert_eq!(judge(&with(1030.0), &stored), Ok(()));
        assert!(judge(&with(1031.0), &stored).is_err());
        assert_eq!(improvements(&with(900.0), &stored).len(), 1);
        assert!(improvements(&with(990.0), &stored).is_empty());
    }

    #[test]
    fn a_missing_or_unknown_row_fails() {
        let stored = at_the_limits();
        assert!(judge(&Figures::new(), &stored).is_err());
        let mut figures = stored.clone();
        figures.insert("new_row".into(), 1.0);
        assert!(judge(&figures, &stored).is_err());
    }
}
