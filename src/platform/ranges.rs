//! Ranges of machine memory: half-open intervals within 40 address bits, and sets of them.

use alloc::vec::Vec;
use core::fmt;

use armv7::addr::{ADDR_BITS, PAGE_SIZE, PhysAddr};

const PAGE: u64 = PAGE_SIZE as u64;
/// One past the highest machine address.
pub const ADDR_END: u64 = 1 << ADDR_BITS;

/// A non-empty range of machine addresses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PhysRange {
    start: PhysAddr,
    size: u64,
}

impl PhysRange {
    /// Returns the `size` bytes at `start`; `None` if empty or beyond 40 bits.
    pub const fn new(start: u64, size: u64) -> Option<Self> {
        let Some(addr) = PhysAddr::new(start) else {
            return None;
        };
        if size == 0 || size > ADDR_END - start {
            return None;
        }
        Some(Self { start: addr, size })
    }

    /// Returns the bytes from `start` to before `end`; `None` if empty or beyond 40 bits.
    pub const fn from_ends(start: u64, end: u64) -> Option<Self> {
        match end.checked_sub(start) {
            Some(size) => Self::new(start, size),
            None => None,
        }
    }

    /// Returns the first address.
    pub const fn start(&self) -> PhysAddr {
        self.start
    }

    /// Returns the first address, as a number.
    pub const fn base(&self) -> u64 {
        self.start.raw()
    }

    /// Returns the number of bytes, never 0.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Returns one past the last address. It may be 2^40, which [`PhysAddr`] cannot hold.
    pub const fn end(&self) -> u64 {
        self.start.raw() + self.size
    }

    /// Returns whether both share a byte.
    pub const fn overlaps(&self, other: &Self) -> bool {
        self.base() < other.end() && other.base() < self.end()
    }

    /// Returns whether every byte of `other` is in this range.
    pub const fn contains(&self, other: &Self) -> bool {
        self.base() <= other.base() && other.end() <= self.end()
    }

    /// Returns the whole pages that touch the range.
    pub const fn pages_outward(&self) -> Self {
        let start = self.base() & !(PAGE - 1);
        let end = (self.end() + PAGE - 1) & !(PAGE - 1);
        match Self::from_ends(start, end) {
            Some(range) => range,
            None => *self,
        }
    }

    /// Returns the whole pages inside the range, if any.
    pub const fn pages_inward(&self) -> Option<Self> {
        self.aligned_inward(PAGE)
    }

    /// Returns the part whose ends are multiples of `align`, a power of two.
    pub const fn aligned_inward(&self, align: u64) -> Option<Self> {
        let start = (self.base() + align - 1) & !(align - 1);
        Self::from_ends(start, self.end() & !(align - 1))
    }
}

impl fmt::Display for PhysRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}-{:#x}", self.base(), self.end())
    }
}

/// Sorts a list, not stably. Shell sort: each use of the library's costs kilobytes of code, and insertion sort takes
/// minutes for as many entries as a tree can hold.
pub fn sort_by_key<T, K: Ord>(items: &mut [T], key: impl Fn(&T) -> K) {
    let mut gap = 1;
    while gap < items.len() / 3 {
        gap = gap * 3 + 1;
    }
    while gap > 0 {
        for end in gap..items.len() {
            for at in (gap..=end).rev().step_by(gap) {
                match items.get_mut(at - gap..=at) {
                    Some([before, .., after]) if key(after) < key(before) => {
                        core::mem::swap(before, after);
                    }
                    _ => break,
                }
            }
        }
        gap /= 3;
    }
}

/// Sorts the ranges and merges those that touch or overlap.
pub fn merge(mut ranges: Vec<PhysRange>) -> Vec<PhysRange> {
    sort_by_key(&mut ranges, |range| (range.base(), range.size()));
    let mut merged: Vec<PhysRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.base() <= last.end() => {
                last.size = range.end().max(last.end()) - last.base();
            }
            _ => merged.push(range),
        }
    }
    merged
}

/// Returns `from` without `holes`, sorted and merged. Both may be in any order.
pub fn subtract(from: &[PhysRange], holes: &[PhysRange]) -> Vec<PhysRange> {
    let holes = merge(holes.to_vec());
    let mut left = Vec::new();
    let mut next_hole = 0;
    for range in merge(from.to_vec()) {
        let mut at = range.base();
        // Both lists are sorted, so a hole that ends before this range cannot touch a later one.
        while holes.get(next_hole).is_some_and(|h| h.end() <= at) {
            next_hole += 1;
        }
        for hole in holes.iter().skip(next_hole) {
            if hole.base() >= range.end() {
                break;
            }
            left.extend(PhysRange::from_ends(at, hole.base()));
            at = at.max(hole.end());
        }
        left.extend(PhysRange::from_ends(at, range.end()));
    }
    left
}

#[cfg(test)]
mod tests {
    use super::{ADDR_END, PhysRange, merge, subtract};
    use alloc::collections::BTreeSet;
    use alloc::vec::Vec;
    use proptest::prelude::{Strategy, prop_assert_eq, proptest};

    fn range(start: u64, size: u64) -> PhysRange {
        PhysRange::new(start, size).unwrap()
    }

    #[test]
    fn a_range_is_never_empty_and_never_beyond_40_bits() {
        assert!(PhysRange::new(0, 0).is_none());
        assert!(PhysRange::new(ADDR_END, 1).is_none());
        assert!(PhysRange::new(ADDR_END - 1, 2).is_none());
        assert!(PhysRange::new(1, u64::MAX).is_none());
        assert!(PhysRange::from_ends(2, 1).is_none());
        assert_eq!(range(ADDR_END - 1, 1).pages_outward().end(), ADDR_END);
    }

    #[test]
    fn pages_grow_outward_and_shrink_inward() {
        let odd = range(0x1800, 0x2000);
        assert_eq!(odd.pages_outward(), range(0x1000, 0x3000));
        assert_eq!(odd.pages_inward(), Some(range(0x2000, 0x1000)));
        assert_eq!(range(0x1800, 0x100).pages_inward(), None);
    }

    #[test]
    fn a_hole_splits_a_range() {
        let left = subtract(&[range(0, 10)], &[range(4, 2), range(9, 5)]);
        assert_eq!(left, [range(0, 4), range(6, 3)]);
    }

    fn some_ranges() -> impl Strategy<Value = Vec<PhysRange>> {
        let one = (0u64..60, 1u64..9).prop_map(|(start, size)| range(start, size));
        proptest::collection::vec(one, 0..8)
    }

    fn bytes(ranges: &[PhysRange]) -> BTreeSet<u64> {
        ranges.iter().flat_map(|r| r.base()..r.end()).collect()
    }

    proptest! {
        #[test]
        fn a_sorted_list_has_the_same_entries_in_order(
            mut list in proptest::collection::vec(0u16..50, 0..200),
        ) {
            let mut expected = list.clone();
            expected.sort_unstable();
            super::sort_by_key(&mut list, |entry| *entry);
            prop_assert_eq!(list, expected);
        }

        #[test]
        fn sets_of_ranges_agree_with_sets_of_bytes(a in some_ranges(), b in some_ranges()) {
            let merged = merge(a.clone());
            prop_assert_eq!(bytes(&merged), bytes(&a));
            prop_assert!(merged.windows(2).all(|w| w[0].end() < w[1].base()));
            let left = subtract(&a, &b);
            let expected: BTreeSet<u64> = bytes(&a).difference(&bytes(&b)).copied().collect();
            prop_assert_eq!(bytes(&left), expected);
        }
    }
    use proptest::prelude::prop_assert;
}
