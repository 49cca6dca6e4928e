//! Addresses and frame numbers, one type per address space.
//!
//! | type | space | unit |
//! |---|---|---|
//! | [`PhysAddr`] / [`Mfn`] | machine (host physical), 40 bits | byte / 4 KiB frame |
//! | [`Ipa`] / [`Gfn`] | guest physical (intermediate), 40 bits | byte / 4 KiB frame |
//! | [`GuestVa`] | virtual, as the running guest's stage 1 sees it | byte |
//!
//! Constructors refuse values beyond 40 bits (DDI 0406C.d B3.6: LPAE has 40-bit addresses), so every address fits a
//! descriptor.

/// log2 of the page size.
pub const PAGE_SHIFT: u32 = 12;
/// Bytes in a page: the granule of both translation stages.
pub const PAGE_SIZE: usize = 1 << PAGE_SHIFT;
/// Number of address bits of machine and guest physical space (DDI 0406C.d B3.6).
pub const ADDR_BITS: u32 = 40;
/// One past the highest frame number.
pub const MAX_FRAMES: u32 = 1 << (ADDR_BITS - PAGE_SHIFT);
/// log2 of the pages in a level-2 block (2 MiB).
pub const ORDER_2M: u32 = 9;
/// log2 of the pages in a level-1 block (1 GiB).
pub const ORDER_1G: u32 = 18;

macro_rules! address {
    ($(#[$doc:meta])* $addr:ident, $(#[$fdoc:meta])* $frame:ident) => {
        $(#[$fdoc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        #[repr(transparent)]
        pub struct $frame(u32);

        impl $frame {
            /// Returns the frame with number `n`, or `None` beyond 40 address bits.
            pub const fn new(n: u64) -> Option<Self> {
                if n < MAX_FRAMES as u64 { Some(Self(n as u32)) } else { None }
            }
            /// Returns the frame number.
            pub const fn raw(self) -> u32 {
                self.0
            }
            /// Returns the address of the frame's first byte.
            pub const fn addr(self) -> $addr {
                $addr((self.0 as u64) << PAGE_SHIFT)
            }
            /// Returns the frame `n` higher, or `None` beyond the end of the space.
            pub const fn checked_add(self, n: u32) -> Option<Self> {
                match self.0.checked_add(n) {
                    Some(sum) if sum < MAX_FRAMES => Some(Self(sum)),
                    _ => None,
                }
            }
            /// Returns the distance in frames from `base`, or `None` if `base` is higher.
            pub const fn checked_sub(self, base: Self) -> Option<u32> {
                self.0.checked_sub(base.0)
            }
            /// Returns whether the frame number is a multiple of `1 << order`.
            pub const fn is_aligned(self, order: u32) -> bool {
                order < 32 && self.0 & ((1u32 << order) - 1) == 0
            }
            /// Returns the first of the `1 << order` aligned frames that contain this one.
            pub const fn align_down(self, order: u32) -> Self {
                if order >= 32 { Self(0) } else { Self(self.0 & !((1u32 << order) - 1)) }
            }
        }

        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        #[repr(transparent)]
        pub struct $addr(u64);

        impl $addr {
            /// Returns the address `a`, or `None` beyond 40 bits.
            pub const fn new(a: u64) -> Option<Self> {
                if a >> ADDR_BITS == 0 { Some(Self(a)) } else { None }
            }
            /// Returns the address as a number.
            pub const fn raw(self) -> u64 {
                self.0
            }
            /// Returns the frame that holds the address.
            pub const fn frame(self) -> $frame {
                $frame((self.0 >> PAGE_SHIFT) as u32)
            }
            /// Returns the offset in the page.
            pub const fn offset(self) -> usize {
                self.0 as usize & (PAGE_SIZE - 1)
            }
            /// Returns the address `n` bytes higher, or `None` beyond 40 bits.
            pub const fn checked_add(self, n: u64) -> Option<Self> {
                match self.0.checked_add(n) {
                    Some(sum) => Self::new(sum),
                    None => None,
                }
            }
        }
    };
}

address!(
    /// A machine (host physical) byte address.
    PhysAddr,
    /// A machine frame number.
    Mfn
);
address!(
    /// A guest physical (intermediate physical) byte address.
    Ipa,
    /// A guest frame number.
    Gfn
);

/// A virtual address in the running guest's stage-1 space.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(transparent)]
pub struct GuestVa(pub u32);

impl GuestVa {
    /// Returns the offset in the page.
    pub const fn offset(self) -> usize {
        self.0 as usize & (PAGE_SIZE - 1)
    }
    /// Returns the address `n` bytes higher, or `None` past 4 GiB.
    pub const fn checked_add(self, n: u32) -> Option<Self> {
        match self.0.checked_add(n) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Gfn, Ipa, MAX_FRAMES, Mfn, PhysAddr};

    #[test]
    fn addresses_beyond_40_bits_do_not_exist() {
        assert!(PhysAddr::new(1 << 40).is_none());
        assert!(Ipa::new((1 << 40) - 1).is_some());
        assert!(Gfn::new(MAX_FRAMES as u64).is_none());
        assert!(Mfn::new(u64::MAX).is_none());
    }

    #[test]
    fn frame_arithmetic_stops_at_the_end_of_the_space() {
        let last = Gfn::new(MAX_FRAMES as u64 - 1).unwrap();
        assert_eq!(last.checked_add(1), None);
        assert_eq!(last.checked_add(u32::MAX), None);
        assert_eq!(last.align_down(9).checked_add(511), Some(last));
        assert!(!last.is_aligned(9));
    }
}
