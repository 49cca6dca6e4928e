//! The heap: the host's, whose allocations fail when a test wants them to.

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
    /// Allocations of this thread that succeed before one fails; and whether all fail from there on.
    static FAILS_AFTER: Cell<Option<(u64, bool)>> = const { Cell::new(None) };
    static IN_USE: Cell<isize> = const { Cell::new(0) };
    static FREE: Cell<usize> = const { Cell::new(usize::MAX) };
    /// This thread allocates from the early heap.
    static IS_EARLY: Cell<bool> = const { Cell::new(false) };
}

/// A heap like the image's early one.
static EARLY_HEAP: Mutex<Buddies<26>> = Mutex::new(Buddies::empty());
/// Where it is; 0 before it is used.
static EARLY_START: AtomicUsize = AtomicUsize::new(0);

/// Runs `f` on a heap like the image's early one: the same allocator over as many bytes, from a page on that is aligned
/// to nothing more. Allocations that do not fit fail. For one thread at a time.
pub fn on_the_early_heap<R>(f: impl FnOnce() -> R) -> R {
    let mut heap = EARLY_HEAP.lock().unwrap();
    if EARLY_START.load(Ordering::Relaxed) == 0 {
        let layout = Layout::from_size_align(PAGE_SIZE + EARLY, 2 * EARLY).unwrap();
        // SAFETY: the layout has a size; the memory is never given back.
        let memory = unsafe { System.alloc(layout) };
        assert!(!memory.is_null(), "no memory for the early heap");
        let start = memory as usize + PAGE_SIZE;
        // SAFETY: the memory is this heap's alone.
        unsafe { heap.init(start, EARLY) };
        EARLY_START.store(start, Ordering::Relaxed); // whoever has a block of it has seen this
    }
    drop(heap);
    IS_EARLY.set(true);
    let result = f();
    IS_EARLY.set(false);
    result
}

/// Gives back a block, if it is one of the early heap's.
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

// SAFETY: hands out what the system's allocator does, or null; a kept block came from there as well, with the same
// layout, and is handed out once.
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

/// Makes an allocation of this thread fail, after `count` that succeed; all from there on if `for_good`.
pub fn fail_after(count: u64, for_good: bool) {
    FAILS_AFTER.set(Some((count, for_good)));
}

/// Lets allocations succeed again; whether none had failed yet.
pub fn fail_no_more() -> bool {
    match FAILS_AFTER.replace(None) {
        None => false,
        Some((left, for_good)) => left > 0 || !for_good,
    }
}

/// Returns the bytes of the heap: in use by this thread, and in all, which nobody knows.
pub fn usage() -> (usize, usize) {
    (IN_USE.get().max(0) as usize, 0)
}

/// Returns free bytes, as this thread was told: plenty at first.
pub fn free() -> usize {
    FREE.get()
}

/// Tells this thread how many bytes are free.
pub fn set_free(bytes: usize) {
    FREE.set(bytes);
}

/// Runs `f` on this thread's kept block.
pub(crate) fn with_kept<R>(f: impl FnOnce(&Kept) -> R) -> R {
    KEPT.with(f)
}
