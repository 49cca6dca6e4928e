//! The plan of a domain, made before anything is done.

use alloc::format;
use alloc::vec::Vec;

use armv7::addr::PAGE_SHIFT;

pub use super::layout::Machine;
use super::layout::{self, Piece};
use super::partial::{Partial, Passed};
use super::tree;
use crate::domain::guest_map::Layout;
use crate::id::MAX_SPIS;
use crate::loader::Refused;
use crate::loader::kernel::KernelImage;
use crate::loader::place::{self, MIB, Placement};
use crate::platform::partitions::Config;
use crate::platform::partitions::memory::Shared;
use crate::platform::ranges::PhysRange;

/// A domain as it will be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Its RAM, guest addresses; the first bank holds kernel, tree and RAM disk.
    pub banks: Vec<PhysRange>,
    /// The pieces of its RAM.
    pub pieces: Vec<Piece>,
    /// Where its interrupt controller and UART are.
    pub layout: Layout,
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
    let layout = layout::of(config, machine)?;
    let pieces = layout::ram(config)?;
    let banks = layout::banks(&pieces);
    check_addresses(config, &layout, &banks)?;
    let first = banks
        .first()
        .ok_or_else(|| Refused("memory: none".into()))?;
    let ramdisk = config.ramdisk.as_ref().map(|module| module.range.size());
    let mut content = tree::Content {
        config,
        machine,
        layout: &layout,
        banks: &banks,
        partial,
        ramdisk: None,
    };
    // The tree's size does not depend on where the RAM disk goes, but that depends on the tree's size.
    let size = tree::build(&content)?.len() as u64;
    let place = place::place(first, image, size, ramdisk)?;
    content.ramdisk = place.ramdisk.filter(|_| ramdisk.is_some());
    let tree = tree::build(&content)?;
    let spis = config.spis.unwrap_or(machine.gic_lines.saturating_sub(32));
    let of_uart = u32::from(layout.uart_irq.raw()).saturating_sub(31);
    let spis = spis.max(if config.uart { of_uart } else { 0 });
    Ok(Plan {
        pages: u32::try_from(config.memory >> PAGE_SHIFT)
            .map_err(|_| Refused("memory: more than there can be".into()))?,
        tables: table_pages(config),
        spis: spis.min(MAX_SPIS.into()) as u16,
        place,
        tree,
        devices: match partial {
            Some(partial) => partial.devices(config, &layout)?,
            None => Vec::new(),
        },
        banks,
        pieces,
        layout,
    })
}

/// Refuses RAM and shared memory where the domain finds something else.
fn check_addresses(config: &Config, layout: &Layout, banks: &[PhysRange]) -> Result<(), Refused> {
    let no = |name: &str, range: &PhysRange, what| {
        Refused(format!("{name}: {range} is {what} in the domain"))
    };
    for bank in banks {
        if let Some(what) = layout::taken(bank, config, layout) {
            return Err(no("direct-map", bank, what));
        }
    }
    for Shared { path, guest, .. } in &config.shared {
        let is_ram = banks.iter().any(|bank| bank.overlaps(guest));
        let what = layout::taken(guest, config, layout);
        if let Some(what) = what.or(is_ram.then_some("RAM")) {
            return Err(no(path, guest, what));
        }
    }
    Ok(())
}

/// Returns the pages for a domain's tables: what its node says, or Xen's formula, 4 KiB for each MiB of memory, 1 MiB for each
/// vCPU and half a MiB, in whole MiB.
fn table_pages(config: &Config) -> u32 {
    const PAGES_PER_MIB: u64 = MIB >> PAGE_SHIFT;
    let pages = match config.table_mib {
        Some(mib) => u64::from(mib) * PAGES_PER_MIB,
        None => {
            let shared: u64 = config.shared.iter().map(|shared| shared.host.size()).sum();
            let mapped = config.memory.saturating_add(shared);
            (256 * u64::from(config.vcpus) + mapped / MIB + 128).next_multiple_of(PAGES_PER_MIB)
        }
    };
    u32::try_from(pages).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
