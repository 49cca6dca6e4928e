//! Xen 4.17's public ABI: structures and numbers, nothing else.

pub mod event_channel;
pub mod shared_info;
