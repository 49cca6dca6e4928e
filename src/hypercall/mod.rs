//! Hypercalls: dispatch by number.
//!
//! A guest executes `HVC #0xEA1` with the number in r12 and up to five arguments in r0 to r4. The result is in r0;
//! other registers are unchanged (xen/include/public/arch-arm.h). Unknown numbers return `-ENOSYS`. If a call has
//! several errors, the result is the one that Xen 4.17 checks first (`tests`).
//!
//! `call` has the types of a handler's arguments and results.

mod console;
mod event_channel;
mod grant_table;
mod hvm;
mod memory;
mod misc;
mod multicall;
mod sched;
mod vcpu;
mod version;

#[cfg(test)]
mod tests;

use alloc::sync::Arc;

use armv7::guest::GuestContext;
use armv7::syndrome::psr;

use crate::call::{Args, Caller, Outcome, Reply, must_pause};
use crate::control;
use crate::domain::Domain;
use crate::error::Errno;
use crate::latency;
use crate::vcpu::Vcpu;

/// Immediate of the HVC for hypercalls.
pub const HVC_IMMEDIATE: u16 = 0xEA1;

/// Hypercall numbers (xen/include/public/xen.h).
mod number {
    pub const SCHED_OP_COMPAT: u32 = 6;
    pub const PLATFORM_OP: u32 = 7;
    pub const MEMORY_OP: u32 = 12;
    pub const MULTICALL: u32 = 13;
    pub const EVENT_CHANNEL_OP_COMPAT: u32 = 16;
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
    pub const HYPFS_OP: u32 = 42;
}

/// Performs one hypercall.
pub fn call(caller: &Caller<'_>, number: u32, args: &Args) -> Outcome {
    latency::detail(args.0[0]);
    match number {
        number::XEN_VERSION => version::call(caller, args),
        number::EVENT_CHANNEL_OP => event_channel::call(caller, args),
        number::GRANT_TABLE_OP => grant_table::call(caller, args),
        number::MEMORY_OP => memory::call(caller, args),
        number::SCHED_OP => sched::call(caller, args),
        number::CONSOLE_IO => console::call(caller, args),
        number::VCPU_OP => vcpu::call(caller, args),
        number::HVM_OP => hvm::call(caller, args),
        number::MULTICALL => multicall::call(caller, args),
        number::VM_ASSIST => misc::vm_assist(caller, args),
        number::PLATFORM_OP => misc::platform_op(caller, args),
        number::PHYSDEV_OP => Err(Errno::NoSys),
        number::SYSCTL => control::sysctl::call(caller, args),
        number::DOMCTL => control::domctl::call(caller, args),
        number::HYPFS_OP => control::hypfs::call(caller, args),
        number::SCHED_OP_COMPAT => sched::compat(caller, args),
        number::EVENT_CHANNEL_OP_COMPAT => event_channel::compat(caller, args),
        _ => Err(Errno::NoSys),
    }
}

/// Grows the grant table of `domain` to at least `frames` frames. Returns false if the call must be continued; the
/// table itself holds the progress.
#[inline(always)]
fn grow_grants(domain: &Domain, frames: u64) -> Result<bool, Errno> {
    while !domain.grow_grants(frames)? {
        if must_pause() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Bytes of an HVC instruction, in ARM and Thumb state alike.
const HVC_LENGTH: u32 = 4;

/// Performs the hypercall in the guest's registers, and writes its result there.
pub fn dispatch(domain: &Arc<Domain>, vcpu: &Arc<Vcpu>, context: &mut GuestContext) {
    let [r0, r1, r2, r3, r4, ..] = context.r;
    let args = Args([r0, r1, r2, r3, r4]);
    let number = context.r[12];
    match call(&Caller { domain, vcpu }, number, &args) {
        Ok(Reply::Value(value)) => context.r[0] = value,
        Ok(Reply::Unmask) => {
            context.r[0] = 0;
            context.cpsr &= !psr::I;
        }
        Ok(Reply::Again(args)) => {
            context.r[..5].copy_from_slice(&args.0);
            context.pc = context.pc.wrapping_sub(HVC_LENGTH);
        }
        Err(error) => context.r[0] = error.to_reg(),
    }
}
