//! Opening, connecting and closing ports.
//!
//! A connected port is closed in three steps, as its peer may be behind another lock: it becomes `Closing`, the peer is
//! notified and becomes unbound, and then the port is free. Meanwhile the port can be neither used nor reopened, so a
//! message on its way to the peer cannot name a new connection.

use armv7::frame::PageRef;

use super::ports::State;
use super::{End, EventError, EventTable, EventVirq, Notify, Port, Sent};
use crate::id::{DomId, VcpuId};

/// Result of closing a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "the peer must be told, and the port must be freed"]
pub enum Close {
    /// The port is closed.
    Done,
    /// Call [`EventTable::peer_closed`] on `to.dom`'s table, if that domain still exists, then
    /// [`EventTable::finish_close`] on this table.
    Peer {
        /// The end that is no longer connected.
        to: End,
        /// The end that was closed.
        from: End,
    },
}

impl<P: PageRef> EventTable<P> {
    /// Opens a port that `remote` may bind to.
    pub fn alloc_unbound(&mut self, remote: DomId) -> Result<Port, EventError> {
        let port = self.find_free()?;
        self.ports
            .open(port, State::Unbound { remote }, VcpuId::ZERO);
        Ok(port)
    }

    /// Opens this very port, that `remote` may bind to: for a channel that is made at boot.
    pub fn alloc_unbound_at(&mut self, port: Port, remote: DomId) -> Result<(), EventError> {
        if port.0 >= self.limit() || !self.ports.reach(port)? {
            return Err(EventError::BadPort);
        }
        self.ports
            .open(port, State::Unbound { remote }, VcpuId::ZERO);
        Ok(())
    }

    /// Opens a port in `local` and connects it to `remote_port` of `remote`, which must be offered to `local`'s domain.
    ///
    /// Raises an event for `local`, as the remote may have sent some before the port was bound.
    pub fn bind_interdomain(
        local: &mut Self,
        remote: &mut Self,
        remote_port: Port,
    ) -> Result<(Port, Notify), EventError> {
        let local_port = local.find_free()?;
        remote.accept(
            remote_port,
            End {
                dom: local.dom,
                port: local_port,
            },
        )?;
        Ok(local.connect(
            local_port,
            End {
                dom: remote.dom,
                port: remote_port,
            },
        ))
    }

    /// Connects two ports of one domain, as [`EventTable::bind_interdomain`] does for two domains.
    pub fn bind_loopback(&mut self, remote_port: Port) -> Result<(Port, Notify), EventError> {
        let dom = self.dom;
        let port = self.find_free()?;
        self.accept(remote_port, End { dom, port })?;
        Ok(self.connect(
            port,
            End {
                dom,
                port: remote_port,
            },
        ))
    }

    /// Opens a port for `virq` of `vcpu`, which must be 0 for global VIRQs.
    pub fn bind_virq(&mut self, virq: u32, vcpu: u32) -> Result<Port, EventError> {
        let virq = EventVirq::new(virq).ok_or(EventError::BadVirq)?;
        if virq.is_global() && vcpu != 0 {
            return Err(EventError::BadVirq);
        }
        let vcpu = self.vcpu(vcpu)?;
        if self.virqs.port(virq, vcpu).is_some() {
            return Err(EventError::VirqBound);
        }
        let port = self.find_free()?;
        self.ports.open(port, State::Virq(virq), vcpu);
        self.virqs.bind(virq, vcpu, port);
        Ok(port)
    }

    /// Opens an IPI port, on which the domain sends to its own `vcpu`.
    pub fn bind_ipi(&mut self, vcpu: u32) -> Result<Port, EventError> {
        let vcpu = self.vcpu(vcpu)?;
        let port = self.find_free()?;
        self.ports.open(port, State::Ipi, vcpu);
        Ok(port)
    }

    /// Directs events of `port` to `vcpu`. Those already on a queue stay there.
    pub fn bind_vcpu(&mut self, port: Port, vcpu: u32) -> Result<Notify, EventError> {
        let vcpu = self.vcpu(vcpu)?;
        let channel = self.ports.get_mut(port).ok_or(EventError::BadPort)?;
        match channel.state {
            State::Unbound { .. } | State::Interdomain { .. } => {}
            State::Virq(virq) if virq.is_global() => {}
            State::Virq(_)
            | State::Ipi
            | State::Free
            | State::Offered { .. }
            | State::Hypervisor { .. }
            | State::Closing => {
                return Err(EventError::BadPort);
            }
        }
        let old = core::mem::replace(&mut channel.vcpu, vcpu);
        // An event that waits for the old vCPU's control block would never be raised for the new vCPU.
        let stranded = match &self.delivery.fifo {
            Some(fifo) => !fifo.has_control(old) && fifo.is_pending(port),
            None => false,
        };
        Ok(if stranded {
            self.delivery.raise(port, channel)
        } else {
            Notify::NONE
        })
    }

    /// Opens a port of this domain whose near end is the hypervisor's, and that `remote` may bind to.
    pub fn offer(&mut self, remote: DomId) -> Result<Port, EventError> {
        let port = self.find_free()?;
        self.ports
            .open(port, State::Offered { remote }, VcpuId::ZERO);
        self.hypervisor_ports += 1;
        Ok(port)
    }

    /// Sends on a port whose near end is the hypervisor's.
    pub fn send_of_hypervisor(&self, port: Port) -> Sent {
        match self.ports.get(port).map(|channel| channel.state) {
            Some(State::Hypervisor { dom, port: to }) => Sent::Peer {
                to: End { dom, port: to },
                from: End {
                    dom: self.dom,
                    port,
                },
            },
            _ => Sent::Nowhere,
        }
    }

    /// Closes `port`. Those of the hypervisor close with the domain only.
    pub fn close(&mut self, port: Port) -> Result<Close, EventError> {
        let retired = self.retired;
        let channel = self.ports.get_mut(port).ok_or(EventError::BadPort)?;
        match channel.state {
            State::Free | State::Closing => return Err(EventError::BadPort),
            State::Offered { .. } | State::Hypervisor { .. } if !retired => {
                return Err(EventError::BadPort);
            }
            State::Offered { .. } => self.hypervisor_ports -= 1,
            State::Hypervisor { dom, port: to } => {
                channel.state = State::Closing;
                self.hypervisor_ports -= 1;
                let from = End {
                    dom: self.dom,
                    port,
                };
                let to = End { dom, port: to };
                return Ok(Close::Peer { to, from });
            }
            State::Unbound { .. } | State::Ipi => {}
            State::Virq(virq) => {
                // The map ignores the vCPU of a global VIRQ.
                let vcpu = channel.vcpu;
                self.virqs.unbind(virq, vcpu);
            }
            State::Interdomain { dom, port: to } => {
                let from = End {
                    dom: self.dom,
                    port,
                };
                if dom != self.dom {
                    channel.state = State::Closing;
                    self.delivery.clear_pending(port);
                    let to = End { dom, port: to };
                    return Ok(Close::Peer { to, from });
                }
                self.peer_closed(to, from);
            }
        }
        self.delivery.clear_pending(port);
        self.ports.free(port);
        Ok(Close::Done)
    }

    /// Makes `port` unbound, as `by`, to which it was connected, was closed. Does nothing if they are not connected.
    pub fn peer_closed(&mut self, port: Port, by: End) {
        let Some(channel) = self.ports.get_mut(port) else {
            return;
        };
        let (dom, port) = (by.dom, by.port);
        if channel.is_linked_to(by) {
            channel.state = State::Unbound { remote: dom };
        } else if channel.state == (State::Hypervisor { dom, port }) {
            channel.state = State::Offered { remote: dom };
        }
    }

    /// Frees `port` after its peer was notified of the close.
    pub fn finish_close(&mut self, port: Port) {
        if self
            .ports
            .get(port)
            .is_some_and(|channel| channel.state == State::Closing)
        {
            self.ports.free(port);
        }
    }

    /// Returns the lowest port that may be opened. A closed port whose event is still on a guest's queue is not reused,
    /// as its link is in use.
    fn find_free(&mut self) -> Result<Port, EventError> {
        if self.retired {
            return Err(EventError::Retired);
        }
        let limit = self.limit();
        let delivery = &self.delivery;
        self.ports.find_free(limit, |port| delivery.is_linked(port))
    }

    /// Connects the unbound `port` to `peer`, if offered to that domain.
    pub fn accept(&mut self, port: Port, peer: End) -> Result<(), EventError> {
        let channel = self.ports.get_mut(port).ok_or(EventError::NotOffered)?;
        let (dom, port) = (peer.dom, peer.port);
        channel.state = match channel.state {
            State::Unbound { remote } if remote == dom => State::Interdomain { dom, port },
            State::Offered { remote } if remote == dom => State::Hypervisor { dom, port },
            _ => return Err(EventError::NotOffered),
        };
        Ok(())
    }

    /// Opens the free `port`, connected to `peer`, and raises its event.
    fn connect(&mut self, port: Port, peer: End) -> (Port, Notify) {
        let state = State::Interdomain {
            dom: peer.dom,
            port: peer.port,
        };
        self.ports.open(port, state, VcpuId::ZERO);
        (port, self.raise_from_peer(port, peer))
    }
}
