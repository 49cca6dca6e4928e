//! Words before an end: `lines=N` among the boot arguments has a guest print N numbered lines, and end as `end=` says.
//!
//! What a domain said before it ended, or closed its event channels, is to be in dom0's log of its console
//! (tests/dom0/last_words.sh).

use crate::abi::DOMID_SELF;
use crate::harness::{SHUTDOWN_CRASH, power_off, shut_down};
use crate::{event, platform, psci};

/// Does what the boot arguments ask for; comes back when they ask for nothing.
pub fn speak() {
    let machine = platform::get();
    let Some(lines) = machine.arguments("lines").find_map(|text| text.parse::<u32>().ok()) else { return };
    for n in 1..=lines {
        println!("line {n} of {lines}");
    }
    match machine.arguments("end").next() {
        Some("reset") => _ = event::reset(DOMID_SELF),
        Some("crash") => _ = shut_down(SHUTDOWN_CRASH),
        Some("psci") => _ = psci::call(psci::SYSTEM_OFF, 0, 0, 0),
        Some("spin") => {}
        _ => power_off(),
    }
    loop {
        core::hint::spin_loop();
    }
}
