//! getvcpucontext and setvcpucontext: a vCPU's registers.
//!
//! The registers may still be in the CPU that ran the vCPU last. The vCPU is halted, its CPU is asked to save them, and the
//! call is continued until they are in memory.

use armv7::guest::{GuestContext, is_guest_mode};
use armv7::syndrome::psr;

use super::request::Request;
use super::{again, exclusive};
use crate::abi::domctl::{CoreRegisters, VGCF_ONLINE, VcpuContextOp, VcpuGuestContext};
use crate::call::guest_ptr::{read, write};
use crate::call::{Outcome, Reply};
use crate::cpu;
use crate::domain::Domain;
use crate::error::Errno;
use crate::id::VcpuId;
use crate::sched;
use crate::vcpu::{Registers, Vcpu, halt};

/// Returns whether CPSR and all SPSRs of a context name a mode that a guest may be in. A banked SPSR may be zero.
fn has_guest_modes(regs: &CoreRegisters) -> bool {
    let banked = [
        regs.spsr_svc as u32,
        regs.spsr_abt,
        regs.spsr_und,
        regs.spsr_irq,
        regs.spsr_fiq,
    ];
    is_guest_mode(regs.cpsr as u32) && banked.iter().all(|spsr| *spsr == 0 || is_guest_mode(*spsr))
}

/// Returns an SPSR that an exception return can use: supervisor mode in place of one that was never set.
const fn saved_status(spsr: u32) -> u32 {
    if spsr == 0 { psr::MODE_SVC } else { spsr }
}

/// Sets a vCPU's registers from a checked context. A 32-bit guest has only the lower half of each.
fn apply(context: &VcpuGuestContext, registers: &mut Registers) {
    let regs = &context.regs;
    let general = &mut registers.context;
    for (to, from) in general.r.iter_mut().zip(regs.r_usr) {
        *to = from as u32;
    }
    general.lr_usr = regs.lr_usr as u32;
    general.pc = regs.pc as u32;
    general.cpsr = regs.cpsr as u32;
    let banked = &mut registers.cpu.banked;
    banked.sp_usr = regs.sp_usr as u32;
    banked.sp_svc = regs.sp_svc as u32;
    banked.lr_svc = regs.lr_svc as u32;
    banked.spsr_svc = saved_status(regs.spsr_svc as u32);
    banked.sp_abt = regs.sp_abt as u32;
    banked.lr_abt = regs.lr_abt as u32;
    banked.spsr_abt = saved_status(regs.spsr_abt);
    banked.sp_und = regs.sp_und as u32;
    banked.lr_und = regs.lr_und as u32;
    banked.spsr_und = saved_status(regs.spsr_und);
    banked.sp_irq = regs.sp_irq as u32;
    banked.lr_irq = regs.lr_irq as u32;
    banked.spsr_irq = saved_status(regs.spsr_irq);
    let [r8, r9, r10, r11, r12] = regs.r8_fiq.map(|value| value as u32);
    (
        banked.r8_fiq,
        banked.r9_fiq,
        banked.r10_fiq,
        banked.r11_fiq,
        banked.r12_fiq,
    ) = (r8, r9, r10, r11, r12);
    banked.sp_fiq = regs.sp_fiq as u32;
    banked.lr_fiq = regs.lr_fiq as u32;
    banked.spsr_fiq = saved_status(regs.spsr_fiq);
    let system = &mut registers.cpu.system;
    system.sctlr = context.sctlr as u32;
    system.ttbcr = context.ttbcr as u32;
    system.ttbr0 = context.ttbr0;
    system.ttbr1 = context.ttbr1;
}

/// Returns a vCPU's registers as a context.
fn collect(registers: &Registers, online: bool) -> VcpuGuestContext {
    let general: &GuestContext = &registers.context;
    let banked = &registers.cpu.banked;
    let system = &registers.cpu.system;
    let mut context = VcpuGuestContext::ZERO;
    context.flags = if online { VGCF_ONLINE } else { 0 };
    context.sctlr = system.sctlr.into();
    context.ttbcr = system.ttbcr.into();
    context.ttbr0 = system.ttbr0;
    context.ttbr1 = system.ttbr1;
    context.regs = CoreRegisters {
        r_usr: general.r.map(u64::from),
        sp_usr: banked.sp_usr.into(),
        lr_usr: general.lr_usr.into(),
        lr_irq: banked.lr_irq.into(),
        sp_irq: banked.sp_irq.into(),
        lr_svc: banked.lr_svc.into(),
        sp_svc: banked.sp_svc.into(),
        lr_abt: banked.lr_abt.into(),
        sp_abt: banked.sp_abt.into(),
        lr_und: banked.lr_und.into(),
        sp_und: banked.sp_und.into(),
        r8_fiq: [
            banked.r8_fiq,
            banked.r9_fiq,
            banked.r10_fiq,
            banked.r11_fiq,
            banked.r12_fiq,
        ]
        .map(u64::from),
        sp_fiq: banked.sp_fiq.into(),
        lr_fiq: banked.lr_fiq.into(),
        pc: general.pc.into(),
        cpsr: general.cpsr.into(),
        spsr_svc: banked.spsr_svc.into(),
        spsr_fiq: banked.spsr_fiq,
        spsr_irq: banked.spsr_irq,
        spsr_und: banked.spsr_und,
        spsr_abt: banked.spsr_abt,
        ..CoreRegisters::ZERO
    };
    context
}

/// Returns the vCPU `id` of a domain.
fn named(domain: &Domain, vcpu: u32) -> Result<&Vcpu, Errno> {
    VcpuId::new(vcpu)
        .and_then(|id| domain.vcpu(id))
        .map(|vcpu| &**vcpu)
        .ok_or(Errno::Inval)
}

/// Runs `f` on the saved registers of a vCPU, which halts for it. Returns `None` while they are still in a CPU, which is
/// asked to save them; the vCPU stays halted then.
fn with_registers<R>(vcpu: &Vcpu, f: impl FnOnce(&mut Registers) -> R) -> Option<R> {
    vcpu.halt(halt::INSPECTED);
    let cpu = sched::lock().unload(vcpu.unit);
    if let Some(cpu) = cpu {
        cpu::repick(cpu);
        return None;
    }
    let mut registers = vcpu.registers.try_lock()?;
    let result = f(&mut registers);
    drop(registers);
    vcpu.unhalt(halt::INSPECTED);
    Some(result)
}

/// Sets a vCPU's registers, or resets it when the caller passes none.
pub fn set(request: &Request<'_>) -> Outcome {
    let domain = request.other()?;
    let op: VcpuContextOp = request.body()?;
    let vcpu = named(&domain, op.vcpu)?;
    let outcome = set_one(request, vcpu, &op);
    if outcome.is_err() {
        // An earlier pass of the call may have halted it.
        vcpu.unhalt(halt::INSPECTED);
    }
    outcome
}

fn set_one(request: &Request<'_>, vcpu: &Vcpu, op: &VcpuContextOp) -> Outcome {
    let context = if op.ctxt.is_null() {
        None
    } else {
        let context: VcpuGuestContext =
            read(request.caller.domain, op.ctxt.to_va().ok_or(Errno::Fault)?)?;
        if !has_guest_modes(&context.regs) {
            return Err(Errno::Inval);
        }
        Some(context)
    };
    let Some(_exclusive) = exclusive() else {
        return again(request.args);
    };
    let online = context
        .as_ref()
        .is_some_and(|context| context.flags & VGCF_ONLINE != 0);
    if !online {
        vcpu.halt(halt::OFFLINE);
    }
    let done = with_registers(vcpu, |registers| match &context {
        Some(context) => apply(context, registers),
        None => *registers = Registers::start(0, 0),
    });
    if done.is_none() {
        return again(request.args);
    }
    // A CPU_ON that has not taken effect is dropped: these registers replace its.
    *vcpu.restart.lock() = None;
    vcpu.set_initialised(context.is_some());
    if online {
        vcpu.unhalt(halt::OFFLINE);
    }
    Ok(Reply::OK)
}

/// Reads a vCPU's registers.
pub fn get(request: &Request<'_>) -> Outcome {
    let domain = request.domain()?;
    let op: VcpuContextOp = request.body()?;
    let vcpu = named(&domain, op.vcpu)?;
    if vcpu.dom == request.caller.vcpu.dom && vcpu.id == request.caller.vcpu.id {
        return Err(Errno::Inval);
    }
    if !vcpu.is_initialised() {
        return Err(Errno::NoData);
    }
    let Some(exclusive) = exclusive() else {
        return again(request.args);
    };
    let online = vcpu.is_online();
    let Some(context) = with_registers(vcpu, |registers| collect(registers, online)) else {
        return again(request.args);
    };
    drop(exclusive);
    write(
        request.caller.domain,
        op.ctxt.to_va().ok_or(Errno::Fault)?,
        &context,
    )?;
    Ok(Reply::OK)
}

#[cfg(test)]
mod tests {
    use super::{apply, collect, has_guest_modes};
    use crate::abi::domctl::{CoreRegisters, VcpuGuestContext};
    use crate::vcpu::{Registers, START_CPSR, START_SCTLR};
    use zerocopy::{FromBytes, IntoBytes};

    #[test]
    fn libxls_first_context_is_accepted_and_read_back() {
        let mut context = VcpuGuestContext::ZERO;
        context.flags = 1;
        context.regs.r_usr[1] = 0xFFFF_FFFF;
        context.regs.r_usr[2] = 0x4800_0000;
        context.regs.pc = 0x4000_8000;
        context.regs.cpsr = START_CPSR.into();
        context.sctlr = START_SCTLR.into();
        assert!(has_guest_modes(&context.regs));
        let mut registers = Registers::start(0, 0);
        apply(&context, &mut registers);
        assert_eq!(
            (registers.context.pc, registers.context.r[2]),
            (0x4000_8000, 0x4800_0000)
        );
        let back = collect(&registers, true);
        assert_eq!(
            (back.flags, back.regs.pc, back.sctlr),
            (1, 0x4000_8000, 0x00C5_0078)
        );
    }

    #[test]
    fn no_register_is_lost_or_exchanged() {
        let bytes: Vec<u8> = (0..352u32)
            .map(|n| if n % 8 < 4 { (n / 2) as u8 | 0x10 } else { 0 })
            .collect();
        let mut context = VcpuGuestContext::read_from_bytes(&bytes).unwrap();
        context.flags = 0;
        context.regs.unused = 0;
        context.regs.el = [0; 3];
        // These four have no upper half.
        context.regs.spsr_irq = 0x92;
        context.regs.spsr_abt = 0x97;
        let mut registers = Registers::start(0, 0);
        apply(&context, &mut registers);
        assert_eq!(collect(&registers, false).as_bytes(), context.as_bytes());
    }

    #[test]
    fn hyp_and_monitor_mode_are_refused_everywhere() {
        let good = CoreRegisters {
            cpsr: START_CPSR.into(),
            ..CoreRegisters::ZERO
        };
        for mode in [0x16, 0x1A, 0x00, 0x1C] {
            assert!(!has_guest_modes(&CoreRegisters { cpsr: mode, ..good }));
        }
        for mode in [0x16u32, 0x1A, 0x1C] {
            for bad in [
                CoreRegisters {
                    spsr_svc: mode.into(),
                    ..good
                },
                CoreRegisters {
                    spsr_abt: mode,
                    ..good
                },
                CoreRegisters {
                    spsr_und: mode,
                    ..good
                },
                CoreRegisters {
                    spsr_irq: mode,
                    ..good
                },
                CoreRegisters {
                    spsr_fiq: mode,
                    ..good
                },
            ] {
                assert!(!has_guest_modes(&bad));
            }
        }
    }
}
