//! An interrupt whose line no tree tells: Linux' driver for TI's crossbar chooses the SPI of the real-time clock, and dom0 gets
//! it by enabling it.

use crate::machine::{Machine, Start};
use crate::options::Options;
use crate::partitions::{CLOCK, RING, SWITCH};
use crate::session::{Echo, ScratchFolder, Session};
use crate::{Result, dom0, faults};

/// A crossbar from 8 sources to SPIs 0 to 2, of which two are taken. Its registers are in the empty flash, which takes the
/// driver's writes for commands that it does not know.
const CROSSBAR: &str = "crossbar@4000000 { compatible = \"ti,irq-crossbar\"; reg = <0 0x4000000 0 0x1000>; \
    interrupt-controller; #interrupt-cells = <3>; phandle = <0x7001>; ti,max-irqs = <3>; ti,max-crossbar-sources = <8>; \
    ti,reg-size = <2>; ti,irqs-reserved = <0 1>; };";
/// Sends the clock's interrupt there.
const BEHIND_IT: &str = "pl031@9010000 { interrupt-parent = <0x7001>;";

/// Waits for the clock's alarm in dom0, and for the debug key's line about its interrupt.
pub fn test(options: &Options, echo: Echo) -> Result {
    let folder = ScratchFolder::new("crossbar")?;
    let mut machine = Machine::new(options)?;
    dom0::give_watchdogs_patience(&mut machine);
    let source = faults::tree_source(&machine, folder.path())?.replace(CLOCK, BEHIND_IT);
    let source = faults::in_root(&source, CROSSBAR)?;
    machine.start = Start::Tree(faults::compile(&source, &folder.path().join("crossbar"))?);
    let mut session = Session::start(&machine, echo)?;
    for line in [
        "DOM0: 1 interrupts by way of /crossbar@4000000 (ti,irq-crossbar), whose driver chooses the SPIs",
        dom0::UP,
    ] {
        session.expect(line, options.timeout)?;
    }
    session.type_text(&format!("\n{RING}"))?;
    session.expect("alarms: 1", options.timeout)?;
    session.type_text(SWITCH)?;
    session.type_text("i")?;
    session.expect(
        "irq 34: d0 enabled it, and nobody owned it",
        options.timeout,
    )?;
    Ok(())
}
