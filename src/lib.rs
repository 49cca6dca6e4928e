//! Policy: the hypervisor. No `unsafe` here; the machine is reached through `armv7`.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod cmdline;
pub mod abi;
pub mod error;
pub mod id;
pub mod pqueue;
pub mod platform;
pub mod sync;
pub mod time;
