//! The way through UEFI firmware (docs/uefi.md): U-Boot's, which enters images in HYP, and Debian's EDK II, which does not.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::dom0::UP;
use crate::machine::Start;
use crate::options::Options;
use crate::session::{Echo, ScratchFolder, Session};
use crate::{Result, build, disk, faults, project, uboot};

/// A way to start Krypton as a UEFI image.
pub struct Way {
    pub name: &'static str,
    firmware: Firmware,
    /// On the disk, beside dom0's kernel and RAM disk.
    files: &'static [File],
    /// Patterns on the console's lines, in order.
    said: &'static [&'static str],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Firmware {
    UBoot,
    /// EDK II, on a machine without HYP: in HYP it does not get as far as its first driver.
    EdkWithoutHyp,
}

enum File {
    Krypton(&'static str),
    Text(&'static str, &'static str),
    /// QEMU's device tree, with another model in it.
    Tree(&'static str),
    /// A script that U-Boot runs by itself.
    Script(&'static str),
    /// The script for the board of boot/uboot, with `bootefi` at its end.
    BoardScript,
}

use File::{BoardScript, Krypton, Script, Text, Tree};

const CONFIG: &str = "# a comment\r\n[global]\r\ndefault=debian\r\n\r\n[other]\r\nkernel=none\r\n\r\n[debian]\r\n\
    options=console=dtuart dtuart=/pl011@9000000 dom0_mem=512M loglvl=all\r\n\
    kernel=vmlinuz console=hvc0 earlycon=xenboot\r\nramdisk=initrd.gz\r\n";

const CONFIG_WITH_TREE: &str = "options=console=dtuart dtuart=/pl011@9000000 dom0_mem=512M\n\
    kernel=vmlinuz console=hvc0 earlycon=xenboot\nramdisk=initrd.gz\ndtb=virt.dtb\n";

/// U-Boot remembers where it loaded an image from, and looks for the image's files there.
const EACH_FOLDER: &str = "\
    for folder in none empty section kernel ramdisk tree; do\n\
        load ${devtype} ${devnum}:${distro_bootpart} 0x44000000 ${folder}/krypton.efi\n\
        bootefi 0x44000000 ${fdtcontroladdr}\n\
        echo returned from ${folder}\n\
    done\n";

pub static WAYS: [Way; 5] = [
    Way {
        name: "by itself",
        firmware: Firmware::UBoot,
        files: &[Krypton("EFI/BOOT/BOOTARM.EFI"), Text("krypton.cfg", CONFIG)],
        said: &[
            "Found EFI removable media binary",
            "Krypton: vmlinuz",
            "Krypton: initrd.gz",
            "(XEN) Command line: console=dtuart dtuart=/pl011@9000000 dom0_mem=512M loglvl=all",
            "(XEN) Brought up 2 CPUs",
            UP,
        ],
    },
    Way {
        name: "tree beside it",
        firmware: Firmware::UBoot,
        files: &[
            Krypton("EFI/BOOT/BOOTARM.EFI"),
            Text("krypton.cfg", CONFIG_WITH_TREE),
            Tree("virt.dtb"),
        ],
        said: &["(XEN) Platform: beside it", "(XEN) Brought up 2 CPUs", UP],
    },
    Way {
        name: "modules of the tree",
        firmware: Firmware::UBoot,
        files: &[Krypton("krypton.efi"), BoardScript],
        said: &[
            "Krypton: boot modules of the device tree",
            "(XEN) Command line: console=dtuart dtuart=/pl011@9000000 dom0_mem=512M",
            UP,
        ],
    },
    Way {
        name: "files missing",
        firmware: Firmware::UBoot,
        files: &[
            Krypton("none/krypton.efi"),
            Krypton("empty/krypton.efi"),
            Text("empty/krypton.cfg", "\n"),
            Krypton("section/krypton.efi"),
            Text(
                "section/krypton.cfg",
                "[global]\ndefault=gone\n[here]\nkernel=vmlinuz",
            ),
            Krypton("kernel/krypton.efi"),
            Text("kernel/krypton.cfg", "kernel=gone console=hvc0\n"),
            Krypton("ramdisk/krypton.efi"),
            Text(
                "ramdisk/krypton.cfg",
                "kernel=krypton.cfg\nramdisk=gone.gz\n",
            ),
            Krypton("tree/krypton.efi"),
            Text("tree/krypton.cfg", "kernel=krypton.cfg\ndtb=krypton.cfg\n"),
            Script(EACH_FOLDER),
        ],
        said: &[
            "Krypton: krypton.cfg: not found",
            "returned from none",
            "Krypton: krypton.cfg: no kernel in it",
            "returned from empty",
            "Krypton: krypton.cfg: no section of the name that default has",
            "returned from section",
            "Krypton: gone: not found",
            "returned from kernel",
            "Krypton: gone.gz: not found",
            "returned from ramdisk",
            "Krypton: krypton.cfg: no device tree",
            "returned from tree",
        ],
    },
    Way {
        name: "without HYP",
        firmware: Firmware::EdkWithoutHyp,
        files: &[Krypton("EFI/BOOT/BOOTARM.EFI"), Text("krypton.cfg", CONFIG)],
        said: &[
            "Krypton: needs HYP mode",
            "BdsDxe: failed to start*Unsupported",
            "UEFI Interactive Shell",
        ],
    },
];

/// Starts one way, and waits for what the console has to say.
pub fn test(way: &Way, options: &Options, echo: Echo) -> Result {
    let folder = ScratchFolder::new("uefi")?;
    build::tell_image(&build::krypton()?)?;
    let disk = way.disk(options, folder.path())?;
    let mut machine = uboot::machine(options, &[disk])?;
    if way.firmware == Firmware::EdkWithoutHyp {
        machine.start = Start::Firmware(project::uefi()?);
        machine.virtualization = false;
    }
    let mut session = Session::start(&machine, echo)?;
    for line in way.said {
        session.expect(line, options.timeout)?;
    }
    Ok(())
}

impl Way {
    /// Makes the disk. Builds the hypervisor.
    fn disk(&self, options: &Options, folder: &Path) -> Result<PathBuf> {
        let mut files = vec![
            (project::dom0_kernel()?, "vmlinuz".to_owned()),
            (project::dom0_initrd()?, "initrd.gz".to_owned()),
        ];
        for file in self.files {
            let made = match file {
                Krypton(name) => (build::krypton()?, (*name).to_owned()),
                Text(name, text) => {
                    let path = folder.join(name);
                    build::write(&path, text.as_bytes())?;
                    (path, (*name).to_owned())
                }
                Tree(name) => {
                    let path = folder.join(name);
                    faults::dump_tree(&uboot::machine(options, &[])?, &path)?;
                    build::run(Command::new("fdtput").args(["-t", "s"]).arg(&path).args([
                        "/",
                        "model",
                        "beside it",
                    ]))?;
                    (path, (*name).to_owned())
                }
                Script(text) => script(text, folder)?,
                BoardScript => {
                    // U-Boot starts only what it loaded last.
                    let text = uboot::source("virt.cmd")?
                        .replace("0x44000000 krypton.uImage", "0x44000000 krypton.efi")
                        .replace(
                            "bootm 0x44000000 - 0x",
                            "load ${devtype} ${devnum}:${distro_bootpart} 0x44000000 krypton.efi\n\
                             bootefi 0x44000000 0x",
                        );
                    script(&text, folder)?
                }
            };
            files.push(made);
        }
        let disk = folder.join("disk.img");
        disk::make(&disk, &files)?;
        Ok(disk)
    }
}

fn script(text: &str, folder: &Path) -> Result<(PathBuf, String)> {
    uboot::make_script(text, folder)?;
    Ok((folder.join("boot.scr"), "boot.scr".to_owned()))
}
