//! Memory for tests: a private part of the host's arena per instance, so that tests run in parallel.

use std::ops::Deref;
use std::sync::{Mutex, OnceLock};

use armv7::addr::Mfn;
use armv7::host::frame::{FIRST, FRAMES};

use super::Memory;
use super::audit::Discrepancy;
use super::frame_table::{FrameEntry, FrameTable};

/// Frames of one instance (16 MiB).
pub const PART: u32 = 4096;

static TAKEN: Mutex<[bool; (FRAMES / PART) as usize]> =
    Mutex::new([false; (FRAMES / PART) as usize]);

/// Some of the arena as [`Memory`]; gives its part back when dropped.
pub struct TestMemory {
    memory: &'static Memory,
    part: usize,
}

impl Deref for TestMemory {
    type Target = &'static Memory;
    fn deref(&self) -> &&'static Memory {
        &self.memory
    }
}

impl Drop for TestMemory {
    fn drop(&mut self) {
        TAKEN.lock().unwrap_or_else(|poison| poison.into_inner())[self.part] = false;
    }
}

/// Memory with [`PART`] free frames, filled with a pattern; waits while all parts are in use. All frames are in the
/// direct map, but the upper half is treated as beyond it.
pub fn memory() -> TestMemory {
    let (memory, part) = part_of_arena();
    let memory = Box::leak(Box::new(memory));
    TestMemory { memory, part }
}

fn part_of_arena() -> (Memory, usize) {
    let part = loop {
        let mut taken = TAKEN.lock().unwrap_or_else(|poison| poison.into_inner());
        if let Some(part) = taken.iter().position(|taken| !taken) {
            taken[part] = true;
            break part;
        }
        drop(taken);
        std::thread::yield_now();
    };
    let first = Mfn::new(u64::from(FIRST) + part as u64 * u64::from(PART)).unwrap();
    let entries: Vec<FrameEntry> = (0..PART).map(|_| FrameEntry::new()).collect();
    let frames = FrameTable::new(Vec::leak(entries), first);
    let direct_end = first.checked_add(PART / 2).unwrap();
    let memory = Memory::new(frames, direct_end, |_| ());
    assert!(memory.add_ram(first, PART));
    (memory, part)
}

/// Returns the machine's memory, for tests of what reaches it by [`super::memory`]: one for all of them.
pub fn machine() -> &'static Memory {
    static MACHINE: OnceLock<&Memory> = OnceLock::new();
    MACHINE.get_or_init(|| super::init(part_of_arena().0))
}

impl Memory {
    /// Returns the audit, with the references in a list: a frame, once for each.
    pub fn audit_list(&self, references: impl IntoIterator<Item = Mfn>) -> Result<(), Discrepancy> {
        let list: Vec<Mfn> = references.into_iter().collect();
        self.audit(|name| list.iter().for_each(|mfn| name(*mfn, 1)))
    }
}
