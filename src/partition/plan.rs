//! The plan of a domain, made before anything is done.

use alloc::format;
use alloc::vec::Vec;

use armv7::addr::PAGE_SHIFT;

use super::partial::{Partial, Passed};
use super::tree;
pub use super::tree::Machine;
use crate::domain::guest_map;
use crate::id::MAX_SPIS;
use crate::loader::Refused;
use crate::loader::kernel::KernelImage;
use crate::loader::place::{self, MIB, Placement};
use crate::platform::partitions::Config;
use crate::platform::ranges::PhysRange;

/// A domain as it will be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Its RAM, guest addresses; the first bank holds kernel, tree and RAM disk.
    pub banks: Vec<PhysRange>,
    /// Pages of RAM.
    pub pages: u32,
    /// Pages for the tables of its memory map.
    pub tables: u32,
    /// Shared interrupts.
    pub spis: u16,
    /// Where kernel, tree and RAM disk go.
    pub place: Placement,
    /// Its device tree.
    pub tree: Vec<u8>,
    /// Devices of the machine that it gets.
    pub devices: Vec<Passed>,
}

/// Decides what a domain will be. `partial` is the part of its tree that has the machine's devices.
pub fn plan(
    config: &Config,
    image: &KernelImage,
    machine: &Machine<'_>,
    partial: Option<Partial<'_>>,
) -> Result<Plan, Refused> {
    let banks = banks(config.memory)?;
    let first = banks
        .first()
        .ok_or_else(|| Refused("memory: none".into()))?;
    let ramdisk = config.ramdisk.as_ref().map(|module| module.range.size());
    let mut content = tree::Content {
        config,
        machine,
        banks: &banks,
        partial,
        ramdisk: None,
    };
    // The tree's size does not depend on where the RAM disk goes, but that depends on the tree's size.
    let size = tree::build(&content)?.len() as u64;
    let place = place::place(first, image, size, ramdisk)?;
    content.ramdisk = place.ramdisk.filter(|_| ramdisk.is_some());
    let tree = tree::build(&content)?;
    let spis = config
        .spis
        .unwrap_or_else(|| machine.gic_lines.saturating_sub(32).max(config.uart.into()));
    Ok(Plan {
        pages: u32::try_from(config.memory >> PAGE_SHIFT)
            .map_err(|_| Refused("memory: more than there can be".into()))?,
        tables: table_pages(config),
        spis: spis.min(MAX_SPIS.into()) as u16,
        place,
        tree,
        devices: match partial {
            Some(partial) => partial.devices(config)?,
            None => Vec::new(),
        },
        banks,
    })
}

/// Splits `size` bytes into the banks of the guest's memory map.
fn banks(size: u64) -> Result<Vec<PhysRange>, Refused> {
    let mut banks = Vec::new();
    let mut left = size;
    for (base, most) in guest_map::RAM_BANKS {
        let here = left.min(most);
        if here > 0 {
            banks.extend(PhysRange::new(base, here));
            left -= here;
        }
    }
    match left {
        0 => Ok(banks),
        _ => Err(Refused(format!(
            "memory: {} MiB are more than the guest's addresses hold",
            size / MIB
        ))),
    }
}

/// Returns the pages for a domain's tables: what its node says, or Xen's formula, 4 KiB for each MiB of RAM, 1 MiB for each
/// vCPU and half a MiB, in whole MiB.
fn table_pages(config: &Config) -> u32 {
    const PAGES_PER_MIB: u64 = MIB >> PAGE_SHIFT;
    let pages = match config.table_mib {
        Some(mib) => u64::from(mib) * PAGES_PER_MIB,
        None => (256 * u64::from(config.vcpus) + config.memory / MIB + 128)
            .next_multiple_of(PAGES_PER_MIB),
    };
    u32::try_from(pages).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
