//! The parts that all guests' trees have.

use alloc::vec::Vec;

use armv7::smc::psci;
use dt::Writer;

use crate::platform::interrupt::FIRST_PPI;

/// All CPUs, low level: what a guest's private interrupts look like.
const PRIVATE_LOW: u32 = 0xf08;
const PRIVATE: u32 = 1;

/// Writes the properties of the virtual PSCI into the open node.
pub fn psci(out: &mut Writer<'_>) {
    let compatible = ["arm,psci-1.0", "arm,psci-0.2", "arm,psci"];
    out.strings("compatible", &compatible);
    out.string("method", "hvc");
    out.cells("cpu_off", &[psci::CPU_OFF_0_1]);
    out.cells("cpu_on", &[psci::CPU_ON_0_1]);
}

/// Writes `interrupts` of private lines into the open node, and their parent.
pub fn private_interrupts(out: &mut Writer<'_>, intids: &[u32], parent: Option<u32>) {
    let specifiers = intids
        .iter()
        .flat_map(|intid| [PRIVATE, intid.saturating_sub(FIRST_PPI), PRIVATE_LOW]);
    let specifiers: Vec<u32> = specifiers.collect();
    out.cells("interrupts", &specifiers);
    if let Some(phandle) = parent {
        out.cells("interrupt-parent", &[phandle]);
    }
}

/// Writes where the initial RAM disk is into the open node, `/chosen`.
pub fn ramdisk(out: &mut Writer<'_>, start: u64, end: u64) {
    out.property("linux,initrd-start", &start.to_be_bytes());
    out.property("linux,initrd-end", &end.to_be_bytes());
}
