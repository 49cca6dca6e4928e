//! The ways through U-Boot to dom0, and what it must not start, tried on QEMU's `virt` board with Debian's U-Boot.

use std::fs::OpenOptions;
use std::path::Path;
use std::process::Command;

use crate::dom0::UP;
use crate::options::Options;
use crate::session::{Echo, ScratchFolder, Session};
use crate::uboot::{Board, Files, machine, make_script, mkimage, nor_commands, quietly, source};
use crate::{Result, build};

/// A way to start Krypton by U-Boot.
pub struct Way {
    pub name: &'static str,
    files: &'static [&'static str],
    /// Changes the script of the board.
    script: fn(&str) -> String,
    /// U-Boot's lines on the way.
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

/// Boards whose scripts and image trees run on `virt`, which has RAM where they have, and whose loaders no emulator has.
pub const STOOD_IN_FOR: [&str; 2] = ["arndale", "vexpress"];
/// RAM of `virt` from 1 to 4 GiB, in MiB: its own places and those of boards whose RAM is at 2 GiB.
const RAM_FOR_ALL: u32 = 3072;

/// Runs a board's own script, as it is on the board's card, on `virt`.
pub fn runs_script_of(board: &str, options: &Options, echo: Echo) -> Result {
    let folder = ScratchFolder::new("uboot")?;
    let options = with_ram_for_all(options);
    let files = Board::named(board)?
        .on_virt()
        .make(&options, folder.path())?;
    build::tell_image(&files.path("krypton"))?;
    let names = [
        "boot.scr",
        "krypton.uImage",
        "vmlinuz",
        "initrd.gz",
        "board.dtb",
    ];
    Session::start(&machine(&options, &[files.disk(&names)?])?, echo)?
        .expect(UP, options.timeout)
        .map(drop)
}

/// Where `virt` has its second flash, and its size.
const FLASH_OF_VIRT: u32 = 0x0400_0000;
const FLASH_OF_VIRT_BYTES: u64 = 64 << 20;

/// Starts what `make flash` makes for the NOR flash of a Versatile Express, out of the flash of `virt`, by what it says to
/// type.
pub fn starts_from_nor(options: &Options, echo: Echo) -> Result {
    let folder = ScratchFolder::new("uboot")?;
    let options = with_ram_for_all(options);
    let files = Board::named("vexpress")?
        .on_virt()
        .make(&options, folder.path())?;
    build::tell_image(&files.path("krypton"))?;
    let nor = files.nor()?;
    OpenOptions::new()
        .write(true)
        .open(&nor)
        .and_then(|file| file.set_len(FLASH_OF_VIRT_BYTES))
        .map_err(|error| format!("cannot lengthen {}: {error}", nor.display()))?;
    make_script(&nor_commands(FLASH_OF_VIRT), folder.path())?;
    let mut machine = machine(&options, &[files.disk(&["boot.scr"])?])?;
    machine.flash = Some(nor);
    let mut session = Session::start(&machine, echo)?;
    session.wait_for(
        &["## Loading kernel from FIT Image at 04000000"],
        options.timeout,
    )?;
    session.expect(UP, options.timeout).map(drop)
}

fn with_ram_for_all(options: &Options) -> Options {
    Options {
        memory_mib: RAM_FOR_ALL,
        ..options.clone()
    }
}

/// U-Boot's line when it goes on after the script.
pub const NOT_STARTED: &str = "Krypton was not started";

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

/// Checks that a U-Boot that has a key starts what is signed with it, and nothing else: not the same files unsigned, not with
/// another command line and good hashes.
pub fn wants_signature(options: &Options, echo: Echo) -> Result {
    let folder = ScratchFolder::new("uboot")?;
    let files = Board::named("virt")?.make(options, folder.path())?;
    build::tell_image(&files.path("krypton"))?;
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

/// Returns a key pair under the name that the image tree hints at.
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
    use super::{damage, with_ramdisk_of_uboot};
    use crate::uboot::source;

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
