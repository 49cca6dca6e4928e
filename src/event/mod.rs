//! Event channels: one bit from one vCPU to another, or from the hypervisor to a vCPU.
//!
//! An [`EventTable`] is the event state of one domain: its ports, the VIRQs bound to them, its vCPUs' `vcpu_info` and
//! FIFO queues, and its polling vCPUs. The domain keeps the table in one lock, so only the guest is concurrent here,
//! and its words are accessed by atomics (`word`). This room takes no lock and accesses no second domain; it returns
//! the actions its caller must take.
//!
//! - [`Notify`]: inject the event interrupt into some vCPUs and wake others.
//! - [`Sent::Peer`], [`Close::Peer`], [`Reset::Peer`]: the other end of the channel is in another domain's table. Drop
//!   this lock, take that one, and notify the peer.
//!
//! Between the two locks either end may change. So each message names both ends, and the receiver checks that they are
//! still connected. A closed port is not reused until its peer has been notified, so a stale message cannot match a new
//! connection.
//!
//! | file | contents |
//! |---|---|
//! | `ports` | the table: states, allocation |
//! | `bind` | opening, closing, retargeting |
//! | `delivery` | raise and unmask, upcalls |
//! | `two_level`, `fifo` | the words a guest sees, by ABI |
//! | `setup` | pages that a guest registers |
//! | `virq`, `poll`, `reset` | VIRQs, `SCHEDOP_poll`, `EVTCHNOP_reset` |
//! | `restore` | the ports of a saved domain |
//! | `word` | bounded atomics on words that the guest writes too |
//!
//! Source: xen/include/public/event_channel.h; coverage: docs/abi-coverage.md.

mod area;
mod bind;
mod delivery;
mod error;
mod fifo;
mod poll;
mod ports;
mod reset;
mod restore;
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

/// Number of a port as passed by a guest, not validated.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct Port(pub u32);

/// One end of an interdomain channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct End {
    /// The domain.
    pub dom: DomId,
    /// The port.
    pub port: Port,
}

/// vCPUs to notify of an event, in the domain of the table that returned it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "an event that nobody is told of is lost"]
pub struct Notify {
    /// vCPUs whose `evtchn_upcall_pending` went from 0 to 1: make the event PPI pending and wake them.
    pub upcall: VcpuSet,
    /// vCPUs whose `SCHEDOP_poll` has ended: wake them.
    pub wake: VcpuSet,
}

impl Notify {
    /// No vCPU.
    pub const NONE: Self = Self {
        upcall: VcpuSet::EMPTY,
        wake: VcpuSet::EMPTY,
    };

    /// Returns an upcall for `vcpu`.
    pub const fn upcall(vcpu: VcpuId) -> Self {
        Self {
            upcall: VcpuSet::only(vcpu),
            wake: VcpuSet::EMPTY,
        }
    }

    /// Returns whether there is no vCPU to notify.
    pub fn is_none(self) -> bool {
        self == Self::NONE
    }

    /// Returns the vCPUs to send an upcall, lowest first.
    pub fn upcalls(self) -> impl Iterator<Item = VcpuId> {
        self.upcall.iter()
    }

    /// Returns all vCPUs to wake.
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

/// Progress of the registration of a control block, or of a page of event words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "an event that nobody is told of is lost"]
pub enum Control {
    /// All events that waited for the control block are raised.
    Done(Notify),
    /// Some are raised; register again to continue.
    More(Notify),
}

/// Result of a send.
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
    /// The other end is not bound: the event is dropped, without error.
    Nowhere,
}

/// The state of a port, for `EVTCHNOP_status`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Binding {
    /// Closed.
    Closed,
    /// Offered to a domain.
    Unbound(DomId),
    /// Connected to this end.
    Interdomain(End),
    /// Bound to a VIRQ.
    Virq(EventVirq),
    /// An IPI channel of the domain to itself.
    Ipi,
}

/// The result of `EVTCHNOP_status`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status {
    /// The state of the port.
    pub binding: Binding,
    /// vCPU to which the port's events go.
    pub vcpu: VcpuId,
}

/// Result of a poll.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Poll {
    /// One of the events is pending.
    Ready,
    /// The vCPU must block until it is in a [`Notify`] or times out.
    Wait,
}

/// The event channels of one domain.
pub struct EventTable<P> {
    dom: DomId,
    nr_vcpus: u8,
    /// Ports can no longer be opened.
    retired: bool,
    /// Highest port that the domain may open.
    max_port: u32,
    /// Port at which the current reset continues.
    reset_at: Option<u32>,
    ports: PortTable,
    virqs: VirqMap,
    /// Ports in use whose near end is the hypervisor's.
    hypervisor_ports: u32,
    delivery: Delivery<P>,
}

impl<P: PageRef> EventTable<P> {
    /// Returns the table of a new domain: only port 0 taken, two-level ABI, bits in `shared_info` unchanged.
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
            hypervisor_ports: 0,
            delivery: Delivery::new(shared_info),
        })
    }

    /// Returns the domain's `shared_info` page.
    pub fn shared_info(&self) -> &SharedPage {
        self.delivery.shared.page()
    }

    /// Returns every page kept for the domain's events, once per use, for an audit.
    pub fn pages(&self) -> impl Iterator<Item = &P> {
        self.delivery.pages()
    }

    /// Sends an event on `port`.
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
            State::Free
            | State::Virq(_)
            | State::Closing
            | State::Offered { .. }
            | State::Hypervisor { .. } => Err(EventError::BadPort),
        }
    }

    /// Raises the event of `port`, sent by `from`. Does nothing if the two are no longer connected.
    pub fn raise_from_peer(&mut self, port: Port, from: End) -> Notify {
        match self.ports.get_mut(port) {
            Some(channel) if channel.is_linked_to(from) => self.delivery.raise(port, channel),
            _ => Notify::NONE,
        }
    }

    /// Raises `virq`, of `vcpu` if it is per-vCPU. Does nothing if the domain has not bound it.
    pub fn raise_virq(&mut self, virq: EventVirq, vcpu: VcpuId) -> Notify {
        let Some(port) = self.virqs.port(virq, vcpu) else {
            return Notify::NONE;
        };
        match self.ports.get_mut(port) {
            Some(channel) => self.delivery.raise(port, channel),
            None => Notify::NONE,
        }
    }

    /// Returns whether the domain has bound `virq`, of `vcpu` if it is per-vCPU.
    pub fn is_virq_bound(&self, virq: EventVirq, vcpu: VcpuId) -> bool {
        self.virqs.port(virq, vcpu).is_some()
    }

    /// Returns the state of `port`.
    pub fn status(&self, port: Port) -> Result<Status, EventError> {
        let channel = self.ports.get(port).ok_or(EventError::BadPort)?;
        let binding = match channel.state {
            State::Free | State::Closing => Binding::Closed,
            State::Unbound { remote } | State::Offered { remote } => Binding::Unbound(remote),
            State::Interdomain { dom, port } | State::Hypervisor { dom, port } => {
                Binding::Interdomain(End { dom, port })
            }
            State::Virq(virq) => Binding::Virq(virq),
            State::Ipi => Binding::Ipi,
        };
        Ok(Status {
            binding,
            vcpu: channel.vcpu,
        })
    }

    /// Clears the mask of `port`, and raises its event again if pending. Does nothing for a closed port.
    pub fn unmask(&mut self, port: Port) -> Result<Notify, EventError> {
        let channel = self.ports.get_mut(port).ok_or(EventError::BadPort)?;
        if !channel.is_usable() {
            return Ok(Notify::NONE);
        }
        Ok(self.delivery.unmask(port, channel))
    }

    /// Moves `port` to the queue of `priority`, from its next event on.
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

    /// Makes `vcpu` wait for one of `ports`, unless one is pending. The caller must have marked the vCPU blocked
    /// before.
    ///
    /// A [`Notify`] that wakes a vCPU also ends its wait. A vCPU that stops waiting for another reason calls
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

    /// Ends the wait of `vcpu`: it timed out, got an upcall, or goes offline.
    pub fn end_poll(&mut self, vcpu: VcpuId) {
        self.delivery.pollers.remove(vcpu);
    }

    /// Returns whether the domain uses the FIFO ABI.
    pub fn is_fifo(&self) -> bool {
        self.delivery.fifo.is_some()
    }

    /// Returns one past the highest port in the table, for debug output.
    pub fn end(&self) -> u32 {
        self.ports.end()
    }

    /// Returns whether `vcpu` has an upcall that it has not handled yet, and so must not be blocked.
    pub fn is_upcall_pending(&self, vcpu: VcpuId) -> bool {
        self.delivery.is_upcall_pending(vcpu)
    }

    /// Returns one past the highest port that may be opened, by the domain's limit and by its ABI.
    fn limit(&self) -> u32 {
        let channels = match self.delivery.fifo {
            Some(_) => fifo_abi::CHANNELS,
            None => TWO_LEVEL_CHANNELS,
        };
        self.max_port.min(channels - 1) + 1
    }

    /// Validates a vCPU number from the guest.
    fn vcpu(&self, vcpu: u32) -> Result<VcpuId, EventError> {
        VcpuId::new(vcpu)
            .filter(|v| v.raw() < self.nr_vcpus)
            .ok_or(EventError::NoVcpu)
    }
}
