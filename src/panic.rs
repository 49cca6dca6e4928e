//! The hypervisor's own end: registers, a backtrace with names, then a reboot or a halt.
//!
//! A panic is a broken invariant of ours; nothing a guest does leads here. The other CPUs are stopped first, so the report
//! is of one moment.

use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use armv7::gic;
use armv7::smp;

use crate::domain::run::SGI_STOP;
use crate::{console, identity, machine};

/// Bytes of a call instruction.
const CALL: u32 = 4;

static PANICKING: AtomicBool = AtomicBool::new(false);

/// Reports a panic and ends the machine.
pub fn report(info: &PanicInfo<'_>) -> ! {
    if PANICKING.swap(true, Ordering::SeqCst) {
        // A panic within the report, or on a second CPU: the first one speaks.
        machine::halt();
    }
    if let Some(gic) = gic::get() {
        gic.dist.send_sgi_to_others(SGI_STOP);
    }
    console::seize();
    let cpu = smp::this_cpu();
    console::write_fmt(format_args!(
        "(XEN) \n(XEN) ****************************************\n\
         (XEN) Panic on CPU {}:\n(XEN) {info}\n",
        cpu.raw()
    ));
    console::write_fmt(format_args!(
        "(XEN) Krypton {} {}\n",
        identity::VERSION,
        identity::CHANGESET
    ));
    backtrace();
    console::write_fmt(format_args!(
        "(XEN) ****************************************\n(XEN) \n(XEN) Reboot in five seconds...\n"
    ));
    machine::reboot_after_crash()
}

/// Entry of a CPU that another one's panic stops.
pub fn stop_this_cpu() -> ! {
    machine::halt()
}

/// Prints the return addresses on this CPU's stack, with the functions that they are in.
fn backtrace() {
    console::write_fmt(format_args!("(XEN) Xen call trace:\n"));
    // A call that never returns may be its function's last instruction: the call is looked up, not what follows it.
    armv7::backtrace::walk(|address| match armv7::backtrace::symbol(address - CALL) {
        Some((name, offset)) => {
            console::write_fmt(format_args!(
                "(XEN)    [<{address:08x}>] {name}+{:#x}\n",
                offset + CALL
            ));
        }
        None => console::write_fmt(format_args!("(XEN)    [<{address:08x}>]\n")),
    });
}
