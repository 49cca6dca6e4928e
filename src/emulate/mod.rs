//! Emulated hardware and firmware: results of trapped accesses and calls.

pub mod cp15;
pub mod psci;
pub mod sbsa_uart;
pub mod set_way;
pub mod timer;
