//! Delivery of a raised event to a vCPU: the words of the ABI in use, upcalls, and ends of polls.

use armv7::frame::PageRef;

use super::area::Upcalls;
use super::fifo::Fifo;
use super::poll::Pollers;
use super::ports::Channel;
use super::{EventError, Notify, Port, two_level};
use crate::id::VcpuId;

/// The pages through which a domain sees its events, and its polling vCPUs.
pub(super) struct Delivery<P> {
    pub shared: P,
    pub upcalls: Upcalls<P>,
    /// `None` for the two-level ABI.
    pub fifo: Option<Fifo<P>>,
    pub pollers: Pollers,
}

impl<P: PageRef> Delivery<P> {
    /// Returns every guest page kept for its events.
    pub fn pages(&self) -> impl Iterator<Item = &P> {
        let fifo = self.fifo.iter().flat_map(Fifo::pages);
        core::iter::once(&self.shared)
            .chain(self.upcalls.pages())
            .chain(fifo)
    }

    pub const fn new(shared: P) -> Self {
        Self {
            shared,
            upcalls: Upcalls::new(),
            fifo: None,
            pollers: Pollers::new(),
        }
    }

    /// Makes the event of `port` pending. Returns the vCPUs to notify.
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

    /// Returns whether the event of `port` is pending.
    pub fn is_pending(&self, port: Port, channel: &Channel) -> bool {
        match &self.fifo {
            Some(fifo) => channel.saved || fifo.is_pending(port),
            None => two_level::is_pending(self.shared.page(), port),
        }
    }

    /// Clears the pending state of `port`, so that its next user does not see it.
    pub fn clear_pending(&self, port: Port) {
        match &self.fifo {
            Some(fifo) => fifo.clear_pending(port),
            None => {
                two_level::clear_pending(self.shared.page(), port);
            }
        }
    }

    /// Returns whether the event of the closed port `port` is still on a guest's queue.
    pub fn is_linked(&self, port: Port) -> bool {
        self.fifo.as_ref().is_some_and(|fifo| fifo.is_linked(port))
    }

    /// Sets the upcall of `vcpu`. Returns the notification if it was clear.
    #[inline(always)]
    pub fn upcall(&self, vcpu: VcpuId) -> Notify {
        if self.upcalls.mark(self.shared.page(), vcpu) {
            Notify::upcall(vcpu)
        } else {
            Notify::NONE
        }
    }

    /// Returns whether `vcpu` has an upcall that it has not handled yet.
    pub fn is_upcall_pending(&self, vcpu: VcpuId) -> bool {
        self.upcalls.is_marked(self.shared.page(), vcpu)
    }

    /// Moves `vcpu`'s `vcpu_info` to `page`, with everything set that may be pending. Always returns one upcall.
    pub fn register_info(
        &mut self,
        vcpu: VcpuId,
        page: P,
        offset: u32,
    ) -> Result<Notify, EventError> {
        self.upcalls
            .register(self.shared.page(), vcpu, page, offset)?;
        Ok(Notify::upcall(vcpu))
    }

    /// Releases all pages except `shared_info`.
    pub fn release(&mut self) {
        self.fifo = None;
        self.upcalls = Upcalls::new();
        self.pollers = Pollers::new();
    }
}
