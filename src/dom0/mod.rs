//! dom0: what the machine's first domain is made of.
//!
//! The rooms here are pure: they say where its memory is ([`layout`]), which device regions and interrupts dom0
//! gets ([`devices`]) and what tree it sees ([`device_tree`]); both of the last two follow one decision per node
//! ([`selection`]). [`plan`] puts them together, on the host too; [`build`] does what it says.

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
