//! sched_op (29): yielding, blocking, polling and shutting down.

use crate::abi::sched as abi;
use crate::call::guest_ptr::{element, read};
use crate::call::{Args, Caller, Outcome, Reply};
use crate::domain::shutdown::{self, Reason};
use crate::domain::{interface, registry};
use crate::error::Errno;
use crate::event::{Poll, Port};
use crate::id::DomId;
use crate::time::{self, Nanos, Purpose, Timer};
use crate::vcpu::halt;

pub(super) fn call(caller: &Caller<'_>, args: &Args) -> Outcome {
    match args.0[0] {
        abi::OP_YIELD => {
            caller.vcpu.yield_now();
            // Not `Reply::OK`, as the constant would be copied whole.
            Ok(Reply::Value(0))
        }
        abi::OP_BLOCK => {
            interface::block(caller.domain, caller.vcpu);
            // The guest must take its interrupt when it wakes, even if masked before.
            Ok(Reply::Unmask)
        }
        abi::OP_SHUTDOWN => {
            let op: abi::SchedShutdown = read(caller.domain, args.ptr(1))?;
            shutdown::shut_down(caller.domain, Reason::new(op.reason).ok_or(Errno::Inval)?);
            Ok(Reply::OK)
        }
        abi::OP_SHUTDOWN_CODE => {
            let op: abi::SchedShutdown = read(caller.domain, args.ptr(1))?;
            let reason = Reason::new(op.reason).ok_or(Errno::Inval)?;
            // The first code counts.
            let mut state = caller.domain.state.lock();
            state.shutdown_code.get_or_insert(reason as u32);
            Ok(Reply::OK)
        }
        abi::OP_REMOTE_SHUTDOWN => {
            let op: abi::SchedRemoteShutdown = read(caller.domain, args.ptr(1))?;
            // By its id only; `DOMID_SELF` is not accepted.
            let domain = registry::get(DomId(op.domain_id)).ok_or(Errno::Srch)?;
            if !caller.domain.is_control() {
                return Err(Errno::Perm);
            }
            shutdown::shut_down(&domain, Reason::new(op.reason).ok_or(Errno::Inval)?);
            Ok(Reply::OK)
        }
        abi::OP_POLL => poll(caller, args),
        abi::OP_WATCHDOG => watchdog(caller, args),
        abi::OP_PIN_OVERRIDE => match caller.domain.rights.hardware {
            true => Err(Errno::NoSys),
            false => Err(Errno::Perm),
        },
        _ => Err(Errno::NoSys),
    }
}

/// Handles the old form of the call, with yield and block only.
pub(super) fn compat(caller: &Caller<'_>, args: &Args) -> Outcome {
    match args.0[0] {
        abi::OP_YIELD | abi::OP_BLOCK => call(caller, args),
        _ => Err(Errno::NoSys),
    }
}

// Not inlined: its array would cost stack set-up for yield and block.
#[inline(never)]
fn poll(caller: &Caller<'_>, args: &Args) -> Outcome {
    let op: abi::SchedPoll = read(caller.domain, args.ptr(1))?;
    if op.nr_ports > abi::POLL_MAX_PORTS {
        return Err(Errno::Inval);
    }
    let base = op.ports.to_va().ok_or(Errno::Fault)?;
    let mut ports = [Port(0); abi::POLL_MAX_PORTS as usize];
    for (n, port) in ports.iter_mut().enumerate().take(op.nr_ports as usize) {
        *port = Port(read(caller.domain, element::<u32>(base, n as u32)?)?);
    }
    let ports = ports.get(..op.nr_ports as usize).unwrap_or(&[]);
    // Blocked before polling, so that an event in between wakes the vCPU.
    caller.vcpu.halt(halt::BLOCKED);
    let polled = caller.domain.events.lock().poll(caller.vcpu.id, ports);
    match polled {
        Ok(Poll::Wait) if caller.vcpu.requested() == 0 => {
            if op.timeout != 0 {
                let deadline = time::clock().deadline(Nanos(op.timeout));
                caller.vcpu.timers.poll.arm(deadline);
            }
            Ok(Reply::OK)
        }
        done => {
            caller.domain.events.lock().end_poll(caller.vcpu.id);
            caller.vcpu.unhalt(halt::BLOCKED);
            done.map(|_| Reply::OK).map_err(Errno::from)
        }
    }
}

#[inline(never)]
fn watchdog(caller: &Caller<'_>, args: &Args) -> Outcome {
    let op: abi::SchedWatchdog = read(caller.domain, args.ptr(1))?;
    let dogs = &caller.domain.watchdogs;
    let deadline = || {
        let ns = u64::from(op.timeout).saturating_mul(1_000_000_000);
        time::clock().deadline(Nanos(time::now_ns().0.saturating_add(ns)))
    };
    if op.id == 0 {
        if op.timeout == 0 {
            return Err(Errno::Inval);
        }
        let mut dogs = dogs.lock();
        let free = dogs.iter().position(Option::is_none).ok_or(Errno::NoSpc)?;
        let timer = Timer::new(Purpose::Watchdog(caller.domain.id)).map_err(|_| Errno::NoMem)?;
        timer.arm(deadline());
        if let Some(dog) = dogs.get_mut(free) {
            *dog = Some(timer);
        }
        return Ok(Reply::Value(free as u32 + 1));
    }
    let mut dogs = dogs.lock();
    let dog = dogs.get_mut(op.id as usize - 1).ok_or(Errno::Inval)?;
    let timer = dog.as_ref().ok_or(Errno::Inval)?;
    if op.timeout == 0 {
        *dog = None;
    } else {
        timer.arm(deadline());
    }
    Ok(Reply::OK)
}
