//! vCPU operations (xen/include/public/vcpu.h).

use crate::abi::handle::GuestHandle;
use crate::abi::layout::Layout;
use crate::{abi_constants, abi_struct};

/// Set in `state_entry_time` while the hypervisor changes a guest's copy of the structure.
pub const RUNSTATE_UPDATE: u64 = 1 << 63;

abi_constants! {
    /// Not on ARM (PSCI instead), like every operation that is not listed below.
    OP_INITIALISE: u32 = 0, "VCPUOP_initialise";
    /// Registers where run state times are written.
    OP_REGISTER_RUNSTATE_MEMORY_AREA: u32 = 5, "VCPUOP_register_runstate_memory_area";
    /// Moves a vCPU's `vcpu_info`.
    OP_REGISTER_VCPU_INFO: u32 = 10, "VCPUOP_register_vcpu_info";

    /// On a CPU.
    RUNSTATE_RUNNING: u32 = 0, "RUNSTATE_running";
    /// Waits for a CPU.
    RUNSTATE_RUNNABLE: u32 = 1, "RUNSTATE_runnable";
    /// Waits for an event.
    RUNSTATE_BLOCKED: u32 = 2, "RUNSTATE_blocked";
    /// Off or paused.
    RUNSTATE_OFFLINE: u32 = 3, "RUNSTATE_offline";
}

abi_struct! {
    /// Time a vCPU spent in each state.
    pub struct VcpuRunstateInfo: "struct vcpu_runstate_info", 48, align 8 {
        /// `RUNSTATE_*`.
        0 "state" => state: u32,
        4 _ => _pad: u32,
        /// System time in ns, and [`RUNSTATE_UPDATE`].
        8 "state_entry_time" => state_entry_time: u64,
        /// ns in each state.
        16 "time" => time: [u64; 4],
    }
}

abi_struct! {
    /// Argument of `register_runstate_memory_area`.
    pub struct RegisterRunstateMemoryArea: "struct vcpu_register_runstate_memory_area", 8, align 8 {
        /// Virtual address of the area.
        0 "addr" => addr: GuestHandle<VcpuRunstateInfo>,
    }
}

abi_struct! {
    /// Argument of `register_vcpu_info`.
    pub struct RegisterVcpuInfo: "struct vcpu_register_vcpu_info", 16, align 8 {
        /// The page (GFN).
        0 "mfn" => gfn: u64,
        /// First byte within the page.
        8 "offset" => offset: u32,
        /// Unused.
        12 "rsvd" => rsvd: u32,
    }
}

/// All structures of this file.
pub const LAYOUTS: &[Layout] = &[
    VcpuRunstateInfo::LAYOUT,
    RegisterRunstateMemoryArea::LAYOUT,
    RegisterVcpuInfo::LAYOUT,
];
