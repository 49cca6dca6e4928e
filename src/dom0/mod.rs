//! dom0: the machine's first domain.
//!
//! The files here but [`build`] are pure, and run on the host too. [`selection`] decides for each node of the host's tree
//! what dom0 gets of it. [`devices`] and [`device_tree`] follow that: the device regions and interrupts, and dom0's tree.
//! [`layout`] chooses its RAM. [`plan`] composes them, and [`build`] carries the plan out.

pub mod build;
pub mod device_tree;
pub mod devices;
pub mod layout;
pub mod plan;
pub mod selection;

use crate::loader::Refused;
use crate::platform::BootError;

impl From<Refused> for BootError {
    fn from(refused: Refused) -> Self {
        Self::Dom0(refused.0)
    }
}
