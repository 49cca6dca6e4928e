//! event_channel_op (32): decoding, rights and the cases of two domains. `event` has the rules.

use armv7::addr::GuestVa;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::abi::event_channel as abi;
use crate::call::guest_ptr::{read, write};
use crate::call::target::{self, Target};
use crate::call::{Args, Caller, Outcome, Reply, must_pause};
use crate::domain::{Domain, close_ports, send, tell_closed};
use crate::error::Errno;
use crate::event::{Binding, Close, Control, EventError, EventTable, Port};
use crate::policy;

pub(super) fn call(caller: &Caller<'_>, args: &Args) -> Outcome {
    operation(caller, args, args.0[0], args.ptr(1))
}

/// Handles the old form of the call, with operation and argument in one structure.
pub(super) fn compat(caller: &Caller<'_>, args: &Args) -> Outcome {
    /// Offset of the argument after the operation number.
    const BODY: u32 = 4;
    let op: u32 = read(caller.domain, args.ptr(0))?;
    operation(
        caller,
        args,
        op,
        args.ptr(0).checked_add(BODY).ok_or(Errno::Fault)?,
    )
}

/// Performs `op` with its argument at `arg`. `args` are the registers, for a continuation.
fn operation(caller: &Caller<'_>, args: &Args, op: u32, arg: GuestVa) -> Outcome {
    match op {
        abi::OP_SEND => {
            let op: abi::PortArgument = read(caller.domain, arg)?;
            send(caller.domain, Port(op.port))?;
        }
        abi::OP_UNMASK => {
            let op: abi::PortArgument = read(caller.domain, arg)?;
            let notify = caller.domain.events.lock().unmask(Port(op.port))?;
            caller.domain.notify(notify);
        }
        abi::OP_ALLOC_UNBOUND => alloc_unbound(caller, arg)?,
        abi::OP_BIND_INTERDOMAIN => bind_interdomain(caller, arg)?,
        abi::OP_BIND_VIRQ => update(caller, arg, |events, op: &mut abi::BindVirq| {
            op.port = events.bind_virq(op.virq, op.vcpu)?.0;
            Ok(())
        })?,
        abi::OP_BIND_IPI => update(caller, arg, |events, op: &mut abi::BindIpi| {
            op.port = events.bind_ipi(op.vcpu)?.0;
            Ok(())
        })?,
        abi::OP_CLOSE => {
            let op: abi::PortArgument = read(caller.domain, arg)?;
            close(caller.domain, Port(op.port))?;
        }
        abi::OP_STATUS => status(caller, arg)?,
        abi::OP_BIND_VCPU => {
            let op: abi::BindVcpu = read(caller.domain, arg)?;
            let notify = caller
                .domain
                .events
                .lock()
                .bind_vcpu(Port(op.port), op.vcpu)?;
            caller.domain.notify(notify);
        }
        abi::OP_SET_PRIORITY => {
            let op: abi::SetPriority = read(caller.domain, arg)?;
            caller
                .domain
                .events
                .lock()
                .set_priority(Port(op.port), op.priority)?;
        }
        abi::OP_INIT_CONTROL => return init_control(caller, args, arg),
        abi::OP_EXPAND_ARRAY => {
            let op: abi::ExpandArray = read(caller.domain, arg)?;
            caller.domain.events.lock().check_array()?;
            let page = caller.domain.pin(op.array_gfn)?;
            let mut events = caller.domain.events.lock();
            let control = events.expand_array(page, op.array_gfn)?;
            drop(events);
            return Ok(finish(caller, args, control));
        }
        abi::OP_RESET => return reset(caller, args, arg),
        abi::OP_BIND_PIRQ => {
            // Arm has no physical interrupts to bind; the argument has the layout of `bind_virq`'s.
            let _: abi::BindVirq = read(caller.domain, arg)?;
            return Err(Errno::Inval);
        }
        _ => return Err(Errno::NoSys),
    }
    Ok(Reply::Value(0))
}

/// Reads an argument, runs `f` on it and the caller's table, and writes it back.
fn update<T: FromBytes + IntoBytes + Immutable>(
    caller: &Caller<'_>,
    arg: GuestVa,
    f: impl FnOnce(&mut EventTable<crate::domain::GuestPage>, &mut T) -> Result<(), EventError>,
) -> Result<(), Errno> {
    let mut op: T = read(caller.domain, arg)?;
    f(&mut caller.domain.events.lock(), &mut op)?;
    write(caller.domain, arg, &op)
}

fn alloc_unbound(caller: &Caller<'_>, arg: GuestVa) -> Result<(), Errno> {
    let mut op: abi::AllocUnbound = read(caller.domain, arg)?;
    let target = target::control(caller, op.dom)?;
    let remote = target::resolve_id(caller, op.remote_dom);
    policy::may_share(caller.domain, target.domain().id, remote)?;
    op.port = target.domain().events.lock().alloc_unbound(remote)?.0;
    write(caller.domain, arg, &op)
}

fn bind_interdomain(caller: &Caller<'_>, arg: GuestVa) -> Result<(), Errno> {
    let mut op: abi::BindInterdomain = read(caller.domain, arg)?;
    let remote_port = Port(op.remote_port);
    let (port, notify) = match target::any(caller, op.remote_dom)? {
        Target::Own(domain) => domain.events.lock().bind_loopback(remote_port)?,
        Target::Other(remote) => {
            policy::may_share(caller.domain, caller.domain.id, remote.id)?;
            // Two tables: the lower domain id is locked first.
            if caller.domain.id < remote.id {
                let mut local = caller.domain.events.lock();
                let mut other = remote.events.lock();
                EventTable::bind_interdomain(&mut local, &mut other, remote_port)?
            } else {
                let mut other = remote.events.lock();
                let mut local = caller.domain.events.lock();
                EventTable::bind_interdomain(&mut local, &mut other, remote_port)?
            }
        }
    };
    caller.domain.notify(notify);
    op.local_port = port.0;
    write(caller.domain, arg, &op)
}

/// Closes a port of `domain` and notifies its peer.
fn close(domain: &Domain, port: Port) -> Result<(), Errno> {
    let close = domain.events.lock().close(port)?;
    match close {
        Close::Done => {}
        Close::Peer { to, from } => {
            tell_closed(to, from);
            domain.events.lock().finish_close(from.port);
        }
    }
    Ok(())
}

fn status(caller: &Caller<'_>, arg: GuestVa) -> Result<(), Errno> {
    let mut op: abi::Status = read(caller.domain, arg)?;
    let target = target::control(caller, op.dom)?;
    let status = target.domain().events.lock().status(Port(op.port))?;
    op.vcpu = status.vcpu.raw().into();
    match status.binding {
        Binding::Closed => op.status = abi::STATUS_CLOSED,
        Binding::Unbound(dom) => {
            op.status = abi::STATUS_UNBOUND;
            op.detail = dom.0.into();
        }
        Binding::Interdomain(end) => {
            op.status = abi::STATUS_INTERDOMAIN;
            op.detail = end.dom.0.into();
            op.peer_port = end.port.0;
        }
        Binding::Virq(virq) => {
            op.status = abi::STATUS_VIRQ;
            op.detail = virq.raw();
        }
        Binding::Ipi => op.status = abi::STATUS_IPI,
    }
    write(caller.domain, arg, &op)
}

fn init_control(caller: &Caller<'_>, args: &Args, arg: GuestVa) -> Outcome {
    let mut op: abi::InitControl = read(caller.domain, arg)?;
    let mut events = caller.domain.events.lock();
    events.check_control(op.vcpu, op.offset)?;
    drop(events);
    let page = caller.domain.pin(op.control_gfn)?;
    events = caller.domain.events.lock();
    let control = events.init_control(op.vcpu, page, op.offset)?;
    drop(events);
    if let again @ Reply::Again(_) = finish(caller, args, control) {
        return Ok(again);
    }
    op.link_bits = abi::fifo::LINK_BITS;
    write(caller.domain, arg, &op)?;
    Ok(Reply::OK)
}

/// Notifies the vCPUs of events that a new page raised. The call is made again while there are more; the table knows how far
/// it is.
fn finish(caller: &Caller<'_>, args: &Args, control: Control) -> Reply {
    match control {
        Control::Done(notify) => {
            caller.domain.notify(notify);
            Reply::OK
        }
        Control::More(notify) => {
            caller.domain.notify(notify);
            args.again([])
        }
    }
}

fn reset(caller: &Caller<'_>, args: &Args, arg: GuestVa) -> Outcome {
    let op: abi::ResetArgument = read(caller.domain, arg)?;
    let target = target::control(caller, op.dom)?;
    let domain = target.domain();
    if !target.is_own() && domain.state.lock().pause_count == 0 {
        return Err(Errno::Inval);
    }
    // A reset in progress is one that this call continues.
    if !domain.events.lock().is_resetting() {
        domain.events.lock().reset_begin()?;
    }
    Ok(match close_ports(domain, must_pause)? {
        true => Reply::Value(0),
        false => args.again([]),
    })
}

#[cfg(test)]
mod tests;
