//! A disk with one FAT partition, as boot loaders of small boards read it.
//!
//! The partition starts far enough behind the partition table for boards whose own loaders lie between the two.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use crate::{Result, build};

/// Bytes of a sector, as FAT and the partition table count.
pub const SECTOR: u64 = 512;
/// Where the partition starts, in sectors: 4 MiB.
pub const FIRST_SECTOR: u32 = 8192;
/// FAT16 has at least 4085 clusters and FAT32 at least 65525; this many MiB make mformat choose one that all loaders know.
const SMALLEST_MIB: u64 = 48;
/// Room for the file system's own tables, and for files that are added by hand.
const SPARE_MIB: u64 = 16;
const MIB: u64 = 1 << 20;

/// Makes the disk image `disk` with `files` in its partition, each under a name, after the names of its folders.
pub fn make(disk: &Path, files: &[(PathBuf, String)]) -> Result {
    let mut bytes = 0;
    for (file, _) in files {
        bytes += size_of(file)?;
    }
    let sectors = (bytes.div_ceil(MIB) + SPARE_MIB).max(SMALLEST_MIB) * MIB / SECTOR;
    let sectors = u32::try_from(sectors).map_err(|_| "too much for one partition")?;
    let length = (u64::from(FIRST_SECTOR) + u64::from(sectors)) * SECTOR;

    let mut start = vec![0; SECTOR as usize];
    write_partition_table(&mut start, sectors);
    build::write(disk, &start)?;
    fs::OpenOptions::new()
        .write(true)
        .open(disk)
        .and_then(|file| file.set_len(length))
        .map_err(|error| cannot("make", disk, &error))?;

    let partition = format!("{}@@{}", disk.display(), u64::from(FIRST_SECTOR) * SECTOR);
    build::run(
        mtool("mformat", &partition)
            .args(["-T", &sectors.to_string()])
            .args(["-H", &FIRST_SECTOR.to_string(), "-v", "BOOT", "::"]),
    )?;
    for folder in folders(files) {
        build::run(mtool("mmd", &partition).arg(format!("::{folder}")))?;
    }
    for (file, name) in files {
        build::run(
            mtool("mcopy", &partition)
                .arg(file)
                .arg(format!("::{name}")),
        )?;
    }
    Ok(())
}

/// Returns the folders that files of these names are in, outer ones first.
fn folders(files: &[(PathBuf, String)]) -> BTreeSet<&str> {
    files
        .iter()
        .flat_map(|(_, name)| name.match_indices('/').map(|(end, _)| &name[..end]))
        .collect()
}

/// Returns the options that mtools want for an image without a configuration file. Its partition is no floppy: no checks of
/// geometry.
fn mtool(name: &str, partition: &str) -> Command {
    let mut command = Command::new(name);
    command
        .env("MTOOLS_SKIP_CHECK", "1")
        .args(["-i", partition]);
    command
}

/// Where the table is in the first sector, before the sector's mark.
const TABLE: Range<usize> = 446..510;
const MARK: [u8; 2] = [0x55, 0xaa];

/// Writes a table with one bootable FAT partition of so many sectors into a disk's first sector, and leaves the code before
/// the table alone.
pub fn write_partition_table(sector: &mut [u8], sectors: u32) {
    const BOOTABLE: u8 = 0x80;
    const FAT_BY_SECTOR_NUMBER: u8 = 0x0c;
    /// Beyond what cylinders, heads and sectors can say.
    const NO_GEOMETRY: [u8; 3] = [0xfe, 0xff, 0xff];

    let mut entry = vec![BOOTABLE];
    entry.extend(NO_GEOMETRY);
    entry.push(FAT_BY_SECTOR_NUMBER);
    entry.extend(NO_GEOMETRY);
    entry.extend(FIRST_SECTOR.to_le_bytes());
    entry.extend(sectors.to_le_bytes());
    entry.resize(TABLE.len(), 0);
    sector[TABLE].copy_from_slice(&entry);
    sector[TABLE.end..].copy_from_slice(&MARK);
}

/// Copies the table of one first sector into another, and leaves the code before it alone.
pub fn copy_partition_table(from: &[u8], to: &mut [u8]) {
    to[TABLE.start..].copy_from_slice(&from[TABLE.start..]);
}

fn size_of(file: &Path) -> Result<u64> {
    fs::metadata(file)
        .map(|data| data.len())
        .map_err(|error| cannot("read", file, &error))
}

fn cannot(what: &str, file: &Path, error: &io::Error) -> String {
    format!("cannot {what} {}: {error}", file.display())
}
