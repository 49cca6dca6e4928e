//! Exits of a guest: dispatch from the syndrome to the room that handles it.

use alloc::sync::Arc;

use armv7::guest::{self, GuestContext};
use armv7::syndrome::{
    self, CpAccess, CpWideAccess, Direction, Trap, Wait, condition, condition_passed, decode,
};
use armv7::{cache, errata, frame, smp};

use super::abort;
use super::inject::{Exception, raise, skip};
use crate::domain::Domain;
use crate::domain::interface::block;
use crate::domain::shutdown::{self, Reason};
use crate::emulate::cp15::{self, Cp15State, Outcome, Privilege, TimerAccess};
use crate::emulate::psci::{self, Action, CpuOn, EntryState, Power, View};
use crate::emulate::set_way::Operation;
use crate::guest_warn;
use crate::hypercall::{self, HVC_IMMEDIATE};
use crate::id::VcpuId;
use crate::latency::Cause;
use crate::time::{self, Ticks};
use crate::vcpu::{Vcpu, halt};

/// Returns the cause of the exit, for the measurement of masked times.
pub fn cause(context: &GuestContext) -> Cause {
    match guest::syndrome() >> 26 {
        syndrome::HVC => Cause::Hypercall(context.r[12]),
        class => Cause::Trap(class),
    }
}

/// Handles a trap of the loaded guest.
pub fn handle(domain: &Arc<Domain>, vcpu: &Arc<Vcpu>, context: &mut GuestContext) {
    let hsr = guest::syndrome();
    if syndrome::is_data_abort(hsr) && abort::emulate(domain, vcpu, context, hsr) {
        return;
    }
    if let Some(immediate) = syndrome::hvc(hsr) {
        return match immediate {
            HVC_IMMEDIATE => hypercall::dispatch(domain, vcpu, context),
            0 => call_firmware(domain, vcpu, context),
            _ => not_ours(domain, vcpu, context, immediate),
        };
    }
    match decode(hsr) {
        Trap::DataAbort(fault) => abort::data(domain, vcpu, context, &fault),
        Trap::InstrAbort(fault) => abort::fetch(domain, vcpu, context, &fault),
        trap => conditional(domain, vcpu, context, hsr, trap),
    }
}

/// Handles an HVC whose immediate has no meaning.
#[cold]
fn not_ours(domain: &Arc<Domain>, vcpu: &Arc<Vcpu>, context: &mut GuestContext, immediate: u16) {
    guest_warn!(domain, vcpu, "Invalid HVC imm {immediate:#x}");
    // HVC returns to the next instruction; an undefined exception is taken from the instruction itself.
    context.pc = context.pc.wrapping_sub(4);
    raise(context, Exception::Undefined);
}

/// Handles traps of instructions that may be conditional. One whose condition fails has no effect.
fn conditional(
    domain: &Arc<Domain>,
    vcpu: &Arc<Vcpu>,
    context: &mut GuestContext,
    hsr: u32,
    trap: Trap,
) {
    if !condition_passed(condition(hsr), context.cpsr) {
        skip(context, hsr);
        return;
    }
    match trap {
        Trap::Wait(wait) => {
            skip(context, hsr);
            match wait {
                Wait::Interrupt => block(domain, vcpu),
                Wait::Event => vcpu.yield_now(),
            }
        }
        Trap::Smc => {
            skip(context, hsr);
            call_firmware(domain, vcpu, context);
        }
        Trap::Cp15(access) => {
            let outcome = cp15::cp15(&access, Privilege::of(context.cpsr), &state());
            if outcome == Outcome::SetWay && !set_way(domain, vcpu, context, &access) {
                // The guest retries the instruction, and can take an interrupt in between.
                return;
            }
            coprocessor(vcpu, context, hsr, &access, outcome);
        }
        Trap::Cp14(access) => {
            let outcome = cp15::cp14(&access, Privilege::of(context.cpsr), &state());
            coprocessor(vcpu, context, hsr, &access, outcome);
        }
        Trap::Cp15Wide(access) => {
            let outcome = cp15::cp15_wide(&access, Privilege::of(context.cpsr), &state());
            coprocessor_wide(vcpu, context, hsr, &access, outcome);
        }
        _ => raise(context, Exception::Undefined),
    }
}

fn state() -> Cp15State {
    Cp15State {
        actlr: guest::actlr(),
        midr: smp::midr(),
        cntkctl: guest::cntkctl(),
    }
}

fn coprocessor(
    vcpu: &Vcpu,
    context: &mut GuestContext,
    hsr: u32,
    access: &CpAccess,
    outcome: Outcome,
) {
    match outcome {
        Outcome::Read(value) => {
            if access.direction == Direction::Read {
                guest::set_register(context, access.rt, value);
            }
        }
        Outcome::Ignored | Outcome::SetWay => {}
        Outcome::Undefined => return raise(context, Exception::Undefined),
        Outcome::Timer(access_kind) => {
            let value = u64::from(guest::register(context, access.rt));
            let result = physical_timer(vcpu, access_kind, value);
            if access.direction == Direction::Read {
                guest::set_register(context, access.rt, result as u32);
            }
        }
    }
    skip(context, hsr);
}

fn coprocessor_wide(
    vcpu: &Vcpu,
    context: &mut GuestContext,
    hsr: u32,
    access: &CpWideAccess,
    outcome: Outcome,
) {
    match outcome {
        Outcome::Timer(kind) => {
            let low = u64::from(guest::register(context, access.rt));
            let high = u64::from(guest::register(context, access.rt2));
            let result = physical_timer(vcpu, kind, low | high << 32);
            if access.direction == Direction::Read {
                guest::set_register(context, access.rt, result as u32);
                guest::set_register(context, access.rt2, (result >> 32) as u32);
            }
        }
        Outcome::Read(_) | Outcome::Ignored | Outcome::SetWay => {}
        Outcome::Undefined => return raise(context, Exception::Undefined),
    }
    skip(context, hsr);
}

/// Frames cleaned in one go for an operation by set and way: 768 lines of 64 bytes.
const CLEANED_AT_ONCE: u32 = 12;
/// p2m entries checked in one go.
const LOOKED_AT: u32 = 512;

/// Continues an operation by set and way, which cleans and invalidates the guest's memory. Returns whether it is done.
#[cold]
fn set_way(domain: &Domain, vcpu: &Vcpu, context: &GuestContext, access: &CpAccess) -> bool {
    let operation = Operation {
        crm: access.crm,
        operand: guest::register(context, access.rt),
    };
    let begun = vcpu.set_way.lock().begin(operation, time::now().0);
    let Some(from) = begun else { return true };
    let next = domain
        .p2m
        .lock()
        .each_ram_page(from, CLEANED_AT_ONCE, LOOKED_AT, |mfn| {
            // A frame that cannot be mapped now, as no window is free, stays in the caches.
            let _ = frame::with(mfn, |page| cache::page(page, cache::Op::CleanInvalidate));
        });
    vcpu.set_way.lock().cleaned(next, time::now().0);
    next.is_none()
}

/// Performs an access of the loaded vCPU to its physical timer. Returns the value of a read.
fn physical_timer(vcpu: &Vcpu, access: TimerAccess, value: u64) -> u64 {
    let mut timer = vcpu.physical_timer.lock();
    let result = timer.access(access, value, time::now().0);
    if matches!(
        access,
        TimerAccess::WriteControl | TimerAccess::WriteValue | TimerAccess::WriteCompare
    ) {
        match timer.deadline() {
            Some(deadline) => vcpu.timers.physical_timer.arm(Ticks(deadline)),
            None => vcpu.timers.physical_timer.disarm(),
        }
    }
    result
}

impl View for Domain {
    fn power(&self, id: VcpuId) -> Option<Power> {
        let vcpu = self.vcpu(id)?;
        Some(if vcpu.is_online() {
            Power::On
        } else {
            Power::Off
        })
    }

    fn hardens_branch_predictor(&self) -> bool {
        errata::empties_predictor()
    }
}

/// Handles a PSCI or SMCCC call by HVC #0 or SMC.
fn call_firmware(domain: &Arc<Domain>, vcpu: &Arc<Vcpu>, context: &mut GuestContext) {
    let [function, a, b, c, ..] = context.r;
    match psci::call(function, [a, b, c], &**domain) {
        Action::Return(value) => context.r[0] = value,
        Action::ReturnAll(values) => context.r[..4].copy_from_slice(&values),
        Action::Nothing => {}
        Action::CpuOn(on) => context.r[0] = cpu_on(domain, &on),
        Action::CpuOff => vcpu.halt(halt::OFFLINE),
        Action::Suspend => {
            context.r[0] = psci::status::SUCCESS as u32;
            block(domain, vcpu);
        }
        Action::SystemOff => {
            context.r[0] = psci::status::INTERNAL_FAILURE as u32;
            shutdown::shut_down(domain, Reason::Poweroff);
        }
        Action::SystemReset => {
            context.r[0] = psci::status::INTERNAL_FAILURE as u32;
            shutdown::shut_down(domain, Reason::Reboot);
        }
    }
}

fn cpu_on(domain: &Domain, on: &CpuOn) -> u32 {
    let Some(target) = domain.vcpu(on.vcpu) else {
        return psci::status::INVALID_PARAMETERS as u32;
    };
    let thumb = u32::from(on.state == EntryState::Thumb);
    match target.start(on.entry | thumb, on.context) {
        true => psci::status::SUCCESS as u32,
        false => on.already_on,
    }
}

#[cfg(test)]
mod tests;
