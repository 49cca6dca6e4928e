//! The hardware and firmware that a guest sees and that are not there: traps turned into results.

pub mod cp15;
pub mod psci;
pub mod set_way;
pub mod timer;
