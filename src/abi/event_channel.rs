//! Event channels (xen/include/public/event_channel.h): sub-operations, their arguments, and the FIFO layout.

use crate::abi::layout::Layout;
use crate::{abi_constants, abi_struct};

abi_constants! {
    /// Binds to a port that another domain offers.
    OP_BIND_INTERDOMAIN: u32 = 0, "EVTCHNOP_bind_interdomain";
    /// Binds to a VIRQ.
    OP_BIND_VIRQ: u32 = 1, "EVTCHNOP_bind_virq";
    /// Binds to a physical interrupt: not on ARM.
    OP_BIND_PIRQ: u32 = 2, "EVTCHNOP_bind_pirq";
    /// Closes a port.
    OP_CLOSE: u32 = 3, "EVTCHNOP_close";
    /// Raises the event at the other end.
    OP_SEND: u32 = 4, "EVTCHNOP_send";
    /// Returns the state of a port.
    OP_STATUS: u32 = 5, "EVTCHNOP_status";
    /// Offers a port.
    OP_ALLOC_UNBOUND: u32 = 6, "EVTCHNOP_alloc_unbound";
    /// Binds a port to a vCPU of the same domain.
    OP_BIND_IPI: u32 = 7, "EVTCHNOP_bind_ipi";
    /// Sets the vCPU to notify.
    OP_BIND_VCPU: u32 = 8, "EVTCHNOP_bind_vcpu";
    /// Clears the mask and raises the event again.
    OP_UNMASK: u32 = 9, "EVTCHNOP_unmask";
    /// Closes all ports.
    OP_RESET: u32 = 10, "EVTCHNOP_reset";
    /// Registers a FIFO control block.
    OP_INIT_CONTROL: u32 = 11, "EVTCHNOP_init_control";
    /// Adds a page of FIFO event words.
    OP_EXPAND_ARRAY: u32 = 12, "EVTCHNOP_expand_array";
    /// Sets a FIFO queue.
    OP_SET_PRIORITY: u32 = 13, "EVTCHNOP_set_priority";

    /// Not in use.
    STATUS_CLOSED: u32 = 0, "EVTCHNSTAT_closed";
    /// Offered.
    STATUS_UNBOUND: u32 = 1, "EVTCHNSTAT_unbound";
    /// Connected.
    STATUS_INTERDOMAIN: u32 = 2, "EVTCHNSTAT_interdomain";
    /// A physical interrupt.
    STATUS_PIRQ: u32 = 3, "EVTCHNSTAT_pirq";
    /// A VIRQ.
    STATUS_VIRQ: u32 = 4, "EVTCHNSTAT_virq";
    /// A channel of the domain to itself.
    STATUS_IPI: u32 = 5, "EVTCHNSTAT_ipi";

    /// Of each vCPU: its timer (not on ARM).
    VIRQ_TIMER: u32 = 0, "VIRQ_TIMER";
    /// Of each vCPU: a debug key asks for its state.
    VIRQ_DEBUG: u32 = 1, "VIRQ_DEBUG";
    /// Input for the control domain's console.
    VIRQ_CONSOLE: u32 = 2, "VIRQ_CONSOLE";
    /// A domain shut down, was destroyed or changed otherwise.
    VIRQ_DOM_EXC: u32 = 3, "VIRQ_DOM_EXC";
    /// Trace buffer.
    VIRQ_TBUF: u32 = 4, "VIRQ_TBUF";
    /// Debugger.
    VIRQ_DEBUGGER: u32 = 6, "VIRQ_DEBUGGER";
    /// Of each vCPU: profiler.
    VIRQ_XENOPROF: u32 = 7, "VIRQ_XENOPROF";
    /// The console ring has new text.
    VIRQ_CON_RING: u32 = 8, "VIRQ_CON_RING";
    /// A CPU came or went.
    VIRQ_PCPU_STATE: u32 = 9, "VIRQ_PCPU_STATE";
    /// Memory events.
    VIRQ_MEM_EVENT: u32 = 10, "VIRQ_MEM_EVENT";
    /// Argo.
    VIRQ_ARGO: u32 = 11, "VIRQ_ARGO";
    /// Memory is low.
    VIRQ_ENOMEM: u32 = 12, "VIRQ_ENOMEM";
    /// Of each vCPU: its performance counters.
    VIRQ_XENPMU: u32 = 13, "VIRQ_XENPMU";
    /// Number of VIRQs.
    NR_VIRQS: u32 = 24, "NR_VIRQS";
}

/// Continues a reset (`EVTCHNOP_reset_cont`, which the public headers keep to the hypervisor).
pub const OP_RESET_CONT: u32 = 14;

/// The FIFO ABI: event words and control blocks.
pub mod fifo {
    use crate::abi_constants;

    abi_constants! {
        /// The event was raised and has not been handled.
        PENDING: u32 = 1 << 31, "1U << EVTCHN_FIFO_PENDING";
        /// The event is masked by the guest.
        MASKED: u32 = 1 << 30, "1U << EVTCHN_FIFO_MASKED";
        /// The event is on a queue.
        LINKED: u32 = 1 << 29, "1U << EVTCHN_FIFO_LINKED";
        /// The hypervisor is linking behind this event; the guest waits before it unmasks.
        BUSY: u32 = 1 << 28, "1U << EVTCHN_FIFO_BUSY";
        /// Number of bits in the link field.
        LINK_BITS: u8 = 17, "EVTCHN_FIFO_LINK_BITS";
        /// The next port on the queue, 0 at its end.
        LINK: u32 = (1 << LINK_BITS) - 1, "EVTCHN_FIFO_LINK_MASK";
        /// Ports that the link field can name.
        CHANNELS: u32 = 1 << LINK_BITS, "EVTCHN_FIFO_NR_CHANNELS";
        /// Queues of a vCPU, one per priority.
        QUEUES: usize = 16, "EVTCHN_FIFO_MAX_QUEUES";
        /// Lowest priority.
        PRIORITY_MIN: u8 = 15, "EVTCHN_FIFO_PRIORITY_MIN";
        /// Priority of a new channel.
        PRIORITY_DEFAULT: u8 = 7, "EVTCHN_FIFO_PRIORITY_DEFAULT";
    }

    /// Event words in a page.
    pub const WORDS_PER_PAGE: u32 = 1024;
    /// Pages that hold the words of all channels.
    pub const MAX_PAGES: usize = (CHANNELS / WORDS_PER_PAGE) as usize;
}

/// Ports of the two-level ABI: one bit of a 64-bit selector per 64-bit word, for 32-bit guests too.
pub const TWO_LEVEL_CHANNELS: u32 = 64 * 64;

abi_struct! {
    /// `evtchn_alloc_unbound`.
    pub struct AllocUnbound: "struct evtchn_alloc_unbound", 8, align 4 {
        /// Domain of the port.
        0 "dom" => dom: u16,
        /// Domain that may bind to it.
        2 "remote_dom" => remote_dom: u16,
        /// Out: the port.
        4 "port" => port: u32,
    }
}

abi_struct! {
    /// `evtchn_bind_interdomain`.
    pub struct BindInterdomain: "struct evtchn_bind_interdomain", 12, align 4 {
        /// Domain that offers the port.
        0 "remote_dom" => remote_dom: u16,
        2 _ => _pad: u16,
        /// The offered port.
        4 "remote_port" => remote_port: u32,
        /// Out: the caller's port.
        8 "local_port" => local_port: u32,
    }
}

abi_struct! {
    /// `evtchn_bind_virq`.
    pub struct BindVirq: "struct evtchn_bind_virq", 12, align 4 {
        /// `VIRQ_*`.
        0 "virq" => virq: u32,
        /// vCPU to notify; 0 for a global one.
        4 "vcpu" => vcpu: u32,
        /// Out: the port.
        8 "port" => port: u32,
    }
}

abi_struct! {
    /// `evtchn_bind_ipi`.
    pub struct BindIpi: "struct evtchn_bind_ipi", 8, align 4 {
        /// vCPU to notify.
        0 "vcpu" => vcpu: u32,
        /// Out: the port.
        4 "port" => port: u32,
    }
}

abi_struct! {
    /// `evtchn_close`, `evtchn_send`, `evtchn_unmask`.
    pub struct PortArgument: "struct evtchn_send", 4, align 4 {
        /// The port.
        0 "port" => port: u32,
    }
}

abi_struct! {
    /// `evtchn_status`.
    pub struct Status: "struct evtchn_status", 24, align 4 {
        /// Domain of the port.
        0 "dom" => dom: u16,
        2 _ => _pad: u16,
        /// The port.
        4 "port" => port: u32,
        /// Out: `STATUS_*`.
        8 "status" => status: u32,
        /// Out: vCPU that is notified.
        12 "vcpu" => vcpu: u32,
        /// Out: unbound, interdomain: domain (low half). VIRQ: its number.
        16 _ => detail: u32,
        /// Out: interdomain: the peer's port.
        20 "u.interdomain.port" => peer_port: u32,
    }
}

abi_struct! {
    /// `evtchn_bind_vcpu`.
    pub struct BindVcpu: "struct evtchn_bind_vcpu", 8, align 4 {
        /// The port.
        0 "port" => port: u32,
        /// vCPU to notify.
        4 "vcpu" => vcpu: u32,
    }
}

abi_struct! {
    /// `evtchn_reset`.
    pub struct ResetArgument: "struct evtchn_reset", 2, align 2 {
        /// Domain of the channels.
        0 "dom" => dom: u16,
    }
}

abi_struct! {
    /// `evtchn_init_control`.
    pub struct InitControl: "struct evtchn_init_control", 24, align 8 {
        /// Frame of the control block.
        0 "control_gfn" => control_gfn: u64,
        /// Its offset in the frame.
        8 "offset" => offset: u32,
        /// vCPU of the control block.
        12 "vcpu" => vcpu: u32,
        /// Out: [`fifo::LINK_BITS`].
        16 "link_bits" => link_bits: u8,
        17 _ => _pad: [u8; 7],
    }
}

abi_struct! {
    /// `evtchn_expand_array`.
    pub struct ExpandArray: "struct evtchn_expand_array", 8, align 8 {
        /// Frame of the next [`fifo::WORDS_PER_PAGE`] event words.
        0 "array_gfn" => array_gfn: u64,
    }
}

abi_struct! {
    /// `evtchn_set_priority`.
    pub struct SetPriority: "struct evtchn_set_priority", 8, align 4 {
        /// The port.
        0 "port" => port: u32,
        /// 0 (highest) to 15.
        4 "priority" => priority: u32,
    }
}

abi_struct! {
    /// `evtchn_fifo_control_block`.
    pub struct ControlBlock: "struct evtchn_fifo_control_block", 72, align 4 {
        /// Bit q: queue q is not empty.
        0 "ready" => ready: u32,
        /// Reserved.
        4 _ => reserved: u32,
        /// First port of each queue.
        8 "head" => head: [u32; fifo::QUEUES],
    }
}

impl Status {
    /// Sets the half-word of `unbound.dom` and `interdomain.dom`. Keeps the two bytes beside it.
    pub fn set_dom(&mut self, dom: u16) {
        self.detail = self.detail & 0xFFFF_0000 | u32::from(dom);
    }
}

/// All structures of this file.
pub const LAYOUTS: &[Layout] = &[
    AllocUnbound::LAYOUT,
    BindInterdomain::LAYOUT,
    BindVirq::LAYOUT,
    BindIpi::LAYOUT,
    PortArgument::LAYOUT,
    Status::LAYOUT,
    BindVcpu::LAYOUT,
    ResetArgument::LAYOUT,
    InitControl::LAYOUT,
    ExpandArray::LAYOUT,
    SetPriority::LAYOUT,
    ControlBlock::LAYOUT,
];

#[cfg(test)]
mod tests {
    use super::Status;
    use zerocopy::{FromBytes, IntoBytes};

    #[test]
    fn the_domain_in_a_status_keeps_the_bytes_beside_it() {
        let mut status = Status::read_from_bytes(&[0xAA; 24]).unwrap();
        status.set_dom(0x1234);
        assert_eq!(status.as_bytes()[16..20], [0x34, 0x12, 0xAA, 0xAA]);
    }
}
