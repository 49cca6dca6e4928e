//! Aspeed's AST2600.
//!
//! Its second CPU waits with WFE until a word of the system controller names it, then jumps to the address in the word
//! before. Firmware leaves both zero, or the numbers of an earlier start.

use alloc::vec;

use dt::Tree;

use super::{Action, Board, register, starts, step};
use crate::platform::cpus::CpuInfo;

pub(super) const COMPATIBLE: &[&str] = &["aspeed,ast2600"];

/// The words of the system controller.
const MAILBOX: &[&str] = &["aspeed,ast2600-smpmem"];
const ADDRESS: u64 = 0;
const SIGNATURE: u64 = 4;
/// `SIGNATURE` for CPU 1; the low byte is its number.
const GO: u32 = 0xABBA_AB01;

pub(super) fn board(tree: &Tree<'_>, cpus: &[CpuInfo]) -> Board {
    let places = register(tree, MAILBOX, ADDRESS).zip(register(tree, MAILBOX, SIGNATURE));
    Board {
        starts: starts(cpus, |_| {
            let (address, signature) = places?;
            Some(vec![
                step(signature, Action::Write(0)),
                step(address, Action::WriteEntry),
                step(signature, Action::Write(GO)),
            ])
        }),
        ..Board::default()
    }
}
