//! The way through U-Boot: what it reads, made from boot/uboot for each board, and tried on QEMU's `virt` board with Debian's
//! U-Boot (docs/uboot.md).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::dom0::{self, UP};
use crate::machine::{Machine, Start};
use crate::options::Options;
use crate::project::{self, root};
use crate::session::{Echo, ScratchFolder, Session};
use crate::{Result, build, disk, faults, image};

/// A board that U-Boot starts Krypton on.
#[derive(Debug)]
pub struct Board {
    pub name: &'static str,
    /// Where RAM begins.
    ram: u32,
    tree: Tree,
    /// Krypton's command line in an image tree.
    xen: &'static str,
}

/// Where a board's device tree comes from.
#[derive(Debug)]
enum Tree {
    Qemu,
    /// Debian's kernel package has it under this name.
    Debian(&'static str),
}

pub static BOARDS: [Board; 4] = [
    Board {
        name: "virt",
        ram: 0x4000_0000,
        tree: Tree::Qemu,
        xen: "console=dtuart dtuart=/pl011@9000000 dom0_mem=512M",
    },
    Board {
        name: "arndale",
        ram: 0x4000_0000,
        tree: Tree::Debian("exynos5250-arndale.dtb"),
        xen: "console=dtuart dtuart=serial2 dom0_mem=512M",
    },
    Board {
        name: "orangepi-pc",
        ram: 0x4000_0000,
        tree: Tree::Debian("sun8i-h3-orangepi-pc.dtb"),
        xen: "console=dtuart dtuart=serial0 dom0_mem=512M",
    },
    Board {
        name: "vexpress",
        ram: 0x8000_0000,
        tree: Tree::Debian("vexpress-v2p-ca15_a7.dtb"),
        xen: "console=dtuart dtuart=serial0 dom0_mem=384M",
    },
];

const DOM0: &str = "console=hvc0 earlycon=xenboot";
/// Where `bootm` copies Krypton to, from the beginning of RAM (boot/uboot/krypton.its).
const LOAD_OFFSET: u32 = 0x0100_0000;

/// Where the script is loaded by hand: clear of all that it loads.
const SCRIPT_OFFSET: u32 = 0x1000_0000;

/// The files for U-Boot that are made of a build, in one folder.
pub struct Files(PathBuf);

impl Board {
    pub fn named(name: &str) -> Result<&'static Self> {
        BOARDS
            .iter()
            .find(|board| board.name == name)
            .ok_or_else(|| {
                let names = BOARDS.each_ref().map(|board| board.name).join(", ");
                format!("no board \"{name}\"; there are {names}")
            })
    }

    /// Makes all that U-Boot can read for this board in `folder`. Builds the hypervisor.
    pub fn make(&self, options: &Options, folder: &Path) -> Result<Files> {
        let krypton = build::krypton()?;
        let flat = build::read(&krypton)?;
        let copies = [
            (krypton, "krypton"),
            (project::dom0_kernel()?, "vmlinuz"),
            (project::dom0_initrd()?, "initrd.gz"),
        ];
        for (from, name) in copies {
            build::write(&folder.join(name), &build::read(&from)?)?;
        }
        let uimage = image::uimage(&flat, self.ram + LOAD_OFFSET);
        build::write(&folder.join("krypton.uImage"), &uimage)?;
        self.make_tree(options, folder)?;
        self.make_image_tree(folder)?;
        make_script(&source(&format!("{}.cmd", self.name))?, folder)?;
        Ok(Files(folder.to_owned()))
    }

    /// What to do with a disk that has the board's files on it.
    pub fn instructions(&self) -> String {
        if matches!(self.tree, Tree::Qemu) {
            return "It is a disk for QEMU's virt board with U-Boot, which starts it by itself."
                .into();
        }
        let script = self.ram + SCRIPT_OFFSET;
        format!(
            "Put it into the board. U-Boot starts it by itself; if it does not, type at its prompt (mmc list tells the number):\n\
            \x20   setenv devtype mmc; setenv devnum 0; setenv distro_bootpart 1\n\
            \x20   load mmc 0:1 {script:#x} boot.scr\n\
            \x20   source {script:#x}"
        )
    }

    /// The board's device tree, and the same with the modules in it.
    fn make_tree(&self, options: &Options, folder: &Path) -> Result {
        let tree = folder.join("board.dtb");
        match self.tree {
            Tree::Qemu => faults::dump_tree(&machine(options, &[])?, &tree)?,
            Tree::Debian(name) => build::write(&tree, &build::read(&project::board_tree(name)?)?)?,
        }
        let kernel_size = build::read(&folder.join("vmlinuz"))?.len();
        let overlay = self
            .filled("modules.dtso")?
            .replace("@XEN@", self.xen)
            .replace("@DOM0@", DOM0)
            .replace("@KERNEL_SIZE@", &format!("{kernel_size:#x}"));
        let (text, binary) = (folder.join("modules.dtso"), folder.join("modules.dtbo"));
        build::write(&text, overlay.as_bytes())?;
        build::run(faults::dtc("dts", "dtb").arg("-o").args([&binary, &text]))?;
        build::run(
            Command::new("fdtoverlay")
                .arg("-i")
                .arg(&tree)
                .arg("-o")
                .args([&folder.join("modules.dtb"), &binary]),
        )
    }

    fn make_image_tree(&self, folder: &Path) -> Result {
        build::write(
            &folder.join("krypton.its"),
            self.filled("krypton.its")?.as_bytes(),
        )?;
        quietly(mkimage(folder).args(["-f", "krypton.its", "krypton.itb"]))
    }

    /// A source of boot/uboot with this board's numbers in it.
    fn filled(&self, name: &str) -> Result<String> {
        Ok(source(name)?.replace("@RAM@", &format!("{:#x}", self.ram)))
    }
}

impl Files {
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Makes a disk with some of the files on it, and says where it is.
    pub fn disk(&self, names: &[&str]) -> Result<PathBuf> {
        let files: Vec<_> = names
            .iter()
            .map(|name| (self.path(name), (*name).to_owned()))
            .collect();
        let disk = self.path("disk.img");
        disk::make(&disk, &files)?;
        Ok(disk)
    }
}

/// Makes the files for the board that the operand names (or `virt`), and leaves what starts Krypton in `dist/`.
pub fn make(options: &Options) -> Result {
    let name = options.operands.first().map_or("virt", String::as_str);
    let scratch = ScratchFolder::new("uboot")?;
    let files = Board::named(name)?.make(options, scratch.path())?;
    for name in ["krypton.uImage", "krypton.itb", "boot.scr"] {
        let made = root().join("dist").join(name);
        build::write(&made, &build::read(&files.path(name))?)?;
    }
    println!("dist/krypton.uImage, dist/krypton.itb, dist/boot.scr for {name}");
    println!(
        "SHA-256 of dist/krypton: {}",
        build::sha256(&files.path("krypton"))?
    );
    Ok(())
}

/// Makes a script that U-Boot runs by itself, `boot.scr`, out of its text.
pub fn make_script(text: &str, folder: &Path) -> Result {
    build::write(&folder.join("boot.cmd"), text.as_bytes())?;
    quietly(mkimage(folder).args([
        "-A", "arm", "-O", "linux", "-T", "script", "-C", "none", "-n", "Krypton", "-d",
        "boot.cmd", "boot.scr",
    ]))
}

/// QEMU's `virt` board with Debian's U-Boot in its flash, and disks.
pub fn machine(options: &Options, disks: &[PathBuf]) -> Result<Machine> {
    let mut machine = Machine::new(options)?;
    machine.start = Start::Firmware(project::uboot()?);
    machine.disks = disks.iter().map(|disk| dom0::scratch_disk(disk)).collect();
    Ok(machine)
}

fn mkimage(folder: &Path) -> Command {
    let mut command = Command::new("mkimage");
    // Equal input gives equal output.
    command.current_dir(folder).env("SOURCE_DATE_EPOCH", "0");
    command
}

/// Runs a program that says much when all is well, and shows what it said when not.
fn quietly(command: &mut Command) -> Result {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(|error| format!("cannot run {name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(format!(
        "{name}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&said)
    ))
}

/// A source of boot/uboot.
pub fn source(name: &str) -> Result<String> {
    let path = root().join("boot/uboot").join(name);
    fs::read_to_string(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

/// A way to start Krypton by U-Boot.
pub struct Way {
    pub name: &'static str,
    files: &'static [&'static str],
    /// Changes the script of the board.
    script: fn(&str) -> String,
    /// What U-Boot says on the way.
    said: &'static [&'static str],
}

pub static WAYS: [Way; 4] = [
    Way {
        name: "bootm",
        files: &["krypton.uImage", "vmlinuz", "initrd.gz"],
        script: str::to_owned,
        said: &["Verifying Checksum ... OK"],
    },
    Way {
        name: "image tree",
        files: &["krypton.itb"],
        script: str::to_owned,
        said: &[
            "Verifying Hash Integrity ... sha256+ OK",
            "Verifying Hash Integrity ... sha256+ OK",
            "Verifying Hash Integrity ... sha256+ OK",
            "Verifying Hash Integrity ... sha256+ OK",
        ],
    },
    Way {
        name: "bootz in place",
        files: &["krypton", "vmlinuz", "initrd.gz"],
        script: |script| {
            script
                .replace("0x44000000 krypton.uImage", "0x44000000 krypton")
                .replace("bootm 0x44000000", "bootz 0x44000000")
        },
        said: &["Kernel image @ 0x44000000"],
    },
    Way {
        name: "bootm with a RAM disk",
        files: &["krypton.uImage", "vmlinuz", "initrd.gz"],
        script: with_ramdisk_of_uboot,
        said: &["Using Device Tree in place at"],
    },
];

/// Has U-Boot itself tell where the RAM disk is, so that no module node does.
fn with_ramdisk_of_uboot(script: &str) -> String {
    let lines = script
        .lines()
        .filter(|line| !line.contains("module@4c000000"));
    let text: String = lines.flat_map(|line| [line, "\n"]).collect();
    text.replace("bootm 0x44000000 -", "bootm 0x44000000 0x4c000000:${isize}")
}

/// Starts one way, to dom0's user space.
pub fn test(way: &Way, options: &Options, echo: Echo) -> Result {
    let folder = ScratchFolder::new("uboot")?;
    let board = Board::named("virt")?;
    let files = board.make(options, folder.path())?;
    build::tell_image(&files.path("krypton"))?;
    make_script(&(way.script)(&source("virt.cmd")?), folder.path())?;
    let disk = files.disk(&[way.files, &["boot.scr"]].concat())?;
    let mut session = Session::start(&machine(options, &[disk])?, echo)?;
    for line in way.said {
        session.wait_for(&[line], options.timeout)?;
    }
    session.expect(UP, options.timeout)?;
    let sum = build::sha256(&files.path("krypton"))?;
    if way.files == ["krypton.itb"] && !session.transcript().contains(&sum) {
        return Err(format!("U-Boot did not tell Krypton's SHA-256, {sum}"));
    }
    Ok(())
}

/// What U-Boot says when it goes on after the script.
const NOT_STARTED: &str = "Krypton was not started";

/// With one byte of any part of the image tree changed, U-Boot starts nothing.
pub fn refuses_damage(options: &Options, echo: Echo) -> Result {
    let folder = ScratchFolder::new("uboot")?;
    let files = Board::named("virt")?.make(options, folder.path())?;
    let whole = build::read(&files.path("krypton.itb"))?;
    for part in ["krypton", "modules.dtb", "vmlinuz", "initrd.gz"] {
        let mut damaged = whole.clone();
        damage(&mut damaged, &build::read(&files.path(part))?)?;
        build::write(&files.path("krypton.itb"), &damaged)?;
        refused(&files, None, "Bad hash value", options, echo)
            .map_err(|reason| format!("{part}: {reason}"))?;
    }
    Ok(())
}

/// A U-Boot that has a key starts what is signed with it, and nothing else: not the same files unsigned, not with another
/// command line and good hashes.
pub fn wants_signature(options: &Options, echo: Echo) -> Result {
    let folder = ScratchFolder::new("uboot")?;
    let files = Board::named("virt")?.make(options, folder.path())?;
    make_key(folder.path())?;
    let unsigned = build::read(&files.path("krypton.itb"))?;
    // The key goes into the tree that U-Boot lives by; QEMU gives it that tree.
    let keys = "keys.dtb";
    build::write(&files.path(keys), &build::read(&files.path("board.dtb"))?)?;
    quietly(mkimage(folder.path()).args(["-F", "-k", ".", "-K", keys, "-r", "krypton.itb"]))?;
    let signed = build::read(&files.path("krypton.itb"))?;

    let mut machine = machine(options, &[files.disk(&["krypton.itb", "boot.scr"])?])?;
    machine.tree = Some(files.path(keys));
    let mut session = Session::start(&machine, echo)?;
    session.wait_for(&["sha256,rsa2048:krypton+ OK"], options.timeout)?;
    session.expect(UP, options.timeout)?;
    drop(session);

    let mut other_words = signed;
    replace_equally(&mut other_words, b"dom0_mem=512M", b"dom0_mem=511M")?;
    for image_tree in [unsigned, other_words] {
        build::write(&files.path("krypton.itb"), &image_tree)?;
        quietly(mkimage(folder.path()).args(["-F", "krypton.itb"]))?;
        let message = "Failed to verify required signature";
        refused(&files, Some(keys), message, options, echo)?;
    }
    Ok(())
}

/// U-Boot says `message` about the image tree and starts nothing.
fn refused(
    files: &Files,
    tree: Option<&str>,
    message: &str,
    options: &Options,
    echo: Echo,
) -> Result {
    let mut machine = machine(options, &[files.disk(&["krypton.itb", "boot.scr"])?])?;
    machine.tree = tree.map(|name| files.path(name));
    let mut session = Session::start(&machine, echo)?;
    session.wait_for(&[message], options.timeout)?;
    session.wait_for(&[NOT_STARTED], options.timeout)?;
    match session.transcript().contains("(XEN)") {
        true => Err("it was started all the same".into()),
        false => Ok(()),
    }
}

/// A key pair under the name that the image tree hints at.
fn make_key(folder: &Path) -> Result {
    let openssl = || {
        let mut command = Command::new("openssl");
        command.current_dir(folder);
        command
    };
    quietly(openssl().args(["genrsa", "-out", "krypton.key", "2048"]))?;
    quietly(openssl().args([
        "req",
        "-batch",
        "-new",
        "-x509",
        "-key",
        "krypton.key",
        "-out",
        "krypton.crt",
    ]))
}

/// Changes the byte in the middle of where `file` holds `part`.
fn damage(file: &mut [u8], part: &[u8]) -> Result {
    let start = position(file, part)?;
    file[start + part.len() / 2] ^= 1;
    Ok(())
}

fn replace_equally(file: &mut [u8], old: &[u8], new: &[u8]) -> Result {
    let start = position(file, old)?;
    file[start..start + old.len()].copy_from_slice(new);
    Ok(())
}

fn position(file: &[u8], part: &[u8]) -> Result<usize> {
    // Most places differ in the first bytes, so this is quick for megabytes too.
    file.windows(part.len())
        .position(|window| window == part)
        .ok_or_else(|| "the image tree does not hold one of its parts".into())
}

#[cfg(test)]
mod tests {
    use super::{BOARDS, Board, damage, source, with_ramdisk_of_uboot};

    #[test]
    fn a_board_is_found_by_its_name_and_the_others_are_told() {
        assert_eq!(Board::named("arndale").unwrap().name, "arndale");
        let error = Board::named("mustang").unwrap_err();
        assert!(
            error.contains("virt, arndale, orangepi-pc, vexpress"),
            "{error}"
        );
    }

    #[test]
    fn the_places_in_each_script_are_those_of_the_image_tree() {
        for board in &BOARDS {
            let script = source(&format!("{}.cmd", board.name)).unwrap();
            let image_tree = board.filled("krypton.its").unwrap();
            assert!(!image_tree.replace("@RAM@ +", "").contains("@RAM@ "));
            for offset in [0x0800_0000, 0x0c00_0000] {
                assert!(image_tree.contains(&format!("({:#x} + {offset:#010x})", board.ram)));
                assert!(script.contains(&format!("module@{:x}", board.ram + offset)));
            }
            assert!(script.contains(&format!("bootm {:#x}\n", board.ram + 0x2000_0000)));
            assert!(script.contains(&format!("xen,xen-bootargs \"{}\"", board.xen)));
            assert!(script.contains(super::DOM0) && script.contains(super::NOT_STARTED));
        }
    }

    #[test]
    fn without_its_node_the_ram_disk_is_an_argument() {
        let script = with_ramdisk_of_uboot(&source("virt.cmd").unwrap());
        assert!(!script.contains("module@4c000000"));
        assert!(script.contains("bootm 0x44000000 0x4c000000:${isize} 0x43000000"));
    }

    #[test]
    fn damage_is_one_bit_inside_the_part() {
        let mut file = *b"abcdefgh";
        damage(&mut file, b"cde").unwrap();
        assert_eq!(&file, b"abceefgh");
        assert!(damage(&mut file, b"xyz").is_err());
    }
}
