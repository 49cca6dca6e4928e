//! The CPU: its mode, and its data cache (DDI 0406C.d B1.3.3, B4.2.1).

use core::arch::asm;

const MODE_MASK: u32 = 0x1f;
const MODE_HYP: u32 = 0x1a;
/// No ARMv7 cache line is shorter.
const LINE: usize = 32;

/// Returns whether the firmware runs in HYP, so that we may go on there.
pub fn is_in_hyp() -> bool {
    let cpsr: u32;
    // SAFETY: reads a register.
    unsafe { asm!("mrs {}, cpsr", out(reg) cpsr, options(nomem, nostack, preserves_flags)) };
    cpsr & MODE_MASK == MODE_HYP
}

/// Writes a range back to memory and drops it from the data cache (DCCIMVAC): what reads it next does so past the cache.
pub fn clean(start: usize, size: usize) {
    let end = start.saturating_add(size);
    for line in (start & !(LINE - 1)..end).step_by(LINE) {
        // SAFETY: changes no value in memory, as long as memory is accessed through the cache.
        unsafe {
            asm!("mcr p15, 0, {}, c7, c14, 1", in(reg) line, options(nostack, preserves_flags))
        };
    }
    // SAFETY: a barrier.
    unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
}
