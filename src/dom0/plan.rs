//! The plan of dom0: its RAM, devices, tree, and the addresses of its kernel, tree and RAM disk.

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

/// The input of the plan.
#[derive(Clone, Copy)]
pub struct Wish<'a> {
    /// The machine, and the nodes that the hypervisor keeps.
    pub machine: HostView<'a>,
    /// The RAM that is free for dom0.
    pub free: &'a [PhysRange],
    /// The machine addresses at which dom0 may map its grant table: no RAM of its own is there.
    pub grant: PhysRange,
    /// dom0's kernel.
    pub kernel: &'a KernelImage,
    /// The size of its RAM, in bytes.
    pub memory: u64,
    /// vCPUs.
    pub vcpus: u32,
    /// True if dom0's tree lists extended regions.
    pub ext_regions: bool,
}

/// The plan.
pub struct Plan {
    /// Its RAM; the first bank holds kernel, tree and RAM disk.
    pub banks: Vec<PhysRange>,
    /// Its devices and interrupts.
    pub devices: DevicePlan,
    /// The PPI that announces events.
    pub event_interrupt: u32,
    /// The addresses of kernel, tree and RAM disk.
    pub place: Placement,
    /// Its device tree.
    pub tree: Vec<u8>,
}

/// Makes the plan of dom0.
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
    // The place of the RAM disk depends on the tree's size, but not the other way round.
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

/// Returns the extended regions, if dom0's tree lists them.
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
