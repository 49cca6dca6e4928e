//! A boot loader that leaves everything on: dom0 must come up all the same.
//!
//! `leftovers.S` sets up what a careless boot loader, or a hypervisor before us, may hand over: control registers with old
//! values, instruction cache on, all timers firing, every interrupt in the wrong group, enabled and pending, SGIs too,
//! and one of them taken and never ended.

use std::process::Command;

use crate::dom0::UP;
use crate::faults::{self, HYPERVISOR_ADDRESS, LOADER_ADDRESS, TREE_ADDRESS};
use crate::machine::Machine;
use crate::options::Options;
use crate::project::root;
use crate::session::{Echo, ScratchFolder, Session};
use crate::{Result, build};

/// Boots through that loader to dom0's user space.
pub fn test(options: &Options, echo: Echo) -> Result {
    let folder = ScratchFolder::new("leftovers")?;
    let (elf, binary) = (
        folder.path().join("loader.elf"),
        folder.path().join("loader.bin"),
    );
    build::run(
        Command::new("arm-linux-gnueabihf-gcc")
            .args(["-nostdlib", "-static", "-Wl,--build-id=none"])
            .arg(format!("-Wl,-Ttext={LOADER_ADDRESS:#x}"))
            .arg(format!("-DTREE={TREE_ADDRESS:#x}"))
            .arg(format!("-DHYPERVISOR={HYPERVISOR_ADDRESS:#x}"))
            .arg("-o")
            .arg(&elf)
            .arg(root().join("tests/runner/src/leftovers.S")),
    )?;
    build::run(
        Command::new("arm-linux-gnueabihf-objcopy")
            .args(["-O", "binary"])
            .args([&elf, &binary]),
    )?;
    let mut machine = Machine::new(options)?;
    build::tell_image(&machine.hypervisor)?;
    let tree = folder.path().join("machine.dtb");
    faults::dump_tree(&machine, &tree)?;
    machine.start = faults::raw_start(
        &machine,
        &build::read(&tree)?,
        &build::read(&binary)?,
        folder.path(),
    )?;
    Session::start(&machine, echo)?
        .expect(UP, options.timeout)
        .map(drop)
}
