//! pausedomain, unpausedomain and resumedomain.

use super::request::Request;
use super::{again, again_at, exclusive, progress};
use crate::call::{Outcome, Reply};
use crate::domain::{Domain, Halted, uart};
use crate::error::Errno;
use crate::sched;
use crate::vcpu::halt;

/// Returns whether some vCPU of `domain` is on a CPU, which may not have seen yet that it halts.
pub(super) fn is_running(domain: &Domain) -> bool {
    let scheduler = sched::lock();
    domain
        .vcpus()
        .iter()
        .any(|vcpu| scheduler.is_on_cpu(vcpu.unit))
}

/// Pauses a domain once more. Is continued until none of its vCPUs runs.
pub fn pause(request: &Request<'_>) -> Outcome {
    /// The progress of a call that has counted its pause.
    const PAUSED: u32 = 1;
    let domain = request.other()?;
    if progress(request.args) != Some(PAUSED) {
        let Some(_exclusive) = exclusive() else {
            return again(request.args);
        };
        let mut state = domain.state.lock();
        state.pause_count = state.pause_count.checked_add(1).ok_or(Errno::Overflow)?;
        drop(state);
        domain.set_halted_all(halt::PAUSED, Halted::Yes);
    }
    if is_running(&domain) {
        return again_at(request.args, PAUSED);
    }
    Ok(Reply::OK)
}

/// Undoes one pause.
pub fn unpause(request: &Request<'_>) -> Outcome {
    let domain = request.domain()?;
    let Some(_exclusive) = exclusive() else {
        return again(request.args);
    };
    let mut state = domain.state.lock();
    state.pause_count = state.pause_count.checked_sub(1).ok_or(Errno::Inval)?;
    let goes_on = state.pause_count == 0;
    drop(state);
    if goes_on {
        domain.set_halted_all(halt::PAUSED, Halted::No);
    }
    Ok(Reply::OK)
}

/// Undoes a shutdown.
pub fn resume(request: &Request<'_>) -> Outcome {
    let domain = request.other()?;
    let Some(_exclusive) = exclusive() else {
        return again(request.args);
    };
    let mut state = domain.state.lock();
    state.shutdown_code = None;
    let was_down = state.shutdown.take().is_some();
    drop(state);
    if was_down {
        uart::reopen(&domain);
        domain.set_halted_all(halt::SHUTDOWN, Halted::No);
    }
    Ok(Reply::OK)
}
