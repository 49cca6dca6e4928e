//! The hypervisor's own panic, by its debug key: the report has names, then the machine restarts or stays as it is.

use std::process::Command;
use std::time::Duration;

use crate::machine::Machine;
use crate::options::Options;
use crate::session::{Echo, ScratchFolder, Session};
use crate::{Result, build, faults};

const PATIENCE: Duration = Duration::from_secs(180);
/// The hypervisor is done with booting, and the console's input works.
const BOOTED: &str = "Freed boot modules";

/// A panic reports itself with function names and restarts the machine, at which QEMU ends.
pub fn reboots(options: &Options, echo: Echo) -> Result {
    let mut session = crash(options, "", echo)?;
    session.wait_for(&["Reboot in five seconds"], PATIENCE)?;
    session.expect_end(PATIENCE).map(drop)
}

/// With `noreboot` the machine stays, and says so.
pub fn stays(options: &Options, echo: Echo) -> Result {
    let mut session = crash(options, "noreboot", echo)?;
    session.wait_for(&["'noreboot' set - not rebooting"], PATIENCE)?;
    match session.expect_end(Duration::from_secs(8)) {
        Ok(status) => Err(format!("QEMU ended ({status}) in spite of noreboot")),
        Err(_) => Ok(()),
    }
}

/// A machine whose tree names nothing that would restart it says so.
pub fn cannot_restart(options: &Options, echo: Echo) -> Result {
    let folder = ScratchFolder::new("crash")?;
    let mut machine = Machine::new(options)?;
    let tree = folder.path().join("no-psci.dtb");
    faults::dump_tree(&machine, &tree)?;
    build::run(Command::new("fdtput").arg("-r").arg(&tree).arg("/psci"))?;
    // QEMU's boot loader would put the node back.
    machine.start = faults::doctored_start(&machine, &build::read(&tree)?, folder.path())?;
    let mut session = crash_of(&machine, echo)?;
    let line = "cannot restart this board: it has no PSCI 0.2 by SMC";
    session.wait_for(&[line], PATIENCE).map(drop)
}

fn crash(options: &Options, append: &str, echo: Echo) -> Result<Session> {
    let mut machine = Machine::new(options)?;
    machine.append = format!("{} {append}", machine.append);
    crash_of(&machine, echo)
}

fn crash_of(machine: &Machine, echo: Echo) -> Result<Session> {
    let mut session = Session::start(machine, echo)?;
    session.wait_for(&[BOOTED], PATIENCE)?;
    session.type_text("\u{1}\u{1}\u{1}C")?;
    session.wait_for(&["Panic on CPU"], PATIENCE)?;
    session.wait_for(&["crash by debug key"], PATIENCE)?;
    session.wait_for(&["Xen call trace:"], PATIENCE)?;
    // The loop that takes the interrupt is below the panic on any stack.
    session.wait_for(&["] trap::*+0x"], PATIENCE)?;
    Ok(session)
}
