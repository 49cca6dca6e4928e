//! hvm_op (34): the HVM parameters that exist on Arm.

use crate::abi::hvm as abi;
use crate::call::guest_ptr::{read, write};
use crate::call::target::{self, Target};
use crate::call::{Args, Caller, Outcome, Reply};
use crate::domain::Params;
use crate::error::Errno;

pub(super) fn call(caller: &Caller<'_>, args: &Args) -> Outcome {
    match args.0[0] {
        abi::OP_SET_PARAM => set(caller, args),
        abi::OP_GET_PARAM => get(caller, args),
        abi::OP_GUEST_REQUEST_VM_EVENT if args.0[1] == 0 => Ok(Reply::OK),
        abi::OP_GUEST_REQUEST_VM_EVENT => Err(Errno::Inval),
        _ => Err(Errno::NoSys),
    }
}

fn field(params: &mut Params, index: u32) -> Option<&mut u64> {
    Some(match index {
        abi::PARAM_CALLBACK_IRQ => &mut params.callback_irq,
        abi::PARAM_STORE_PFN => &mut params.store_pfn,
        abi::PARAM_STORE_EVTCHN => &mut params.store_evtchn,
        abi::PARAM_CONSOLE_PFN => &mut params.console_pfn,
        abi::PARAM_CONSOLE_EVTCHN => &mut params.console_evtchn,
        abi::PARAM_MONITOR_RING_PFN => &mut params.monitor_ring_pfn,
        _ => return None,
    })
}

fn set(caller: &Caller<'_>, args: &Args) -> Outcome {
    let op: abi::HvmParam = read(caller.domain, args.ptr(1))?;
    let target = target::control(caller, op.domid)?;
    if field(&mut Params::default(), op.index).is_none() {
        return Err(Errno::Inval);
    }
    let Target::Other(domain) = target else {
        return Err(Errno::Perm);
    };
    let mut state = domain.state.lock();
    *field(&mut state.params, op.index).ok_or(Errno::Inval)? = op.value;
    Ok(Reply::OK)
}

fn get(caller: &Caller<'_>, args: &Args) -> Outcome {
    let mut op: abi::HvmParam = read(caller.domain, args.ptr(1))?;
    let target = target::control(caller, op.domid)?;
    if op.index == abi::PARAM_MONITOR_RING_PFN && target.is_own() {
        return Err(Errno::Perm);
    }
    op.value = *field(&mut target.domain().state.lock().params, op.index).ok_or(Errno::Inval)?;
    write(caller.domain, args.ptr(1), &op)?;
    Ok(Reply::OK)
}
