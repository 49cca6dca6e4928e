//! Making domains, as a toolstack does (abi.md 2.14): what dom0 needs for one that runs a page of code.

use core::sync::atomic::{AtomicU8, Ordering};

use crate::abi::{self, AddToPhysmapBatch, RemoveFromPhysmap, Reservation};
use crate::hypercall::{DOMCTL, MEMORY_OP, SYSCTL, address_of, call, call_with};
use crate::memory::Frame;
use crate::status::ESRCH;

/// Of domctl and sysctl alike, in Xen 4.17.
const INTERFACE_VERSION: u32 = 0x15;

const CREATE: u32 = 1;
const DESTROY: u32 = 2;
const PAUSE: u32 = 3;
const UNPAUSE: u32 = 4;
const INFO: u32 = 5;
const SET_AFFINITY: u32 = 9;
const SHADOW_OP: u32 = 10;
const MAX_MEM: u32 = 11;
const SET_CONTEXT: u32 = 12;
const VCPU_INFO: u32 = 14;
const MAX_VCPUS: u32 = 15;
const GET_HVM_CONTEXT: u32 = 33;
const SET_HVM_CONTEXT: u32 = 34;
const CACHE_FLUSH: u32 = 71;
const SET_POOL: u32 = 86;

const READ_CONSOLE: u32 = 1;
const PHYSINFO: u32 = 3;
const DEBUG_KEYS: u32 = 7;
const CPU_HOTPLUG: u32 = 11;
const RESOURCE_GRANT_TABLE: u16 = 1;

/// `struct xen_domctl`: the argument is a union, here as words.
#[repr(C, align(8))]
struct Domctl {
    command: u32,
    version: u32,
    domain: u16,
    pad: [u16; 3],
    argument: [u32; 32],
}

/// `struct xen_mem_acquire_resource`.
#[repr(C)]
struct Resource {
    domain: u16,
    kind: u16,
    id: u32,
    frames: u32,
    pad: u32,
    frame: u64,
    list: u64,
}

/// `XEN_DOMINF_dying`.
const FLAG_DYING: u32 = 1;

/// Some of `struct xen_domctl_getdomaininfo`.
#[derive(Clone, Copy, Debug)]
pub struct Info {
    pub is_dying: bool,
    /// Pages that are in its account.
    pub pages: u32,
}

/// Some of `struct xen_domctl_getvcpuinfo`.
#[derive(Clone, Copy, Debug)]
pub struct VcpuInfo {
    pub is_online: bool,
    pub is_blocked: bool,
}

/// Some of `struct xen_domctl_shadow_op`: the result of a reading of the log.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogRead {
    /// Bits that were told.
    pub pages: u32,
    /// Faults by writes since the last reading.
    pub faults: u32,
    /// Pages that became written since then.
    pub written: u32,
}

/// Where a domain's memory begins (abi.md 6.1).
pub const MEMORY: u64 = 0x4000_0000 >> 12;

/// Pages from there on that may be written before it starts.
const WRITTEN_PAGES: u32 = 16;

/// A domain of this domain's making.
#[derive(Clone, Copy, Debug)]
pub struct Domain(pub u16);

/// 0, or a negative error.
pub type Status = Result<(), i32>;

fn status(value: i32) -> Status {
    if value == 0 { Ok(()) } else { Err(value) }
}

impl Domain {
    /// Makes a paused domain of one vCPU that may have `pages` pages, with `pool` bytes for its tables.
    pub fn create(pages: u32, pool: u32) -> Result<Self, i32> {
        Self::create_with_spis(pages, pool, 0)
    }

    /// The same, with so many shared interrupts.
    pub fn create_with_spis(pages: u32, pool: u32, spis: u32) -> Result<Self, i32> {
        const FLAGS: u32 = 3; // hvm, hap
        let mut argument = [0; 32];
        // By offset / 4: flags, max_vcpus, max_evtchn_port, max_grant_frames, max_maptrack_frames, grant_opts; nr_spis.
        (argument[5], argument[7], argument[8]) = (FLAGS, 1, 1023);
        (argument[9], argument[10], argument[11]) = (64, 1024, 1);
        argument[15] = spis;
        let mut control = Domctl { command: CREATE, version: INTERFACE_VERSION, domain: 0xffff, pad: [0; 3], argument };
        status(call(DOMCTL, [address_of(&mut control), 0, 0, 0, 0]))?;
        let domain = Domain(control.domain);
        let made = domain
            .control(MAX_VCPUS, &[1])
            .and_then(|()| domain.control(SET_POOL, &[pool, 0]))
            .and_then(|()| domain.control(MAX_MEM, &[pages * 4, 0]));
        if made.is_err() {
            domain.destroy()?;
        }
        made.map(|()| domain)
    }

    fn control(self, command: u32, words: &[u32]) -> Status {
        self.control_and_read(command, words).map(|_| ())
    }

    fn control_and_read(self, command: u32, words: &[u32]) -> Result<Domctl, i32> {
        let mut argument = [0; 32];
        argument[..words.len()].copy_from_slice(words);
        let mut control = Domctl { command, version: INTERFACE_VERSION, domain: self.0, pad: [0; 3], argument };
        status(call(DOMCTL, [address_of(&mut control), 0, 0, 0, 0]))?;
        Ok(control)
    }

    /// Has a vCPU run on one physical CPU only.
    pub fn pin(self, vcpu: u32, cpu: u32) -> Status {
        const HARD: u32 = 1;
        let mut set = [1_u32 << cpu, 0];
        let handle = address_of(&mut set);
        // vcpu, flags, then two bitmaps: handle, number of bits, padding.
        self.control(SET_AFFINITY, &[vcpu, HARD, handle, 0, 8, 0, handle, 0, 8, 0])
    }

    /// Returns the first domain from this number on.
    pub fn next(from: u16) -> Option<Self> {
        let control = Domain(from).control_and_read(INFO, &[]).ok()?;
        Some(Domain(control.argument[0] as u16))
    }

    /// Returns the hypervisor's description of it; none when it is gone.
    pub fn info(self) -> Result<Option<Info>, i32> {
        let control = match self.control_and_read(INFO, &[]) {
            Ok(control) => control,
            Err(ESRCH) => return Ok(None),
            Err(error) => return Err(error),
        };
        // getdomaininfo answers for the next domain there is.
        let [id, flags, pages, ..] = control.argument;
        Ok((id as u16 == self.0).then_some(Info { is_dying: flags & FLAG_DYING != 0, pages }))
    }

    /// Reads the state of a vCPU (XEN_DOMCTL_getvcpuinfo).
    pub fn vcpu_info(self, vcpu: u32) -> Result<VcpuInfo, i32> {
        let [_, flags, ..] = self.control_and_read(VCPU_INFO, &[vcpu])?.argument;
        Ok(VcpuInfo { is_online: flags & 0xff != 0, is_blocked: flags & 0xff00 != 0 })
    }

    /// Populates or decreases, for one extent of 2^`order` pages; the number of extents done.
    pub fn reservation(self, operation: u32, gfn: u64, order: u32) -> i32 {
        let mut extent = gfn;
        let mut argument = Reservation {
            extents: u64::from(address_of(&mut extent)),
            count: 1,
            order,
            domid: self.0,
            ..Reservation::default()
        };
        call_with(MEMORY_OP, operation, &mut argument)
    }

    /// Gives it the memory at `gfn`.
    pub fn populate(self, gfn: u64, order: u32) -> Status {
        match self.reservation(abi::MEM_POPULATE_PHYSMAP, gfn, order) {
            1 => Ok(()),
            other => Err(other - 1),
        }
    }

    /// Maps its page `gfn` where this domain has none.
    #[inline(always)]
    pub fn map(self, gfn: u64, at: Frame) -> i32 {
        let (mut index, mut place, mut error) = (gfn, at.gfn(), 0_i32);
        let mut argument = AddToPhysmapBatch {
            domid: abi::DOMID_SELF,
            space: abi::SPACE_FOREIGN as u16,
            size: 1,
            foreign: self.0,
            indices: u64::from(address_of(&mut index)),
            gfns: u64::from(address_of(&mut place)),
            errors: u64::from(address_of(&mut error)),
        };
        match call_with(MEMORY_OP, abi::MEM_ADD_TO_PHYSMAP_BATCH, &mut argument) {
            // Written behind the compiler's back.
            // SAFETY: `error` is a live local.
            0 => unsafe { (&raw const error).read_volatile() },
            other => other,
        }
    }

    /// Maps its first grant table frame where this domain has none.
    pub fn map_grant_table(self, at: Frame) -> Status {
        let mut place = at.gfn();
        let mut argument = Resource {
            domain: self.0,
            kind: RESOURCE_GRANT_TABLE,
            id: 0,
            frames: 1,
            pad: 0,
            frame: 0,
            list: u64::from(address_of(&mut place)),
        };
        status(call_with(MEMORY_OP, abi::MEM_ACQUIRE_RESOURCE, &mut argument))
    }

    /// Maps its shared_info into itself.
    pub fn place_shared_info(self, gfn: u64) -> Status {
        let mut argument =
            abi::AddToPhysmap { domid: self.0, space: abi::SPACE_SHARED_INFO, gfn, ..abi::AddToPhysmap::default() };
        status(call_with(MEMORY_OP, abi::MEM_ADD_TO_PHYSMAP, &mut argument))
    }

    /// Lets its vCPU begin at guest-physical `entry`, in SVC mode with the MMU off (abi.md 3.2).
    pub fn start(self, entry: u32) -> Status {
        // struct vcpu_guest_context in 64-bit slots: flags, pc32, cpsr, sctlr.
        let mut context = [0_u64; 44];
        (context[0], context[32], context[33], context[40]) = (1, entry.into(), 0x4000_01d3, 0x00c5_0078);
        // It reads past the caches what was written through them.
        self.control(CACHE_FLUSH, &[MEMORY as u32, 0, WRITTEN_PAGES, 0])?;
        self.control(SET_CONTEXT, &[0, 0, address_of(&mut context), 0])?;
        self.control(UNPAUSE, &[])
    }

    /// Halts its vCPUs.
    pub fn pause(self) -> Status {
        self.control(PAUSE, &[])
    }

    /// Lets them run.
    pub fn resume(self) -> Status {
        self.control(UNPAUSE, &[])
    }

    /// Writes its state beside its memory to a buffer of `size` bytes; the number of bytes that it takes.
    pub fn context(self, buffer: u32, size: u32) -> Result<u32, i32> {
        Ok(self.control_and_read(GET_HVM_CONTEXT, &[size, 0, buffer, 0])?.argument[0])
    }

    /// Sets that state, while it has never run.
    pub fn set_context(self, buffer: u32, size: u32) -> Status {
        self.control(CACHE_FLUSH, &[MEMORY as u32, 0, WRITTEN_PAGES, 0])?;
        self.control(SET_HVM_CONTEXT, &[size, 0, buffer, 0])
    }

    /// Begins to log which of its pages are written (XEN_DOMCTL_shadow_op).
    pub fn log(self) -> Status {
        self.control(SHADOW_OP, &[2])
    }

    /// Ends that.
    pub fn end_log(self) -> Status {
        self.control(SHADOW_OP, &[0])
    }

    /// Reads the log into a bitmap of `pages` bits, if it is not at 0, and begins it anew.
    pub fn clean_log(self, bitmap: u32, pages: u32) -> Result<LogRead, i32> {
        let control = self.control_and_read(SHADOW_OP, &[11, 0, 0, 0, bitmap, 0, pages, 0])?;
        let [_, _, _, _, _, _, pages, _, faults, written, ..] = control.argument;
        Ok(LogRead { pages, faults, written })
    }

    /// Ends it, however many calls that takes.
    pub fn destroy(self) -> Status {
        const TRIES: u32 = 1000;
        let mut last = Ok(());
        for _ in 0..TRIES {
            last = self.control(DESTROY, &[]);
            if last.is_ok() {
                break;
            }
        }
        last
    }
}

/// Takes a page of another domain out of this one's map.
#[inline(always)]
pub fn unmap(at: Frame) -> i32 {
    let mut argument = RemoveFromPhysmap { domid: abi::DOMID_SELF, gfn: at.gfn(), ..RemoveFromPhysmap::default() };
    call_with(MEMORY_OP, abi::MEM_REMOVE_FROM_PHYSMAP, &mut argument)
}

#[repr(C, align(8))]
struct Sysctl {
    command: u32,
    version: u32,
    argument: [u64; 16],
}

fn sysctl(command: u32, argument: [u64; 16]) -> Result<[u64; 16], i32> {
    let mut control = Sysctl { command, version: INTERFACE_VERSION, argument };
    status(call(SYSCTL, [address_of(&mut control), 0, 0, 0, 0]))?;
    Ok(control.argument)
}

/// Free memory of the machine in pages.
pub fn free_pages() -> Result<u64, i32> {
    Ok(sysctl(PHYSINFO, [0; 16])?[6])
}

/// CPUs of the machine that are on.
pub fn online_cpus() -> Result<u64, i32> {
    // Behind threads_per_core and cores_per_socket.
    Ok(sysctl(PHYSINFO, [0; 16])?[1] & 0xffff_ffff)
}

/// Switches a CPU of the machine (`XEN_SYSCTL_CPU_HOTPLUG_*`).
pub fn switch_cpu(cpu: u32, op: u32) -> Status {
    let mut argument = [0; 16];
    argument[0] = u64::from(op) << 32 | u64::from(cpu);
    sysctl(CPU_HOTPLUG, argument).map(|_| ())
}

/// Presses a debug key: the hypervisor writes something to its console's ring.
pub fn debug_key(key: u8) -> Status {
    let mut keys = [key];
    let mut argument = [0; 16];
    (argument[0], argument[1]) = (address_of(&mut keys).into(), 1);
    sysctl(DEBUG_KEYS, argument).map(|_| ())
}

/// Returns whether the end of the hypervisor's log has this text.
pub fn log_says(text: &[u8]) -> Result<bool, i32> {
    const ROOM: usize = 16384;
    static LOG: [AtomicU8; ROOM] = [const { AtomicU8::new(0) }; ROOM];
    let mut argument = [0; 16];
    // Neither cleared nor from a place that was read before; buffer; count.
    (argument[1], argument[2]) = (LOG.as_ptr() as u64, ROOM as u64);
    let count = sysctl(READ_CONSOLE, argument)?[2] as u32 as usize;
    let matches = |at: usize| (0..text.len()).all(|n| LOG[at + n].load(Ordering::Relaxed) == text[n]);
    Ok((0..(count + 1).saturating_sub(text.len())).any(matches))
}
