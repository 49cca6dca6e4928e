//! Where things are: the clone, and the cache that the set-up scripts fill.

use std::path::{Path, PathBuf};

use crate::Result;

/// The hypervisor's target: Thumb code takes a quarter less than Arm code.
pub const TARGET: &str = "thumbv7a-none-eabi";
/// The test guests' target. They are Arm code, as Debian's kernel is.
pub const GUEST_TARGET: &str = "armv7a-none-eabi";

/// Returns the top folder of the clone.
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Returns the names of the programs whose sources are in a folder below the top one, sorted.
pub fn programs_in(folder: &str) -> Result<Vec<String>> {
    let folder = root().join(folder);
    let entries = std::fs::read_dir(&folder)
        .map_err(|error| format!("cannot read {}: {error}", folder.display()))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.path().file_stem()?.to_str().map(String::from))
        .collect();
    names.sort();
    Ok(names)
}

/// Returns a file below the top folder that a set-up step makes.
pub fn made_by_setup(path: PathBuf) -> Result<PathBuf> {
    if path.exists() {
        Ok(path)
    } else {
        Err(format!("{} is missing: run `make setup`", path.display()))
    }
}

pub fn dom0_kernel() -> Result<PathBuf> {
    made_by_setup(root().join("target/dom0/vmlinuz"))
}

pub fn dom0_initrd() -> Result<PathBuf> {
    made_by_setup(root().join("target/dom0/initrd.gz"))
}

/// Returns the file system with what domUs are made of.
pub fn guests_volume() -> Result<PathBuf> {
    made_by_setup(root().join("target/guests/guests.img"))
}

/// Returns a domU's initial RAM disk.
pub fn guests_initrd() -> Result<PathBuf> {
    made_by_setup(root().join("target/guests/initrd.gz"))
}

/// Returns the disk that a domU gets, with an empty file system.
pub fn data_disk() -> Result<PathBuf> {
    made_by_setup(root().join("target/guests/data.img"))
}

/// Returns the disk with programs that put load on a domU.
pub fn tools_disk() -> Result<PathBuf> {
    made_by_setup(root().join("target/guests/tools.img"))
}

/// Debian's own hypervisor, to compare with.
pub fn debian_xen() -> Result<PathBuf> {
    made_by_setup(cache()?.join("debian/root/boot/xen-4.17-armhf"))
}

/// Returns the folder with the device trees of Debian's kernel package.
pub fn debian_trees() -> Result<PathBuf> {
    let lib = made_by_setup(cache()?.join("debian/root/usr/lib"))?;
    let entries = std::fs::read_dir(&lib).map_err(|error| format!("{}: {error}", lib.display()))?;
    let folders = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut images: Vec<PathBuf> = folders
        .filter(|path| {
            path.file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with("linux-image-"))
        })
        .collect();
    images.sort();
    images
        .pop()
        .ok_or_else(|| "no device trees: run `make setup`".into())
}

/// Debian's U-Boot for QEMU's `virt` board.
pub fn uboot() -> Result<PathBuf> {
    made_by_setup(cache()?.join("u-boot/virt.bin"))
}

/// Returns Debian's U-Boot for a board, by the name that tests/setup/uboot.sh gives it.
pub fn uboot_for(name: &str) -> Result<PathBuf> {
    made_by_setup(cache()?.join("u-boot").join(name))
}

/// Returns a board's device tree out of Debian's kernel package.
pub fn board_tree(name: &str) -> Result<PathBuf> {
    let folder = cache()?.join("debian/root/usr/lib");
    let trees = std::fs::read_dir(&folder)
        .map_err(|error| format!("{}: {error}: run `make setup`", folder.display()))?;
    trees
        .filter_map(|entry| Some(entry.ok()?.path().join(name)))
        .find(|path| path.exists())
        .ok_or_else(|| format!("Debian's kernel package has no {name}"))
}

/// Debian's 32-bit UEFI firmware for QEMU's `virt` board.
pub fn uefi() -> Result<PathBuf> {
    made_by_setup(cache()?.join("uefi/virt.fd"))
}

/// Returns the same folder as in tests/setup/lib.sh.
fn cache() -> Result<PathBuf> {
    let variable = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    variable("KRYPTON_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|folder| folder.join("krypton")))
        .or_else(|| variable("HOME").map(|folder| folder.join(".cache/krypton")))
        .ok_or_else(|| "neither KRYPTON_CACHE nor HOME is set".into())
}
