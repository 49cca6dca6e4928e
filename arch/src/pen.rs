//! Starting the other CPUs: the gate of the pen in boot/secondary.S, where they wait to be called by their affinities.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::cpu::CpuId;

/// Names the CPU that may leave boot/secondary.S: its affinity, and its logical number from bit 24 on. Read with caches off.
#[unsafe(no_mangle)]
static secondary_gate: AtomicU32 = AtomicU32::new(NOBODY);
/// No affinity has all its bits set.
const NOBODY: u32 = !0;

/// Returns the physical address at which a CPU enters that comes out of a boot loader's pen, to wait there for [`call`].
pub fn entry() -> u32 {
    unsafe extern "C" {
        static secondary_pen: u8;
    }
    crate::hypmap::image_address(&raw const secondary_pen as usize).raw() as u32
}

/// Lets the CPU with `affinity` in, as `cpu`, when it comes or has come to [`entry`], or PSCI starts it. Nobody else may
/// come any more.
pub fn call(cpu: CpuId, affinity: u32) {
    open_gate(cpu.raw() << 24 | affinity & 0x00FF_FFFF);
}

/// Lets nobody in any more.
pub fn call_nobody() {
    open_gate(NOBODY);
}

fn open_gate(value: u32) {
    secondary_gate.store(value, Ordering::Relaxed); // one reader, which sees nothing before the clean
    crate::cache::clean_word(&secondary_gate);
    crate::barrier::sev();
}

/// Starts the CPU with `affinity` by the PSCI function `cpu_on`, and lets it in as `cpu`; returns PSCI's result.
pub fn start(cpu: CpuId, affinity: u32, cpu_on: u32) -> i32 {
    unsafe extern "C" {
        static secondary_entry: u8;
    }
    let entry = crate::hypmap::image_address(&raw const secondary_entry as usize);
    call(cpu, affinity);
    crate::barrier::dsb_sy();
    // SAFETY: the new CPU enters boot/secondary.S, which expects just this.
    unsafe { crate::smc::call(cpu_on, affinity, entry.raw() as u32, cpu.raw()) as i32 }
}
