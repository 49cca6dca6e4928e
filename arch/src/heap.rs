//! Memory for Rust: slices that are never freed, and the small-object heap.
//!
//! The heap is `buddy_system_allocator`'s, behind a lock. It starts with what boot gives it, grows by 2 MiB blocks
//! (`grow`), and returns empty ones (`shrink`). A fallible allocation returns an error when the heap is full. Every
//! allocation that a guest can cause must be fallible and check [`has_room`] first, as the last part of the heap is
//! reserved for allocations that cannot fail. `Vec` has such functions; [`try_arc`] provides one for `Arc`, whose only
//! stable constructor panics.

use alloc::alloc::{alloc, dealloc};
use alloc::sync::Arc;
use core::alloc::Layout;
use core::ptr::NonNull;

#[cfg(not(target_arch = "arm"))]
pub use crate::host::heap::{free, usage};
#[cfg(target_arch = "arm")]
pub use machine::{BootMemory, HypHeap, free, grow, init_early, shrink, usage};

#[cfg(not(target_arch = "arm"))]
use crate::host::heap::with_kept;
#[cfg(target_arch = "arm")]
use machine::with_kept;

/// Bytes reserved for allocations that cannot fail; guests cannot use them.
pub const RESERVE: usize = 256 << 10;
/// The heap should grow if fewer bytes are free.
const LOW: usize = 2 * RESERVE;
/// Size of the blocks by which the heap grows, in bytes.
const BLOCK: usize = crate::addr::PAGE_SIZE << crate::addr::ORDER_2M;
/// The heap may return a block if this many bytes are free, so that it does not have to grow again at once.
const AMPLE: usize = BLOCK + 2 * LOW;

/// Returns whether `bytes` may be allocated on a guest's behalf.
pub fn has_room(bytes: usize) -> bool {
    free() >= bytes.saturating_add(RESERVE)
}

/// Returns whether the heap should grow.
pub fn is_low() -> bool {
    free() < LOW
}

/// Returns whether the heap can return a block.
pub fn is_ample() -> bool {
    free() >= AMPLE
}

/// Allocates an empty aligned block whose address `may_go` accepts. The heap counts it as in use from then on.
#[cfg(any(target_arch = "arm", test))]
fn take_block<const ORDERS: usize>(
    heap: &mut buddy_system_allocator::Heap<ORDERS>,
    may_go: impl Fn(usize) -> bool,
) -> Option<usize> {
    /// Blocks to try. Those that `may_go` refuses are few, and may come first.
    const TRIES: usize = 4;
    let layout = Layout::from_size_align(BLOCK, BLOCK).ok()?;
    let mut others = [None; TRIES];
    let mut found = None;
    for other in &mut others {
        let Ok(block) = heap.alloc(layout) else { break };
        let start = block.as_ptr() as usize;
        if may_go(start) {
            found = Some(start);
            break;
        }
        *other = Some(block);
    }
    for other in others.into_iter().flatten() {
        // SAFETY: allocated above with this layout.
        unsafe { heap.dealloc(other, layout) };
    }
    found
}

/// Does as `Arc::new`, but returns `None` and drops `value` if the heap is full.
pub fn try_arc<T>(value: T) -> Option<Arc<T>> {
    // Layout of an `Arc`'s allocation: two counts, then the value.
    let (layout, _) = Layout::new::<[usize; 2]>()
        .extend(Layout::new::<T>())
        .ok()?;
    let layout = layout.pad_to_align();
    // SAFETY: the layout's size is not zero.
    let block = NonNull::new(unsafe { alloc(layout) })?;
    // No other allocation happens on this CPU in between, so `Arc::new` gets this block.
    with_kept(|kept| kept.put(block, layout));
    let arc = Arc::new(value);
    if let Some(block) = with_kept(|kept| kept.take(layout)) {
        // SAFETY: allocated above with this layout, and unused.
        unsafe { dealloc(block.as_ptr(), layout) };
    }
    Some(arc)
}

#[cfg(target_arch = "arm")]
mod machine {
    use core::alloc::{GlobalAlloc, Layout};
    use core::ptr::{self, NonNull};
    use core::sync::atomic::{AtomicUsize, Ordering};

    use super::{BLOCK, take_block};
    use crate::cpu::MAX_CPUS;
    use crate::kept::{KEEPING, Kept};
    use crate::layout::EARLY_HEAP as EARLY;
    use crate::smp;
    use buddy_system_allocator::Heap;
    use spin::mutex::SpinMutex;
    use zerocopy::FromZeros;

    use crate::addr::{Mfn, ORDER_2M, PAGE_SIZE};
    use crate::hypmap;

    static HEAP: SpinMutex<Heap<26>> = SpinMutex::new(Heap::empty());
    /// Free bytes of the heap, readable without its lock.
    static FREE: AtomicUsize = AtomicUsize::new(0);

    /// Updates [`FREE`]. Call it under the heap's lock.
    fn update_free(heap: &Heap<26>) {
        let free = heap.stats_total_bytes() - heap.stats_alloc_actual();
        FREE.store(free, Ordering::Relaxed);
    }

    /// Returns the number of free bytes, in pieces of any size.
    pub fn free() -> usize {
        FREE.load(Ordering::Relaxed)
    }

    static KEPT: [Kept; MAX_CPUS] = [const { Kept::new() }; MAX_CPUS];

    /// Runs `f` on the block kept for this CPU.
    pub(super) fn with_kept<R>(f: impl FnOnce(&Kept) -> R) -> R {
        f(&KEPT[smp::this_cpu().index()])
    }

    /// The global allocator.
    pub struct HypHeap;

    // SAFETY: delegates to a heap behind a lock, which returns disjoint blocks of memory that it owns.
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
            update_free(&heap);
            block.map_or(ptr::null_mut(), NonNull::as_ptr)
        }

        unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
            if let Some(pointer) = NonNull::new(pointer) {
                let mut heap = HEAP.lock();
                // SAFETY: the caller got the pointer from `alloc` with the same layout.
                unsafe { heap.dealloc(pointer, layout) };
                update_free(&heap);
            }
        }
    }

    #[global_allocator]
    static GLOBAL: HypHeap = HypHeap;

    // Page-aligned: the heap allocates powers of two aligned to their size, and half of it is available at any page.
    #[repr(align(4096))]
    struct Early(core::cell::UnsafeCell<[u8; EARLY]>);
    // SAFETY: the heap, which is behind a lock, is the only user.
    unsafe impl Sync for Early {}
    static EARLY_HEAP: Early = Early(core::cell::UnsafeCell::new([0; EARLY]));

    /// Gives the heap a few pages of the image, for reading the device tree. Called once, before any allocation.
    pub fn init_early() {
        // SAFETY: from here on only the heap uses the array.
        unsafe { HEAP.lock().init(EARLY_HEAP.0.get() as usize, EARLY) };
    }

    /// Address of the first block by which the heap has grown. All private memory above it is such blocks.
    static GROWN_FROM: AtomicUsize = AtomicUsize::new(usize::MAX);
    /// Bytes that the heap has returned, which it counts as in use.
    static GONE: AtomicUsize = AtomicUsize::new(0);

    /// Returns the bytes of the heap: used and total.
    pub fn usage() -> (usize, usize) {
        let heap = HEAP.lock();
        let gone = GONE.load(Ordering::Relaxed);
        (
            heap.stats_alloc_actual() - gone,
            heap.stats_total_bytes() - gone,
        )
    }

    /// RAM that boot has reserved for Rust. Its allocations are never freed.
    pub struct BootMemory {
        next: usize,
        end: usize,
    }

    impl BootMemory {
        /// Takes over `blocks` 2 MiB blocks of RAM from `first` on. Returns `None` if their address space is full.
        ///
        /// # Safety
        /// The frames must never have another user.
        pub unsafe fn new(first: Mfn, blocks: usize) -> Option<Self> {
            // SAFETY: passed on.
            let start = unsafe { hypmap::map_private(first, blocks)? };
            let bytes = (blocks * PAGE_SIZE) << ORDER_2M;
            // SAFETY: just mapped, and not shared.
            unsafe { ptr::write_bytes(start, 0, bytes) };
            let next = start as usize;
            Some(Self {
                next,
                end: next + bytes,
            })
        }

        /// Returns a zeroed slice of `len` elements that is never freed; `None` if there is no space.
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

        /// Adds the remainder to the small-object heap.
        pub fn into_heap(self) {
            let start = self.next.next_multiple_of(64);
            if start < self.end {
                let mut heap = HEAP.lock();
                // SAFETY: the range is mapped and unused.
                unsafe { heap.add_to_heap(start, self.end) };
                update_free(&heap);
            }
        }
    }

    /// Adds a 2 MiB block of RAM to the heap. Returns false if the address space is full.
    ///
    /// # Safety
    /// 1. The block must have no other user until [`shrink`] returns it, the direct map included.
    /// 2. One CPU at a time may call this or [`shrink`].
    pub unsafe fn grow(block: Mfn) -> bool {
        // SAFETY: passed on.
        let Some(start) = (unsafe { hypmap::map_private(block, 1) }) else {
            return false;
        };
        let start = start as usize;
        GROWN_FROM.fetch_min(start, Ordering::Relaxed);
        let mut heap = HEAP.lock();
        // SAFETY: the range is mapped and unused.
        unsafe { heap.add_to_heap(start, start + BLOCK) };
        update_free(&heap);
        true
    }

    /// Removes an empty block that [`grow`] added, if there is one, and returns it.
    ///
    /// # Safety
    /// One CPU at a time may call this or [`grow`].
    pub unsafe fn shrink() -> Option<Mfn> {
        let mut heap = HEAP.lock();
        let from = GROWN_FROM.load(Ordering::Relaxed);
        let start = take_block(&mut heap, |start| start >= from)?;
        GONE.fetch_add(BLOCK, Ordering::Relaxed);
        update_free(&heap);
        drop(heap);
        // SAFETY: 1. the heap has just let go of all of it; 2. passed on.
        unsafe { hypmap::unmap_private(start) }
    }
}

#[cfg(test)]
mod tests {
    use alloc::alloc::{Layout, alloc};

    use super::{BLOCK, take_block};
    use buddy_system_allocator::Heap;

    #[test]
    fn only_a_block_that_nothing_is_in_leaves_the_heap() {
        let layout = Layout::from_size_align(4 * BLOCK, 4 * BLOCK).unwrap();
        // SAFETY: the layout has a size. The memory is never given back.
        let start = unsafe { alloc(layout) } as usize;
        let mut heap = Heap::<26>::new();
        // SAFETY: just allocated, and the heap's alone.
        unsafe { heap.init(start, 4 * BLOCK) };
        let small = Layout::from_size_align(64, 64).unwrap();
        let used = heap.alloc(small).unwrap();
        let in_use = used.as_ptr() as usize & !(BLOCK - 1);
        // The first block stays whatever is in it.
        let may_go = |at: usize| at != start;
        let mut gone = Vec::new();
        while let Some(block) = take_block(&mut heap, may_go) {
            assert!(block != in_use && block != start && !gone.contains(&block));
            gone.push(block);
        }
        let left = if in_use == start { 3 } else { 2 };
        assert_eq!(gone.len(), left);
        // SAFETY: allocated above.
        unsafe { heap.dealloc(used, small) };
        let rest = take_block(&mut heap, may_go);
        assert_eq!(rest, (in_use != start).then_some(in_use));
        // Blocks that may not go were put back.
        assert!(
            heap.alloc(Layout::from_size_align(BLOCK, BLOCK).unwrap())
                .is_ok()
        );
    }
}
