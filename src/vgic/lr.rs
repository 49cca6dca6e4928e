//! List registers: what one says, and what they are as a device.
//!
//! `GICH_LRn` (IHI 0048B 5.3.8):
//!
//! | bits | field | |
//! |---|---|---|
//! | 31 | HW | the guest's end of the interrupt deactivates physical interrupt PhysicalID |
//! | 30 | Grp1 | always 0: guests see Group 0 only, as under Xen |
//! | 29:28 | State | bit 28 pending, bit 29 active |
//! | 27:23 | Priority | the upper five bits of eight |
//! | 19:10 | PhysicalID | when HW is 1 |
//! | 19 | EOI | when HW is 0: a maintenance interrupt at the end of the interrupt |
//! | 12:10 | CPUID | when HW is 0 and it is an SGI: who sent it |
//! | 9:0 | VirtualID | unique among the list registers of a CPU interface |
//!
//! An interrupt with HW set must not be pending and active: hardware would deactivate the physical interrupt at the
//! first end.

/// List registers used at most. All ARMv7 cores have four; the architecture allows 64 (IHI 0048B 5.3.2).
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

/// The list registers of the physical CPU that runs us, and the little else of its GIC that moves with them.
///
/// Indices are below [`count`](Self::count). All calls are made on the CPU on which the vCPU is or will be loaded.
pub trait ListRegisters {
    /// Returns how many there are (`GICH_VTR.ListRegs` + 1).
    fn count(&self) -> usize;
    /// `GICH_LRn`.
    fn read(&self, index: usize) -> u32;
    /// `GICH_LRn`.
    fn write(&mut self, index: usize, value: u32);
    /// Replaces the maintenance enables in `GICH_HCR`.
    fn set_maintenance(&mut self, want: Maintenance);
    /// `GICH_HCR.EOICount`: ends of interrupts that were in no list register, since the last call, which clears it.
    fn take_eoi_count(&mut self) -> u32;
    /// Deactivates physical interrupt `pirq` (`GICC_DIR`).
    fn deactivate(&mut self, pirq: u16);
}

/// Maintenance interrupts to ask for, as bits of `GICH_HCR` (IHI 0048B 5.3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Maintenance(u32);

impl Maintenance {
    /// None but those of list registers with the EOI bit.
    pub const NONE: Self = Self(0);
    /// LRENPIE: the guest ended an interrupt that is in no list register.
    pub const NOT_PRESENT: Self = Self(1 << 2);
    /// NPIE: no list register is pending. Asked for while more waits: a refill always leaves one pending then, so that,
    /// unlike UIE, it is not asserted at once even with a single list register.
    pub const NO_PENDING: Self = Self(1 << 3);

    /// Returns the bits for `GICH_HCR`, to go with its En bit.
    pub const fn hcr_bits(self) -> u32 {
        self.0
    }

    /// Both this and `other`.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns whether all of `other` is asked for.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Contents of a list register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub(super) struct Lr(u32);

impl Lr {
    /// Holds nothing.
    pub const FREE: Self = Self(0);

    /// The state that hardware shows.
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// An interrupt without state that ends in software.
    pub const fn software(virq: u16, priority: u8) -> Self {
        Self(virq as u32 & VIRTUAL | (priority as u32 >> 3) << PRIORITY_SHIFT)
    }

    /// Returns the value for the hardware.
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// Returns its virtual INTID.
    pub const fn virq(self) -> u16 {
        (self.0 & VIRTUAL) as u16
    }

    /// Returns the number of its bank, and its bit there.
    pub const fn place(self) -> (u32, u32) {
        (self.virq() as u32 / 32, self.virq() as u32 % 32)
    }

    /// Returns whether its end deactivates a physical interrupt.
    pub const fn is_hw(self) -> bool {
        self.0 & HW != 0
    }

    /// Returns whether it is pending, active or not.
    pub const fn is_pending(self) -> bool {
        self.0 & PENDING != 0
    }

    /// Returns whether it is active, pending or not.
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

    /// Returns whether it asks for a maintenance interrupt, which lasts until it is rewritten.
    pub const fn reports_end(self) -> bool {
        self.0 & (HW | EOI) == EOI
    }

    /// Returns the number of the vCPU that sent the SGI.
    pub const fn source(self) -> u8 {
        (self.0 >> CPUID_SHIFT & 7) as u8
    }

    /// Sent by vCPU number `source`, for an SGI.
    pub const fn sent_by(self, source: u8) -> Self {
        Self(self.0 | (source as u32 & 7) << CPUID_SHIFT)
    }

    /// Pending also.
    pub const fn with_pending(self) -> Self {
        Self(self.0 | PENDING)
    }

    /// Active also.
    pub const fn with_active(self) -> Self {
        Self(self.0 | ACTIVE)
    }

    /// With a maintenance interrupt at its end. Not for one with HW set, whose PhysicalID has the bit.
    pub const fn reporting_end(self) -> Self {
        Self(self.0 | EOI)
    }

    /// With its end deactivating `pirq`.
    pub const fn linked(self, pirq: u16) -> Self {
        Self(self.0 | HW | (pirq as u32) << PHYSICAL_SHIFT & PHYSICAL)
    }
}

/// For the fake list registers of the tests.
#[cfg(test)]
impl Lr {
    /// Returns its priority, with the three low bits that are not implemented as 0.
    pub const fn priority(self) -> u8 {
        (((self.0 & PRIORITY) >> PRIORITY_SHIFT) << 3) as u8
    }

    /// Not pending.
    pub const fn without_pending(self) -> Self {
        Self(self.0 & !PENDING)
    }

    /// Not active.
    pub const fn without_active(self) -> Self {
        Self(self.0 & !ACTIVE)
    }
}
