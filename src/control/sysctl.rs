//! sysctl (35): operations on the machine.

use armv7::addr::GuestVa;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{
    again, again_at, authorize, cpupool, exclusive, hotplug, info, progress, reap, scheduler,
};
use crate::abi::domctl::DomainInfo;
use crate::abi::sysctl as abi;
use crate::abi::sysctl::Sysctl;
use crate::call::guest_ptr::{copy_out, element, read, write};
use crate::call::{Args, Caller, Outcome, Reply, must_pause};
use crate::domain::{registry, virq};
use crate::error::Errno;
use crate::event::EventVirq;
use crate::id::DomId;
use crate::mem::memory;
use crate::sched::{self, PoolId};
use crate::time;
use crate::{console, debug_keys};

const PAGE: u64 = 4096;
/// The number of debug keys that one call handles: each may print pages.
const KEYS_AT_ONCE: u32 = 1;
/// The number of domains that one call lists. The toolstack asks for the rest.
const DOMAINS_AT_ONCE: u32 = 1024;
/// The bytes of console output that one call copies. The toolstack asks for the rest.
const CONSOLE_AT_ONCE: u32 = 64 << 10;
/// The bytes of console output that are copied between two checks for a pending interrupt.
const CONSOLE_BEFORE_PAUSE: u32 = 4 << 10;
/// The distance of a node to itself where the machine describes no NUMA.
const NODE_DISTANCE: u32 = 20;

/// Handles a sysctl.
pub fn call(caller: &Caller<'_>, args: &Args) -> Outcome {
    let at = args.ptr(0);
    let op: Sysctl = read(caller.domain, at)?;
    if op.interface_version != abi::INTERFACE_VERSION {
        return Err(Errno::Acces);
    }
    authorize(caller)?;
    crate::latency::detail(op.cmd);
    reap();
    match op.cmd {
        abi::OP_READCONSOLE => update(caller, at, &op, |op| read_console(caller, op))?,
        abi::OP_PHYSINFO => update(caller, at, &op, |op| {
            *op = info::machine();
            Ok(())
        })?,
        abi::OP_SCHED_ID => update(caller, at, &op, |op: &mut abi::SchedId| {
            op.sched_id = cpupool::scheduler_of(PoolId::FIRST);
            Ok(())
        })?,
        abi::OP_GETDOMAININFOLIST => update(caller, at, &op, |op| list_domains(caller, op))?,
        abi::OP_DEBUG_KEYS => return press_keys(caller, args, &op),
        abi::OP_GETCPUINFO => update(caller, at, &op, |op| cpu_info(caller, op))?,
        abi::OP_AVAILHEAP => update(caller, at, &op, |op: &mut abi::AvailHeap| {
            let pages = if matches!(op.node, -1 | 0) {
                memory().guest_pages()
            } else {
                0
            };
            op.avail_bytes = u64::from(pages) * PAGE;
            Ok(())
        })?,
        abi::OP_CPU_HOTPLUG => return hotplug::call(caller, args, &op),
        abi::OP_CPUTOPOINFO => cpu_topology(caller, at, &op)?,
        abi::OP_NUMAINFO => numa(caller, at, &op)?,
        abi::OP_CPUPOOL_OP => {
            let Some(_exclusive) = exclusive() else {
                return again(args);
            };
            update(caller, at, &op, |op| cpupool::operation(caller, op))?;
        }
        abi::OP_SCHEDULER_OP => update(caller, at, &op, scheduler::of_pool)?,
        abi::OP_COVERAGE_OP => return Err(Errno::OpNotSupp),
        _ => return Err(Errno::NoSys),
    }
    Ok(Reply::OK)
}

/// Passes the body to `f` and writes it back.
fn update<T: FromBytes + IntoBytes + KnownLayout + Immutable>(
    caller: &Caller<'_>,
    at: GuestVa,
    op: &Sysctl,
    f: impl FnOnce(&mut T) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let mut body: T = op.body().ok_or(Errno::Fault)?;
    f(&mut body)?;
    write(caller.domain, body_at(at)?, &body)
}

fn body_at(at: GuestVa) -> Result<GuestVa, Errno> {
    at.checked_add(Sysctl::BODY).ok_or(Errno::Fault)
}

/// Copies past console output. The console is not locked while the guest's memory is written.
fn read_console(caller: &Caller<'_>, op: &mut abi::ReadConsole) -> Result<(), Errno> {
    let buffer = op.buffer.to_va().ok_or(Errno::Fault)?;
    let room = op.count.min(CONSOLE_AT_ONCE);
    let mut at = if op.incremental != 0 {
        op.index
    } else {
        console::ring_start()
    };
    let mut done = 0;
    let mut chunk = [0; 256];
    while done < room {
        let len = (room - done).min(chunk.len() as u32) as usize;
        let Some(part) = chunk.get_mut(..len) else {
            break;
        };
        let (count, next) = console::read_ring(at, part);
        if count == 0 {
            at = next;
            break;
        }
        let to = buffer.checked_add(done).ok_or(Errno::Fault)?;
        copy_out(caller.domain, to, part.get(..count).unwrap_or(&[]))?;
        done += count as u32;
        at = next;
        // A reader that got less than there is comes back for the rest.
        if done >= CONSOLE_BEFORE_PAUSE && must_pause() {
            virq::raise(EventVirq::CON_RING);
            break;
        }
    }
    if op.clear != 0 {
        console::consume_ring(at);
    }
    op.count = done;
    op.index = at;
    Ok(())
}

fn list_domains(caller: &Caller<'_>, op: &mut abi::GetDomainInfoList) -> Result<(), Errno> {
    let base = op.buffer.to_va();
    let room = op.max_domains.min(DOMAINS_AT_ONCE);
    let mut count = 0;
    let mut next = Some(DomId(op.first_domain));
    while count < room
        && let Some(domain) = next.and_then(registry::at_or_after)
    {
        next = domain.id.0.checked_add(1).map(DomId);
        let to = element::<DomainInfo>(base.ok_or(Errno::Fault)?, count)?;
        write(caller.domain, to, &info::domain(&domain))?;
        count += 1;
    }
    op.num_domains = count;
    Ok(())
}

fn press_keys(caller: &Caller<'_>, args: &Args, op: &Sysctl) -> Outcome {
    let op: abi::DebugKeys = op.body().ok_or(Errno::Fault)?;
    let base = op.keys.to_va().ok_or(Errno::Fault)?;
    let first = progress(args).unwrap_or(0);
    for n in first..op.nr_keys.min(u16::MAX.into()) {
        if n - first == KEYS_AT_ONCE {
            return again_at(args, n);
        }
        if !console::has_room() {
            caller.vcpu.yield_now();
            return again_at(args, n);
        }
        let key: u8 = read(caller.domain, element::<u8>(base, n)?)?;
        debug_keys::handle(key);
    }
    Ok(Reply::OK)
}

fn cpu_info(caller: &Caller<'_>, op: &mut abi::GetCpuInfo) -> Result<(), Errno> {
    let count = op.max_cpus.min(cpupool::nr_cpus());
    let base = op.info.to_va().ok_or(Errno::Fault)?;
    for n in 0..count {
        let cpu = armv7::cpu::CpuId::new(n).ok_or(Errno::Inval)?;
        let idle = sched::lock().idle_time(cpu, time::now());
        write(
            caller.domain,
            element::<u64>(base, n)?,
            &time::clock().ns(idle).0,
        )?;
    }
    op.nr_cpus = count;
    Ok(())
}

/// Describes every CPU as a core of its own in one socket and node, as Xen on Arm has it.
fn cpu_topology(caller: &Caller<'_>, at: GuestVa, op: &Sysctl) -> Result<(), Errno> {
    let op: abi::CpuTopoInfo = op.body().ok_or(Errno::Fault)?;
    let mut count = cpupool::nr_cpus();
    if !op.cputopo.is_null() {
        let base = op.cputopo.to_va().ok_or(Errno::Fault)?;
        count = count.min(op.num_cpus);
        for n in 0..count {
            write(
                caller.domain,
                element::<abi::CpuTopo>(base, n)?,
                &abi::CpuTopo::ZERO,
            )?;
        }
    }
    write_count(caller, at, op.num_cpus, count)
}

fn numa(caller: &Caller<'_>, at: GuestVa, op: &Sysctl) -> Result<(), Errno> {
    let op: abi::NumaInfo = op.body().ok_or(Errno::Fault)?;
    let wants_list = !op.meminfo.is_null() || !op.distance.is_null();
    let count = if wants_list { op.num_nodes.min(1) } else { 1 };
    if count > 0 && !op.meminfo.is_null() {
        let memory = memory();
        let node = abi::MemInfo {
            memsize: u64::from(memory.total_pages()) * PAGE,
            memfree: u64::from(memory.guest_pages()) * PAGE,
        };
        write(
            caller.domain,
            op.meminfo.to_va().ok_or(Errno::Fault)?,
            &node,
        )?;
    }
    if count > 0 && !op.distance.is_null() {
        write(
            caller.domain,
            op.distance.to_va().ok_or(Errno::Fault)?,
            &NODE_DISTANCE,
        )?;
    }
    write_count(caller, at, op.num_nodes, count)
}

/// Writes the number at the start of the body if it has changed, and nothing else.
fn write_count(caller: &Caller<'_>, at: GuestVa, before: u32, count: u32) -> Result<(), Errno> {
    if before == count {
        return Ok(());
    }
    write(caller.domain, body_at(at)?, &count)
}
