//! The longest times with interrupts masked, in instructions, by path: a hypervisor that measures them itself
//! (src/latency.rs) runs what the test suite runs on one CPU, and tells them when its dom0 has powered off.
//!
//! A path is a hypercall with its operation, another kind of trap, an interrupt, or a wake-up from idle.

use std::collections::BTreeMap;

use crate::machine::Machine;
use crate::options::{Hypervisor, Options};
use crate::session::{Echo, Session};
use crate::{Result, build, dom0, guests};

use super::figures::{Figures, Store};
use super::guest::{Ground, Part};

/// Most instructions that interrupts may stay masked.
const LIMIT: f64 = 100_000.0;
/// Sysctl debug_keys: what a person asks for, and the tests' audit of all memory, is long by its nature.
const EXEMPT: &str = "hypercall_35_7";
/// A tick of the system counter is so many instructions.
const TICK: f64 = 16.0;
/// Rows of the table.
const SHOWN: usize = 15;
/// Sections of the figures file are `latency.WORKLOAD`.
pub const SECTION: &str = "latency.";

/// Scripts of tests/dom0 that need no second CPU: domUs made, dumped, ballooned, rebooted and destroyed; the test guests as
/// domUs.
const SCRIPTS: [&str; 4] = ["toolstack", "masked", "guests", "flood"];

/// Runs all workloads; answers what they took, by section.
pub fn measure(options: &Options, echo: Echo) -> Result<Vec<(String, Figures)>> {
    let options = Options {
        hypervisor: Hypervisor::Measuring,
        cpus: 1,
        counted: true,
        ..options.clone()
    };
    let mut sections = Vec::new();
    let mut take = |workload: &str, transcript: &str| {
        let figures = read(transcript);
        if figures.is_empty() {
            return Err(format!("nothing was measured in {workload}\n{transcript}"));
        }
        sections.push((format!("{SECTION}{workload}"), figures));
        Ok(())
    };
    for script in SCRIPTS {
        println!("measuring masked times: {script}");
        take(script, &dom0::told(script, &options, echo)?)?;
    }
    println!("measuring masked times: guests in dom0's place");
    for name in guests::names()? {
        let machine = guests::machine(&name, &options)?;
        take(&format!("guest_{name}"), &ended(&machine, &options, echo)?)?;
    }
    for part in [Part::One, Part::Two, Part::Scale] {
        let mut machine = part.machine(Ground::Krypton, &options)?;
        machine.hypervisor = build::measuring()?;
        let workload = format!("bench_{}", part.name());
        take(&workload, &ended(&machine, &options, echo)?)?;
    }
    Ok(sections)
}

/// Returns what a machine said until its end.
fn ended(machine: &Machine, options: &Options, echo: Echo) -> Result<String> {
    let mut session = Session::start(machine, echo)?;
    session.expect("done: ", options.timeout)?;
    session.expect_end(options.timeout)?;
    Ok(session.transcript().to_owned())
}

/// Returns the longest of each path, from lines `masked for TICKS ticks: PATH, operation OPERATION`.
fn read(transcript: &str) -> Figures {
    let mut figures = Figures::new();
    for line in transcript.lines() {
        if let Some((path, instructions)) = stretch(line) {
            let longest = figures.entry(path).or_insert(0.0);
            *longest = instructions.max(*longest);
        }
    }
    figures
}

/// Returns a path's name in the figures file, and its instructions.
fn stretch(line: &str) -> Option<(String, f64)> {
    let (_, rest) = line.split_once("masked for ")?;
    let (ticks, rest) = rest.split_once(" ticks: ")?;
    let (cause, operation) = rest.trim_end().split_once(", operation ")?;
    let cause = cause.to_lowercase().replace('(', "_").replace(')', "");
    let operation: u32 = operation.parse().ok()?;
    let path = if operation == u32::MAX {
        cause
    } else {
        format!("{cause}_{operation}")
    };
    Some((path, ticks.parse::<f64>().ok()? * TICK))
}

/// Returns the longest stretch of each path over all workloads, and the workload, longest first.
fn longest(store: &Store) -> Vec<(String, f64, String)> {
    let mut paths: BTreeMap<String, (f64, String)> = BTreeMap::new();
    for (section, figures) in store.sections(SECTION) {
        for (path, instructions) in figures.iter().filter(|(path, _)| *path != EXEMPT) {
            let longest = paths.entry(path.clone()).or_default();
            if *instructions > longest.0 {
                *longest = (*instructions, section[SECTION.len()..].to_owned());
            }
        }
    }
    let mut rows: Vec<_> = paths
        .into_iter()
        .map(|(path, (instructions, workload))| (path, instructions, workload))
        .collect();
    rows.sort_by(|a, b| b.1.total_cmp(&a.1));
    rows
}

/// Returns the paths that take longest, in a sentence and a table.
pub fn markdown(store: &Store) -> String {
    let rows = longest(store);
    let mut text = summary(store)
        + " Debug keys are left out.\n\n| instructions | path | longest in |\n|--:|---|---|\n";
    for (path, instructions, workload) in rows.iter().take(SHOWN) {
        text += &format!("| {instructions} | {} | `{workload}` |\n", spoken(path));
    }
    text
}

/// Returns the longest of all, and whether it is within the limit.
pub fn summary(store: &Store) -> String {
    let rows = longest(store);
    match rows.first() {
        Some((path, instructions, workload)) => format!(
            "Longest time with interrupts masked: {instructions} instructions (limit {LIMIT}), by {} in {workload}; {} of \
             {} paths are above the limit.",
            spoken(path),
            rows.iter().filter(|row| row.1 > LIMIT).count(),
            rows.len()
        ),
        None => "Times with interrupts masked were not measured.".into(),
    }
}

/// Fails where a path is above the limit.
pub fn judge(store: &Store) -> Result {
    let above: Vec<String> = longest(store)
        .into_iter()
        .filter(|(_, instructions, _)| *instructions > LIMIT)
        .map(|(path, instructions, workload)| {
            format!(
                "interrupts are masked for {instructions} instructions, limit {LIMIT}: {} in {workload}",
                spoken(&path)
            )
        })
        .collect();
    if above.is_empty() {
        Ok(())
    } else {
        Err(above.join("\n"))
    }
}

/// Returns a path by the names of xen/include/public and of HSR.EC, where this file knows them.
fn spoken(path: &str) -> String {
    let mut words = path.split('_');
    let kind = words.next().unwrap_or_default();
    let mut number = || words.next().and_then(|word| word.parse::<u32>().ok());
    let (first, second) = (number(), number());
    match (kind, first, second) {
        ("hypercall", Some(call), operation) => {
            let of = |names: &[(u32, &str)], number: u32| {
                names
                    .iter()
                    .find(|(known, _)| *known == number)
                    .map(|(_, name)| (*name).to_owned())
            };
            let name = of(HYPERCALLS, call).unwrap_or_else(|| format!("hypercall {call}"));
            let operations = match call {
                12 => MEMORY,
                20 => GRANTS,
                36 => DOMCTLS,
                _ => &[],
            };
            operation.map_or(name.clone(), |operation| {
                let operation = of(operations, operation).unwrap_or_else(|| operation.to_string());
                format!("{name} {operation}")
            })
        }
        ("trap", Some(0x01), _) => "WFI or WFE".into(),
        ("trap", Some(0x03..=0x08), _) => "access to a coprocessor".into(),
        ("trap", Some(0x13), _) => "SMC".into(),
        ("trap", Some(0x20), _) => "prefetch abort".into(),
        ("trap", Some(0x24), _) => "data abort (an emulated device, or a hole)".into(),
        ("interrupt", ..) => "an interrupt".into(),
        ("idle", ..) => "a wake-up from idle".into(),
        _ => path.into(),
    }
}

const HYPERCALLS: &[(u32, &str)] = &[
    (7, "platform_op"),
    (12, "memory_op"),
    (13, "multicall"),
    (17, "xen_version"),
    (18, "console_io"),
    (20, "grant_table_op"),
    (24, "vcpu_op"),
    (29, "sched_op"),
    (32, "event_channel_op"),
    (34, "hvm_op"),
    (35, "sysctl"),
    (36, "domctl"),
    (42, "hypfs_op"),
];
const MEMORY: &[(u32, &str)] = &[
    (0, "increase_reservation"),
    (1, "decrease_reservation"),
    (6, "populate_physmap"),
    (7, "add_to_physmap"),
    (11, "exchange"),
    (15, "remove_from_physmap"),
    (23, "add_to_physmap_batch"),
    (24, "claim_pages"),
    (28, "acquire_resource"),
];
const GRANTS: &[(u32, &str)] = &[
    (0, "map_grant_ref"),
    (1, "unmap_grant_ref"),
    (2, "setup_table"),
    (5, "copy"),
    (6, "query_size"),
    (8, "set_version"),
];
const DOMCTLS: &[(u32, &str)] = &[
    (1, "createdomain"),
    (2, "destroydomain"),
    (3, "pausedomain"),
    (4, "unpausedomain"),
    (5, "getdomaininfo"),
    (9, "setvcpuaffinity"),
    (10, "shadow_op"),
    (11, "max_mem"),
    (12, "setvcpucontext"),
    (13, "getvcpucontext"),
    (14, "getvcpuinfo"),
    (15, "max_vcpus"),
    (16, "scheduler_op"),
    (17, "setdomainhandle"),
    (20, "iomem_permission"),
    (25, "getvcpuaffinity"),
    (71, "cacheflush"),
];

#[cfg(test)]
mod tests {
    use super::{Figures, Store, judge, read, spoken, summary};

    const CONSOLE: &str = "\
(XEN) masked for 100 ticks: Hypercall(36), operation 2
(XEN) masked for 90 ticks: Interrupt, operation 4294967295
(XEN) masked for 80 ticks: Trap(36), operation 4294967295
(XEN) Hardware Dom0 halted: halting machine
";

    #[test]
    fn each_path_is_read_in_instructions() {
        let figures = read(CONSOLE);
        let expected = [
            ("hypercall_36_2".to_owned(), 1600.0),
            ("interrupt".to_owned(), 1440.0),
            ("trap_36".to_owned(), 1280.0),
        ];
        assert_eq!(figures, Figures::from(expected));
    }

    #[test]
    fn paths_have_names() {
        assert_eq!(spoken("hypercall_36_2"), "domctl destroydomain");
        assert_eq!(spoken("hypercall_32_4"), "event_channel_op 4");
        assert_eq!(spoken("hypercall_99"), "hypercall 99");
        assert_eq!(spoken("interrupt"), "an interrupt");
    }

    #[test]
    fn a_path_above_the_limit_fails_and_is_named() {
        let mut store = Store::default();
        store.update("latency.a", &read(CONSOLE));
        assert_eq!(judge(&store), Ok(()));
        let long = Figures::from([("hypercall_36_2".into(), 100_016.0)]);
        store.update("latency.b", &long);
        let error = judge(&store).unwrap_err();
        assert!(error.contains("domctl destroydomain in b"), "{error}");
        assert!(
            summary(&store).contains("1 of 3 paths"),
            "{}",
            summary(&store)
        );
    }
}
