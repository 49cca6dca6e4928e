//! The benchmark guest (tests/guests/src/bench.rs) in dom0's place: what the hypervisor's services cost, in instructions.
//!
//! QEMU's `-icount shift=0,sleep=off` makes one instruction one nanosecond of virtual time, so a figure is exact and the
//! same on every machine. A row of [`LIMITS`] that costs more than its limit fails the test.

use crate::machine::Machine;
use crate::options::Options;
use crate::project::root;
use crate::session::{Echo, Session};
use crate::{Result, build};

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

/// Boots the guest and judges its figures.
pub fn test(options: &Options, echo: Echo) -> Result {
    let elf = build::guests()?.join("bench");
    let kernel = build::flat_guest(&elf, &root().join("target/guests/bench"))?;
    let mut machine = Machine::new(&Options {
        cpus: 1,
        memory_mib: 2048,
        highmem: false,
        ..options.clone()
    })?;
    machine.kernel = Some(kernel);
    machine.initrd = None;
    machine.append.push_str(" dom0_max_vcpus=1 dom0_vcpus_pin");
    machine.dom0_append = "guest=bench".into();
    machine.counted = true;
    let mut session = Session::start(&machine, echo)?;
    session.expect("done: all rows", options.timeout)?;
    judge(session.transcript())
}

/// The figure of a row.
fn figure(transcript: &str, row: &str) -> Option<f64> {
    transcript.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let is_row = words.next() == Some("bench") && words.next() == Some(row);
        if is_row {
            words.next()?.parse().ok()
        } else {
            None
        }
    })
}

fn judge(transcript: &str) -> Result {
    let mut complaints = Vec::new();
    for (row, limit) in LIMITS {
        match figure(transcript, row) {
            Some(cost) if cost <= *limit => {}
            Some(cost) => complaints.push(format!("{row} costs {cost}, limit {limit}")),
            None => complaints.push(format!("{row} is missing")),
        }
    }
    if complaints.is_empty() {
        Ok(())
    } else {
        Err(complaints.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::{LIMITS, figure, judge};

    #[test]
    fn a_row_is_found_by_its_whole_name() {
        let transcript = "bench psci_version_2 5.0\nbench psci_version 93.0\n";
        assert_eq!(figure(transcript, "psci_version"), Some(93.0));
        assert_eq!(figure(transcript, "psci"), None);
    }

    #[test]
    fn a_row_beyond_its_limit_or_missing_fails() {
        let row =
            |(row, limit): &(&str, f64), extra: f64| format!("bench {row} {}\n", limit + extra);
        let all: String = LIMITS.iter().map(|limit| row(limit, 0.0)).collect();
        assert!(judge(&all).is_ok());
        let one_worse: String = LIMITS
            .iter()
            .enumerate()
            .map(|(n, limit)| row(limit, f64::from(n == 1)))
            .collect();
        assert!(judge(&one_worse).is_err());
        assert!(judge("").is_err());
    }
}
