//! Heap blocks kept for the next allocation, by which `heap::try_arc` makes an `Arc` that cannot fail.

use core::alloc::Layout;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// Number of kept blocks. While it is 0, allocating does not need the current CPU's number, which cannot be read
/// outside HYP, where the message about a boot loader's mistake is allocated.
pub(crate) static KEEPING: AtomicUsize = AtomicUsize::new(0);

/// The block that a CPU (on a host, a thread) keeps for its next allocation. Accessed by that CPU only.
pub(crate) struct Kept {
    block: AtomicPtr<u8>,
    size: AtomicUsize,
    align: AtomicUsize,
}

impl Kept {
    pub(crate) const fn new() -> Self {
        Self {
            block: AtomicPtr::new(ptr::null_mut()),
            size: AtomicUsize::new(0),
            align: AtomicUsize::new(0),
        }
    }

    pub(crate) fn put(&self, block: NonNull<u8>, layout: Layout) {
        KEEPING.fetch_add(1, Ordering::Relaxed); // read by its own CPU only
        self.block.store(block.as_ptr(), Ordering::Relaxed);
        self.size.store(layout.size(), Ordering::Relaxed);
        self.align.store(layout.align(), Ordering::Relaxed);
    }

    /// Takes the block if it has this layout.
    pub(crate) fn take(&self, layout: Layout) -> Option<NonNull<u8>> {
        let block = NonNull::new(self.block.load(Ordering::Relaxed))?;
        let fits = self.size.load(Ordering::Relaxed) == layout.size()
            && self.align.load(Ordering::Relaxed) == layout.align();
        if !fits {
            return None;
        }
        self.block.store(ptr::null_mut(), Ordering::Relaxed);
        KEEPING.fetch_sub(1, Ordering::Relaxed);
        Some(block)
    }
}
