//! Identifiers of domains, vCPUs and interrupts.

use core::fmt;

pub use armv7::gic::{MAX_INTIDS, MAX_SPIS};

/// Maximum number of vCPUs of a domain: a GICv2 distributor has eight CPU interfaces (IHI 0048B 1.4).
pub const MAX_VCPUS: u8 = armv7::gic::MAX_CPU_INTERFACES;

/// A domain id (`domid_t`, xen/include/public/xen.h).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct DomId(pub u16);

impl DomId {
    /// The control domain.
    pub const DOM0: Self = Self(0);
    /// The first reserved id.
    pub const FIRST_RESERVED: Self = Self(0x7FF0);
    /// The calling domain.
    pub const SELF: Self = Self(0x7FF0);
    /// Stands for the owner of I/O pages.
    pub const IO: Self = Self(0x7FF1);
    /// Stands for the owner of the hypervisor's pages.
    pub const XEN: Self = Self(0x7FF2);
    /// Stands for the owner of shared (copy on write) pages.
    pub const COW: Self = Self(0x7FF3);
    /// No domain.
    pub const INVALID: Self = Self(0x7FF4);
    /// The idle domain.
    pub const IDLE: Self = Self(0x7FFF);
}

impl fmt::Display for DomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "d{}", self.0)
    }
}

/// Number of a vCPU within its domain; always below [`MAX_VCPUS`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct VcpuId(u8);

impl VcpuId {
    /// The boot vCPU.
    pub const ZERO: Self = Self(0);

    /// Returns the vCPU with number `n`, or `None` from [`MAX_VCPUS`] on.
    pub const fn new(n: u32) -> Option<Self> {
        if n < MAX_VCPUS as u32 {
            Some(Self(n as u8))
        } else {
            None
        }
    }

    /// Returns the number.
    pub const fn raw(self) -> u8 {
        self.0
    }

    /// Returns the number as an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A set of vCPUs of one domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub struct VcpuSet(pub u8);

impl VcpuSet {
    /// No vCPU.
    pub const EMPTY: Self = Self(0);

    /// Returns the set of just `vcpu`.
    pub const fn only(vcpu: VcpuId) -> Self {
        Self(1 << (vcpu.raw() % MAX_VCPUS))
    }

    /// Returns whether `vcpu` is in the set.
    pub const fn contains(self, vcpu: VcpuId) -> bool {
        self.0 & Self::only(vcpu).0 != 0
    }

    /// Returns the members that are not in `other`.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Returns the members, lowest first.
    pub fn iter(self) -> impl Iterator<Item = VcpuId> {
        let mut left = u32::from(self.0);
        core::iter::from_fn(move || {
            let vcpu = VcpuId::new(left.trailing_zeros())?;
            left &= left.wrapping_sub(1);
            Some(vcpu)
        })
    }
}

impl core::ops::BitOr for VcpuSet {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl core::ops::BitOrAssign for VcpuSet {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// INTID, physical or virtual: 0 to 1019 (IHI 0048B 2.2.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct IntId(u16);

impl IntId {
    /// The virtual timer's PPI, physical and virtual (Arm generic timer: PPI 11 of a Cortex-A15).
    pub const VIRTUAL_TIMER: Self = Self(27);
    /// The physical timer's PPI, as guests see it.
    pub const PHYSICAL_TIMER: Self = Self(30);
    /// The performance monitors' PPI, as guests see it.
    pub const MONITORS: Self = Self(23);

    /// Returns the interrupt with number `n`, or `None` from [`MAX_INTIDS`] on.
    pub const fn new(n: u32) -> Option<Self> {
        if n < MAX_INTIDS {
            Some(Self(n as u16))
        } else {
            None
        }
    }

    /// Returns the number.
    pub const fn raw(self) -> u16 {
        self.0
    }

    /// Returns whether it is an SGI: 0 to 15.
    pub const fn is_sgi(self) -> bool {
        self.0 < 16
    }

    /// Returns whether it is a PPI: 16 to 31.
    pub const fn is_ppi(self) -> bool {
        self.0 >= 16 && self.0 < 32
    }

    /// Returns whether it is an SPI: 32 to 1019.
    pub const fn is_spi(self) -> bool {
        self.0 >= 32
    }
}

/// A unit, a vCPU's entry in the scheduler: an index into its table, reused after the vCPU is removed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct UnitId(pub u16);

impl UnitId {
    /// Returns the index.
    pub const fn raw(self) -> u16 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::IntId;

    #[test]
    fn special_intids_are_no_interrupts() {
        assert!(IntId::new(1019).is_some_and(IntId::is_spi));
        assert_eq!(IntId::new(1020), None);
    }

    #[test]
    fn each_intid_is_of_one_kind() {
        for id in (0..1020).filter_map(IntId::new) {
            let kinds = [id.is_sgi(), id.is_ppi(), id.is_spi()];
            assert_eq!(kinds.iter().filter(|kind| **kind).count(), 1);
        }
    }
}
