//! Grant tables, version 1 (xen/include/public/grant_table.h).
//!
//! Version 2's entries and status frames are not part of Krypton's ABI.

use crate::abi::handle::GuestHandle;
use crate::abi::layout::Layout;
use crate::{abi_constants, abi_struct};

abi_constants! {
    /// `map_grant_ref`: makes granted frames appear in the caller's memory.
    OP_MAP_GRANT_REF: u32 = 0, "GNTTABOP_map_grant_ref";
    /// `unmap_grant_ref`: undoes `map_grant_ref`.
    OP_UNMAP_GRANT_REF: u32 = 1, "GNTTABOP_unmap_grant_ref";
    /// `setup_table`: grows the table and lists its frames.
    OP_SETUP_TABLE: u32 = 2, "GNTTABOP_setup_table";
    /// `dump_table`: a debugging aid that is not supported.
    OP_DUMP_TABLE: u32 = 3, "GNTTABOP_dump_table";
    /// `transfer`: gives frames away; not supported on ARM.
    OP_TRANSFER: u32 = 4, "GNTTABOP_transfer";
    /// `copy`: copies between frames, granted or own.
    OP_COPY: u32 = 5, "GNTTABOP_copy";
    /// `query_size`: current and largest size of a table.
    OP_QUERY_SIZE: u32 = 6, "GNTTABOP_query_size";
    /// `unmap_and_replace`: not supported on ARM.
    OP_UNMAP_AND_REPLACE: u32 = 7, "GNTTABOP_unmap_and_replace";
    /// `set_version`.
    OP_SET_VERSION: u32 = 8, "GNTTABOP_set_version";
    /// `get_status_frames`: version 2 only.
    OP_GET_STATUS_FRAMES: u32 = 9, "GNTTABOP_get_status_frames";
    /// `get_version`.
    OP_GET_VERSION: u32 = 10, "GNTTABOP_get_version";
    /// `swap_grant_ref`: exchanges two entries of the caller's table.
    OP_SWAP_GRANT_REF: u32 = 11, "GNTTABOP_swap_grant_ref";
    /// `cache_flush`: cleans or invalidates a range of a granted page.
    OP_CACHE_FLUSH: u32 = 12, "GNTTABOP_cache_flush";

    /// References that survive a change of version; the builder uses the first two.
    NR_RESERVED_ENTRIES: u32 = 8, "GNTTAB_NR_RESERVED_ENTRIES";
    /// Reference of the console ring.
    RESERVED_CONSOLE: u32 = 0, "GNTTAB_RESERVED_CONSOLE";
    /// Reference of the xenstore ring.
    RESERVED_XENSTORE: u32 = 1, "GNTTAB_RESERVED_XENSTORE";

    /// Entry type: nothing is granted.
    GTF_INVALID: u16 = 0, "GTF_invalid";
    /// Entry type: `domid` may map and copy `frame`.
    GTF_PERMIT_ACCESS: u16 = 1, "GTF_permit_access";
    /// Entry type: `domid` may transfer a page into the slot.
    GTF_ACCEPT_TRANSFER: u16 = 2, "GTF_accept_transfer";
    /// Entry type: version 2 only.
    GTF_TRANSITIVE: u16 = 3, "GTF_transitive";
    /// Bits of the entry type.
    GTF_TYPE_MASK: u16 = 3, "GTF_type_mask";
    /// No writing.
    GTF_READONLY: u16 = 1 << 2, "GTF_readonly";
    /// Set by the hypervisor while somebody uses the grant.
    GTF_READING: u16 = 1 << 3, "GTF_reading";
    /// Set by the hypervisor while somebody can write through the grant.
    GTF_WRITING: u16 = 1 << 4, "GTF_writing";
    /// x86 cache attribute.
    GTF_PWT: u16 = 1 << 5, "GTF_PWT";
    /// x86 cache attribute.
    GTF_PCD: u16 = 1 << 6, "GTF_PCD";
    /// x86 cache attribute.
    GTF_PAT: u16 = 1 << 7, "GTF_PAT";
    /// Version 2 only.
    GTF_SUB_PAGE: u16 = 1 << 8, "GTF_sub_page";

    /// Map for devices: the caller wants `dev_bus_addr`.
    MAP_DEVICE: u32 = 1 << 0, "GNTMAP_device_map";
    /// Map at `host_addr`.
    MAP_HOST: u32 = 1 << 1, "GNTMAP_host_map";
    /// Map without write permission.
    MAP_READONLY: u32 = 1 << 2, "GNTMAP_readonly";
    /// The mapping is for applications too.
    MAP_APPLICATION: u32 = 1 << 3, "GNTMAP_application_map";
    /// `host_addr` names a page-table entry: not on ARM.
    MAP_CONTAINS_PTE: u32 = 1 << 4, "GNTMAP_contains_pte";
    /// Bits that are the guest's.
    MAP_GUEST_AVAIL_MASK: u32 = 0xFFFF_0000, "GNTMAP_guest_avail_mask";

    /// The source of a copy is a grant.
    COPY_SOURCE_GREF: u16 = 1 << 0, "GNTCOPY_source_gref";
    /// The destination of a copy is a grant.
    COPY_DEST_GREF: u16 = 1 << 1, "GNTCOPY_dest_gref";

    /// Clean the data cache to the point of coherency.
    CACHE_CLEAN: u32 = 1 << 0, "GNTTAB_CACHE_CLEAN";
    /// Invalidate the data cache.
    CACHE_INVAL: u32 = 1 << 1, "GNTTAB_CACHE_INVAL";
    /// The address is a grant reference: not supported.
    CACHE_SOURCE_GREF: u32 = 1 << 31, "GNTTAB_CACHE_SOURCE_GREF";

    /// Status: done.
    STATUS_OKAY: i16 = 0, "GNTST_okay";
    /// Status of [`GrantError::General`].
    STATUS_GENERAL_ERROR: i16 = -1, "GNTST_general_error";
    /// Status of [`GrantError::BadDomain`].
    STATUS_BAD_DOMAIN: i16 = -2, "GNTST_bad_domain";
    /// Status of [`GrantError::BadGrantRef`].
    STATUS_BAD_GNTREF: i16 = -3, "GNTST_bad_gntref";
    /// Status of [`GrantError::BadHandle`].
    STATUS_BAD_HANDLE: i16 = -4, "GNTST_bad_handle";
    /// Status of [`GrantError::BadVirtAddr`].
    STATUS_BAD_VIRT_ADDR: i16 = -5, "GNTST_bad_virt_addr";
    /// Status of [`GrantError::BadDevAddr`].
    STATUS_BAD_DEV_ADDR: i16 = -6, "GNTST_bad_dev_addr";
    /// Status of [`GrantError::NoDeviceSpace`].
    STATUS_NO_DEVICE_SPACE: i16 = -7, "GNTST_no_device_space";
    /// Status of [`GrantError::PermissionDenied`].
    STATUS_PERMISSION_DENIED: i16 = -8, "GNTST_permission_denied";
    /// Status of [`GrantError::BadPage`].
    STATUS_BAD_PAGE: i16 = -9, "GNTST_bad_page";
    /// Status of [`GrantError::BadCopyArg`].
    STATUS_BAD_COPY_ARG: i16 = -10, "GNTST_bad_copy_arg";
    /// Status of [`GrantError::AddressTooBig`].
    STATUS_ADDRESS_TOO_BIG: i16 = -11, "GNTST_address_too_big";
    /// Status of [`GrantError::Again`].
    STATUS_EAGAIN: i16 = -12, "GNTST_eagain";
    /// Status of [`GrantError::NoSpace`].
    STATUS_NO_SPACE: i16 = -13, "GNTST_no_space";
}

/// Reason an element of a grant operation failed. `Okay` is no variant, so a failure cannot look like success. 56 Set
/// by the hypervisor while the grant is in use. 58 Set by the hypervisor while the grant is in use for writing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i16)]
pub enum GrantError {
    /// An error without a code of its own.
    General = STATUS_GENERAL_ERROR,
    /// The domain does not exist.
    BadDomain = STATUS_BAD_DOMAIN,
    /// The reference is outside the table or not granted to the caller.
    BadGrantRef = STATUS_BAD_GNTREF,
    /// The handle has no mapping of the caller.
    BadHandle = STATUS_BAD_HANDLE,
    /// The host address is unusable, or not that of the mapping.
    BadVirtAddr = STATUS_BAD_VIRT_ADDR,
    /// The device address is not that of the mapping.
    BadDevAddr = STATUS_BAD_DEV_ADDR,
    /// No space in an IOMMU.
    NoDeviceSpace = STATUS_NO_DEVICE_SPACE,
    /// The caller may not do this.
    PermissionDenied = STATUS_PERMISSION_DENIED,
    /// The frame is not ordinary RAM of its domain.
    BadPage = STATUS_BAD_PAGE,
    /// The range of a copy exceeds its page.
    BadCopyArg = STATUS_BAD_COPY_ARG,
    /// The frame number is too large.
    AddressTooBig = STATUS_ADDRESS_TOO_BIG,
    /// Temporarily impossible; the guest retries.
    Again = STATUS_EAGAIN,
    /// No free handle, or no memory for one.
    NoSpace = STATUS_NO_SPACE,
}

impl GrantError {
    /// Returns the value for a `status` field; always negative.
    pub const fn status(self) -> i16 {
        self as i16
    }
}

/// Returns the value for the `status` field of an element.
pub fn status_of<T>(outcome: &Result<T, GrantError>) -> i16 {
    match outcome {
        Ok(_) => STATUS_OKAY,
        Err(error) => error.status(),
    }
}

abi_struct! {
    /// One entry of a domain's table.
    pub struct GrantEntryV1: "struct grant_entry_v1", 8, align 4 {
        /// Type and `GTF_*` bits.
        0 "flags" => flags: u16,
        /// The domain that may use the grant.
        2 "domid" => domid: u16,
        /// The granted frame (GFN).
        4 "frame" => frame: u32,
    }
}

abi_struct! {
    /// Element of `map_grant_ref`.
    pub struct MapGrantRef: "struct gnttab_map_grant_ref", 32, align 8 {
        /// In: guest physical address where the page shall appear.
        0 "host_addr" => host_addr: u64,
        /// In: `MAP_*` bits.
        8 "flags" => flags: u32,
        /// In: the reference.
        12 "ref" => grant_ref: u32,
        /// In: the granting domain.
        16 "dom" => dom: u16,
        /// Out.
        18 "status" => status: i16,
        /// Out: handle of the mapping.
        20 "handle" => handle: u32,
        /// Out: machine address of the granted page.
        24 "dev_bus_addr" => dev_bus_addr: u64,
    }
}

abi_struct! {
    /// Element of `unmap_grant_ref`.
    pub struct UnmapGrantRef: "struct gnttab_unmap_grant_ref", 24, align 8 {
        /// In: guest physical address of the mapping, or 0.
        0 "host_addr" => host_addr: u64,
        /// In: machine address of the mapping, or 0.
        8 "dev_bus_addr" => dev_bus_addr: u64,
        /// In: handle of the mapping.
        16 "handle" => handle: u32,
        /// Out.
        20 "status" => status: i16,
        22 _ => _pad: u16,
    }
}

abi_struct! {
    /// Argument of `setup_table`.
    pub struct SetupTable: "struct gnttab_setup_table", 24, align 8 {
        /// In: domain of the table.
        0 "dom" => dom: u16,
        2 _ => _pad0: u16,
        /// In: number of frames.
        4 "nr_frames" => nr_frames: u32,
        /// Out.
        8 "status" => status: i16,
        10 _ => _pad1: [u16; 3],
        /// In: buffer for the frame numbers.
        16 "frame_list" => frame_list: GuestHandle<u64>,
    }
}

abi_struct! {
    /// Argument of `dump_table`.
    pub struct DumpTable: "struct gnttab_dump_table", 4, align 2 {
        /// In: domain of the table.
        0 "dom" => dom: u16,
        /// Out.
        2 "status" => status: i16,
    }
}

abi_struct! {
    /// Element of `transfer`.
    pub struct Transfer: "struct gnttab_transfer", 24, align 8 {
        /// In: the frame that is given away.
        0 "mfn" => mfn: u64,
        /// In: the receiver.
        8 "domid" => domid: u16,
        10 _ => _pad0: u16,
        /// In: the receiver's slot.
        12 "ref" => grant_ref: u32,
        /// Out.
        16 "status" => status: i16,
        18 _ => _pad1: [u16; 3],
    }
}

abi_struct! {
    /// One side of a copy.
    pub struct CopyPtr: "struct gnttab_copy_ptr", 16, align 8 {
        /// A grant reference (lower half) or a frame number (GFN), as the copy's flags say.
        0 "u" => frame: u64,
        /// The domain.
        8 "domid" => domid: u16,
        /// First byte within the page.
        10 "offset" => offset: u16,
        12 _ => _pad: u32,
    }
}

impl CopyPtr {
    /// Returns the grant reference, if this side is one.
    pub const fn grant_ref(&self) -> u32 {
        self.frame as u32
    }
}

abi_struct! {
    /// Element of `copy`.
    pub struct Copy: "struct gnttab_copy", 40, align 8 {
        /// In.
        0 "source" => source: CopyPtr,
        /// In.
        16 "dest" => dest: CopyPtr,
        /// In: bytes.
        32 "len" => len: u16,
        /// In: `COPY_*` bits.
        34 "flags" => flags: u16,
        /// Out.
        36 "status" => status: i16,
        38 _ => _pad: u16,
    }
}

abi_struct! {
    /// Argument of `query_size`.
    pub struct QuerySize: "struct gnttab_query_size", 16, align 4 {
        /// In: domain of the table.
        0 "dom" => dom: u16,
        2 _ => _pad0: u16,
        /// Out: frames now.
        4 "nr_frames" => nr_frames: u32,
        /// Out: most frames.
        8 "max_nr_frames" => max_nr_frames: u32,
        /// Out.
        12 "status" => status: i16,
        14 _ => _pad1: u16,
    }
}

abi_struct! {
    /// Element of `unmap_and_replace`.
    pub struct UnmapAndReplace: "struct gnttab_unmap_and_replace", 24, align 8 {
        /// In.
        0 "host_addr" => host_addr: u64,
        /// In.
        8 "new_addr" => new_addr: u64,
        /// In.
        16 "handle" => handle: u32,
        /// Out.
        20 "status" => status: i16,
        22 _ => _pad: u16,
    }
}

abi_struct! {
    /// Argument of `set_version`.
    pub struct SetVersion: "struct gnttab_set_version", 4, align 4 {
        /// In: wanted; out: in use.
        0 "version" => version: u32,
    }
}

abi_struct! {
    /// Argument of `get_status_frames`.
    pub struct GetStatusFrames: "struct gnttab_get_status_frames", 16, align 8 {
        /// In.
        0 "nr_frames" => nr_frames: u32,
        /// In.
        4 "dom" => dom: u16,
        /// Out.
        6 "status" => status: i16,
        /// In.
        8 "frame_list" => frame_list: GuestHandle<u64>,
    }
}

abi_struct! {
    /// Argument of `get_version`.
    pub struct GetVersion: "struct gnttab_get_version", 8, align 4 {
        /// In: domain of the table.
        0 "dom" => dom: u16,
        /// Unused.
        2 "pad" => pad: u16,
        /// Out.
        4 "version" => version: u32,
    }
}

abi_struct! {
    /// Element of `swap_grant_ref`.
    pub struct SwapGrantRef: "struct gnttab_swap_grant_ref", 12, align 4 {
        /// In.
        0 "ref_a" => ref_a: u32,
        /// In.
        4 "ref_b" => ref_b: u32,
        /// Out.
        8 "status" => status: i16,
        10 _ => _pad: u16,
    }
}

abi_struct! {
    /// Element of `cache_flush`.
    pub struct CacheFlush: "struct gnttab_cache_flush", 16, align 8 {
        /// In: machine address of the page, or a reference (lower half).
        0 "a" => address: u64,
        /// In: first byte within the page.
        8 "offset" => offset: u16,
        /// In: bytes.
        10 "length" => length: u16,
        /// In: `CACHE_*` bits.
        12 "op" => op: u32,
    }
}

/// All structures of this file.
pub const LAYOUTS: &[Layout] = &[
    GrantEntryV1::LAYOUT,
    MapGrantRef::LAYOUT,
    UnmapGrantRef::LAYOUT,
    SetupTable::LAYOUT,
    DumpTable::LAYOUT,
    Transfer::LAYOUT,
    CopyPtr::LAYOUT,
    Copy::LAYOUT,
    QuerySize::LAYOUT,
    UnmapAndReplace::LAYOUT,
    SetVersion::LAYOUT,
    GetStatusFrames::LAYOUT,
    GetVersion::LAYOUT,
    SwapGrantRef::LAYOUT,
    CacheFlush::LAYOUT,
];
