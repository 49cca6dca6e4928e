//! Take-over of all RAM: private memory for Rust, direct map, frame table.

use alloc::vec::Vec;

use armv7::addr::{Mfn, ORDER_2M, PAGE_SHIFT, PhysAddr};
use armv7::heap::BootMemory;
use armv7::{cache, hypmap};
use krypton::dom0::build;
use krypton::mem::frame_table::{FrameEntry, FrameTable, State, Use};
use krypton::mem::{self, Memory};
use krypton::partition::restart;
use krypton::platform::BootError;
use krypton::platform::host_dt::HostInfo;
use krypton::platform::ranges::PhysRange;

use super::{Loaded, fail};

const BLOCK: u64 = 1 << (PAGE_SHIFT + ORDER_2M);
/// Minimum heap in bytes; the rest of the last private block is added.
const HEAP: u64 = 2 << 20;
/// Frames reserved for the hypervisor.
const RESERVE_PAGES: u32 = 256;

fn oom(what: &str, need: u64, found: u64) -> BootError {
    krypton::log::print(format_args!("BOOT: no room for {what}"));
    BootError::TooLittleRam {
        found: found >> 20,
        need: need >> 20,
    }
}

/// Takes over all RAM. Adds ranges that the hypervisor keeps to `host.reserved`.
pub fn set_up_memory(host: &mut HostInfo, tree: &Loaded) {
    hypmap::guard_stacks();
    let (image_first, image_end) = hypmap::image_frames();
    let image = block_range(image_first, image_end);
    let tree_range = PhysRange::new(tree.at.raw(), tree.bytes.len() as u64);
    let (Some(image), Some(tree_range)) = (image, tree_range) else {
        fail(&BootError::Corrupt("addresses of the image or tree".into()));
    };
    if let Err(error) = host.claim(tree_range, exact(image_first, image_end).unwrap_or(image)) {
        fail(&error);
    }
    host.reserve(image);
    let (Some(lowest), Some(highest)) = (host.ram.first(), host.ram.last()) else {
        fail(&BootError::TooLittleRam {
            found: 0,
            need: 128,
        });
    };
    let first = lowest.start().frame();
    let frames = ((highest.end() - lowest.base()) >> PAGE_SHIFT) as u32;
    let total: u64 = host.ram.iter().map(PhysRange::size).sum();

    // Private memory: the frame table, then the heap.
    let size = (FrameTable::bytes_for(frames) as u64 + HEAP).next_multiple_of(BLOCK);
    let Some(private) = host.private_place(size, BLOCK) else {
        fail(&oom("the frame table", size, total))
    };
    host.reserve(private);
    // SAFETY: the range is unused RAM, and reserved from here on.
    let memory = unsafe { BootMemory::new(private.start().frame(), (size / BLOCK) as usize) };
    let Some(mut memory) = memory else {
        fail(&oom("private memory", size, total))
    };
    let Some(entries) = memory.slice::<FrameEntry>(frames as usize) else {
        fail(&oom("the frame table", size, total));
    };
    memory.into_heap();

    let odd = map_directly(host, first);
    let direct_end = hypmap::direct_limit().unwrap_or(first);
    let memory = mem::init(Memory::new(
        FrameTable::new(entries, first),
        direct_end,
        |page| {
            cache::page(page, cache::Op::Clean);
        },
    ));
    hypmap::set_ram_test(|mfn| mem::memory().state(mfn) != State::Outside);
    for bank in &host.ram {
        if !memory.add_ram(bank.start().frame(), (bank.size() >> PAGE_SHIFT) as u32) {
            log::warn!(
                "RAM {:#x}-{:#x} is beyond the frame table",
                bank.base(),
                bank.end()
            );
        }
    }
    // Remainders that are not whole 2 MiB blocks are too small to be worth other mappings.
    for range in odd {
        host.reserve(range);
    }
    let permanent = host.permanent();
    for range in permanent.iter().flat_map(|range| clip(range, &host.ram)) {
        let reserved = memory.reserve(
            range.start().frame(),
            (range.size() >> PAGE_SHIFT) as u32,
            Use::Reserved,
        );
        if reserved.is_err() {
            log::warn!(
                "RAM {:#x}-{:#x} cannot be reserved",
                range.base(),
                range.end()
            );
        }
    }
    for range in host.kept_ram() {
        let (first, count) = (range.start().frame(), (range.size() >> PAGE_SHIFT) as u32);
        // Those who share memory name it each.
        let is_kept = memory.state(first) == State::Used(Use::Domain)
            || memory.reserve(first, count, Use::Domain).is_ok();
        if !is_kept {
            log::warn!("RAM {range} is not free for a domain");
        }
    }
    if let Err(error) = build::reserve_modules(host) {
        fail(&error);
    }
    memory.set_hyp_reserve(RESERVE_PAGES);
    mem::heap::set_blocks(mem::heap::Blocks {
        // SAFETY: 1. the allocator has given the block away, so its frame numbers are unused until it is returned; 2.
        // one CPU at a time does this.
        give: |block| unsafe { armv7::heap::grow(block) },
        // SAFETY: the same.
        take: || unsafe { armv7::heap::shrink() },
    });
    log::info!(
        "Xen heap: frame table {} KiB; {} MiB of {} MiB free",
        FrameTable::bytes_for(frames) >> 10,
        memory.free_pages() >> 8,
        total >> 20
    );
}

/// Returns the parts of `range` that are RAM.
fn clip(range: &PhysRange, ram: &[PhysRange]) -> Vec<PhysRange> {
    ram.iter()
        .filter_map(|bank| {
            let (start, end) = (range.base().max(bank.base()), range.end().min(bank.end()));
            if start < end {
                PhysRange::from_ends(start, end)
            } else {
                None
            }
        })
        .collect()
}

fn exact(first: Mfn, end: Mfn) -> Option<PhysRange> {
    PhysRange::from_ends(first.addr().raw(), end.addr().raw())
}

/// Returns the 2 MiB blocks that contain `first..end`.
fn block_range(first: Mfn, end: Mfn) -> Option<PhysRange> {
    PhysRange::from_ends(
        first.addr().raw() & !(BLOCK - 1),
        end.addr().raw().next_multiple_of(BLOCK),
    )
}

/// Maps every whole 2 MiB block of RAM that is not private. Returns the remaining pieces below the direct map's end.
fn map_directly(host: &HostInfo, first: Mfn) -> Vec<PhysRange> {
    hypmap::start_direct_map(first);
    let end = hypmap::direct_limit().map_or(0, |end| end.addr().raw());
    let mut odd = Vec::new();
    let (image_first, image_end) = hypmap::image_frames();
    let image = block_range(image_first, image_end);
    for bank in &host.ram {
        let Some(whole) = bank.aligned_inward(BLOCK) else {
            odd.push(*bank);
            continue;
        };
        odd.extend(
            PhysRange::from_ends(bank.base(), whole.base()).filter(|range| range.size() > 0),
        );
        odd.extend(PhysRange::from_ends(whole.end(), bank.end()).filter(|range| range.size() > 0));
        let mut at = whole.base();
        while at < whole.end().min(end) {
            let block = PhysRange::new(at, BLOCK);
            let is_private = block.is_some_and(|block| {
                image.is_some_and(|image| image.overlaps(&block))
                    || host.private.iter().any(|p| p.overlaps(&block))
            });
            if !is_private && let Some(at) = PhysAddr::new(at) {
                hypmap::map_direct_block(at.frame());
            }
            at += BLOCK;
        }
    }
    odd
}

/// Returns the machine addresses at which dom0 sees its grant table: those of the image, which are never dom0's memory.
pub fn grant_window() -> Result<PhysRange, BootError> {
    /// Default of gnttab_max_frames, in bytes.
    const SIZE: u64 = 64 << PAGE_SHIFT;
    let (first, _) = hypmap::image_frames();
    PhysRange::new(first.addr().raw(), SIZE)
        .ok_or_else(|| BootError::Dom0("no place for grants".into()))
}

/// Frees what only the boot needed: the modules of domains that are never made again.
pub fn drop_boot(host: &HostInfo) {
    let kept = restart::keep_modules(&host.permanent());
    build::release_modules(host, &kept);
    let size: u64 = kept.iter().map(PhysRange::size).sum();
    if size != 0 {
        log::info!("{} KiB of boot modules stay for restarts", size >> 10);
    }
}
