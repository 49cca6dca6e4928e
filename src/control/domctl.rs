//! domctl (36): finds the domain, checks the caller's rights, and dispatches the operation.
//!
//! Domains are named by their own ids: `DOMID_SELF` is none. Only operations with a result write their structure back.

use super::reap::reap;
use super::request::Request;
use super::{
    again, authorize, bitmap, context, create, destroy, devices, exclusive, info, lifecycle,
    log_dirty, pages, save, scheduler,
};
use crate::abi::domctl as abi;
use crate::abi::domctl::Domctl;
use crate::call::guest_ptr::read;
use crate::call::{Args, Caller, Outcome, Reply, must_pause};
use crate::domain::{Life, registry, uart, virq};
use crate::error::Errno;
use crate::event::EventVirq;
use crate::id::DomId;
use crate::mem::{heap, memory};
use crate::wallclock;

/// Memory nodes of every domain: there is node 0.
const NODES: u32 = 1;
/// KiB of a page.
const KIB_PER_PAGE: u64 = 4;

/// Carries out a domctl.
pub fn call(caller: &Caller<'_>, args: &Args) -> Outcome {
    let op: Domctl = read(caller.domain, args.ptr(0))?;
    if op.interface_version != abi::INTERFACE_VERSION {
        return Err(Errno::Acces);
    }
    authorize(caller).map_err(|error| unless_nobody(&op, error))?;
    crate::latency::detail(op.cmd);
    let reaped = reap();
    heap::give_back();
    if reaped && must_pause() {
        return again(args);
    }
    let request = Request { caller, args, op };
    match op.cmd {
        abi::OP_GETDOMAININFO => describe(&request),
        abi::OP_GETVCPUINFO => describe_vcpu(&request),
        abi::OP_CREATEDOMAIN => create::create(&request),
        abi::OP_MAX_VCPUS => create::max_vcpus(&request),
        abi::OP_DESTROYDOMAIN => destroy::destroy(&request),
        abi::OP_SETVCPUCONTEXT => context::set(&request),
        abi::OP_GETVCPUCONTEXT => context::get(&request),
        abi::OP_GETHVMCONTEXT => save::get(&request),
        abi::OP_SETHVMCONTEXT => save::set(&request),
        abi::OP_GETHVMCONTEXT_PARTIAL => save::get_one(&request),
        abi::OP_GETPAGEFRAMEINFO3 => pages::describe(&request),
        abi::OP_SET_PAGING_MEMPOOL_SIZE => pages::set_pool(&request),
        abi::OP_GET_PAGING_MEMPOOL_SIZE => pages::pool(&request),
        abi::OP_SHADOW_OP => log_dirty::call(&request),
        abi::OP_CACHEFLUSH => pages::flush(&request),
        abi::OP_PAUSEDOMAIN => lifecycle::pause(&request),
        abi::OP_UNPAUSEDOMAIN => lifecycle::unpause(&request),
        abi::OP_RESUMEDOMAIN => lifecycle::resume(&request),
        abi::OP_GETVCPUAFFINITY => {
            scheduler::affinity(caller, &*request.domain()?, &request.body()?)?;
            Ok(Reply::OK)
        }
        abi::OP_SETVCPUAFFINITY => {
            let Some(_exclusive) = exclusive() else {
                return again(args);
            };
            scheduler::set_affinity(caller, &*request.domain()?, &request.body()?)?;
            Ok(Reply::OK)
        }
        abi::OP_SCHEDULER_OP => {
            let Some(_exclusive) = exclusive() else {
                return again(args);
            };
            let domain = request.domain()?;
            let mut body = request.body()?;
            scheduler::of_domain(&domain, &mut body)?;
            request.write_back(&body)
        }
        // May be asked of no domain.
        abi::OP_TEST_ASSIGN_DEVICE if request.op.domain == DomId::INVALID.0 => {
            Err(Errno::OpNotSupp)
        }
        _ => set(&request),
    }
}

/// Returns `error`, or that there is no such domain where that is told first.
#[cold]
fn unless_nobody(op: &Domctl, error: Errno) -> Errno {
    let asks_for_one = match op.cmd {
        abi::OP_CREATEDOMAIN | abi::OP_GETDOMAININFO => false,
        abi::OP_TEST_ASSIGN_DEVICE | abi::OP_VM_EVENT_OP => op.domain != DomId::INVALID.0,
        _ => true,
    };
    if asks_for_one && registry::get(DomId(op.domain)).is_none() {
        Errno::Srch
    } else {
        error
    }
}

/// Operations without a result, and those that there are not.
fn set(request: &Request<'_>) -> Outcome {
    let domain = request.domain()?;
    match request.op.cmd {
        abi::OP_MAX_MEM => {
            let body: abi::MaxMem = request.body()?;
            let pages = u32::try_from(body.max_memkb / KIB_PER_PAGE).unwrap_or(u32::MAX);
            if !memory().set_limit(domain.id, pages) {
                return Err(Errno::Srch);
            }
        }
        abi::OP_SETDOMAINHANDLE => domain.state.lock().handle = request.body()?,
        abi::OP_SETDEBUGGING => {
            let enable: u8 = request.body()?;
            request.other()?.state.lock().debugged = enable != 0;
        }
        abi::OP_SETTIMEOFFSET => {
            domain.state.lock().time_offset = request.body()?;
            wallclock::publish(&domain);
        }
        abi::OP_SETNODEAFFINITY => {
            let body: abi::NodeAffinity = request.body()?;
            let nodes = bitmap::read(request.caller, &body.nodemap)?;
            // Nodes that there are not are ignored, but one must be left.
            if nodes & NODES == 0 {
                return Err(Errno::Inval);
            }
        }
        abi::OP_GETNODEAFFINITY => {
            let body: abi::NodeAffinity = request.body()?;
            bitmap::write(request.caller, &body.nodemap, NODES)?;
        }
        abi::OP_SET_VIRQ_HANDLER => {
            let number: u32 = request.body()?;
            let virq = EventVirq::new(number)
                .filter(|virq| virq.is_global())
                .ok_or(Errno::Inval)?;
            virq::set_handler(virq, domain.id);
        }
        abi::OP_SET_ADDRESS_SIZE => {
            let bits: u32 = request.body()?;
            if bits != 32 {
                return Err(Errno::Inval);
            }
        }
        abi::OP_IRQ_PERMISSION => return devices::permit_interrupt(request),
        abi::OP_IOMEM_PERMISSION => return devices::permit_pages(request),
        abi::OP_MEMORY_MAPPING => return devices::map(request),
        abi::OP_SUBSCRIBE => domain.state.lock().suspend_port = request.body()?,
        abi::OP_MONITOR_OP => return monitor(request),
        abi::OP_VM_EVENT_OP => return Err(Errno::OpNotSupp),
        abi::OP_VUART_OP => return make_uart(request),
        abi::OP_BIND_PT_IRQ => return devices::bind(request),
        abi::OP_UNBIND_PT_IRQ => return devices::unbind(request),
        // Without an IOMMU no device is given to anybody.
        abi::OP_ASSIGN_DEVICE
        | abi::OP_DEASSIGN_DEVICE
        | abi::OP_TEST_ASSIGN_DEVICE
        | abi::OP_GET_DEVICE_GROUP => return Err(Errno::OpNotSupp),
        _ => return Err(Errno::NoSys),
    }
    Ok(Reply::OK)
}

/// Gives a domain that has not run an emulated UART, with a domain at the other end of its line.
fn make_uart(request: &Request<'_>) -> Outcome {
    let domain = request.domain()?;
    let mut body: abi::VuartOp = request.body()?;
    if body.pad != [0; 2] || body.cmd != 0 {
        return Err(Errno::Inval);
    }
    let Some(_exclusive) = exclusive() else {
        return again(request.args);
    };
    if domain.rights.hardware || domain.has_run() {
        return Err(Errno::Perm);
    }
    if body.kind != 0 {
        return Err(Errno::OpNotSupp);
    }
    if domain.state.lock().life != Life::Alive {
        return Err(Errno::Inval);
    }
    let port = uart::open_on_ring(&domain, body.gfn, DomId(body.console))?;
    body.port = port.0;
    request.write_back(&body)
}

fn describe(request: &Request<'_>) -> Outcome {
    let id = DomId(request.op.domain);
    if id >= DomId::FIRST_RESERVED {
        return Err(Errno::Inval);
    }
    let domain = registry::at_or_after(id).ok_or(Errno::Srch)?;
    request.write_back_for(domain.id, &info::domain(&domain))
}

fn describe_vcpu(request: &Request<'_>) -> Outcome {
    let domain = request.domain()?;
    let mut body: abi::GetVcpuInfo = request.body()?;
    let view = info::vcpu(scheduler::named(&domain, body.vcpu)?);
    body.online = view.online.into();
    body.blocked = view.blocked.into();
    body.running = view.running.into();
    body.cpu_time = view.cpu_ns;
    body.cpu = view.cpu;
    request.write_back(&body)
}

/// Nothing can be monitored, which may be asked.
fn monitor(request: &Request<'_>) -> Outcome {
    /// Operation and event, then the capabilities.
    type MonitorOp = [u32; 4];
    let [op, ..]: MonitorOp = request.body()?;
    match op {
        abi::MONITOR_OP_GET_CAPABILITIES => {
            let [op, event, _, rest]: MonitorOp = request.body()?;
            request.write_back(&[op, event, 0, rest])
        }
        _ => Err(Errno::OpNotSupp),
    }
}

#[cfg(test)]
mod tests {
    use armv7::addr::Gfn;
    use armv7::frame::page;
    use zerocopy::IntoBytes;

    use super::{abi, call};
    use crate::abi::domctl::Domctl;
    use crate::call::{Args, Caller, Outcome};
    use crate::domain::testing::{NO_TLB, guest};
    use crate::domain::{Rights, registry};
    use crate::error::Errno;
    use crate::id::DomId;

    #[test]
    fn devices_are_refused_in_xen_s_order_of_checks() {
        let (control, vcpu) = guest(Rights::DOM0, NO_TLB, &[0]);
        let (other, _vcpu) = guest(Rights::GUEST, NO_TLB, &[]);
        let entry = control.p2m.lock().lookup(Gfn::new(0).unwrap()).unwrap();
        let arguments = page(entry.mfn).unwrap();
        let ask = |command: u32, id: DomId, body: [u32; 3]| -> Outcome {
            let head = [command, abi::INTERFACE_VERSION, id.0.into(), 0];
            assert!(arguments.write(0, head.as_bytes()));
            assert!(arguments.write(Domctl::BODY as usize, body.as_bytes()));
            let caller = Caller {
                domain: &control,
                vcpu: &vcpu,
            };
            call(&caller, &Args::default())
        };
        for command in [
            abi::OP_ASSIGN_DEVICE,
            abi::OP_DEASSIGN_DEVICE,
            abi::OP_TEST_ASSIGN_DEVICE,
            abi::OP_GET_DEVICE_GROUP,
        ] {
            assert_eq!(ask(command, other.id, [0; 3]), Err(Errno::OpNotSupp));
            assert_eq!(ask(command, DomId(0x7000), [0; 3]), Err(Errno::Srch));
        }
        let nobody = ask(abi::OP_TEST_ASSIGN_DEVICE, DomId::INVALID, [0; 3]);
        assert_eq!(nobody, Err(Errno::OpNotSupp));
        let nobody = ask(abi::OP_ASSIGN_DEVICE, DomId::INVALID, [0; 3]);
        assert_eq!(nobody, Err(Errno::Srch));
        for command in [abi::OP_BIND_PT_IRQ, abi::OP_UNBIND_PT_IRQ] {
            assert_eq!(ask(command, other.id, [40, 0, 41]), Err(Errno::OpNotSupp));
            assert_eq!(ask(command, other.id, [40, 4, 41]), Err(Errno::Inval));
            assert_eq!(ask(command, other.id, [31, 4, 31]), Err(Errno::Inval));
            assert_eq!(ask(command, control.id, [40, 4, 40]), Err(Errno::Inval));
        }
        for id in [control.id, other.id] {
            registry::remove(id);
        }
    }
}
