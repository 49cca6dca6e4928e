//! A domU that is saved on `virt` comes back on a Versatile Express with the same processor, and is refused by another revision.

use crate::Result;
use crate::boards::{self, CORTEX_A15_R2P1};
use crate::dom0;
use crate::machine::Bus;
use crate::options::Options;
use crate::session::{Echo, ScratchFolder};

/// The script on both machines: its first part saves, its second one restores.
const SCRIPT: &str = "restart";
/// The other machine, with its revision of the processor.
const BOARD: &str = "vexpress-a15";

/// Runs the script on `virt` with the board's processor and with QEMU's own revision, each time then on the board, with the
/// same disks.
pub fn test(options: &Options, echo: Echo) -> Result {
    for processor in [Some(CORTEX_A15_R2P1), None] {
        saved_here(processor, options, echo).map_err(|reason| {
            format!("saved with {}: {reason}", processor.unwrap_or("QEMU's own"))
        })?;
    }
    Ok(())
}

fn saved_here(processor: Option<&'static str>, options: &Options, echo: Echo) -> Result {
    let folder = ScratchFolder::new("elsewhere")?;
    let mut here = dom0::machine_for(SCRIPT, options, &folder)?;
    here.processor = processor.unwrap_or(here.processor);
    // Snapshots are for machines that others start from.
    dom0::test_to_the_end(SCRIPT, &here, &options.fresh_if(processor.is_some()), echo)?;

    let options = Options {
        board: Some(boards::find(BOARD)?),
        ..options.fresh_if(true)
    };
    let scratch = ScratchFolder::new("elsewhere-there")?;
    let mut there = dom0::machine_for(SCRIPT, &options, &scratch)?;
    // It has four virtio devices, and no PCI.
    there.network = false;
    there.disks = here.disks;
    there.disks.retain(|disk| disk.bus == Bus::Mmio);
    dom0::test_to_the_end(SCRIPT, &there, &options, echo)
}
