//! Mechanism: all access to an ARMv7-A processor and its GIC, timers and memory.
//!
//! This crate contains all of the project's `unsafe` code, assembly and volatile access. It has no notion of domains or
//! hypercalls. On a host (x86, for tests) fakes with the same names replace the modules that access the machine.
#![cfg_attr(target_os = "none", no_std)]
#![warn(missing_docs)]
// Errors must be handled: a dropped one may leave a page accessible.
#![cfg_attr(
    not(test),
    deny(clippy::let_underscore_must_use, clippy::unused_result_ok)
)]

extern crate alloc;

pub mod abort;
pub mod addr;
pub mod admission;
pub mod backtrace;
pub mod barrier;
pub mod cache;
pub mod controls;
mod cp15;
pub mod cpu;
pub mod double;
pub mod errata;
#[cfg(target_arch = "arm")]
pub mod fault;
pub mod features;
pub mod fence;
pub mod frame;
pub mod gic;
pub mod guest;
pub mod heap;
#[cfg(not(target_arch = "arm"))]
pub mod host;
#[cfg(target_arch = "arm")]
pub mod hypmap;
mod kept;
pub mod layout;
pub mod lpae;
pub mod mmio;
#[cfg(target_arch = "arm")]
pub mod pen;
pub mod pmu;
#[cfg(target_arch = "arm")]
pub mod probe;
#[cfg(target_arch = "arm")]
pub mod secure;
pub mod smc;
pub mod smp;
pub mod syndrome;
pub mod table;
pub mod timer;
pub mod tlb;

/// Opens a lock that another CPU holds. Only for a panic, as holder and caller then both have access.
pub fn break_lock<T>(lock: &spin::mutex::SpinMutex<T>) {
    // SAFETY: the panic has stopped the other CPUs, so only the caller uses the lock's data from here on.
    unsafe { lock.force_unlock() }
}
