//! A boot loader that leaves everything on: dom0 must come up all the same.
//!
//! `leftovers.S` sets up what a careless boot loader, or a hypervisor before us, may hand over: control registers with old
//! values, instruction cache on, all timers firing, every interrupt in the wrong group, enabled and pending, SGIs too,
//! and one of them taken and never ended.

use std::path::Path;
use std::process::Command;

use crate::dom0::UP;
use crate::faults::{self, ON_VIRT, Places};
use crate::machine::{Machine, Start};
use crate::options::Options;
use crate::session::{Echo, ScratchFolder, Session};
use crate::{Result, boards, build, dom0};

/// Boots through that loader to dom0's user space.
pub fn test(options: &Options, echo: Echo) -> Result {
    let folder = ScratchFolder::new("leftovers")?;
    let mut machine = Machine::new(options)?;
    build::tell_image(&machine.hypervisor)?;
    let tree = folder.path().join("machine.dtb");
    faults::dump_tree(&machine, &tree)?;
    machine.start = start_by("leftovers.S", &machine, &ON_VIRT, &tree, folder.path())?;
    Session::start(&machine, echo)?
        .expect(UP, options.timeout)
        .map(drop)
}

/// Where things are on Versatile Express, clear of what its tests put there.
const ON_VEXPRESS: Places = Places {
    loader: 0x8010_0000,
    hypervisor: 0x8020_0000,
    tree: 0x8800_0000,
};

/// Boots on a Versatile Express in secure state whose firmware never set CNTFRQ: the tree tells the frequency, and CNTFRQ says
/// it afterwards.
pub fn without_frequency(options: &Options, echo: Echo) -> Result {
    let folder = ScratchFolder::new("frequency")?;
    let board = boards::find("vexpress-secure")?;
    let options = Options {
        board: Some(board),
        cpus: 1,
        ..options.clone()
    };
    let mut machine = Machine::new(&options)?;
    build::tell_image(&machine.hypervisor)?;
    let tree = board.write_tree(&machine, folder.path())?;
    build::run(Command::new("fdtput").args(["-t", "u"]).arg(&tree).args([
        "/timer",
        "clock-frequency",
        "62500000",
    ]))?;
    machine.start = start_by(
        "no-frequency.S",
        &machine,
        &ON_VEXPRESS,
        &tree,
        folder.path(),
    )?;
    let mut session = Session::start(&machine, echo)?;
    for line in [
        "Entered in secure state, switched to HYP",
        "CPU0: CNTFRQ was 0, now 62500000",
        UP,
    ] {
        session.expect(line, options.timeout * dom0::LONGEST_CHECK)?;
    }
    Ok(())
}

/// Writes into a tree of a board, as a boot loader would, that it has so many bytes of RAM from `base` on.
pub fn write_ram(tree: &Path, base: u32, size: u32) -> Result {
    let put = |kind: &str, property: &str, words: &[String]| {
        build::run(
            Command::new("fdtput")
                .args(["-p", "-t", kind])
                .arg(tree)
                .args([&format!("/memory@{base:x}"), property])
                .args(words),
        )
    };
    put("s", "device_type", &["memory".to_string()])?;
    put("u", "reg", &[base, size].map(|cell| cell.to_string()))
}

/// Returns the start of a machine with this tree by a loader of a source beside this file.
pub fn start_by(
    source: &str,
    machine: &Machine,
    places: &Places,
    tree: &Path,
    folder: &Path,
) -> Result<Start> {
    let loader = loader(source, places, folder)?;
    faults::raw_start(machine, places, &build::read(tree)?, &loader, folder)
}

fn loader(source: &str, places: &Places, folder: &Path) -> Result<Vec<u8>> {
    let options = [
        format!("-Wl,-Ttext={:#x}", places.loader),
        format!("-DTREE={:#x}", places.tree),
        format!("-DHYPERVISOR={:#x}", places.hypervisor),
    ];
    build::read(&build::assemble(source, &options, folder)?)
}
