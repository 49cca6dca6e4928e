//! Words before an end: `lines=N` among the boot arguments has a guest print N numbered lines, and end as `end=` says.
//!
//! Writes to its console just before it ends, or closes its event channels: all of it must be in dom0's log
//! (tests/dom0/last_words.sh).

use core::arch::global_asm;

use crate::abi::DOMID_SELF;
use crate::exception::catch;
use crate::harness::{SHUTDOWN_CRASH, power_off, shut_down};
use crate::{event, platform, psci};

global_asm!(
    // u32 hvc_unknown(_, _): a call that means nothing, which the hypervisor logs.
    ".arm",
    ".global hvc_unknown",
    "hvc_unknown: .inst 0xe140ea70",
    "bx lr",
);

unsafe extern "C" {
    fn hvc_unknown(a: u32, b: u32) -> u32;
}

/// Does what is logged, for ever.
fn flood() -> ! {
    loop {
        _ = catch(hvc_unknown, 0, 0);
    }
}

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
        Some("flood") => flood(),
        _ => power_off(),
    }
    loop {
        core::hint::spin_loop();
    }
}
