//! What a guest takes for hardware or firmware and is not: traps turned into answers.

pub mod cp15;
pub mod psci;
pub mod timer;
