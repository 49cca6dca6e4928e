//! The device tree that a domain sees: nothing of the machine's but its kind of processor.
//!
//! The order of nodes is Xen's (docs/partitions.md). The buffer is as large as what goes into it.

use alloc::format;
use alloc::vec::Vec;

use dt::Writer;

use super::partial::Partial;
use crate::domain::guest_map;
use crate::id::IntId;
use crate::loader::{Refused, nodes};
use crate::platform::partitions::{Config, Enhanced};
use crate::platform::ranges::PhysRange;

/// The phandle of the interrupt controller (`GUEST_PHANDLE_GIC`), unless a part of the tree has another for it.
const GIC_PHANDLE: u32 = 65_000;
/// Secure physical, physical and virtual timer.
const TIMERS: [u32; 3] = [29, 30, 27];
/// An SPI, active high: number 0, INTID 32.
const UART_INTERRUPT: [u32; 3] = [0, 0, 0xf04];
/// Room for what does not grow with the domain.
const FIXED: usize = 2048;
/// Room for each vCPU and each bank, beside what comes from the machine.
const EACH: usize = 128;
/// Room for names of properties.
const NAMES: usize = 512;

/// The facts about the machine that a domain's plan depends on.
#[derive(Clone, Copy, Debug)]
pub struct Machine<'a> {
    /// Interrupt ids of the GIC.
    pub gic_lines: u32,
    /// The timer's frequency, where guests are to be told.
    pub clock_frequency: Option<u32>,
    /// `compatible` of the first CPU.
    pub cpu: Option<&'a [u8]>,
    /// `clock-frequency` of the first CPU.
    pub cpu_frequency: Option<u32>,
}

/// The content of the tree.
#[derive(Clone, Copy)]
pub struct Content<'a> {
    /// The domain's configuration.
    pub config: &'a Config,
    /// The facts about the machine.
    pub machine: &'a Machine<'a>,
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
    let room = FIXED + line.len() + vcpus + content.banks.len() * EACH + partial;
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
    if let Some(partial) = partial {
        partial.write(out);
    }
    gic(phandle, out);
    out.begin("timer");
    out.strings("compatible", &["arm,armv7-timer"]);
    nodes::private_interrupts(out, &TIMERS, Some(phandle));
    if let Some(frequency) = machine.clock_frequency {
        out.cells("clock-frequency", &[frequency]);
    }
    out.end();
    if config.uart {
        uart(phandle, out);
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

fn gic(phandle: u32, out: &mut Writer<'_>) {
    out.begin(&format!("interrupt-controller@{:x}", guest_map::GICD.0));
    out.cells("#address-cells", &[0]);
    out.cells("#interrupt-cells", &[3]);
    out.property("interrupt-controller", &[]);
    out.strings("compatible", &["arm,gic-400"]);
    regions(out, &[guest_map::GICD, guest_map::GICC]);
    out.cells("phandle", &[phandle]);
    out.cells("linux,phandle", &[phandle]);
    out.end();
}

fn uart(phandle: u32, out: &mut Writer<'_>) {
    out.begin(&format!("sbsa-uart@{:x}", guest_map::UART.0));
    out.strings("compatible", &["arm,sbsa-uart"]);
    regions(out, &[guest_map::UART]);
    out.cells("interrupts", &UART_INTERRUPT);
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
