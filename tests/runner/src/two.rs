//! Two machines whose networks are one, and which see one disk: a domU moves between them.

use crate::Result;
use crate::dom0;
use crate::machine::{Cable, Machine, Writes};
use crate::options::Options;
use crate::session::{Echo, ScratchFolder, Serial, Session};
use crate::snapshot::Snapshot;

/// The script on the first machine, which tells the second one what to do.
const SCRIPT: &str = "two";

/// Runs the script on one machine, with another one beside it. Both go on from one snapshot.
pub fn test(options: &Options, echo: Echo) -> Result {
    let folder = ScratchFolder::new("two")?;
    let machine = dom0::machine_for(SCRIPT, options, &folder)?;
    let snapshot = Snapshot::of(&machine, options.timeout)?;
    let [left, right] = Cable::ends(folder.path()).map(|end| with_cable(&machine, end));
    let mut there = snapshot.start(&right, Serial::Plain, options.timeout)?;
    there.type_text("sh /tests/there.sh\n")?;
    there.expect("the other machine is there", options.timeout)?;
    let mut here = snapshot.start(&left, Serial::Plain, options.timeout)?;
    here.echo(echo);
    here.type_text(&dom0::run_test(SCRIPT, options))?;
    dom0::passes(&mut here, SCRIPT, options).map_err(|reason| with_other(&reason, &mut there))?;
    // For docs/performance.md.
    here.transcript()
        .lines()
        .filter(|line| line.contains("has moved") || line.contains("ping: "))
        .for_each(|line| println!("{line}"));
    Ok(())
}

/// Returns the machine with an end of the cable, and its data disk shared.
fn with_cable(machine: &Machine, end: Cable) -> Machine {
    let mut machine = machine.clone();
    machine.cable = Some(end);
    for disk in &mut machine.disks {
        if disk.writes == Writes::Kept {
            disk.writes = Writes::Shared;
        }
    }
    machine
}

/// Returns a reason with what the other machine said.
fn with_other(reason: &str, there: &mut Session) -> String {
    format!("{reason}\n--- on the other machine\n{}", there.said())
}
