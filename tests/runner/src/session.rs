//! One running QEMU: its console, its monitor, its end.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::Result;
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

/// Whether a person watches the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Echo {
    Show,
    /// Whole lines, without the hypervisor's.
    ShowGuest,
    Hide,
}

pub struct Session {
    qemu: Child,
    keyboard: ChildStdin,
    output: Receiver<Vec<u8>>,
    transcript: Transcript,
    echo: Echo,
    folder: ScratchFolder,
}

impl Session {
    pub fn start(machine: &Machine, echo: Echo) -> Result<Self> {
        let folder = ScratchFolder::new("qemu")?;
        let monitor = folder.path().join("monitor");
        let mut qemu = Command::new(QEMU)
            .args(machine.with_tree(folder.path())?.arguments())
            .args(["-serial", "stdio", "-monitor"])
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
        // What follows tells why.
        self.collect(Duration::from_secs(2));
        Err(format!(
            "waiting for \"{}\", the machine died: {line}\n{}",
            patterns.join("\" or \""),
            self.last_lines()
        ))
    }

    /// Shows the console from here on, or hides it.
    pub fn echo(&mut self, echo: Echo) {
        self.echo = echo;
    }

    /// Waits for QEMU to end by itself.
    pub fn expect_end(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let mut patience = Patience::new(timeout);
        loop {
            match patience.receive(&self.output) {
                Ok(bytes) => self.take(&bytes),
                Err(RecvTimeoutError::Disconnected) => {
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
        if self.echo == Echo::Show {
            let mut stdout = std::io::stdout();
            // A closed pipe on our side (`| head`) is no fault of the machine under test.
            let _ = stdout.write_all(bytes).and_then(|()| stdout.flush());
        }
        let before = self.transcript.text().rfind('\n').map_or(0, |end| end + 1);
        self.transcript.push(bytes);
        if self.echo == Echo::ShowGuest {
            let text = self.transcript.text();
            let end = text.rfind('\n').map_or(0, |end| end + 1);
            for line in text.get(before..end).unwrap_or_default().lines() {
                if !line.starts_with("(XEN)") {
                    println!("{line}");
                }
            }
        }
    }

    /// The console's end, every CPU's registers, and the hypervisor's own account of its domains and CPUs.
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

    /// Asks QEMU's monitor.
    pub fn monitor(&self, command: &str) -> Result<String> {
        let failed = |error| format!("QEMU's monitor: {error}");
        let mut stream = UnixStream::connect(self.folder.path().join("monitor")).map_err(failed)?;
        stream
            .set_read_timeout(Some(Duration::from_secs(2)))
            .map_err(failed)?;
        stream
            .write_all(format!("{command}\n").as_bytes())
            .map_err(failed)?;
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        // The monitor never closes the connection: silence is the end of an answer.
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            answer.extend(&buffer[..length]);
        }
        Ok(without_noise(&String::from_utf8_lossy(&answer)))
    }
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

impl Drop for Session {
    fn drop(&mut self) {
        // Both fail only when QEMU is gone already.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
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
        // What is left behind is in the system's folder for such things.
        let _ = fs::remove_dir_all(&self.0);
    }
}
