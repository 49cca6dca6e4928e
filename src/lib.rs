//! Policy: the hypervisor. No `unsafe` here; the machine is reached through `armv7`.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod emulate;
pub mod error;
pub mod id;
pub mod pqueue;
pub mod sched;
pub mod sync;
pub mod time;
pub mod trap;
