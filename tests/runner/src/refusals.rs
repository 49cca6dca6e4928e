//! Machines that cannot run domains: their own serial line must say why.

use crate::faults::Places;
use crate::machine::{Machine, Start};
use crate::options::Options;
use crate::session::{Echo, ScratchFolder, Session};
use crate::{Result, boards, build, leftovers};

/// A machine, and what it must say.
pub struct Refusal {
    pub board: &'static str,
    cpus: u32,
    /// Enters HYP, where QEMU's own boot loader does not.
    pub in_hyp: bool,
    says: &'static str,
}

pub static REFUSALS: [Refusal; 2] = [
    // QEMU starts images there in SVC, without a way to HYP.
    Refusal {
        board: "raspi2b",
        cpus: 4,
        in_hyp: false,
        says: "BOOT: CPU is not in HYP mode (mode 0x13)",
    },
    // The board's firmware does enter HYP.
    Refusal {
        board: "raspi2b",
        cpus: 4,
        in_hyp: true,
        says: "GIC: need GICv2 with virtualization (found no node of one)",
    },
];

/// Where things are on a Raspberry Pi, whose CPUs all begin at 0.
const AT_RESET: Places = Places {
    loader: 0,
    hypervisor: 0x0040_0000,
    tree: 0x0200_0000,
};

/// Starts the machine and waits for the refusal.
pub fn test(refusal: &Refusal, options: &Options, echo: Echo) -> Result {
    let folder = ScratchFolder::new("refusal")?;
    let board = boards::find(refusal.board)?;
    let options = Options {
        board: Some(board),
        cpus: refusal.cpus,
        memory_mib: 1024,
        ..options.clone()
    };
    let mut machine = Machine::new(&options)?;
    build::tell_image(&machine.hypervisor)?;
    if refusal.in_hyp {
        let tree = board.write_tree(&machine, folder.path())?;
        let folder = folder.path();
        machine.start = leftovers::start_by("to-hyp.S", &machine, &AT_RESET, &tree, folder)?;
        if let Start::Raw { entry, .. } = &mut machine.start {
            // QEMU takes 0 for none. All CPUs begin there anyway.
            *entry += 4;
        }
    }
    Session::start(&machine, echo)?
        .expect(refusal.says, options.timeout)
        .map(drop)
}
