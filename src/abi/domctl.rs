//! Domain control (xen/include/public/domctl.h, arch-arm.h).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::abi::handle::GuestHandle;
use crate::abi::layout::Layout;
use crate::{abi_constants, abi_struct};

abi_constants! {
    /// The only `interface_version`.
    INTERFACE_VERSION: u32 = 0x15, "XEN_DOMCTL_INTERFACE_VERSION";
    /// Makes a domain.
    OP_CREATEDOMAIN: u32 = 1, "XEN_DOMCTL_createdomain";
    /// Ends a domain.
    OP_DESTROYDOMAIN: u32 = 2, "XEN_DOMCTL_destroydomain";
    /// Stops a domain, once more.
    OP_PAUSEDOMAIN: u32 = 3, "XEN_DOMCTL_pausedomain";
    /// Undoes one pause.
    OP_UNPAUSEDOMAIN: u32 = 4, "XEN_DOMCTL_unpausedomain";
    /// Describes a domain or the next one.
    OP_GETDOMAININFO: u32 = 5, "XEN_DOMCTL_getdomaininfo";
    /// Sets where a vCPU runs.
    OP_SETVCPUAFFINITY: u32 = 9, "XEN_DOMCTL_setvcpuaffinity";
    /// Logs which frames are written.
    OP_SHADOW_OP: u32 = 10, "XEN_DOMCTL_shadow_op";
    /// Limits a domain's memory.
    OP_MAX_MEM: u32 = 11, "XEN_DOMCTL_max_mem";
    /// Sets a vCPU's registers.
    OP_SETVCPUCONTEXT: u32 = 12, "XEN_DOMCTL_setvcpucontext";
    /// Reads a vCPU's registers.
    OP_GETVCPUCONTEXT: u32 = 13, "XEN_DOMCTL_getvcpucontext";
    /// Describes a vCPU.
    OP_GETVCPUINFO: u32 = 14, "XEN_DOMCTL_getvcpuinfo";
    /// Makes the vCPUs.
    OP_MAX_VCPUS: u32 = 15, "XEN_DOMCTL_max_vcpus";
    /// Scheduling parameters.
    OP_SCHEDULER_OP: u32 = 16, "XEN_DOMCTL_scheduler_op";
    /// Sets the domain handle (UUID).
    OP_SETDOMAINHANDLE: u32 = 17, "XEN_DOMCTL_setdomainhandle";
    /// Sets whether a debugger is attached.
    OP_SETDEBUGGING: u32 = 18, "XEN_DOMCTL_setdebugging";
    /// Lets a domain have a physical interrupt.
    OP_IRQ_PERMISSION: u32 = 19, "XEN_DOMCTL_irq_permission";
    /// Lets a domain have device memory.
    OP_IOMEM_PERMISSION: u32 = 20, "XEN_DOMCTL_iomem_permission";
    /// Sets the wall clock's offset.
    OP_SETTIMEOFFSET: u32 = 24, "XEN_DOMCTL_settimeoffset";
    /// Reads where a vCPU runs.
    OP_GETVCPUAFFINITY: u32 = 25, "XEN_DOMCTL_getvcpuaffinity";
    /// Undoes a shutdown.
    OP_RESUMEDOMAIN: u32 = 27, "XEN_DOMCTL_resumedomain";
    /// Sets the port that signals a suspend.
    OP_SUBSCRIBE: u32 = 29, "XEN_DOMCTL_subscribe";
    /// Reads what a domain is beside its memory.
    OP_GETHVMCONTEXT: u32 = 33, "XEN_DOMCTL_gethvmcontext";
    /// Sets it.
    OP_SETHVMCONTEXT: u32 = 34, "XEN_DOMCTL_sethvmcontext";
    /// Chooses between 32 and 64 bits.
    OP_SET_ADDRESS_SIZE: u32 = 35, "XEN_DOMCTL_set_address_size";
    /// Assigns a device to a domain.
    OP_ASSIGN_DEVICE: u32 = 37, "XEN_DOMCTL_assign_device";
    /// Maps device memory.
    OP_MEMORY_MAPPING: u32 = 39, "XEN_DOMCTL_memory_mapping";
    /// Returns whether a device could be assigned.
    OP_TEST_ASSIGN_DEVICE: u32 = 45, "XEN_DOMCTL_test_assign_device";
    /// Gives a physical interrupt to a domain.
    OP_BIND_PT_IRQ: u32 = 38, "XEN_DOMCTL_bind_pt_irq";
    /// Takes a physical interrupt back.
    OP_UNBIND_PT_IRQ: u32 = 48, "XEN_DOMCTL_unbind_pt_irq";
    /// Deassigns a device.
    OP_DEASSIGN_DEVICE: u32 = 47, "XEN_DOMCTL_deassign_device";
    /// Devices that go together.
    OP_GET_DEVICE_GROUP: u32 = 50, "XEN_DOMCTL_get_device_group";
    /// Reads a part of what a domain is beside its memory.
    OP_GETHVMCONTEXT_PARTIAL: u32 = 55, "XEN_DOMCTL_gethvmcontext_partial";
    /// Memory events.
    OP_VM_EVENT_OP: u32 = 56, "XEN_DOMCTL_vm_event_op";
    /// Says what is at guest frames.
    OP_GETPAGEFRAMEINFO3: u32 = 61, "XEN_DOMCTL_getpageframeinfo3";
    /// Nothing that could be saved is at a frame.
    PFINFO_XTAB: u64 = 0xF << 28, "XEN_DOMCTL_PFINFO_XTAB";
    /// Sets the domain that handles a global VIRQ.
    OP_SET_VIRQ_HANDLER: u32 = 66, "XEN_DOMCTL_set_virq_handler";
    /// Sets a domain's memory nodes.
    OP_SETNODEAFFINITY: u32 = 68, "XEN_DOMCTL_setnodeaffinity";
    /// Reads a domain's memory nodes.
    OP_GETNODEAFFINITY: u32 = 69, "XEN_DOMCTL_getnodeaffinity";
    /// Cleans and invalidates caches.
    OP_CACHEFLUSH: u32 = 71, "XEN_DOMCTL_cacheflush";
    /// Monitoring.
    OP_MONITOR_OP: u32 = 77, "XEN_DOMCTL_monitor_op";
    /// Emulated UART.
    OP_VUART_OP: u32 = 81, "XEN_DOMCTL_vuart_op";
    /// Reads the size of the page-table pool.
    OP_GET_PAGING_MEMPOOL_SIZE: u32 = 85, "XEN_DOMCTL_get_paging_mempool_size";
    /// Sets the size of the page-table pool.
    OP_SET_PAGING_MEMPOOL_SIZE: u32 = 86, "XEN_DOMCTL_set_paging_mempool_size";

    /// Ends the log.
    SHADOW_OP_OFF: u32 = 0, "XEN_DOMCTL_SHADOW_OP_OFF";
    /// Begins it.
    SHADOW_OP_ENABLE_LOGDIRTY: u32 = 2, "XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY";
    /// Reads it, and begins anew.
    SHADOW_OP_CLEAN: u32 = 11, "XEN_DOMCTL_SHADOW_OP_CLEAN";
    /// Reads it.
    SHADOW_OP_PEEK: u32 = 12, "XEN_DOMCTL_SHADOW_OP_PEEK";
    /// Reads how much memory tables have.
    SHADOW_OP_GET_ALLOCATION: u32 = 30, "XEN_DOMCTL_SHADOW_OP_GET_ALLOCATION";
    /// Sets it.
    SHADOW_OP_SET_ALLOCATION: u32 = 31, "XEN_DOMCTL_SHADOW_OP_SET_ALLOCATION";
    /// Begins what the mode says.
    SHADOW_OP_ENABLE: u32 = 32, "XEN_DOMCTL_SHADOW_OP_ENABLE";
    /// Mode: the log.
    SHADOW_ENABLE_LOG_DIRTY: u32 = 1 << 2, "XEN_DOMCTL_SHADOW_ENABLE_LOG_DIRTY";
    /// Mode of CLEAN and PEEK: with what the hypervisor itself holds.
    SHADOW_LOGDIRTY_FINAL: u32 = 1 << 0, "XEN_DOMCTL_SHADOW_LOGDIRTY_FINAL";

    /// The domain uses the virtualization extensions.
    CDF_HVM: u32 = 1 << 0, "XEN_DOMCTL_CDF_hvm";
    /// It has two-stage translation.
    CDF_HAP: u32 = 1 << 1, "XEN_DOMCTL_CDF_hap";
    /// It may have devices behind an IOMMU.
    CDF_IOMMU: u32 = 1 << 5, "XEN_DOMCTL_CDF_iommu";
    /// It sees performance counters.
    CDF_VPMU: u32 = 1 << 7, "XEN_DOMCTL_CDF_vpmu";
    /// Grant table version.
    GRANT_VERSION_MASK: u32 = 0xF, "XEN_DOMCTL_GRANT_version_mask";

    /// Destroyed, except for pages in use.
    DOMINF_DYING: u32 = 1 << 0, "XEN_DOMINF_dying";
    /// Always on Arm.
    DOMINF_HVM_GUEST: u32 = 1 << 1, "XEN_DOMINF_hvm_guest";
    /// It has shut down.
    DOMINF_SHUTDOWN: u32 = 1 << 2, "XEN_DOMINF_shutdown";
    /// The toolstack has paused it.
    DOMINF_PAUSED: u32 = 1 << 3, "XEN_DOMINF_paused";
    /// All its vCPUs wait.
    DOMINF_BLOCKED: u32 = 1 << 4, "XEN_DOMINF_blocked";
    /// Some vCPU is on a CPU.
    DOMINF_RUNNING: u32 = 1 << 5, "XEN_DOMINF_running";
    /// A debugger is attached.
    DOMINF_DEBUGGED: u32 = 1 << 6, "XEN_DOMINF_debugged";
    /// Always on Arm.
    DOMINF_HAP: u32 = 1 << 8, "XEN_DOMINF_hap";
    /// Shift of the shutdown code.
    DOMINF_SHUTDOWN_SHIFT: u32 = 16, "XEN_DOMINF_shutdownshift";
    /// `max_vcpu_id` of a domain without vCPUs.
    INVALID_MAX_VCPU_ID: u32 = 0xFFFF_FFFF, "XEN_INVALID_MAX_VCPU_ID";

    /// The hard affinity.
    VCPUAFFINITY_HARD: u32 = 1 << 0, "XEN_VCPUAFFINITY_HARD";
    /// The soft affinity.
    VCPUAFFINITY_SOFT: u32 = 1 << 1, "XEN_VCPUAFFINITY_SOFT";
    /// Also when the vCPU is pinned by itself.
    VCPUAFFINITY_FORCE: u32 = 1 << 2, "XEN_VCPUAFFINITY_FORCE";

    /// The null scheduler.
    SCHEDULER_NULL: u32 = 9, "XEN_SCHEDULER_NULL";
    /// The credit2 scheduler.
    SCHEDULER_CREDIT2: u32 = 6, "XEN_SCHEDULER_CREDIT2";
    /// Sets parameters.
    SCHEDOP_PUTINFO: u32 = 0, "XEN_DOMCTL_SCHEDOP_putinfo";
    /// Reads parameters.
    SCHEDOP_GETINFO: u32 = 1, "XEN_DOMCTL_SCHEDOP_getinfo";
    /// Sets parameters of a vCPU.
    SCHEDOP_PUTVCPUINFO: u32 = 2, "XEN_DOMCTL_SCHEDOP_putvcpuinfo";
    /// Reads parameters of a vCPU.
    SCHEDOP_GETVCPUINFO: u32 = 3, "XEN_DOMCTL_SCHEDOP_getvcpuinfo";

    /// The machine's interrupt controller.
    GIC_NATIVE: u8 = 0, "XEN_DOMCTL_CONFIG_GIC_NATIVE";
    /// A GICv2.
    GIC_V2: u8 = 1, "XEN_DOMCTL_CONFIG_GIC_V2";
    /// No trusted execution environment.
    TEE_NONE: u16 = 0, "XEN_DOMCTL_CONFIG_TEE_NONE";
    /// The vCPU is up.
    VGCF_ONLINE: u32 = 1, "VGCF_online";
    /// The events that can be monitored.
    MONITOR_OP_GET_CAPABILITIES: u32 = 2, "XEN_DOMCTL_MONITOR_OP_GET_CAPABILITIES";
}

abi_struct! {
    /// Argument of every domain control operation.
    pub struct Domctl: "struct xen_domctl", 144, align 8 {
        /// The operation.
        0 "cmd" => cmd: u32,
        /// [`INTERFACE_VERSION`].
        4 "interface_version" => interface_version: u32,
        /// The domain.
        8 "domain" => domain: u16,
        10 "_pad" => pad: [u16; 3],
        /// Argument of the operation.
        16 "u" => body: [u64; 16],
    }
}

impl Domctl {
    /// Offset of the domain's id.
    pub const DOMAIN: u32 = 8;
    /// Offset of the body.
    pub const BODY: u32 = 16;

    /// Returns the body as a `T`.
    pub fn body<T: FromBytes + KnownLayout + Immutable>(&self) -> Option<T> {
        T::read_from_prefix(self.body.as_bytes())
            .ok()
            .map(|(body, _)| body)
    }
}

abi_struct! {
    /// The configuration that is particular to Arm domains.
    pub struct ArchDomainConfig: "struct xen_arch_domainconfig", 12, align 4 {
        /// `GIC_*`.
        0 "gic_version" => gic_version: u8,
        1 _ => pad: u8,
        /// `TEE_*`.
        2 "tee_type" => tee_type: u16,
        /// Shared interrupts.
        4 "nr_spis" => nr_spis: u32,
        /// The timer's frequency when firmware left it wrong, else 0.
        8 "clock_frequency" => clock_frequency: u32,
    }
}

abi_struct! {
    /// Body of [`OP_CREATEDOMAIN`].
    pub struct CreateDomain: "struct xen_domctl_createdomain", 68, align 4 {
        /// Security label; ignored.
        0 "ssidref" => ssidref: u32,
        /// Domain handle (UUID).
        4 "handle" => handle: [u8; 16],
        /// `CDF_*`.
        20 "flags" => flags: u32,
        /// None without an IOMMU.
        24 "iommu_opts" => iommu_opts: u32,
        /// Number of vCPUs.
        28 "max_vcpus" => max_vcpus: u32,
        /// Its highest event channel port.
        32 "max_evtchn_port" => max_evtchn_port: u32,
        /// Frames of its grant table, or negative.
        36 "max_grant_frames" => max_grant_frames: i32,
        /// Units of its grant handles, or negative.
        40 "max_maptrack_frames" => max_maptrack_frames: i32,
        /// Highest grant table version.
        44 "grant_opts" => grant_opts: u32,
        /// No tracing on Arm.
        48 "vmtrace_size" => vmtrace_size: u32,
        /// The CPU pool.
        52 "cpupool_id" => cpupool_id: u32,
        /// For Arm.
        56 "arch" => arch: ArchDomainConfig,
    }
}

abi_struct! {
    /// Body of [`OP_GETDOMAININFO`].
    pub struct DomainInfo: "struct xen_domctl_getdomaininfo", 120, align 8 {
        /// The domain.
        0 "domain" => domain: u16,
        2 "pad1" => pad1: u16,
        /// `DOMINF_*` and the shutdown code.
        4 "flags" => flags: u32,
        /// Pages of RAM it has.
        8 "tot_pages" => tot_pages: u64,
        /// And may have.
        16 "max_pages" => max_pages: u64,
        /// Pages it has claimed.
        24 "outstanding_pages" => outstanding_pages: u64,
        /// None are shared.
        32 "shr_pages" => shr_pages: u64,
        /// None are paged out.
        40 "paged_pages" => paged_pages: u64,
        /// Frame of its shared_info, all ones when it has not mapped it.
        48 "shared_info_frame" => shared_info_frame: u64,
        /// CPU time it used, in nanoseconds.
        56 "cpu_time" => cpu_time: u64,
        /// vCPUs that are up.
        64 "nr_online_vcpus" => nr_online_vcpus: u32,
        /// Its highest vCPU.
        68 "max_vcpu_id" => max_vcpu_id: u32,
        /// No label.
        72 "ssidref" => ssidref: u32,
        /// Domain handle (UUID).
        76 "handle" => handle: [u8; 16],
        /// Its CPU pool.
        92 "cpupool" => cpupool: u32,
        /// Bits of its physical addresses.
        96 "gpaddr_bits" => gpaddr_bits: u8,
        97 "pad2" => pad2: [u8; 7],
        /// Zero, as from Xen 4.17.
        104 "arch_config" => arch_config: ArchDomainConfig,
        116 _ => pad3: u32,
    }
}

abi_struct! {
    /// A bit map in guest memory.
    pub struct Bitmap: "struct xenctl_bitmap", 16, align 8 {
        /// Its bytes.
        0 "bitmap" => bitmap: GuestHandle<u8>,
        /// Its length.
        8 "nr_bits" => nr_bits: u32,
        12 _ => pad: u32,
    }
}

abi_struct! {
    /// Body of [`OP_MAX_MEM`].
    pub struct MaxMem: "struct xen_domctl_max_mem", 8, align 8 {
        /// Most memory in KiB.
        0 "max_memkb" => max_memkb: u64,
    }
}

abi_struct! {
    /// Body of [`OP_SETVCPUCONTEXT`] and [`OP_GETVCPUCONTEXT`].
    pub struct VcpuContextOp: "struct xen_domctl_vcpucontext", 16, align 8 {
        /// The vCPU.
        0 "vcpu" => vcpu: u32,
        4 _ => pad: u32,
        /// Its registers.
        8 "ctxt" => ctxt: GuestHandle<VcpuGuestContext>,
    }
}

abi_struct! {
    /// Body of [`OP_GETVCPUINFO`].
    pub struct GetVcpuInfo: "struct xen_domctl_getvcpuinfo", 24, align 8 {
        /// The vCPU.
        0 "vcpu" => vcpu: u32,
        /// It is up.
        4 "online" => online: u8,
        /// It waits.
        5 "blocked" => blocked: u8,
        /// It is on a CPU.
        6 "running" => running: u8,
        7 _ => pad: u8,
        /// CPU time it used, in nanoseconds.
        8 "cpu_time" => cpu_time: u64,
        /// CPU it runs on, waits for or last ran on.
        16 "cpu" => cpu: u32,
        20 _ => pad1: u32,
    }
}

abi_struct! {
    /// Body of [`OP_MAX_VCPUS`].
    pub struct MaxVcpus: "struct xen_domctl_max_vcpus", 4, align 4 {
        /// As in [`CreateDomain`].
        0 "max" => max: u32,
    }
}

abi_struct! {
    /// Body of [`OP_SETNODEAFFINITY`] and [`OP_GETNODEAFFINITY`].
    pub struct NodeAffinity: "struct xen_domctl_nodeaffinity", 16, align 8 {
        /// The nodes.
        0 "nodemap" => nodemap: Bitmap,
    }
}

abi_struct! {
    /// Body of [`OP_SETVCPUAFFINITY`] and [`OP_GETVCPUAFFINITY`].
    pub struct VcpuAffinity: "struct xen_domctl_vcpuaffinity", 40, align 8 {
        /// The vCPU.
        0 "vcpu" => vcpu: u32,
        /// `VCPUAFFINITY_*`.
        4 "flags" => flags: u32,
        /// Hard affinity.
        8 "cpumap_hard" => hard: Bitmap,
        /// Soft affinity.
        24 "cpumap_soft" => soft: Bitmap,
    }
}

abi_struct! {
    /// Body of [`OP_SCHEDULER_OP`], with the parameters of credit2.
    pub struct SchedulerOp: "struct xen_domctl_scheduler_op", 24, align 8 {
        /// Scheduler that the caller expects.
        0 "sched_id" => sched_id: u32,
        /// `SCHEDOP_*`.
        4 "cmd" => cmd: u32,
        /// Weight.
        8 "u.credit2.weight" => weight: u16,
        /// Cap in percent of one CPU.
        10 "u.credit2.cap" => cap: u16,
        12 _ => pad: u32,
        16 _ => pad1: u64,
    }
}

abi_struct! {
    /// Body of [`OP_IRQ_PERMISSION`].
    pub struct IrqPermission: "struct xen_domctl_irq_permission", 8, align 4 {
        /// The interrupt.
        0 "pirq" => pirq: u32,
        /// Allow rather than deny.
        4 "allow_access" => allow_access: u8,
        5 "pad" => pad: [u8; 3],
    }
}

abi_struct! {
    /// Body of [`OP_IOMEM_PERMISSION`].
    pub struct IomemPermission: "struct xen_domctl_iomem_permission", 24, align 8 {
        /// First frame.
        0 "first_mfn" => first_mfn: u64,
        /// Their number.
        8 "nr_mfns" => nr_mfns: u64,
        /// Allow rather than deny.
        16 "allow_access" => allow_access: u8,
        17 _ => pad: [u8; 7],
    }
}

abi_struct! {
    /// Body of [`OP_MEMORY_MAPPING`].
    pub struct MemoryMapping: "struct xen_domctl_memory_mapping", 32, align 8 {
        /// First frame in the domain.
        0 "first_gfn" => first_gfn: u64,
        /// First frame in the machine.
        8 "first_mfn" => first_mfn: u64,
        /// Number of frames.
        16 "nr_mfns" => nr_mfns: u64,
        /// Map rather than unmap.
        24 "add_mapping" => add_mapping: u32,
        28 "padding" => padding: u32,
    }
}

abi_struct! {
    /// Body of [`OP_VUART_OP`].
    pub struct VuartOp: "struct xen_domctl_vuart_op", 24, align 8 {
        /// Operation: 0 makes it.
        0 "cmd" => cmd: u32,
        /// Kind: 0 for an SBSA UART.
        4 "type" => kind: u32,
        /// Frame of the ring.
        8 "gfn" => gfn: u64,
        /// Domain at the other end of the line.
        16 "console_domid" => console: u16,
        18 "pad" => pad: [u8; 2],
        /// Port for that domain to bind to.
        20 "evtchn" => port: u32,
    }
}

abi_struct! {
    /// Body of [`OP_CACHEFLUSH`].
    pub struct CacheFlush: "struct xen_domctl_cacheflush", 16, align 8 {
        /// First guest frame.
        0 "start_pfn" => start_pfn: u64,
        /// Their number.
        8 "nr_pfns" => nr_pfns: u64,
    }
}

abi_struct! {
    /// Body of [`OP_SHADOW_OP`].
    pub struct ShadowOp: "struct xen_domctl_shadow_op", 40, align 8 {
        /// SHADOW_OP_*.
        0 "op" => op: u32,
        /// Flags of the operation.
        4 "mode" => mode: u32,
        8 "mb" => mb: u32,
        12 _ => pad: u32,
        /// A bit for each frame from 0 on.
        16 "dirty_bitmap" => bitmap: GuestHandle<u8>,
        /// Bits that are wanted, and that were told.
        24 "pages" => pages: u64,
        /// Faults by writes since they were told last.
        32 "stats.fault_count" => fault_count: u32,
        /// Frames that became written since then.
        36 "stats.dirty_count" => dirty_count: u32,
    }
}

abi_struct! {
    /// Body of [`OP_GETHVMCONTEXT`] and [`OP_SETHVMCONTEXT`].
    pub struct HvmContext: "struct xen_domctl_hvmcontext", 16, align 8 {
        /// Bytes of the buffer, and of what is in it.
        0 "size" => size: u32,
        4 _ => pad: u32,
        /// The records.
        8 "buffer" => buffer: GuestHandle<u8>,
    }
}

abi_struct! {
    /// Body of [`OP_GETHVMCONTEXT_PARTIAL`].
    pub struct HvmContextPartial: "struct xen_domctl_hvmcontext_partial", 24, align 8 {
        /// Type of the record.
        0 "type" => kind: u32,
        /// Which of them.
        4 "instance" => instance: u32,
        /// Bytes of the buffer, and of the record's body.
        8 "bufsz" => size: u64,
        /// The record's body.
        16 "buffer" => buffer: GuestHandle<u8>,
    }
}

abi_struct! {
    /// Body of [`OP_GETPAGEFRAMEINFO3`].
    pub struct GetPageFrameInfo3: "struct xen_domctl_getpageframeinfo3", 16, align 8 {
        /// How many frames.
        0 "num" => num: u64,
        /// Their numbers, which are replaced by what is there.
        8 "array" => array: GuestHandle<u64>,
    }
}

abi_struct! {
    /// Body of [`OP_GET_PAGING_MEMPOOL_SIZE`] and [`OP_SET_PAGING_MEMPOOL_SIZE`].
    pub struct PagingMempool: "struct xen_domctl_paging_mempool", 8, align 8 {
        /// Bytes.
        0 "size" => size: u64,
    }
}

abi_struct! {
    /// Registers in a [`VcpuGuestContext`]; each has a 64-bit place, of which an ARM guest uses the lower half
    /// (the names in C are those of the 64-bit view).
    pub struct CoreRegisters: "struct vcpu_guest_core_regs", 312, align 8 {
        /// r0 to r12 of user mode.
        0 _ => r_usr: [u64; 13],
        /// sp of user mode.
        104 "x13" => sp_usr: u64,
        /// lr of user mode.
        112 "x14" => lr_usr: u64,
        120 _ => unused: u64,
        /// lr of IRQ mode.
        128 "x16" => lr_irq: u64,
        /// sp of IRQ mode.
        136 "x17" => sp_irq: u64,
        /// lr of supervisor mode.
        144 "x18" => lr_svc: u64,
        /// sp of supervisor mode.
        152 "x19" => sp_svc: u64,
        /// lr of abort mode.
        160 "x20" => lr_abt: u64,
        /// sp of abort mode.
        168 "x21" => sp_abt: u64,
        /// lr of undefined mode.
        176 "x22" => lr_und: u64,
        /// sp of undefined mode.
        184 "x23" => sp_und: u64,
        /// r8 to r12 of FIQ mode.
        192 _ => r8_fiq: [u64; 5],
        /// sp of FIQ mode.
        232 "x29" => sp_fiq: u64,
        /// lr of FIQ mode.
        240 "x30" => lr_fiq: u64,
        /// Address of the next instruction.
        248 "pc64" => pc: u64,
        /// Program status.
        256 "cpsr" => cpsr: u64,
        /// Saved status of supervisor mode.
        264 "spsr_el1" => spsr_svc: u64,
        /// Saved status of FIQ mode.
        272 "spsr_fiq" => spsr_fiq: u32,
        /// Saved status of IRQ mode.
        276 "spsr_irq" => spsr_irq: u32,
        /// Saved status of undefined mode.
        280 "spsr_und" => spsr_und: u32,
        /// Saved status of abort mode.
        284 "spsr_abt" => spsr_abt: u32,
        /// 64-bit guests only.
        288 _ => el: [u64; 3],
    }
}

abi_struct! {
    /// A vCPU's registers.
    pub struct VcpuGuestContext: "struct vcpu_guest_context", 352, align 8 {
        /// `VGCF_*`.
        0 "flags" => flags: u32,
        4 _ => pad: u32,
        /// General registers.
        8 "user_regs" => regs: CoreRegisters,
        /// SCTLR.
        320 "sctlr" => sctlr: u64,
        /// TTBCR.
        328 "ttbcr" => ttbcr: u64,
        /// TTBR0.
        336 "ttbr0" => ttbr0: u64,
        /// TTBR1.
        344 "ttbr1" => ttbr1: u64,
    }
}

/// All structures of this file.
pub const LAYOUTS: &[Layout] = &[
    Domctl::LAYOUT,
    ArchDomainConfig::LAYOUT,
    CreateDomain::LAYOUT,
    DomainInfo::LAYOUT,
    Bitmap::LAYOUT,
    MaxMem::LAYOUT,
    VcpuContextOp::LAYOUT,
    GetVcpuInfo::LAYOUT,
    MaxVcpus::LAYOUT,
    NodeAffinity::LAYOUT,
    VcpuAffinity::LAYOUT,
    SchedulerOp::LAYOUT,
    IrqPermission::LAYOUT,
    IomemPermission::LAYOUT,
    MemoryMapping::LAYOUT,
    VuartOp::LAYOUT,
    CacheFlush::LAYOUT,
    HvmContext::LAYOUT,
    HvmContextPartial::LAYOUT,
    GetPageFrameInfo3::LAYOUT,
    PagingMempool::LAYOUT,
    CoreRegisters::LAYOUT,
    VcpuGuestContext::LAYOUT,
];
