//! The hypercall instruction: `HVC #0xEA1`, number in r12, arguments in r0-r4, result in r0 (abi.md section 1).

use core::arch::asm;

pub const MEMORY_OP: u32 = 12;
pub const MULTICALL: u32 = 13;
pub const XEN_VERSION: u32 = 17;
pub const CONSOLE_IO: u32 = 18;
pub const GRANT_TABLE_OP: u32 = 20;
pub const VM_ASSIST: u32 = 21;
pub const VCPU_OP: u32 = 24;
pub const SCHED_OP: u32 = 29;
pub const EVENT_CHANNEL_OP: u32 = 32;
pub const PHYSDEV_OP: u32 = 33;
pub const HVM_OP: u32 = 34;
pub const SYSCTL: u32 = 35;
pub const DOMCTL: u32 = 36;
pub const PLATFORM_OP: u32 = 7;

/// Makes a hypercall with up to five arguments.
#[inline(always)]
pub fn call(number: u32, arguments: [u32; 5]) -> i32 {
    let [a, b, c, d, e] = arguments;
    let result: i32;
    // SAFETY: the hypervisor changes r0 and whatever memory the arguments name (hence no `nomem`); r1-r4 and r12 are
    // declared clobbered as a debug build of Xen overwrites them.
    unsafe {
        asm!(
            ".inst 0xe140ea71", // hvc #0xea1: written as a word because the assembler hides HVC behind an extension
            inlateout("r0") a => result,
            inlateout("r1") b => _,
            inlateout("r2") c => _,
            inlateout("r3") d => _,
            inlateout("r4") e => _,
            inlateout("r12") number => _,
            options(nostack),
        );
    }
    result
}

/// Makes a hypercall of the usual form: sub-operation and one pointer.
#[inline(always)]
pub fn call_with<T>(number: u32, operation: u32, argument: &mut T) -> i32 {
    call(number, [operation, address_of(argument), 0, 0, 0])
}

/// The virtual address of `object`, as hypercalls take it.
pub fn address_of<T: ?Sized>(object: &mut T) -> u32 {
    core::ptr::from_mut(object).cast::<u8>() as u32
}
