//! The board's own loaders on a card: where its boot ROM looks for them, between the partition table and the partition.
//!
//! They come from Debian's U-Boot packages or from the board's vendor, and are put there as they are.

use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use crate::Result;
use crate::disk::{FIRST_SECTOR, SECTOR};

/// The loaders of a board.
#[derive(Clone, Copy, Debug)]
pub struct Loaders {
    /// The folder that they are in once Debian's package is installed, or who has them.
    pub from: &'static str,
    /// The files, in their order on the card.
    pub parts: &'static [Part],
}

/// A loader's file, and the sector of the card that it begins at.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    pub file: &'static str,
    pub sector: u32,
}

impl Loaders {
    /// Allwinner's ROM looks at 8 KiB for U-Boot with its SPL in front.
    pub const fn allwinner(from: &'static str) -> Self {
        Self {
            from,
            parts: &[Part {
                file: "u-boot-sunxi-with-spl.bin",
                sector: 16,
            }],
        }
    }

    /// Puts the loaders of a folder into the image of a card.
    pub fn put(&self, card: &Path, folder: &Path) -> Result {
        for (index, part) in self.parts.iter().enumerate() {
            let file = folder.join(part.file);
            let bytes = fs::read(&file)
                .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
            let next = self.parts.get(index + 1);
            let end = u64::from(next.map_or(FIRST_SECTOR, |next| next.sector)) * SECTOR;
            let at = u64::from(part.sector) * SECTOR;
            if at + bytes.len() as u64 > end {
                let over = next.map_or("the partition", |next| next.file);
                return Err(format!("{} would lie over {over}", file.display()));
            }
            OpenOptions::new()
                .write(true)
                .open(card)
                .and_then(|mut card| {
                    card.seek(SeekFrom::Start(at))?;
                    card.write_all(&bytes)
                })
                .map_err(|error| format!("cannot write {}: {error}", card.display()))?;
        }
        Ok(())
    }

    /// Returns how to put the loaders on a card by hand.
    pub fn instructions(&self, card: &Path) -> String {
        let mut lines = format!("The board's loaders, from {}:", self.from);
        for part in self.parts {
            lines += &format!(
                "\n    dd conv=fsync,notrunc if={} of={} seek={}",
                part.file,
                card.display(),
                part.sector
            );
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{Loaders, Part};
    use crate::disk::{FIRST_SECTOR, SECTOR};
    use crate::session::ScratchFolder;
    use crate::uboot::BOARDS;

    const TWO: Loaders = Loaders {
        from: "a package",
        parts: &[
            Part {
                file: "first",
                sector: 2,
            },
            Part {
                file: "second",
                sector: 4,
            },
        ],
    };

    #[test]
    fn loaders_are_in_order_behind_the_table_and_before_the_partition() {
        for loaders in BOARDS.iter().filter_map(|board| board.loaders) {
            let mut free = 1;
            for part in loaders.parts {
                assert!(
                    part.sector >= free && part.sector < FIRST_SECTOR,
                    "{part:?}"
                );
                free = part.sector + 1;
            }
        }
    }

    #[test]
    fn each_loader_gets_its_place_and_nothing_else_changes() {
        let folder = ScratchFolder::new("loaders").unwrap();
        let card = folder.path().join("card");
        fs::write(&card, vec![0xee; 4096]).unwrap();
        fs::write(folder.path().join("first"), [1; 1024]).unwrap();
        fs::write(folder.path().join("second"), [2; 10]).unwrap();
        TWO.put(&card, folder.path()).unwrap();
        let bytes = fs::read(&card).unwrap();
        assert_eq!(bytes[..1024], [0xee; 1024]);
        assert_eq!(bytes[1024..2048], [1; 1024]);
        assert_eq!(bytes[2048..2058], [2; 10]);
        assert_eq!(bytes[2058..], [0xee; 2038]);
    }

    #[test]
    fn a_loader_that_is_missing_or_too_long_is_named() {
        let folder = ScratchFolder::new("loaders").unwrap();
        let put = || {
            TWO.put(&folder.path().join("card"), folder.path())
                .unwrap_err()
        };
        assert!(put().contains("first: "), "{}", put());
        fs::write(folder.path().join("card"), []).unwrap();
        fs::write(folder.path().join("first"), [1; 1025]).unwrap();
        assert!(put().ends_with("first would lie over second"), "{}", put());
        fs::write(folder.path().join("first"), [1; 1]).unwrap();
        let room = u64::from(FIRST_SECTOR - 4) * SECTOR;
        fs::write(folder.path().join("second"), vec![2; room as usize + 1]).unwrap();
        assert!(
            put().ends_with("second would lie over the partition"),
            "{}",
            put()
        );
    }

    #[test]
    fn what_to_type_names_each_file_and_its_sector() {
        let text = TWO.instructions(Path::new("/dev/sdX"));
        assert!(text.contains("from a package:"), "{text}");
        assert!(text.contains("if=second of=/dev/sdX seek=4"), "{text}");
    }
}
