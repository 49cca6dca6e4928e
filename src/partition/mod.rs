//! Domains that a boot makes by itself, beside dom0 or without one (`xen,domain`).
//!
//! | file | question |
//! |---|---|
//! | `plan` | where do its RAM, kernel, tree and RAM disk go, and how large are its tables? |
//! | `tree` | which device tree does it see? |
//! | `layout` | what does it find at which address? |
//! | `partial` | which of the machine's devices does it get, and how does it see them? |
//! | `build` | which domains are made at boot, of what, and what if one cannot be? |
//! | `make` | how is one made, piece by piece? |
//! | `restart` | when is it made again, and how often? |
//! | `pools`, `shared`, `channels` | which CPUs, memory and event channels are there from the boot? |
//!
//! [`crate::platform::partitions`] reads the nodes. A domain is made of the same parts as one of the
//! toolstack's, has the same memory map ([`crate::domain::guest_map`]), and may be destroyed by dom0 like any other.

pub mod build;
pub mod channels;
pub mod layout;
pub mod make;
pub mod partial;
pub mod plan;
pub mod pools;
pub mod restart;
pub mod shared;
pub mod tree;
