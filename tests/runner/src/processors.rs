//! Processors that lack what a Cortex-A15 mostly has: VFP, half of its registers, performance monitors; one that comes late;
//! and one that the board's registers start in secure state.

use std::process::Command;

use crate::faults::Places;
use crate::machine::{Machine, Start};
use crate::options::Options;
use crate::session::{Echo, ScratchFolder, Session};
use crate::{Result, boards, build, dom0, faults, guests, leftovers};

/// A processor, and what runs on it.
pub struct Processor {
    pub name: &'static str,
    /// QEMU's `-cpu`.
    cpu: &'static str,
    /// The bare-metal guest in dom0's place, and its arguments.
    guest: &'static str,
    arguments: &'static str,
    /// Lines that the console must say before.
    says: &'static [&'static str],
    /// A line that it must not say, from registers that do not exist and read as they like.
    says_not: &'static str,
}

pub const PROCESSORS: [Processor; 3] = [
    Processor {
        name: "VFPv4-D16",
        cpu: "cortex-a7,neon=off,vfp-d32=off",
        guest: "traps",
        // On one CPU every yield is a switch, with all registers.
        arguments: "only=vector_registers",
        says: &["CPU0: VFP with 16 registers"],
        says_not: "CPU0: H",
    },
    Processor {
        name: "without VFP",
        cpu: "cortex-a7,neon=off,vfp-d32=off,vfp=off",
        guest: "traps",
        arguments: "only=banked_and_system_registers",
        says: &["CPU0: no VFP"],
        says_not: "CPU0: H",
    },
    Processor {
        name: "without performance monitors",
        cpu: "cortex-a15,pmu=off",
        guest: "traps",
        arguments: "only=banked_and_system_registers",
        says: &[],
        says_not: "CPU0: H",
    },
];

/// Runs the guest on the processor, two of its vCPUs on one CPU.
pub fn test(processor: &Processor, options: &Options, echo: Echo) -> Result {
    let options = Options {
        append: format!("{} dom0_max_vcpus=2", options.append),
        dom0_append: processor.arguments.into(),
        cpus: 1,
        ..options.clone()
    };
    let mut machine = guests::machine(processor.guest, &options)?;
    machine.processor = processor.cpu;
    let mut session = Session::start(&machine, echo)?;
    for line in processor.says {
        session.expect(line, options.timeout)?;
    }
    let sum = session.expect("done: * ok, * failed", options.timeout)?;
    let transcript = session.transcript();
    if let Some(line) = transcript
        .lines()
        .find(|line| line.contains(processor.says_not))
    {
        return Err(format!("{line}\n{transcript}"));
    }
    guests::judge(transcript, &sum)
}

/// Boots in which the secondary may come in time: the host may let the boot CPU stand still for that long.
const BOOTS: u32 = 30;

/// Boots until a secondary has come after patience had ended: a tree whose counter is said to be slow makes it short.
pub fn comes_too_late(options: &Options, echo: Echo) -> Result {
    let folder = ScratchFolder::new("late")?;
    let mut machine = Machine::new(options)?;
    let tree = folder.path().join("slow.dtb");
    faults::dump_tree(&machine, &tree)?;
    build::run(Command::new("fdtput").args(["-t", "u"]).arg(&tree).args([
        "/timer",
        "clock-frequency",
        "1000",
    ]))?;
    machine.start = Start::Tree(tree);
    let late = "SMP: CPU1 did not start; if it still comes, it is parked";
    for _ in 0..BOOTS {
        let mut session = Session::start(&machine, echo)?;
        let (which, _) = session.expect_any(&[late, "Brought up 2 CPUs"], options.timeout)?;
        if which == 0 {
            for line in ["Brought up 1 CPUs", "Freed boot modules"] {
                session.expect(line, options.timeout)?;
            }
            return Ok(());
        }
    }
    Err(format!(
        "the other CPU came in time in each of {BOOTS} boots"
    ))
}

/// Where RAM begins on an i.MX 7, and places clear of dom0's kernel and initramfs.
const RAM: u32 = 0x8000_0000;
const PLACES: Places = Places {
    loader: RAM,
    hypervisor: 0x8010_0000,
    tree: 0x8300_0000,
};

/// Boots an i.MX 7 in secure state without PSCI, as a boot loader that has none. Its registers start the second CPU, in secure
/// state as well.
pub fn starts_by_registers(options: &Options, echo: Echo) -> Result {
    let folder = ScratchFolder::new("registers")?;
    let board = boards::find("imx7")?;
    let mut machine = Machine::new(&Options {
        board: Some(board),
        cpus: 2,
        ..options.clone()
    })?;
    dom0::give_watchdogs_patience(&mut machine);
    let tree = board.write_tree(&machine, folder.path())?;
    leftovers::write_ram(&tree, RAM, options.memory_mib << 20)?;
    machine.start = leftovers::start_by("jump.S", &machine, &PLACES, &tree, folder.path())?;
    let mut session = Session::start(&machine, echo)?;
    for line in [
        "Entered in secure state, switched to HYP",
        "Brought up 2 CPUs",
        "smp: Brought up 1 node, 2 CPUs",
        dom0::UP,
    ] {
        session.expect(line, options.timeout)?;
    }
    Ok(())
}
