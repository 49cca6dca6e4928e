//! The image at odd addresses: wherever a boot loader puts it in RAM, all CPUs must come up and dom0 be made.
//!
//! Each board has addresses that are also those of something in the hypervisor's own address space, that lie across blocks
//! of 2 MiB, and that touch the boot modules, the device tree or the ends of RAM.

use std::path::{Path, PathBuf};

use Place::{At, Before};

use crate::machine::Machine;
use crate::options::Options;
use crate::session::{Echo, ScratchFolder, Session};
use crate::{Result, boards, build};

/// A board with 1 GiB of RAM, and where the image is put on it.
pub struct Places {
    /// None is `virt`.
    pub board: Option<&'static str>,
    cpus: u32,
    /// Where nothing else is.
    scratch: u32,
    addresses: &'static [Place],
}

/// Where the image is put.
enum Place {
    At(u32),
    /// So that its memory, what it clears included, ends where something else begins, or up to 64 KiB before.
    Before(u32),
}

impl Place {
    /// Returns the address for an image that needs so much memory.
    fn address(&self, memory: u32) -> u32 {
        match *self {
            Self::At(address) => address,
            Self::Before(end) => (end - memory) / ALIGNMENT * ALIGNMENT,
        }
    }
}

/// A load address is a multiple of these bytes.
const ALIGNMENT: u32 = 0x1_0000;

pub const PLACES: [Places; 4] = [
    Places {
        board: None,
        cpus: 2,
        scratch: 0x6000_0000,
        addresses: &[
            At(0x4000_0000),
            At(0x4002_0000),
            At(0x401F_0000),     // in two blocks
            Before(0x4800_0000), // the device tree, and behind it
            At(0x4810_0000),
            Before(0x5000_0000), // the kernel, and behind it
            At(0x5055_0000),
            At(0x5480_0000),     // behind the RAM disk
            At(0x7E01_0000),     // where the image's own address is, in another GiB
            Before(0x8000_0000), // the end of RAM
        ],
    },
    Places {
        board: Some("midway"),
        cpus: 2,
        scratch: 0x2000_0000,
        addresses: &[
            At(0x0000_0000), // no null pointer
            At(0x001F_0000),
            At(0x0100_0000), // private memory: its first block, its second one, its end
            At(0x0120_0000),
            At(0x2FFF_0000),
            At(0x3C00_0000), // the device tree's window
            At(0x3D00_0000), // device registers
            At(0x3D20_0000), // single frames
            At(0x3DEF_0000), // across the image's own address
            At(0x3E00_0000), // the image's own address
            At(0x3E01_0000),
            At(0x3EED_0000),
            Before(0x4000_0000), // the end of RAM
        ],
    },
    Places {
        board: Some("vexpress-a15"),
        cpus: 2,
        scratch: 0xA000_0000,
        addresses: &[At(0x8002_0000), At(0xBE01_0000)],
    },
    Places {
        board: Some("orangepi-pc"),
        cpus: 4,
        scratch: 0x6000_0000,
        addresses: &[At(0x4100_0000), At(0x7E01_0000)],
    },
];

/// Boots at each address, and tells all at which that failed.
pub fn test(places: &Places, options: &Options, echo: Echo) -> Result {
    let failures: Vec<_> = places
        .addresses
        .iter()
        .filter_map(|place| boot(places, place, options, echo).err())
        .collect();
    match failures.is_empty() {
        true => Ok(()),
        false => Err(failures.join("\n")),
    }
}

fn boot(places: &Places, place: &Place, options: &Options, echo: Echo) -> Result {
    let folder = ScratchFolder::new("load")?;
    let options = Options {
        board: places.board.map(boards::find).transpose()?,
        cpus: places.cpus,
        memory_mib: 1024,
        ..options.clone()
    };
    let mut machine = Machine::new(&options)?;
    // Stops after the boot; the rest is tested elsewhere.
    machine.append += " dom0_mem=256M";
    let address = place.address(memory_size(&build::read(&machine.hypervisor)?)?);
    machine.hypervisor = mover(&machine.hypervisor, address, places.scratch, folder.path())?;
    let mut session = Session::start(&machine, echo)?;
    for line in [
        &format!("Brought up {} CPUs", places.cpus),
        "Freed boot modules",
    ] {
        session
            .expect(line, options.timeout)
            .map_err(|reason| format!("at {address:#x}: {reason}"))?;
    }
    Ok(())
}

/// Returns the bytes that an image needs in memory, what it clears included: SizeOfImage of its PE header, whose place is at
/// 0x3C.
fn memory_size(image: &[u8]) -> Result<u32> {
    const SIZE_OF_IMAGE: usize = 24 + 56;
    let word = |at: usize| {
        let bytes = image.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    word(0x3C)
        .and_then(|header| word(header as usize + SIZE_OF_IMAGE))
        .ok_or_else(|| "the image has no PE header".into())
}

/// Makes the boot loader of mover.S, with the image in it.
fn mover(image: &Path, address: u32, scratch: u32, folder: &Path) -> Result<PathBuf> {
    let options = [
        format!("-DHYPERVISOR={address:#x}"),
        format!("-DSCRATCH={scratch:#x}"),
        format!("-DIMAGE=\"{}\"", image.display()),
    ];
    build::assemble("mover.S", &options, folder)
}

#[cfg(test)]
mod tests {
    use super::{ALIGNMENT, PLACES, memory_size};

    #[test]
    fn images_are_where_a_boot_loader_may_put_them() {
        const MEMORY: u32 = 0x16_6000;
        for places in &PLACES {
            for place in places.addresses {
                let address = place.address(MEMORY);
                assert!(address.is_multiple_of(ALIGNMENT), "{address:#x}");
                assert!(address.abs_diff(places.scratch) > 0x20_0000, "{address:#x}");
            }
        }
    }

    #[test]
    fn the_pe_header_tells_how_much_memory_an_image_needs() {
        let mut image = vec![0; 0x100];
        image[0x3C] = 0x40;
        image[0x40 + 80..][..4].copy_from_slice(&0x16_6000_u32.to_le_bytes());
        assert_eq!(memory_size(&image), Ok(0x16_6000));
        assert!(memory_size(&image[..0x60]).is_err());
    }
}
