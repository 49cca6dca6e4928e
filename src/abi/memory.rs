//! Memory operations (xen/include/public/memory.h).

use crate::abi::handle::GuestHandle;
use crate::abi::layout::Layout;
use crate::{abi_constants, abi_struct};

/// Bits of the command register that hold the sub-op; a continuation keeps its progress in the rest.
pub const OP_MASK: u32 = 0x3F;

abi_constants! {
    /// Adds pages without mapping them.
    OP_INCREASE_RESERVATION: u32 = 0, "XENMEM_increase_reservation";
    /// Unmaps pages and gives them back.
    OP_DECREASE_RESERVATION: u32 = 1, "XENMEM_decrease_reservation";
    /// Highest frame number of RAM, plus one.
    OP_MAXIMUM_RAM_PAGE: u32 = 2, "XENMEM_maximum_ram_page";
    /// Pages a domain has.
    OP_CURRENT_RESERVATION: u32 = 3, "XENMEM_current_reservation";
    /// Pages a domain may have.
    OP_MAXIMUM_RESERVATION: u32 = 4, "XENMEM_maximum_reservation";
    /// x86 only.
    OP_MACHPHYS_MFN_LIST: u32 = 5, "XENMEM_machphys_mfn_list";
    /// Allocates and maps pages.
    OP_POPULATE_PHYSMAP: u32 = 6, "XENMEM_populate_physmap";
    /// Makes a page of some space appear at a GFN.
    OP_ADD_TO_PHYSMAP: u32 = 7, "XENMEM_add_to_physmap";
    /// x86 only.
    OP_MEMORY_MAP: u32 = 9, "XENMEM_memory_map";
    /// x86 only.
    OP_MACHINE_MEMORY_MAP: u32 = 10, "XENMEM_machine_memory_map";
    /// Not for translated domains.
    OP_EXCHANGE: u32 = 11, "XENMEM_exchange";
    /// x86 only.
    OP_MACHPHYS_MAPPING: u32 = 12, "XENMEM_machphys_mapping";
    /// x86 only.
    OP_SET_MEMORY_MAP: u32 = 13, "XENMEM_set_memory_map";
    /// Highest mapped GFN.
    OP_MAXIMUM_GPFN: u32 = 14, "XENMEM_maximum_gpfn";
    /// Unmaps a GFN.
    OP_REMOVE_FROM_PHYSMAP: u32 = 15, "XENMEM_remove_from_physmap";
    /// x86 only.
    OP_SET_POD_TARGET: u32 = 16, "XENMEM_set_pod_target";
    /// x86 only.
    OP_GET_POD_TARGET: u32 = 17, "XENMEM_get_pod_target";
    /// Pages saved by sharing: none.
    OP_GET_SHARING_FREED_PAGES: u32 = 18, "XENMEM_get_sharing_freed_pages";
    /// Pages shared: none.
    OP_GET_SHARING_SHARED_PAGES: u32 = 19, "XENMEM_get_sharing_shared_pages";
    /// x86 only.
    OP_PAGING_OP: u32 = 20, "XENMEM_paging_op";
    /// Access monitoring: not supported.
    OP_ACCESS_OP: u32 = 21, "XENMEM_access_op";
    /// x86 only.
    OP_SHARING_OP: u32 = 22, "XENMEM_sharing_op";
    /// [`OP_ADD_TO_PHYSMAP`] for many pages; also maps other domains' pages.
    OP_ADD_TO_PHYSMAP_BATCH: u32 = 23, "XENMEM_add_to_physmap_batch";
    /// Reserves free pages for a domain.
    OP_CLAIM_PAGES: u32 = 24, "XENMEM_claim_pages";
    /// x86 only.
    OP_MACHPHYS_COMPAT_MFN_LIST: u32 = 25, "XENMEM_machphys_compat_mfn_list";
    /// Virtual NUMA topology: none.
    OP_GET_VNUMAINFO: u32 = 26, "XENMEM_get_vnumainfo";
    /// Reserved device memory: none.
    OP_RESERVED_DEVICE_MEMORY_MAP: u32 = 27, "XENMEM_reserved_device_memory_map";
    /// Maps pages that the hypervisor keeps for a domain.
    OP_ACQUIRE_RESOURCE: u32 = 28, "XENMEM_acquire_resource";

    /// Flag of a reservation: populate on demand (x86 only).
    MEMF_POPULATE_ON_DEMAND: u32 = 1 << 16, "XENMEMF_populate_on_demand";
    /// Flag of a reservation: only from the given node.
    MEMF_EXACT_NODE_REQUEST: u32 = 1 << 17, "XENMEMF_exact_node_request";
    /// Flag of a reservation: the node is a virtual one.
    MEMF_VNODE: u32 = 1 << 18, "XENMEMF_vnode";

    /// Space: the shared info page.
    SPACE_SHARED_INFO: u32 = 0, "XENMAPSPACE_shared_info";
    /// Space: frames of the grant table.
    SPACE_GRANT_TABLE: u32 = 1, "XENMAPSPACE_grant_table";
    /// Space: own frames; x86 only.
    SPACE_GMFN: u32 = 2, "XENMAPSPACE_gmfn";
    /// Space: ranges of own frames; x86 only.
    SPACE_GMFN_RANGE: u32 = 3, "XENMAPSPACE_gmfn_range";
    /// Space: frames of another domain (batch only).
    SPACE_GMFN_FOREIGN: u32 = 4, "XENMAPSPACE_gmfn_foreign";
    /// Space: device memory.
    SPACE_DEV_MMIO: u32 = 5, "XENMAPSPACE_dev_mmio";
    /// Flag of `reserved_device_memory_map`: the regions of all devices.
    RDM_ALL: u32 = 1, "XENMEM_RDM_ALL";

    /// Bit of a grant-table index: status frames (version 2 only).
    IDX_GRANT_TABLE_STATUS: u32 = 0x8000_0000, "XENMAPIDX_grant_table_status";

    /// Resource: pages of an I/O request server; not supported.
    RESOURCE_IOREQ_SERVER: u16 = 0, "XENMEM_resource_ioreq_server";
    /// Resource: frames of a grant table.
    RESOURCE_GRANT_TABLE: u16 = 1, "XENMEM_resource_grant_table";
    /// Resource: processor trace; not supported.
    RESOURCE_VMTRACE_BUF: u16 = 2, "XENMEM_resource_vmtrace_buf";
    /// Id of [`RESOURCE_GRANT_TABLE`]: the entries.
    RESOURCE_GRANT_TABLE_ID_SHARED: u32 = 0, "XENMEM_resource_grant_table_id_shared";
    /// Id of [`RESOURCE_GRANT_TABLE`]: the status words (version 2 only).
    RESOURCE_GRANT_TABLE_ID_STATUS: u32 = 1, "XENMEM_resource_grant_table_id_status";
}

abi_struct! {
    /// Argument of the reservation operations and of `claim_pages`.
    pub struct MemoryReservation: "struct xen_memory_reservation", 32, align 8 {
        /// Frame numbers (GFN) of the extents.
        0 "extent_start" => extent_start: GuestHandle<u64>,
        /// Number of extents.
        8 "nr_extents" => nr_extents: u64,
        /// Each has 2^order pages.
        16 "extent_order" => extent_order: u32,
        /// `MEMF_*` bits.
        20 "mem_flags" => mem_flags: u32,
        /// Domain of the memory.
        24 "domid" => domid: u16,
        26 _ => _pad: [u16; 3],
    }
}

abi_struct! {
    /// Argument of `exchange`.
    pub struct MemoryExchange: "struct xen_memory_exchange", 72, align 8 {
        /// Given.
        0 "in" => input: MemoryReservation,
        /// Received.
        32 "out" => output: MemoryReservation,
        /// Out.
        64 "nr_exchanged" => nr_exchanged: u64,
    }
}

abi_struct! {
    /// Argument of the operations that ask about a domain.
    pub struct MemoryDomain: "struct xen_memory_domain", 2, align 2 {
        /// The domain.
        0 "domid" => domid: u16,
    }
}

abi_struct! {
    /// Argument of `add_to_physmap`.
    pub struct AddToPhysmap: "struct xen_add_to_physmap", 24, align 8 {
        /// Domain whose memory changes.
        0 "domid" => domid: u16,
        /// For [`SPACE_GMFN_RANGE`].
        2 "size" => size: u16,
        /// `SPACE_*`.
        4 "space" => space: u32,
        /// Page of the space.
        8 "idx" => idx: u64,
        /// GFN to map at.
        16 "gpfn" => gpfn: u64,
    }
}

abi_struct! {
    /// Argument of `add_to_physmap_batch`.
    pub struct AddToPhysmapBatch: "struct xen_add_to_physmap_batch", 32, align 8 {
        /// Domain whose memory changes.
        0 "domid" => domid: u16,
        /// `SPACE_*`.
        2 "space" => space: u16,
        /// Number of pages.
        4 "size" => size: u16,
        /// For [`SPACE_GMFN_FOREIGN`]: whose frames; else zero.
        6 "u" => foreign_domid: u16,
        /// Pages of the space.
        8 "idxs" => idxs: GuestHandle<u64>,
        /// GFNs to map at.
        16 "gpfns" => gpfns: GuestHandle<u64>,
        /// Out: an error number for each page.
        24 "errs" => errs: GuestHandle<i32>,
    }
}

abi_struct! {
    /// Argument of `remove_from_physmap`.
    pub struct RemoveFromPhysmap: "struct xen_remove_from_physmap", 16, align 8 {
        /// Domain whose memory changes.
        0 "domid" => domid: u16,
        2 _ => _pad: [u16; 3],
        /// The frame to unmap.
        8 "gpfn" => gpfn: u64,
    }
}

abi_struct! {
    /// A reserved range; the element of [`ReservedDeviceMemoryMap`]'s buffer.
    pub struct ReservedDeviceMemory: "struct xen_reserved_device_memory", 16, align 8 {
        /// First frame.
        0 "start_pfn" => start_pfn: u64,
        /// Their number.
        8 "nr_pages" => nr_pages: u64,
    }
}

abi_struct! {
    /// Argument of `reserved_device_memory_map`.
    pub struct ReservedDeviceMemoryMap: "struct xen_reserved_device_memory_map", 24, align 8 {
        /// All regions, or those of `dev`.
        0 "flags" => flags: u32,
        /// In: room; out: number of ranges.
        4 "nr_entries" => nr_entries: u32,
        /// Buffer for the ranges.
        8 "buffer" => buffer: GuestHandle<ReservedDeviceMemory>,
        /// A PCI device.
        16 "dev" => dev: u32,
        20 _ => _pad: u32,
    }
}

abi_struct! {
    /// Argument of `acquire_resource`.
    pub struct MemAcquireResource: "struct xen_mem_acquire_resource", 32, align 8 {
        /// Domain of the resource.
        0 "domid" => domid: u16,
        /// `RESOURCE_*`.
        2 "type" => resource: u16,
        /// Id of the resource.
        4 "id" => id: u32,
        /// Number of frames; 0 without a list requests the number.
        8 "nr_frames" => nr_frames: u32,
        /// Must be zero.
        12 "pad" => pad: u32,
        /// First frame of the resource.
        16 "frame" => frame: u64,
        /// GFNs of the caller where the frames shall appear.
        24 "frame_list" => frame_list: GuestHandle<u64>,
    }
}

abi_struct! {
    /// Argument of `get_vnumainfo`.
    pub struct VnumaTopologyInfo: "struct xen_vnuma_topology_info", 40, align 8 {
        /// Domain of the topology.
        0 "domid" => domid: u16,
        /// Unused.
        2 "pad" => pad: u16,
        /// In and out.
        4 "nr_vnodes" => nr_vnodes: u32,
        /// In and out.
        8 "nr_vcpus" => nr_vcpus: u32,
        /// In and out.
        12 "nr_vmemranges" => nr_vmemranges: u32,
        /// Out.
        16 "vdistance" => vdistance: GuestHandle<u32>,
        /// Out.
        24 "vcpu_to_vnode" => vcpu_to_vnode: GuestHandle<u32>,
        /// Out.
        32 "vmemrange" => vmemrange: GuestHandle<u64>,
    }
}

/// All structures of this file.
pub const LAYOUTS: &[Layout] = &[
    MemoryReservation::LAYOUT,
    MemoryExchange::LAYOUT,
    MemoryDomain::LAYOUT,
    AddToPhysmap::LAYOUT,
    AddToPhysmapBatch::LAYOUT,
    RemoveFromPhysmap::LAYOUT,
    ReservedDeviceMemory::LAYOUT,
    ReservedDeviceMemoryMap::LAYOUT,
    MemAcquireResource::LAYOUT,
    VnumaTopologyInfo::LAYOUT,
];
