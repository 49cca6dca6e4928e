//! The machine as its device tree describes it.
//!
//! A boot reads the tree once into [`host_dt::HostInfo`]; from then on nobody looks at raw cells, apart from the rooms that
//! build dom0. The crate `dt` reads the blob; a boot has one `dt::Tree` and lends it ([`tree`]). What the tree does not say
//! is data: of boards in [`board`], of devices in [`quirks`].
//!
//! The blob comes from a boot loader, which is trusted but not infallible: a malformed tree is a [`BootError`] whose text is
//! one line that names the culprit, and never a panic.

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
pub mod quirks;
pub mod ranges;
pub mod rescue;
pub mod timer;
pub mod translate;
pub mod tree;
pub mod uart;

#[cfg(test)]
pub(crate) mod testing;

/// Why a boot cannot go on; its text is one line for the console.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BootError {
    /// There is no device tree where one should be, or its blob is damaged.
    Tree(dt::Error),
    /// The tree cannot be read to its end; says why.
    Corrupt(String),
    /// No usable RAM, or too little: MiB found and needed.
    TooLittleRam {
        /// MiB in the tree.
        found: u64,
        /// MiB needed.
        need: u64,
    },
    /// A boot module cannot be used as described.
    Module(String),
    /// There is no kernel for dom0.
    NoKernel,
    /// No GICv2 with virtualization; says what was found.
    Gic(String),
    /// The generic timer cannot be used.
    Timer(String),
    /// No usable processor node.
    Cpus(String),
    /// A UART that no driver knows, or that is not described; the boot continues without console.
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
            Self::Module(what) => write!(f, "BOOT: {what}"),
            Self::NoKernel => write!(f, "BOOT: no dom0 kernel module (multiboot,kernel)"),
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
