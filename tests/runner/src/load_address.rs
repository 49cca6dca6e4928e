//! The image at odd addresses: wherever a boot loader puts it in RAM, all CPUs must come up and dom0 be made.
//!
//! Each board has addresses that are also those of something in the hypervisor's own address space, that lie across blocks
//! of 2 MiB, and that touch the boot modules, the device tree or the ends of RAM.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::machine::Machine;
use crate::options::Options;
use crate::project::root;
use crate::session::{Echo, ScratchFolder, Session};
use crate::{Result, boards, build};

/// A board with 1 GiB of RAM, and where the image is put on it.
pub struct Places {
    /// None is `virt`.
    pub board: Option<&'static str>,
    cpus: u32,
    /// Where nothing else is.
    scratch: u32,
    addresses: &'static [u32],
}

pub const PLACES: [Places; 4] = [
    Places {
        board: None,
        cpus: 2,
        scratch: 0x6000_0000,
        addresses: &[
            0x4000_0000,
            0x4002_0000,
            0x401F_0000, // in two blocks
            0x47ED_0000, // before the device tree, and after it
            0x4810_0000,
            0x4FED_0000, // before the kernel, and after it
            0x5055_0000,
            0x5471_0000, // after the RAM disk
            0x7E01_0000, // where the image's own address is, in another GiB
            0x7FED_0000, // the end of RAM
        ],
    },
    Places {
        board: Some("midway"),
        cpus: 2,
        scratch: 0x2000_0000,
        addresses: &[
            0x0000_0000, // no null pointer
            0x001F_0000,
            0x0100_0000, // private memory: its first block, its second one, its end
            0x0120_0000,
            0x2FFF_0000,
            0x3C00_0000, // the device tree's window
            0x3D00_0000, // device registers
            0x3D20_0000, // single frames
            0x3DEF_0000, // across the image's own address
            0x3E00_0000, // the image's own address
            0x3E01_0000,
            0x3EED_0000,
            0x3FED_0000,
        ],
    },
    Places {
        board: Some("vexpress-a15"),
        cpus: 2,
        scratch: 0xA000_0000,
        addresses: &[0x8002_0000, 0xBE01_0000],
    },
    Places {
        board: Some("orangepi-pc"),
        cpus: 4,
        scratch: 0x6000_0000,
        addresses: &[0x4100_0000, 0x7E01_0000],
    },
];

/// Boots at each address, and tells all at which that failed.
pub fn test(places: &Places, options: &Options, echo: Echo) -> Result {
    let failures: Vec<_> = places
        .addresses
        .iter()
        .filter_map(|&address| {
            let reason = boot(places, address, options, echo).err()?;
            Some(format!("at {address:#x}: {reason}"))
        })
        .collect();
    match failures.is_empty() {
        true => Ok(()),
        false => Err(failures.join("\n")),
    }
}

fn boot(places: &Places, address: u32, options: &Options, echo: Echo) -> Result {
    let folder = ScratchFolder::new("load")?;
    let options = Options {
        board: places.board.map(boards::find).transpose()?,
        cpus: places.cpus,
        memory_mib: 1024,
        ..options.clone()
    };
    let mut machine = Machine::new(&options)?;
    // What follows the boot is tested elsewhere.
    machine.append += " dom0_mem=256M";
    machine.hypervisor = mover(&machine.hypervisor, address, places.scratch, folder.path())?;
    let mut session = Session::start(&machine, echo)?;
    for line in [
        &format!("Brought up {} CPUs", places.cpus),
        "Freed boot modules",
    ] {
        session.expect(line, options.timeout)?;
    }
    Ok(())
}

/// Makes the boot loader of mover.S, with the image in it.
fn mover(image: &Path, address: u32, scratch: u32, folder: &Path) -> Result<PathBuf> {
    let (elf, binary) = (folder.join("mover.elf"), folder.join("mover.bin"));
    build::run(
        Command::new("arm-linux-gnueabihf-gcc")
            .args(["-nostdlib", "-static", "-Wl,--build-id=none"])
            .arg(format!("-DHYPERVISOR={address:#x}"))
            .arg(format!("-DSCRATCH={scratch:#x}"))
            .arg(format!("-DIMAGE=\"{}\"", image.display()))
            .arg("-o")
            .arg(&elf)
            .arg(root().join("tests/runner/src/mover.S")),
    )?;
    build::run(
        Command::new("arm-linux-gnueabihf-objcopy")
            .args(["-O", "binary"])
            .args([&elf, &binary]),
    )?;
    Ok(binary)
}

#[cfg(test)]
mod tests {
    use super::PLACES;

    #[test]
    fn images_are_where_a_boot_loader_may_put_them() {
        for places in &PLACES {
            for address in places.addresses {
                assert!(address.is_multiple_of(0x1_0000), "{address:#x}");
                assert!(address.abs_diff(places.scratch) > 0x20_0000, "{address:#x}");
            }
        }
    }
}
