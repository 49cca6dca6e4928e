//! The cards of `make flash` in the boards that they are made for, as QEMU has these: from the board's own loader, in secure
//! state, by U-Boot to HYP and to dom0's user space. The other CPUs come by the PSCI of U-Boot.

use std::fs::OpenOptions;

use crate::dom0::{self, UP};
use crate::machine::{Machine, Start};
use crate::options::Options;
use crate::session::{Echo, ScratchFolder, Session};
use crate::{Result, boards, build, flash, project, uboot};

/// A board with a card.
pub struct Card {
    /// The board's name for `make flash`.
    pub board: &'static str,
    /// QEMU's board.
    machine: &'static str,
    /// Debian's U-Boot for it in the cache folder.
    loader: &'static str,
    /// The board's name in its tree.
    platform: &'static str,
    /// CPUs that come up in QEMU.
    cpus: u32,
}

/// The card of `make test`.
pub const ORANGEPI_PC: Card = Card {
    board: "orangepi-pc",
    machine: "orangepi-pc",
    loader: "orangepi.bin",
    platform: "Xunlong Orange Pi PC",
    cpus: CPUS,
};

/// The card of `make soak`. QEMU does not have the R40's CPUCFG, by which U-Boot's PSCI starts the other CPUs.
pub const BPI_M2_ULTRA: Card = Card {
    board: "bpi-m2-ultra",
    machine: "bpim2u",
    loader: "bpi-m2-ultra.bin",
    platform: "Banana Pi BPI-M2-Ultra",
    cpus: 1,
};

/// CPUs of the boards.
const CPUS: u32 = 4;
/// QEMU's cards have a power of two.
const CARD_BYTES: u64 = 256 << 20;

/// Boots from the card to dom0's user space.
pub fn test(card: &Card, options: &Options, echo: Echo) -> Result {
    let folder = ScratchFolder::new("card")?;
    let options = Options {
        board: Some(boards::find(card.machine)?),
        cpus: CPUS,
        ..options.clone()
    };
    let board = uboot::Board::named(card.board)?;
    let files = board.make(&options, folder.path())?;
    build::tell_image(&files.path("krypton"))?;
    let image = files.disk(&flash::FILES)?;
    let loaders = board.loaders.ok_or("the board has no loaders")?;
    let [part] = loaders.parts else {
        return Err("Debian has one file for the board".into());
    };
    let loader = build::read(&project::uboot_for(card.loader)?)?;
    build::write(&files.path(part.file), &loader)?;
    loaders.put(&image, folder.path())?;
    OpenOptions::new()
        .write(true)
        .open(&image)
        .and_then(|file| file.set_len(CARD_BYTES))
        .map_err(|error| format!("cannot write {}: {error}", image.display()))?;
    let mut machine = Machine::new(&options)?;
    machine.start = Start::Card(image);
    let mut session = Session::start(&machine, echo)?;
    let platform = format!("(XEN) Platform: {}", card.platform);
    let cpus = format!("(XEN) Brought up {} CPUs", card.cpus);
    for line in [
        "U-Boot SPL ",
        "Found U-Boot script /boot.scr",
        &platform,
        &cpus,
        UP,
    ] {
        session.expect(line, options.timeout * dom0::LONGEST_CHECK)?;
    }
    Ok(())
}
