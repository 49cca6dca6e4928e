//! Memory for Rust's own heap, as it runs low: whole blocks, for good.
//!
//! Grants, maptracks and event ports are in the heap, as many as domains have limits for. What guests ask for stops before
//! the heap is used up (`armv7::heap::has_room`); this keeps it from coming to that while there is memory at all.

use core::sync::atomic::{AtomicBool, Ordering};

use armv7::addr::{Mfn, ORDER_2M};
use armv7::heap;
use spin::Once;

use super::memory;

/// Gives a 2 MiB block to the heap; false when it cannot take it.
pub type Source = fn(Mfn) -> bool;

static SOURCE: Once<Source> = Once::new();
/// Somebody is at it.
static BUSY: AtomicBool = AtomicBool::new(false);

/// Tells how the heap gets a block; only the first call counts.
pub fn set_source(source: Source) {
    SOURCE.call_once(|| source);
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
    let Some(source) = SOURCE.get() else { return };
    if BUSY.swap(true, Ordering::Acquire) {
        return;
    }
    // Another CPU may have seen to it meanwhile.
    if heap::is_low()
        && let Some(block) = memory().alloc_hyp_unscrubbed(ORDER_2M)
        && !source(block)
    {
        memory().free_hyp(block, ORDER_2M);
    }
    BUSY.store(false, Ordering::Release);
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::{AtomicU32, Ordering};

    use armv7::addr::{Mfn, ORDER_2M};
    use armv7::host::heap::set_free;

    use super::{replenish, set_source};
    use crate::mem::frame_table::{State, Use};
    use crate::mem::testing;

    static GIVEN: AtomicU32 = AtomicU32::new(0);

    #[test]
    fn a_low_heap_gets_a_block_for_good_and_another_one_nothing() {
        let memory = testing::machine();
        set_source(|block: Mfn| {
            GIVEN.store(block.raw(), Ordering::Relaxed);
            set_free(4 << 20);
            true
        });
        replenish();
        assert_eq!(GIVEN.load(Ordering::Relaxed), 0, "there is plenty");
        set_free(1000);
        replenish();
        let block = Mfn::new(GIVEN.load(Ordering::Relaxed).into()).unwrap();
        assert!(block.raw() != 0 && block.is_aligned(ORDER_2M));
        assert_eq!(memory.state(block), State::Used(Use::Hypervisor));
    }
}
