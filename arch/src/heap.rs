//! Memory that Rust lives in: slices that last as long as the system, and the small-object heap.
//!
//! The heap is `buddy_system_allocator`'s, behind a lock of our own. It starts with what boot gives it and grows by whole
//! 2 MiB blocks (`grow`). Running out is an error value for whoever used a fallible allocation; anything a guest can
//! cause must be one of those.

#[cfg(target_arch = "arm")]
pub use machine::{BootMemory, HypHeap, grow, init_early, usage};

/// Bytes of the heap, in use and in all: a host's heap is none of ours.
#[cfg(not(target_arch = "arm"))]
pub fn usage() -> (usize, usize) {
    (0, 0)
}

#[cfg(target_arch = "arm")]
mod machine {
    use core::alloc::{GlobalAlloc, Layout};
    use core::ptr::{self, NonNull};

    use buddy_system_allocator::Heap;
    use spin::mutex::SpinMutex;
    use zerocopy::FromZeros;

    use crate::addr::{Mfn, ORDER_2M, PAGE_SIZE};
    use crate::hypmap;

    static HEAP: SpinMutex<Heap<26>> = SpinMutex::new(Heap::empty());

    /// The global allocator.
    pub struct HypHeap;

    // SAFETY: delegates to a heap behind a lock, which hands out disjoint blocks of memory that is nobody else's.
    unsafe impl GlobalAlloc for HypHeap {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            HEAP.lock()
                .alloc(layout)
                .map_or(ptr::null_mut(), NonNull::as_ptr)
        }

        unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
            if let Some(pointer) = NonNull::new(pointer) {
                // SAFETY: the caller got the pointer from `alloc` with the same layout.
                unsafe { HEAP.lock().dealloc(pointer, layout) }
            }
        }
    }

    #[global_allocator]
    static GLOBAL: HypHeap = HypHeap;

    /// Bytes of heap before the machine's memory is known.
    const EARLY: usize = 192 * 1024;

    #[repr(align(64))]
    struct Early(core::cell::UnsafeCell<[u8; EARLY]>);
    // SAFETY: the heap, which is behind a lock, is the only user.
    unsafe impl Sync for Early {}
    static EARLY_HEAP: Early = Early(core::cell::UnsafeCell::new([0; EARLY]));

    /// Starts the heap with a few pages of the image, for reading the device tree. Called once, first thing.
    pub fn init_early() {
        // SAFETY: the array is the heap's alone from here on.
        unsafe { HEAP.lock().init(EARLY_HEAP.0.get() as usize, EARLY) };
    }

    /// Bytes of the heap: in use, and in all.
    pub fn usage() -> (usize, usize) {
        let heap = HEAP.lock();
        (heap.stats_alloc_actual(), heap.stats_total_bytes())
    }

    /// RAM that boot has set aside for Rust: what it hands out is never freed.
    pub struct BootMemory {
        next: usize,
        end: usize,
    }

    impl BootMemory {
        /// Takes over `blocks` 2 MiB blocks of RAM from `first` on; `None` when the address space for them is full.
        ///
        /// # Safety
        /// Nobody else may use the frames, ever.
        pub unsafe fn new(first: Mfn, blocks: usize) -> Option<Self> {
            // SAFETY: passed on.
            let start = unsafe { hypmap::map_private(first, blocks)? } as usize;
            Some(Self {
                next: start,
                end: start + ((blocks * PAGE_SIZE) << ORDER_2M),
            })
        }

        /// A zeroed slice of `len` elements that lasts for ever; `None` when there is no room.
        pub fn slice<T: FromZeros>(&mut self, len: usize) -> Option<&'static mut [T]> {
            let start = self.next.checked_next_multiple_of(align_of::<T>())?;
            let end = start.checked_add(len.checked_mul(size_of::<T>())?)?;
            if end > self.end {
                return None;
            }
            self.next = end;
            // SAFETY: 1. the range is mapped, zeroed, and handed out once; 2. T may be all zeroes.
            Some(unsafe { core::slice::from_raw_parts_mut(start as *mut T, len) })
        }

        /// Adds the rest to the small-object heap.
        pub fn into_heap(self) {
            let start = self.next.next_multiple_of(64);
            if start < self.end {
                // SAFETY: the range is mapped and nobody else's.
                unsafe { HEAP.lock().add_to_heap(start, self.end) };
            }
        }
    }

    /// Adds a 2 MiB block of RAM to the heap; false when the address space for it is full.
    ///
    /// # Safety
    /// Nobody else may use the block, ever.
    pub unsafe fn grow(block: Mfn) -> bool {
        // SAFETY: passed on.
        let Some(start) = (unsafe { hypmap::map_private(block, 1) }) else {
            return false;
        };
        let start = start as usize;
        // SAFETY: the range is mapped and nobody else's.
        unsafe {
            HEAP.lock()
                .add_to_heap(start, start + (PAGE_SIZE << ORDER_2M))
        };
        true
    }
}
