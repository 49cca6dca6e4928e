//! VIRQs: events raised by the hypervisor, and the ports they are bound to.

use super::Port;
use crate::abi::event_channel as abi;
use crate::id::{MAX_VCPUS, VcpuId};

const COUNT: usize = abi::NR_VIRQS as usize;

/// A VIRQ (`VIRQ_*`). Not an interrupt of the virtual distributor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct EventVirq(u8);

impl EventVirq {
    /// Input for the control domain's console.
    pub const CONSOLE: Self = Self(abi::VIRQ_CONSOLE as u8);
    /// A domain shut down, was destroyed or changed state.
    pub const DOM_EXC: Self = Self(abi::VIRQ_DOM_EXC as u8);
    /// The hypervisor's console ring has new text.
    pub const CON_RING: Self = Self(abi::VIRQ_CON_RING as u8);
    /// A debug key requests each vCPU's state.
    pub const DEBUG: Self = Self(abi::VIRQ_DEBUG as u8);

    /// Returns the VIRQ with number `n`, or `None` if it does not exist.
    pub const fn new(n: u32) -> Option<Self> {
        if n < abi::NR_VIRQS {
            Some(Self(n as u8))
        } else {
            None
        }
    }

    /// Returns the number.
    pub const fn raw(self) -> u32 {
        self.0 as u32
    }

    /// Returns whether the VIRQ is global, not per vCPU.
    pub const fn is_global(self) -> bool {
        !matches!(
            self.raw(),
            abi::VIRQ_TIMER | abi::VIRQ_DEBUG | abi::VIRQ_XENOPROF | abi::VIRQ_XENPMU
        )
    }
}

/// The port of each VIRQ of each vCPU; 0 if not bound. Global VIRQs are in vCPU 0's row.
#[derive(Clone)]
pub(super) struct VirqMap {
    ports: [[u32; COUNT]; MAX_VCPUS as usize],
}

impl VirqMap {
    pub const fn new() -> Self {
        Self {
            ports: [[0; COUNT]; MAX_VCPUS as usize],
        }
    }

    /// Returns the row that holds a VIRQ.
    fn row(virq: EventVirq, vcpu: VcpuId) -> usize {
        if virq.is_global() { 0 } else { vcpu.index() }
    }

    /// Returns the port that `virq` of `vcpu` is bound to.
    pub fn port(&self, virq: EventVirq, vcpu: VcpuId) -> Option<Port> {
        let port = self.ports[Self::row(virq, vcpu)][usize::from(virq.0)];
        (port != 0).then_some(Port(port))
    }

    /// Binds `virq` of `vcpu` to `port`.
    pub fn bind(&mut self, virq: EventVirq, vcpu: VcpuId, port: Port) {
        self.ports[Self::row(virq, vcpu)][usize::from(virq.0)] = port.0;
    }

    /// Unbinds `virq` of `vcpu`.
    pub fn unbind(&mut self, virq: EventVirq, vcpu: VcpuId) {
        self.ports[Self::row(virq, vcpu)][usize::from(virq.0)] = 0;
    }
}
