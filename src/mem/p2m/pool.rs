//! A domain's pool of table frames, and access to its tables.
//!
//! Spare frames are chained through their first word. A frame is zeroed when it becomes a table. The frames are in use
//! `Used(Hypervisor)`, so they are scrubbed after they leave the pool. They are added and removed in runs, as a pool
//! has hundreds of frames, most of them unused.

use armv7::addr::Mfn;
use armv7::frame;
use armv7::lpae::Attributes;
use armv7::table::TableFrames;

use super::{P2mError, P2mType, Tlb};
use crate::mem::Memory;

/// Maximum spare frames of an unlimited pool.
const UNLIMITED_SPARE: u32 = 16;
/// Marks a link, so that frame 0 is not the end of the chain.
const LINK: u64 = 2;

/// Table frames of one map.
#[derive(Debug)]
pub struct Space<'m> {
    memory: &'m Memory,
    tlb: Tlb,
    vttbr: u64,
    unlimited: bool,
    spares: Option<Mfn>,
    spare: u32,
    used: u32,
}

impl<'m> Space<'m> {
    pub fn new(memory: &'m Memory, tlb: Tlb, vttbr: u64, unlimited: bool) -> Self {
        Self {
            memory,
            tlb,
            vttbr,
            unlimited,
            spares: None,
            spare: 0,
            used: 0,
        }
    }
    pub fn memory(&self) -> &'m Memory {
        self.memory
    }
    pub fn tlb(&self) -> Tlb {
        self.tlb
    }
    pub fn vttbr(&self) -> u64 {
        self.vttbr
    }
    pub fn vmid(&self) -> u8 {
        (self.vttbr >> 48) as u8
    }
    pub fn used(&self) -> u32 {
        self.used
    }
    pub fn total(&self) -> u32 {
        self.used + self.spare
    }
    pub fn publish(&self) {
        (self.tlb.publish)();
    }

    /// See [`super::P2m::resize_pool`].
    pub fn resize(&mut self, pages: u32, budget: u32) -> Result<bool, P2mError> {
        let mut left = budget;
        while left > 0 && self.total() != pages {
            left -= match pages.checked_sub(self.total()) {
                Some(missing) => self.grow(missing.min(left))?,
                None => {
                    let most = (self.total() - pages).min(left);
                    self.shrink(most).ok_or(P2mError::NoMemory)?
                }
            };
        }
        Ok(self.total() == pages)
    }

    /// Frees all spare frames.
    pub fn drain(&mut self) {
        while self.shrink(u32::MAX).is_some() {}
    }

    /// Adds up to `most` frames. Returns their number.
    fn grow(&mut self, most: u32) -> Result<u32, P2mError> {
        let (first, count) = self
            .memory
            .alloc_hyp_frames(most)
            .ok_or(P2mError::NoMemory)?;
        for frame in (0..count).filter_map(|n| first.checked_add(n)) {
            self.push(frame);
        }
        Ok(count)
    }

    /// Frees up to `most` spare frames that are adjacent. Returns their number.
    fn shrink(&mut self, most: u32) -> Option<u32> {
        let mut first = self.pop()?;
        let mut count = 1;
        while count < most
            && let Some(below) = self.spares
            && below.checked_add(1) == Some(first)
        {
            self.pop()?;
            first = below;
            count += 1;
        }
        self.memory.free_hyp_frames(first, count);
        Some(count)
    }

    fn push(&mut self, frame: Mfn) {
        let link = self.spares.map_or(0, |next| next.addr().raw() | LINK);
        self.write(frame, 0, link);
        self.spares = Some(frame);
        self.spare += 1;
    }

    fn pop(&mut self) -> Option<Mfn> {
        let frame = self.spares?;
        let link = self.read(frame, 0);
        self.spares = (link & LINK != 0)
            .then(|| Mfn::new(link >> armv7::addr::PAGE_SHIFT))
            .flatten();
        self.spare -= 1;
        Some(frame)
    }
}

impl TableFrames for Space<'_> {
    fn alloc(&mut self) -> Option<Mfn> {
        let table = match self.pop() {
            Some(frame) => {
                frame::page(frame)?.zero();
                frame
            }
            None if self.unlimited => self.memory.alloc_hyp(0)?,
            None => return None,
        };
        self.used += 1;
        Some(table)
    }

    fn free(&mut self, table: Mfn) {
        self.used -= 1;
        if self.unlimited && self.spare >= UNLIMITED_SPARE {
            self.memory.free_hyp(table, 0);
        } else {
            self.push(table);
        }
    }

    fn may_merge(&self, attributes: Attributes) -> bool {
        P2mType::from_kind(attributes.kind()).is_some_and(P2mType::leaves_in_blocks)
    }

    fn flush(&mut self, _first: u32, _frames: u32) {
        // ARMv7 has no invalidation by guest physical address (DDI 0406C.d B3.10.5), so the whole VMID is flushed.
        (self.tlb.flush)(self.vttbr);
    }
}
