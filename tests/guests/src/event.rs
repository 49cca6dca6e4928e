//! Event channels: the sub-operations, and both shared-memory interfaces (abi.md section 4).

use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use crate::abi::{self, DOMID_SELF};
use crate::hypercall::{EVENT_CHANNEL_OP, call_with};
use crate::memory::Frame;

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

/// A port, or a negative error.
pub type PortResult = Result<u32, i32>;

fn port_of(status: i32, port: u32) -> PortResult {
    if status == 0 { Ok(port) } else { Err(status) }
}

/// Written where the hypervisor is to put a port, so that a missing write shows.
const POISON: u32 = 0xdead_beef;

pub fn alloc_unbound(domain: u16, remote: u16) -> PortResult {
    #[repr(C)]
    struct Argument {
        domain: u16,
        remote: u16,
        port: u32,
    }
    let mut argument = Argument { domain, remote, port: POISON };
    port_of(call_with(EVENT_CHANNEL_OP, ALLOC_UNBOUND, &mut argument), argument.port)
}

pub fn bind_interdomain(remote: u16, remote_port: u32) -> PortResult {
    #[repr(C)]
    struct Argument {
        remote: u16,
        pad: u16,
        remote_port: u32,
        local_port: u32,
    }
    let mut argument = Argument { remote, pad: 0, remote_port, local_port: POISON };
    port_of(call_with(EVENT_CHANNEL_OP, BIND_INTERDOMAIN, &mut argument), argument.local_port)
}

pub fn bind_virq(virq: u32, vcpu: u32) -> PortResult {
    let mut argument = [virq, vcpu, POISON];
    port_of(call_with(EVENT_CHANNEL_OP, BIND_VIRQ, &mut argument), argument[2])
}

pub fn bind_ipi(vcpu: u32) -> PortResult {
    let mut argument = [vcpu, POISON];
    port_of(call_with(EVENT_CHANNEL_OP, BIND_IPI, &mut argument), argument[1])
}

pub fn bind_vcpu(port: u32, vcpu: u32) -> i32 {
    call_with(EVENT_CHANNEL_OP, BIND_VCPU, &mut [port, vcpu])
}

pub fn close(port: u32) -> i32 {
    call_with(EVENT_CHANNEL_OP, CLOSE, &mut [port])
}

pub fn send(port: u32) -> i32 {
    call_with(EVENT_CHANNEL_OP, SEND, &mut [port])
}

pub fn unmask(port: u32) -> i32 {
    call_with(EVENT_CHANNEL_OP, UNMASK, &mut [port])
}

pub fn reset(domain: u16) -> i32 {
    call_with(EVENT_CHANNEL_OP, RESET, &mut [domain])
}

pub fn set_priority(port: u32, priority: u32) -> i32 {
    call_with(EVENT_CHANNEL_OP, SET_PRIORITY, &mut [port, priority])
}

pub fn expand_array(gfn: u64) -> i32 {
    call_with(EVENT_CHANNEL_OP, EXPAND_ARRAY, &mut [gfn])
}

/// The link width that `init_control` reports, or its error.
pub fn init_control(gfn: u64, offset: u32, vcpu: u32) -> Result<u8, i32> {
    #[repr(C)]
    struct Argument {
        gfn: u64,
        offset: u32,
        vcpu: u32,
        link_bits: u8,
        pad: [u8; 7],
    }
    let mut argument = Argument { gfn, offset, vcpu, link_bits: 0xff, pad: [0; 7] };
    match call_with(EVENT_CHANNEL_OP, INIT_CONTROL, &mut argument) {
        0 => Ok(argument.link_bits),
        error => Err(error),
    }
}

/// `evtchn_status`: what a port is bound to.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    pub domain: u16,
    pad: u16,
    pub port: u32,
    pub status: u32,
    pub vcpu: u32,
    /// unbound.dom, interdomain.dom or virq.
    pub detail: u32,
    /// interdomain.port.
    pub remote_port: u32,
}

pub const STATUS_CLOSED: u32 = 0;
pub const STATUS_UNBOUND: u32 = 1;
pub const STATUS_INTERDOMAIN: u32 = 2;
pub const STATUS_VIRQ: u32 = 4;
pub const STATUS_IPI: u32 = 5;

pub fn status(domain: u16, port: u32) -> Result<Status, i32> {
    let mut argument = Status { domain, pad: 0, port, status: POISON, vcpu: POISON, detail: 0, remote_port: 0 };
    match call_with(EVENT_CHANNEL_OP, STATUS, &mut argument) {
        0 => Ok(argument),
        error => Err(error),
    }
}

/// The shared_info page and the 2-level interface in it (abi.md 3.1, 4.1).
#[derive(Clone, Copy)]
pub struct SharedInfo(pub Frame);

impl SharedInfo {
    const PENDING: u32 = 48;
    const MASK: u32 = 560;

    /// Maps shared_info over a frame of its own.
    pub fn map() -> Result<Self, i32> {
        let frame = Frame::take();
        match abi::add_to_physmap(abi::SPACE_SHARED_INFO, 0, frame.gfn()) {
            0 => Ok(SharedInfo(frame)),
            error => Err(error),
        }
    }

    fn bit(self, array: u32, port: u32) -> bool {
        self.0.read(array + port / 32 * 4) >> (port % 32) & 1 != 0
    }

    pub fn pending(self, port: u32) -> bool {
        self.bit(Self::PENDING, port)
    }

    pub fn clear_pending(self, port: u32) {
        self.0.word(Self::PENDING + port / 32 * 4).fetch_and(!(1 << (port % 32)), Ordering::SeqCst);
    }

    /// Forgets what is pending and unmasks everything.
    pub fn clear_all(self) {
        for offset in (Self::PENDING..Self::MASK + 512).step_by(4) {
            self.0.write(offset, 0);
        }
    }

    pub fn masked(self, port: u32) -> bool {
        self.bit(Self::MASK, port)
    }

    pub fn set_mask(self, port: u32) {
        self.0.word(Self::MASK + port / 32 * 4).fetch_or(1 << (port % 32), Ordering::SeqCst);
    }

    pub fn clear_mask(self, port: u32) {
        self.0.word(Self::MASK + port / 32 * 4).fetch_and(!(1 << (port % 32)), Ordering::SeqCst);
    }
}

/// `struct vcpu_info`, in shared_info (vCPU 0) or where it was registered.
#[derive(Clone, Copy)]
pub struct VcpuInfo(pub u32);

impl VcpuInfo {
    fn upcall(self) -> &'static AtomicU8 {
        // SAFETY: the page is mapped for good, and the byte shared with the hypervisor is only touched atomically.
        unsafe { &*(self.0 as *const AtomicU8) }
    }

    fn selector_word(self, half: u32) -> &'static AtomicU32 {
        // SAFETY: as above.
        unsafe { &*((self.0 + 8 + half * 4) as *const AtomicU32) }
    }

    pub fn upcall_pending(self) -> bool {
        self.upcall().load(Ordering::SeqCst) != 0
    }

    /// Takes the pending upcall.
    pub fn take_upcall(self) -> bool {
        self.upcall().swap(0, Ordering::SeqCst) != 0
    }

    /// Takes the selector of 64-port words with something pending.
    pub fn take_selector(self) -> u64 {
        let low = self.selector_word(0).swap(0, Ordering::SeqCst);
        let high = self.selector_word(1).swap(0, Ordering::SeqCst);
        u64::from(high) << 32 | u64::from(low)
    }
}

/// `vcpu_op` register_vcpu_info for `vcpu`.
pub fn register_vcpu_info(vcpu: u32, gfn: u64, offset: u32) -> i32 {
    let mut argument = abi::RegisterVcpuInfo { gfn, offset, reserved: 0 };
    crate::hypercall::call(
        crate::hypercall::VCPU_OP,
        [abi::VCPUOP_REGISTER_VCPU_INFO, vcpu, crate::hypercall::address_of(&mut argument), 0, 0],
    )
}

/// FIFO event words (abi.md 4.2).
pub const FIFO_PENDING: u32 = 1 << 31;
pub const FIFO_MASKED: u32 = 1 << 30;
pub const FIFO_LINKED: u32 = 1 << 29;
pub const FIFO_LINK_MASK: u32 = (1 << 17) - 1;
pub const FIFO_WORDS_PER_PAGE: u32 = 1024;

/// One vCPU's FIFO control block at the start of a frame.
#[derive(Clone, Copy)]
pub struct ControlBlock(pub Frame);

impl ControlBlock {
    pub fn take_ready(self) -> u32 {
        self.0.word(0).swap(0, Ordering::SeqCst)
    }

    pub fn ready(self) -> u32 {
        self.0.read(0)
    }

    pub fn head(self, queue: u32) -> u32 {
        self.0.read(8 + queue * 4)
    }
}

/// Allocates a port that this domain itself may bind the other end of.
pub fn alloc_loopback() -> PortResult {
    alloc_unbound(DOMID_SELF, DOMID_SELF)
}
