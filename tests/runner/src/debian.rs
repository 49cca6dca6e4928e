//! A whole Debian as dom0: its disk (tests/setup/image.sh) in QEMU's `virt`, started by Debian's U-Boot as on a board.

pub mod domus;

use std::io::IsTerminal;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::machine::{Bus, Disk, Format, Machine, OnReboot, Writes};
use crate::options::Options;
use crate::project::{made_by_setup, root};
use crate::session::{Echo, Serial, Session};
use crate::{Result, build, uboot};

/// Where `make debian` has ssh.
const SSH_PORT: u16 = 2222;
/// RAM in MiB: 512 are dom0's.
const MEMORY_MIB: u32 = 2048;
const VERSION: &str = env!("CARGO_PKG_VERSION");
const LOGIN: &str = "krypton login: ";
const XEN: &str = "(XEN) Brought up";

/// Starts the disk of `make debian`: on a terminal the person gets the console, otherwise the run ends when ssh answers.
pub fn run(options: &Options) -> Result {
    let disk = made_by_setup(root().join("target/debian/disk.img"))?;
    let machine = machine(options, disk, Writes::Kept, SSH_PORT)?;
    let key = key();
    println!(
        "login: root, password krypton; from another terminal: ssh -i {} -p {SSH_PORT} root@127.0.0.1\n\
         leave with `poweroff`, or QEMU's escape: Ctrl-A then X; Ctrl-A A three times goes to the hypervisor",
        key.display()
    );
    let mut session = Session::open(&machine, Echo::Show, Serial::WithMonitor)?;
    if std::io::stdin().is_terminal() {
        return session.attach();
    }
    session.wait_for_prompt(LOGIN, options.timeout * PATIENCE)?;
    let guest = Guest(SSH_PORT);
    guest.wait(options.timeout)?;
    println!("\n{}", guest.run("xl info && xl list")?);
    println!("ssh answers; started without a terminal, so this is the end");
    guest.run("poweroff")?;
    session.expect_end(options.timeout).map(drop)
}

/// systemd and its services take longer than the dom0 of the other tests by so many times.
const PATIENCE: u32 = 4;

fn machine(options: &Options, disk: PathBuf, writes: Writes, port: u16) -> Result<Machine> {
    let options = Options {
        memory_mib: options.memory_mib.max(MEMORY_MIB),
        ..options.clone()
    };
    let mut machine = uboot::machine(&options, &[])?;
    machine.disks = vec![Disk {
        file: disk,
        format: Format::Raw,
        bus: Bus::Mmio,
        writes,
    }];
    machine.network = true;
    machine.ssh_port = Some(port);
    machine.on_reboot = OnReboot::Restart;
    Ok(machine)
}

fn key() -> PathBuf {
    root().join("target/debian/ssh_key")
}

/// The running Debian, by ssh.
struct Guest(u16);

impl Guest {
    /// Runs a command as root; returns what it says.
    fn run(&self, command: &str) -> Result<String> {
        let output = Command::new("ssh")
            .arg("-i")
            .arg(key())
            .args([
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "UserKnownHostsFile=/dev/null",
            ])
            .args([
                "-o",
                "LogLevel=ERROR",
                "-o",
                "ConnectTimeout=60",
                "-o",
                "BatchMode=yes",
            ])
            // A machine that starts anew does not close its connections.
            .args(["-o", "ServerAliveInterval=20"])
            .args(["-p", &self.0.to_string(), "root@127.0.0.1", command])
            .output()
            .map_err(|error| format!("cannot run ssh: {error}; run `make debian` first"))?;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        match output.status.success() {
            true => Ok(said),
            false => Err(format!(
                "in the machine, {command}: {}\n{said}",
                output.status
            )),
        }
    }

    /// Waits until ssh answers.
    fn wait(&self, timeout: Duration) -> Result {
        let start = Instant::now();
        loop {
            match self.run("true") {
                Ok(_) => return Ok(()),
                Err(reason) if start.elapsed() > timeout => return Err(reason),
                Err(_) => std::thread::sleep(Duration::from_secs(2)),
            }
        }
    }

    /// Runs a command until it succeeds.
    fn until(&self, command: &str, timeout: Duration) -> Result<String> {
        let start = Instant::now();
        loop {
            match self.run(command) {
                Err(reason) if start.elapsed() > timeout => return Err(reason),
                Err(_) => std::thread::sleep(Duration::from_secs(5)),
                said => return said,
            }
        }
    }
}

/// The package's life on a Debian that has been without it: installed, started under, upgraded halfway, removed.
pub fn package(options: &Options, echo: Echo) -> Result {
    crate::package::make(options)?;
    build::run(Command::new(root().join("tests/setup/image.sh")).arg("plain"))?;
    let disk = made_by_setup(root().join("target/debian/plain.img"))?;
    let port = free_port()?;
    let mut session = Session::start(&machine(options, disk, Writes::Lost, port)?, echo)?;
    let guest = Guest(port);
    let patience = options.timeout * PATIENCE;

    session.wait_for_prompt(LOGIN, patience)?;
    guest.until("test ! -e /sys/hypervisor/type", patience)?;
    if session.transcript().contains("(XEN)") {
        return Err("Krypton was started before it was installed".into());
    }
    guest.run("cd /root && apt-get install -y ./krypton-hypervisor_*_armhf.deb && md5sum /boot/krypton.img >before")?;
    restart(&mut session, &guest, patience)?;
    under_krypton(&mut session, &guest, patience)?;
    domu(&guest, patience)?;

    // A next version, of which dpkg has only unpacked the files when the machine goes down.
    guest.run(&format!(
        "cd /root && dpkg-deb -R krypton-hypervisor_*_armhf.deb next \
         && sed -i 's/^Version: .*/Version: 99.0/' next/DEBIAN/control \
         && rm next/boot/krypton-{VERSION} && echo broken >next/boot/krypton-99.0 && dpkg-deb -Znone -b next next.deb \
         && dpkg --unpack next.deb && test ! -e /boot/krypton-{VERSION} && md5sum -c before && sync"
    ))?;
    guest.run("echo b >/proc/sysrq-trigger & sleep 1").ok();
    under_krypton(&mut session, &guest, patience)?;

    guest.run("apt-get remove -y krypton-hypervisor && test ! -e /boot/boot.scr.uimg && test ! -e /boot.scr.uimg")?;
    let before = session.transcript().matches(XEN).count();
    restart(&mut session, &guest, patience)?;
    session.wait_for(&["Linux version"], patience)?;
    session.wait_for_prompt(LOGIN, patience)?;
    guest.until("test ! -e /sys/hypervisor/type", patience)?;
    match session.transcript().matches(XEN).count() == before {
        true => Ok(()),
        false => Err("Krypton was started after it was removed".into()),
    }
}

/// Has the machine go down in order and start again.
fn restart(session: &mut Session, guest: &Guest, patience: Duration) -> Result {
    // The connection ends before the command does.
    guest.run("systemctl reboot").ok();
    session
        .wait_for(&["reboot: Restarting system"], patience)
        .map(drop)
}

/// Waits for Debian's login under Krypton; Xen's tools and systemd find nothing to complain about.
fn under_krypton(session: &mut Session, guest: &Guest, patience: Duration) -> Result {
    session.expect(XEN, patience)?;
    session.wait_for_prompt(LOGIN, patience)?;
    guest.until(
        "grep -q control_d /proc/xen/capabilities && xl list | grep -q Domain-0",
        patience,
    )?;
    guest
        .until("systemctl is-system-running", patience)
        .map(drop)
}

/// A domU's life with Debian's own scripts: its disk is a file, its interface in the bridge gets an address from outside.
fn domu(guest: &Guest, patience: Duration) -> Result {
    guest.run("xl create /etc/xen/first.cfg")?;
    guest.until(
        "sleep 10 | script -qc 'timeout 10 xl console first' /dev/null | grep 'first is up: .* inet '",
        patience,
    )?;
    guest.run("losetup --list --noheadings | grep -q /srv/first/disk.img && ls /sys/class/net/xenbr0/brif | grep -q vif")?;
    guest.run("xl shutdown -w first")?;
    guest.until(
        "! xl list first && test -z \"$(losetup --list --noheadings)\"",
        patience,
    )?;
    guest.run("systemctl is-system-running").map(drop)
}

fn free_port() -> Result<u16> {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|error| format!("no port for ssh: {error}"))
}
