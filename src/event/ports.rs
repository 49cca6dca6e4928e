//! The table of ports: state of each, and the lowest free one.
//!
//! The table grows by buckets of 128 and never shrinks, so a valid port stays valid (XSA-338). Growth that fails
//! changes nothing; a bucket is published when complete (XSA-47).

use alloc::boxed::Box;
use alloc::vec::Vec;

use armv7::heap;

use super::{End, EventError, EventVirq, Port};
use crate::abi::event_channel::fifo::PRIORITY_DEFAULT;
use crate::id::{DomId, VcpuId};

/// Ports in a bucket.
const BUCKET: usize = 128;
/// Ports in a word of the free bits.
const WORD: u32 = u32::BITS;
/// Words of free bits for a bucket.
const WORDS: usize = BUCKET / WORD as usize;

/// Maximum closed ports on guest queues that one allocation skips. A conforming guest has a handful; a guest with more
/// gets `NoPort`.
const MAX_LINKED_SKIPPED: u32 = 4096;

/// The state of a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Closed. Port 0 is always in this state.
    Free,
    /// Waits for a domain to bind to it.
    Unbound { remote: DomId },
    /// One end of a channel (not an [`End`], which would make the enum larger).
    Interdomain { dom: DomId, port: Port },
    /// A virtual interrupt.
    Virq(EventVirq),
    /// An IPI channel of the domain to itself.
    Ipi,
    /// Waits for a domain to bind to it. The near end is the hypervisor's: the guest cannot use the port.
    Offered { remote: DomId },
    /// One end of a channel between a domain and the hypervisor.
    Hypervisor { dom: DomId, port: Port },
    /// Closed, but the other end is not notified yet: neither usable nor reusable.
    Closing,
}

/// One port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Channel {
    pub state: State,
    /// vCPU to which events go.
    pub vcpu: VcpuId,
    /// Queue on which the event is next linked.
    pub priority: u8,
    /// vCPU of the queue on which the event was last linked. Kept when the port is closed, as the event may be that
    /// queue's tail.
    pub last_vcpu: VcpuId,
    /// Priority of that queue.
    pub last_priority: u8,
    /// The event was raised before its event word was registered.
    pub saved: bool,
}

// 128 channels fill a power of two.
const _: () = assert!(size_of::<Channel>() == 16);

impl Channel {
    const FREE: Self = Self {
        state: State::Free,
        vcpu: VcpuId::ZERO,
        priority: PRIORITY_DEFAULT,
        last_vcpu: VcpuId::ZERO,
        last_priority: PRIORITY_DEFAULT,
        saved: false,
    };

    /// Returns whether a guest may use the port.
    pub fn is_usable(&self) -> bool {
        !matches!(
            self.state,
            State::Free | State::Closing | State::Offered { .. } | State::Hypervisor { .. }
        )
    }

    /// Returns whether the port is the end of a channel to `peer`.
    pub fn is_linked_to(&self, peer: End) -> bool {
        self.state
            == State::Interdomain {
                dom: peer.dom,
                port: peer.port,
            }
    }
}

/// All ports of a domain.
pub(super) struct PortTable {
    #[expect(
        clippy::vec_box,
        reason = "growing must not need one large block, nor copy every port"
    )]
    buckets: Vec<Box<[Channel; BUCKET]>>,
    /// One bit per port, set if free.
    free: Vec<u32>,
    /// Words of `free` below this one are 0.
    lowest: usize,
    /// Number of ports in use, without port 0.
    used: u32,
}

impl PortTable {
    /// Returns a table of one bucket, with only port 0 taken.
    pub fn new() -> Result<Self, EventError> {
        let mut table = Self {
            buckets: Vec::new(),
            free: Vec::new(),
            lowest: 0,
            used: 0,
        };
        table.grow()?;
        if let Some(bits) = table.free.first_mut() {
            *bits &= !1;
        }
        Ok(table)
    }

    /// Returns the port, or `None` outside the table.
    pub fn get(&self, port: Port) -> Option<&Channel> {
        let bucket = self.buckets.get(port.0 as usize / BUCKET)?;
        Some(&bucket[port.0 as usize % BUCKET])
    }

    /// As [`PortTable::get`].
    pub fn get_mut(&mut self, port: Port) -> Option<&mut Channel> {
        let bucket = self.buckets.get_mut(port.0 as usize / BUCKET)?;
        Some(&mut bucket[port.0 as usize % BUCKET])
    }

    /// Returns one past the highest port in the table.
    pub fn end(&self) -> u32 {
        (self.buckets.len() * BUCKET) as u32
    }

    /// Returns the number of ports in use, without port 0.
    pub fn used(&self) -> u32 {
        self.used
    }

    /// Returns the lowest taken port at or above `from`.
    pub fn next_used(&self, from: u32) -> Option<Port> {
        let mut keep = u32::MAX << (from % WORD);
        for (index, free) in self.free.iter().enumerate().skip((from / WORD) as usize) {
            let reserved = if index == 0 { 1 } else { 0 };
            let used = !free & keep & !reserved;
            if used != 0 {
                return Some(port_at(index, used));
            }
            keep = u32::MAX;
        }
        None
    }

    /// Returns the lowest free port below `limit` for which `busy` is false. Does not take it.
    pub fn find_free(
        &mut self,
        limit: u32,
        busy: impl Fn(Port) -> bool,
    ) -> Result<Port, EventError> {
        let mut skipped = 0;
        let mut index = self.lowest;
        loop {
            if index == self.free.len() {
                if self.end() >= limit {
                    return Err(EventError::NoPort);
                }
                self.grow()?;
            }
            let mut free = self.free.get(index).copied().unwrap_or(0);
            if free == 0 && index == self.lowest {
                self.lowest += 1;
            }
            while free != 0 {
                let port = port_at(index, free);
                if port.0 >= limit || skipped == MAX_LINKED_SKIPPED {
                    return Err(EventError::NoPort);
                }
                if !busy(port) {
                    return Ok(port);
                }
                skipped += 1;
                free &= free - 1;
            }
            index += 1;
        }
    }

    /// Makes the table large enough for `port`, and returns whether it is free.
    pub fn reach(&mut self, port: Port) -> Result<bool, EventError> {
        while self.end() <= port.0 {
            self.grow()?;
        }
        let bits = self.free.get((port.0 / WORD) as usize).copied();
        Ok(bits.unwrap_or(0) & 1 << (port.0 % WORD) != 0)
    }

    /// Opens the free port `port` in `state`, with events going to `vcpu`.
    pub fn open(&mut self, port: Port, state: State, vcpu: VcpuId) {
        let Some(channel) = self.get_mut(port) else {
            return;
        };
        debug_assert_eq!(channel.state, State::Free);
        channel.state = state;
        channel.vcpu = vcpu;
        channel.priority = PRIORITY_DEFAULT;
        channel.saved = false;
        self.used += 1;
        if let Some(bits) = self.free.get_mut((port.0 / WORD) as usize) {
            *bits &= !(1 << (port.0 % WORD));
        }
    }

    /// Makes `port` free.
    pub fn free(&mut self, port: Port) {
        let Some(channel) = self.get_mut(port) else {
            return;
        };
        debug_assert_ne!(channel.state, State::Free);
        channel.state = State::Free;
        channel.vcpu = VcpuId::ZERO;
        channel.saved = false;
        self.used -= 1;
        let index = (port.0 / WORD) as usize;
        self.lowest = self.lowest.min(index);
        if let Some(bits) = self.free.get_mut(index) {
            *bits |= 1 << (port.0 % WORD);
        }
    }

    fn grow(&mut self) -> Result<(), EventError> {
        if !heap::has_room(BUCKET * size_of::<Channel>()) {
            return Err(EventError::NoMemory);
        }
        self.buckets.try_reserve(1)?;
        self.free.try_reserve(WORDS)?;
        let mut channels = Vec::new();
        channels.try_reserve_exact(BUCKET)?;
        channels.resize(BUCKET, Channel::FREE);
        let bucket = Box::try_from(channels).map_err(|_| EventError::NoMemory)?;
        self.buckets.push(bucket);
        self.free.extend([u32::MAX; WORDS]);
        Ok(())
    }
}

/// Returns the port of the lowest bit set in `bits`, word `index` of the free bits. `bits` is not 0.
fn port_at(index: usize, bits: u32) -> Port {
    Port(index as u32 * WORD + bits.trailing_zeros())
}
