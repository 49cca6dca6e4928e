//! Structures and numbers of the hypercall ABI that more than one guest uses (abi.md sections 2 and 3).
//!
//! Guest handles inside structures are 64 bits wide whose upper half is zero.

pub const DOM0: u16 = 0;
pub const DOMID_SELF: u16 = 0x7ff0;
pub const DOMID_INVALID: u16 = 0x7ff4;
/// A domain that nobody creates.
pub const DOMID_ABSENT: u16 = 0x7abc;

/// `struct xen_memory_reservation`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Reservation {
    pub extents: u64,
    pub count: u64,
    pub order: u32,
    pub flags: u32,
    pub domid: u16,
    pub pad: [u16; 3],
}

pub const MEM_INCREASE_RESERVATION: u32 = 0;
pub const MEM_DECREASE_RESERVATION: u32 = 1;
pub const MEM_MAXIMUM_RAM_PAGE: u32 = 2;
pub const MEM_CURRENT_RESERVATION: u32 = 3;
pub const MEM_MAXIMUM_RESERVATION: u32 = 4;
pub const MEM_POPULATE_PHYSMAP: u32 = 6;
pub const MEM_ADD_TO_PHYSMAP: u32 = 7;
pub const MEM_EXCHANGE: u32 = 11;
pub const MEM_MAXIMUM_GPFN: u32 = 14;
pub const MEM_REMOVE_FROM_PHYSMAP: u32 = 15;
pub const MEM_ADD_TO_PHYSMAP_BATCH: u32 = 23;
pub const MEM_CLAIM_PAGES: u32 = 24;
pub const MEM_ACQUIRE_RESOURCE: u32 = 28;

pub const SPACE_SHARED_INFO: u32 = 0;
pub const SPACE_GRANT_TABLE: u32 = 1;
pub const SPACE_GMFN: u32 = 2;
pub const SPACE_GMFN_RANGE: u32 = 3;
pub const SPACE_FOREIGN: u32 = 4;

/// `struct xen_add_to_physmap`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct AddToPhysmap {
    pub domid: u16,
    pub size: u16,
    pub space: u32,
    pub index: u64,
    pub gfn: u64,
}

/// `struct xen_add_to_physmap_batch`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct AddToPhysmapBatch {
    pub domid: u16,
    pub space: u16,
    pub size: u16,
    pub foreign: u16,
    pub indices: u64,
    pub gfns: u64,
    pub errors: u64,
}

/// `struct xen_remove_from_physmap`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct RemoveFromPhysmap {
    pub domid: u16,
    pub pad: [u16; 3],
    pub gfn: u64,
}

/// `struct xen_hvm_param`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct HvmParameter {
    pub domid: u16,
    pub pad: u16,
    pub index: u32,
    pub value: u64,
}

pub const HVMOP_SET_PARAM: u32 = 0;
pub const HVMOP_GET_PARAM: u32 = 1;

pub const SCHEDOP_YIELD: u32 = 0;
pub const SCHEDOP_BLOCK: u32 = 1;
pub const SCHEDOP_SHUTDOWN: u32 = 2;
pub const SCHEDOP_POLL: u32 = 3;
pub const SCHEDOP_REMOTE_SHUTDOWN: u32 = 4;
pub const SCHEDOP_WATCHDOG: u32 = 6;

/// `struct sched_poll`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Poll {
    pub ports: u64,
    pub count: u32,
    pub pad: u32,
    pub timeout: u64,
}

pub const VCPUOP_REGISTER_RUNSTATE: u32 = 5;
pub const VCPUOP_REGISTER_VCPU_INFO: u32 = 10;

/// `struct vcpu_register_vcpu_info`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct RegisterVcpuInfo {
    pub gfn: u64,
    pub offset: u32,
    pub reserved: u32,
}

/// Makes one memory_op; `extents` are frame numbers.
pub fn reservation(operation: u32, extents: &mut [u64], order: u32) -> i32 {
    let mut argument = Reservation {
        extents: u64::from(crate::hypercall::address_of(extents)),
        count: extents.len() as u64,
        order,
        domid: DOMID_SELF,
        ..Reservation::default()
    };
    crate::hypercall::call_with(crate::hypercall::MEMORY_OP, operation, &mut argument)
}

/// Maps a page of the hypervisor's into this domain at `gfn`.
pub fn add_to_physmap(space: u32, index: u64, gfn: u64) -> i32 {
    let mut argument = AddToPhysmap { domid: DOMID_SELF, space, index, gfn, ..AddToPhysmap::default() };
    crate::hypercall::call_with(crate::hypercall::MEMORY_OP, MEM_ADD_TO_PHYSMAP, &mut argument)
}

/// Takes whatever is at `gfn` out of this domain.
pub fn remove_from_physmap(gfn: u64) -> i32 {
    let mut argument = RemoveFromPhysmap { domid: DOMID_SELF, gfn, ..RemoveFromPhysmap::default() };
    crate::hypercall::call_with(crate::hypercall::MEMORY_OP, MEM_REMOVE_FROM_PHYSMAP, &mut argument)
}
