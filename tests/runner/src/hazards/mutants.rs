//! Proves that the checker notices: of all cleans, invalidates and barriers in the image, one place of the source after the
//! other is hidden from it, as if the instruction were not there, and it must report something.
//!
//! The list comes from the image and its debug information. QEMU needs none of these instructions, so hiding one from the
//! checker shows the same as a build without it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use hazards::{Barrier, Instruction, Operation};

use super::{LATE, SKIPPED, Watch, seen};
use crate::options::Options;
use crate::session::{Echo, Session};
use crate::{Result, build, guests, symbols};

/// Guests that the mutants are looked for with, until one has a report; the last one on a processor with erratum 798181.
const GUESTS: [(&str, bool); 3] = [("grants", false), ("domains", false), ("grants", true)];

/// Beginnings of the names of what may be hidden without a report, and why (docs/hazards.md).
const EXCUSED: &[(&str, &str)] = &[
    ("arch/src/abort.rs", OTHER),
    ("arch/src/cache.rs armv7::cache::maintain: DSB 1", SAME_LINE),
    ("arch/src/cache.rs armv7::cache::maintain: DSB 2", NEXT),
    ("arch/src/cache.rs invalidate_instruction_caches: DSB", NEXT),
    ("arch/src/cache.rs invalidate_instruction_caches: ISB", ERET),
    ("arch/src/controls.rs", ERET),
    ("arch/src/features.rs", OTHER),
    (
        "arch/src/fence.rs",
        "whoever answers executes other barriers on the way",
    ),
    (
        "arch/src/gic/dist.rs Distributor::send_sgi_to_others",
        "only a panic comes here",
    ),
    ("arch/src/guest.rs armv7::guest::VcpuRegs::load: ISB", ERET),
    ("arch/src/pen.rs armv7::pen::start: DSB", NEXT),
    ("arch/src/pmu.rs", OTHER),
    ("arch/src/smc.rs", OTHER),
    ("arch/src/timer.rs", OTHER),
    ("arch/src/tlb.rs armv7::tlb::flush_hyp: ISB", ERET),
    (
        "arch/src/tlb.rs armv7::tlb::flush_hyp_page",
        "needs RAM beyond the direct map: --mem 4096 --highmem on",
    ),
    ("arch/src/tlb.rs armv7::tlb::flush_vmid_and: ISB 2", ERET),
    (
        "armv7::tlb::flush_boot",
        "only boots with unnamed modules come here",
    ),
    (
        "async_abort_window",
        "only an asynchronous abort comes here",
    ),
    ("cpu_setup: ISB", OTHER),
    ("efi_entry", "only a start by UEFI comes here"),
    ("enter_hyp", "only a start in secure state comes here"),
    ("enable_mmu: DSB 2", NOT_HYP),
    ("enable_mmu: ISB 2", NOT_HYP),
    ("entry: DSB", NEXT),
    ("guest_", "concerns the branch predictor"),
    (
        "hyp_fault_common",
        "only a fault of the hypervisor's own comes here",
    ),
    ("monitor_call", "only a start in secure state comes here"),
    ("mmu_on: ISB 1", "no memory is accessed before the next ISB"),
    ("mmu_on: ISB 4", OTHER),
    ("mmu_on_pl1", NOT_HYP),
    ("src/", "an order between CPUs, or left to the caller"),
];
const OTHER: &str = "concerns no cache, TLB or table";
const NOT_HYP: &str = "only a CPU that is not in HYP comes here";
const SAME_LINE: &str = "a clean follows stores to its own line";
const NEXT: &str = "a barrier next to it does the same";
const ERET: &str = "entering a guest synchronizes";

/// An instruction of the source: in the image as often as it was inlined.
struct Mutant {
    name: String,
    addresses: Vec<u32>,
}

impl Mutant {
    /// Returns whether the name begins with `excuse`, its file left out or not: some instructions have no file in the debug
    /// information.
    fn is_named(&self, excuse: &str) -> bool {
        let function = match self.name.split_once(' ') {
            Some((file, function)) if file.contains('/') => function,
            _ => &self.name,
        };
        self.name.starts_with(excuse) || function.starts_with(excuse)
    }
}

/// The outcome of a mutant.
enum Outcome {
    Reported(BTreeSet<String>),
    Survived,
    NotReached,
}

/// Runs all mutants whose name contains one of the operands, or all of them.
pub fn run(options: &Options) -> Result<ExitCode> {
    let elf = build::elf()?;
    let bytes = fs::read(&elf).map_err(|error| format!("{}: {error}", elf.display()))?;
    let wanted = |mutant: &Mutant| {
        let words = &options.operands;
        words.is_empty() || words.iter().any(|word| mutant.name.contains(word.as_str()))
    };
    let mutants: Vec<Mutant> = list(&elf, &bytes)?.into_iter().filter(wanted).collect();
    let mut reached = Vec::new();
    for guest in &GUESTS {
        let (kinds, places) = watched(guest, options, &[])?;
        if !kinds.is_empty() {
            return Err(format!("without a mutant {guest:?} has reports: {kinds:?}"));
        }
        reached.push(places);
    }
    let mut wrong = 0;
    // By function: those that survive alone, as another one does their work.
    let mut alone: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for mutant in &mutants {
        let outcome = outcome(mutant, &reached, options)?;
        if let (Outcome::Survived, Some((function, _))) = (&outcome, mutant.name.rsplit_once(": "))
        {
            alone.entry(function).or_default().extend(&mutant.addresses);
        }
        let excuse = EXCUSED.iter().find(|(name, _)| mutant.is_named(name));
        let text = match (&outcome, excuse) {
            (Outcome::Reported(kinds), _) => words(kinds),
            (_, Some((_, why))) => format!("none: {why}"),
            (Outcome::Survived, None) => {
                wrong += 1;
                "none".into()
            }
            (Outcome::NotReached, None) => {
                wrong += 1;
                "not executed".into()
            }
        };
        println!("| `{}` | {text} |", mutant.name);
    }
    for (function, addresses) in alone {
        let together = Mutant {
            name: format!("{function}: all of these"),
            addresses,
        };
        let text = match outcome(&together, &reached, options)? {
            Outcome::Reported(kinds) => words(&kinds),
            _ => "none".into(),
        };
        println!("| `{}` | {text} |", together.name);
    }
    println!("{} mutants, {wrong} wrong", mutants.len());
    Ok(match wrong {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

fn words(kinds: &BTreeSet<String>) -> String {
    let kinds: Vec<&str> = kinds.iter().map(String::as_str).collect();
    kinds.join(", ")
}

fn outcome(mutant: &Mutant, reached: &[BTreeSet<u32>], options: &Options) -> Result<Outcome> {
    let mut outcome = Outcome::NotReached;
    for (guest, places) in GUESTS.iter().zip(reached) {
        if !mutant.addresses.iter().any(|place| places.contains(place)) {
            continue;
        }
        outcome = Outcome::Survived;
        let (kinds, _) = watched(guest, options, &mutant.addresses)?;
        if !kinds.is_empty() {
            return Ok(Outcome::Reported(kinds));
        }
    }
    Ok(outcome)
}

/// Boots a guest under a checker that does not see some instructions. Returns the kinds of its reports, and the
/// instructions that it followed.
fn watched(
    (guest, late): &(&str, bool),
    options: &Options,
    blind: &[u32],
) -> Result<(BTreeSet<String>, BTreeSet<u32>)> {
    let mut machine = guests::machine(guest, options)?;
    // Domains may map each other's pages then, which takes tables of domains that run.
    machine.append += " xsm=dummy";
    machine.dom0_append = format!("rule=dummy {SKIPPED}");
    machine.hazards = Some(Watch {
        blind: blind.to_vec(),
        ..Watch::new("all")?
    });
    if let (true, Some(watch)) = (*late, &mut machine.hazards) {
        (machine.processor, watch.erratum) = LATE;
    }
    let mut session = Session::start(&machine, Echo::Hide)?;
    session.expect("done: * ok, * failed", options.timeout)?;
    let out = session.watched().ok_or("the machine is not watched")?;
    let found = fs::read_to_string(out).map_err(|error| format!("{}: {error}", out.display()))?;
    let kinds = found.lines().filter_map(|line| line.split(' ').next());
    let kinds = kinds.map(String::from).collect();
    Ok((kinds, seen(out)?.places.into_iter().collect()))
}

/// Returns the mutants of an image.
fn list(elf: &Path, bytes: &[u8]) -> Result<Vec<Mutant>> {
    let places = symbols::code(bytes)
        .ok_or("the ELF file has no readable code")?
        .into_iter()
        .filter_map(|(address, word)| Some((address, kind(hazards::decode(word)?)?)))
        .collect::<Vec<_>>();
    let sources = sources(elf, &places)?;
    // By file and line first, so that several of one kind in a function are numbered in its order.
    let mut lines: BTreeMap<(String, u32, String), Vec<u32>> = BTreeMap::new();
    for ((address, what), source) in places.iter().zip(sources) {
        let Some((name, line)) = source.place(bytes, *address, what) else {
            continue;
        };
        let key = (name, line, (*what).to_owned());
        lines.entry(key).or_default().push(*address);
    }
    let mut numbers: BTreeMap<String, u32> = BTreeMap::new();
    let mutants = lines.into_iter().map(|((name, _, what), addresses)| {
        let name = format!("{name}: {what}");
        let number = numbers.entry(name.clone()).or_default();
        *number += 1;
        Mutant {
            name: format!("{name} {number}"),
            addresses,
        }
    });
    Ok(mutants.collect())
}

/// Returns the name of what can be left out; `None` for what changes the machine.
fn kind(instruction: Instruction) -> Option<&'static str> {
    Some(match instruction {
        Instruction::Barrier(Barrier::Dmb) => "DMB",
        Instruction::Barrier(Barrier::DsbStores) => "DSB ISHST",
        Instruction::Barrier(Barrier::Dsb) => "DSB",
        Instruction::Barrier(Barrier::Isb) => "ISB",
        Instruction::Operation(operation, ..) => match operation {
            Operation::Dccmvac => "DCCMVAC",
            Operation::Dcimvac => "DCIMVAC",
            Operation::Dccimvac => "DCCIMVAC",
            Operation::Icialluis => "ICIALLUIS",
            Operation::TlbiGuestAll => "TLBIALLIS",
            Operation::TlbiGuestPage => "TLBIMVAIS",
            Operation::TlbiHyp => "TLBIALLH",
            Operation::TlbiHypAll => "TLBIALLHIS",
            Operation::TlbiHypPage => "TLBIMVAHIS",
            _ => return None,
        },
        Instruction::Eret => return None,
    })
}

/// Where an instruction comes from: functions and lines, the innermost first.
#[derive(Default)]
struct Source(Vec<(String, String)>);

impl Source {
    /// Returns the file and function that ask for the instruction, and the line there. `None` for a DMB that the compiler
    /// gives an atomic access.
    fn place(&self, elf: &[u8], address: u32, what: &str) -> Option<(String, u32)> {
        let asks = |(function, _): &(String, String)| {
            function.contains("fence") || function.contains("dmb_ish")
        };
        if what == "DMB" && !self.0.iter().any(asks) {
            return None;
        }
        let is_ours = |file: &str| {
            let primitive = ["barrier.rs", "cp15.rs"];
            (file.contains("/arch/src/") || file.contains("/src/") || file.contains("boot/"))
                && !file.contains("/library/")
                && !file.contains("/registry/")
                && !file.starts_with("cargo/")
                && !primitive.iter().any(|name| file.contains(name))
        };
        let ours = self.0.iter().find(|(_, file)| is_ours(file));
        let Some((function, file)) = ours else {
            if !self.0.is_empty() {
                return None;
            }
            // Assembly has no lines.
            let name = symbols::name_at(elf, address)?;
            let (function, distance) = name.split_once('+')?;
            return Some((function.to_owned(), number(distance)?));
        };
        let (file, line) = file.rsplit_once(':')?;
        let file = file.strip_prefix("krypton/").unwrap_or(file);
        let line = line.split(' ').next()?.parse().ok()?;
        Some((format!("{file} {}", symbols::short_name(function)), line))
    }
}

fn number(text: &str) -> Option<u32> {
    u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

/// Asks binutils where addresses come from.
fn sources(elf: &Path, places: &[(u32, &str)]) -> Result<Vec<Source>> {
    let addresses = places.iter().map(|(address, _)| format!("{address:#x}"));
    let output = Command::new("addr2line")
        .arg("-aife")
        .arg(elf)
        .args(addresses)
        .output()
        .map_err(|error| format!("cannot run addr2line: {error}; run `make setup`"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut sources: Vec<Source> = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("0x") {
            sources.push(Source::default());
        } else if let (Some(source), Some(file)) = (sources.last_mut(), lines.next())
            && !file.ends_with(":?")
        {
            source.0.push((line.to_owned(), file.to_owned()));
        }
    }
    if sources.len() == places.len() {
        Ok(sources)
    } else {
        Err(format!(
            "addr2line answered for {} of {} addresses",
            sources.len(),
            places.len()
        ))
    }
}
