//! Runs with Debian's dom0: the interactive one, and the tests of tests/dom0.

use std::fs::File;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::Result;
use crate::machine::{Bus, Disk, Format, Machine, OnReboot, Writes};
use crate::options::Options;
use crate::session::{Echo, ScratchFolder, Serial, Session};
use crate::snapshot::Snapshot;
use crate::{build, guests, project};

/// tests/dom0/init prints it once Xen's daemons run.
pub const UP: &str = "dom0 is up: ";
pub const PROMPT: &str = "# ";
/// Linux's watchdogs go by the clock on the wall: an emulated CPU that waits for the host's other work must not look stuck.
/// With eight CPUs on two cores, flushing the TLBs of a range page by page already takes longer than RCU allows.
const PATIENT_WATCHDOGS: &str =
    "rcupdate.rcu_cpu_stall_timeout=300 sysctl.kernel.watchdog_thresh=60";
const SPARE_BYTES: u64 = 128 << 20;
const SPARE_MMIO: &str = "spare-mmio.img";
/// Scripts about the machine's start and end, or on a machine of their own: they boot.
const BOOTS: [&str; 5] = ["poweroff", "reboot", PANIC, COUNTED, SYSTEMD];
/// The script whose kernel crashes.
const PANIC: &str = "panic";
/// The script that judges times: on one CPU whose time counts instructions.
const COUNTED: &str = "still";
/// The script with a domU that is a whole Debian.
const SYSTEMD: &str = "systemd";
/// A test may take so many times the timeout in all, beside what it is told to take, and one check of it so many: a check's
/// own limit counts its looks, and on a busy host a look may take seconds.
const LONGEST: u32 = 12;
pub const LONGEST_CHECK: u32 = 2;

/// Goes to dom0's shell: on a terminal the person gets it, otherwise the run ends when the shell is there.
pub fn run(options: &Options) -> Result {
    let folder = ScratchFolder::new("disks")?;
    let mut machine = common(options, project::data_disk()?, &folder)?;
    machine.on_reboot = OnReboot::Restart;
    let person = std::io::stdin().is_terminal();
    let mut session = if boots(options) {
        let mut session = Session::open(&machine, Echo::Show, Serial::WithMonitor)?;
        // A person may type while dom0 boots, to the hypervisor too.
        if !person {
            session.expect(UP, options.timeout)?;
        }
        session
    } else {
        let snapshot = Snapshot::of(&machine, options.timeout)?;
        let mut session = snapshot.start(&machine, Serial::WithMonitor, options.timeout)?;
        session.type_text("greet\n")?;
        session.expect("greet", options.timeout)?;
        session.echo(Echo::Show);
        session
    };
    if person {
        println!(
            "leave with `poweroff`, or QEMU's escape: Ctrl-A then X; Ctrl-A A three times goes to the hypervisor"
        );
        return session.attach();
    }
    session.wait_for_prompt(PROMPT, options.timeout)?;
    println!("\ndom0's shell is up; started without a terminal, so this is the end");
    Ok(())
}

/// Boots until dom0 is up or its test has finished, and shows the console.
pub fn boot(options: &Options) -> Result {
    match &options.test {
        Some(name) => test(name, options, Echo::Show),
        None => {
            let mut session = Session::start(&Machine::new(options)?, Echo::Show)?;
            session.expect(UP, options.timeout)?;
            session.hazards()
        }
    }
}

/// Runs one script of tests/dom0, or `shell`, which types on dom0's console.
pub fn test(name: &str, options: &Options, echo: Echo) -> Result {
    test_after(&[], name, options, echo)
}

/// Runs one script of tests/dom0, if the boot before has said all of `says`: patterns on lines.
pub fn test_after(says: &[&str], name: &str, options: &Options, echo: Echo) -> Result {
    let folder = ScratchFolder::new("disks")?;
    let machine = machine_for(name, options, &folder)?;
    let mut session = at_prompt(says, &machine, &options.fresh_if(BOOTS.contains(&name)))?;
    session.echo(echo);
    if name == "shell" {
        return shell(session, options.timeout);
    }
    session.type_text(&run_test(name, options))?;
    finish(name, &mut session, &machine, options)?;
    session.hazards()
}

/// Runs a script twice on the same disks: everything starts anew in between.
pub fn test_over_a_restart(name: &str, options: &Options, echo: Echo) -> Result {
    let folder = ScratchFolder::new("disks")?;
    let machine = machine_for(name, options, &folder)?;
    test_to_the_end(name, &machine, options, echo)?;
    test_to_the_end(name, &machine, options, echo)
}

/// Runs a script on a machine, which powers off behind it: nothing of its disks is in QEMU any more.
pub fn test_to_the_end(name: &str, machine: &Machine, options: &Options, echo: Echo) -> Result {
    let mut session = at_prompt(&[], machine, options)?;
    session.echo(echo);
    session.type_text(&run_test(name, options))?;
    passes(&mut session, name, options)?;
    ends_well(&mut session, options.timeout)
}

/// Returns the command that runs a script in the place of dom0's shell, with an end of line.
pub fn run_test(name: &str, options: &Options) -> String {
    let word = |number: Option<u32>| number.map_or("''".into(), |number| number.to_string());
    let (seconds, count) = (word(options.seconds), word(options.count));
    format!("exec run-test {name} {seconds} {count}\n")
}

/// Brings the machine to dom0's prompt, from a snapshot where that can be. The boot has said all of `says`.
fn at_prompt(says: &[&str], machine: &Machine, options: &Options) -> Result<Session> {
    if boots(options) {
        let mut session = Session::start(machine, Echo::Hide)?;
        for line in says.iter().chain(&[UP]) {
            session.expect(line, options.timeout)?;
        }
        session.wait_for_prompt(PROMPT, options.timeout)?;
        return Ok(session);
    }
    let snapshot = Snapshot::of(machine, options.timeout)?;
    snapshot.said(says)?;
    snapshot.start(machine, Serial::Plain, options.timeout)
}

/// Returns whether dom0 boots instead of going on from a snapshot: a person wants that, or a machine that is seldom the
/// same.
fn boots(options: &Options) -> bool {
    options.fresh
        || options.hazards
        || options.gdb
        || options.counted
        || !options.append.is_empty()
        || !options.dom0_append.is_empty()
}

/// Runs one script of tests/dom0, which the kernel's command line names, until the machine has ended; returns all that its
/// console said.
pub fn told(name: &str, options: &Options, echo: Echo) -> Result<String> {
    let folder = ScratchFolder::new("disks")?;
    let mut machine = machine_for(name, options, &folder)?;
    machine.dom0_append += &format!(" krypton.test={name}");
    let mut session = Session::start(&machine, echo)?;
    session.expect(UP, options.timeout)?;
    passes(&mut session, name, options)?;
    ends_well(&mut session, options.timeout)?;
    Ok(session.transcript().to_owned())
}

/// Returns the machine for a script, with its disks in a folder.
pub fn machine_for(name: &str, options: &Options, folder: &ScratchFolder) -> Result<Machine> {
    let data = copy(&project::data_disk()?, folder.path())?;
    let mut machine = common(options, data, folder)?;
    match name {
        "guests" | HOSTILE | TRANSPARENT | "fuzzer" | "last_words" | "flood" => {
            write_test_guests(folder.path())?
        }
        TRIXIE => write_trixie(folder.path())?,
        SYSTEMD => machine.disks.push(debian_guest()?),
        "reboot" | PANIC => machine.on_reboot = OnReboot::Restart,
        COUNTED => (machine.counted, machine.cpus) = (true, 1),
        "board" => machine.initrd = Some(with_guests(&machine, folder.path())?),
        _ => {}
    }
    Ok(machine)
}

/// Writes dom0's RAM disk with what a domU is made of in its `/guests`, for a machine without a disk.
fn with_guests(machine: &Machine, folder: &Path) -> Result<PathBuf> {
    /// The kernel skips zeroes in front of the next archive.
    const ALIGNMENT: usize = 4;
    let (Some(kernel), Some(initrd)) = (&machine.kernel, &machine.initrd) else {
        return Err("the machine has no dom0".into());
    };
    let guests = folder.join("archive/guests");
    std::fs::create_dir_all(&guests).map_err(|error| format!("{}: {error}", guests.display()))?;
    build::write(&guests.join("vmlinuz"), &build::read(kernel)?)?;
    let domu = build::read(&project::guests_initrd()?)?;
    build::write(&guests.join("initrd.gz"), &domu)?;
    let archive = folder.join("guests.cpio");
    build::run(
        Command::new("sh")
            .current_dir(folder.join("archive"))
            .args(["-c", "find . | cpio --quiet -o -H newc >\"$0\""])
            .arg(&archive),
    )?;
    let mut both = build::read(initrd)?;
    both.resize(both.len().next_multiple_of(ALIGNMENT), 0);
    both.extend(build::read(&archive)?);
    let both_file = folder.join("initrd-with-guests");
    build::write(&both_file, &both)?;
    Ok(both_file)
}

/// Returns the machine that the tests of dom0, `make run` and `make demo` have in common, so that one snapshot serves them
/// all: what domUs are made of, a disk for one, programs for one, a network, and spare disks.
fn common(options: &Options, data: PathBuf, folder: &ScratchFolder) -> Result<Machine> {
    let mut machine = Machine::new(options)?;
    give_watchdogs_patience(&mut machine);
    if options.board.is_none_or(|board| board.virtio) {
        machine.network = true;
        machine.disks = guest_disks(data)?;
    }
    if options.board.is_none() {
        machine.disks.extend(spare_disks(folder.path())?);
    }
    Ok(machine)
}

/// Keeps Linux's watchdogs from complaining about a busy host.
pub fn give_watchdogs_patience(machine: &mut Machine) {
    machine.dom0_append += " ";
    machine.dom0_append += PATIENT_WATCHDOGS;
}

/// Plays the story of tests/dom0/demo.sh to a person: without the boot before it, and what the kernel says meanwhile.
pub fn demo(options: &Options) -> Result {
    let folder = ScratchFolder::new("disks")?;
    let machine = machine_for("demo", options, &folder)?;
    let mut session = at_prompt(&[], &machine, options)?;
    session.type_text("dmesg -n 1\n")?;
    session.expect("dmesg", options.timeout)?;
    session.wait_for_prompt(PROMPT, options.timeout)?;
    let command = run_test("demo", options);
    session.type_text(&command)?;
    session.expect(command.trim(), options.timeout)?;
    session.echo(Echo::ShowGuest);
    finish("demo", &mut session, &machine, options)?;
    println!("\nthe end; the data disk, read by the host, holds what dom0 saw on it");
    Ok(())
}

/// Waits for what the script does, and judges it.
fn finish(name: &str, session: &mut Session, machine: &Machine, options: &Options) -> Result {
    match name {
        "poweroff" => ends_well(session, options.timeout),
        "reboot" => session.expect(UP, options.timeout).map(drop),
        PANIC => {
            session.expect("Kernel panic - not syncing: sysrq", options.timeout)?;
            session.expect("Hardware Dom0 shutdown: rebooting", options.timeout)?;
            session.expect(UP, options.timeout).map(drop)
        }
        "domains" | "demo" => {
            passes(session, name, options)?;
            let told = session.transcript().to_owned();
            ends_well(session, options.timeout)?;
            holds_what_was_told(&machine.disks, &told)
        }
        _ => passes(session, name, options),
    }
}

/// Waits for the test's end as long as its checks go on.
pub fn passes(session: &mut Session, name: &str, options: &Options) -> Result {
    let end = format!("TEST {name} ");
    let timeout = options.timeout;
    let asked_for = Duration::from_secs(options.seconds.unwrap_or(0).into());
    let longest = timeout * (LONGEST + options.count.unwrap_or(0)) + asked_for * LONGEST;
    let deadline = Instant::now() + longest;
    let line = loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let check = (timeout * LONGEST_CHECK).max(asked_for * LONGEST);
        if let (0, line) = session.expect_any(&[&end, "ok ", "FAIL "], check.min(left))? {
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

/// Returns the console works both ways, and leaving the shell ends the machine.
fn shell(mut session: Session, timeout: Duration) -> Result {
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

/// Returns what dom0 makes domUs of, and their disk.
fn guest_disks(data: PathBuf) -> Result<Vec<Disk>> {
    let mut disks = guest_volume()?;
    disks.extend([
        mmio_disk(data, Writes::Kept),
        mmio_disk(project::tools_disk()?, Writes::Lost),
    ]);
    Ok(disks)
}

/// The guest that is a domU only, and the script that starts it.
const HOSTILE: &str = "hostile";

/// Another one, and the script that saves it.
const UNAWARE: &str = "unaware";
const TRANSPARENT: &str = "transparent";

/// Writes a file system with the bare-metal test guests on the spare disk, for dom0 to start them as domUs.
fn write_test_guests(folder: &Path) -> Result {
    let elves = build::guests()?;
    let kernels = folder.join("kernels");
    // Never in dom0's place, so not among the names.
    let alone = [HOSTILE, UNAWARE].map(str::to_owned);
    for name in guests::names()?.into_iter().chain(alone) {
        build::flat_guest(&elves.join(&name), &kernels.join(&name))?;
    }
    write_kernels(&kernels, folder)
}

/// The script with a domU of the next Debian's kernel.
const TRIXIE: &str = "trixie";

/// Writes a file system with that kernel and its RAM disk on the spare disk. The set-up has fetched them by then.
fn write_trixie(folder: &Path) -> Result {
    build::run(&mut Command::new(
        project::root().join("tests/setup/trixie.sh"),
    ))?;
    write_kernels(&project::root().join("target/trixie"), folder)
}

/// Returns the disk of a domU that is a whole Debian, made by the set-up by then.
fn debian_guest() -> Result<Disk> {
    let root = project::root();
    build::run(Command::new(root.join("tests/setup/image.sh")).arg("guest"))?;
    Ok(scratch_disk(&root.join("target/debian/guest.img")))
}

/// Writes a file system with what is in `kernels` on the spare disk.
fn write_kernels(kernels: &Path, folder: &Path) -> Result {
    build::run(
        Command::new("mke2fs")
            .args(["-q", "-t", "ext4", "-m", "0", "-L", "kernels", "-d"])
            .args([kernels, &folder.join(SPARE_MMIO)]),
    )
}

/// Returns what dom0 makes domUs of, alone.
fn guest_volume() -> Result<Vec<Disk>> {
    Ok(vec![mmio_disk(project::guests_volume()?, Writes::Lost)])
}

/// Returns what dom0 makes domUs of, and the tools.
pub fn measuring_disks() -> Result<Vec<Disk>> {
    let mut disks = guest_volume()?;
    disks.push(mmio_disk(project::tools_disk()?, Writes::Lost));
    Ok(disks)
}

/// Returns a disk that forgets what is written to it.
pub fn scratch_disk(file: &Path) -> Disk {
    mmio_disk(file.to_owned(), Writes::Lost)
}

fn mmio_disk(file: PathBuf, writes: Writes) -> Disk {
    Disk {
        file,
        format: Format::Raw,
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

/// Disks that dom0 does not mount by itself, one behind each bus. They are as large as no other disk.
fn spare_disks(folder: &Path) -> Result<Vec<Disk>> {
    [(SPARE_MMIO, Bus::Mmio), ("spare-pci.img", Bus::Pci)]
        .into_iter()
        .map(|(name, bus)| {
            let path = folder.join(name);
            File::create(&path)
                .and_then(|file| file.set_len(SPARE_BYTES))
                .map_err(|error| format!("cannot make {}: {error}", path.display()))?;
            Ok(Disk {
                file: path,
                format: Format::Raw,
                bus,
                writes: Writes::Kept,
            })
        })
        .collect()
}
