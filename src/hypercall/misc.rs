//! Small hypercalls: vm_assist (21) and platform_op (7).

use crate::abi::platform as abi;
use crate::call::guest_ptr::read;
use crate::call::{Args, Caller, Outcome, Reply};
use crate::error::Errno;
use crate::wallclock;

/// Enables an assist.
const ENABLE: u32 = 0;
/// Disables an assist.
const DISABLE: u32 = 1;
/// VMASST_TYPE_runstate_update_flag, the only one on Arm.
const RUNSTATE_UPDATE_FLAG: u32 = 5;

pub(super) fn vm_assist(caller: &Caller<'_>, args: &Args) -> Outcome {
    let [op, kind, ..] = args.0;
    if kind != RUNSTATE_UPDATE_FLAG {
        return Err(Errno::Inval);
    }
    let flagged = match op {
        ENABLE => true,
        DISABLE => false,
        _ => return Err(Errno::NoSys),
    };
    caller.domain.state.lock().runstate_flag = flagged;
    for vcpu in caller.domain.vcpus() {
        vcpu.runstate.lock().set_flagged(flagged);
    }
    Ok(Reply::OK)
}

pub(super) fn platform_op(caller: &Caller<'_>, args: &Args) -> Outcome {
    let op: abi::PlatformOp = read(caller.domain, args.ptr(0))?;
    if op.interface_version != abi::INTERFACE_VERSION {
        return Err(Errno::Acces);
    }
    if !caller.domain.is_control() {
        return Err(Errno::Perm);
    }
    match op.cmd {
        abi::OP_SETTIME64 => {
            let time = op.settime64().ok_or(Errno::Fault)?;
            if time.mbz != 0 {
                return Err(Errno::Inval);
            }
            wallclock::set(time.secs, time.nsecs, time.system_time);
            Ok(Reply::OK)
        }
        _ => Err(Errno::NoSys),
    }
}
