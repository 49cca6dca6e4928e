//! The parts of the UEFI start that need no firmware: the configuration file and the device tree's `/chosen`.
//!
//! Everything works on bytes in buffers that the caller has: there is no allocator, and no text formatting.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod config;
pub mod path;
pub mod tree;
