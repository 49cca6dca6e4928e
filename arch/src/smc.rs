//! Calls to firmware: PSCI by SMC or HVC (DEN 0022, DEN 0028).

#[cfg(target_arch = "arm")]
use core::arch::asm;

/// PSCI function numbers.
pub mod psci {
    /// Starts a CPU.
    pub const CPU_ON: u32 = 0x8400_0003;
    /// Ends the machine.
    pub const SYSTEM_OFF: u32 = 0x8400_0008;
    /// Restarts the machine.
    pub const SYSTEM_RESET: u32 = 0x8400_0009;
    /// Version.
    pub const VERSION: u32 = 0x8400_0000;
}

/// Calls firmware with a function number and three arguments; answers r0.
///
/// # Safety
/// The call must not make firmware change memory or state that Rust relies on.
#[cfg(target_arch = "arm")]
pub(crate) unsafe fn call(function: u32, a: u32, b: u32, c: u32) -> u32 {
    let result;
    // SAFETY: SMCCC keeps everything but r0 to r3 (and r12, to be careful).
    unsafe {
        asm!(
            ".arch_extension sec", "smc #0",
            inlateout("r0") function => result, inlateout("r1") a => _, inlateout("r2") b => _, inlateout("r3") c => _,
            out("r12") _, options(nostack)
        );
    }
    result
}

/// Calls firmware: on a host there is none.
///
/// # Safety
/// None needed.
#[cfg(not(target_arch = "arm"))]
pub(crate) unsafe fn call(_: u32, _: u32, _: u32, _: u32) -> u32 {
    u32::MAX
}

/// Asks firmware to end the machine; returns when firmware refuses.
pub fn system_off() {
    crate::barrier::dsb_sy();
    // SAFETY: does not return, or changes nothing.
    unsafe { call(psci::SYSTEM_OFF, 0, 0, 0) };
}

/// Asks firmware to restart the machine; returns when firmware refuses.
pub fn system_reset() {
    crate::barrier::dsb_sy();
    // SAFETY: as above.
    unsafe { call(psci::SYSTEM_RESET, 0, 0, 0) };
}
