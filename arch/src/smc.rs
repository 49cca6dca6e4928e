//! Calls to firmware: PSCI by SMC or HVC (DEN 0022, DEN 0028).

#[cfg(target_arch = "arm")]
use core::arch::asm;

/// Function ids of PSCI since version 0.2, 32-bit calling convention (DEN 0022D 5.1).
pub mod psci {
    /// Returns the version.
    pub const VERSION: u32 = 0x8400_0000;
    /// Suspends this CPU.
    pub const CPU_SUSPEND: u32 = 0x8400_0001;
    /// Switches this CPU off.
    pub const CPU_OFF: u32 = 0x8400_0002;
    /// Starts a CPU.
    pub const CPU_ON: u32 = 0x8400_0003;
    /// Returns whether a CPU is on.
    pub const AFFINITY_INFO: u32 = 0x8400_0004;
    /// Returns whether a trusted OS is bound to a CPU.
    pub const MIGRATE_INFO_TYPE: u32 = 0x8400_0006;
    /// Powers the machine off.
    pub const SYSTEM_OFF: u32 = 0x8400_0008;
    /// Restarts the machine.
    pub const SYSTEM_RESET: u32 = 0x8400_0009;
    /// Returns whether a function is implemented.
    pub const FEATURES: u32 = 0x8400_000A;
    /// Result of CPU_ON: the CPU is on.
    pub const ALREADY_ON: i32 = -4;
    /// Result of CPU_ON: there is no such CPU.
    pub const NOT_PRESENT: i32 = -7;
    /// Switches this CPU off, as Xen's guests call it by their tree. Version 0.1 left ids to the tree.
    pub const CPU_OFF_0_1: u32 = 1;
    /// Starts a CPU; id as for `CPU_OFF_0_1`.
    pub const CPU_ON_0_1: u32 = 2;
}

/// Calls firmware with a function id and three arguments. Returns r0.
///
/// # Safety
/// The call must not make firmware change memory or state that Rust relies on.
#[cfg(target_arch = "arm")]
pub(crate) unsafe fn call(function: u32, a: u32, b: u32, c: u32) -> u32 {
    let result;
    // SAFETY: SMCCC preserves all registers except r0 to r3; r12 is declared clobbered as well.
    unsafe {
        asm!(
            ".arch_extension sec", "smc #0",
            inlateout("r0") function => result, inlateout("r1") a => _, inlateout("r2") b => _, inlateout("r3") c => _,
            out("r12") _, options(nostack)
        );
    }
    result
}

/// Stands for calling firmware. A host has none.
///
/// # Safety
/// None required.
#[cfg(not(target_arch = "arm"))]
pub(crate) unsafe fn call(_: u32, _: u32, _: u32, _: u32) -> u32 {
    u32::MAX
}

/// Requests power-off from firmware. Returns if firmware refuses.
pub fn system_off() {
    crate::barrier::dsb_sy();
    // SAFETY: does not return, or changes nothing.
    unsafe { call(psci::SYSTEM_OFF, 0, 0, 0) };
}

/// Requests a restart from firmware. Returns if firmware refuses.
pub fn system_reset() {
    crate::barrier::dsb_sy();
    // SAFETY: as above.
    unsafe { call(psci::SYSTEM_RESET, 0, 0, 0) };
}

/// Switches this CPU off by the PSCI function `cpu_off`. Returns PSCI's result if firmware refuses.
pub fn cpu_off(cpu_off: u32) -> i32 {
    crate::barrier::dsb_sy();
    // SAFETY: does not return, or changes nothing. The CPU's state is lost, so it holds no lock and no vCPU's registers.
    unsafe { call(cpu_off, 0, 0, 0) as i32 }
}
