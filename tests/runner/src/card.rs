//! The card of `make flash` in the board that it is made for, as QEMU has it: from the board's own loader, in secure state, by
//! U-Boot to HYP and to dom0's user space. The other CPUs come by the PSCI of U-Boot.

use std::fs::OpenOptions;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use crate::dom0::{self, UP};
use crate::machine::{Machine, Start};
use crate::options::Options;
use crate::session::{Echo, ScratchFolder, Session};
use crate::{Result, boards, build, disk, flash, project, uboot};

const BOARD: &str = "orangepi-pc";
const CPUS: u32 = 4;
/// Where an Allwinner's ROM looks for a loader on a card.
const LOADER_AT: u64 = 8 << 10;
/// QEMU's cards have a power of two.
const CARD_BYTES: u64 = 256 << 20;

pub fn test(options: &Options, echo: Echo) -> Result {
    let folder = ScratchFolder::new("card")?;
    let options = Options {
        board: Some(boards::find(BOARD)?),
        cpus: CPUS,
        ..options.clone()
    };
    let files = uboot::Board::named(BOARD)?.make(&options, folder.path())?;
    build::tell_image(&files.path("krypton"))?;
    let card = files.disk(&flash::FILES)?;
    add_loader(&card, &build::read(&project::uboot_of_orangepi()?)?)?;
    let mut machine = Machine::new(&options)?;
    machine.start = Start::Card(card);
    let mut session = Session::start(&machine, echo)?;
    for line in [
        "U-Boot SPL ",
        "Found U-Boot script /boot.scr",
        "(XEN) Platform: Xunlong Orange Pi PC",
        "(XEN) Brought up 4 CPUs",
        UP,
    ] {
        session.expect(line, options.timeout * dom0::LONGEST_CHECK)?;
    }
    Ok(())
}

/// Puts the board's loader where `flash` leaves room for it.
fn add_loader(card: &Path, loader: &[u8]) -> Result {
    if LOADER_AT + loader.len() as u64 > u64::from(disk::FIRST_SECTOR) * disk::SECTOR {
        return Err("the board's loader would lie over the partition".into());
    }
    OpenOptions::new()
        .write(true)
        .open(card)
        .and_then(|mut card| {
            card.set_len(CARD_BYTES)?;
            card.seek(SeekFrom::Start(LOADER_AT))?;
            card.write_all(loader)
        })
        .map_err(|error| format!("cannot write {}: {error}", card.display()))
}
