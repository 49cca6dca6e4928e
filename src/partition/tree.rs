//! The device tree that a domain sees: nothing of the machine's but its kind of processor.
//!
//! The order of nodes is Xen's (docs/partitions.md). The buffer is as large as what goes into it.

use alloc::format;
use alloc::vec::Vec;

use dt::Writer;

use super::layout::Machine;
use super::partial::Partial;
use crate::domain::guest_map::{self, Layout};
use crate::id::IntId;
use crate::loader::{Refused, nodes};
use crate::platform::partitions::memory::Shared;
use crate::platform::partitions::{Config, Enhanced};
use crate::platform::ranges::PhysRange;

/// The phandle of the interrupt controller (`GUEST_PHANDLE_GIC`), unless a part of the tree has another for it.
const GIC_PHANDLE: u32 = 65_000;
/// Secure physical, physical and virtual timer.
const TIMERS: [u32; 3] = [29, 30, 27];
/// Third cell of an interrupt that is a level, active high.
const ACTIVE_HIGH: u32 = 0xf04;
/// Room for what does not grow with the domain.
const FIXED: usize = 2048;
/// Room for each vCPU and each bank, beside what comes from the machine.
const EACH: usize = 128;
/// Room for names of properties.
const NAMES: usize = 512;

/// The content of the tree.
#[derive(Clone, Copy)]
pub struct Content<'a> {
    /// The domain's configuration.
    pub config: &'a Config,
    /// The facts about the machine.
    pub machine: &'a Machine<'a>,
    /// Where its interrupt controller and UART are.
    pub layout: &'a Layout,
    /// Its RAM.
    pub banks: &'a [PhysRange],
    /// The part of it that has devices.
    pub partial: Option<Partial<'a>>,
    /// Where its RAM disk is.
    pub ramdisk: Option<PhysRange>,
}

/// Builds the tree: the blob. Its size does not depend on where the RAM disk is.
pub fn build(content: &Content<'_>) -> Result<Vec<u8>, Refused> {
    let line = content.config.kernel.bootargs.as_deref().unwrap_or("");
    let kind = content.machine.cpu.unwrap_or(&[]);
    let vcpus = usize::from(content.config.vcpus) * (EACH + kind.len());
    let partial = content.partial.map_or(0, |partial| partial.size);
    let shared = content.config.shared.len() * 2 * EACH;
    let room = FIXED + line.len() + vcpus + content.banks.len() * EACH + shared + partial;
    let names = NAMES + partial;
    let mut blob = Vec::new();
    blob.try_reserve_exact(room + names)
        .map_err(|_| Refused("no memory for its device tree".into()))?;
    blob.resize(room + names, 0);
    let mut out = Writer::new(&mut blob, names);
    write(content, line, &mut out);
    let length = out.finish();
    let length = length.ok_or_else(|| Refused("no room for its device tree".into()))?;
    blob.truncate(length);
    Ok(blob)
}

fn write(content: &Content<'_>, line: &str, out: &mut Writer<'_>) {
    let Content {
        config,
        machine,
        layout,
        banks,
        partial,
        ramdisk,
    } = *content;
    let phandle = partial.and_then(|partial| partial.gic_phandle());
    let phandle = phandle.unwrap_or(GIC_PHANDLE);
    out.begin("");
    out.cells("#address-cells", &[2]);
    out.cells("#size-cells", &[2]);
    out.begin("chosen");
    out.string("bootargs", line);
    if config.ramdisk.is_some() {
        let (start, end) = ramdisk.map_or((0, 0), |range| (range.base(), range.end()));
        nodes::ramdisk(out, start, end);
    }
    out.end();
    out.begin("psci");
    nodes::psci(out);
    out.end();
    cpus(config.vcpus, machine, out);
    if let Some(first) = banks.first() {
        out.begin(&format!("memory@{:x}", first.base()));
        out.string("device_type", "memory");
        reg(out, banks);
        out.end();
    }
    shared(&config.shared, out);
    if let Some(partial) = partial {
        partial.write(out);
    }
    gic(phandle, layout, out);
    out.begin("timer");
    out.strings("compatible", &["arm,armv7-timer"]);
    nodes::private_interrupts(out, &TIMERS, Some(phandle));
    if let Some(frequency) = machine.clock_frequency {
        out.cells("clock-frequency", &[frequency]);
    }
    out.end();
    if config.uart {
        uart(phandle, layout, out);
    }
    if config.enhanced != Enhanced::No {
        out.begin("hypervisor");
        out.strings("compatible", &["xen,xen-4.17", "xen,xen"]);
        regions(out, &[guest_map::GRANT_TABLE]);
        let events = guest_map::event_irq().map(|irq: IntId| u32::from(irq.raw()));
        nodes::private_interrupts(out, events.as_slice(), Some(phandle));
        out.end();
    }
    out.end();
}

/// Writes the nodes of shared memory: no RAM of the domain's, but its kernel must know it.
fn shared(regions: &[Shared], out: &mut Writer<'_>) {
    if regions.is_empty() {
        return;
    }
    out.begin("reserved-memory");
    out.cells("#address-cells", &[2]);
    out.cells("#size-cells", &[2]);
    out.property("ranges", &[]);
    for region in regions {
        out.begin(&format!("xen-shmem@{:x}", region.guest.base()));
        out.strings("compatible", &["xen,shared-memory-v1"]);
        reg(out, &[region.guest]);
        out.string("xen,id", &region.id);
        out.cells("xen,offset", &[0, 0]);
        out.end();
    }
    out.end();
}

fn cpus(vcpus: u8, machine: &Machine<'_>, out: &mut Writer<'_>) {
    out.begin("cpus");
    out.cells("#address-cells", &[1]);
    out.cells("#size-cells", &[0]);
    for vcpu in 0..u32::from(vcpus) {
        out.begin(&format!("cpu@{vcpu:x}"));
        if let Some(kind) = machine.cpu {
            out.property("compatible", kind);
        }
        out.string("device_type", "cpu");
        out.cells("reg", &[vcpu]);
        if let Some(frequency) = machine.cpu_frequency {
            out.cells("clock-frequency", &[frequency]);
        }
        out.end();
    }
    out.end();
}

fn gic(phandle: u32, layout: &Layout, out: &mut Writer<'_>) {
    out.begin(&format!("interrupt-controller@{:x}", layout.distributor.0));
    out.cells("#address-cells", &[0]);
    out.cells("#interrupt-cells", &[3]);
    out.property("interrupt-controller", &[]);
    out.strings("compatible", &["arm,gic-400"]);
    regions(out, &[layout.distributor, layout.cpu_interface]);
    out.cells("phandle", &[phandle]);
    out.cells("linux,phandle", &[phandle]);
    out.end();
}

fn uart(phandle: u32, layout: &Layout, out: &mut Writer<'_>) {
    out.begin(&format!("sbsa-uart@{:x}", layout.uart.0));
    out.strings("compatible", &["arm,sbsa-uart"]);
    regions(out, &[layout.uart]);
    let number = u32::from(layout.uart_irq.raw()).saturating_sub(32);
    out.cells("interrupts", &[0, number, ACTIVE_HIGH]);
    out.cells("interrupt-parent", &[phandle]);
    out.cells("current-speed", &[115_200]);
    out.end();
}

fn reg(out: &mut Writer<'_>, ranges: &[PhysRange]) {
    let ranges: Vec<(u64, u64)> = ranges
        .iter()
        .map(|range| (range.base(), range.size()))
        .collect();
    regions(out, &ranges);
}

/// Writes `reg` of two cells for each address and each size.
fn regions(out: &mut Writer<'_>, regions: &[(u64, u64)]) {
    let numbers = regions.iter().flat_map(|(base, size)| [*base, *size]);
    let bytes: Vec<u8> = numbers.flat_map(u64::to_be_bytes).collect();
    out.property("reg", &bytes);
}
