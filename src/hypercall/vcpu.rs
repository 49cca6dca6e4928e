//! vcpu_op (24): registration of `vcpu_info` and runstate areas. vCPUs are started by PSCI.

use armv7::addr::{Gfn, GuestVa, PAGE_SIZE};
use armv7::guest::{Access, translate};

use crate::abi::vcpu as abi;
use crate::call::guest_ptr::read;
use crate::call::{Args, Caller, Outcome, Reply};
use crate::domain::GuestPage;
use crate::error::Errno;
use crate::id::VcpuId;
use crate::vcpu::{COPY_SIZE, GuestCopy};

pub(super) fn call(caller: &Caller<'_>, args: &Args) -> Outcome {
    let [op, vcpu, ..] = args.0;
    let id = VcpuId::new(vcpu).ok_or(Errno::NoEnt)?;
    let vcpu = caller.domain.vcpu(id).ok_or(Errno::NoEnt)?;
    match op {
        abi::OP_REGISTER_VCPU_INFO => {
            let op: abi::RegisterVcpuInfo = read(caller.domain, args.ptr(2))?;
            let events = caller.domain.events.lock();
            events.check_vcpu_info(args.0[1], op.offset)?;
            drop(events);
            if id != caller.vcpu.id && vcpu.is_online() {
                return Err(Errno::Inval);
            }
            let page = caller.domain.pin(op.gfn)?;
            let notify = caller
                .domain
                .events
                .lock()
                .register_vcpu_info(args.0[1], page, op.offset)?;
            if let (Some(gfn), Some(place)) = (
                Gfn::new(op.gfn),
                caller.domain.state.lock().vcpu_info.get_mut(id.index()),
            ) {
                *place = Some((gfn, op.offset));
            }
            caller.domain.notify(notify);
            Ok(Reply::OK)
        }
        abi::OP_REGISTER_RUNSTATE_MEMORY_AREA => {
            let op: abi::RegisterRunstateMemoryArea = read(caller.domain, args.ptr(2))?;
            let copy = match op.addr.to_va() {
                Some(GuestVa(0)) => None,
                Some(va) => Some(map_copy(caller, va)?),
                None => return Err(Errno::Fault),
            };
            vcpu.runstate.lock().register(copy);
            Ok(Reply::OK)
        }
        _ => Err(Errno::Inval),
    }
}

/// Pins the one or two pages of a runstate area at `va`.
fn map_copy(caller: &Caller<'_>, va: GuestVa) -> Result<GuestCopy, Errno> {
    let (first, gfn) = pin_va(caller, va)?;
    let crosses = va.offset() + COPY_SIZE > PAGE_SIZE;
    let (second, next_gfn) = match crosses {
        true => {
            let next = va
                .checked_add((PAGE_SIZE - va.offset()) as u32)
                .ok_or(Errno::Fault)?;
            let (page, gfn) = pin_va(caller, next)?;
            (Some(page), Some(gfn))
        }
        false => (None, None),
    };
    Ok(GuestCopy::new(
        [Some(first), second],
        [Some(gfn), next_gfn],
        va.offset(),
    ))
}

fn pin_va(caller: &Caller<'_>, va: GuestVa) -> Result<(GuestPage, Gfn), Errno> {
    // Locked, so that the walk of the guest's tables cannot meet another CPU's break-before-make.
    let p2m = caller.domain.p2m.lock();
    let gfn = translate(va.0, Access::Write).map_err(|_| Errno::Fault)?;
    drop(p2m);
    let page = caller
        .domain
        .pin(gfn.raw().into())
        .map_err(|_| Errno::Fault)?;
    Ok((page, gfn))
}
