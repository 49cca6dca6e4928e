//! Device memory: a block of registers mapped permanently.

use core::ptr;

/// A window of device registers, accessed by single loads and stores of the given width.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    base: usize,
    len: usize,
}

macro_rules! access {
    ($read:ident, $write:ident, $type:ty) => {
        /// Reads the register at `offset`; 0 outside the window.
        pub fn $read(&self, offset: usize) -> $type {
            if !self.holds(offset, size_of::<$type>()) {
                return 0;
            }
            // SAFETY: the offset is inside a permanent device mapping, and aligned.
            unsafe { ptr::read_volatile((self.base + offset) as *const $type) }
        }
        /// Writes the register at `offset`. Does nothing outside the window.
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
    /// `base..base + len` must be permanently mapped as device memory, and hold registers whose access cannot break
    /// memory safety (no DMA engine that can reach the hypervisor).
    #[cfg(target_arch = "arm")]
    pub(crate) const unsafe fn new(base: usize, len: usize) -> Self {
        Self { base, len }
    }

    fn holds(&self, offset: usize, size: usize) -> bool {
        offset.is_multiple_of(size) && offset < self.len && size <= self.len - offset
    }

    /// Reads the word at `offset`; `None` if there is no device. For boot, on the boot CPU.
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

/// A register block described by a tock-registers structure.
#[derive(Debug)]
pub struct Block<T: 'static>(&'static T);

impl<T> core::ops::Deref for Block<T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.0
    }
}

impl Window {
    /// Returns the window as a register structure.
    ///
    /// # Panics
    /// If the structure does not fit, which is a bug in a driver.
    pub(crate) fn block<T>(self) -> Block<T> {
        assert!(
            size_of::<T>() <= self.len,
            "device window of {:#x} bytes is too small",
            self.len
        );
        // SAFETY: 1. the window is permanently mapped and large enough; 2. T consists of tock-registers cells, which
        // are volatile and interior-mutable; 3. windows are page-aligned.
        Block(unsafe { &*(self.base as *const T) })
    }
}

// SAFETY: each access is one volatile load or store of a device register, which the bus serializes. Drivers protect
// sequences of accesses.
unsafe impl<T> Sync for Block<T> {}
// SAFETY: as above; the block is not bound to a CPU.
unsafe impl<T> Send for Block<T> {}
