//! The distributor (IHI 0048B 4.3).

use crate::cpu::CpuId;
use crate::mmio::Window;

const CTLR: usize = 0x000;
const TYPER: usize = 0x004;
const IGROUPR: usize = 0x080;
const ISENABLER: usize = 0x100;
const ICENABLER: usize = 0x180;
const ISPENDR: usize = 0x200;
const ICPENDR: usize = 0x280;
const ISACTIVER: usize = 0x300;
const ICACTIVER: usize = 0x380;
const IPRIORITYR: usize = 0x400;
const ITARGETSR: usize = 0x800;
const ICFGR: usize = 0xC00;
const SGIR: usize = 0xF00;
const CPENDSGIR: usize = 0xF10;

/// Priority of guests' interrupts. The hypervisor's own have a higher one, a lower value.
const PRIORITY_GUEST: u8 = 0xA0;
const PRIORITY_HYP: u8 = 0x80;

/// Trigger of an interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trigger {
    /// Level-sensitive: pending while the line is asserted.
    Level,
    /// Edge-triggered: pending from an edge on.
    Edge,
}

/// The distributor's registers.
pub struct Distributor {
    regs: Window,
    lines: u32,
}

impl Distributor {
    pub(super) fn new(regs: Window) -> Self {
        let lines = ((regs.read32(TYPER) & 0x1F) + 1) * 32;
        let dist = Self {
            regs,
            lines: lines.min(super::MAX_INTIDS),
        };
        dist.regs.write32(CTLR, 0);
        for n in 1..dist.lines as usize / 32 {
            dist.regs.write32(ICENABLER + n * 4, !0);
            dist.regs.write32(ICPENDR + n * 4, !0);
            dist.regs.write32(ICACTIVER + n * 4, !0);
            dist.regs.write32(IGROUPR + n * 4, 0);
        }
        for n in 8..dist.lines as usize / 4 {
            dist.regs
                .write32(IPRIORITYR + n * 4, u32::from_ne_bytes([PRIORITY_GUEST; 4]));
            dist.regs.write32(ITARGETSR + n * 4, 0x0101_0101);
        }
        dist.init_cpu();
        dist.regs.write32(CTLR, 1);
        dist
    }

    /// Sets up this CPU's banked interrupts: SGIs enabled, PPIs disabled. Clears pending, active and group state of a
    /// boot loader.
    pub fn init_cpu(&self) {
        self.regs.write32(ICENABLER, !0);
        self.regs.write32(ICACTIVER, !0);
        self.regs.write32(ICPENDR, 0xFFFF_0000);
        self.regs.write32(IGROUPR, 0);
        for n in 0..4 {
            self.regs.write32(CPENDSGIR + n * 4, !0);
            self.regs
                .write32(IPRIORITYR + n * 4, u32::from_ne_bytes([PRIORITY_HYP; 4]));
        }
        for n in 4..8 {
            self.regs
                .write32(IPRIORITYR + n * 4, u32::from_ne_bytes([PRIORITY_GUEST; 4]));
        }
        self.regs.write32(ISENABLER, 0x0000_FFFF);
    }

    /// Returns one past the highest INTID.
    pub fn lines(&self) -> u32 {
        self.lines
    }

    /// Returns this CPU's bit in target masks, from a banked register (IHI 0048B 4.3.12).
    pub fn target_mask(&self) -> u8 {
        self.regs.read8(ITARGETSR)
    }

    /// Enables `intid`, on this CPU if it is a PPI.
    pub fn enable(&self, intid: u32) {
        self.set_bit(ISENABLER, intid);
    }

    /// Disables `intid`, on this CPU if it is a PPI.
    pub fn disable(&self, intid: u32) {
        self.set_bit(ICENABLER, intid);
    }

    /// Sets the hypervisor's priority, above the guests', for `intid`.
    pub fn prefer(&self, intid: u32) {
        if intid < self.lines {
            self.regs.write8(IPRIORITYR + intid as usize, PRIORITY_HYP);
        }
    }

    /// Makes `intid` active.
    pub fn set_active(&self, intid: u32) {
        self.set_bit(ISACTIVER, intid);
    }

    /// Makes `intid` inactive.
    pub fn clear_active(&self, intid: u32) {
        self.set_bit(ICACTIVER, intid);
    }

    /// Makes `intid` pending.
    pub fn set_pending(&self, intid: u32) {
        self.set_bit(ISPENDR, intid);
    }

    /// Clears the pending state of `intid`.
    pub fn clear_pending(&self, intid: u32) {
        self.set_bit(ICPENDR, intid);
    }

    /// Sets the CPUs that get the SPI `intid`, as interface bits.
    pub fn set_targets(&self, intid: u32, targets: u8) {
        if (32..self.lines).contains(&intid) {
            self.regs.write8(ITARGETSR + intid as usize, targets);
        }
    }

    /// Returns the CPUs that get the SPI `intid`, as interface bits.
    pub fn targets(&self, intid: u32) -> u8 {
        match (32..self.lines).contains(&intid) {
            true => self.regs.read8(ITARGETSR + intid as usize),
            false => 0,
        }
    }

    /// Sends the SPIs that go to the CPU interface `from` alone to `to`.
    pub fn move_targets(&self, from: u8, to: u8) {
        for intid in (32..self.lines).filter(|intid| self.targets(*intid) == from) {
            self.set_targets(intid, to);
        }
    }

    /// Sets the trigger of `intid`, which must be disabled (IHI 0048B 4.3.13).
    pub fn set_trigger(&self, intid: u32, trigger: Trigger) {
        if !(16..self.lines).contains(&intid) {
            return;
        }
        let register = ICFGR + intid as usize / 16 * 4;
        let bit = 2 << (intid % 16 * 2);
        let old = self.regs.read32(register);
        let new = match trigger {
            Trigger::Edge => old | bit,
            Trigger::Level => old & !bit,
        };
        if new != old {
            self.regs.write32(register, new);
        }
    }

    /// Sends SGI `id` to the CPUs whose interface bits are in `targets`.
    pub fn send_sgi(&self, id: u32, targets: u8) {
        // Earlier stores must be visible to the receiver before the interrupt.
        crate::barrier::dsb_ishst();
        self.regs.write32(SGIR, u32::from(targets) << 16 | id & 0xF);
    }

    /// Sends SGI `id` to all CPUs except this one.
    pub fn send_sgi_to_others(&self, id: u32) {
        const ALL_BUT_SELF: u32 = 1 << 24;
        crate::barrier::dsb_ishst();
        self.regs.write32(SGIR, ALL_BUT_SELF | id & 0xF);
    }

    fn set_bit(&self, bank: usize, intid: u32) {
        if intid < self.lines {
            self.regs
                .write32(bank + intid as usize / 32 * 4, 1 << (intid % 32));
        }
    }
}

/// Interface bit of each CPU, recorded as CPUs start.
#[derive(Debug, Default)]
pub struct TargetMasks([core::sync::atomic::AtomicU8; crate::cpu::MAX_CPUS]);

impl TargetMasks {
    /// Returns masks without CPUs.
    pub const fn new() -> Self {
        Self([const { core::sync::atomic::AtomicU8::new(0) }; crate::cpu::MAX_CPUS])
    }

    /// Records the bit of `cpu`.
    pub fn set(&self, cpu: CpuId, mask: u8) {
        if let Some(entry) = self.0.get(cpu.index()) {
            entry.store(mask, core::sync::atomic::Ordering::Release);
        }
    }

    /// Returns the bit of `cpu`; 0 if it has not started.
    pub fn get(&self, cpu: CpuId) -> u8 {
        self.0
            .get(cpu.index())
            .map_or(0, |entry| entry.load(core::sync::atomic::Ordering::Acquire))
    }
}
