//! The Debian packages: made by package/build.sh, looked into, and started from a boot folder; from a whole Debian in
//! debian.rs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::dom0::UP;
use crate::options::Options;
use crate::project::{self, root};
use crate::session::{Echo, ScratchFolder, Session};
use crate::uboot_ways::NOT_STARTED;
use crate::{Result, build, disk, uboot};

/// The files of the package: type, rights and name, as `dpkg-deb --contents` prints them.
const CONTENTS: [&str; 15] = [
    "-rw-r--r-- ./boot/krypton-VERSION",
    "-rw-r--r-- ./boot/krypton-VERSION.uImage",
    "-rw-r--r-- ./etc/default/krypton.d/krypton.cfg",
    "-rwxr-xr-x ./etc/initramfs/post-update.d/zz-krypton",
    "-rwxr-xr-x ./etc/kernel/postinst.d/zz-krypton",
    "-rwxr-xr-x ./etc/kernel/postrm.d/zz-krypton",
    "-rwxr-xr-x ./usr/bin/kmove",
    "-rw-r--r-- ./usr/lib/krypton/boot.scr",
    "lrwxrwxrwx ./usr/lib/krypton/krypton.efi",
    "-rwxr-xr-x ./usr/sbin/update-krypton",
    "-rw-r--r-- ./usr/share/doc/krypton-hypervisor/copyright",
    "-rw-r--r-- ./usr/share/lintian/overrides/krypton-hypervisor",
    "-rw-r--r-- ./usr/share/man/man8/kmove.8.gz",
    "-rw-r--r-- ./usr/share/man/man8/krypton.8.gz",
    "-rw-r--r-- ./usr/share/man/man8/update-krypton.8.gz",
];

/// The tags that lintian reports for a package without a maintainer's address.
const NOT_RELEASED: &str = "bogus-mail-host,bogus-mail-host-in-debian-changelog";

/// Builds the hypervisor and both packages; tells where they are.
pub fn make(options: &Options) -> Result {
    build::image(options)?;
    build::run(&mut Command::new(root().join("package/build.sh")))
}

/// Returns where the package is that [`make`] has made.
pub fn file() -> PathBuf {
    root().join(format!(
        "dist/krypton-hypervisor_{}_armhf.deb",
        env!("CARGO_PKG_VERSION")
    ))
}

fn symbols() -> PathBuf {
    root().join(format!(
        "dist/krypton-hypervisor-dbgsym_{}_armhf.deb",
        env!("CARGO_PKG_VERSION")
    ))
}

/// Two builds are equal, hold what they should, unpack to what starts Krypton, and lintian, where it is installed, finds
/// nothing.
pub fn test(options: &Options) -> Result {
    make(options)?;
    let first = [build::read(&file())?, build::read(&symbols())?];
    build::run(&mut Command::new(root().join("package/build.sh")))?;
    if first != [build::read(&file())?, build::read(&symbols())?] {
        return Err("two packages of one build differ".into());
    }
    let contents = output(dpkg("--contents").arg(file()))?;
    for wanted in CONTENTS {
        let (rights, name) = wanted.split_once(' ').unwrap_or_default();
        let name = name.replace("VERSION", env!("CARGO_PKG_VERSION"));
        let is_it = |line: &str| {
            let mut words = line.split_whitespace();
            words.next() == Some(rights)
                && words.next() == Some("root/root")
                && words.any(|word| word == name)
        };
        if !contents.lines().any(is_it) {
            return Err(format!("the package has no {rights} {name}:\n{contents}"));
        }
    }
    unpacks()?;
    lint()
}

/// The package's own `update-krypton`, where it is unpacked, starts Krypton and takes that back.
fn unpacks() -> Result {
    let scratch = ScratchFolder::new("package")?;
    let system = scratch.path();
    unpack(system, &[])?;
    let boot = |name: &str| system.join("boot").join(name);
    same(&boot("krypton.img"), &root().join("dist/krypton"))?;
    same(
        &boot("boot.scr.uimg"),
        &system.join("usr/lib/krypton/boot.scr"),
    )?;
    update(system, &["--remove"])?;
    match fs::exists(boot("boot.scr.uimg")) {
        Ok(false) => Ok(()),
        _ => Err("boot.scr.uimg is there after a removal".into()),
    }
}

/// A menu of Debian's that starts nothing: U-Boot finds it after Krypton's script.
const MENU: (&str, &str) = (
    "boot/extlinux/extlinux.conf",
    "default none\nlabel none\n linux /boot/none\n",
);

/// Starts dom0 by the script in the boot folder; with a kernel that is not there U-Boot goes on to Debian's menu.
pub fn starts_by_script(options: &Options, echo: Echo) -> Result {
    let scratch = ScratchFolder::new("package")?;
    let system = scratch.path();
    unpack(system, &[MENU])?;
    let all = [
        "boot.scr.uimg",
        "boot/boot.scr.uimg",
        MENU.0,
        "boot/krypton.env",
        "boot/krypton.img",
        "boot/vmlinuz-6.1",
        "boot/initrd.img-6.1",
    ];
    let mut session = start(system, &all, options, echo)?;
    session.wait_for(&["Found U-Boot script /boot.scr.uimg"], options.timeout)?;
    session.expect(UP, options.timeout)?;
    drop(session);

    let mut session = start(system, &all[..6], options, echo)?;
    session.wait_for(&[NOT_STARTED], options.timeout)?;
    session
        .wait_for(&["Found /boot/extlinux/extlinux.conf"], options.timeout)
        .map(drop)
}

/// Starts dom0 from the EFI system partition.
pub fn starts_by_uefi(options: &Options, echo: Echo) -> Result {
    let scratch = ScratchFolder::new("package")?;
    unpack(
        scratch.path(),
        &[("boot/efi/EFI/debian/note", "a system partition")],
    )?;
    let all = [
        "EFI/BOOT/BOOTARM.EFI",
        "EFI/BOOT/krypton.cfg",
        "EFI/BOOT/krypton-vmlinuz",
        "EFI/BOOT/krypton-initrd.img",
    ];
    start(&scratch.path().join("boot/efi"), &all, options, echo)?
        .expect(UP, options.timeout)
        .map(drop)
}

/// Starts a machine whose disk has some of a system's files.
fn start(system: &Path, names: &[&str], options: &Options, echo: Echo) -> Result<Session> {
    let scratch = ScratchFolder::new("disk")?;
    let image = scratch.path().join("disk.img");
    let files: Vec<_> = names
        .iter()
        .map(|name| (system.join(name), (*name).to_owned()))
        .collect();
    disk::make(&image, &files)?;
    // QEMU has the file open when the folder goes.
    let session = Session::start(&uboot::machine(options, &[image])?, echo)?;
    session.monitor("info version")?;
    Ok(session)
}

/// Unpacks the package into a folder with dom0's kernel and other files, and has its own `update-krypton` start Krypton
/// there.
fn unpack(system: &Path, others: &[(&str, &str)]) -> Result {
    build::run(dpkg("--extract").arg(file()).arg(system))?;
    let boot = system.join("boot");
    build::write(
        &boot.join("vmlinuz-6.1"),
        &build::read(&project::dom0_kernel()?)?,
    )?;
    build::write(
        &boot.join("initrd.img-6.1"),
        &build::read(&project::dom0_initrd()?)?,
    )?;
    let texts = [
        ("boot/config-6.1", "CONFIG_XEN_DOM0=y\n"),
        ("etc/fstab", "/dev/vda1 / ext4 defaults 0 1\n"),
    ];
    for (name, text) in texts.iter().chain(others) {
        build::write(&system.join(name), text.as_bytes())?;
    }
    update(system, &[])
}

fn update(system: &Path, arguments: &[&str]) -> Result {
    let mut command = Command::new(system.join("usr/sbin/update-krypton"));
    output(command.arg("--root").arg(system).args(arguments)).map(drop)
}

fn lint() -> Result {
    let mut lintian = Command::new("lintian");
    lintian.args([
        "--suppress-tags",
        NOT_RELEASED,
        "--fail-on",
        "error,warning,info",
    ]);
    match lintian.args([file(), symbols()]).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stdout).into_owned()),
        Err(_) => {
            println!("lintian is not installed: left out");
            Ok(())
        }
    }
}

fn dpkg(action: &str) -> Command {
    let mut command = Command::new("dpkg-deb");
    command.arg(action);
    command
}

fn same(one: &Path, other: &Path) -> Result {
    match build::read(one)? == build::read(other)? {
        true => Ok(()),
        false => Err(format!("{} is not {}", one.display(), other.display())),
    }
}

/// Runs a command to its end, which must be a success; returns what it says.
fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(|error| format!("cannot run {name}: {error}"))?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    match output.status.success() {
        true => Ok(said),
        false => Err(format!("{name}: {}\n{said}", output.status)),
    }
}
