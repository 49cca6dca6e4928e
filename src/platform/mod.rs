//! The machine as described by its device tree.
//!
//! The boot reads the tree once into [`host_dt::HostInfo`]; after that only the rooms that build dom0 read raw cells.
//! The crate `dt` reads the blob; the boot has one `dt::Tree` and lends it ([`tree`]). Facts that are not in the tree
//! are data: of boards in [`board`], of devices in [`quirks`].
//!
//! The blob comes from a boot loader, which is trusted but not infallible: a malformed tree is a [`BootError`], whose
//! text is one line that names the culprit, and never a panic.

use alloc::string::String;
use core::fmt;

pub mod board;
pub mod console;
pub mod cpus;
pub mod gic;
pub mod host_dt;
pub mod interrupt;
pub(crate) mod memory;
pub mod modules;
pub(crate) mod monitors;
pub mod partitions;
pub mod places;
pub mod quirks;
pub mod ranges;
pub mod rescue;
pub mod timer;
pub mod translate;
pub mod tree;
pub mod uart;

#[cfg(test)]
pub(crate) mod testing;

/// Reason a boot fails, displayed as one line on the console.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BootError {
    /// The device tree is missing, or its blob is damaged.
    Tree(dt::Error),
    /// The tree cannot be read completely.
    Corrupt(String),
    /// No usable RAM, or too little.
    TooLittleRam {
        /// MiB in the tree.
        found: u64,
        /// MiB needed.
        need: u64,
    },
    /// No RAM is below 4 GiB; the lowest is at this address.
    HighRam(u64),
    /// A boot module is unusable.
    Module(String),
    /// The kernel for dom0 is missing.
    NoKernel,
    /// No domain that the tree names could be made, and there is no dom0.
    NoDomain,
    /// No GICv2 with virtualization was found.
    Gic(String),
    /// The generic timer is unusable.
    Timer(String),
    /// No usable processor node.
    Cpus(String),
    /// The UART has no driver or no description. The boot continues without a console.
    Uart(String),
    /// dom0 cannot be built.
    Dom0(String),
}

impl From<dt::Error> for BootError {
    fn from(error: dt::Error) -> Self {
        Self::Tree(error)
    }
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tree(error) => write!(f, "BOOT: {error}"),
            Self::Corrupt(what) => write!(f, "BOOT: device tree corrupt: {what}"),
            Self::TooLittleRam { found, need } => {
                write!(f, "BOOT: RAM {found} MiB, need {need} MiB")
            }
            Self::HighRam(base) => write!(
                f,
                "BOOT: RAM begins at {base:#x}; images start below 4 GiB, and need RAM there"
            ),
            Self::Module(what) => write!(f, "BOOT: {what}"),
            Self::NoKernel => write!(f, "BOOT: no dom0 kernel module (multiboot,kernel)"),
            Self::NoDomain => write!(f, "BOOT: there is no domain to run"),
            Self::Gic(found) => {
                write!(f, "GIC: need GICv2 with virtualization (found {found})")
            }
            Self::Timer(what) => write!(f, "TIMER: {what}"),
            Self::Cpus(what) => write!(f, "SMP: {what}"),
            Self::Uart(what) => write!(f, "UART: {what}"),
            Self::Dom0(what) => write!(f, "DOM0: {what}"),
        }
    }
}
