//! Event channels: one bit from one vCPU to another, or from the hypervisor to a vCPU.
//!
//! An [`EventTable`] is all event state of one domain: its ports, the VIRQs bound to them, its vCPUs' `vcpu_info` and
//! FIFO queues, and who polls. The domain keeps it in one lock, so that no rule here has to think about two hypervisor
//! CPUs at once; only the guest is concurrent, and it is reached through atomics (`word`). There is no lock in here and
//! no second domain: what must happen elsewhere is returned.
//!
//! - [`Notify`]: inject the event interrupt into these vCPUs and wake those.
//! - [`Sent::Peer`], [`Close::Peer`], [`Reset::Peer`]: the other end of the channel lives in the table of another domain.
//!   Drop this lock, take that one, and tell it.
//!
//! Between the two locks the world may change. So each message names both ends, and the receiver checks that they are
//! still connected; a closed end is kept from being reused until its peer has been told, so that it cannot look connected
//! by accident.
//!
//! | file | holds |
//! |---|---|
//! | `ports` | the table: states, allocation |
//! | `bind` | opening, closing, retargeting |
//! | `delivery` | raise and unmask, upcalls |
//! | `two_level`, `fifo` | the words a guest sees, in either ABI |
//! | `setup` | pages that a guest registers |
//! | `virq`, `poll`, `reset` | what the names say |
//! | `word` | bounded atomics on words that a guest writes too |
//!
//! Facts: xen/include/public/event_channel.h; docs/abi-coverage.md.

mod area;
mod bind;
mod delivery;
mod error;
mod fifo;
mod poll;
mod ports;
mod reset;
mod setup;
mod two_level;
mod virq;
mod word;

#[cfg(test)]
mod tests;

use core::ops::BitOrAssign;

use armv7::frame::{PageRef, SharedPage};

use crate::abi::event_channel::{TWO_LEVEL_CHANNELS, fifo as fifo_abi};
use crate::id::{DomId, MAX_VCPUS, VcpuId, VcpuSet};
use delivery::Delivery;
use poll::Target;
use ports::{PortTable, State};
use virq::VirqMap;

pub use bind::Close;
pub use error::EventError;
pub use reset::Reset;
pub use virq::EventVirq;

/// Number of a port, as a guest says it: nothing is known of it until the table was asked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct Port(pub u32);

/// One end of an interdomain channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct End {
    /// Whose port.
    pub dom: DomId,
    /// The port.
    pub port: Port,
}

/// Who must be told about an event, in the domain whose table returned this.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "an event that nobody is told of is lost"]
pub struct Notify {
    /// vCPUs whose upcall mark went from 0 to 1: make the event PPI pending in them, and wake them.
    pub upcall: VcpuSet,
    /// vCPUs whose `SCHEDOP_poll` is over: wake them.
    pub wake: VcpuSet,
}

impl Notify {
    /// Nobody.
    pub const NONE: Self = Self {
        upcall: VcpuSet::EMPTY,
        wake: VcpuSet::EMPTY,
    };

    /// An upcall for `vcpu`.
    pub const fn upcall(vcpu: VcpuId) -> Self {
        Self {
            upcall: VcpuSet::only(vcpu),
            wake: VcpuSet::EMPTY,
        }
    }

    /// Returns whether there is nobody to tell.
    #[inline]
    pub fn is_none(self) -> bool {
        self == Self::NONE
    }

    /// Returns the vCPUs that get an upcall, lowest first.
    pub fn upcalls(self) -> impl Iterator<Item = VcpuId> {
        self.upcall.iter()
    }

    /// Returns the vCPUs to wake for either reason.
    pub fn wakes(self) -> VcpuSet {
        self.upcall | self.wake
    }
}

impl BitOrAssign for Notify {
    fn bitor_assign(&mut self, other: Self) {
        self.upcall |= other.upcall;
        self.wake |= other.wake;
    }
}

/// How far the registration of a control block got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "an event that nobody is told of is lost"]
pub enum Control {
    /// All events that waited for it are raised.
    Done(Notify),
    /// Some are: register it again, which goes on there.
    More(Notify),
}

/// The consequence of a send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "an event that nobody is told of is lost"]
pub enum Sent {
    /// The event was raised in this domain.
    Local(Notify),
    /// Call [`EventTable::raise_from_peer`] on `to.dom`'s table.
    Peer {
        /// The end that gets the event.
        to: End,
        /// The end it was sent from.
        from: End,
    },
    /// Nobody is bound at the other end: the event is dropped, which is no error.
    Nowhere,
}

/// The state of a port, for `EVTCHNOP_status`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Binding {
    /// Nothing.
    Closed,
    /// Offered to a domain.
    Unbound(DomId),
    /// Connected to this end.
    Interdomain(End),
    /// A VIRQ.
    Virq(EventVirq),
    /// A channel of the domain to itself.
    Ipi,
}

/// The result of `EVTCHNOP_status`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status {
    /// The state of the port.
    pub binding: Binding,
    /// vCPU that is notified.
    pub vcpu: VcpuId,
}

/// The consequence of a poll.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Poll {
    /// One of the events is pending.
    Ready,
    /// The vCPU is to block until it is in a [`Notify`], or its time is up.
    Wait,
}

/// The event channels of one domain.
pub struct EventTable<P> {
    dom: DomId,
    nr_vcpus: u8,
    /// No port is opened any more.
    retired: bool,
    /// Highest port that the domain may have.
    max_port: u32,
    /// Where the reset that is under way goes on.
    reset_at: Option<u32>,
    ports: PortTable,
    virqs: VirqMap,
    delivery: Delivery<P>,
}

impl<P: PageRef> EventTable<P> {
    /// Returns the table of a new domain: no port but 0 taken, two-level ABI, all bits in `shared_info` as they are.
    ///
    /// `max_port` is the highest port the domain may open (`max_evtchn_port`); `nr_vcpus` is 1 to [`MAX_VCPUS`].
    pub fn new(
        dom: DomId,
        max_port: u32,
        nr_vcpus: u8,
        shared_info: P,
    ) -> Result<Self, EventError> {
        if nr_vcpus > MAX_VCPUS {
            return Err(EventError::NoVcpu);
        }
        Ok(Self {
            dom,
            nr_vcpus,
            retired: false,
            max_port,
            reset_at: None,
            ports: PortTable::new()?,
            virqs: VirqMap::new(),
            delivery: Delivery::new(shared_info),
        })
    }

    /// Returns the domain's `shared_info` page.
    pub fn shared_info(&self) -> &SharedPage {
        self.delivery.shared.page()
    }

    /// Returns every page that is kept for the domain's events, for an audit; a page counts once for each use.
    pub fn pages(&self) -> impl Iterator<Item = &P> {
        self.delivery.pages()
    }

    /// Sends on `port`.
    #[inline]
    pub fn send(&mut self, port: Port) -> Result<Sent, EventError> {
        let channel = self.ports.get_mut(port).ok_or(EventError::BadPort)?;
        match channel.state {
            State::Ipi => Ok(Sent::Local(self.delivery.raise(port, channel))),
            State::Interdomain { dom, port: to } => {
                let from = End {
                    dom: self.dom,
                    port,
                };
                if dom == self.dom {
                    Ok(Sent::Local(self.raise_from_peer(to, from)))
                } else {
                    let to = End { dom, port: to };
                    Ok(Sent::Peer { to, from })
                }
            }
            State::Unbound { .. } => Ok(Sent::Nowhere),
            State::Free | State::Virq(_) | State::Closing => Err(EventError::BadPort),
        }
    }

    /// Raises the event of `port`, sent by `from`; nothing when the two are not connected any more.
    #[inline]
    pub fn raise_from_peer(&mut self, port: Port, from: End) -> Notify {
        match self.ports.get_mut(port) {
            Some(channel) if channel.is_linked_to(from) => self.delivery.raise(port, channel),
            _ => Notify::NONE,
        }
    }

    /// Raises `virq`; nothing when the domain did not bind it. `vcpu` says whose, for a VIRQ that is not global.
    pub fn raise_virq(&mut self, virq: EventVirq, vcpu: VcpuId) -> Notify {
        let Some(port) = self.virqs.port(virq, vcpu) else {
            return Notify::NONE;
        };
        match self.ports.get_mut(port) {
            Some(channel) => self.delivery.raise(port, channel),
            None => Notify::NONE,
        }
    }

    /// Returns whether the domain bound `virq` (of `vcpu`, for one that is not global).
    pub fn is_virq_bound(&self, virq: EventVirq, vcpu: VcpuId) -> bool {
        self.virqs.port(virq, vcpu).is_some()
    }

    /// Returns what `port` is.
    pub fn status(&self, port: Port) -> Result<Status, EventError> {
        let channel = self.ports.get(port).ok_or(EventError::BadPort)?;
        let binding = match channel.state {
            State::Free | State::Closing => Binding::Closed,
            State::Unbound { remote } => Binding::Unbound(remote),
            State::Interdomain { dom, port } => Binding::Interdomain(End { dom, port }),
            State::Virq(virq) => Binding::Virq(virq),
            State::Ipi => Binding::Ipi,
        };
        Ok(Status {
            binding,
            vcpu: channel.vcpu,
        })
    }

    /// Clears the mask of `port` and raises the event again if it is pending. A closed port is left alone.
    pub fn unmask(&mut self, port: Port) -> Result<Notify, EventError> {
        let channel = self.ports.get_mut(port).ok_or(EventError::BadPort)?;
        if !channel.is_usable() {
            return Ok(Notify::NONE);
        }
        Ok(self.delivery.unmask(port, channel))
    }

    /// Makes `port` use the queue of `priority` from its next event on.
    pub fn set_priority(&mut self, port: Port, priority: u32) -> Result<(), EventError> {
        let channel = self.ports.get_mut(port).ok_or(EventError::BadPort)?;
        if self.delivery.fifo.is_none() {
            return Err(EventError::NoPriorities);
        }
        if !channel.is_usable() {
            return Err(EventError::PriorityOfClosed);
        }
        channel.priority = u8::try_from(priority)
            .ok()
            .filter(|p| *p <= fifo_abi::PRIORITY_MIN)
            .ok_or(EventError::BadPriority)?;
        Ok(())
    }

    /// Returns whether the event of `port` is pending, masked or not.
    pub fn is_pending(&self, port: Port) -> Result<bool, EventError> {
        match self.ports.get(port) {
            Some(channel) if channel.is_usable() => Ok(self.delivery.is_pending(port, channel)),
            _ => Err(EventError::BadPort),
        }
    }

    /// Makes `vcpu` wait for one of `ports`, unless one is pending. The caller has marked the vCPU blocked already.
    ///
    /// A vCPU that is woken by a [`Notify`] waits no more; one that stops for another reason calls
    /// [`EventTable::end_poll`].
    pub fn poll(&mut self, vcpu: VcpuId, ports: &[Port]) -> Result<Poll, EventError> {
        for port in ports {
            if self.is_pending(*port)? {
                return Ok(Poll::Ready);
            }
        }
        let target = match ports {
            [port] => Target::One(*port),
            _ => Target::Any,
        };
        self.delivery.pollers.add(vcpu, target);
        Ok(Poll::Wait)
    }

    /// Makes `vcpu` wait no more: its time is up, it got an upcall, or it goes away.
    pub fn end_poll(&mut self, vcpu: VcpuId) {
        self.delivery.pollers.remove(vcpu);
    }

    /// Returns one past the highest port that was ever open, for debug output.
    pub fn end(&self) -> u32 {
        self.ports.end()
    }

    /// Returns whether `vcpu` has an upcall that it did not take yet: then it must not be blocked.
    pub fn is_upcall_pending(&self, vcpu: VcpuId) -> bool {
        self.delivery.is_upcall_pending(vcpu)
    }

    /// Returns one past the highest port that may be opened: by the domain's limit, and by what its ABI can name.
    fn limit(&self) -> u32 {
        let channels = match self.delivery.fifo {
            Some(_) => fifo_abi::CHANNELS,
            None => TWO_LEVEL_CHANNELS,
        };
        self.max_port.min(channels - 1) + 1
    }

    /// Returns the vCPU that a guest calls `vcpu`.
    fn vcpu(&self, vcpu: u32) -> Result<VcpuId, EventError> {
        VcpuId::new(vcpu)
            .filter(|v| v.raw() < self.nr_vcpus)
            .ok_or(EventError::NoVcpu)
    }
}
