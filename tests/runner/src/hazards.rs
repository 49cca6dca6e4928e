//! Runs under the checker for what QEMU does not model: caches, TLBs, barriers (docs/hazards.md).
//!
//! The checker is a plugin of QEMU's (tests/hazards/plugin), which writes what it finds into a file.

use std::fs;
use std::path::{Path, PathBuf};

use crate::options::Options;
use crate::session::Echo;
use crate::{Result, build, guests, symbols};

pub mod mutants;

/// How a machine is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    pub plugin: PathBuf,
    /// Accesses of guests that are watched: `early` or `all`.
    pub guests: &'static str,
    /// The steps of an invalidate that the processor needs (erratum 798181): `none`, `repeat`, `fence`.
    pub erratum: &'static str,
    /// Addresses of instructions that the checker does not see.
    pub blind: Vec<u32>,
}

impl Watch {
    /// Builds the plugin.
    pub fn new(guests: &'static str) -> Result<Self> {
        Ok(Self {
            plugin: build::hazards_plugin()?,
            guests,
            erratum: "none",
            blind: Vec::new(),
        })
    }

    /// Returns QEMU's arguments: reports go to `out`. RAM is that of `virt`.
    pub fn arguments(&self, memory_mib: u32, out: &Path) -> [String; 4] {
        let mut plugin = format!(
            "file={},out={},ram=0x40000000:{:#x},guests={},erratum={}",
            self.plugin.display(),
            out.display(),
            u64::from(memory_mib) << 20,
            self.guests,
            self.erratum
        );
        for address in &self.blind {
            plugin += &format!(",blind={address:#x}");
        }
        // On one thread QEMU gives a plugin a wrong number of the CPU, if there are several.
        let threads = "tcg,thread=multi".to_owned();
        ["-accel".into(), threads, "-plugin".into(), plugin]
    }
}

/// Returns what the checker has found, an error if it is anything or if the checker did not run.
pub fn verdict(out: &Path) -> Result {
    let found = fs::read_to_string(out)
        .map_err(|error| format!("the checker has left no reports: {error}"))?;
    let seen = seen(out)?;
    if found.is_empty() {
        println!("no hazards: {}", seen.counts);
        return Ok(());
    }
    Err(format!("hazards:\n{}", named(&found)?))
}

/// The counts of the checker.
pub struct Seen {
    /// Counts of events.
    pub counts: String,
    /// Addresses of the instructions that it followed.
    pub places: Vec<u32>,
}

/// Reads what the checker saw; an error if no guest ran.
pub fn seen(out: &Path) -> Result<Seen> {
    let file = PathBuf::from(format!("{}.seen", out.display()));
    let text = fs::read_to_string(&file)
        .map_err(|error| format!("the checker saw no guest run: {error}"))?;
    let (counts, places) = text.split_once('\n').unwrap_or((&text, ""));
    Ok(Seen {
        counts: counts.to_owned(),
        places: places.split_whitespace().filter_map(address).collect(),
    })
}

fn address(word: &str) -> Option<u32> {
    u32::from_str_radix(word.strip_prefix("0x")?, 16).ok()
}

/// Puts names to the addresses of reports: `KIND PC CAUSE ADDRESS WORDS`.
fn named(found: &str) -> Result<String> {
    let elf = build::elf()?;
    let elf = fs::read(&elf).map_err(|error| format!("{}: {error}", elf.display()))?;
    let name = |word: &str| {
        let name = address(word).and_then(|address| symbols::name_at(&elf, address));
        name.map_or(word.to_owned(), |name| format!("{name} ({word})"))
    };
    let lines = found.lines().map(|line| {
        let mut words = line.splitn(5, ' ');
        let mut next = || words.next().unwrap_or("");
        let (kind, pc, cause, memory, rule) = (next(), next(), next(), next(), next());
        format!(
            "{kind}: {rule}\n  at {}, by {}, address {memory}\n",
            name(pc),
            name(cause)
        )
    });
    Ok(lines.collect())
}

/// The guest of the short run: it makes domains, maps, grants and destroys.
const GUEST: &str = "domains";
/// Takes ten times as long as all others.
const SKIPPED: &str = "skip=what_the_hypervisor_kept_for_a_hostile_domain_comes_back";

/// One guest's boot under the checker.
pub fn test(options: &Options, echo: Echo) -> Result {
    let options = Options {
        hazards: true,
        dom0_append: format!("{} {SKIPPED}", options.dom0_append),
        ..options.clone()
    };
    guests::test(GUEST, &options, echo)
}

/// A Cortex-A15 whose TLB invalidates are late, and what it needs.
pub const LATE: (&str, &str) = ("cortex-a15,midr=0x412fc0f1", "fence");

/// One guest's boot under the checker, on a processor with erratum 798181.
pub fn test_late(options: &Options, echo: Echo) -> Result {
    let mut machine = guests::machine(
        "grants",
        &Options {
            hazards: true,
            ..options.clone()
        },
    )?;
    let (processor, erratum) = LATE;
    machine.processor = processor;
    if let Some(watch) = &mut machine.hazards {
        watch.erratum = erratum;
    }
    guests::run(&machine, options, echo)
}

#[cfg(test)]
mod tests {
    use super::Watch;

    #[test]
    fn the_plugin_is_told_where_ram_is_and_what_it_does_not_see() {
        let watch = Watch {
            plugin: "p.so".into(),
            guests: "early",
            erratum: "none",
            blind: vec![0x3E00_1000],
        };
        let line = watch.arguments(512, "o".as_ref()).join(" ");
        let wanted = "-plugin file=p.so,out=o,ram=0x40000000:0x20000000,guests=early,erratum=none,blind=0x3e001000";
        assert!(line.ends_with(wanted), "{line}");
    }
}
