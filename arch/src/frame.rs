//! RAM frames as untyped memory that may change at any moment.
//!
//! A guest, another CPU or a device can change any byte of a frame during an access, so a frame is never a Rust
//! reference to plain data: it is a [`SharedPage`], accessed by atomics and by copies. A value is copied in once and
//! then checked; no word is read twice.
//!
//! [`page`] accesses frames in the direct map. Frames above it need a mapping of their own: [`with`] for the duration
//! of a closure, [`keep`] while the [`Kept`] lives.
//!
//! The memory of Rust itself (image, heap, frame table) is outside the direct map, so nothing here aliases it. Blocks
//! by which the heap grows later are inside; the page allocator has given them away, so their frame numbers are not
//! used.

use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use crate::addr::{Mfn, PAGE_SIZE};

#[cfg(not(target_arch = "arm"))]
use crate::host::frame as map;
#[cfg(target_arch = "arm")]
use crate::hypmap as map;

/// One mapped RAM frame.
#[repr(C, align(4096))]
pub struct SharedPage([AtomicU32; PAGE_SIZE / 4]);

/// Keeps a frame mapped (and possibly referenced) while the value lives.
pub trait PageRef {
    /// Returns the frame.
    fn page(&self) -> &SharedPage;
}

macro_rules! cell {
    ($(#[$doc:meta])* $name:ident, $atomic:ty) => {
        $(#[$doc])*
        pub fn $name(&self, offset: usize) -> Option<&$atomic> {
            if offset > PAGE_SIZE - size_of::<$atomic>() || !offset.is_multiple_of(size_of::<$atomic>()) {
                return None;
            }
            // SAFETY: 1. the offset is inside the page and aligned; 2. the page is accessed only by atomics and by
            // copies that tolerate concurrent change, so a shared atomic reference is always allowed.
            Some(unsafe { &*(self.0.as_ptr().cast::<u8>().add(offset).cast::<$atomic>()) })
        }
    };
}

impl SharedPage {
    cell!(/// The byte at `offset`, or `None` outside the page.
        u8_at, AtomicU8);
    cell!(/// The half-word at `offset`, or `None` when outside the page or misaligned.
        u16_at, AtomicU16);
    cell!(/// The word at `offset`, or `None` when outside the page or misaligned.
        u32_at, AtomicU32);
    cell!(/// The double word at `offset`, or `None` when outside the page or misaligned.
        u64_at, AtomicU64);

    /// Copies `out.len()` bytes at `offset` into `out`. Returns false, with `out` unchanged, if they exceed the page.
    pub fn read(&self, offset: usize, out: &mut [u8]) -> bool {
        if offset > PAGE_SIZE || out.len() > PAGE_SIZE - offset {
            return false;
        }
        // SAFETY: the source range is inside this page and the destination is a slice of the same length.
        unsafe {
            raw::copy(
                out.as_mut_ptr(),
                self.0.as_ptr().cast::<u8>().add(offset),
                out.len(),
            )
        };
        true
    }

    /// Copies `data` to `offset`. Returns false, with nothing written, if it exceeds the page.
    pub fn write(&self, offset: usize, data: &[u8]) -> bool {
        if offset > PAGE_SIZE || data.len() > PAGE_SIZE - offset {
            return false;
        }
        // SAFETY: the destination range is inside this page, whose words are atomics (interior mutability).
        unsafe {
            raw::copy(
                self.0.as_ptr().cast::<u8>().cast_mut().add(offset),
                data.as_ptr(),
                data.len(),
            )
        };
        true
    }

    /// Copies `len` bytes from `source` at `from` to this page at `to`. Returns false if either range exceeds its page.
    pub fn copy_from(&self, to: usize, source: &SharedPage, from: usize, len: usize) -> bool {
        if to > PAGE_SIZE || from > PAGE_SIZE || len > PAGE_SIZE - to || len > PAGE_SIZE - from {
            return false;
        }
        // SAFETY: both ranges are inside their pages; an overlap within one page is handled by `raw::copy`.
        unsafe {
            raw::copy(
                self.0.as_ptr().cast::<u8>().cast_mut().add(to),
                source.0.as_ptr().cast::<u8>().add(from),
                len,
            );
        }
        true
    }

    /// Fills the page with zeroes.
    pub fn zero(&self) {
        // SAFETY: the caller may write the whole page; its words are atomics.
        unsafe { raw::zero_page(self.0.as_ptr().cast_mut().cast()) };
    }

    /// Returns the page's 1024 words.
    pub fn words(&self) -> &[AtomicU32; PAGE_SIZE / 4] {
        &self.0
    }

    /// Returns whether every byte is zero.
    pub fn is_zero(&self) -> bool {
        self.0.iter().all(|word| word.load(Ordering::Relaxed) == 0)
    }

    /// Returns the page's address in the hypervisor's address space (on a host, the process's).
    pub fn hyp_va(&self) -> usize {
        self.0.as_ptr() as usize
    }
}

/// Returns the frame `mfn` in the direct map, or `None` if it is not mapped there.
pub fn page(mfn: Mfn) -> Option<&'static SharedPage> {
    let va = map::direct(mfn)?;
    // SAFETY: 1. `direct` returns only addresses of frames that are mapped permanently; 2. no plain Rust object is in
    // such a frame (module header).
    Some(unsafe { &*(va as *const SharedPage) })
}

/// Returns the frame `mfn` of a translation table.
///
/// # Panics
/// If it is not in the direct map, as all tables are.
pub(crate) fn table(mfn: Mfn) -> &'static SharedPage {
    let va = map::direct(mfn).unwrap_or_else(|| not_direct());
    // SAFETY: as in `page`.
    unsafe { &*(va as *const SharedPage) }
}

// Not inlined, for size: every access to a table may call it.
#[cold]
#[inline(never)]
fn not_direct() -> ! {
    panic!("a table lies in the direct map")
}

/// Runs `f` on the frame `mfn`, through a window of this CPU if it is outside the direct map.
///
/// Returns `None` if `mfn` is not RAM. The closure may nest [`with`] only as deep as there are windows (4).
pub fn with<R>(mfn: Mfn, f: impl FnOnce(&SharedPage) -> R) -> Option<R> {
    let window;
    let va = match map::direct(mfn) {
        Some(va) => va,
        None => {
            window = map::open_window(mfn)?;
            window.va()
        }
    };
    // SAFETY: as in `page`, or the window maps the frame until it is dropped after the call.
    Some(f(unsafe { &*(va as *const SharedPage) }))
}

/// A mapping of a frame, removed when dropped.
pub struct Kept {
    mfn: Mfn,
    va: usize,
    slot: Option<map::Slot>,
}

impl Kept {
    /// Returns the frame.
    pub fn mfn(&self) -> Mfn {
        self.mfn
    }
}

impl PageRef for Kept {
    fn page(&self) -> &SharedPage {
        // SAFETY: the mapping at `va` exists as long as `self`.
        unsafe { &*(self.va as *const SharedPage) }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            map::unmap_slot(slot);
        }
    }
}

/// Maps `mfn` while the result lives. Returns `None` if it is not RAM, or all mapping slots are in use.
pub fn keep(mfn: Mfn) -> Option<Kept> {
    if let Some(va) = map::direct(mfn) {
        return Some(Kept {
            mfn,
            va,
            slot: None,
        });
    }
    let slot = map::map_slot(mfn)?;
    Some(Kept {
        mfn,
        va: slot.va(),
        slot: Some(slot),
    })
}

#[cfg(not(target_arch = "arm"))]
mod raw {
    use crate::addr::PAGE_SIZE;

    /// Copies bytes between ranges that may change concurrently.
    ///
    /// # Safety
    /// Both ranges must be mapped for `len` bytes.
    pub unsafe fn copy(to: *mut u8, from: *const u8, len: usize) {
        // SAFETY: the caller guarantees the ranges; `copy` allows them to overlap.
        unsafe { core::ptr::copy(from, to, len) }
    }

    /// Zeroes a page.
    ///
    /// # Safety
    /// `page` must be a mapped page.
    pub unsafe fn zero_page(page: *mut u8) {
        // SAFETY: the caller guarantees the page.
        unsafe { core::ptr::write_bytes(page, 0, PAGE_SIZE) }
    }
}

#[cfg(target_arch = "arm")]
mod raw {
    use core::arch::global_asm;

    global_asm!(include_str!("bytes.S"), options(raw));

    unsafe extern "C" {
        fn copy_shared(to: *mut u8, from: *const u8, len: usize);
        fn clear_page(page: *mut u8);
    }

    /// Copies bytes between ranges that may change concurrently, in ascending order.
    ///
    /// In assembly, as a concurrent writer would make a Rust copy undefined. Copies words if both ends are aligned,
    /// eight at a time for runs, and four times that for long ones.
    ///
    /// # Safety
    /// Both ranges must be mapped for `len` bytes. If they overlap with `to` above `from`, the result is a mix of old
    /// and new bytes inside the range, as with `memcpy`.
    pub unsafe fn copy(to: *mut u8, from: *const u8, len: usize) {
        // SAFETY: the caller guarantees the ranges.
        unsafe { copy_shared(to, from, len) }
    }

    /// Zeroes a page.
    ///
    /// # Safety
    /// `page` must be a mapped page.
    pub unsafe fn zero_page(page: *mut u8) {
        // SAFETY: the caller guarantees the page.
        unsafe { clear_page(page) }
    }
}

#[cfg(test)]
mod tests {
    use super::{PageRef, keep, page, with};
    use crate::addr::Mfn;
    use crate::host::frame::{FIRST, FRAMES};

    fn mfn(n: u32) -> Mfn {
        Mfn::new(u64::from(FIRST + n)).unwrap()
    }

    #[test]
    fn a_copy_that_leaves_the_page_is_refused_whole() {
        let page = page(mfn(FRAMES - 1)).unwrap();
        page.zero();
        assert!(!page.write(4090, &[1; 7]));
        assert!(page.is_zero());
        assert!(page.write(4090, &[1; 6]));
        let mut out = [0; 6];
        assert!(page.read(4090, &mut out));
        assert_eq!(out, [1; 6]);
        assert!(!page.read(usize::MAX, &mut out));
        assert!(!page.copy_from(0, page, 4090, 7));
    }

    #[test]
    fn cells_are_aligned_and_inside() {
        let page = page(mfn(FRAMES - 2)).unwrap();
        assert!(page.u64_at(4088).is_some());
        assert!(page.u64_at(4092).is_none());
        assert!(page.u32_at(4096).is_none());
        assert!(page.u8_at(4095).is_some());
    }

    #[test]
    fn what_is_not_ram_cannot_be_reached() {
        let beyond = mfn(FRAMES);
        assert!(page(beyond).is_none() && keep(beyond).is_none() && with(beyond, |_| ()).is_none());
        assert!(
            keep(mfn(0)).is_some_and(|kept| kept.page().hyp_va() == page(mfn(0)).unwrap().hyp_va())
        );
    }
}
