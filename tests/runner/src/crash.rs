//! The hypervisor's own panic, by its debug key: the report has names, then the machine restarts or stays as it is. And one
//! before it has read where its console is.

use std::process::Command;
use std::time::Duration;

use crate::faults::Places;
use crate::machine::Machine;
use crate::options::Options;
use crate::session::{Echo, ScratchFolder, Session};
use crate::{Result, boards, build, faults, leftovers};

const PATIENCE: Duration = Duration::from_secs(180);
/// The hypervisor is done with booting, and the console's input works.
const BOOTED: &str = "Freed boot modules";

/// Checks that a panic reports itself with function names and restarts the machine, at which QEMU ends.
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

/// Checks that a machine whose tree names nothing that would restart it says so.
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

/// Boards whose watchdog QEMU has, and whose interrupt controller secure software finds (boot/secure.S): CPUs, and where RAM
/// begins.
pub const WITH_WATCHDOG: [(&str, u32, u32); 1] = [("ast2600", 2, 0x8000_0000)];

/// Checks that a panic restarts a board by its watchdog: it has no firmware, and starts in secure state.
pub fn restarts_by_watchdog(
    (board, cpus, ram): (&str, u32, u32),
    options: &Options,
    echo: Echo,
) -> Result {
    let folder = ScratchFolder::new("crash")?;
    let folder = folder.path();
    let board = boards::find(board)?;
    let options = Options {
        board: Some(board),
        cpus,
        ..options.clone()
    };
    let mut machine = Machine::new(&options)?;
    let places = Places {
        loader: ram + 0x0010_0000,
        hypervisor: ram + 0x0040_0000,
        tree: ram + 0x0800_0000,
    };
    let tree = board.write_tree(&machine, folder)?;
    // Nobody adds PSCI.
    leftovers::write_ram(&tree, ram, options.memory_mib << 20)?;
    machine.start = leftovers::start_by("jump.S", &machine, &places, &tree, folder)?;
    let mut session = crash_of(&machine, echo)?;
    session.wait_for(&["Reboot in five seconds"], PATIENCE)?;
    session.expect_end(PATIENCE).map(drop)
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

/// The function that checks the device tree, which is the first thing that a boot does with it, in mangled names.
const FIRST_READ: &str = "4Blob5check";
/// UDF twice, in Thumb code.
const UNDEFINED_INSTRUCTIONS: u32 = 0xde00_de00;
/// Where the image is linked (linker.ld).
const IMAGE: usize = 0x3e00_0000;

/// Checks that a fault before the device tree is read is told on a console that is where this board has one.
pub fn before_the_console(options: &Options, echo: Echo) -> Result {
    let folder = ScratchFolder::new("crash")?;
    let mut machine = Machine::new(options)?;
    let mut image = build::read(&machine.hypervisor)?;
    let at = address_of(FIRST_READ)? - IMAGE;
    image
        .get_mut(at..at + 4)
        .ok_or("the image is too short")?
        .copy_from_slice(&UNDEFINED_INSTRUCTIONS.to_le_bytes());
    machine.hypervisor = folder.path().join("krypton");
    build::write(&machine.hypervisor, &image)?;
    let mut session = Session::start(&machine, echo)?;
    for line in ["Panic on CPU 0:", "undefined instruction in HYP mode"] {
        session.wait_for(&[line], PATIENCE)?;
    }
    Ok(())
}

/// Returns the address of the function of the image whose mangled name has `part` in it.
fn address_of(part: &str) -> Result<usize> {
    let output = Command::new("arm-linux-gnueabihf-nm")
        .arg(build::elf()?)
        .output()
        .map_err(|error| format!("cannot run nm: {error}"))?;
    let names = String::from_utf8_lossy(&output.stdout);
    let line = names.lines().find(|line| line.contains(part));
    line.and_then(|line| usize::from_str_radix(line.split(' ').next()?, 16).ok())
        .ok_or_else(|| format!("the image has no function {part}"))
}
