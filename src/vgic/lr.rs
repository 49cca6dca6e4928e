//! List registers: their format, and the trait of the device.
//!
//! `GICH_LRn` (IHI 0048B 5.3.8):
//!
//! | bits | field | |
//! |---|---|---|
//! | 31 | HW | end of the virtual interrupt deactivates physical interrupt PhysicalID |
//! | 30 | Grp1 | always 0: guests see Group 0 only, as under Xen |
//! | 29:28 | State | bit 28 pending, bit 29 active |
//! | 27:23 | Priority | the upper five bits of eight |
//! | 19:10 | PhysicalID | if HW is 1 |
//! | 19 | EOI | if HW is 0: maintenance interrupt at the end of the interrupt |
//! | 12:10 | CPUID | if HW is 0 and it is an SGI: sender |
//! | 9:0 | VirtualID | unique among the list registers of a CPU interface |
//!
//! An interrupt with HW set must not be both pending and active: its first end would deactivate the physical interrupt.

/// Maximum number of list registers used. ARMv7 cores have four; the architecture allows 64 (IHI 0048B 5.3.2).
pub(super) const MAX_LRS: usize = 4;

const HW: u32 = 1 << 31;
const ACTIVE: u32 = 1 << 29;
const PENDING: u32 = 1 << 28;
const EOI: u32 = 1 << 19;
const PRIORITY_SHIFT: u32 = 23;
#[cfg(test)]
const PRIORITY: u32 = 0x1F << PRIORITY_SHIFT;
const PHYSICAL_SHIFT: u32 = 10;
const PHYSICAL: u32 = 0x3FF << PHYSICAL_SHIFT;
const CPUID_SHIFT: u32 = 10;
const VIRTUAL: u32 = 0x3FF;

/// The list registers of this CPU, and the GIC state that moves with them.
///
/// Indices are below [`count`](Self::count). Call it only on the CPU on which the vCPU is or will be loaded.
pub trait ListRegisters {
    /// Returns the number of list registers (`GICH_VTR.ListRegs` + 1).
    fn count(&self) -> usize;
    /// Reads `GICH_LRn`.
    fn read(&self, index: usize) -> u32;
    /// Writes `GICH_LRn`.
    fn write(&mut self, index: usize, value: u32);
    /// Replaces the maintenance interrupt enables in `GICH_HCR`.
    fn set_maintenance(&mut self, want: Maintenance);
    /// Reads and clears `GICH_HCR.EOICount`: the number of ends of interrupts without a list register since the last
    /// call.
    fn take_eoi_count(&mut self) -> u32;
    /// Deactivates physical interrupt `pirq` (`GICC_DIR`).
    fn deactivate(&mut self, pirq: u16);
}

/// A set of maintenance interrupt enables, as bits of `GICH_HCR` (IHI 0048B 5.3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Maintenance(u32);

impl Maintenance {
    /// No maintenance interrupts except those of list registers with the EOI bit.
    pub const NONE: Self = Self(0);
    /// LRENPIE: the guest ended an interrupt that has no list register.
    pub const NOT_PRESENT: Self = Self(1 << 2);
    /// NPIE: no list register is pending. Enabled while another interrupt waits. Unlike UIE it is not asserted at once
    /// with a single list register, as the refill always leaves a pending one.
    pub const NO_PENDING: Self = Self(1 << 3);

    /// Returns the bits to set in `GICH_HCR`, without En.
    pub const fn hcr_bits(self) -> u32 {
        self.0
    }

    /// Returns the union of this and `other`.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns whether this includes all of `other`.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Contents of a list register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub(super) struct Lr(u32);

impl Lr {
    /// An empty list register.
    pub const FREE: Self = Self(0);

    /// Wraps a value read from `GICH_LRn`.
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// Returns a list register for an interrupt without HW bit, neither pending nor active.
    pub const fn software(virq: u16, priority: u8) -> Self {
        Self(virq as u32 & VIRTUAL | (priority as u32 >> 3) << PRIORITY_SHIFT)
    }

    /// Returns the value for `GICH_LRn`.
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// Returns the virtual INTID.
    pub const fn virq(self) -> u16 {
        (self.0 & VIRTUAL) as u16
    }

    /// Returns the bank number of the interrupt, and its bit there.
    pub const fn place(self) -> (u32, u32) {
        (self.virq() as u32 / 32, self.virq() as u32 % 32)
    }

    /// Returns whether the end of the interrupt deactivates a physical one.
    pub const fn is_hw(self) -> bool {
        self.0 & HW != 0
    }

    /// Returns whether the pending bit is set.
    pub const fn is_pending(self) -> bool {
        self.0 & PENDING != 0
    }

    /// Returns whether the active bit is set.
    pub const fn is_active(self) -> bool {
        self.0 & ACTIVE != 0
    }

    /// Returns whether the guest could take it now.
    pub const fn is_only_pending(self) -> bool {
        self.is_pending() && !self.is_active()
    }

    /// Returns whether it is neither pending nor active.
    pub const fn is_free(self) -> bool {
        self.0 & (PENDING | ACTIVE) == 0
    }

    /// Returns whether it requests a maintenance interrupt at the end, asserted until the register is rewritten.
    pub const fn reports_end(self) -> bool {
        self.0 & (HW | EOI) == EOI
    }

    /// Returns the number of the vCPU that sent the SGI.
    pub const fn source(self) -> u8 {
        (self.0 >> CPUID_SHIFT & 7) as u8
    }

    /// Adds the sender of an SGI.
    pub const fn sent_by(self, source: u8) -> Self {
        Self(self.0 | (source as u32 & 7) << CPUID_SHIFT)
    }

    /// Sets the pending bit.
    pub const fn with_pending(self) -> Self {
        Self(self.0 | PENDING)
    }

    /// Sets the active bit.
    pub const fn with_active(self) -> Self {
        Self(self.0 | ACTIVE)
    }

    /// Requests a maintenance interrupt at the end. Not allowed with HW set, where the bit belongs to PhysicalID.
    pub const fn reporting_end(self) -> Self {
        Self(self.0 | EOI)
    }

    /// Sets HW, so that the end of the interrupt deactivates `pirq`.
    pub const fn linked(self, pirq: u16) -> Self {
        Self(self.0 | HW | (pirq as u32) << PHYSICAL_SHIFT & PHYSICAL)
    }
}

/// Accessors for the tests' fake list registers.
#[cfg(test)]
impl Lr {
    /// Returns the priority, with the three unimplemented low bits 0.
    pub const fn priority(self) -> u8 {
        (((self.0 & PRIORITY) >> PRIORITY_SHIFT) << 3) as u8
    }

    /// Clears the pending bit.
    pub const fn without_pending(self) -> Self {
        Self(self.0 & !PENDING)
    }

    /// Clears the active bit.
    pub const fn without_active(self) -> Self {
        Self(self.0 & !ACTIVE)
    }
}
