//! Starting secondary CPUs: the gate in boot/secondary.S at which they wait for their affinity.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::cpu::CpuId;

/// The CPU that may leave boot/secondary.S: affinity in bits 23:0, logical number from bit 24 on. Read with caches off.
#[unsafe(no_mangle)]
static secondary_gate: AtomicU32 = AtomicU32::new(CLOSED);
/// Closes the gate: no affinity has all bits set.
const CLOSED: u32 = !0;

/// Function of firmware's monitor by which a CPU from a pen enters HYP from SVC; 0 for none. Read with caches off.
#[unsafe(no_mangle)]
static secondary_monitor_call: AtomicU32 = AtomicU32::new(0);

/// Lets CPUs from a pen that are in SVC call this function of firmware's monitor, by its number in r12, with the address
/// at which they go on in r0.
pub fn enter_hyp_by(function: u32) {
    secondary_monitor_call.store(function, Ordering::Relaxed); // the reader sees it after the clean
    crate::cache::clean_word(&secondary_monitor_call);
}

/// Returns the physical address at which CPUs from a boot loader's pen enter, to wait for [`call`].
pub fn entry() -> u32 {
    unsafe extern "C" {
        static secondary_pen: u8;
    }
    crate::hypmap::image_address(&raw const secondary_pen as usize).raw() as u32
}

/// Opens the gate for the CPU with `affinity`, as `cpu`, whether it waits at [`entry`], arrives later, or PSCI starts
/// it. Closes the gate for all others.
pub fn call(cpu: CpuId, affinity: u32) {
    open_gate(cpu.raw() << 24 | affinity & 0x00FF_FFFF);
}

/// Closes the gate for all CPUs.
pub fn close() {
    open_gate(CLOSED);
}

fn open_gate(value: u32) {
    secondary_gate.store(value, Ordering::Relaxed); // the reader sees it after the clean
    crate::cache::clean_word(&secondary_gate);
    crate::barrier::sev();
}

/// Starts the CPU with `affinity` by the PSCI function `cpu_on`, and opens the gate for it as `cpu`. Returns PSCI's
/// result.
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
