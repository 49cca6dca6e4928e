//! `cargo xtask tree BOARD.dtb [MEM]`: what a boot makes of a board's device tree, worked out on the host by the hypervisor's
//! own code, for a person with a board; and the same over all trees of Debian's kernel package, as a test and as a page.

mod compare;
mod loader;
mod rehearsal;
mod survey;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use krypton::platform::host_dt::Conduit;
use krypton::platform::ranges::PhysRange;

use crate::options::Options;
use crate::{Result, project};
use compare::Board;
use loader::{Loaded, Ram, with_tree};
use rehearsal::{Arrival, Rehearsal};
use survey::{Facts, Surveyed};

/// Prints what a boot makes of the tree; fails where it would not come to dom0. Without one, writes the page about Debian's.
pub fn show(options: &Options) -> Result<ExitCode> {
    let (file, ram) = match options.operands.as_slice() {
        [] => {
            crate::build::write(&survey::file(), page()?.as_bytes())?;
            return Ok(ExitCode::SUCCESS);
        }
        [file] => (file, None),
        [file, ram] => (file, Some(loader::ram(ram)?)),
        _ => {
            return Err(
                "tree wants a file, and RAM if the file says none: 1G, 0x40000000:1G".into(),
            );
        }
    };
    let report = Report::of(&read(Path::new(file))?, ram, &options.append);
    print!("{}", report.text);
    if let (Some(out), Some(tree)) = (&options.out, &report.dom0) {
        fs::write(out, tree).map_err(|error| format!("{}: {error}", out.display()))?;
    }
    Ok(match report.missing.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Returns what [`show`] prints of a tree.
pub fn text(file: &Path, ram: Option<&str>, words: &str) -> Result<String> {
    let ram = ram.map(loader::ram).transpose()?;
    Ok(Report::of(&read(file)?, ram, words).text)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Findings about one tree.
#[derive(Default)]
struct Report {
    text: String,
    /// Nodes and properties that dom0's tree lacks, or has otherwise, and should not.
    lost: Vec<String>,
    /// Why it would not come to dom0.
    missing: Vec<String>,
    /// Warnings for a person before trying: it would boot all the same.
    doubts: Vec<String>,
    /// The board's tree, as the boot loader hands it over.
    loaded: Vec<u8>,
    /// dom0's tree.
    dom0: Option<Vec<u8>>,
    /// Its entry in the page about Debian's trees, if it comes to dom0.
    facts: Option<Facts>,
}

impl Report {
    fn of(bytes: &[u8], ram: Option<Ram>, words: &str) -> Self {
        let mut report = Self::default();
        let loaded = loader::load(bytes, ram, words);
        let rehearsed = loaded.and_then(|loaded| {
            let rehearsal = Rehearsal::of(&loaded).map_err(|error| error.to_string())?;
            Ok((loaded, rehearsal))
        });
        match rehearsed {
            Ok((loaded, rehearsal)) => {
                report.describe(&loaded, &rehearsal);
                report.facts = Some(Facts::of(&rehearsal));
                report.loaded = loaded.bytes;
            }
            Err(error) => report.missing.push(error),
        }
        let (missing, doubts) = (report.missing.clone(), report.doubts.clone());
        match (missing.as_slice(), doubts.as_slice()) {
            ([], []) => report.text += "Nothing is missing.\n",
            ([], doubts) => report.list("It would boot, but:", doubts),
            (missing, _) => report.list("It would not boot:", missing),
        }
        report
    }

    fn row(&mut self, name: &str, text: impl AsRef<str>) {
        self.text += &format!("{name:<9}{}\n", text.as_ref());
    }

    fn list(&mut self, title: &str, lines: &[String]) {
        self.text += &format!("{title}\n");
        for line in lines {
            self.text += &format!("  {line}\n");
        }
    }

    fn describe(&mut self, loaded: &Loaded, rehearsal: &Rehearsal) {
        let host = &rehearsal.host;
        let names = host.compatible.join(", ");
        self.row("Board", format!("{} ({names})", host.model));
        for assumption in &loaded.assumed {
            self.row("Assumed", assumption);
        }
        self.cpus(rehearsal);
        self.row("RAM", sizes(&host.ram));
        if !host.firmware_reserved.is_empty() {
            self.row("Reserved", sizes(&host.firmware_reserved));
        }
        let gic = &host.gic;
        self.row(
            "GIC",
            format!(
                "{}: distributor {}, maintenance interrupt {}",
                gic.path, gic.distributor, gic.maintenance
            ),
        );
        let timer = &host.timer;
        let frequency = match timer.frequency {
            Some(hz) => format!("{hz} Hz"),
            None => "frequency by firmware (CNTFRQ)".into(),
        };
        self.row(
            "Timer",
            format!(
                "{}: virtual {}, hypervisor {}, {frequency}",
                timer.path, timer.virtual_timer, timer.hypervisor
            ),
        );
        if timer.virtual_timer != 27 {
            self.missing
                .push("TIMER: the virtual timer is not PPI 27".into());
        }
        match &rehearsal.console {
            Ok(uart) => self.row(
                "Console",
                format!("{}: {:?} at {}", uart.path, uart.model, uart.reg),
            ),
            Err(error) => {
                self.row("Console", "none");
                self.doubts.push(format!("{error}; name one by dtuart="));
            }
        }
        let notes = host.notes.clone();
        if !notes.is_empty() {
            self.list("The hypervisor says of the tree:", &notes);
        }
        match &rehearsal.dom0 {
            Ok(plan) => {
                let (banks, lines) = (sizes(&plan.banks), plan.devices.interrupts.len());
                self.row("dom0", format!("RAM {banks}"));
                self.row(
                    "",
                    format!(
                        "kernel {}, tree {} ({} bytes)",
                        plan.place.kernel,
                        plan.place.tree,
                        plan.tree.len()
                    ),
                );
                self.row(
                    "",
                    format!(
                        "{lines} shared interrupts, {} device regions",
                        plan.devices.mmio.len()
                    ),
                );
                match findings(&loaded.bytes, rehearsal) {
                    Ok(Findings { hidden, lost }) => {
                        self.list("Kept from dom0:", &hidden);
                        if !plan.devices.notes.is_empty() {
                            self.list("The hypervisor says of dom0:", &plan.devices.notes);
                        }
                        if !lost.is_empty() {
                            self.list("dom0's tree loses:", &lost);
                        }
                        self.lost = lost;
                    }
                    Err(error) => self.missing.push(error),
                }
                self.dom0 = Some(plan.tree.clone());
            }
            Err(error) => self.missing.push(error.to_string()),
        }
    }

    fn cpus(&mut self, rehearsal: &Rehearsal) {
        for (cpu, arrival) in &rehearsal.cpus {
            let how = match arrival {
                Arrival::Boots => "boots (taken for the first)".into(),
                Arrival::Psci => "by PSCI".into(),
                Arrival::Registers => "by the board's registers".into(),
                Arrival::OtherKind => "left out: of another kind than the first".into(),
                Arrival::Never(why) => format!("not started: {why}"),
            };
            self.row("CPU", format!("{:#x} {}: {how}", cpu.mpidr, cpu.compatible));
            if let Arrival::Never(why) = arrival {
                self.doubts.push(format!(
                    "CPU {:#x} would not start ({why}), unless the boot loader adds PSCI",
                    cpu.mpidr
                ));
            }
        }
        let host = &rehearsal.host;
        let ends = match (&host.psci, host.board.off.is_empty()) {
            (Some(psci), _) if psci.conduit == Conduit::Smc && psci.standard => "PSCI",
            (_, false) => "the board's registers",
            _ => "nothing: at its end the machine stays",
        };
        self.row("Ends by", ends);
    }
}

fn sizes(ranges: &[PhysRange]) -> String {
    let each = |range: &PhysRange| match range.size() >> 20 {
        0 => format!("{range} ({} KiB)", range.size() >> 10),
        mib => format!("{range} ({mib} MiB)"),
    };
    ranges.iter().map(each).collect::<Vec<_>>().join(", ")
}

/// Parts of the board's tree that dom0's lacks.
struct Findings {
    hidden: Vec<String>,
    lost: Vec<String>,
}

fn findings(bytes: &[u8], rehearsal: &Rehearsal) -> Result<Findings> {
    let Ok(plan) = &rehearsal.dom0 else {
        return Err("no dom0".into());
    };
    let console = rehearsal.console.as_ref().ok();
    let console_path = console.map(|uart| uart.path.as_str());
    with_tree(bytes, |tree| {
        with_tree(&plan.tree, |dom0| {
            let hidden = tree.all().filter_map(|node| {
                let whose = compare::kept_from_dom0(&node, &rehearsal.host, console_path)?;
                Some(format!("{}: {whose}", node.path()))
            });
            let board = Board {
                tree,
                host: &rehearsal.host,
                console,
                devices: &plan.devices,
            };
            Ok(Findings {
                hidden: hidden.collect(),
                lost: compare::differences(&board, dom0),
            })
        })
    })
}

/// Processors that Krypton runs on.
const PROCESSORS: &[&str] = &[
    "arm,cortex-a7",
    "arm,cortex-a12",
    "arm,cortex-a15",
    "arm,cortex-a17",
];

/// Debian's trees that no boot comes to an end with, and what it says.
const REFUSED: &[(&str, &str)] = &[
    // It has no GIC.
    (
        "bcm2836-rpi-2-b.dtb",
        "GIC: need GICv2 with virtualization (found no node of one)",
    ),
];

/// Where RAM begins on boards whose trees leave it to the boot loader, by the root's compatible.
const RAM_BASES: &[(&str, u64)] = &[
    ("allwinner,", 0x4000_0000),
    ("rockchip,", 0x6000_0000),
    ("fsl,", 0x8000_0000),
    ("st,", 0xc000_0000),
    ("aspeed,", 0x8000_0000),
    ("ti,", 0x8000_0000),
    ("samsung,", 0x4000_0000),
];
const RAM: u64 = 1 << 30;
/// `dtc`'s warning about the node that Linux looks for by this name.
const NAMED_BY_LINUX: &str = "/hypervisor: node has a reg or ranges property, but no unit name";
/// Trees of such machines in Debian's package; fewer would mean that they are not found.
const LEAST_TREES: usize = 300;

/// Takes each tree of Debian's kernel package of such a machine as far as dom0, and compares the page about them.
pub fn test() -> Result {
    let page = page()?;
    let file = survey::file();
    match fs::read_to_string(&file).is_ok_and(|text| text == page) {
        true => Ok(()),
        false => Err(format!("{} is old: run `cargo xtask tree`", file.display())),
    }
}

/// Returns the page about all trees, none of which may differ from what is expected.
fn page() -> Result<String> {
    let trees = debians()?;
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(path) = trees.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let name = path.file_stem().unwrap_or_default().to_string_lossy();
                    let examined = examine(path).map_err(|lines| {
                        let lines = lines.lines().map(|line| format!("{name}: {line}"));
                        lines.collect::<Vec<_>>().join("\n")
                    });
                    if let Ok(mut done) = done.lock()
                        && let Some(examined) = examined.transpose()
                    {
                        done.push(examined);
                    }
                }
            });
        }
    });
    let (mut surveyed, mut failures) = (Vec::new(), Vec::new());
    for one in done.into_inner().unwrap_or_default() {
        match one {
            Ok(tree) => surveyed.push(tree),
            Err(lines) => failures.push(lines),
        }
    }
    if surveyed.len() < LEAST_TREES && failures.is_empty() {
        failures.push(format!("only {} trees of such machines", surveyed.len()));
    }
    surveyed.sort_by(|a: &Surveyed, b| a.name.cmp(&b.name));
    match failures.is_empty() {
        true => Ok(survey::page(&surveyed, &board_pages()?)),
        false => Err(failures.join("\n")),
    }
}

/// Returns the titles of the boards' pages, as a list of links.
fn board_pages() -> Result<String> {
    let page = survey::file();
    let folder = page.parent().ok_or("no folder of boards")?;
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut links = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path != page {
            let text = fs::read_to_string(&path).map_err(failed)?;
            let title = text.lines().next().unwrap_or_default();
            links.push(format!("- [{}]({name})", title.trim_start_matches("# ")));
        }
    }
    links.sort();
    Ok(links.join("\n"))
}

/// Returns the trees of Debian's kernel package, in the order of their names.
fn debians() -> Result<Vec<PathBuf>> {
    let folder = project::debian_trees()?;
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut trees = Vec::new();
    for entry in fs::read_dir(&folder).map_err(failed)? {
        trees.push(entry.map_err(failed)?.path());
    }
    trees.sort();
    Ok(trees)
}

/// Returns what the page has of the tree, if it is of such a machine; if so, it must come to dom0 and lose nothing.
fn examine(path: &Path) -> Result<Option<Surveyed>> {
    let bytes = read(path)?;
    let (ours, base) = with_tree(&bytes, |tree| {
        let ours = tree.compatible(PROCESSORS).next().is_some();
        let root = tree.root();
        let base = RAM_BASES
            .iter()
            .find(|(maker, _)| root.strings("compatible").any(|c| c.starts_with(maker)));
        let known = tree
            .all()
            .filter(loader::is_memory)
            .any(|node| node.reg().next().is_some());
        Ok((ours, base.filter(|_| !known).map(|(_, base)| *base)))
    })?;
    if !ours {
        return Ok(None);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = path
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into();
    let expected = REFUSED.iter().find(|(refused, _)| *refused == name);
    let report = Report::of(&bytes, Some(Ram { base, size: RAM }), "");
    match (expected, report.missing.as_slice()) {
        (None, []) => {}
        (Some((_, line)), [said]) if said == line => {
            let (name, found) = (stem, Err(said.clone()));
            return Ok(Some(Surveyed { name, found }));
        }
        (_, said) => return Err(format!("not as expected: {said:?}")),
    }
    let mut wrong = report.lost;
    if let Some(dom0) = &report.dom0 {
        let known = compare::warnings(&report.loaded)?;
        let new = compare::warnings(dom0)?.into_iter();
        wrong.extend(new.filter(|line| !known.contains(line) && !line.ends_with(NAMED_BY_LINUX)));
    }
    match (wrong.is_empty(), report.facts) {
        (true, Some(facts)) => Ok(Some(Surveyed {
            name: stem,
            found: Ok(facts),
        })),
        _ => Err(wrong.join("\n")),
    }
}
