//! dom0: what the machine's first domain is made of.
//!
//! The rooms here are pure: they say what to load where ([`kernel`], [`layout`]), which device regions and interrupts dom0
//! gets ([`devices`]) and what tree it sees ([`device_tree`]); both of the last two follow one decision per node
//! ([`selection`]). [`plan`] puts them together, on the host too; [`build`] does what it says.

pub mod build;
pub mod device_tree;
pub mod devices;
pub mod kernel;
pub mod layout;
pub mod plan;
pub mod selection;
