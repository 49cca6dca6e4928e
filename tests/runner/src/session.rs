//! One running QEMU: its console, its monitor, its end.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::Result;
use crate::hazards;
use crate::machine::Machine;
use crate::patience::Patience;
use crate::transcript::Transcript;

pub const QEMU: &str = "qemu-system-arm";

/// Lines after which nothing good comes any more, so that a run need not wait for its timeout.
pub const FATAL: [&str; 3] = [
    "Kernel panic - not syncing",
    "Panic on CPU",
    "Hardware Dom0 crashed",
];

/// Name of the checker's file in a session's folder.
const HAZARDS: &str = "hazards";

/// How long QEMU's monitor may say nothing before an answer is taken for complete.
const MONITOR_PATIENCE: Duration = Duration::from_secs(5);

/// Shows the console to a person, or keeps it for an error's report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Echo {
    Show,
    /// Whole lines, without the hypervisor's.
    ShowGuest,
    Hide,
}

/// QEMU's back end of the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serial {
    /// The console alone.
    Plain,
    /// The console and QEMU's monitor, which Ctrl-A switches between.
    WithMonitor,
}

pub struct Session {
    qemu: Child,
    keyboard: ChildStdin,
    output: Receiver<Vec<u8>>,
    transcript: Transcript,
    echo: Echo,
    /// Bytes of the transcript that a person has seen, or will not see.
    shown: usize,
    /// The output of the checker for caches and TLBs.
    watched: Option<PathBuf>,
    folder: ScratchFolder,
}

impl Session {
    pub fn start(machine: &Machine, echo: Echo) -> Result<Self> {
        Self::open(machine, echo, Serial::Plain)
    }

    /// Starts QEMU.
    pub fn open(machine: &Machine, echo: Echo, serial: Serial) -> Result<Self> {
        let folder = ScratchFolder::new("qemu")?;
        let monitor = folder.path().join("monitor");
        let watch = machine.hazards.as_ref();
        let watched = watch.map(|_| folder.path().join(HAZARDS));
        let watch =
            watch.map(|watch| watch.arguments(machine.memory_mib, &folder.path().join(HAZARDS)));
        let mut qemu = emulator(machine.cpus)
            .args(machine.with_tree(folder.path())?.arguments())
            .args(watch.iter().flatten())
            .arg("-serial")
            .arg(match serial {
                Serial::Plain => "stdio",
                Serial::WithMonitor => "mon:stdio",
            })
            .arg("-monitor")
            .arg(format!("unix:{},server=on,wait=off", monitor.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot run {QEMU}: {error}; run `make setup`"))?;
        let keyboard = qemu.stdin.take().ok_or("QEMU has no input")?;
        let output = read_in_background(qemu.stdout.take().ok_or("QEMU has no output")?);
        Ok(Self {
            qemu,
            keyboard,
            output,
            transcript: Transcript::default(),
            echo,
            shown: 0,
            watched,
            folder,
        })
    }

    /// Waits for a line that matches one of `patterns`; returns the pattern's index and the line.
    pub fn wait_for(&mut self, patterns: &[&str], timeout: Duration) -> Result<(usize, String)> {
        self.wait(&patterns.join("\" or \""), timeout, |transcript| {
            transcript.find_line(patterns)
        })
    }

    /// Waits until the console stands behind `pattern`, on a line without an end.
    pub fn wait_for_prompt(&mut self, pattern: &str, timeout: Duration) -> Result {
        self.wait(pattern, timeout, |transcript| {
            transcript.is_at_prompt(pattern).then_some(())
        })
    }

    fn wait<T>(
        &mut self,
        wanted: &str,
        timeout: Duration,
        mut search: impl FnMut(&mut Transcript) -> Option<T>,
    ) -> Result<T> {
        let mut patience = Patience::new(timeout);
        loop {
            if let Some(found) = search(&mut self.transcript) {
                return Ok(found);
            }
            match patience.receive(&self.output) {
                Ok(bytes) => self.take(&bytes),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!(
                        "no \"{wanted}\" within {} s (and {} s in which the host stood still)\n{}",
                        timeout.as_secs(),
                        patience.held_up.as_secs(),
                        self.report()
                    ));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(format!(
                        "QEMU ended before \"{wanted}\"\n{}",
                        self.last_lines()
                    ));
                }
            }
        }
    }

    /// Waits for `pattern`, but gives up at once when the machine dies.
    pub fn expect(&mut self, pattern: &str, timeout: Duration) -> Result<String> {
        self.expect_any(&[pattern], timeout).map(|(_, line)| line)
    }

    /// Waits for a line that matches one of `patterns`, but gives up at once when the machine dies.
    pub fn expect_any(&mut self, patterns: &[&str], timeout: Duration) -> Result<(usize, String)> {
        let all = [patterns, &FATAL].concat();
        let (index, line) = self.wait_for(&all, timeout)?;
        if index < patterns.len() {
            return Ok((index, line));
        }
        // Collects the lines that follow: they tell why.
        self.collect(Duration::from_secs(2));
        Err(format!(
            "waiting for \"{}\", the machine died: {line}\n{}",
            patterns.join("\" or \""),
            self.last_lines()
        ))
    }

    /// Shows the console from behind the line found last, or hides it.
    pub fn echo(&mut self, echo: Echo) {
        self.shown = self.transcript.searched();
        self.echo = echo;
        self.show();
    }

    /// Joins the console with this terminal until QEMU ends.
    pub fn attach(mut self) -> Result {
        self.show();
        let _raw = RawTerminal::enter()?;
        let keyboard = self.keyboard.as_fd().try_clone_to_owned();
        let mut keyboard = File::from(keyboard.map_err(|error| format!("QEMU's input: {error}"))?);
        // Still waits for a key when QEMU has ended; it ends with this program.
        thread::spawn(move || copy_bytes(&mut std::io::stdin(), &mut keyboard));
        let mut stdout = std::io::stdout();
        for bytes in &self.output {
            stdout
                .write_all(&bytes)
                .and_then(|()| stdout.flush())
                .map_err(|error| format!("cannot write on the terminal: {error}"))?;
        }
        let status = self.qemu.wait().map_err(|error| format!("QEMU: {error}"))?;
        match status.success() {
            true => Ok(()),
            false => Err(format!("QEMU: {status}")),
        }
    }

    /// Waits for QEMU to end by itself.
    pub fn expect_end(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let mut patience = Patience::new(timeout);
        loop {
            match patience.receive(&self.output) {
                Ok(bytes) => self.take(&bytes),
                Err(RecvTimeoutError::Disconnected) => {
                    count_cpu_time_of(self.qemu.id());
                    return self.qemu.wait().map_err(|error| format!("QEMU: {error}"));
                }
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!(
                        "the machine did not go within {} s\n{}",
                        timeout.as_secs(),
                        self.report()
                    ));
                }
            }
        }
    }

    /// Returns an error if the machine was watched and a hazard was found.
    pub fn hazards(&self) -> Result {
        self.watched.as_deref().map_or(Ok(()), hazards::verdict)
    }

    /// Returns the checker's file, if the machine is watched.
    pub fn watched(&self) -> Option<&Path> {
        self.watched.as_deref()
    }

    /// Types on the console.
    pub fn type_text(&mut self, text: &str) -> Result {
        self.keyboard
            .write_all(text.as_bytes())
            .and_then(|()| self.keyboard.flush())
            .map_err(|error| format!("cannot type on the console: {error}"))
    }

    pub fn transcript(&self) -> &str {
        self.transcript.text()
    }

    /// Takes in what the console prints during `period`.
    fn collect(&mut self, period: Duration) {
        let deadline = Instant::now() + period;
        while let Ok(bytes) = self
            .output
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            self.take(&bytes);
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.transcript.push(bytes);
        self.show();
    }

    /// Shows what the console printed since the last time.
    fn show(&mut self) {
        let text = &self.transcript.text()[self.shown..];
        let length = match self.echo {
            Echo::Hide => return,
            Echo::Show => text.len(),
            Echo::ShowGuest => text.rfind('\n').map_or(0, |end| end + 1),
        };
        let mut stdout = std::io::stdout();
        for line in text[..length].split_inclusive('\n') {
            if self.echo == Echo::Show || !line.starts_with("(XEN)") {
                // A closed pipe on our side (`| head`) is no fault of the machine under test.
                let _ = stdout.write_all(line.as_bytes());
            }
        }
        let _ = stdout.flush();
        self.shown += length;
    }

    /// Returns the console's end, every CPU's registers, and the hypervisor's own account of its domains and CPUs.
    fn report(&mut self) -> String {
        let console = self.last_lines();
        let registers = self
            .monitor("info registers -a")
            .unwrap_or_else(|reason| reason);
        format!(
            "{console}\n--- registers\n{registers}\n--- the hypervisor's debug keys\n{}",
            self.debug_keys()
        )
    }

    /// Returns the last lines that the console has printed up to now.
    pub fn said(&mut self) -> String {
        self.collect(Duration::ZERO);
        self.last_lines()
    }

    fn last_lines(&self) -> String {
        match self.echo {
            Echo::Show | Echo::ShowGuest => String::new(),
            Echo::Hide => format!("--- the console's last lines\n{}", self.transcript.tail(60)),
        }
    }

    /// Ctrl-A three times turns the console to the hypervisor; q tells of domains, r of run queues, d of registers.
    fn debug_keys(&mut self) -> String {
        let before = self.transcript.text().len();
        if let Err(reason) = self.type_text("\u{1}\u{1}\u{1}qrd") {
            return reason;
        }
        self.collect(Duration::from_secs(3));
        self.transcript.text()[before..].to_owned()
    }

    /// Connects to QEMU's monitor, which is there a moment after QEMU has started.
    fn connect_monitor(&self) -> std::io::Result<UnixStream> {
        let deadline = Instant::now() + MONITOR_PATIENCE;
        loop {
            match UnixStream::connect(self.folder.path().join("monitor")) {
                Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(50)),
                result => return result,
            }
        }
    }

    /// Asks QEMU's monitor.
    pub fn monitor(&self, command: &str) -> Result<String> {
        let failed = |error| format!("QEMU's monitor: {error}");
        let mut stream = self.connect_monitor().map_err(failed)?;
        stream
            .set_read_timeout(Some(MONITOR_PATIENCE))
            .map_err(failed)?;
        read_to_monitor_prompt(&mut stream);
        stream
            .write_all(format!("{command}\n").as_bytes())
            .map_err(failed)?;
        Ok(without_noise(&read_to_monitor_prompt(&mut stream)))
    }
}

/// Returns whether a machine with so many CPUs is kept on one core: on a few, CPUs that spin keep the host from running the
/// one that they wait for, and Linux's stop_machine takes minutes.
pub fn is_crowd(cpus: u32) -> bool {
    /// CPUs that share few cores well.
    const MOST: u32 = 4;
    let cores = thread::available_parallelism().map_or(1, usize::from);
    cpus > MOST && cores < cpus as usize
}

/// Returns QEMU's command without arguments.
fn emulator(cpus: u32) -> Command {
    if !is_crowd(cpus) {
        return Command::new(QEMU);
    }
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", &first_core(), QEMU]);
    command
}

/// Returns the first core that this program may run on, as proc(5) has it: `Cpus_allowed_list: 0-1`.
fn first_core() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let first = list.and_then(|list| list.trim().split(['-', ',']).next());
    first.unwrap_or("0").to_owned()
}

/// Reads from QEMU's monitor until it waits for a command, or has ended, or says nothing for [`MONITOR_PATIENCE`].
fn read_to_monitor_prompt(stream: &mut UnixStream) -> String {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    // The command that is typed is echoed behind the prompt before it, so a prompt at the end is a new one.
    while !text.ends_with(b"\n(qemu) ")
        && let Ok(length @ 1..) = stream.read(&mut buffer)
    {
        text.extend(&buffer[..length]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Leaves out the monitor's line editing and the floating-point registers: 32 lines per CPU.
fn without_noise(answer: &str) -> String {
    let is_noise = |line: &&str| line.contains("(qemu)") || line.starts_with("s");
    answer
        .lines()
        .filter(|line| !is_noise(line))
        .collect::<Vec<_>>()
        .join("\n")
}

thread_local! {
    /// CPU time of the machines that this thread has ended.
    static CPU_TIME: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Returns the CPU time of the machines that this thread has ended, and begins again at 0.
pub fn take_cpu_time() -> Duration {
    CPU_TIME.take()
}

/// Adds the CPU time of a process, as proc(5) has it while nobody has waited for its end.
fn count_cpu_time_of(process: u32) {
    /// The unit of /proc/PID/stat on Linux.
    const TICK: Duration = Duration::from_millis(10);
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // Behind the name, which may have spaces: the state, 10 other fields, user time and system time.
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
    let ticks = fields
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u32>().ok());
    CPU_TIME.set(CPU_TIME.get() + TICK * ticks.sum::<u32>());
}

impl Drop for Session {
    fn drop(&mut self) {
        count_cpu_time_of(self.qemu.id());
        // Both fail only when QEMU is gone already.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// This terminal without echo, line editing and signals, until it is dropped.
struct RawTerminal {
    before: String,
}

impl RawTerminal {
    fn enter() -> Result<Self> {
        let before = Self::stty(&["-g"])?;
        Self::stty(&["raw", "-echo"])?;
        Ok(Self { before })
    }

    fn stty(arguments: &[&str]) -> Result<String> {
        let output = Command::new("stty")
            .args(arguments)
            .stdin(Stdio::inherit())
            .output()
            .map_err(|error| format!("cannot run stty: {error}"))?;
        if !output.status.success() {
            return Err(format!("stty: {}", output.status));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // A terminal that is gone needs no setting.
        let _ = Self::stty(&[&self.before]);
    }
}

/// Copies bytes as they come, until one side is closed.
fn copy_bytes(from: &mut impl Read, to: &mut impl Write) {
    let mut buffer = [0; 256];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if to
            .write_all(&buffer[..length])
            .and_then(|()| to.flush())
            .is_err()
        {
            break;
        }
    }
}

fn read_in_background(mut source: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = source.read(&mut buffer) {
            if sender.send(buffer[..length].to_vec()).is_err() {
                break;
            }
        }
    });
    receiver
}

/// A folder of our own for as long as it is needed. It has a short name: a Unix socket's may not exceed 108 bytes.
pub struct ScratchFolder(PathBuf);

impl ScratchFolder {
    pub fn new(purpose: &str) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed); // only the number must be unique
        let path =
            std::env::temp_dir().join(format!("krypton-{purpose}-{}-{count}", std::process::id()));
        fs::create_dir_all(&path)
            .map_err(|error| format!("cannot make {}: {error}", path.display()))?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for ScratchFolder {
    fn drop(&mut self) {
        // A folder left behind is in the system's folder for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}
