//! vCPUs blocked in `SCHEDOP_poll`.

use super::Port;
use crate::id::{MAX_VCPUS, VcpuId, VcpuSet};

/// Target of a polling vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Target {
    /// Any event; the woken vCPU checks its ports itself.
    Any,
    /// The event of one port.
    One(Port),
}

/// The polling vCPUs and their targets.
pub(super) struct Pollers {
    waiting: VcpuSet,
    target: [Target; MAX_VCPUS as usize],
}

impl Pollers {
    pub const fn new() -> Self {
        Self {
            waiting: VcpuSet::EMPTY,
            target: [Target::Any; MAX_VCPUS as usize],
        }
    }

    /// Makes `vcpu` wait for `target`.
    pub fn add(&mut self, vcpu: VcpuId, target: Target) {
        self.waiting |= VcpuSet::only(vcpu);
        self.target[vcpu.index()] = target;
    }

    /// Ends the wait of `vcpu`.
    pub fn remove(&mut self, vcpu: VcpuId) {
        self.waiting.0 &= !VcpuSet::only(vcpu).0;
    }

    /// Ends the waits for `port`. Returns the vCPUs to wake.
    pub fn take(&mut self, port: Port) -> VcpuSet {
        if self.waiting == VcpuSet::EMPTY {
            return VcpuSet::EMPTY;
        }
        let mut wake = VcpuSet::EMPTY;
        for vcpu in self.waiting.iter() {
            match self.target[vcpu.index()] {
                Target::One(other) if other != port => {}
                Target::One(_) | Target::Any => wake |= VcpuSet::only(vcpu),
            }
        }
        self.waiting.0 &= !wake.0;
        wake
    }
}
