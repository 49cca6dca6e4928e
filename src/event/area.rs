//! Structures in a guest's pages through which it sees its events, each vCPU's `vcpu_info` among them.

use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, Ordering};

use armv7::addr::PAGE_SIZE;
use armv7::frame::{PageRef, SharedPage};

use super::{EventError, word};
use crate::abi::shared_info::{SharedInfo, VcpuInfo};
use crate::id::{MAX_VCPUS, VcpuId};

const INITIAL_INFO: usize = offset_of!(SharedInfo, vcpu_info);
const UPCALL_PENDING: usize = offset_of!(VcpuInfo, evtchn_upcall_pending);
const PENDING_SEL: usize = offset_of!(VcpuInfo, evtchn_pending_sel);

/// A structure inside one page of a guest, aligned to 8 bytes.
pub(super) struct Area<P> {
    page: P,
    offset: usize,
}

impl<P: PageRef> Area<P> {
    /// Returns the area of `size` bytes at `offset`, or `None` if it is not aligned to 8 or exceeds the page.
    pub fn new(page: P, offset: u32, size: usize) -> Option<Self> {
        Self::fits(offset, size).then_some(Self {
            page,
            offset: offset as usize,
        })
    }

    /// Returns whether an area of `size` bytes at `offset` is aligned and inside the page.
    pub fn fits(offset: u32, size: usize) -> bool {
        let offset = offset as usize;
        offset <= PAGE_SIZE - size && offset.is_multiple_of(8)
    }

    /// Returns the word at byte `at` of the area. The `%` has no effect inside the area; it removes the bounds check.
    pub fn word(&self, at: usize) -> &AtomicU32 {
        let words = self.page.page().words();
        &words[(self.offset + at) / 4 % words.len()]
    }
}

impl<P> Area<P> {
    /// Returns the page.
    pub fn kept(&self) -> &P {
        &self.page
    }
}

/// Location of each vCPU's `vcpu_info`.
pub(super) struct Upcalls<P> {
    registered: [Option<Area<P>>; MAX_VCPUS as usize],
}

impl<P: PageRef> Upcalls<P> {
    pub const fn new() -> Self {
        Self {
            registered: [const { None }; MAX_VCPUS as usize],
        }
    }

    /// Returns page and offset of `vcpu`'s `vcpu_info`. Before registration vCPU 0 has one in `shared_info`, the others
    /// none.
    fn info<'a>(&'a self, shared: &'a SharedPage, vcpu: VcpuId) -> Option<(&'a SharedPage, usize)> {
        match &self.registered[vcpu.index()] {
            Some(area) => Some((area.page.page(), area.offset)),
            None if vcpu == VcpuId::ZERO => Some((shared, INITIAL_INFO)),
            None => None,
        }
    }

    /// Returns word `half` (0 or 1) of `vcpu`'s `evtchn_pending_sel`.
    pub fn selector<'a>(
        &'a self,
        shared: &'a SharedPage,
        vcpu: VcpuId,
        half: u32,
    ) -> Option<&'a AtomicU32> {
        let (page, offset) = self.info(shared, vcpu)?;
        // Always inside the page, see `Area::word`.
        let words = page.words();
        Some(&words[((offset + PENDING_SEL) / 4 + half as usize % 2) % words.len()])
    }

    /// Sets `vcpu`'s `evtchn_upcall_pending`. Returns whether it was clear.
    ///
    /// For a vCPU without `vcpu_info` the registration sets it.
    #[inline(always)]
    pub fn mark(&self, shared: &SharedPage, vcpu: VcpuId) -> bool {
        let Some(byte) = self
            .info(shared, vcpu)
            .and_then(|(page, offset)| page.u8_at(offset + UPCALL_PENDING))
        else {
            return false;
        };
        // The guest exchanges the byte with 0 and then scans for events. This store, before the exchange, makes the
        // scan find this event (word.rs). If the guest keeps the byte busy, a spurious interrupt is the safe result.
        word::raise(byte).map_or(true, |old| old == 0)
    }

    /// Returns the pages that hold registered `vcpu_info`s.
    pub fn pages(&self) -> impl Iterator<Item = &P> {
        self.registered.iter().flatten().map(Area::kept)
    }

    /// Moves `vcpu`'s `vcpu_info` to `page`, with all selectors and the upcall set, as any event may be pending.
    pub fn register(
        &mut self,
        shared: &SharedPage,
        vcpu: VcpuId,
        page: P,
        offset: u32,
    ) -> Result<(), EventError> {
        let area =
            Area::new(page, offset, size_of::<VcpuInfo>()).ok_or(EventError::BadInfoOffset)?;
        let slot = &mut self.registered[vcpu.index()];
        if slot.is_some() {
            return Err(EventError::AlreadyRegistered);
        }
        let (page, offset) = (area.page.page(), area.offset);
        if vcpu == VcpuId::ZERO {
            page.copy_from(offset, shared, INITIAL_INFO, size_of::<VcpuInfo>());
        } else {
            page.write(offset, &[0; size_of::<VcpuInfo>()]);
        }
        for half in [0, 4] {
            if let Some(word) = page.u32_at(offset + PENDING_SEL + half) {
                word.store(u32::MAX, Ordering::Relaxed);
            }
        }
        *slot = Some(area);
        // Release: a guest that sees the upcall byte sees the selectors.
        self.mark(shared, vcpu);
        Ok(())
    }

    /// Returns whether `vcpu` has an upcall that it has not handled yet.
    pub fn is_marked(&self, shared: &SharedPage, vcpu: VcpuId) -> bool {
        self.info(shared, vcpu)
            .and_then(|(page, offset)| page.u8_at(offset + UPCALL_PENDING))
            .is_some_and(|byte| byte.load(Ordering::Acquire) != 0)
    }
}

/// Effect of raising an event on the words that the guest sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Raised {
    /// The event was not pending before.
    pub new: bool,
    /// The guest needs an upcall to notice the event.
    pub upcall: bool,
}

impl Raised {
    /// The event changed nothing that a vCPU waits for.
    pub const NOTHING: Self = Self {
        new: false,
        upcall: false,
    };
}
