//! Panics of the hypervisor: registers, a backtrace with names, then a reboot or a halt.
//!
//! A panic is a broken invariant of the hypervisor, which no guest can cause. The other CPUs are stopped first, so that
//! the report is consistent.

use core::fmt;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use armv7::gic;
use armv7::smp;

use crate::cpu::SGI_STOP;
use crate::log::print;
use crate::{console, identity, machine};

/// Size of a call instruction in bytes.
const CALL: u32 = 4;

const RULE: &str = "****************************************";

static PANICKING: AtomicBool = AtomicBool::new(false);
/// Stack lines to show; 0 before the command line is read.
static STACK_LINES: AtomicU32 = AtomicU32::new(0);

/// Sets the number of stack lines to show.
pub fn set_stack_lines(lines: u32) {
    STACK_LINES.store(lines, Ordering::Relaxed);
}

/// Reports a panic and ends the machine.
pub fn report(info: &PanicInfo<'_>) -> ! {
    if PANICKING.swap(true, Ordering::SeqCst) {
        // A panic within the report, or on a second CPU; only the first one is reported.
        machine::halt();
    }
    if let Some(gic) = gic::get() {
        gic.dist.send_sgi_to_others(SGI_STOP);
    }
    console::seize();
    let cpu = smp::this_cpu_by_affinity();
    print(format_args!(
        "\n{RULE}\nPanic on CPU {}:\n{info}\nKrypton {} {}",
        cpu.raw(),
        identity::VERSION,
        identity::CHANGESET
    ));
    stack();
    backtrace();
    print(format_args!("{RULE}\n\nReboot in five seconds..."));
    machine::reboot_after_crash()
}

/// Stops this CPU, as another one panicked.
pub fn stop_this_cpu() -> ! {
    machine::halt()
}

/// Prints the first lines of this CPU's stack, up to `debug_stack_lines`.
fn stack() {
    let mut first = true;
    armv7::backtrace::stack(STACK_LINES.load(Ordering::Relaxed), |address, words| {
        if core::mem::take(&mut first) {
            print(format_args!("Xen stack trace from sp={address:08x}:"));
        }
        print(format_args!("   {}", Words(words)));
    });
}

/// Displays words in hexadecimal, each after a blank.
struct Words<'a>(&'a [u32]);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|word| write!(f, " {word:08x}"))
    }
}

/// Prints the return addresses on this CPU's stack with their functions.
fn backtrace() {
    print(format_args!("Xen call trace:"));
    // A call that never returns may be its function's last instruction, so the call's address is looked up, not the
    // return address.
    armv7::backtrace::walk(|address| match armv7::backtrace::symbol(address - CALL) {
        Some((name, offset)) => {
            print(format_args!(
                "   [<{address:08x}>] {name}+{:#x}",
                offset + CALL
            ));
        }
        None => print(format_args!("   [<{address:08x}>]")),
    });
}

#[cfg(test)]
mod tests {
    use super::Words;

    #[test]
    fn a_line_of_the_stack_is_words_in_hexadecimal() {
        assert_eq!(Words(&[1, 0xDEAD_BEEF]).to_string(), " 00000001 deadbeef");
    }
}
