//! The GICv2 as a guest sees it (IHI 0048B chapter 4): emulated distributor, virtual CPU interface.

use crate::{mmio, platform};

/// Distributor offsets (IHI 0048B 4.3).
pub const CTLR: u32 = 0x000;
pub const TYPER: u32 = 0x004;
pub const IIDR: u32 = 0x008;
pub const IGROUPR: u32 = 0x080;
pub const ISENABLER: u32 = 0x100;
pub const ICENABLER: u32 = 0x180;
pub const ISPENDR: u32 = 0x200;
pub const ICPENDR: u32 = 0x280;
pub const ISACTIVER: u32 = 0x300;
pub const ICACTIVER: u32 = 0x380;
pub const IPRIORITYR: u32 = 0x400;
pub const ITARGETSR: u32 = 0x800;
pub const ICFGR: u32 = 0xc00;
pub const NSACR: u32 = 0xe00;
pub const SGIR: u32 = 0xf00;
pub const CPENDSGIR: u32 = 0xf10;
pub const SPENDSGIR: u32 = 0xf20;
pub const ICPIDR2: u32 = 0xfe8;

/// CPU interface offsets (IHI 0048B 4.4).
const GICC_CTLR: u32 = 0x00;
const GICC_PMR: u32 = 0x04;
const GICC_IAR: u32 = 0x0c;
const GICC_EOIR: u32 = 0x10;
const GICC_HPPIR: u32 = 0x18;
const GICC_DIR: u32 = 0x1000;

const GICC_CTLR_ENABLE: u32 = 1;
/// Of a virtual CPU interface (IHI 0048B 5.5.1 GICV_CTLR.EOImode).
const GICC_CTLR_EOI_MODE: u32 = 1 << 9;

pub const INTID_MASK: u32 = 0x3ff;
pub const SPURIOUS: u32 = 1023;
pub const VIRTUAL_TIMER: u32 = 27;
/// Performance monitors, where a domain has them.
pub const MONITORS: u32 = 23;
pub const PHYSICAL_TIMER: u32 = 30;

pub const PRIORITY_DEFAULT: u32 = 0xa0;

/// The address of a distributor register.
pub fn distributor(offset: u32) -> u32 {
    platform::get().distributor + offset
}

fn cpu_interface(offset: u32) -> u32 {
    platform::get().cpu_interface + offset
}

pub fn enable_distributor() {
    mmio::write32(distributor(CTLR), 1);
}

/// Opens this CPU's interface to all priorities and gives its SGIs and PPIs the default one.
pub fn enable_cpu_interface() {
    for word in 0..8 {
        mmio::write32(distributor(IPRIORITYR + word * 4), PRIORITY_DEFAULT * 0x0101_0101);
    }
    // SGIs are always enabled on some implementations and not on Xen's.
    mmio::write32(distributor(ISENABLER), 0xffff);
    set_priority_mask(0xff);
    set_end_mode(EndMode::DropAndDeactivate);
}

/// The effect of the end of an interrupt (GICC_CTLR.EOImode).
#[derive(Clone, Copy)]
pub enum EndMode {
    DropAndDeactivate,
    Drop,
}

pub fn set_end_mode(mode: EndMode) {
    let mode = match mode {
        EndMode::DropAndDeactivate => 0,
        EndMode::Drop => GICC_CTLR_EOI_MODE,
    };
    mmio::write32(cpu_interface(GICC_CTLR), GICC_CTLR_ENABLE | mode);
}

pub fn set_priority_mask(mask: u32) {
    mmio::write32(cpu_interface(GICC_PMR), mask);
}

pub fn acknowledge() -> u32 {
    mmio::read32(cpu_interface(GICC_IAR))
}

pub fn end(acknowledged: u32) {
    mmio::write32(cpu_interface(GICC_EOIR), acknowledged);
}

/// Deactivates an interrupt whose end only dropped the priority.
pub fn deactivate(acknowledged: u32) {
    mmio::write32(cpu_interface(GICC_DIR), acknowledged);
}

/// The interrupt that would be acknowledged next.
pub fn highest_pending() -> u32 {
    mmio::read32(cpu_interface(GICC_HPPIR)) & INTID_MASK
}

/// Reads a 32-bit register of one bit per interrupt.
pub fn bit(register: u32, intid: u32) -> bool {
    mmio::read32(distributor(register + intid / 32 * 4)) >> (intid % 32) & 1 != 0
}

/// Writes one to `intid`'s bit of a set or clear register.
pub fn write_bit(register: u32, intid: u32) {
    mmio::write32(distributor(register + intid / 32 * 4), 1 << (intid % 32));
}

pub fn enable(intid: u32) {
    write_bit(ISENABLER, intid);
}

pub fn disable(intid: u32) {
    write_bit(ICENABLER, intid);
}

pub fn set_priority(intid: u32, priority: u32) {
    mmio::write8(distributor(IPRIORITYR + intid), priority);
}

pub fn set_targets(intid: u32, cpus: u32) {
    mmio::write8(distributor(ITARGETSR + intid), cpus);
}

/// GICD_SGIR's target list filter (IHI 0048B 4.3.15).
#[derive(Clone, Copy)]
pub enum Target {
    List(u32),
    Others,
    Myself,
}

pub fn send_sgi(target: Target, intid: u32) {
    let (filter, list) = match target {
        Target::List(list) => (0, list),
        Target::Others => (1, 0),
        Target::Myself => (2, 0),
    };
    mmio::write32(distributor(SGIR), filter << 24 | list << 16 | intid);
}

/// Nothing pending, nothing active, the distributor and this vCPU's interface as they were at first.
pub fn quiet() {
    enable_distributor();
    for word in 0..4 {
        mmio::write32(distributor(CPENDSGIR + word * 4), u32::MAX);
    }
    mmio::write32(distributor(ICENABLER), 0xffff_0000);
    mmio::write32(distributor(ICPENDR), 0xffff_0000);
    mmio::write32(distributor(ICACTIVER), u32::MAX);
    enable_cpu_interface();
    for _ in 0..64 {
        let value = acknowledge();
        if value & INTID_MASK == SPURIOUS {
            break;
        }
        end(value);
    }
}
