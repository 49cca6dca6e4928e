//! Machine control (xen/include/public/sysctl.h).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::abi::domctl::{Bitmap, DomainInfo};
use crate::abi::handle::GuestHandle;
use crate::abi::layout::Layout;
use crate::{abi_constants, abi_struct};

abi_constants! {
    /// The only `interface_version`.
    INTERFACE_VERSION: u32 = 0x15, "XEN_SYSCTL_INTERFACE_VERSION";
    /// Reads past console output.
    OP_READCONSOLE: u32 = 1, "XEN_SYSCTL_readconsole";
    /// Tracing: not supported.
    OP_TBUF_OP: u32 = 2, "XEN_SYSCTL_tbuf_op";
    /// Describes the machine.
    OP_PHYSINFO: u32 = 3, "XEN_SYSCTL_physinfo";
    /// Returns which scheduler there is.
    OP_SCHED_ID: u32 = 4, "XEN_SYSCTL_sched_id";
    /// Lists domains.
    OP_GETDOMAININFOLIST: u32 = 6, "XEN_SYSCTL_getdomaininfolist";
    /// Presses debug keys.
    OP_DEBUG_KEYS: u32 = 7, "XEN_SYSCTL_debug_keys";
    /// Idle time of each CPU.
    OP_GETCPUINFO: u32 = 8, "XEN_SYSCTL_getcpuinfo";
    /// Free memory.
    OP_AVAILHEAP: u32 = 9, "XEN_SYSCTL_availheap";
    /// CPUs that are switched off and on.
    OP_CPU_HOTPLUG: u32 = 11, "XEN_SYSCTL_cpu_hotplug";
    /// Cores, sockets and nodes.
    OP_CPUTOPOINFO: u32 = 16, "XEN_SYSCTL_cputopoinfo";
    /// Memory nodes.
    OP_NUMAINFO: u32 = 17, "XEN_SYSCTL_numainfo";
    /// CPU pools.
    OP_CPUPOOL_OP: u32 = 18, "XEN_SYSCTL_cpupool_op";
    /// Parameters of the scheduler.
    OP_SCHEDULER_OP: u32 = 19, "XEN_SYSCTL_scheduler_op";
    /// Code coverage: not supported.
    OP_COVERAGE_OP: u32 = 20, "XEN_SYSCTL_coverage_op";

    /// Switch a CPU on.
    CPU_HOTPLUG_ONLINE: u32 = 0, "XEN_SYSCTL_CPU_HOTPLUG_ONLINE";
    /// Switch a CPU off.
    CPU_HOTPLUG_OFFLINE: u32 = 1, "XEN_SYSCTL_CPU_HOTPLUG_OFFLINE";

    /// Guests that use the virtualization extensions.
    PHYSCAP_HVM: u32 = 1 << 0, "XEN_SYSCTL_PHYSCAP_hvm";
    /// Two-stage translation.
    PHYSCAP_HAP: u32 = 1 << 3, "XEN_SYSCTL_PHYSCAP_hap";
    /// Performance counters for guests.
    PHYSCAP_VPMU: u32 = 1 << 7, "XEN_SYSCTL_PHYSCAP_vpmu";
    /// Grant tables, version 1.
    PHYSCAP_GNTTAB_V1: u32 = 1 << 8, "XEN_SYSCTL_PHYSCAP_gnttab_v1";

    /// Makes a pool.
    CPUPOOL_CREATE: u32 = 1, "XEN_SYSCTL_CPUPOOL_OP_CREATE";
    /// Ends a pool.
    CPUPOOL_DESTROY: u32 = 2, "XEN_SYSCTL_CPUPOOL_OP_DESTROY";
    /// Describes the pool with this id or the next one.
    CPUPOOL_INFO: u32 = 3, "XEN_SYSCTL_CPUPOOL_OP_INFO";
    /// Gives a free CPU to a pool.
    CPUPOOL_ADDCPU: u32 = 4, "XEN_SYSCTL_CPUPOOL_OP_ADDCPU";
    /// Takes a CPU from a pool.
    CPUPOOL_RMCPU: u32 = 5, "XEN_SYSCTL_CPUPOOL_OP_RMCPU";
    /// Puts a domain into another pool.
    CPUPOOL_MOVEDOMAIN: u32 = 6, "XEN_SYSCTL_CPUPOOL_OP_MOVEDOMAIN";
    /// Lists CPUs in no pool.
    CPUPOOL_FREEINFO: u32 = 7, "XEN_SYSCTL_CPUPOOL_OP_FREEINFO";
    /// Any pool, or any CPU.
    CPUPOOL_ANY: u32 = 0xFFFF_FFFF, "XEN_SYSCTL_CPUPOOL_PAR_ANY";

    /// Sets parameters.
    SCHEDOP_PUTINFO: u32 = 0, "XEN_SYSCTL_SCHEDOP_putinfo";
    /// Reads parameters.
    SCHEDOP_GETINFO: u32 = 1, "XEN_SYSCTL_SCHEDOP_getinfo";
    /// Longest rate limit in microseconds.
    RATELIMIT_MAX: u32 = 500_000, "XEN_SYSCTL_SCHED_RATELIMIT_MAX";
    /// Shortest one that is not 0.
    RATELIMIT_MIN: u32 = 100, "XEN_SYSCTL_SCHED_RATELIMIT_MIN";
}

abi_struct! {
    /// Argument of every machine control operation.
    pub struct Sysctl: "struct xen_sysctl", 136, align 8 {
        /// The operation.
        0 "cmd" => cmd: u32,
        /// [`INTERFACE_VERSION`].
        4 "interface_version" => interface_version: u32,
        /// Argument of the operation.
        8 "u" => body: [u64; 16],
    }
}

impl Sysctl {
    /// Offset of the body.
    pub const BODY: u32 = 8;

    /// Returns the body as a `T`.
    pub fn body<T: FromBytes + KnownLayout + Immutable>(&self) -> Option<T> {
        T::read_from_prefix(self.body.as_bytes())
            .ok()
            .map(|(body, _)| body)
    }
}

abi_struct! {
    /// Body of [`OP_READCONSOLE`].
    pub struct ReadConsole: "struct xen_sysctl_readconsole", 24, align 8 {
        /// Forget what was read.
        0 "clear" => clear: u8,
        /// Start at `index`.
        1 "incremental" => incremental: u8,
        2 "pad0" => pad0: u8,
        3 "pad1" => pad1: u8,
        /// Position before and after the read.
        4 "index" => index: u32,
        /// Buffer.
        8 "buffer" => buffer: GuestHandle<u8>,
        /// Room there, and how much was read.
        16 "count" => count: u32,
        20 _ => pad2: u32,
    }
}

abi_struct! {
    /// Body of [`OP_PHYSINFO`].
    pub struct PhysInfo: "struct xen_sysctl_physinfo", 112, align 8 {
        /// Threads of one core.
        0 "threads_per_core" => threads_per_core: u32,
        /// Cores of one socket.
        4 "cores_per_socket" => cores_per_socket: u32,
        /// CPUs online.
        8 "nr_cpus" => nr_cpus: u32,
        /// Highest CPU id.
        12 "max_cpu_id" => max_cpu_id: u32,
        /// Memory nodes.
        16 "nr_nodes" => nr_nodes: u32,
        /// Highest node id.
        20 "max_node_id" => max_node_id: u32,
        /// On Arm the system counter's frequency.
        24 "cpu_khz" => cpu_khz: u32,
        /// `PHYSCAP_*`.
        28 "capabilities" => capabilities: u32,
        /// None on Arm.
        32 "arch_capabilities" => arch_capabilities: u32,
        36 "pad" => pad: u32,
        /// Pages of RAM.
        40 "total_pages" => total_pages: u64,
        /// Pages that domains may get.
        48 "free_pages" => free_pages: u64,
        /// Pages that are being scrubbed.
        56 "scrub_pages" => scrub_pages: u64,
        /// Claimed pages.
        64 "outstanding_pages" => outstanding_pages: u64,
        /// Highest frame number.
        72 "max_mfn" => max_mfn: u64,
        /// Nothing on Arm.
        80 "hw_cap" => hw_cap: [u32; 8],
    }
}

abi_struct! {
    /// Body of [`OP_SCHED_ID`].
    pub struct SchedId: "struct xen_sysctl_sched_id", 4, align 4 {
        /// `SCHEDULER_*`.
        0 "sched_id" => sched_id: u32,
    }
}

abi_struct! {
    /// Body of [`OP_GETDOMAININFOLIST`].
    pub struct GetDomainInfoList: "struct xen_sysctl_getdomaininfolist", 24, align 8 {
        /// The first id of interest.
        0 "first_domain" => first_domain: u16,
        2 _ => pad: u16,
        /// Room in `buffer`.
        4 "max_domains" => max_domains: u32,
        /// Buffer.
        8 "buffer" => buffer: GuestHandle<DomainInfo>,
        /// Number of elements in `buffer`.
        16 "num_domains" => num_domains: u32,
        20 _ => pad1: u32,
    }
}

abi_struct! {
    /// Body of [`OP_DEBUG_KEYS`].
    pub struct DebugKeys: "struct xen_sysctl_debug_keys", 16, align 8 {
        /// The keys.
        0 "keys" => keys: GuestHandle<u8>,
        /// Their number.
        8 "nr_keys" => nr_keys: u32,
        12 _ => pad: u32,
    }
}

abi_struct! {
    /// Body of [`OP_GETCPUINFO`].
    pub struct GetCpuInfo: "struct xen_sysctl_getcpuinfo", 24, align 8 {
        /// Room in `info`.
        0 "max_cpus" => max_cpus: u32,
        4 _ => pad: u32,
        /// Buffer: idle time in nanoseconds.
        8 "info" => info: GuestHandle<u64>,
        /// Number of elements in `info`.
        16 "nr_cpus" => nr_cpus: u32,
        20 _ => pad1: u32,
    }
}

abi_struct! {
    /// Body of [`OP_AVAILHEAP`].
    pub struct AvailHeap: "struct xen_sysctl_availheap", 24, align 8 {
        /// Smallest address width of interest.
        0 "min_bitwidth" => min_bitwidth: u32,
        /// Largest address width of interest.
        4 "max_bitwidth" => max_bitwidth: u32,
        /// Node of interest, -1 for all.
        8 "node" => node: i32,
        12 _ => pad: u32,
        /// Free bytes.
        16 "avail_bytes" => avail_bytes: u64,
    }
}

abi_struct! {
    /// Place of a CPU.
    pub struct CpuTopo: "struct xen_sysctl_cputopo", 12, align 4 {
        /// Core.
        0 "core" => core: u32,
        /// Socket.
        4 "socket" => socket: u32,
        /// Memory node.
        8 "node" => node: u32,
    }
}

abi_struct! {
    /// Body of [`OP_CPU_HOTPLUG`].
    pub struct CpuHotplug: "struct xen_sysctl_cpu_hotplug", 8, align 4 {
        /// The CPU.
        0 "cpu" => cpu: u32,
        /// `CPU_HOTPLUG_*`.
        4 "op" => op: u32,
    }
}

abi_struct! {
    /// Body of [`OP_CPUTOPOINFO`].
    pub struct CpuTopoInfo: "struct xen_sysctl_cputopoinfo", 16, align 8 {
        /// Room in `cputopo`, and how many CPUs there are.
        0 "num_cpus" => num_cpus: u32,
        4 _ => pad: u32,
        /// Buffer; null to request the number only.
        8 "cputopo" => cputopo: GuestHandle<CpuTopo>,
    }
}

abi_struct! {
    /// Memory of a node.
    pub struct MemInfo: "struct xen_sysctl_meminfo", 16, align 8 {
        /// Bytes.
        0 "memsize" => memsize: u64,
        /// Free bytes.
        8 "memfree" => memfree: u64,
    }
}

abi_struct! {
    /// Body of [`OP_NUMAINFO`].
    pub struct NumaInfo: "struct xen_sysctl_numainfo", 24, align 8 {
        /// Room, and how many nodes there are.
        0 "num_nodes" => num_nodes: u32,
        4 _ => pad: u32,
        /// Memory of each node.
        8 "meminfo" => meminfo: GuestHandle<MemInfo>,
        /// Distances from each node to each.
        16 "distance" => distance: GuestHandle<u32>,
    }
}

abi_struct! {
    /// Body of [`OP_CPUPOOL_OP`].
    pub struct CpupoolOp: "struct xen_sysctl_cpupool_op", 40, align 8 {
        /// `CPUPOOL_*`.
        0 "op" => op: u32,
        /// The pool.
        4 "cpupool_id" => cpupool_id: u32,
        /// Its scheduler.
        8 "sched_id" => sched_id: u32,
        /// Domain to move.
        12 "domid" => domid: u32,
        /// CPU to give or take.
        16 "cpu" => cpu: u32,
        /// Domains in the pool.
        20 "n_dom" => n_dom: u32,
        /// CPUs of the pool.
        24 "cpumap" => cpumap: Bitmap,
    }
}

abi_struct! {
    /// Body of [`OP_SCHEDULER_OP`]. The parameters are those of credit2: the rate limit in microseconds.
    pub struct SchedulerOp: "struct xen_sysctl_scheduler_op", 32, align 8 {
        /// The pool of the scheduler.
        0 "cpupool_id" => cpupool_id: u32,
        /// Scheduler that the caller expects.
        4 "sched_id" => sched_id: u32,
        /// `SCHEDOP_*`.
        8 "cmd" => cmd: u32,
        12 _ => pad: u32,
        /// Rate limit.
        16 "u.sched_credit2.ratelimit_us" => ratelimit_us: u32,
        20 _ => pad1: u32,
        24 _ => pad2: u64,
    }
}

/// All structures of this file.
pub const LAYOUTS: &[Layout] = &[
    Sysctl::LAYOUT,
    ReadConsole::LAYOUT,
    PhysInfo::LAYOUT,
    SchedId::LAYOUT,
    GetDomainInfoList::LAYOUT,
    DebugKeys::LAYOUT,
    GetCpuInfo::LAYOUT,
    AvailHeap::LAYOUT,
    CpuHotplug::LAYOUT,
    CpuTopo::LAYOUT,
    CpuTopoInfo::LAYOUT,
    MemInfo::LAYOUT,
    NumaInfo::LAYOUT,
    CpupoolOp::LAYOUT,
    SchedulerOp::LAYOUT,
];
