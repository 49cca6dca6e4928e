//! Xen 4.17's public ABI: structures and numbers, nothing else.

pub mod console;
pub mod domctl;
pub mod event_channel;
pub mod grant_table;
pub mod handle;
pub mod hvm;
pub mod hypfs;
pub mod layout;
pub mod memory;
pub mod platform;
pub mod sched;
pub mod shared_info;
pub mod sysctl;
pub mod vcpu;
pub mod version;
