//! Snapshots: dom0 boots once, and many machines go on from there.
//!
//! A machine of each shape (board, CPUs, memory, command lines) boots to dom0's prompt. QEMU then writes its state into a
//! file, as for a migration, and ends. A machine that starts from the snapshot reads that file instead of booting, and has
//! disks of its own: what dom0 had mounted continues in an overlay whose writes are lost; a disk whose writes are kept was
//! not mounted, so that it may hold something else each time.
//!
//! The folder `target/snapshots/SHAPE` holds
//!
//! | file | what |
//! |---|---|
//! | `key` | a line for each thing that the state depends on, then the SHA-256 of each file here |
//! | `state` | QEMU's state |
//! | `console` | what the boot printed |
//! | `diskN` | the blocks of disk N that differ from its file, in QEMU's format |
//!
//! A snapshot whose key or files are not as expected is named, and made anew.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::dom0::{PROMPT, UP};
use crate::machine::{Disk, Format, Machine, OnReboot, Start, Writes};
use crate::project::root;
use crate::session::{Echo, QEMU, ScratchFolder, Serial, Session};
use crate::transcript::Transcript;
use crate::{Result, build};

const KEY: &str = "key";
const STATE: &str = "state";
const CONSOLE: &str = "console";

/// Between two looks at QEMU's monitor.
const LOOK: Duration = Duration::from_millis(100);
/// Bytes of the seed for dom0's random numbers.
const SEED: usize = 32;

/// A saved state of a machine with a booted dom0.
pub struct Snapshot {
    folder: PathBuf,
}

impl Snapshot {
    /// Returns the snapshot of this machine's shape, and makes it where there is none that is right.
    pub fn of(machine: &Machine, timeout: Duration) -> Result<Self> {
        let snapshot = Self {
            folder: root().join("target/snapshots").join(shape(machine)),
        };
        let lock = snapshot.folder.with_extension("lock");
        build::write(&lock, &[])?;
        // Held until the end of this function: by a thread of ours, or another process.
        let lock = File::open(&lock).map_err(|error| format!("{}: {error}", lock.display()))?;
        lock.lock()
            .map_err(|error| format!("cannot lock a snapshot: {error}"))?;
        let wanted = key(machine)?;
        if let Err(reason) = snapshot.check(&wanted, &files(machine)) {
            if let Some(reason) = reason {
                println!("the saved dom0 is not used: {reason}");
            }
            println!("dom0 boots (once for this build) ...");
            snapshot.make(machine, wanted, timeout)?;
        }
        Ok(snapshot)
    }

    /// Starts the machine from the snapshot, with the time of day set and random numbers of its own. Its console stands at
    /// dom0's prompt.
    pub fn start(&self, machine: &Machine, serial: Serial, timeout: Duration) -> Result<Session> {
        let mut machine = machine.clone();
        machine.state = Some(self.folder.join(STATE));
        for (index, disk) in machine.disks.iter_mut().enumerate() {
            if disk.writes == Writes::Lost {
                disk.file = self.overlay(index);
                disk.format = Format::Qcow2;
            }
        }
        let mut session = Session::open(&machine, Echo::Hide, serial)?;
        // The state has the console's input of then in it: what is typed before it is read is lost.
        wait_for_answer(&session, "info status", "running", timeout)?;
        session.type_text(&format!("wake {} {}\n", seconds_since_1970()?, seed()?))?;
        session.expect("awake", timeout)?;
        session.wait_for_prompt(PROMPT, timeout)?;
        Ok(session)
    }

    /// Checks that the boot printed lines that match all these patterns, in this order.
    pub fn said(&self, patterns: &[&str]) -> Result {
        let mut console = Transcript::default();
        console.push(&build::read(&self.folder.join(CONSOLE))?);
        match patterns
            .iter()
            .find(|pattern| console.find_line(&[pattern]).is_none())
        {
            None => Ok(()),
            Some(pattern) => Err(format!(
                "the boot did not say \"{pattern}\"\n{}",
                console.text()
            )),
        }
    }

    /// Compares the stored key and files with what is wanted. Returns what is wrong, or nothing where there is no snapshot.
    fn check(&self, wanted: &Key, files: &[String]) -> std::result::Result<(), Option<String>> {
        // Some hundred MB: read once in a run.
        static READ: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
        let Ok(text) = fs::read_to_string(self.folder.join(KEY)) else {
            return Err(None);
        };
        let stored = Key::parse(&text);
        if let Some(name) = wanted.differs_from(&stored) {
            return Err(Some(format!("it is of another {name}")));
        }
        let sums = &stored.0[wanted.0.len()..];
        if !sums.iter().map(|(name, _)| name).eq(files) {
            return Err(Some(format!("its file {KEY} is damaged")));
        }
        let mut read = READ.lock().map_err(|_| None)?;
        let id = format!("{} {text}", self.folder.display());
        if read.contains(&id) {
            return Ok(());
        }
        for (name, sum) in sums {
            if build::sha256(&self.folder.join(name)).ok().as_ref() != Some(sum) {
                return Err(Some(format!("its file {name} is damaged")));
            }
        }
        read.insert(id);
        Ok(())
    }

    /// Boots the machine to dom0's prompt and saves it.
    fn make(&self, machine: &Machine, mut key: Key, timeout: Duration) -> Result {
        let failed = |error| format!("{}: {error}", self.folder.display());
        if self.folder.exists() {
            fs::remove_dir_all(&self.folder).map_err(failed)?;
        }
        fs::create_dir_all(&self.folder).map_err(failed)?;
        let mut booted = machine.clone();
        for (index, disk) in booted.disks.iter_mut().enumerate() {
            match disk.writes {
                Writes::Lost => make_overlay(disk, self.overlay(index))?,
                Writes::Kept | Writes::Shared => disk.writes = Writes::Lost,
            }
        }
        let mut session = Session::start(&booted, Echo::Hide)?;
        session.expect(UP, timeout)?;
        session.wait_for_prompt(PROMPT, timeout)?;
        session.type_text("settle\n")?;
        session.expect("settled", timeout)?;
        session.wait_for_prompt(PROMPT, timeout)?;
        build::write(&self.folder.join(CONSOLE), session.transcript().as_bytes())?;
        save(&session, &self.folder.join(STATE), timeout)?;
        session.monitor("quit")?;
        session.expect_end(timeout)?;
        for name in files(machine) {
            let sum = build::sha256(&self.folder.join(&name))?;
            key.0.push((name, sum));
        }
        // The last file: a snapshot without it is none.
        build::write(&self.folder.join(KEY), key.text().as_bytes())
    }

    fn overlay(&self, index: usize) -> PathBuf {
        self.folder.join(disk_name(index))
    }
}

/// Returns the name of a shape, for a folder.
fn shape(machine: &Machine) -> String {
    let board = machine.board.map_or("virt", |board| board.name);
    let highmem = if machine.highmem { "-highmem" } else { "" };
    let hypervisor = machine.hypervisor.file_name().unwrap_or_default();
    format!(
        "{board}-{}-{}{highmem}-{}",
        machine.cpus,
        machine.memory_mib,
        hypervisor.to_string_lossy()
    )
}

/// Returns the names of a snapshot's files, but for the key.
fn files(machine: &Machine) -> Vec<String> {
    let overlays = machine
        .disks
        .iter()
        .enumerate()
        .filter(|(_, disk)| disk.writes == Writes::Lost)
        .map(|(index, _)| disk_name(index));
    [STATE.to_owned(), CONSOLE.to_owned()]
        .into_iter()
        .chain(overlays)
        .collect()
}

fn disk_name(index: usize) -> String {
    format!("disk{index}")
}

/// All that a state depends on, as names and values.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key(Vec<(String, String)>);

impl Key {
    fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap_or((line, ""));
            (name.to_owned(), value.to_owned())
        };
        Self(text.lines().map(line).collect())
    }

    fn text(&self) -> String {
        self.0
            .iter()
            .map(|(name, value)| format!("{name}: {value}\n"))
            .collect()
    }

    /// Returns the first name whose value is another one in `stored`, which may have more lines.
    fn differs_from(&self, stored: &Self) -> Option<&str> {
        self.0
            .iter()
            .enumerate()
            .find(|(index, line)| stored.0.get(*index) != Some(line))
            .map(|(_, (name, _))| name.as_str())
    }
}

/// Returns the key of a machine that is to be booted now.
fn key(machine: &Machine) -> Result<Key> {
    let folder = ScratchFolder::new("key")?;
    let mut lines = vec![("QEMU".to_owned(), qemu_version()?)];
    let mut add_file = |name: &str, file: &Path| {
        lines.push((name.to_owned(), build::sha256(file)?));
        Ok::<_, String>(())
    };
    add_file("image", &machine.hypervisor)?;
    for (name, file) in [("kernel", &machine.kernel), ("initramfs", &machine.initrd)] {
        if let Some(file) = file {
            add_file(name, file)?;
        }
    }
    if let Start::Tree(tree) = &machine.with_tree(folder.path())?.start {
        add_file("device tree", tree)?;
    }
    let mut named = machine.clone();
    // Is about the end of QEMU, not about the state.
    named.on_reboot = OnReboot::Exit;
    for (index, disk) in named.disks.iter_mut().enumerate() {
        let name = format!("disk {index}");
        match disk.writes {
            Writes::Lost => add_file(&name, &disk.file)?,
            Writes::Kept | Writes::Shared => disk.file = length(&disk.file)?.into(),
        }
    }
    lines.push(("command line".to_owned(), named.arguments().join(" ")));
    Ok(Key(lines))
}

/// Stands for the file of a disk that may hold anything.
fn length(file: &Path) -> Result<String> {
    let data = fs::metadata(file).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(format!("{}-bytes", data.len()))
}

fn qemu_version() -> Result<String> {
    let output = Command::new(QEMU)
        .arg("--version")
        .output()
        .map_err(|error| format!("cannot run {QEMU}: {error}; run `make setup`"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// Gives the disk a file of its own, which continues what its file holds.
fn make_overlay(disk: &mut Disk, overlay: PathBuf) -> Result {
    build::run(
        Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
            .args([&disk.file, &overlay]),
    )?;
    *disk = Disk {
        file: overlay,
        format: Format::Qcow2,
        bus: disk.bus,
        writes: Writes::Kept,
    };
    Ok(())
}

/// Has QEMU write its state into a file, after which the machine stands still.
fn save(session: &Session, state: &Path, timeout: Duration) -> Result {
    session.monitor(&format!("migrate -d \"file:{}\"", state.display()))?;
    wait_for_answer(session, "info migrate", "status: completed", timeout)
}

/// Asks QEMU's monitor until its answer has these words.
fn wait_for_answer(session: &Session, command: &str, words: &str, timeout: Duration) -> Result {
    let deadline = Instant::now() + timeout;
    loop {
        let answer = session.monitor(command)?;
        if answer.contains(words) {
            return Ok(());
        }
        if answer.contains("status: failed") || Instant::now() > deadline {
            return Err(format!("QEMU's monitor, asked for \"{command}\": {answer}"));
        }
        thread::sleep(LOOK);
    }
}

fn seconds_since_1970() -> Result<u64> {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map(|time| time.as_secs())
        .map_err(|error| format!("the host's clock: {error}"))
}

/// Random bytes of the host, in hexadecimal digits.
fn seed() -> Result<String> {
    use std::io::Read;
    let mut bytes = [0; SEED];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|error| format!("/dev/urandom: {error}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{CONSOLE, KEY, Key, STATE, Snapshot};
    use crate::build;
    use crate::session::ScratchFolder;

    const WANTED: &str = "QEMU: 10.0.2\nimage: abc\n";

    /// Returns a snapshot as it is made, in a folder that goes with it.
    fn made() -> (ScratchFolder, Snapshot) {
        let folder = ScratchFolder::new("snapshot").unwrap();
        let mut key = Key::parse(WANTED);
        for name in files() {
            let file = folder.path().join(&name);
            fs::write(&file, format!("contents of {name}")).unwrap();
            key.0.push((name, build::sha256(&file).unwrap()));
        }
        fs::write(folder.path().join(KEY), key.text()).unwrap();
        let snapshot = Snapshot {
            folder: folder.path().to_owned(),
        };
        (folder, snapshot)
    }

    fn files() -> Vec<String> {
        [STATE, CONSOLE, "disk0"].map(String::from).into()
    }

    /// Returns what is wrong with the snapshot for a machine with this key.
    fn wrong(snapshot: &Snapshot, wanted: &str) -> Option<String> {
        snapshot.check(&Key::parse(wanted), &files()).err()?
    }

    #[test]
    fn a_snapshot_of_the_same_machine_is_used() {
        let (_folder, snapshot) = made();
        assert_eq!(snapshot.check(&Key::parse(WANTED), &files()), Ok(()));
        // A second time it is not read again.
        assert_eq!(snapshot.check(&Key::parse(WANTED), &files()), Ok(()));
    }

    #[test]
    fn where_there_is_none_nothing_is_named() {
        let folder = ScratchFolder::new("snapshot").unwrap();
        let snapshot = Snapshot {
            folder: folder.path().join("none"),
        };
        assert_eq!(snapshot.check(&Key::parse(WANTED), &files()), Err(None));
    }

    #[test]
    fn one_of_another_machine_is_named() {
        let (_folder, snapshot) = made();
        for (wanted, name) in [
            ("QEMU: 10.0.3\nimage: abc\n", "QEMU"),
            ("QEMU: 10.0.2\nimage: abd\n", "image"),
            ("QEMU: 10.0.2\nimage: abc\ndevice tree: 1\n", "device tree"),
        ] {
            let expected = format!("it is of another {name}");
            assert_eq!(wrong(&snapshot, wanted), Some(expected));
        }
    }

    #[test]
    fn a_damaged_file_is_named() {
        for name in files() {
            let (folder, snapshot) = made();
            let file = folder.path().join(&name);
            fs::write(&file, "something else").unwrap();
            let expected = Some(format!("its file {name} is damaged"));
            assert_eq!(wrong(&snapshot, WANTED), expected);
            fs::remove_file(&file).unwrap();
            assert_eq!(wrong(&snapshot, WANTED), expected);
        }
    }

    #[test]
    fn a_key_that_was_cut_short_is_damage() {
        let (folder, snapshot) = made();
        fs::write(folder.path().join(KEY), WANTED).unwrap();
        let expected = Some("its file key is damaged".into());
        assert_eq!(wrong(&snapshot, WANTED), expected);
        fs::write(folder.path().join(KEY), "QEMU: 10.0.2").unwrap();
        let expected = Some("it is of another image".into());
        assert_eq!(wrong(&snapshot, WANTED), expected);
    }
}
