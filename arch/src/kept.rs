//! Blocks of the heap that are kept for the allocation that follows: how `heap::try_arc` makes an `Arc` that cannot fail.

use core::alloc::Layout;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// How many keep a block. While none does, allocating needs not know which CPU this is, which it cannot know outside HYP:
/// there a boot loader's mistake is still to be reported, in words that are allocated.
pub(crate) static KEEPING: AtomicUsize = AtomicUsize::new(0);

/// A block that a CPU (a thread, on a host) keeps for the allocation it makes next. Used by nobody else.
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
        KEEPING.fetch_add(1, Ordering::Relaxed); // its own CPU sees it, and no other needs to
        self.block.store(block.as_ptr(), Ordering::Relaxed);
        self.size.store(layout.size(), Ordering::Relaxed);
        self.align.store(layout.align(), Ordering::Relaxed);
    }

    /// Returns the block, if there is one of that very layout.
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
