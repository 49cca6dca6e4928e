//! The host's heap, with allocations that fail on a test's request.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::Cell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::alloc::System;
use std::sync::Mutex;

use buddy_system_allocator::Heap as Buddies;

use crate::addr::PAGE_SIZE;
use crate::kept::Kept;
use crate::layout::EARLY_HEAP as EARLY;

thread_local! {
    static KEPT: Kept = const { Kept::new() };
    /// Number of this thread's allocations that succeed before one fails, and whether all fail after it.
    static FAILS_AFTER: Cell<Option<(u64, bool)>> = const { Cell::new(None) };
    static IN_USE: Cell<isize> = const { Cell::new(0) };
    static FREE: Cell<usize> = const { Cell::new(usize::MAX) };
    /// This thread allocates from the early heap.
    static IS_EARLY: Cell<bool> = const { Cell::new(false) };
}

/// A heap like the image's early one.
static EARLY_HEAP: Mutex<Buddies<26>> = Mutex::new(Buddies::empty());
/// Its address; 0 before it is used.
static EARLY_START: AtomicUsize = AtomicUsize::new(0);

/// Runs `f` on a heap like the image's early one: same allocator and size, aligned to a page only. Allocations that do
/// not fit fail. For one thread at a time.
pub fn on_the_early_heap<R>(f: impl FnOnce() -> R) -> R {
    let mut heap = EARLY_HEAP.lock().unwrap();
    if EARLY_START.load(Ordering::Relaxed) == 0 {
        let layout = Layout::from_size_align(PAGE_SIZE + EARLY, 2 * EARLY).unwrap();
        // SAFETY: the layout's size is not zero; the memory is never freed.
        let memory = unsafe { System.alloc(layout) };
        assert!(!memory.is_null(), "no memory for the early heap");
        let start = memory as usize + PAGE_SIZE;
        // SAFETY: only this heap uses the memory.
        unsafe { heap.init(start, EARLY) };
        EARLY_START.store(start, Ordering::Relaxed); // ordered by the lock
    }
    drop(heap);
    IS_EARLY.set(true);
    let result = f();
    IS_EARLY.set(false);
    result
}

/// Frees a block if it belongs to the early heap. Returns whether it does.
fn freed_early(block: *mut u8, layout: Layout) -> bool {
    let start = EARLY_START.load(Ordering::Relaxed);
    let is_early = start != 0 && (start..start + EARLY).contains(&(block as usize));
    if is_early && let Some(block) = NonNull::new(block) {
        // SAFETY: it comes from this heap, with this layout.
        unsafe { EARLY_HEAP.lock().unwrap().dealloc(block, layout) };
    }
    is_early
}

struct Heap;

#[global_allocator]
static GLOBAL: Heap = Heap;

// SAFETY: returns what the system's allocator returns, or null. A kept block came from that allocator with the same
// layout, and is returned once.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if let Some(block) = with_kept(|kept| kept.take(layout)) {
            return block.as_ptr();
        }
        if is_to_fail() {
            return core::ptr::null_mut();
        }
        if IS_EARLY.get() {
            let block = EARLY_HEAP.lock().unwrap().alloc(layout);
            return block.map_or(core::ptr::null_mut(), NonNull::as_ptr);
        }
        // SAFETY: passed on.
        let block = unsafe { System.alloc(layout) };
        if NonNull::new(block).is_some() {
            IN_USE.set(IN_USE.get() + layout.size() as isize);
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if freed_early(block, layout) {
            return;
        }
        IN_USE.set(IN_USE.get() - layout.size() as isize);
        // SAFETY: passed on.
        unsafe { System.dealloc(block, layout) }
    }
}

fn is_to_fail() -> bool {
    match FAILS_AFTER.get() {
        None => false,
        Some((0, for_good)) => {
            FAILS_AFTER.set(for_good.then_some((0, true)));
            true
        }
        Some((left, for_good)) => {
            FAILS_AFTER.set(Some((left - 1, for_good)));
            false
        }
    }
}

/// Makes an allocation of this thread fail after `count` that succeed, and all following ones if `for_good`.
pub fn fail_after(count: u64, for_good: bool) {
    FAILS_AFTER.set(Some((count, for_good)));
}

/// Makes allocations succeed again. Returns whether none has failed.
pub fn fail_no_more() -> bool {
    match FAILS_AFTER.replace(None) {
        None => false,
        Some((left, for_good)) => left > 0 || !for_good,
    }
}

/// Returns the bytes of the heap: in use by this thread, and the total, which is unknown (0).
pub fn usage() -> (usize, usize) {
    (IN_USE.get().max(0) as usize, 0)
}

/// Returns the number of free bytes set by [`set_free`]; initially plenty.
pub fn free() -> usize {
    FREE.get()
}

/// Sets the number of free bytes for this thread.
pub fn set_free(bytes: usize) {
    FREE.set(bytes);
}

/// Runs `f` on the block kept for this thread.
pub(crate) fn with_kept<R>(f: impl FnOnce(&Kept) -> R) -> R {
    KEPT.with(f)
}
