//! Blocks for Rust's heap: added as it runs low, and freed when empty.
//!
//! The heap holds records of grants in use and event ports, as many as the domains' limits allow. A guest's request
//! fails before the heap is used up (`armv7::heap::has_room`); this room keeps the heap above that level while memory
//! is free. Destroying a domain frees its share of the heap, and an empty block becomes free memory.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use armv7::addr::{Mfn, ORDER_2M};
use armv7::heap;
use spin::Once;

use super::memory;

/// Functions of the heap that add and remove 2 MiB blocks. One CPU at a time calls them.
#[derive(Clone, Copy, Debug)]
pub struct Blocks {
    /// Adds a block. Returns false if the heap cannot take it.
    pub give: fn(Mfn) -> bool,
    /// Removes an empty block that was added.
    pub take: fn() -> Option<Mfn>,
}

static BLOCKS: Once<Blocks> = Once::new();
/// A CPU is adding or removing a block.
static BUSY: AtomicBool = AtomicBool::new(false);
/// Number of added blocks.
static GIVEN: AtomicU32 = AtomicU32::new(0);

/// Sets the heap's functions. Only the first call has an effect.
pub fn set_blocks(blocks: Blocks) {
    BLOCKS.call_once(|| blocks);
}

/// Adds a block if the heap is low and a block is free. Call it without any lock of rank PAGES or above.
pub fn replenish() {
    if heap::is_low() {
        grow();
    }
}

#[cold]
fn grow() {
    let Some(blocks) = BLOCKS.get() else { return };
    if BUSY.swap(true, Ordering::Acquire) {
        return;
    }
    // Another CPU may have added a block meanwhile.
    if heap::is_low()
        && let Some(block) = memory().alloc_hyp_unscrubbed(ORDER_2M)
    {
        if (blocks.give)(block) {
            GIVEN.fetch_add(1, Ordering::Relaxed);
        } else {
            memory().free_hyp(block, ORDER_2M);
        }
    }
    BUSY.store(false, Ordering::Release);
}

/// Frees an empty block of the heap if the rest is ample. Same locking rule as [`replenish`].
pub fn give_back() {
    if GIVEN.load(Ordering::Relaxed) != 0 && heap::is_ample() {
        shrink();
    }
}

#[cold]
fn shrink() {
    let Some(blocks) = BLOCKS.get() else { return };
    if BUSY.swap(true, Ordering::Acquire) {
        return;
    }
    if heap::is_ample()
        && let Some(block) = (blocks.take)()
    {
        GIVEN.fetch_sub(1, Ordering::Relaxed);
        memory().free_hyp(block, ORDER_2M);
    }
    BUSY.store(false, Ordering::Release);
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::{AtomicU32, Ordering};

    use armv7::addr::{Mfn, ORDER_2M};
    use armv7::host::heap::set_free;

    use super::{Blocks, give_back, replenish, set_blocks};
    use crate::mem::frame_table::{State, Use};
    use crate::mem::testing;

    static GIVEN: AtomicU32 = AtomicU32::new(0);

    #[test]
    fn a_low_heap_gets_a_block_and_an_ample_one_gives_it_back() {
        let memory = testing::machine();
        set_blocks(Blocks {
            give: |block| {
                GIVEN.store(block.raw(), Ordering::Relaxed);
                set_free(4 << 20);
                true
            },
            take: || {
                set_free(2 << 20);
                Mfn::new(GIVEN.load(Ordering::Relaxed).into())
            },
        });
        // There is nothing to give back, however much is free.
        give_back();
        replenish();
        assert_eq!(GIVEN.load(Ordering::Relaxed), 0, "there is plenty");
        set_free(1000);
        replenish();
        let block = Mfn::new(GIVEN.load(Ordering::Relaxed).into()).unwrap();
        assert!(block.raw() != 0 && block.is_aligned(ORDER_2M));
        assert_eq!(memory.state(block), State::Used(Use::Hypervisor));
        set_free((3 << 20) - 1);
        give_back();
        assert_eq!(
            memory.state(block),
            State::Used(Use::Hypervisor),
            "not enough"
        );
        set_free(3 << 20);
        give_back();
        assert_ne!(memory.state(block), State::Used(Use::Hypervisor));
        // It was the only one.
        set_free(8 << 20);
        give_back();
    }
}
