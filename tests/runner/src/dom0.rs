//! Runs with Debian's dom0: the interactive one, and the tests of tests/dom0.

use std::fs::File;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::Result;
use crate::machine::{Bus, Disk, Machine, OnReboot, Writes};
use crate::options::Options;
use crate::session::{Echo, QEMU, ScratchFolder, Session};
use crate::{build, guests, project};

/// tests/dom0/init prints it once Xen's daemons run.
pub const UP: &str = "dom0 is up: ";
const PROMPT: &str = "# ";
/// Linux's watchdogs go by the clock on the wall: an emulated CPU that waits for the host's other work must not look stuck.
/// With eight CPUs on two cores, flushing the TLBs of a range page by page already takes longer than RCU allows.
const PATIENT_WATCHDOGS: &str =
    "rcupdate.rcu_cpu_stall_timeout=300 sysctl.kernel.watchdog_thresh=60";
const DISK_BYTES: u64 = 128 << 20;
/// A test may take so many times the timeout in all, and one check of it so many: a check's own limit counts its looks, and
/// on a busy host a look may take seconds.
const LONGEST: u32 = 12;
pub const LONGEST_CHECK: u32 = 2;

/// Boots to dom0's shell: on a terminal the person gets it, otherwise the run ends when the shell is there.
pub fn run(options: &Options) -> Result {
    let mut machine = Machine::new(options)?;
    machine.network = true;
    machine.disks = guest_disks(project::data_disk()?)?;
    if !std::io::stdin().is_terminal() {
        let mut session = Session::start(&machine, Echo::Show)?;
        session.expect(UP, options.timeout)?;
        session.wait_for_prompt(PROMPT, options.timeout)?;
        println!("\ndom0's shell is up; started without a terminal, so this is the end");
        return Ok(());
    }
    println!(
        "leave with `poweroff`, or QEMU's escape: Ctrl-A then X; Ctrl-A A three times goes to the hypervisor"
    );
    machine.on_reboot = OnReboot::Restart;
    let folder = ScratchFolder::new("tree")?;
    build::run(
        Command::new(QEMU)
            .args(machine.with_tree(folder.path())?.arguments())
            .args(["-serial", "mon:stdio"]),
    )
}

/// Boots until dom0 is up or its test has finished, and shows the console.
pub fn boot(options: &Options) -> Result {
    match &options.test {
        Some(name) => test(name, options, Echo::Show),
        None => {
            let mut session = Session::start(&Machine::new(options)?, Echo::Show)?;
            session.expect(UP, options.timeout).map(drop)
        }
    }
}

/// Runs one script of tests/dom0, or `shell`, which types on dom0's console.
pub fn test(name: &str, options: &Options, echo: Echo) -> Result {
    test_after(&[], name, options, echo)
}

/// Runs one script of tests/dom0, if the boot before has said all of `says`: patterns on lines.
pub fn test_after(says: &[&str], name: &str, options: &Options, echo: Echo) -> Result {
    if name == "shell" {
        return shell(&Machine::new(options)?, options.timeout, echo);
    }
    let folder = ScratchFolder::new("disks")?;
    let machine = machine_for(name, options, &folder)?;
    let mut session = Session::start(&machine, echo)?;
    for line in says.iter().chain(&[UP]) {
        session.expect(line, options.timeout)?;
    }
    finish(name, &mut session, &machine, options.timeout)
}

/// Runs one script of tests/dom0 until the machine has ended; answers all that its console said.
pub fn told(name: &str, options: &Options, echo: Echo) -> Result<String> {
    let folder = ScratchFolder::new("disks")?;
    let mut session = Session::start(&machine_for(name, options, &folder)?, echo)?;
    session.expect(UP, options.timeout)?;
    passes(&mut session, name, options.timeout)?;
    ends_well(&mut session, options.timeout)?;
    Ok(session.transcript().to_owned())
}

/// The machine for a script, with its disks in a folder.
fn machine_for(name: &str, options: &Options, folder: &ScratchFolder) -> Result<Machine> {
    let mut machine = Machine::new(options)?;
    machine.dom0_append += &format!(" krypton.test={name}");
    give_watchdogs_patience(&mut machine);
    if let Some(seconds) = options.seconds {
        machine.dom0_append += &format!(" krypton.seconds={seconds}");
    }
    if let Some(count) = options.count {
        machine.dom0_append += &format!(" krypton.count={count}");
    }
    match name {
        "disks" => machine.disks = blank_disks(folder.path())?,
        "domains" | "cycles" | "load" | "many" | "demo" | "masked" => {
            machine.disks = guest_disks(copy(&project::data_disk()?, folder.path())?)?;
        }
        "macro" => machine.disks = measuring_disks()?,
        "guests" | "last_words" => machine.disks = vec![test_guests(folder.path())?],
        "net" => machine.network = true,
        "reboot" => machine.on_reboot = OnReboot::Restart,
        _ => {}
    }
    Ok(machine)
}

/// Keeps Linux's watchdogs from complaining about a busy host.
pub fn give_watchdogs_patience(machine: &mut Machine) {
    machine.dom0_append += " ";
    machine.dom0_append += PATIENT_WATCHDOGS;
}

/// Plays the story of tests/dom0/demo.sh to a person: without the boot before it.
pub fn demo(options: &Options) -> Result {
    let mut machine = Machine::new(options)?;
    machine.dom0_append += " krypton.test=demo quiet";
    let folder = ScratchFolder::new("disks")?;
    machine.disks = guest_disks(copy(&project::data_disk()?, folder.path())?)?;
    println!("booting the hypervisor and dom0, which takes half a minute or more");
    let mut session = Session::start(&machine, Echo::Hide)?;
    session.expect(UP, options.timeout)?;
    session.echo(Echo::ShowGuest);
    finish("demo", &mut session, &machine, options.timeout)?;
    println!("\nthe end; the data disk, read by the host, holds what dom0 saw on it");
    Ok(())
}

/// What comes after dom0's boot.
fn finish(name: &str, session: &mut Session, machine: &Machine, timeout: Duration) -> Result {
    match name {
        "poweroff" => ends_well(session, timeout),
        "reboot" => session.expect(UP, timeout).map(drop),
        "domains" | "demo" => {
            passes(session, name, timeout)?;
            let told = session.transcript().to_owned();
            ends_well(session, timeout)?;
            holds_what_was_told(&machine.disks, &told)
        }
        _ => passes(session, name, timeout),
    }
}

/// Waits for the test's end as long as its checks go on.
fn passes(session: &mut Session, name: &str, timeout: Duration) -> Result {
    let end = format!("TEST {name} ");
    let deadline = Instant::now() + timeout * LONGEST;
    let line = loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if let (0, line) =
            session.expect_any(&[&end, "ok ", "FAIL "], (timeout * LONGEST_CHECK).min(left))?
        {
            break line;
        }
    };
    if line.contains("PASS") {
        return Ok(());
    }
    let start = session.transcript().find(UP).unwrap_or(0);
    Err(session.transcript()[start..].to_owned())
}

fn ends_well(session: &mut Session, timeout: Duration) -> Result {
    let status = session.expect_end(timeout)?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("QEMU: {status}"))
    }
}

/// The console works both ways, and leaving the shell ends the machine.
fn shell(machine: &Machine, timeout: Duration, echo: Echo) -> Result {
    let mut session = Session::start(machine, echo)?;
    session.expect(UP, timeout)?;
    session.wait_for_prompt(PROMPT, timeout)?;
    session.type_text("echo the answer is $((6 * 7))\n")?;
    session.expect("the answer is 42", timeout)?;
    // Ctrl-C ends what runs in the foreground, once that runs, and nothing else.
    session.wait_for_prompt(PROMPT, timeout)?;
    // The program that is to be ended says so itself: before, Ctrl-C would find the shell alone.
    session.type_text("sh -c 'echo begin $((6 * 9)); exec sleep 1000'\n")?;
    session.expect("begin 54", timeout)?;
    session.type_text("\u{3}")?;
    session.wait_for_prompt(PROMPT, timeout)?;
    session.type_text("xl list\n")?;
    session.expect("Domain-0", timeout)?;
    session.type_text("exit\n")?;
    ends_well(&mut session, timeout)
}

/// What dom0 makes domUs of, and their disk.
fn guest_disks(data: PathBuf) -> Result<Vec<Disk>> {
    let mut disks = guest_volume()?;
    disks.extend([
        mmio_disk(data, Writes::Kept),
        mmio_disk(project::tools_disk()?, Writes::Lost),
    ]);
    Ok(disks)
}

/// A file system with the bare-metal test guests, for dom0 to start them as domUs.
fn test_guests(folder: &Path) -> Result<Disk> {
    let elves = build::guests()?;
    let kernels = folder.join("kernels");
    for name in guests::names()? {
        build::flat_guest(&elves.join(&name), &kernels.join(&name))?;
    }
    let file = folder.join("kernels.img");
    build::run(
        Command::new("mke2fs")
            .args(["-q", "-t", "ext4", "-m", "0", "-L", "kernels", "-d"])
            .args([&kernels, &file])
            .arg("16M"),
    )?;
    Ok(mmio_disk(file, Writes::Lost))
}

/// What dom0 makes domUs of, alone.
pub fn guest_volume() -> Result<Vec<Disk>> {
    Ok(vec![mmio_disk(project::guests_volume()?, Writes::Lost)])
}

/// What dom0 makes domUs of, and the tools.
pub fn measuring_disks() -> Result<Vec<Disk>> {
    let mut disks = guest_volume()?;
    disks.push(mmio_disk(project::tools_disk()?, Writes::Lost));
    Ok(disks)
}

/// A disk that forgets what is written to it.
pub fn scratch_disk(file: &Path) -> Disk {
    mmio_disk(file.to_owned(), Writes::Lost)
}

fn mmio_disk(file: PathBuf, writes: Writes) -> Disk {
    Disk {
        file,
        bus: Bus::Mmio,
        writes,
    }
}

fn copy(file: &Path, folder: &Path) -> Result<PathBuf> {
    let target = folder.join("data.img");
    std::fs::copy(file, &target)
        .map_err(|error| format!("cannot copy {}: {error}", file.display()))?;
    Ok(target)
}

/// After the machine has gone, the domU's disk holds what dom0 read from it last: `data disk: sha256 ...`.
fn holds_what_was_told(disks: &[Disk], transcript: &str) -> Result {
    let disk = disks
        .iter()
        .find(|disk| disk.writes == Writes::Kept)
        .ok_or("the machine has no data disk")?;
    let sum = build::sha256(&disk.file)?;
    if transcript.contains(&format!("data disk: sha256 {sum}")) {
        Ok(())
    } else {
        Err(format!(
            "the data disk holds something else than dom0 read: sha256 {sum}\n{transcript}"
        ))
    }
}

fn blank_disks(folder: &Path) -> Result<Vec<Disk>> {
    [("mmio.img", Bus::Mmio), ("pci.img", Bus::Pci)]
        .into_iter()
        .map(|(name, bus)| {
            let path = folder.join(name);
            File::create(&path)
                .and_then(|file| file.set_len(DISK_BYTES))
                .map_err(|error| format!("cannot make {}: {error}", path.display()))?;
            Ok(Disk {
                file: path,
                bus,
                writes: Writes::Kept,
            })
        })
        .collect()
}
