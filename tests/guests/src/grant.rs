//! Grant tables, version 1 (abi.md section 5).

use core::sync::atomic::{AtomicU32, Ordering};

use crate::abi::{self, DOMID_SELF};
use crate::event;
use crate::hypercall::{GRANT_TABLE_OP, address_of, call};
use crate::memory::Frame;

pub const MAP_GRANT_REF: u32 = 0;
pub const UNMAP_GRANT_REF: u32 = 1;
pub const SETUP_TABLE: u32 = 2;
pub const DUMP_TABLE: u32 = 3;
pub const TRANSFER: u32 = 4;
pub const COPY: u32 = 5;
pub const QUERY_SIZE: u32 = 6;
pub const UNMAP_AND_REPLACE: u32 = 7;
pub const SET_VERSION: u32 = 8;
pub const GET_STATUS_FRAMES: u32 = 9;
pub const GET_VERSION: u32 = 10;
pub const SWAP_GRANT_REF: u32 = 11;
pub const CACHE_FLUSH: u32 = 12;

pub const MAP_HOST: u32 = 2;
pub const MAP_READ_ONLY: u32 = 4;
pub const MAP_APPLICATION: u32 = 8;
pub const MAP_CONTAINS_PTE: u32 = 16;

/// Entry flags.
pub const PERMIT_ACCESS: u32 = 1;
pub const ACCEPT_TRANSFER: u32 = 2;
pub const TRANSITIVE: u32 = 3;
pub const READ_ONLY: u32 = 4;
pub const READING: u32 = 8;
pub const WRITING: u32 = 16;

/// Outputs before the call, so that a missing write shows.
pub const POISON_STATUS: i16 = 0x5a5a;
pub const POISON: u32 = 0xdead_beef;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Map {
    pub host_address: u64,
    pub flags: u32,
    pub reference: u32,
    pub domain: u16,
    pub status: i16,
    pub handle: u32,
    pub bus_address: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Unmap {
    pub host_address: u64,
    pub bus_address: u64,
    pub handle: u32,
    pub status: i16,
    pub pad: u16,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct CopySide {
    /// Reference or frame number, by the flags.
    pub what: u64,
    pub domain: u16,
    pub offset: u16,
    pub pad: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Copy {
    pub source: CopySide,
    pub destination: CopySide,
    pub length: u16,
    pub flags: u16,
    pub status: i16,
    pub pad: u16,
}

pub const COPY_SOURCE_GREF: u16 = 1;
pub const COPY_DESTINATION_GREF: u16 = 2;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct QuerySize {
    pub domain: u16,
    pub pad: u16,
    pub frames: u32,
    pub max_frames: u32,
    pub status: i16,
    pub pad2: u16,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct SetupTable {
    pub domain: u16,
    pub pad: u16,
    pub frames: u32,
    pub status: i16,
    pub pad2: [u16; 3],
    pub list: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct CacheFlush {
    pub address: u64,
    pub offset: u16,
    pub length: u16,
    pub operation: u32,
}

/// Makes one grant_table_op over an array.
pub fn operate<T>(operation: u32, elements: &mut [T]) -> i32 {
    call(GRANT_TABLE_OP, [operation, address_of(elements), elements.len() as u32, 0, 0])
}

/// This domain's own id. Grants to DOMID_SELF are not a thing: an entry names a real domain.
///
/// Asked of the hypervisor once, which puts the number into a port that is offered to DOMID_SELF.
pub fn myself() -> u16 {
    static KNOWN: AtomicU32 = AtomicU32::new(u32::MAX);
    let known = KNOWN.load(Ordering::Relaxed);
    if known != u32::MAX {
        return known as u16;
    }
    let port = event::alloc_loopback().expect("a port");
    let offered_to = event::status(DOMID_SELF, port).expect("the port's status").detail & 0xffff;
    event::close(port);
    KNOWN.store(offered_to, Ordering::Relaxed);
    offered_to as u16
}

/// The first grant frame, mapped over a frame of this domain.
#[derive(Clone, Copy)]
pub struct Table(pub Frame);

pub const ENTRIES_PER_FRAME: u32 = 512;

impl Table {
    pub fn map() -> Result<Self, i32> {
        let frame = Frame::take();
        match abi::add_to_physmap(abi::SPACE_GRANT_TABLE, 0, frame.gfn()) {
            0 => Ok(Table(frame)),
            error => Err(error),
        }
    }

    /// Writes an entry the way the protocol demands: frame first, flags last.
    pub fn set(self, reference: u32, flags: u32, domain: u16, gfn: u64) {
        self.0.write(reference * 8 + 4, gfn as u32);
        self.0.write(reference * 8, u32::from(domain) << 16 | flags);
    }

    pub fn flags(self, reference: u32) -> u32 {
        self.0.read(reference * 8) & 0xffff
    }

    pub fn clear(self, reference: u32) {
        self.0.write(reference * 8, 0);
    }
}

/// Maps one reference; returns the element as the hypervisor left it.
pub fn map(reference: u32, domain: u16, flags: u32, at: Frame) -> Map {
    let mut element = [Map {
        host_address: u64::from(at.address()),
        flags,
        reference,
        domain,
        status: POISON_STATUS,
        handle: POISON,
        bus_address: u64::MAX,
    }];
    operate(MAP_GRANT_REF, &mut element);
    element[0]
}

/// Unmaps a handle; returns its status.
pub fn unmap(handle: u32, at: Frame) -> i16 {
    let mut element =
        [Unmap { host_address: u64::from(at.address()), bus_address: 0, handle, status: POISON_STATUS, pad: 0 }];
    operate(UNMAP_GRANT_REF, &mut element);
    element[0].status
}

/// A frame as one side of a copy.
pub fn local(frame: Frame, offset: u16) -> CopySide {
    CopySide { what: frame.gfn(), domain: DOMID_SELF, offset, pad: 0 }
}

/// A reference as one side of a copy.
pub fn granted(domain: u16, reference: u32, offset: u16) -> CopySide {
    CopySide { what: u64::from(reference), domain, offset, pad: 0 }
}

/// Copies; returns the status.
pub fn copy(source: CopySide, destination: CopySide, length: u16, flags: u16) -> i16 {
    let mut element = [Copy { source, destination, length, flags, status: POISON_STATUS, pad: 0 }];
    operate(COPY, &mut element);
    element[0].status
}
