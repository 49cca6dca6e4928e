//! Makes the files that U-Boot reads from boot/uboot for each board (docs/uboot.md). uboot_ways.rs tries them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::dom0;
use crate::loaders::{Loaders, Part};
use crate::machine::{Machine, Start};
use crate::options::Options;
use crate::project::{self, root};
use crate::session::ScratchFolder;
use crate::{Result, build, disk, faults, image};

/// A board that U-Boot starts Krypton on.
#[derive(Clone, Copy, Debug)]
pub struct Board {
    pub name: &'static str,
    /// Where RAM begins.
    ram: u32,
    tree: Tree,
    /// Krypton's command line in an image tree.
    xen: &'static str,
    /// Its script in boot/uboot.
    script: &'static str,
    /// Its own loaders, where they are on the card.
    pub loaders: Option<Loaders>,
    /// Where the board has NOR flash for an image tree.
    nor: Option<u32>,
}

/// Where a board's device tree comes from.
#[derive(Clone, Copy, Debug)]
enum Tree {
    /// QEMU's for `virt`.
    Qemu,
    /// Debian's kernel package has it under this name.
    Debian(&'static str),
}

pub static BOARDS: [Board; 12] = [
    Board {
        name: "virt",
        ram: 0x4000_0000,
        tree: Tree::Qemu,
        xen: "console=dtuart dtuart=/pl011@9000000 dom0_mem=512M",
        script: "virt.cmd",
        loaders: None,
        nor: None,
    },
    Board {
        name: "arndale",
        ram: 0x4000_0000,
        tree: Tree::Debian("exynos5250-arndale.dtb"),
        xen: "console=dtuart dtuart=serial2 dom0_mem=512M",
        script: CARD,
        loaders: Some(Loaders {
            from: "Samsung (bl1.bin, signed) and /usr/lib/u-boot/arndale of u-boot-exynos",
            parts: &[
                Part {
                    file: "bl1.bin",
                    sector: 1,
                },
                Part {
                    file: "arndale-spl.bin",
                    sector: 17,
                },
                Part {
                    file: "u-boot.bin",
                    sector: 49,
                },
            ],
        }),
        nor: None,
    },
    Board {
        name: "bananapi",
        ram: 0x4000_0000,
        tree: Tree::Debian("sun7i-a20-bananapi.dtb"),
        xen: "console=dtuart dtuart=serial0 dom0_mem=512M",
        script: CARD,
        loaders: Some(Loaders::allwinner(
            "/usr/lib/u-boot/Bananapi of u-boot-sunxi",
        )),
        nor: None,
    },
    Board {
        name: "beagleboard-x15",
        ram: 0x8000_0000,
        tree: Tree::Debian("am57xx-beagle-x15.dtb"),
        xen: "console=dtuart dtuart=serial2 dom0_mem=512M",
        script: CARD,
        loaders: Some(Loaders {
            from: "/usr/lib/u-boot/am57xx_evm of u-boot-omap",
            parts: &[
                Part {
                    file: "MLO",
                    sector: 256,
                },
                Part {
                    file: "u-boot.img",
                    sector: 768,
                },
            ],
        }),
        nor: None,
    },
    Board {
        name: "bpi-m2-berry",
        ram: 0x4000_0000,
        tree: Tree::Debian("sun8i-v40-bananapi-m2-berry.dtb"),
        xen: "console=dtuart dtuart=serial0 dom0_mem=512M",
        script: CARD,
        loaders: Some(Loaders::allwinner(
            "/usr/lib/u-boot/bananapi_m2_berry of u-boot-sunxi",
        )),
        nor: None,
    },
    Board {
        name: "bpi-m2-ultra",
        ram: 0x4000_0000,
        tree: Tree::Debian("sun8i-r40-bananapi-m2-ultra.dtb"),
        xen: "console=dtuart dtuart=serial0 dom0_mem=512M",
        script: CARD,
        loaders: Some(Loaders::allwinner(
            "/usr/lib/u-boot/Bananapi_M2_Ultra of u-boot-sunxi",
        )),
        nor: None,
    },
    Board {
        name: "cubietruck",
        ram: 0x4000_0000,
        tree: Tree::Debian("sun7i-a20-cubietruck.dtb"),
        xen: "console=dtuart dtuart=serial0 dom0_mem=512M",
        script: CARD,
        loaders: Some(Loaders::allwinner(
            "/usr/lib/u-boot/Cubietruck of u-boot-sunxi",
        )),
        nor: None,
    },
    Board {
        name: "imx7",
        ram: 0x8000_0000,
        tree: Tree::Debian("imx7d-sdb.dtb"),
        xen: "console=dtuart dtuart=serial0 dom0_mem=512M",
        script: CARD,
        loaders: Some(Loaders {
            from: "U-Boot's mx7dsabresd_defconfig; Debian has none",
            parts: &[Part {
                file: "u-boot-dtb.imx",
                sector: 2,
            }],
        }),
        nor: None,
    },
    // Its loader is in eMMC, put there over USB.
    Board {
        name: "jetson-tk1",
        ram: 0x8000_0000,
        tree: Tree::Debian("tegra124-jetson-tk1.dtb"),
        xen: "console=dtuart dtuart=serial0 dom0_mem=512M",
        script: CARD,
        loaders: None,
        nor: None,
    },
    Board {
        name: "odroid-xu4",
        ram: 0x4000_0000,
        tree: Tree::Debian("exynos5422-odroidxu4.dtb"),
        xen: "console=dtuart dtuart=serial2 dom0_mem=512M",
        script: CARD,
        loaders: Some(Loaders {
            from: "Hardkernel (signed) and /usr/lib/u-boot/odroid-xu3 of u-boot-exynos",
            parts: &[
                Part {
                    file: "bl1.bin",
                    sector: 1,
                },
                Part {
                    file: "bl2.bin",
                    sector: 31,
                },
                Part {
                    file: "u-boot.bin",
                    sector: 63,
                },
                Part {
                    file: "tzsw.bin",
                    sector: 2111,
                },
            ],
        }),
        nor: None,
    },
    Board {
        name: "orangepi-pc",
        ram: 0x4000_0000,
        tree: Tree::Debian("sun8i-h3-orangepi-pc.dtb"),
        xen: "console=dtuart dtuart=serial0 dom0_mem=512M",
        script: CARD,
        loaders: Some(Loaders::allwinner(
            "U-Boot's orangepi_pc_defconfig; Debian has none",
        )),
        nor: None,
    },
    Board {
        name: "vexpress",
        ram: 0x8000_0000,
        tree: Tree::Debian("vexpress-v2p-ca15_a7.dtb"),
        xen: "console=dtuart dtuart=serial0 dom0_mem=384M",
        script: "vexpress.cmd",
        loaders: None,
        // NOR1 by the memory map of ARM DUI 0447; U-Boot itself is in NOR0.
        nor: Some(0x0c00_0000),
    },
];

/// The script of boards that start from a card.
const CARD: &str = "card.cmd";
const DOM0: &str = "console=hvc0 earlycon=xenboot";
/// Where `bootm` copies Krypton to, from the beginning of RAM (boot/uboot/krypton.its).
const LOAD_OFFSET: u32 = 0x0100_0000;

/// Offsets from the beginning of RAM that a script names: the tree, Krypton, dom0's kernel and RAM disk, the image tree.
const SCRIPT_OFFSETS: [u32; 5] = [
    0x0300_0000,
    0x0400_0000,
    0x0800_0000,
    0x0c00_0000,
    0x2000_0000,
];

/// Where the script is loaded by hand: clear of all that it loads.
const SCRIPT_OFFSET: u32 = 0x1000_0000;

/// Bytes that this NOR flash erases at once, and how many such blocks it has before the small ones at its end.
const NOR_BLOCK: usize = 256 << 10;
const NOR_BLOCKS: usize = 255;

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

    /// The board, with QEMU's `virt` in its place: its files then start there.
    pub fn on_virt(&self) -> Self {
        Self {
            tree: Tree::Qemu,
            ..*self
        }
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
        make_script(&self.script()?, folder)?;
        Ok(Files(folder.to_owned()))
    }

    /// Returns what to do with a disk that has the board's files on it.
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

    /// Returns what to do with an image of the board's NOR flash.
    pub fn nor_instructions(&self) -> Result<String> {
        let address = self.nor_address()?;
        Ok(format!(
            "Copy it to the board's configuration card as SOFTWARE/KRYPTON.BIN, and have the board program it: in \
             SITE1/HBI0249A/images.txt add one to TOTALIMAGES, and with the next free number in the place of 9\n\
             \x20   NOR9UPDATE: AUTO\n\
             \x20   NOR9ADDRESS: {address:#010x}\n\
             \x20   NOR9FILE: \\SOFTWARE\\KRYPTON.BIN\n\
             Then, at U-Boot's prompt:\n\
             \x20   {}\n\
             To have that done at each start: setenv bootcmd with these commands in quotes, and saveenv.",
            nor_commands(address)
        ))
    }

    /// Returns where the board's NOR flash is.
    pub fn nor_address(&self) -> Result<u32> {
        self.nor
            .ok_or_else(|| format!("{} has no NOR flash that an image tree is for", self.name))
    }

    /// Returns the board's device tree, and the same with the modules in it.
    fn make_tree(&self, options: &Options, folder: &Path) -> Result {
        let tree = folder.join("board.dtb");
        match self.tree {
            Tree::Qemu => {
                faults::dump_tree(&machine(options, &[])?, &tree)?;
                self.name_console(&tree)?;
            }
            Tree::Debian(name) => build::write(&tree, &build::read(&project::board_tree(name)?)?)?,
        }
        let kernel_size = build::read(&folder.join("vmlinuz"))?.len();
        let overlay = self
            .filled("modules.dtso")?
            .replace("@XEN@", self.xen)
            .replace("@DOM0@", DOM0)
            .replace("@KERNEL_SIZE@", &format!("{kernel_size:#x}"));
        let overlay = faults::compile(&overlay, &folder.join("overlay"))?;
        build::run(
            Command::new("fdtoverlay")
                .arg("-i")
                .arg(&tree)
                .arg("-o")
                .args([&folder.join("modules.dtb"), &overlay]),
        )
    }

    /// Gives QEMU's UART the name by which the board's command line knows its console, if that is an alias.
    fn name_console(&self, tree: &Path) -> Result {
        let words = self.xen.split(' ');
        let mut consoles = words.filter_map(|word| word.strip_prefix("dtuart="));
        match consoles.find(|console| !console.starts_with('/')) {
            Some(alias) => build::run(
                Command::new("fdtput")
                    .args(["-p", "-t", "s"])
                    .arg(tree)
                    .args(["/aliases", alias, "/pl011@9000000"]),
            ),
            None => Ok(()),
        }
    }

    fn make_image_tree(&self, folder: &Path) -> Result {
        build::write(
            &folder.join("krypton.its"),
            self.filled("krypton.its")?.as_bytes(),
        )?;
        quietly(mkimage(folder).args(["-f", "krypton.its", "krypton.itb"]))
    }

    /// Returns the text of the board's script.
    fn script(&self) -> Result<String> {
        let mut text = source(self.script)?
            .replace("@XEN@", self.xen)
            .replace("@DOM0@", DOM0);
        for offset in SCRIPT_OFFSETS {
            let address = format!("{:08x}", self.ram + offset);
            text = text.replace(&format!("@{offset:08x}@"), &address);
        }
        Ok(text)
    }

    /// Returns a source of boot/uboot with this board's numbers in it.
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

    /// Makes what is in NOR flash, the image tree in whole blocks, and says where it is.
    pub fn nor(&self) -> Result<PathBuf> {
        let nor = self.path("nor.img");
        build::write(
            &nor,
            &in_nor_blocks(build::read(&self.path("krypton.itb"))?)?,
        )?;
        Ok(nor)
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

/// Fills the last block with what erased flash holds.
fn in_nor_blocks(mut image: Vec<u8>) -> Result<Vec<u8>> {
    const ERASED: u8 = 0xff;
    let blocks = image.len().div_ceil(NOR_BLOCK);
    if blocks > NOR_BLOCKS {
        return Err(format!(
            "the image tree needs {blocks} blocks of NOR flash, and there are {NOR_BLOCKS}"
        ));
    }
    image.resize(blocks * NOR_BLOCK, ERASED);
    Ok(image)
}

/// Returns what to type to start an image tree in NOR flash.
pub fn nor_commands(address: u32) -> String {
    format!("setenv fdt_high 0xffffffff; setenv initrd_high 0xffffffff; bootm {address:#x}")
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

pub fn mkimage(folder: &Path) -> Command {
    let mut command = Command::new("mkimage");
    // Equal input gives equal output.
    command.current_dir(folder).env("SOURCE_DATE_EPOCH", "0");
    command
}

/// Runs a program that says much when all is well, and shows what it said when not.
pub fn quietly(command: &mut Command) -> Result {
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

/// Returns a source of boot/uboot.
pub fn source(name: &str) -> Result<String> {
    let path = root().join("boot/uboot").join(name);
    fs::read_to_string(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::{BOARDS, Board, NOR_BLOCK, NOR_BLOCKS, in_nor_blocks};
    use crate::uboot_ways::NOT_STARTED;

    #[test]
    fn a_board_is_found_by_its_name_and_the_others_are_told() {
        assert_eq!(Board::named("arndale").unwrap().name, "arndale");
        let error = Board::named("mustang").unwrap_err();
        assert!(error.contains("virt, arndale, bananapi, "), "{error}");
    }

    #[test]
    fn the_places_in_each_script_are_those_of_the_image_tree() {
        for board in &BOARDS {
            let script = board.script().unwrap();
            for left in ["0x@", "@@", "@XEN@", "@DOM0@"] {
                assert!(!script.contains(left), "{script}");
            }
            let image_tree = board.filled("krypton.its").unwrap();
            assert!(!image_tree.replace("@RAM@ +", "").contains("@RAM@ "));
            for offset in [0x0800_0000, 0x0c00_0000] {
                assert!(image_tree.contains(&format!("({:#x} + {offset:#010x})", board.ram)));
                assert!(script.contains(&format!("module@{:x}", board.ram + offset)));
            }
            assert!(script.contains(&format!("bootm {:#x}\n", board.ram + 0x2000_0000)));
            assert!(script.contains(&format!("xen,xen-bootargs \"{}\"", board.xen)));
            assert!(script.contains(super::DOM0) && script.contains(NOT_STARTED));
        }
    }
    #[test]
    fn an_image_of_nor_flash_is_whole_blocks_and_fits() {
        let image = in_nor_blocks(vec![1; NOR_BLOCK + 1]).unwrap();
        assert_eq!(image.len(), 2 * NOR_BLOCK);
        assert_eq!((image[NOR_BLOCK], image[NOR_BLOCK + 1]), (1, 0xff));
        assert!(in_nor_blocks(vec![0; NOR_BLOCK * NOR_BLOCKS]).is_ok());
        let error = in_nor_blocks(vec![0; NOR_BLOCK * NOR_BLOCKS + 1]).unwrap_err();
        assert!(error.contains("256 blocks"), "{error}");
    }

    #[test]
    fn only_a_board_with_nor_flash_has_instructions_for_it() {
        let vexpress = Board::named("vexpress").unwrap();
        let text = vexpress.nor_instructions().unwrap();
        assert!(text.contains("NOR9ADDRESS: 0x0c000000") && text.contains("bootm 0xc000000"));
        let error = Board::named("arndale")
            .unwrap()
            .nor_instructions()
            .unwrap_err();
        assert!(error.contains("arndale"), "{error}");
    }
}
