//! Memory for Rust's own heap: whole blocks as it runs low, and back when nothing is in them.
//!
//! The heap holds what is known of grants in use, and event ports, as many as domains have limits for. A guest's request fails
//! before the heap is used up (`armv7::heap::has_room`); this keeps it from coming to that while there is memory at all. A
//! domain's share goes back to the heap with it, and a block of which all has gone back is memory like any other.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use armv7::addr::{Mfn, ORDER_2M};
use armv7::heap;
use spin::Once;

use super::memory;

/// How the heap gets and gives 2 MiB blocks. One CPU at a time does either.
#[derive(Clone, Copy, Debug)]
pub struct Blocks {
    /// Adds a block; false when the heap cannot take it.
    pub give: fn(Mfn) -> bool,
    /// Takes back a block that was given and that nothing is in.
    pub take: fn() -> Option<Mfn>,
}

static BLOCKS: Once<Blocks> = Once::new();
/// Somebody is at it.
static BUSY: AtomicBool = AtomicBool::new(false);
/// Blocks that the heap was given and has.
static GIVEN: AtomicU32 = AtomicU32::new(0);

/// Tells how the heap gets and gives blocks; only the first call counts.
pub fn set_blocks(blocks: Blocks) {
    BLOCKS.call_once(|| blocks);
}

/// Lets the heap grow if it is low and a block is free. To be called without any lock of memory or above.
#[inline]
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
    // Another CPU may have seen to it meanwhile.
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

/// Frees a block of the heap if it has enough without, and nothing is in it. To be called as [`replenish`].
#[inline]
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
