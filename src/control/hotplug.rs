//! CPUs that are switched off and on.
//!
//! A call waits for the CPU by continuing itself, so that its own vCPU may leave the CPU that goes off.

use armv7::cpu::CpuId;

use super::{again, again_at, cpupool, exclusive, progress};
use crate::abi::sysctl::{self as abi, CpuHotplug, Sysctl};
use crate::call::{Args, Caller, Outcome, Reply};
use crate::cpu::power::{self, Refusal, State};
use crate::error::Errno;

/// Progress of a call that has requested what it waits for.
const REQUESTED: u32 = 1;

/// Handles cpu_hotplug.
pub fn call(caller: &Caller<'_>, args: &Args, op: &Sysctl) -> Outcome {
    let op: CpuHotplug = op.body().ok_or(Errno::Fault)?;
    let Some(_exclusive) = exclusive() else {
        return again(args);
    };
    let cpu = CpuId::new(op.cpu)
        .filter(|cpu| power::state(*cpu) != State::Absent)
        .ok_or(Errno::Inval)?;
    let requested = progress(args).is_some();
    let step = match op.op {
        abi::CPU_HOTPLUG_ONLINE => on(cpu, requested)?,
        abi::CPU_HOTPLUG_OFFLINE => off(cpu, requested)?,
        _ => return Err(Errno::OpNotSupp),
    };
    match step {
        Step::Done => Ok(Reply::OK),
        Step::Wait => {
            caller.vcpu.yield_now();
            again(args)
        }
        Step::Requested => again_at(args, REQUESTED),
    }
}

/// Next step of a call.
#[derive(PartialEq, Eq, Debug)]
enum Step {
    Done,
    /// Asks again.
    Wait,
    /// Asks again, with [`REQUESTED`].
    Requested,
}

fn off(cpu: CpuId, requested: bool) -> Result<Step, Errno> {
    match power::state(cpu) {
        State::Off if requested => Ok(Step::Done),
        // Firmware has refused, and the CPU is free.
        State::On if requested => Err(Errno::Io),
        State::Off | State::Absent => Err(Errno::Exist),
        State::On if cpu == CpuId::BOOT => Err(Errno::Inval),
        State::On if !any_starts() => {
            power::check(cpu).map_err(number)?;
            cpupool::take(cpu)?;
            power::request_off(cpu);
            Ok(Step::Requested)
        }
        State::On | State::Leaving => Ok(Step::Wait),
        State::Starting => {
            power::poll_start(cpu);
            Ok(Step::Wait)
        }
    }
}

fn on(cpu: CpuId, requested: bool) -> Result<Step, Errno> {
    match power::state(cpu) {
        State::On if requested => {
            cpupool::give(cpu);
            Ok(Step::Done)
        }
        State::Off if requested => Err(Errno::Io),
        State::On | State::Absent => Err(Errno::Exist),
        State::Off if !any_starts() => {
            power::start(cpu).map_err(number)?;
            Ok(Step::Requested)
        }
        State::Off | State::Leaving => Ok(Step::Wait),
        State::Starting => {
            power::poll_start(cpu);
            Ok(Step::Wait)
        }
    }
}

/// Returns whether a CPU is being started. Firmware starts one at a time, and none while another one retires.
fn any_starts() -> bool {
    let starting = power::all(|state| state == State::Starting);
    starting.iter().any(|cpu| {
        power::poll_start(cpu);
        power::state(cpu) == State::Starting
    })
}

fn number(refusal: Refusal) -> Errno {
    match refusal {
        Refusal::NoFirmware => Errno::OpNotSupp,
        Refusal::Firmware(_) => Errno::Io,
    }
}
