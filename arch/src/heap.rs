//! Memory that Rust lives in: slices that last as long as the system, and the small-object heap.
//!
//! The heap is `buddy_system_allocator`'s, behind a lock of our own. It starts with what boot gives it and grows by whole
//! 2 MiB blocks (`grow`). Running out is an error value for whoever used a fallible allocation; anything a guest can
//! cause must be one of those, and asks [`has_room`] first: the last of the heap is for what cannot fail. `Vec` has such
//! functions; for `Arc`, whose only stable one ends in a panic, there is
//! [`try_arc`].

use alloc::alloc::{alloc, dealloc};
use alloc::sync::Arc;
use core::alloc::Layout;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

#[cfg(not(target_arch = "arm"))]
pub use crate::host::heap::{free, usage};
#[cfg(target_arch = "arm")]
pub use machine::{BootMemory, HypHeap, free, grow, init_early, usage};

#[cfg(not(target_arch = "arm"))]
use crate::host::heap::with_kept;
#[cfg(target_arch = "arm")]
use machine::with_kept;

/// Bytes of heap before the machine's memory is known: for the largest device tree there may be (tests/early_heap.rs).
pub const EARLY: usize = 512 << 10;
/// Bytes that guests do not get: for allocations that cannot fail.
pub const RESERVE: usize = 256 << 10;
/// The heap is to grow when fewer bytes than this are free.
const LOW: usize = 2 * RESERVE;

/// Whether `bytes` may be taken on a guest's behalf.
#[inline]
pub fn has_room(bytes: usize) -> bool {
    free() >= bytes.saturating_add(RESERVE)
}

/// Whether the heap is to grow.
#[inline]
pub fn is_low() -> bool {
    free() < LOW
}

/// `Arc::new` that answers `None` when the heap is full; `value` is dropped then.
pub fn try_arc<T>(value: T) -> Option<Arc<T>> {
    // What an `Arc` allocates: two counts, then the value.
    let (layout, _) = Layout::new::<[usize; 2]>()
        .extend(Layout::new::<T>())
        .ok()?;
    let layout = layout.pad_to_align();
    // SAFETY: the layout has a size.
    let block = NonNull::new(unsafe { alloc(layout) })?;
    // Nothing else allocates on this CPU in between: the allocation that `Arc::new` makes gets this block.
    with_kept(|kept| kept.put(block, layout));
    let arc = Arc::new(value);
    if let Some(block) = with_kept(|kept| kept.take(layout)) {
        // SAFETY: allocated above with this layout, and nobody has it.
        unsafe { dealloc(block.as_ptr(), layout) };
    }
    Some(arc)
}

/// How many keep a block. While none does, allocating needs not know which CPU this is, which it cannot know outside HYP:
/// there a boot loader's mistake is still to be reported, in words that are allocated.
static KEEPING: AtomicUsize = AtomicUsize::new(0);

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

    fn put(&self, block: NonNull<u8>, layout: Layout) {
        KEEPING.fetch_add(1, Ordering::Relaxed); // its own CPU sees it, and no other needs to
        self.block.store(block.as_ptr(), Ordering::Relaxed);
        self.size.store(layout.size(), Ordering::Relaxed);
        self.align.store(layout.align(), Ordering::Relaxed);
    }

    /// The block, if there is one of that very layout.
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

#[cfg(target_arch = "arm")]
mod machine {
    use core::alloc::{GlobalAlloc, Layout};
    use core::ptr::{self, NonNull};
    use core::sync::atomic::{AtomicUsize, Ordering};

    use super::{EARLY, KEEPING, Kept};
    use crate::cpu::MAX_CPUS;
    use crate::smp;
    use buddy_system_allocator::Heap;
    use spin::mutex::SpinMutex;
    use zerocopy::FromZeros;

    use crate::addr::{Mfn, ORDER_2M, PAGE_SIZE};
    use crate::hypmap;

    static HEAP: SpinMutex<Heap<26>> = SpinMutex::new(Heap::empty());
    /// Free bytes of the heap, for looks without its lock.
    static FREE: AtomicUsize = AtomicUsize::new(0);

    /// Notes what is free. Under the heap's lock.
    fn note(heap: &Heap<26>) {
        let free = heap.stats_total_bytes() - heap.stats_alloc_actual();
        FREE.store(free, Ordering::Relaxed);
    }

    /// Bytes that are free, in pieces of any size.
    #[inline]
    pub fn free() -> usize {
        FREE.load(Ordering::Relaxed)
    }

    static KEPT: [Kept; MAX_CPUS] = [const { Kept::new() }; MAX_CPUS];

    /// Runs `f` on this CPU's kept block.
    pub(super) fn with_kept<R>(f: impl FnOnce(&Kept) -> R) -> R {
        f(&KEPT[smp::this_cpu().index()])
    }

    /// The global allocator.
    pub struct HypHeap;

    // SAFETY: delegates to a heap behind a lock, which hands out disjoint blocks of memory that is nobody else's.
    unsafe impl GlobalAlloc for HypHeap {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            if let Some(block) = (KEEPING.load(Ordering::Relaxed) != 0)
                .then(|| with_kept(|kept| kept.take(layout)))
                .flatten()
            {
                return block.as_ptr();
            }
            let mut heap = HEAP.lock();
            let block = heap.alloc(layout);
            note(&heap);
            block.map_or(ptr::null_mut(), NonNull::as_ptr)
        }

        unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
            if let Some(pointer) = NonNull::new(pointer) {
                let mut heap = HEAP.lock();
                // SAFETY: the caller got the pointer from `alloc` with the same layout.
                unsafe { heap.dealloc(pointer, layout) };
                note(&heap);
            }
        }
    }

    #[global_allocator]
    static GLOBAL: HypHeap = HypHeap;

    // The heap hands out powers of two, each aligned to its size: at any page there is one of half the size.
    #[repr(align(4096))]
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
            let start = unsafe { hypmap::map_private(first, blocks)? };
            let bytes = (blocks * PAGE_SIZE) << ORDER_2M;
            // SAFETY: just mapped, and nobody else's.
            unsafe { ptr::write_bytes(start, 0, bytes) };
            let next = start as usize;
            Some(Self {
                next,
                end: next + bytes,
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
                let mut heap = HEAP.lock();
                // SAFETY: the range is mapped and nobody else's.
                unsafe { heap.add_to_heap(start, self.end) };
                note(&heap);
            }
        }
    }

    /// Adds a 2 MiB block of RAM to the heap; false when the address space for it is full.
    ///
    /// # Safety
    /// Nobody else may use the block, ever, in the direct map either.
    pub unsafe fn grow(block: Mfn) -> bool {
        // SAFETY: passed on.
        let Some(start) = (unsafe { hypmap::map_private(block, 1) }) else {
            return false;
        };
        let start = start as usize;
        let mut heap = HEAP.lock();
        // SAFETY: the range is mapped and nobody else's.
        unsafe { heap.add_to_heap(start, start + (PAGE_SIZE << ORDER_2M)) };
        note(&heap);
        true
    }
}
