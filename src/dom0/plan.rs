//! The plan of dom0, made before anything is done: memory, devices, tree, and where things go.

use alloc::vec::Vec;

use super::device_tree::{self, Config};
use super::devices::{self, DevicePlan};
use super::layout;
use super::selection::{HostView, Selection};
use crate::loader::kernel::KernelImage;
use crate::loader::place::{self, Placement};
use crate::platform::BootError;
use crate::platform::host_dt::ModuleKind;
use crate::platform::ranges::{self, PhysRange};
use crate::platform::tree::check_budget;

/// The parts of dom0, and what they are made of.
#[derive(Clone, Copy)]
pub struct Wish<'a> {
    /// The machine, and what the hypervisor keeps of it.
    pub machine: HostView<'a>,
    /// RAM that is free for dom0.
    pub free: &'a [PhysRange],
    /// Machine addresses that hold no memory of dom0's and can show it its grants.
    pub grant: PhysRange,
    /// dom0's kernel.
    pub kernel: &'a KernelImage,
    /// Bytes of RAM.
    pub memory: u64,
    /// vCPUs.
    pub vcpus: u32,
    /// Tells whether dom0 is told of unused addresses.
    pub ext_regions: bool,
}

/// dom0 as it will be.
pub struct Plan {
    /// Its RAM; the first bank holds kernel, tree and RAM disk.
    pub banks: Vec<PhysRange>,
    /// Its devices and interrupts.
    pub devices: DevicePlan,
    /// The private interrupt of its event channels.
    pub event_interrupt: u32,
    /// Where kernel, tree and RAM disk go.
    pub place: Placement,
    /// Its device tree.
    pub tree: Vec<u8>,
}

/// Decides what dom0 will be.
pub fn plan(wish: &Wish<'_>) -> Result<Plan, BootError> {
    let host = wish.machine.host;
    let ramdisk = host.module(ModuleKind::Ramdisk);
    let banks = layout::choose_banks(wish.free, wish.memory)?;
    let selection = Selection::of(&wish.machine);
    let devices = devices::plan(&wish.machine, &selection);
    check_budget(wish.machine.tree)?;
    let event_interrupt = host
        .event_interrupt()
        .ok_or_else(|| BootError::Dom0("no private interrupt is left for events".into()))?;
    let extended = match wish.ext_regions {
        true => extended(wish, &banks, &devices),
        false => Vec::new(),
    };
    let mut config = Config {
        bootargs: &host.command_lines.dom0,
        ramdisk: ramdisk.map(|module| module.range),
        memory: &banks,
        vcpus: wish.vcpus,
        grant: wish.grant,
        extended: &extended,
        event_interrupt,
    };
    // The tree's size does not depend on where the RAM disk goes, but that depends on the tree's size.
    let size = device_tree::build(&wish.machine, &selection, &config)?.len();
    let first = banks
        .first()
        .ok_or_else(|| BootError::Dom0("no memory".into()))?;
    let place = place::place(
        first,
        wish.kernel,
        size as u64,
        ramdisk.map(|module| module.range.size()),
    )?;
    config.ramdisk = place.ramdisk;
    let tree = device_tree::build(&wish.machine, &selection, &config)?;
    check_budget(wish.machine.tree)?;
    Ok(Plan {
        banks,
        devices,
        event_interrupt,
        place,
        tree,
    })
}

/// RAM that dom0 does not own and may use for mappings.
fn extended(wish: &Wish<'_>, banks: &[PhysRange], devices: &DevicePlan) -> Vec<PhysRange> {
    let host = wish.machine.host;
    let mut used: Vec<PhysRange> = Vec::new();
    used.extend(banks);
    used.extend(&devices.mmio);
    used.extend(&devices.reserved_ram);
    used.extend(&host.reserved);
    used.push(wish.grant);
    layout::extended_regions(&host.ram, &ranges::merge(used))
}

#[cfg(test)]
mod tests;
