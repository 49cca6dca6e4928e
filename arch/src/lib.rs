//! Mechanism: everything Krypton does to an ARMv7-A processor and its GIC, timers and memory.
//!
//! This crate holds all of the project's `unsafe` code, assembly and volatile access. It knows no domain and no
//! hypercall. On a host (x86, for tests) the modules that touch the machine are replaced by fakes with the same names.
#![cfg_attr(target_os = "none", no_std)]

extern crate alloc;

pub mod addr;
pub mod frame;
#[cfg(not(target_arch = "arm"))]
pub mod host;
pub mod lpae;
pub mod table;
