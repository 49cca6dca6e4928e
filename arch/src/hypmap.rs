//! The hypervisor's own stage 1 after boot/head.S: direct map, devices, single frames, private memory.
//!
//! All CPUs share one set of tables. The tables are part of the image's BSS, so mapping does not allocate, and the
//! tables are outside the direct map. A mapping is made from an invalid entry, or removed with a TLB invalidate;
//! attributes never change in place. W^X holds, as only boot/head.S maps code.

use core::num::NonZeroUsize;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use spin::Once;
use spin::mutex::SpinMutex;

use crate::addr::{Mfn, ORDER_2M, PAGE_SHIFT, PAGE_SIZE, PhysAddr};
use crate::barrier::{dsb_ishst, isb};
use crate::cpu::MAX_CPUS;
use crate::layout;
use crate::lpae::{Access, Attributes, Descriptor, HypMemory, Level, TableNote};
use crate::mmio::Window;
use crate::{probe, smp, tlb};

const ENTRIES: usize = 512;
const BLOCK_2M: usize = PAGE_SIZE << ORDER_2M;

#[repr(C, align(4096))]
struct Table([AtomicU64; ENTRIES]);

impl Table {
    const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; ENTRIES])
    }

    fn get(&self, index: usize) -> Descriptor {
        Descriptor(self.0[index].load(Ordering::Relaxed))
    }

    fn set(&self, index: usize, descriptor: Descriptor) {
        self.0[index].store(descriptor.0, Ordering::Release);
    }
}

unsafe extern "C" {
    static hyp_root: Table;
    static hyp_l2_low: Table;
    static hyp_l3_image: Table;
}

static DIRECT_L2: [Table; 3] = [const { Table::new() }; 3];
static DEVICE_L3: Table = Table::new();
static SLOTS_L3: [Table; layout::SLOT_TABLES] = [const { Table::new() }; layout::SLOT_TABLES];

fn root() -> &'static Table {
    // SAFETY: boot/head.S defines it as a page of the image; it is changed only through atomics.
    unsafe { &hyp_root }
}

fn low() -> &'static Table {
    // SAFETY: as above.
    unsafe { &hyp_l2_low }
}

fn image() -> &'static Table {
    // SAFETY: as above.
    unsafe { &hyp_l3_image }
}

fn l2_index(va: usize) -> usize {
    va >> 21 & (ENTRIES - 1)
}

fn l3_index(va: usize) -> usize {
    va >> PAGE_SHIFT & (ENTRIES - 1)
}

const DATA: Attributes = Attributes::hyp(HypMemory::WriteBack, Access::RW);
const READ_ONLY: Attributes = Attributes::hyp(HypMemory::WriteBack, Access::R);
const CODE: Attributes = Attributes::hyp(HypMemory::WriteBack, Access::RX);
const DEVICE: Attributes = Attributes::hyp(HypMemory::Device, Access::RW);

/// Physical minus virtual address of the image, modulo 2^32.
static IMAGE_OFFSET: AtomicU32 = AtomicU32::new(0);

fn image_phys(va: usize) -> Mfn {
    let pa = (va as u32).wrapping_add(IMAGE_OFFSET.load(Ordering::Relaxed));
    PhysAddr::new(u64::from(pa)).unwrap_or_default().frame()
}

fn table_frame(table: &Table) -> Mfn {
    image_phys(table as *const Table as usize)
}

/// Makes new mappings visible to walks. Their entries were invalid before, so no TLB holds them.
fn publish() {
    dsb_ishst();
    isb();
}

/// Links the tables. `load` is the physical address of the image's first byte.
///
/// Called once, before anything else on the boot CPU.
pub fn init(load: PhysAddr) {
    IMAGE_OFFSET.store(
        (load.raw() as u32).wrapping_sub(layout::IMAGE as u32),
        Ordering::Relaxed,
    );
    let note = TableNote::default();
    for (n, table) in DIRECT_L2.iter().enumerate() {
        root().set(n + 1, Descriptor::table(table_frame(table), note));
    }
    low().set(
        l2_index(layout::DEVICE),
        Descriptor::table(table_frame(&DEVICE_L3), note),
    );
    for (n, table) in SLOTS_L3.iter().enumerate() {
        low().set(
            l2_index(layout::SLOTS) + n,
            Descriptor::table(table_frame(table), note),
        );
    }
    publish();
}

/// Returns the first frame of the image, and the frame at the end of its BSS.
pub fn image_frames() -> (Mfn, Mfn) {
    (image_phys(layout::IMAGE), image_phys(layout::image_end()))
}

/// Returns the physical address of a byte of the image.
pub fn image_address(va: usize) -> PhysAddr {
    let frame = image_phys(va).addr();
    frame
        .checked_add((va & (PAGE_SIZE - 1)) as u64)
        .unwrap_or(frame)
}

/// Maps the boot code again after [`drop_boot_mappings`], for a CPU that starts, until [`drop_boot_code`].
pub fn map_boot_code() {
    for va in (layout::IMAGE..layout::boot_end()).step_by(PAGE_SIZE) {
        image().set(
            l3_index(va),
            Descriptor::leaf(Level::Three, image_phys(va), CODE),
        );
    }
    publish();
}

/// Unmaps the boot code.
pub fn drop_boot_code() {
    for va in (layout::IMAGE..layout::boot_end()).step_by(PAGE_SIZE) {
        image().set(l3_index(va), Descriptor::INVALID);
    }
    tlb::flush_hyp();
}

/// Unmaps the boot code and the boot loader's device tree.
pub fn drop_boot_mappings() {
    low().set(l2_index(layout::FDT), Descriptor::INVALID);
    low().set(l2_index(layout::FDT) + 1, Descriptor::INVALID);
    drop_boot_code();
}

/// Unmaps the page below each stack, so that an overflow takes an exception.
pub fn guard_stacks() {
    for cpu in 0..MAX_CPUS {
        image().set(
            l3_index(layout::stacks_start() + cpu * layout::STACK_STRIDE),
            Descriptor::INVALID,
        );
    }
    image().set(l3_index(layout::fault_stack_start()), Descriptor::INVALID);
    tlb::flush_hyp();
}

/// Maps the boot loader's device tree read-only. Returns it with the length in its header, up to 2 MiB, or the header
/// alone if its end is not memory.
///
/// If there is no tree, the error is the first word; 0 if that cannot be read.
pub fn map_device_tree(at: PhysAddr) -> Result<&'static [u8], u32> {
    const MAGIC: u32 = 0xD00D_FEED;
    const MAX: usize = BLOCK_2M;
    const HEADER: usize = 40;
    let block = at.frame().align_down(ORDER_2M);
    for n in 0..2 {
        if let Some(frame) = block.checked_add(n << ORDER_2M) {
            low().set(
                l2_index(layout::FDT) + n as usize,
                Descriptor::leaf(Level::Two, frame, READ_ONLY),
            );
        }
    }
    publish();
    let va = layout::FDT + (at.raw() as usize & (BLOCK_2M - 1));
    if !va.is_multiple_of(4) {
        return Err(0);
    }
    let word = |offset: usize| probe::read(va + offset).map(u32::from_be);
    match word(0) {
        Some(MAGIC) => {}
        Some(other) => return Err(other),
        None => return Err(0),
    }
    let len = (word(4).unwrap_or(0) as usize).min(MAX);
    let last = len.saturating_sub(1) & !3;
    let len = word(last).map_or(HEADER.min(len), |_| len);
    // SAFETY: 1. both blocks are mapped read-only until `drop_boot_mappings`, after which boot no longer holds the
    // slice; 2. the boot loader's memory is reserved, so it does not change meanwhile.
    Ok(unsafe { core::slice::from_raw_parts(va as *const u8, len) })
}

/// Unmaps the device tree, so that another address can be tried.
pub fn unmap_device_tree() {
    low().set(l2_index(layout::FDT), Descriptor::INVALID);
    low().set(l2_index(layout::FDT) + 1, Descriptor::INVALID);
    tlb::flush_boot();
}

/// Reads the word at a machine address, which must not be a device; `None` if there is no memory. For boot, on the boot
/// CPU.
pub fn peek(at: PhysAddr) -> Option<u32> {
    let index = l2_index(layout::PEEK);
    let block = at.frame().align_down(ORDER_2M);
    low().set(index, Descriptor::leaf(Level::Two, block, READ_ONLY));
    publish();
    let va = layout::PEEK + (at.raw() as usize & (BLOCK_2M - 1));
    let word = va.is_multiple_of(4).then(|| probe::read(va)).flatten();
    low().set(index, Descriptor::INVALID);
    tlb::flush_boot();
    word
}

static DEVICE_NEXT: AtomicU32 = AtomicU32::new(0);

/// Maps `len` bytes of device registers at `at` permanently. Returns `None` if `len` is 0 or the device window is full.
pub fn map_device(at: PhysAddr, len: u64) -> Option<Window> {
    let offset = at.offset();
    let pages = layout::pages(offset, len, ENTRIES)?;
    let first = DEVICE_NEXT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
        let end = next as usize + pages;
        (end <= ENTRIES).then_some(end as u32)
    });
    let first = first.ok()? as usize;
    for n in 0..pages {
        let frame = at.frame().checked_add(n as u32)?;
        DEVICE_L3.set(first + n, Descriptor::leaf(Level::Three, frame, DEVICE));
    }
    publish();
    // SAFETY: the pages are mapped as device memory and never unmapped. The device tree states that they hold
    // registers, which boot checks against its memory nodes.
    Some(unsafe { Window::new(layout::DEVICE + first * PAGE_SIZE + offset, len as usize) })
}

/// First frame of the direct map; `u32::MAX` before [`start_direct_map`].
static DIRECT_FIRST: AtomicU32 = AtomicU32::new(u32::MAX);
/// First frame, number of frames and address of the longest part of the direct map without holes: nearly all RAM, so
/// that one comparison usually suffices. Changed only by boot, on one CPU. `#[used]` keeps the three words adjacent, at
/// one address.
#[used]
static SOLID: [AtomicU32; 3] = [
    AtomicU32::new(u32::MAX),
    AtomicU32::new(0),
    AtomicU32::new(0),
];
/// Mapped 2 MiB blocks of the direct map, one bit each.
static DIRECT_BLOCKS: [AtomicU32; 48] = [const { AtomicU32::new(0) }; 48];

/// Starts the direct map at the GiB that contains `lowest`, the first frame of RAM.
pub fn start_direct_map(lowest: Mfn) {
    DIRECT_FIRST.store(
        lowest.align_down(crate::addr::ORDER_1G).raw(),
        Ordering::Relaxed,
    );
}

/// Adds the 2 MiB block at `block` to the direct map. Returns false if it is out of range.
pub fn map_direct_block(block: Mfn) -> bool {
    let Some(index) = block
        .raw()
        .checked_sub(DIRECT_FIRST.load(Ordering::Relaxed))
    else {
        return false;
    };
    let index = (index >> ORDER_2M) as usize;
    if index >= layout::DIRECT_SIZE >> 21 {
        return false;
    }
    DIRECT_L2[index / ENTRIES].set(index % ENTRIES, Descriptor::leaf(Level::Two, block, DATA));
    DIRECT_BLOCKS[index / 32].fetch_or(1 << (index % 32), Ordering::Release);
    publish();
    update_solid(index as u32);
    true
}

/// Updates the longest run after the block `index` was mapped.
fn update_solid(index: u32) {
    let first = DIRECT_FIRST.load(Ordering::Relaxed);
    let [start, frames, va] = &SOLID;
    let best = frames.load(Ordering::Relaxed) >> ORDER_2M;
    let best_first = start.load(Ordering::Relaxed).wrapping_sub(first) >> ORDER_2M;
    let (mut from, mut to) = (index, index + 1);
    if best > 0 && best_first.wrapping_add(best) == index {
        from = best_first;
    }
    while from > 0 && is_direct_block(from - 1) {
        from -= 1;
    }
    while is_direct_block(to) {
        to += 1;
    }
    if to - from > best {
        start.store(first + (from << ORDER_2M), Ordering::Relaxed);
        frames.store((to - from) << ORDER_2M, Ordering::Relaxed);
        let at = layout::DIRECT + ((from as usize) << (ORDER_2M + PAGE_SHIFT));
        va.store(at as u32, Ordering::Relaxed);
    }
}

fn is_direct_block(block: u32) -> bool {
    DIRECT_BLOCKS
        .get(block as usize / 32)
        .is_some_and(|word| word.load(Ordering::Relaxed) & 1 << (block % 32) != 0)
}

/// Returns the address of `mfn` in the direct map, `None` if it is not mapped there.
pub fn direct(mfn: Mfn) -> Option<usize> {
    let [start, frames, va] = &SOLID;
    let solid = mfn.raw().wrapping_sub(start.load(Ordering::Relaxed));
    if solid < frames.load(Ordering::Relaxed) {
        let va = va.load(Ordering::Relaxed) as usize;
        Some(va.wrapping_add((solid as usize) << PAGE_SHIFT))
    } else {
        direct_beyond_hole(mfn).map(NonZeroUsize::get)
    }
}

#[cold]
#[inline(never)]
fn direct_beyond_hole(mfn: Mfn) -> Option<NonZeroUsize> {
    let first = DIRECT_FIRST.load(Ordering::Relaxed);
    let index = mfn.raw().wrapping_sub(first);
    if !is_direct_block(index >> ORDER_2M) {
        return None;
    }
    NonZeroUsize::new(layout::DIRECT + ((index as usize) << PAGE_SHIFT))
}

/// Returns one past the last frame that the direct map can hold.
pub fn direct_limit() -> Option<Mfn> {
    let first = DIRECT_FIRST.load(Ordering::Relaxed);
    Mfn::new(u64::from(first) + (layout::DIRECT_SIZE >> PAGE_SHIFT) as u64)
}

const WINDOWS_PER_CPU: usize = 4;
const WINDOWS: usize = WINDOWS_PER_CPU * MAX_CPUS;
const _: () = assert!(layout::KEPT_FRAMES == ENTRIES * layout::SLOT_TABLES - WINDOWS);
static WINDOWS_USED: [AtomicU8; MAX_CPUS] = [const { AtomicU8::new(0) }; MAX_CPUS];
static SLOTS_USED: SpinMutex<[u32; ENTRIES * layout::SLOT_TABLES / 32]> =
    SpinMutex::new([0; ENTRIES * layout::SLOT_TABLES / 32]);
/// Returns whether a frame is RAM. Other frames get no windows or slots.
static RAM: Once<fn(Mfn) -> bool> = Once::new();

/// Sets the test for RAM, once the frame table exists.
pub fn set_ram_test(is_ram: fn(Mfn) -> bool) {
    RAM.call_once(|| is_ram);
}

fn is_ram(mfn: Mfn) -> bool {
    RAM.get().is_some_and(|test| test(mfn))
}

fn slot_va(index: usize) -> usize {
    layout::SLOTS + index * PAGE_SIZE
}

fn set_slot(index: usize, descriptor: Descriptor) {
    if let Some(table) = SLOTS_L3.get(index / ENTRIES) {
        table.set(index % ENTRIES, descriptor);
    }
}

/// A mapping of one frame.
pub struct Slot {
    index: usize,
}

impl Slot {
    /// Returns the address of the mapping.
    pub fn va(&self) -> usize {
        slot_va(self.index)
    }
}

/// A window of this CPU on one frame, closed when dropped.
pub struct CpuWindow {
    slot: Slot,
}

impl CpuWindow {
    /// Returns the address of the window.
    pub fn va(&self) -> usize {
        self.slot.va()
    }
}

impl Drop for CpuWindow {
    fn drop(&mut self) {
        set_slot(self.slot.index, Descriptor::INVALID);
        tlb::flush_hyp_page(self.slot.va());
        let (cpu, n) = (
            self.slot.index / WINDOWS_PER_CPU,
            self.slot.index % WINDOWS_PER_CPU,
        );
        if let Some(used) = WINDOWS_USED.get(cpu) {
            used.fetch_and(!(1 << n), Ordering::Relaxed);
        }
    }
}

/// Opens a window of this CPU on a frame outside the direct map. Returns `None` if it is not RAM or all four windows
/// are open.
pub fn open_window(mfn: Mfn) -> Option<CpuWindow> {
    if !is_ram(mfn) {
        return None;
    }
    let cpu = smp::this_cpu().index();
    let used = WINDOWS_USED.get(cpu)?;
    let n = (!used.load(Ordering::Relaxed)).trailing_zeros() as usize;
    if n >= WINDOWS_PER_CPU {
        return None;
    }
    used.fetch_or(1 << n, Ordering::Relaxed);
    let index = cpu * WINDOWS_PER_CPU + n;
    set_slot(index, Descriptor::leaf(Level::Three, mfn, DATA));
    publish();
    Some(CpuWindow {
        slot: Slot { index },
    })
}

/// Maps a frame outside the direct map until [`unmap_slot`]. Returns `None` if it is not RAM or all slots are in use.
pub fn map_slot(mfn: Mfn) -> Option<Slot> {
    if !is_ram(mfn) {
        return None;
    }
    let mut used = SLOTS_USED.lock();
    let word = used
        .iter()
        .enumerate()
        .skip(WINDOWS / 32)
        .find(|(_, word)| **word != !0)
        .map(|(n, _)| n)?;
    let bit = used[word].trailing_ones() as usize;
    used[word] |= 1 << bit;
    let index = word * 32 + bit;
    set_slot(index, Descriptor::leaf(Level::Three, mfn, DATA));
    publish();
    Some(Slot { index })
}

/// Unmaps a slot of [`map_slot`].
pub fn unmap_slot(slot: Slot) {
    set_slot(slot.index, Descriptor::INVALID);
    tlb::flush_hyp_page(slot.va());
    let mut used = SLOTS_USED.lock();
    if let Some(word) = used.get_mut(slot.index / 32) {
        *word &= !(1 << (slot.index % 32));
    }
}

static PRIVATE_NEXT: AtomicU32 = AtomicU32::new(layout::PRIVATE as u32);

/// Maps `blocks` 2 MiB blocks of RAM at `first` as private memory for Rust, contents unchanged. Returns their address,
/// `None` if the address space is full.
///
/// # Safety
/// 1. The frames must have no other user until [`unmap_private`], the page allocator and the direct map included.
/// 2. One CPU at a time may call this or [`unmap_private`].
pub(crate) unsafe fn map_private(first: Mfn, blocks: usize) -> Option<*mut u8> {
    let start = match private_hole().filter(|_| blocks == 1) {
        Some(start) => start,
        None => PRIVATE_NEXT
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
                let end = next as usize + blocks * BLOCK_2M;
                (end <= layout::PRIVATE_END).then_some(end as u32)
            })
            .ok()? as usize,
    };
    for n in 0..blocks {
        let frame = first.checked_add((n as u32) << ORDER_2M)?;
        low().set(
            l2_index(start) + n,
            Descriptor::leaf(Level::Two, frame, DATA),
        );
    }
    publish();
    Some(start as *mut u8)
}

/// Returns the address of a block of private memory that was unmapped.
fn private_hole() -> Option<usize> {
    let next = PRIVATE_NEXT.load(Ordering::Relaxed) as usize;
    (layout::PRIVATE..next)
        .step_by(BLOCK_2M)
        .find(|start| !low().get(l2_index(*start)).is_valid())
}

/// Unmaps the block of private memory at `start`. Returns its RAM.
///
/// # Safety
/// 1. The block must be unused.
/// 2. One CPU at a time may call this or [`map_private`].
pub(crate) unsafe fn unmap_private(start: usize) -> Option<Mfn> {
    let index = l2_index(start);
    let (block, _) = low().get(index).block()?;
    low().set(index, Descriptor::INVALID);
    tlb::flush_hyp();
    Some(block.align_down(ORDER_2M))
}
