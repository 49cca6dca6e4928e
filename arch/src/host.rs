//! Stand-ins for the machine, so that everything above this crate runs in host tests.

/// RAM: an arena of frames that starts at machine address 0x4000_0000, as on QEMU's `virt`.
pub mod frame {
    use core::num::NonZeroUsize;
    use std::alloc::{Layout, alloc_zeroed};
    use std::sync::OnceLock;

    use crate::addr::{Mfn, PAGE_SIZE};

    /// Frame number of the first frame.
    pub const FIRST: u32 = 0x4_0000;
    /// Number of frames (256 MiB; the host's kernel supplies only those that are touched).
    pub const FRAMES: u32 = 0x1_0000;

    /// A mapping slot: never needed, as the arena is mapped as a whole.
    pub struct Slot;

    impl Slot {
        /// Address of the mapping.
        pub fn va(&self) -> usize {
            unreachable!("the arena has no frames outside its direct map")
        }
    }

    fn base() -> usize {
        static BASE: OnceLock<usize> = OnceLock::new();
        *BASE.get_or_init(|| {
            let layout = Layout::from_size_align(FRAMES as usize * PAGE_SIZE, PAGE_SIZE).unwrap();
            // SAFETY: the layout has a size; the allocation is never freed.
            let arena = unsafe { alloc_zeroed(layout) };
            assert!(!arena.is_null(), "no memory for the arena of frames");
            arena as usize
        })
    }

    /// Address of `mfn` in the arena.
    pub fn direct(mfn: Mfn) -> Option<NonZeroUsize> {
        let index = mfn.raw().checked_sub(FIRST)?;
        if index >= FRAMES {
            return None;
        }
        NonZeroUsize::new(base() + index as usize * PAGE_SIZE)
    }

    /// A window on a frame outside the direct map: there is none.
    pub fn open_window(_: Mfn) -> Option<Slot> {
        None
    }

    /// A lasting mapping of a frame outside the direct map: there is none.
    pub fn map_slot(_: Mfn) -> Option<Slot> {
        None
    }

    /// Undoes [`map_slot`].
    pub fn unmap_slot(_: Slot) {}
}

/// The heap: the host's, whose allocations fail when a test wants them to.
pub mod heap {
    use core::alloc::{GlobalAlloc, Layout};
    use core::cell::Cell;
    use core::ptr::NonNull;
    use std::alloc::System;

    use crate::heap::Kept;

    thread_local! {
        static KEPT: Kept = const { Kept::new() };
        /// Allocations of this thread that succeed before one fails; and whether all fail from there on.
        static FAILS_AFTER: Cell<Option<(u64, bool)>> = const { Cell::new(None) };
        static IN_USE: Cell<isize> = const { Cell::new(0) };
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
            // SAFETY: passed on.
            let block = unsafe { System.alloc(layout) };
            if NonNull::new(block).is_some() {
                IN_USE.set(IN_USE.get() + layout.size() as isize);
            }
            block
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
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

    /// Bytes of the heap: in use by this thread, and in all, which nobody knows.
    pub fn usage() -> (usize, usize) {
        (IN_USE.get().max(0) as usize, 0)
    }

    /// Runs `f` on this thread's kept block.
    pub(crate) fn with_kept<R>(f: impl FnOnce(&Kept) -> R) -> R {
        KEPT.with(f)
    }
}
