//! Managing domains and the machine, for the control domain only.

pub mod domctl;
pub mod sysctl;
