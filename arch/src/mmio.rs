//! Device memory: a mapped block of registers that lives as long as the system.

use core::ptr;

/// A window of device registers, reached by single loads and stores of the width asked for.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    base: usize,
    len: usize,
}

macro_rules! access {
    ($read:ident, $write:ident, $type:ty) => {
        /// Reads the register at `offset`; 0 when it is outside the window.
        #[inline]
        pub fn $read(&self, offset: usize) -> $type {
            if !self.holds(offset, size_of::<$type>()) {
                return 0;
            }
            // SAFETY: the offset is inside a device mapping that is never undone, and aligned.
            unsafe { ptr::read_volatile((self.base + offset) as *const $type) }
        }
        /// Writes the register at `offset`; nothing happens when it is outside the window.
        #[inline]
        pub fn $write(&self, offset: usize, value: $type) {
            if self.holds(offset, size_of::<$type>()) {
                // SAFETY: as for the read.
                unsafe { ptr::write_volatile((self.base + offset) as *mut $type, value) }
            }
        }
    };
}

impl Window {
    /// # Safety
    /// `base..base + len` must be mapped as device memory for the life of the system, and hold registers whose access
    /// cannot break memory safety (no DMA engine pointed at the hypervisor).
    #[cfg(target_arch = "arm")]
    pub(crate) const unsafe fn new(base: usize, len: usize) -> Self {
        Self { base, len }
    }

    #[inline]
    fn holds(&self, offset: usize, size: usize) -> bool {
        offset.is_multiple_of(size) && offset < self.len && size <= self.len - offset
    }

    /// Reads the word at `offset`; `None` where there is no device. For boot, on the boot CPU.
    #[cfg(target_arch = "arm")]
    pub fn probe(&self, offset: usize) -> Option<u32> {
        if !self.holds(offset, 4) {
            return None;
        }
        crate::probe::read(self.base + offset)
    }

    access!(read8, write8, u8);
    access!(read16, write16, u16);
    access!(read32, write32, u32);
}

/// A block of registers described by a tock-registers structure.
#[derive(Debug)]
pub struct Block<T: 'static>(&'static T);

impl<T> core::ops::Deref for Block<T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        self.0
    }
}

impl Window {
    /// Returns the window as a register structure.
    ///
    /// # Panics
    /// When the structure does not fit: a wrong description of a device of ours.
    pub(crate) fn block<T>(self) -> Block<T> {
        assert!(
            size_of::<T>() <= self.len,
            "device window of {:#x} bytes is too small",
            self.len
        );
        // SAFETY: 1. the window is mapped for good and large enough; 2. T is made of tock-registers cells, which are
        // volatile and interior-mutable; 3. windows are page-aligned.
        Block(unsafe { &*(self.base as *const T) })
    }
}

// SAFETY: each access is one volatile load or store of a device register, which the bus serializes; what a sequence of
// accesses means is the driver's to protect.
unsafe impl<T> Sync for Block<T> {}
// SAFETY: as above; the block belongs to no CPU.
unsafe impl<T> Send for Block<T> {}
