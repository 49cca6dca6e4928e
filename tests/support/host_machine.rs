//! A machine on the host, with memory and a scheduler, for tests that make domains.

use armv7::addr::Mfn;
use armv7::cpu::{CpuId, CpuSet};
use armv7::host::frame::FIRST;
use krypton::domain::guest_map;
use krypton::mem::frame_table::{FrameEntry, FrameTable};
use krypton::mem::{self, Memory};
use krypton::sched;

/// Sets up the process's machine, with so many frames of RAM and one CPU. Returns its memory.
pub fn set_up(frames: u32) -> &'static Memory {
    let first = Mfn::new(FIRST.into()).unwrap();
    let entries: Vec<FrameEntry> = (0..frames).map(|_| FrameEntry::new()).collect();
    let table = FrameTable::new(Vec::leak(entries), first);
    let end = first.checked_add(frames).unwrap();
    let memory = mem::init(Memory::new(table, end, |_| ()));
    assert!(memory.add_ram(first, frames));
    assert!(sched::init(1_000_000, CpuSet::of(CpuId::BOOT), 0).is_some());
    guest_map::init(guest_map::Host {
        virtual_cpu: Mfn::new(0x8040).unwrap(),
        frames: 2,
        clock_frequency: 0,
    });
    memory
}
