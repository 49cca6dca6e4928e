//! How an event that was raised reaches a vCPU: through which ABI, with an upcall, or by ending a poll.

use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, Ordering};

use armv7::addr::PAGE_SIZE;
use armv7::frame::{PageRef, SharedPage};

use super::fifo::Fifo;
use super::poll::Pollers;
use super::ports::Channel;
use super::{EventError, Notify, Port, two_level, word};
use crate::abi::shared_info::{SharedInfo, VcpuInfo};
use crate::id::{MAX_VCPUS, VcpuId};

const INITIAL_INFO: usize = offset_of!(SharedInfo, vcpu_info);
const UPCALL_PENDING: usize = offset_of!(VcpuInfo, evtchn_upcall_pending);
const PENDING_SEL: usize = offset_of!(VcpuInfo, evtchn_pending_sel);

/// A structure of a guest inside one of its pages. That it is aligned to 8 and inside the page was checked.
pub(super) struct Area<P> {
    page: P,
    offset: usize,
}

impl<P: PageRef> Area<P> {
    /// The area of `size` bytes at `offset`, or `None` when it is not aligned to 8 or leaves the page.
    pub fn new(page: P, offset: u32, size: usize) -> Option<Self> {
        Self::fits(offset, size).then_some(Self {
            page,
            offset: offset as usize,
        })
    }

    /// Returns whether an area of `size` bytes may be at `offset`.
    pub fn fits(offset: u32, size: usize) -> bool {
        let offset = offset as usize;
        offset <= PAGE_SIZE - size && offset.is_multiple_of(8)
    }

    /// The word at `at` bytes into the area. Inside the area it is never outside the page, which `%` lets the compiler
    /// know without a check.
    #[inline]
    pub fn word(&self, at: usize) -> &AtomicU32 {
        let words = self.page.page().words();
        &words[(self.offset + at) / 4 % words.len()]
    }
}

impl<P> Area<P> {
    /// The page.
    pub fn kept(&self) -> &P {
        &self.page
    }
}

/// Where the `vcpu_info` of each vCPU is.
pub(super) struct Upcalls<P> {
    registered: [Option<Area<P>>; MAX_VCPUS as usize],
}

impl<P: PageRef> Upcalls<P> {
    const fn new() -> Self {
        Self {
            registered: [const { None }; MAX_VCPUS as usize],
        }
    }

    /// Page and offset of `vcpu`'s `vcpu_info`; vCPU 0 has one in `shared_info` to begin with, the others have none.
    #[inline]
    fn info<'a>(&'a self, shared: &'a SharedPage, vcpu: VcpuId) -> Option<(&'a SharedPage, usize)> {
        match &self.registered[vcpu.index()] {
            Some(area) => Some((area.page.page(), area.offset)),
            None if vcpu == VcpuId::ZERO => Some((shared, INITIAL_INFO)),
            None => None,
        }
    }

    /// Word `half` (0 or 1) of `vcpu`'s `evtchn_pending_sel`.
    pub fn selector<'a>(
        &'a self,
        shared: &'a SharedPage,
        vcpu: VcpuId,
        half: u32,
    ) -> Option<&'a AtomicU32> {
        let (page, offset) = self.info(shared, vcpu)?;
        // Never outside the page, see `Area::word`.
        let words = page.words();
        Some(&words[((offset + PENDING_SEL) / 4 + half as usize % 2) % words.len()])
    }

    /// Tells `vcpu` that events are waiting; whether it did not know yet.
    ///
    /// A vCPU without `vcpu_info` learns it when it registers one.
    #[inline(always)]
    fn mark(&self, shared: &SharedPage, vcpu: VcpuId) -> bool {
        let Some(byte) = self
            .info(shared, vcpu)
            .and_then(|(page, offset)| page.u8_at(offset + UPCALL_PENDING))
        else {
            return false;
        };
        // The guest exchanges the byte with 0 and then looks for events; our store in between is what makes its look
        // find this one (word.rs). If the guest keeps the byte busy, a spurious interrupt is the safe answer.
        word::raise(byte).map_or(true, |old| old == 0)
    }

    fn is_marked(&self, shared: &SharedPage, vcpu: VcpuId) -> bool {
        self.info(shared, vcpu)
            .and_then(|(page, offset)| page.u8_at(offset + UPCALL_PENDING))
            .is_some_and(|byte| byte.load(Ordering::Acquire) != 0)
    }
}

/// What raising an event did to the words that the guest sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Raised {
    /// The event was not pending before.
    pub new: bool,
    /// The guest would not notice the event without an upcall.
    pub upcall: bool,
}

impl Raised {
    /// Nothing that anyone waits for.
    pub const NOTHING: Self = Self {
        new: false,
        upcall: false,
    };
}

/// The pages through which a domain sees its events, and who waits for them.
pub(super) struct Delivery<P> {
    pub shared: P,
    pub upcalls: Upcalls<P>,
    /// `None`: two-level.
    pub fifo: Option<Fifo<P>>,
    pub pollers: Pollers,
}

impl<P: PageRef> Delivery<P> {
    /// Every page of the guest that is kept for its events.
    pub fn pages(&self) -> impl Iterator<Item = &P> {
        let infos = self.upcalls.registered.iter().flatten().map(Area::kept);
        let fifo = self.fifo.iter().flat_map(Fifo::pages);
        core::iter::once(&self.shared).chain(infos).chain(fifo)
    }

    pub const fn new(shared: P) -> Self {
        Self {
            shared,
            upcalls: Upcalls::new(),
            fifo: None,
            pollers: Pollers::new(),
        }
    }

    /// Makes the event of `port` pending and tells who must be told.
    #[inline]
    pub fn raise(&mut self, port: Port, channel: &mut Channel) -> Notify {
        let raised = match &mut self.fifo {
            Some(fifo) => fifo.raise(port, channel),
            None => two_level::raise(self.shared.page(), &self.upcalls, port, channel.vcpu),
        };
        let mut notify = Notify::NONE;
        if raised.upcall {
            notify = self.upcall(channel.vcpu);
        }
        if raised.new {
            notify.wake = self.pollers.take(port);
        }
        notify
    }

    /// Clears the mask of `port` and raises the event again if it is pending.
    pub fn unmask(&mut self, port: Port, channel: &mut Channel) -> Notify {
        let upcall = match &mut self.fifo {
            Some(fifo) => fifo.unmask(port, channel),
            None => two_level::unmask(self.shared.page(), &self.upcalls, port, channel.vcpu),
        };
        if upcall {
            self.upcall(channel.vcpu)
        } else {
            Notify::NONE
        }
    }

    /// Whether the event of `port` is pending.
    pub fn is_pending(&self, port: Port, channel: &Channel) -> bool {
        match &self.fifo {
            Some(fifo) => channel.saved || fifo.is_pending(port),
            None => two_level::is_pending(self.shared.page(), port),
        }
    }

    /// Makes the event of `port` not pending, so that the next user of the port does not see it.
    pub fn clear_pending(&self, port: Port) {
        match &self.fifo {
            Some(fifo) => fifo.clear_pending(port),
            None => {
                two_level::clear_pending(self.shared.page(), port);
            }
        }
    }

    /// Whether the guest still has the event of the closed port `port` on a queue.
    pub fn is_linked(&self, port: Port) -> bool {
        self.fifo.as_ref().is_some_and(|fifo| fifo.is_linked(port))
    }

    /// Tells `vcpu` to look for events.
    #[inline(always)]
    pub fn upcall(&self, vcpu: VcpuId) -> Notify {
        if self.upcalls.mark(self.shared.page(), vcpu) {
            Notify::upcall(vcpu)
        } else {
            Notify::NONE
        }
    }

    /// Whether `vcpu` has been told to look for events and did not do so yet.
    pub fn is_upcall_pending(&self, vcpu: VcpuId) -> bool {
        self.upcalls.is_marked(self.shared.page(), vcpu)
    }

    /// Moves `vcpu`'s `vcpu_info` to `page`. All that may be pending is marked so: the guest gets one upcall in any case.
    pub fn register_info(
        &mut self,
        vcpu: VcpuId,
        page: P,
        offset: u32,
    ) -> Result<Notify, EventError> {
        let area =
            Area::new(page, offset, size_of::<VcpuInfo>()).ok_or(EventError::BadInfoOffset)?;
        let slot = &mut self.upcalls.registered[vcpu.index()];
        if slot.is_some() {
            return Err(EventError::AlreadyRegistered);
        }
        let (page, offset) = (area.page.page(), area.offset);
        if vcpu == VcpuId::ZERO {
            page.copy_from(
                offset,
                self.shared.page(),
                INITIAL_INFO,
                size_of::<VcpuInfo>(),
            );
        } else {
            page.write(offset, &[0; size_of::<VcpuInfo>()]);
        }
        for half in [0, 4] {
            if let Some(word) = page.u32_at(offset + PENDING_SEL + half) {
                word.store(u32::MAX, Ordering::Relaxed);
            }
        }
        *slot = Some(area);
        // Release: a guest that sees the mark sees the selectors.
        self.upcalls.mark(self.shared.page(), vcpu);
        Ok(Notify::upcall(vcpu))
    }

    /// Lets go of all pages but `shared_info`.
    pub fn release(&mut self) {
        self.fifo = None;
        self.upcalls = Upcalls::new();
        self.pollers = Pollers::new();
    }
}
