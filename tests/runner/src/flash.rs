//! Puts Krypton and dom0 on an SD card for a board that has U-Boot on it, into its NOR flash, or into a file to be copied
//! there.
//!
//! A card has the board's own loaders between the partition table and the first partition. They are not ours: on a device
//! only the table's entries and the partition's sectors are written. Nothing is written to a device that is in use, nor
//! anywhere without a yes where something is there already.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::disk::{self, FIRST_SECTOR, SECTOR};
use crate::options::Options;
use crate::session::ScratchFolder;
use crate::uboot::Board;
use crate::{Result, build};

/// Files on the card. The script prefers the image tree; the parts are for whoever deletes that.
pub const FILES: [&str; 6] = [
    "boot.scr",
    "krypton.itb",
    "krypton.uImage",
    "vmlinuz",
    "initrd.gz",
    "board.dtb",
];
/// The layout of a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// A partition behind the board's own loaders.
    Card,
    /// An image tree from the first block on.
    Nor,
}

const PARTITION_START: u64 = FIRST_SECTOR as u64 * SECTOR;

/// `flash BOARD DESTINATION`.
pub fn flash(options: &Options) -> Result {
    let [board, destination] = options.operands.as_slice() else {
        return Err("flash wants a board and a file or device: flash arndale card.img".into());
    };
    let board = Board::named(board)?;
    let (layout, instructions) = match options.nor {
        true => (Layout::Nor, board.nor_instructions()?),
        false => (Layout::Card, board.instructions()),
    };
    let target = Target::of(Path::new(destination), Path::new("/sys/class/block"))?;
    target.check_unused()?;
    let loaders = options.loaders.as_deref().map(|folder| {
        let loaders = board.loaders.filter(|_| layout == Layout::Card);
        match (loaders, &target) {
            (None, _) => Err(format!("{} has no loaders on a card", board.name)),
            (_, Target::Device { .. }) => {
                Err("--loaders is for a file; on a device, use dd".into())
            }
            (Some(loaders), _) => Ok((loaders, folder)),
        }
    });
    let loaders = loaders.transpose()?;
    if let Some(question) = target.question(layout) {
        println!("{question} Type yes to go on:");
        if !is_yes(&mut std::io::stdin().lock()) {
            return Err("nothing was written".into());
        }
    }
    let scratch = ScratchFolder::new("flash")?;
    let files = board.make(options, scratch.path())?;
    let image = match layout {
        Layout::Card => files.disk(&FILES)?,
        Layout::Nor => files.nor()?,
    };
    if let Some((loaders, folder)) = loaders {
        loaders.put(&image, folder)?;
    }
    target.write(&image, layout)?;
    println!(
        "{} is written, for {}.",
        target.path().display(),
        board.name
    );
    println!(
        "SHA-256 of dist/krypton: {}",
        build::sha256(&files.path("krypton"))?
    );
    if let (None, Layout::Card, Some(own)) = (loaders, layout, &board.loaders) {
        println!("{}", own.instructions(target.path()));
    }
    println!("{instructions}");
    Ok(())
}

/// The file or device that is written to.
#[derive(Debug)]
enum Target {
    NewFile(PathBuf),
    OldFile(PathBuf),
    Device {
        path: PathBuf,
        bytes: u64,
        /// Itself and its partitions.
        parts: Vec<Part>,
    },
}

/// A block device as the kernel names it.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    name: String,
    /// Major and minor, `8:17`.
    number: String,
    /// True if a mapper or RAID device is made of it.
    held: bool,
}

impl Target {
    /// `sysfs` is where the kernel lists block devices.
    fn of(path: &Path, sysfs: &Path) -> Result<Self> {
        let path = match path.canonicalize() {
            Ok(path) => path,
            Err(error) if error.kind() == ErrorKind::NotFound => return Self::new_file(path),
            Err(error) => return Err(format!("{}: {error}", path.display())),
        };
        let kind = fs::metadata(&path)
            .map_err(|error| format!("{}: {error}", path.display()))?
            .file_type();
        if kind.is_file() {
            return Ok(Self::OldFile(path));
        }
        if !kind.is_block_device() {
            return Err(format!("{} is neither a file nor a disk", path.display()));
        }
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let (bytes, parts) = whole_disk(&name, sysfs)?;
        Ok(Self::Device { path, bytes, parts })
    }

    /// Returns a file that is to be made; among devices that can only be a name that is wrong.
    fn new_file(path: &Path) -> Result<Self> {
        let folder = path.parent().and_then(|folder| folder.canonicalize().ok());
        let is_device = |folder: PathBuf| {
            folder.starts_with("/dev") && !folder.starts_with("/dev/shm") // the latter is a place for files
        };
        match folder.is_some_and(is_device) {
            true => Err(format!("there is no device {}", path.display())),
            false => Ok(Self::NewFile(path.to_owned())),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::NewFile(path) | Self::OldFile(path) | Self::Device { path, .. } => path,
        }
    }

    fn check_unused(&self) -> Result {
        let Self::Device { parts, .. } = self else {
            return Ok(());
        };
        let read = |path: &str| {
            fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))
        };
        match in_use(parts, &read("/proc/self/mountinfo")?, &read("/proc/swaps")?) {
            Some(reason) => Err(format!("{reason}; nothing was written")),
            None => Ok(()),
        }
    }

    /// Returns what to ask before writing; `None` where nothing can be lost.
    fn question(&self, layout: Layout) -> Option<String> {
        match self {
            Self::NewFile(_) => None,
            Self::OldFile(path) => Some(format!("{} will be overwritten.", path.display())),
            Self::Device { path, .. } if layout == Layout::Nor => Some(format!(
                "{} will be overwritten from its start.",
                path.display()
            )),
            Self::Device { path, bytes, parts } => Some(format!(
                "{} ({} MiB, {} partitions) loses its partitions; its first {} MiB stay, but for the partition table.",
                path.display(),
                bytes >> 20,
                parts.len() - 1,
                PARTITION_START >> 20,
            )),
        }
    }

    fn write(&self, image: &Path, layout: Layout) -> Result {
        let failed = |error| format!("cannot write {}: {error}", self.path().display());
        match self {
            Self::NewFile(path) | Self::OldFile(path) => {
                fs::copy(image, path).map(drop).map_err(failed)
            }
            Self::Device { path, bytes, .. } => {
                let mut image = File::open(image).map_err(failed)?;
                let length = image.metadata().map_err(failed)?.len();
                if length > *bytes {
                    return Err(format!(
                        "{} has {} MiB, and {} MiB are needed",
                        path.display(),
                        bytes >> 20,
                        length >> 20
                    ));
                }
                /// open(2): of a block device, fails if it or a part of it is in use.
                const O_EXCL: i32 = 0o200;
                OpenOptions::new()
                    .read(true)
                    .write(true)
                    .custom_flags(O_EXCL)
                    .open(path)
                    .and_then(|mut card| {
                        match layout {
                            Layout::Card => write_around_loaders(&mut image, &mut card)?,
                            Layout::Nor => drop(std::io::copy(&mut image, &mut card)?),
                        }
                        card.sync_all()
                    })
                    .map_err(failed)
            }
        }
    }
}

/// Copies the image's partition and its entry in the table, and nothing of what lies before and between them.
fn write_around_loaders(
    image: &mut (impl Read + Seek),
    card: &mut (impl Read + Write + Seek),
) -> std::io::Result<()> {
    let mut sector = [0; SECTOR as usize];
    image.seek(SeekFrom::Start(0))?;
    image.read_exact(&mut sector)?;
    let table = sector;
    card.seek(SeekFrom::Start(0))?;
    card.read_exact(&mut sector)?;
    disk::copy_partition_table(&table, &mut sector);
    // The table last: a card that was pulled out too early still has its old one.
    image.seek(SeekFrom::Start(PARTITION_START))?;
    card.seek(SeekFrom::Start(PARTITION_START))?;
    std::io::copy(image, card)?;
    card.seek(SeekFrom::Start(0))?;
    card.write_all(&sector)
}

/// Returns the size of a disk and its parts, itself first.
fn whole_disk(name: &str, sysfs: &Path) -> Result<(u64, Vec<Part>)> {
    let folder = sysfs.join(name);
    if folder.join("partition").exists() {
        return Err(format!(
            "{name} is a partition; name the whole disk, which has a partition table"
        ));
    }
    let value = |file: PathBuf| {
        fs::read_to_string(&file)
            .map(|text| text.trim().to_owned())
            .map_err(|error| format!("{}: {error}", file.display()))
    };
    let sectors: u64 = value(folder.join("size"))?
        .parse()
        .map_err(|_| format!("{name} has no size"))?;
    let part = |folder: &Path, name: &str| -> Result<Part> {
        Ok(Part {
            name: name.to_owned(),
            number: value(folder.join("dev"))?,
            held: fs::read_dir(folder.join("holders"))
                .is_ok_and(|mut holders| holders.next().is_some()),
        })
    };
    let mut parts = vec![part(&folder, name)?];
    let entries = fs::read_dir(&folder).map_err(|error| format!("{name}: {error}"))?;
    for entry in entries.filter_map(|entry| entry.ok()) {
        if entry.path().join("partition").exists() {
            parts.push(part(&entry.path(), &entry.file_name().to_string_lossy())?);
        }
    }
    Ok((sectors * 512, parts)) // sysfs counts in 512 bytes, whatever the disk does
}

/// Returns why a disk is in use, if it is: by proc_pid_mountinfo(5), /proc/swaps, and what is made of it.
fn in_use(parts: &[Part], mountinfo: &str, swaps: &str) -> Option<String> {
    for part in parts {
        let path = format!("/dev/{}", part.name);
        for line in mountinfo.lines() {
            let (mount, source) = line.split_once(" - ").unwrap_or((line, ""));
            let mut fields = mount.split(' ').skip(2);
            let (number, place) = (fields.next(), fields.nth(1));
            // Some file systems have numbers of their own, and then the source tells.
            if number == Some(&part.number) || source.split(' ').nth(1) == Some(&path) {
                return Some(format!("{path} is mounted on {}", place.unwrap_or("?")));
            }
        }
        if swaps
            .lines()
            .any(|line| line.split(' ').next() == Some(&path))
        {
            return Some(format!("{path} is swap space"));
        }
        if part.held {
            return Some(format!("{path} is part of another block device"));
        }
    }
    None
}

/// Only the whole word counts, and no answer is none.
fn is_yes(input: &mut impl BufRead) -> bool {
    let mut line = String::new();
    input.read_line(&mut line).is_ok() && line.trim() == "yes"
}

#[cfg(test)]
#[path = "flash_tests.rs"]
mod tests;
