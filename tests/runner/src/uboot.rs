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

pub static BOARDS: [Board; 3] = [
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
        name: "vexpress",
        ram: 0x8000_0000,
        tree: Tree::Debian("vexpress-v2p-ca15_a7.dtb"),
        xen: "console=dtuart dtuart=serial0 dom0_mem=384M",
    },
];

const DOM0: &str = "console=hvc0 earlycon=xenboot";
/// Where `bootm` copies Krypton to, from the beginning of RAM (boot/uboot/krypton.its).
const LOAD_OFFSET: u32 = 0x0100_0000;

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
    make_script(&(way.script)(&source("virt.cmd")?), folder.path())?;
    let disk = files.disk(&[way.files, &["boot.scr"]].concat())?;
    let mut session = Session::start(&machine(options, &[disk])?, echo)?;
    for line in way.said {
        session.wait_for(&[line], options.timeout)?;
    }
    session.expect(UP, options.timeout).map(drop)
}
