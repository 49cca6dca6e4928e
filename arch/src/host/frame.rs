//! RAM: an arena of frames that starts at machine address 0x4000_0000, as on QEMU's `virt`.

use std::alloc::{Layout, alloc_zeroed};
use std::sync::OnceLock;

use crate::addr::{Mfn, PAGE_SIZE};

/// Frame number of the first frame.
pub const FIRST: u32 = 0x4_0000;
/// Number of frames (256 MiB; the host's kernel allocates only the touched ones).
pub const FRAMES: u32 = 0x1_0000;

/// A mapping slot. Not used, as the whole arena is mapped.
pub struct Slot;

impl Slot {
    /// Returns the address of the mapping.
    pub fn va(&self) -> usize {
        unreachable!("the arena has no frames outside its direct map")
    }
}

fn base() -> usize {
    static BASE: OnceLock<usize> = OnceLock::new();
    *BASE.get_or_init(|| {
        let layout = Layout::from_size_align(FRAMES as usize * PAGE_SIZE, PAGE_SIZE).unwrap();
        // SAFETY: the layout's size is not zero; the allocation is never freed.
        let arena = unsafe { alloc_zeroed(layout) };
        assert!(!arena.is_null(), "no memory for the arena of frames");
        arena as usize
    })
}

/// Returns the address of `mfn` in the arena.
pub fn direct(mfn: Mfn) -> Option<usize> {
    let index = mfn.raw().checked_sub(FIRST)?;
    if index >= FRAMES {
        return None;
    }
    Some(base() + index as usize * PAGE_SIZE)
}

/// Returns `None`: no frame is outside the direct map.
pub fn open_window(_: Mfn) -> Option<Slot> {
    None
}

/// Returns `None`: no frame is outside the direct map.
pub fn map_slot(_: Mfn) -> Option<Slot> {
    None
}

/// Does nothing.
pub fn unmap_slot(_: Slot) {}
