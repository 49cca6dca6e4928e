//! Stand-ins for the machine, so that everything above this crate runs in host tests.

/// RAM: an arena of frames that starts at machine address 0x4000_0000, as on QEMU's `virt`.
pub mod frame {
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
    pub fn direct(mfn: Mfn) -> Option<usize> {
        let index = mfn.raw().checked_sub(FIRST)?;
        if index >= FRAMES {
            return None;
        }
        Some(base() + index as usize * PAGE_SIZE)
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

/// Coprocessor 15: every register is a cell that reads as it was written last, 0 before that. Each thread has its own, like
/// a CPU.
pub mod registers {
    use std::cell::Cell;
    use std::thread_local;

    use crate::cp15;

    thread_local! {
        static NARROW: [Cell<u32>; 1 << 14] = const { [const { Cell::new(0) }; 1 << 14] };
        static WIDE: [Cell<u64>; 1 << 8] = const { [const { Cell::new(0) }; 1 << 8] };
        /// Mode, LR and SPSR of the last [`crate::guest::set_exception_return`].
        static RETURN: Cell<(u32, u32, u32)> = const { Cell::new((0, 0, 0)) };
    }

    #[cfg(test)]
    thread_local! {
        static STEPS: std::cell::RefCell<Vec<&'static str>> = const { std::cell::RefCell::new(Vec::new()) };
    }

    /// Notes a barrier or a write of a register.
    #[cfg(test)]
    pub(crate) fn note(step: &'static str) {
        STEPS.with_borrow_mut(|steps| steps.push(step));
    }

    /// Notes nothing where nobody asks.
    #[cfg(not(test))]
    #[inline(always)]
    pub(crate) fn note(_: &'static str) {}

    /// The barriers and writes of registers that `f` makes on this CPU, in order.
    #[cfg(test)]
    pub(crate) fn steps(f: impl FnOnce()) -> Vec<&'static str> {
        STEPS.take();
        f();
        STEPS.take()
    }

    /// Where the register of an MRC or MCR is: three bits for each opcode, four for CRn and CRm.
    pub(crate) const fn place(opc1: usize, crn: usize, crm: usize, opc2: usize) -> usize {
        opc1 << 11 | crn << 7 | crm << 3 | opc2
    }

    /// Where the register of an MRRC or MCRR is.
    pub(crate) const fn wide_place(opc1: usize, crm: usize) -> usize {
        opc1 << 4 | crm
    }

    pub(crate) fn read(place: usize) -> u32 {
        NARROW.with(|cells| cells[place].get())
    }

    pub(crate) fn write(place: usize, value: u32) {
        NARROW.with(|cells| cells[place].set(value));
    }

    pub(crate) fn read_wide(place: usize) -> u64 {
        WIDE.with(|cells| cells[place].get())
    }

    pub(crate) fn write_wide(place: usize, value: u64) {
        WIDE.with(|cells| cells[place].set(value));
    }

    pub(crate) fn set_exception_return(mode: u32, lr: u32, spsr: u32) {
        RETURN.set((mode, lr, spsr));
    }

    /// Mode, LR and SPSR that the guest was last given for an exception.
    pub fn exception_return() -> (u32, u32, u32) {
        RETURN.get()
    }

    /// What a CPU tells of a trap.
    #[derive(Clone, Copy, Debug, Default)]
    pub struct Trap {
        /// HSR.
        pub syndrome: u32,
        /// HDFAR and HIFAR.
        pub address: u32,
        /// Page that stage 2 did not translate (HPFAR).
        pub page: u32,
    }

    /// Lets this CPU have trapped.
    pub fn set_trap(trap: &Trap) {
        // SAFETY: cells of a host thread.
        unsafe {
            cp15::Hsr::write(trap.syndrome);
            cp15::Hdfar::write(trap.address);
            cp15::Hifar::write(trap.address);
            cp15::Hpfar::write(trap.page << 4);
        }
    }

    /// What the guest on this CPU depends on when it takes an exception.
    pub fn set_guest(sctlr: u32, vbar: u32, ttbcr: u32) {
        // SAFETY: cells of a host thread.
        unsafe {
            cp15::Sctlr::write(sctlr);
            cp15::Vbar::write(vbar);
            cp15::Ttbcr::write(ttbcr);
        }
    }

    /// Sets the guest's ACTLR.
    pub fn set_actlr(value: u32) {
        // SAFETY: a cell of a host thread.
        unsafe { cp15::Actlr::write(value) }
    }

    /// Gives this CPU performance monitors of a version (`ID_DFR0[27:24]`).
    pub fn set_monitors(version: u32) {
        // SAFETY: a cell of a host thread.
        unsafe { cp15::IdDfr0::write(version << 24) }
    }

    /// Lets an asynchronous abort be pending on this CPU, or none.
    pub fn set_async_abort(pending: bool) {
        // SAFETY: a cell of a host thread.
        unsafe { cp15::Isr::write(u32::from(pending) << 8) }
    }

    /// Lets an interrupt wait for this CPU, or none.
    pub fn set_interrupt(waits: bool) {
        // SAFETY: a cell of a host thread.
        unsafe { cp15::Isr::write(u32::from(waits) << 7) }
    }

    /// The guest's fault registers: DFSR, DFAR, IFSR, IFAR.
    pub fn faults() -> [u32; 4] {
        [
            cp15::Dfsr::read(),
            cp15::Dfar::read(),
            cp15::Ifsr::read(),
            cp15::Ifar::read(),
        ]
    }

    #[cfg(test)]
    mod tests {
        use crate::cp15;

        #[test]
        fn registers_do_not_share_cells() {
            // SAFETY: cells of a host thread.
            unsafe {
                cp15::Hcr::write(1);
                cp15::Hdcr::write(2);
                cp15::Sctlr::write(3);
                cp15::Vttbr::write(4);
                cp15::Cntvoff::write(5);
            }
            let narrow = [cp15::Hcr::read(), cp15::Hdcr::read(), cp15::Sctlr::read()];
            assert_eq!(narrow, [1, 2, 3]);
            assert_eq!((cp15::Vttbr::read(), cp15::Cntvoff::read()), (4, 5));
            let elsewhere = std::thread::spawn(cp15::Hcr::read);
            assert_eq!(elsewhere.join().ok(), Some(0));
        }
    }
}

/// The heap: the host's, whose allocations fail when a test wants them to.
pub mod heap {
    use core::alloc::{GlobalAlloc, Layout};
    use core::cell::Cell;
    use core::ptr::NonNull;
    use core::sync::atomic::{AtomicUsize, Ordering};
    use std::alloc::System;
    use std::sync::Mutex;

    use buddy_system_allocator::Heap as Buddies;

    use crate::addr::PAGE_SIZE;
    use crate::heap::{EARLY, Kept};

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

    /// Bytes of the heap: in use by this thread, and in all, which nobody knows.
    pub fn usage() -> (usize, usize) {
        (IN_USE.get().max(0) as usize, 0)
    }

    /// Free bytes, as this thread was told: plenty at first.
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
}
