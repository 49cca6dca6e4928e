//! Identifiers of physical CPUs, and sets of them.
//!
//! A [`CpuId`] is the hypervisor's own dense index (0 is the boot CPU), not an MPIDR affinity and not a GIC interface
//! number; those are looked up by it. Every id is below [`MAX_CPUS`], so indexing a per-CPU array cannot fail.

use core::fmt;

/// Maximum number of physical CPUs: a GICv2 has eight CPU interfaces (IHI 0048B 1.2.2).
pub const MAX_CPUS: usize = 8;

const ALL_BITS: u32 = (1 << MAX_CPUS) - 1;

const _: () = assert!(MAX_CPUS.is_power_of_two() && MAX_CPUS < 32);

/// A physical CPU, by logical index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct CpuId(u8);

impl CpuId {
    /// The boot CPU.
    pub const BOOT: Self = Self(0);

    /// Returns the CPU with logical index `n`, or `None` beyond [`MAX_CPUS`].
    pub const fn new(n: u32) -> Option<Self> {
        if n < MAX_CPUS as u32 {
            Some(Self(n as u8))
        } else {
            None
        }
    }

    /// Returns the index into a `[T; MAX_CPUS]`. The mask has no effect; it removes the bounds check.
    pub const fn index(self) -> usize {
        self.0 as usize & (MAX_CPUS - 1)
    }

    /// Returns the logical index, for messages and the ABI.
    pub const fn raw(self) -> u32 {
        self.0 as u32
    }

    /// Returns every possible CPU, in order.
    pub fn all() -> CpuIter {
        CpuSet::ALL.iter()
    }
}

impl fmt::Display for CpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cpu{}", self.0)
    }
}

/// A set of physical CPUs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct CpuSet(u32);

impl CpuSet {
    /// No CPU.
    pub const EMPTY: Self = Self(0);
    /// Every possible CPU.
    pub const ALL: Self = Self(ALL_BITS);

    /// Returns the CPUs whose bits are set. Ignores bits beyond [`MAX_CPUS`].
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits & ALL_BITS)
    }

    /// Returns the set of just `cpu`.
    pub const fn of(cpu: CpuId) -> Self {
        Self(1 << cpu.index())
    }

    /// Returns the set as bits, bit n for CPU n.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Returns whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the number of CPUs in the set.
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Returns whether `cpu` is in the set.
    pub const fn contains(self, cpu: CpuId) -> bool {
        self.0 & (1 << cpu.index()) != 0
    }

    /// Returns the set with `cpu` added.
    pub const fn with(self, cpu: CpuId) -> Self {
        Self(self.0 | 1 << cpu.index())
    }

    /// Returns the set without `cpu`.
    pub const fn without(self, cpu: CpuId) -> Self {
        Self(self.0 & !(1 << cpu.index()))
    }

    /// Adds `cpu`.
    pub const fn insert(&mut self, cpu: CpuId) {
        self.0 |= 1 << cpu.index();
    }

    /// Removes `cpu`.
    pub const fn remove(&mut self, cpu: CpuId) {
        self.0 &= !(1 << cpu.index());
    }

    /// Returns the CPUs in both sets.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Returns the CPUs in either set.
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns the CPUs of this set that are not in `other`.
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Returns the lowest CPU of the set.
    pub const fn first(self) -> Option<CpuId> {
        if self.0 == 0 {
            None
        } else {
            Some(CpuId(self.0.trailing_zeros() as u8))
        }
    }

    /// Returns the CPUs of the set, lowest first.
    pub const fn iter(self) -> CpuIter {
        CpuIter(self)
    }
}

impl fmt::Debug for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(CpuId::raw)).finish()
    }
}

impl IntoIterator for CpuSet {
    type Item = CpuId;
    type IntoIter = CpuIter;
    fn into_iter(self) -> CpuIter {
        self.iter()
    }
}

impl FromIterator<CpuId> for CpuSet {
    fn from_iter<I: IntoIterator<Item = CpuId>>(cpus: I) -> Self {
        cpus.into_iter().fold(Self::EMPTY, Self::with)
    }
}

/// Iterator over a [`CpuSet`], lowest CPU first.
#[derive(Clone, Debug)]
pub struct CpuIter(CpuSet);

impl Iterator for CpuIter {
    type Item = CpuId;

    fn next(&mut self) -> Option<CpuId> {
        let cpu = self.0.first()?;
        self.0.remove(cpu);
        Some(cpu)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let n = self.0.len() as usize;
        (n, Some(n))
    }
}

impl ExactSizeIterator for CpuIter {}

#[cfg(test)]
mod tests {
    use super::{CpuId, CpuSet, MAX_CPUS};

    #[test]
    fn a_cpu_beyond_the_last_does_not_exist() {
        assert!(CpuId::new(MAX_CPUS as u32 - 1).is_some());
        assert!(CpuId::new(MAX_CPUS as u32).is_none());
        assert!(CpuId::new(u32::MAX).is_none());
        assert_eq!(CpuSet::from_bits(u32::MAX), CpuSet::ALL);
        assert_eq!(CpuSet::ALL.len(), MAX_CPUS as u32);
    }

    #[test]
    fn a_set_iterates_its_cpus_in_order() {
        let set = CpuSet::from_bits(0b1001_0110);
        assert_eq!(set.iter().map(CpuId::raw).collect::<Vec<_>>(), [1, 2, 4, 7]);
        assert_eq!(set.iter().collect::<CpuSet>(), set);
        assert_eq!(CpuSet::EMPTY.first(), None);
        assert_eq!(CpuId::all().count(), MAX_CPUS);
    }

    #[test]
    fn adding_and_taking_out_are_inverse() {
        let two = CpuId::new(2).unwrap();
        let set = CpuSet::of(CpuId::BOOT).with(two);
        assert!(set.contains(two));
        assert_eq!(set.without(two), CpuSet::of(CpuId::BOOT));
        assert_eq!(
            set.minus(CpuSet::of(two)).and(CpuSet::of(two)),
            CpuSet::EMPTY
        );
        assert_eq!(set.minus(CpuSet::of(two)).or(CpuSet::of(two)), set);
    }
}
