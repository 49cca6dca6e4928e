//! Run-time of the bare-metal test guests.
//!
//! A guest is a kernel small enough to know everything about: it boots from a zImage header like Linux does
//! (`boot.S`), keeps its own stage 1 tables, catches every exception it provokes (`exception`), counts every interrupt it
//! takes (`interrupt`), and says what it found through the hypervisor's console as one line per sentence (`harness`).
//!
//! The binaries in `src/bin` are themes. Each is a list of tests whose names are the sentences they prove.
#![no_std]

#[macro_use]
pub mod console;
pub mod abi;
pub mod clock;
pub mod code;
pub mod cp15;
pub mod domain;
pub mod event;
pub mod exception;
pub mod gic;
pub mod grant;
pub mod harness;
pub mod hypercall;
pub mod interrupt;
pub mod last_words;
pub mod memory;
pub mod mmio;
pub mod platform;
pub mod psci;
pub mod random;
pub mod smp;
pub mod status;

use core::arch::global_asm;
use core::panic::PanicInfo;

global_asm!(include_str!("boot.S"), options(raw));
global_asm!(include_str!("vectors.S"), options(raw));

unsafe extern "C" {
    /// Defined by `suite!` in each binary.
    fn guest_main() -> !;
}

/// Continues from `boot.S` on the boot CPU with the MMU and caches on.
///
/// `device_tree` is a guest-physical address, `physical_offset` what to add to an image address to get one.
#[unsafe(no_mangle)]
extern "C" fn primary_main(device_tree: u32, physical_offset: u32) -> ! {
    clock::note_entry();
    cp15::set_cpu_index(0);
    memory::set_physical_offset(physical_offset);
    platform::discover(device_tree);
    gic::enable_distributor();
    gic::enable_cpu_interface();
    // SAFETY: `suite!` defines it with this signature; a binary without it does not link.
    unsafe { guest_main() }
}

/// Ends the run: a guest that lost its footing must not look like one that hangs.
#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    println!("FAIL guest: {info}");
    harness::power_off()
}
