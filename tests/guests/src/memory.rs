//! Guest memory: what the image's addresses are to the hypervisor, spare frames for tests, and the fixmap.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::{cp15, platform};

static PHYSICAL_OFFSET: AtomicU32 = AtomicU32::new(0);

pub(crate) fn set_physical_offset(offset: u32) {
    PHYSICAL_OFFSET.store(offset, Ordering::Relaxed);
}

/// Guest-physical address of an object in the image.
pub fn physical(address: u32) -> u32 {
    address.wrapping_add(PHYSICAL_OFFSET.load(Ordering::Relaxed))
}

pub const PAGE_SIZE: u32 = 4096;

/// Where spare frames begin, from the start of the first bank: beyond a domU's kernel at 32 KiB, before what the builders
/// put at 128 MiB and dom0's kernel just below it (abi.md 6).
const SPARE_OFFSET: u32 = 32 << 20;

static TAKEN: AtomicU32 = AtomicU32::new(0);

/// A page of guest RAM outside the image. boot.S maps it identically: its address is virtual and guest-physical.
#[derive(Clone, Copy)]
pub struct Frame(u32);

impl Frame {
    /// Takes a zeroed frame that no other test has.
    pub fn take() -> Self {
        Self::take_aligned(1)
    }

    /// Takes `count` contiguous zeroed frames (a power of two), aligned to their size; returns the first.
    pub fn take_aligned(count: u32) -> Self {
        let size = count * PAGE_SIZE;
        let base = platform::get().ram_base + SPARE_OFFSET;
        let taken = TAKEN.load(Ordering::Relaxed).next_multiple_of(size);
        TAKEN.store(taken + size, Ordering::Relaxed);
        let frame = Frame(base + taken);
        // SAFETY: spare RAM, handed out once, mapped identically as Normal memory.
        unsafe { core::ptr::write_bytes(frame.pointer::<u8>(), 0, size as usize) };
        frame
    }

    /// The frame at an address that `take` returned before.
    pub fn at(address: u32) -> Self {
        Frame(address)
    }

    pub fn address(self) -> u32 {
        self.0
    }

    /// The frame number, as the ABI's 64-bit `xen_pfn_t`.
    pub fn gfn(self) -> u64 {
        u64::from(self.0 >> 12)
    }

    pub fn pointer<T>(self) -> *mut T {
        self.0 as *mut T
    }

    /// The word at `offset`, shared with the hypervisor: hence atomic.
    pub fn word(self, offset: u32) -> &'static AtomicU32 {
        debug_assert!(offset < PAGE_SIZE && offset.is_multiple_of(4));
        // SAFETY: within the frame, aligned, never given back.
        unsafe { &*((self.0 + offset) as *const AtomicU32) }
    }

    pub fn read(self, offset: u32) -> u32 {
        self.word(offset).load(Ordering::SeqCst)
    }

    pub fn write(self, offset: u32, value: u32) {
        self.word(offset).store(value, Ordering::SeqCst);
    }

    /// The next frame of a contiguous run.
    pub fn nth(self, index: u32) -> Self {
        Frame(self.0 + index * PAGE_SIZE)
    }
}

const FIXMAP_BASE: u32 = 0xc020_0000;

/// Pages of the fixmap by purpose.
#[derive(Clone, Copy)]
pub enum Slot {
    Console = 0,
    Test = 2,
    /// Follows `Test`; unmapped unless a test maps it.
    AfterTest = 3,
}

/// A virtual address that boot.S leaves unmapped.
pub const UNMAPPED: u32 = 0xd000_0000;

/// Page descriptors (DDI 0406C.d B3.6.2): valid page, AttrIndx 2, AF, inner-shareable.
const PAGE_READ_WRITE: u32 = 0x70b;
const READ_ONLY: u32 = 0x80;

unsafe extern "C" {
    static mut stage1_fixmap: [u64; 512];
    static mut stage1_level2: [u64; 512];
    static mut stage1_level1: [u64; 4];
}

/// Guest-physical address of the level 1 table, for tests that switch the translation regime.
pub fn level1_table() -> u32 {
    physical(&raw const stage1_level1 as u32)
}

/// Puts a level 3 table at a guest-physical address behind [`UNMAPPED`], or none.
pub fn set_table_of_unmapped(table: Option<u32>) {
    const TABLE: u32 = 3;
    let descriptor = table.map_or(0, |table| table | TABLE);
    let index = (UNMAPPED >> 21) as usize % 512;
    // SAFETY: as in `set_fixed`.
    unsafe { (&raw mut stage1_level2).cast::<u64>().add(index).write_volatile(u64::from(descriptor)) };
    cp15::flush_tlb();
}

fn set_fixed(slot: Slot, descriptor: u32) -> u32 {
    let index = slot as usize;
    // SAFETY: only the boot CPU changes the fixmap, and the walker is told by the flush.
    unsafe { (&raw mut stage1_fixmap).cast::<u64>().add(index).write_volatile(u64::from(descriptor)) };
    cp15::flush_tlb();
    FIXMAP_BASE + index as u32 * PAGE_SIZE
}

/// Maps a guest-physical page as Normal memory; returns its virtual address.
pub fn map_fixed(slot: Slot, physical: u32) -> u32 {
    set_fixed(slot, (physical & !0xfff) | PAGE_READ_WRITE)
}

/// Maps a guest-physical page read-only; returns its virtual address.
pub fn map_fixed_read_only(slot: Slot, physical: u32) -> u32 {
    set_fixed(slot, (physical & !0xfff) | PAGE_READ_WRITE | READ_ONLY)
}

/// Makes the slot's page fault; returns its virtual address.
pub fn unmap_fixed(slot: Slot) -> u32 {
    set_fixed(slot, 0)
}
