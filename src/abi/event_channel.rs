//! Event channels (xen/include/public/event_channel.h): sub-operations, their arguments, and the FIFO layout.

use core::mem::offset_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `EVTCHNOP_*`: the first argument of the hypercall.
pub mod op {
    #![allow(missing_docs)] // the names are the documentation
    pub const BIND_INTERDOMAIN: u32 = 0;
    pub const BIND_VIRQ: u32 = 1;
    pub const BIND_PIRQ: u32 = 2;
    pub const CLOSE: u32 = 3;
    pub const SEND: u32 = 4;
    pub const STATUS: u32 = 5;
    pub const ALLOC_UNBOUND: u32 = 6;
    pub const BIND_IPI: u32 = 7;
    pub const BIND_VCPU: u32 = 8;
    pub const UNMASK: u32 = 9;
    pub const RESET: u32 = 10;
    pub const INIT_CONTROL: u32 = 11;
    pub const EXPAND_ARRAY: u32 = 12;
    pub const SET_PRIORITY: u32 = 13;
    pub const RESET_CONT: u32 = 14;
}

/// `EVTCHNSTAT_*`: what `status` says about a port.
pub mod stat {
    #![allow(missing_docs)] // the names are the documentation
    pub const CLOSED: u32 = 0;
    pub const UNBOUND: u32 = 1;
    pub const INTERDOMAIN: u32 = 2;
    pub const PIRQ: u32 = 3;
    pub const VIRQ: u32 = 4;
    pub const IPI: u32 = 5;
}

/// The FIFO ABI: event words and control blocks.
pub mod fifo {
    /// The event happened and was not handled yet.
    pub const PENDING: u32 = 1 << 31;
    /// The guest does not want to hear of the event.
    pub const MASKED: u32 = 1 << 30;
    /// The event is on a queue.
    pub const LINKED: u32 = 1 << 29;
    /// The hypervisor is about to link behind this event; the guest waits before it unmasks.
    pub const BUSY: u32 = 1 << 28;
    /// Number of bits in the link field.
    pub const LINK_BITS: u8 = 17;
    /// The next port on the queue, 0 at its end.
    pub const LINK: u32 = (1 << LINK_BITS) - 1;
    /// Ports that the link field can name.
    pub const CHANNELS: u32 = 1 << LINK_BITS;
    /// Event words in a page.
    pub const WORDS_PER_PAGE: u32 = 1024;
    /// Pages that hold the words of all channels.
    pub const MAX_PAGES: usize = (CHANNELS / WORDS_PER_PAGE) as usize;
    /// Queues of a vCPU, one per priority.
    pub const QUEUES: usize = 16;
    /// Lowest priority.
    pub const PRIORITY_MIN: u8 = 15;
    /// Priority of a new channel.
    pub const PRIORITY_DEFAULT: u8 = 7;
}

/// Ports of the two-level ABI: one bit of a 64-bit selector per 64-bit word, for 32-bit guests too.
pub const TWO_LEVEL_CHANNELS: u32 = 64 * 64;

macro_rules! arguments {
    ($($(#[$doc:meta])* $name:ident, $size:literal { $($(#[$fdoc:meta])* $offset:literal $field:ident: $ty:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
            #[repr(C)]
            pub struct $name {
                $($(#[$fdoc])* pub $field: $ty,)*
            }
            const _: () = {
                assert!(size_of::<$name>() == $size);
                $(assert!(offset_of!($name, $field) == $offset);)*
            };
        )*
    };
}

arguments! {
    /// `evtchn_alloc_unbound`.
    AllocUnbound, 8 {
        /// Whose port.
        0 dom: u16,
        /// Who may bind to it.
        2 remote_dom: u16,
        /// Out: the port.
        4 port: u32,
    }
    /// `evtchn_bind_interdomain`.
    BindInterdomain, 12 {
        /// Who offers.
        0 remote_dom: u16,
        /// Padding.
        2 pad: u16,
        /// The offered port.
        4 remote_port: u32,
        /// Out: the caller's port.
        8 local_port: u32,
    }
    /// `evtchn_bind_virq`.
    BindVirq, 12 {
        /// `VIRQ_*`.
        0 virq: u32,
        /// vCPU to notify; 0 for a global one.
        4 vcpu: u32,
        /// Out: the port.
        8 port: u32,
    }
    /// `evtchn_bind_ipi`.
    BindIpi, 8 {
        /// vCPU to notify.
        0 vcpu: u32,
        /// Out: the port.
        4 port: u32,
    }
    /// `evtchn_close`, `evtchn_send`, `evtchn_unmask`.
    PortArgument, 4 {
        /// The port.
        0 port: u32,
    }
    /// `evtchn_status`.
    Status, 24 {
        /// Whose port.
        0 dom: u16,
        /// Padding.
        2 pad: u16,
        /// The port.
        4 port: u32,
        /// Out: one of [`stat`].
        8 status: u32,
        /// Out: vCPU that is notified.
        12 vcpu: u32,
        /// Out: unbound, interdomain: domain (low half). VIRQ: its number.
        16 detail: u32,
        /// Out: interdomain: the peer's port.
        20 peer_port: u32,
    }
    /// `evtchn_bind_vcpu`.
    BindVcpu, 8 {
        /// The port.
        0 port: u32,
        /// vCPU to notify.
        4 vcpu: u32,
    }
    /// `evtchn_reset`.
    ResetArgument, 2 {
        /// Whose channels.
        0 dom: u16,
    }
    /// `evtchn_init_control`.
    InitControl, 24 {
        /// Frame of the control block.
        0 control_gfn: u64,
        /// Its offset in the frame.
        8 offset: u32,
        /// Whose control block.
        12 vcpu: u32,
        /// Out: [`fifo::LINK_BITS`].
        16 link_bits: u8,
        /// Padding.
        17 pad: [u8; 7],
    }
    /// `evtchn_expand_array`.
    ExpandArray, 8 {
        /// Frame of the next [`fifo::WORDS_PER_PAGE`] event words.
        0 array_gfn: u64,
    }
    /// `evtchn_set_priority`.
    SetPriority, 8 {
        /// The port.
        0 port: u32,
        /// 0 (highest) to 15.
        4 priority: u32,
    }
    /// `evtchn_fifo_control_block`.
    ControlBlock, 72 {
        /// Bit q: queue q is not empty.
        0 ready: u32,
        /// Reserved.
        4 reserved: u32,
        /// First port of each queue.
        8 head: [u32; fifo::QUEUES],
    }
}

impl Status {
    /// Puts `dom` where `unbound.dom` and `interdomain.dom` are, leaving the two bytes beside it as they were.
    pub fn set_dom(&mut self, dom: u16) {
        self.detail = self.detail & 0xFFFF_0000 | u32::from(dom);
    }
}

/// `VIRQ_*` (xen/include/public/xen.h).
pub mod virq {
    #![allow(missing_docs)] // the names are the documentation
    pub const TIMER: u32 = 0;
    pub const DEBUG: u32 = 1;
    pub const CONSOLE: u32 = 2;
    pub const DOM_EXC: u32 = 3;
    pub const TBUF: u32 = 4;
    pub const DEBUGGER: u32 = 6;
    pub const XENOPROF: u32 = 7;
    pub const CON_RING: u32 = 8;
    pub const PCPU_STATE: u32 = 9;
    pub const MEM_EVENT: u32 = 10;
    pub const ARGO: u32 = 11;
    pub const ENOMEM: u32 = 12;
    pub const XENPMU: u32 = 13;
    /// Number of VIRQs.
    pub const COUNT: u32 = 24;
}

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
