//! Counts an exit's accesses in hardware terms: one round of each row, instruction by instruction, under QEMU's trace.
//!
//! Executed instructions are told by their words in the hypervisor's image; accesses to the GIC are QEMU's own events.
//! The guest's part of a round is not counted.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;

use crate::options::Options;
use crate::session::{Echo, ScratchFolder, Session};
use crate::{Result, build, image, project, symbols};

use super::figures::{Figures, Store};
use super::guest::{Ground, Part};
use super::rows::ROWS;

/// The counted events, and their columns of the table.
const KINDS: [(&str, &str); 5] = [
    ("instructions", "instructions"),
    ("cp", "cp15 and cp14"),
    ("gic", "GICD, GICC and GICH"),
    ("barrier", "barriers"),
    ("tlb", "TLB"),
];

/// Xen 4.17's link address on 32-bit Arm.
const XEN_BASE: u32 = 0x0020_0000;

/// Traces the rows of one and two vCPUs; answers the counts by kind.
pub fn measure(ground: Ground, options: &Options, echo: Echo) -> Result<Vec<(String, Figures)>> {
    let code = Code::of(ground)?;
    let mut kinds = KINDS.map(|(kind, _)| (format!("{}.{kind}", ground.section()), Figures::new()));
    for part in [Part::One, Part::Two] {
        for (row, counts) in trace(&code, part, ground, options, echo)? {
            for ((_, figures), count) in kinds.iter_mut().zip(counts.all()) {
                figures.insert(row.clone(), count.into());
            }
        }
    }
    Ok(kinds.into())
}

/// Prints the instructions of one round of each of these rows, by function.
pub fn profile(options: &Options, echo: Echo) -> Result {
    let elf = build::read(&build::krypton_elf(project::root())?)?;
    let code = Code::of_elf(&elf)?;
    let mut unknown = options.operands.clone();
    for part in [Part::One, Part::Two] {
        for (row, counts) in trace(&code, part, Ground::Krypton, options, echo)? {
            if options.operands.contains(&row) {
                println!("{row}: {} instructions", counts.instructions);
                print!("{}", by_function(&counts.places, &elf));
                unknown.retain(|word| *word != row);
            }
        }
    }
    match unknown.first() {
        None => Ok(()),
        Some(row) => Err(format!("no row \"{row}\" is traced")),
    }
}

/// Returns a line for each function, that with the most instructions first.
fn by_function(places: &BTreeMap<u32, u32>, elf: &[u8]) -> String {
    let mut functions = BTreeMap::<String, u32>::new();
    for (address, count) in places {
        let place = symbols::name_at(elf, *address).unwrap_or_default();
        let name = place.rsplit_once('+').map_or("?", |(name, _)| name);
        *functions.entry(name.to_owned()).or_default() += count;
    }
    let mut functions: Vec<_> = functions.into_iter().collect();
    functions.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    functions
        .iter()
        .map(|(name, count)| format!("{count:6}  {name}\n"))
        .collect()
}

fn trace(
    code: &Code,
    part: Part,
    ground: Ground,
    options: &Options,
    echo: Echo,
) -> Result<Vec<(String, Counts)>> {
    let mut machine = part.machine(ground, options)?;
    machine.dom0_append += " trace=yes";
    let folder = ScratchFolder::new("trace")?;
    let log = folder.path().join("log");
    let mut session = Session::start(&machine, echo)?;
    let line = session.expect("trace mark 0x", options.timeout)?;
    let mark = line
        .split("0x")
        .nth(1)
        .and_then(|digits| u32::from_str_radix(digits.trim(), 16).ok())
        .ok_or_else(|| format!("no address in \"{line}\""))?;
    for command in [
        format!("logfile {}", log.display()),
        "one-insn-per-tb on".into(),
        "trace-event gic_dist_read on".into(),
        "trace-event gic_dist_write on".into(),
        "trace-event gic_cpu_read on".into(),
        "trace-event gic_cpu_write on".into(),
        "trace-event gic_hyp_read on".into(),
        "trace-event gic_hyp_write on".into(),
        "log exec,nochain".into(),
    ] {
        session.monitor(&command)?;
    }
    session.type_text("g")?;
    session.expect("done: all rows", options.timeout)?;
    let rows = session
        .transcript()
        .lines()
        .filter_map(|line| line.strip_prefix("trace "))
        .filter(|row| ROWS.iter().any(|known| known.name == *row))
        .map(String::from)
        .collect::<Vec<_>>();
    drop(session);
    let counts = count(&log, code, mark)?;
    if rows.len() != counts.len() {
        return Err(format!(
            "the trace has {} rounds for {} rows",
            counts.len(),
            rows.len()
        ));
    }
    Ok(rows.into_iter().zip(counts).collect())
}

/// Returns the counts between each pair of marks.
fn count(log: &Path, code: &Code, mark: u32) -> Result<Vec<Counts>> {
    let failed = |error| format!("{}: {error}", log.display());
    let mut rounds = Vec::new();
    let mut open: Option<Counts> = None;
    let mut in_hypervisor = false;
    for line in BufReader::new(fs::File::open(log).map_err(failed)?).split(b'\n') {
        let line = line.map_err(failed)?;
        let line = String::from_utf8_lossy(&line);
        if let Some(address) = executed(&line) {
            if address == mark {
                match open.take() {
                    Some(counts) => rounds.push(counts),
                    None => open = Some(Counts::default()),
                }
            }
            let word = code.word(address);
            in_hypervisor = word.is_some();
            if let (Some(counts), Some(word)) = (&mut open, word) {
                counts.add(word);
                *counts.places.entry(address).or_default() += 1;
            }
        } else if in_hypervisor
            && line.contains("gic_")
            && let Some(counts) = &mut open
        {
            counts.gic += 1;
        }
    }
    Ok(rounds)
}

/// Returns the address in a line `Trace 0: HOST [CS/ADDRESS/FLAGS/CFLAGS] NAME`.
fn executed(line: &str) -> Option<u32> {
    let (_, places) = line.strip_prefix("Trace ")?.split_once('[')?;
    u32::from_str_radix(places.split('/').nth(1)?.trim_start_matches("00000000"), 16).ok()
}

/// The hypervisor's code.
enum Code {
    Elf(BTreeMap<u32, u32>),
    Flat(Vec<u8>),
}

impl Code {
    fn of(ground: Ground) -> Result<Self> {
        Ok(match ground {
            Ground::Xen => Self::Flat(build::read(&project::debian_xen()?)?),
            _ => Self::of_elf(&build::read(&build::krypton_elf(project::root())?)?)?,
        })
    }

    fn of_elf(elf: &[u8]) -> Result<Self> {
        let code = symbols::code(elf).ok_or("the ELF file has no readable code")?;
        Ok(Self::Elf(code))
    }

    /// Returns the instruction at an address as that of Arm state, if it is the hypervisor's.
    fn word(&self, address: u32) -> Option<u32> {
        match self {
            Self::Elf(code) => code.get(&address).copied(),
            Self::Flat(flat) => image::word(flat, address.checked_sub(XEN_BASE)? as usize),
        }
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    instructions: u32,
    cp: u32,
    gic: u32,
    barrier: u32,
    tlb: u32,
    /// Executions of each instruction, by its address.
    places: BTreeMap<u32, u32>,
}

impl Counts {
    /// In the order of [`KINDS`].
    fn all(&self) -> [u32; 5] {
        [self.instructions, self.cp, self.gic, self.barrier, self.tlb]
    }

    /// Counts an instruction, as that of Arm state (DDI 0406C.d A5.6, A5.7.1).
    fn add(&mut self, word: u32) {
        self.instructions += 1;
        let is_system = matches!(word >> 8 & 0xf, 14 | 15);
        if word >> 28 == 0xf {
            // DSB, DMB, ISB.
            if word & 0xffff_ff00 == 0xf57f_f000 && matches!(word >> 4 & 0xf, 4..=6) {
                self.barrier += 1;
            }
        } else if word & 0x0f00_0010 == 0x0e00_0010 && is_system {
            let (crn, crm, op2) = (word >> 16 & 0xf, word & 0xf, word >> 5 & 7);
            match (crn, crm, op2) {
                (8, ..) => self.tlb += 1,
                // The barriers of Armv6.
                (7, 5, 4) | (7, 10, 4 | 5) => self.barrier += 1,
                _ => self.cp += 1,
            }
        } else if word & 0x0fe0_0000 == 0x0c40_0000 && is_system {
            self.cp += 1;
        }
    }
}

/// Fails where Krypton's path has more accesses than Xen's.
pub fn judge(store: &Store) -> Result {
    let mut complaints = Vec::new();
    for (kind, title) in KINDS {
        let [xen, krypton] =
            ["xen", "krypton"].map(|hypervisor| store.section(&format!("{hypervisor}.{kind}")));
        for (row, count) in &krypton {
            let limit = xen.get(row).copied().unwrap_or_default();
            if *count > limit {
                complaints.push(format!(
                    "{row} needs {count} in hardware terms ({title}), Xen {limit}"
                ));
            }
        }
    }
    if complaints.is_empty() {
        Ok(())
    } else {
        Err(complaints.join("\n"))
    }
}

/// Returns the table: Xen's count, then Krypton's.
pub fn markdown(store: &Store) -> String {
    let mut text = "| row |".to_owned();
    for (_, title) in KINDS {
        text += &format!(" {title} |");
    }
    text += &format!("\n|---|{}\n", "--:|".repeat(KINDS.len()));
    let sections = KINDS.map(|(kind, _)| {
        ["xen", "krypton"].map(|hypervisor| store.section(&format!("{hypervisor}.{kind}")))
    });
    for row in ROWS {
        if !sections[0][1].contains_key(row.name) {
            continue;
        }
        text += &format!("| `{}` |", row.name);
        for [xen, krypton] in &sections {
            let of = |figures: &Figures| figures.get(row.name).map_or("-".into(), f64::to_string);
            text += &format!(" {} / {} |", of(xen), of(krypton));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Counts, Figures, Store, executed, judge};

    #[test]
    fn what_is_stored_is_nowhere_above_xen() {
        let store = Store::load().unwrap();
        assert!(!store.section("krypton.gic").is_empty());
        assert_eq!(judge(&store), Ok(()));
    }

    #[test]
    fn an_access_more_than_xen_fails() {
        let mut store = Store::default();
        for (section, count) in [("xen.tlb", 1.0), ("krypton.tlb", 2.0)] {
            store.update(section, &Figures::from([("psci_version".into(), count)]));
        }
        let error = judge(&store).unwrap_err();
        assert!(error.contains("psci_version needs 2"), "{error}");
    }

    fn counted(words: &[u32]) -> [u32; 5] {
        let mut counts = Counts::default();
        words.iter().for_each(|word| counts.add(*word));
        counts.all()
    }

    #[test]
    fn a_line_of_the_trace_has_the_address_in_the_middle() {
        let line = "Trace 0: 0x7f3a1c0d2c40 [00000000/000000003e0001a4/00000110/ff020201] ";
        assert_eq!(executed(line), Some(0x3e00_01a4));
        let line = "Trace 0: 0x7f3a1c0d2c40 [00000000/c00001a4/00000110/ff020201] ";
        assert_eq!(executed(line), Some(0xc000_01a4));
        assert_eq!(executed("gic_dist_read dist read at 0x0 size 4: 0x0"), None);
    }

    #[test]
    fn instructions_are_told_by_their_words() {
        let mrc_hsr = 0xee95_0f12; // mrc p15, 4, r0, c5, c2, 0
        let mrrc_cntvct = 0xec51_0f1e; // mrrc p15, 1, r0, r1, c14
        let mcr_tlbiallnsnh = 0xee88_0f97; // mcr p15, 4, r0, c8, c7, 4
        let (dsb, dmb, isb) = (0xf57f_f04f, 0xf57f_f05b, 0xf57f_f06f);
        let (add, vmov, ldm) = (0xe080_0001, 0xee00_0a10, 0xe890_1fff);
        let words = [
            mrc_hsr,
            mrrc_cntvct,
            mcr_tlbiallnsnh,
            dsb,
            dmb,
            isb,
            add,
            vmov,
            ldm,
        ];
        assert_eq!(counted(&words), [9, 2, 0, 3, 1]);
    }
}
