//! The hypervisor's command line: what it does not honour it says, and what it says it does.

use std::time::Duration;

use crate::Result;
use crate::machine::Machine;
use crate::options::Options;
use crate::session::{Echo, Session};

const PATIENCE: Duration = Duration::from_secs(60);
/// Words of each kind, and a panic's.
const WORDS: &str = "tickle_one_idle_cpu frobnicate=1 dom0_mem=none console_timestamps=raw vwfi=native bootscrub debug_stack_lines=2";
/// Lines that the console must show for them.
const LINES: [&str; 6] = [
    "CMDLINE: option \"tickle_one_idle_cpu\" has no effect here",
    "CMDLINE: ignored option \"frobnicate=1\"",
    "CMDLINE: option \"dom0_mem=none\" has a value that cannot be used",
    "(XEN) [0000*] Command line:",
    "(XEN) [0000*] Scrubbing Free RAM",
    "(XEN) [0000*] Freed boot modules",
];

/// Boots with odd words, and lets the hypervisor panic for the ones that concern that.
pub fn test(options: &Options, echo: Echo) -> Result {
    let mut machine = Machine::new(options)?;
    machine.append = format!("{} {WORDS}", machine.append);
    let mut session = Session::start(&machine, echo)?;
    for line in LINES {
        session.wait_for(&[line], PATIENCE)?;
    }
    session.type_text("\u{1}\u{1}\u{1}C")?;
    for line in [
        "Panic on CPU",
        "(XEN) [0000*] Xen stack trace from sp=",
        "(XEN) [0000*]    *",
        "(XEN) [0000*]    *",
        "(XEN) [0000*] Xen call trace:",
    ] {
        session.wait_for(&[line], PATIENCE)?;
    }
    Ok(())
}
