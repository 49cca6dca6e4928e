//! Pointers inside hypercall arguments.
//!
//! `XEN_GUEST_HANDLE(t)` takes eight bytes on every ARM guest (xen/include/public/arch-arm.h). A 32-bit guest has its
//! pointer in the lower four; the upper four must be zero.

use core::marker::PhantomData;

use armv7::addr::GuestVa;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A guest's pointer to elements of type `T`, as it stands in a structure: not yet checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(transparent)]
pub struct GuestHandle<T> {
    raw: u64,
    element: PhantomData<T>,
}

impl<T> GuestHandle<T> {
    /// The null handle.
    pub const NULL: Self = Self::from_raw(0);

    /// A handle with these eight bytes.
    pub const fn from_raw(raw: u64) -> Self {
        Self {
            raw,
            element: PhantomData,
        }
    }

    /// Returns the eight bytes.
    pub const fn raw(&self) -> u64 {
        self.raw
    }

    /// Returns whether all eight bytes are zero.
    pub const fn is_null(&self) -> bool {
        self.raw == 0
    }

    /// Returns the address, or `None` when the upper half is not zero.
    pub const fn to_va(&self) -> Option<GuestVa> {
        if self.raw >> 32 == 0 {
            Some(GuestVa(self.raw as u32))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::GuestHandle;
    use armv7::addr::GuestVa;

    #[test]
    fn a_handle_with_a_dirty_upper_half_is_no_address() {
        assert_eq!(GuestHandle::<u64>::from_raw(1 << 32).to_va(), None);
        assert_eq!(
            GuestHandle::<u64>::from_raw(0xFFFF_FFFF).to_va(),
            Some(GuestVa(0xFFFF_FFFF))
        );
        assert!(GuestHandle::<u8>::NULL.is_null());
    }
}
