//! PSCI and SMCCC calls by both conduits (DEN 0022, DEN 0028; abi.md 3.6).

use core::arch::asm;

pub const VERSION: u32 = 0x8400_0000;
pub const CPU_SUSPEND: u32 = 0x8400_0001;
pub const CPU_OFF: u32 = 0x8400_0002;
pub const CPU_ON: u32 = 0x8400_0003;
pub const AFFINITY_INFO: u32 = 0x8400_0004;
pub const MIGRATE_INFO_TYPE: u32 = 0x8400_0006;
pub const SYSTEM_OFF: u32 = 0x8400_0008;
pub const SYSTEM_RESET: u32 = 0x8400_0009;
pub const FEATURES: u32 = 0x8400_000a;
pub const SMCCC_VERSION: u32 = 0x8000_0000;
pub const SMCCC_ARCH_FEATURES: u32 = 0x8000_0001;

/// AFFINITY_INFO's answers.
pub const ON: i32 = 0;
pub const OFF: i32 = 1;

macro_rules! conduit {
    ($name:ident, $instruction:literal) => {
        /// Makes the call and returns r0-r3.
        pub fn $name(function: u32, a: u32, b: u32, c: u32) -> [u32; 4] {
            let (r0, r1, r2, r3);
            // SAFETY: SMCCC 1.1 preserves all but r0-r3 (DEN 0028 2.5); CPU_OFF and SYSTEM_OFF do not return.
            unsafe {
                asm!($instruction,
                     inlateout("r0") function => r0, inlateout("r1") a => r1,
                     inlateout("r2") b => r2, inlateout("r3") c => r3, options(nostack));
            }
            [r0, r1, r2, r3]
        }
    };
}

conduit!(call_by_hvc, ".inst 0xe1400070"); // hvc #0
conduit!(call_by_smc, ".inst 0xe1600070"); // smc #0

/// Makes the call by the conduit that the device tree names, and returns r0.
pub fn call(function: u32, a: u32, b: u32, c: u32) -> i32 {
    call_by_hvc(function, a, b, c)[0] as i32
}
