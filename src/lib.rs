//! Policy: the hypervisor, without `unsafe`; it accesses the machine through `armv7`.
#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]
#![warn(missing_docs)]
// Errors must be handled: a dropped one may leave a page accessible.
#![cfg_attr(
    not(test),
    deny(clippy::let_underscore_must_use, clippy::unused_result_ok)
)]

extern crate alloc;

pub mod abi;
pub mod call;
pub mod cmdline;
pub mod console;
pub mod control;
pub mod cpu;
pub mod debug_keys;
pub mod dom0;
pub mod domain;
pub mod emulate;
pub mod error;
pub mod event;
pub mod grant;
pub mod hypercall;
pub mod id;
pub mod identity;
pub mod irq;
pub mod latency;
pub mod loader;
pub mod log;
pub mod machine;
pub mod mem;
pub mod options;
pub mod panic;
pub mod partition;
pub mod passthrough;
pub mod platform;
pub mod policy;
pub mod pqueue;
pub mod save;
pub mod sched;
pub mod sync;
pub mod time;
pub mod trap;
pub mod vcpu;
pub mod vgic;
pub mod wallclock;
