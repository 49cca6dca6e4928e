//! destroydomain, in bounded steps.
//!
//! The steps: vCPUs stop and their registers are saved, event channels are closed and their peers notified, the grants that
//! the domain has mapped are unmapped, its stage 2 is emptied. A continued call begins with the first step again, and each
//! step finds the rest that earlier calls left. Devices of the domain are free for another one once it cannot reach them.
//! Then the domain is dead: a zombie, found by its id while other domains use its pages. [`super::reap`] removes it after
//! the last of them.
//!
//! The call never waits for a vCPU to stop: it is continued until its CPU has saved it.

use alloc::sync::Arc;

use super::request::Request;
use super::{again, cpupool, exclusive, pages, reap};
use crate::call::{Outcome, Reply, must_pause};
use crate::cpu;
use crate::domain::{Domain, Halted, Life, close_ports, create, grants, uart, virq};
use crate::error::Errno;
use crate::event::EventError;
use crate::mem::memory;
use crate::passthrough;
use crate::sched::{self, PoolId};
use crate::vcpu::halt;

/// The number of frames of the grant table that one call frees.
const FRAMES_AT_ONCE: u32 = 16;
/// The number of grant handles that one call reads.
const HANDLES_AT_ONCE: u32 = 64;

/// Handles destroydomain.
pub fn destroy(request: &Request<'_>) -> Outcome {
    let domain = request.other()?;
    if domain.rights.hardware {
        return Err(Errno::Inval);
    }
    let Some(_exclusive) = exclusive() else {
        return again(request.args);
    };
    let outcome = step(&domain);
    if domain.may_restart() {
        cpu::request_this(cpu::work::RESTARTS);
    }
    match outcome {
        Step::Done => Ok(Reply::OK),
        Step::More => again(request.args),
    }
}

/// Destroys a domain that could not be completed at boot. None of its vCPUs has run.
pub fn undo(domain: Arc<Domain>) {
    if let Some(_exclusive) = exclusive() {
        at_once(domain);
    }
}

/// Does the next steps of destroying a domain. Returns true when it is dead.
pub fn undo_some(domain: &Arc<Domain>) -> bool {
    exclusive().is_some_and(|_exclusive| step(domain) == Step::Done)
}

/// [`undo`] with the exclusive right to change domains' lives.
pub(super) fn at_once(domain: Arc<Domain>) {
    while step(&domain) == Step::More {}
    reap::forget_abandoned();
    // Its shared_info is freed with the last reference to the domain, and its account after that.
    drop(domain);
    reap::forget_abandoned();
}

/// The outcome of one pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Done,
    More,
}

fn step(domain: &Arc<Domain>) -> Step {
    let life = domain.state.lock().life;
    match life {
        Life::Alive => begin(domain),
        Life::Dying => {}
        Life::Dead => return Step::Done,
    }
    let done = is_unloaded(domain)
        && passthrough::take_interrupts(domain)
        && drop_watchdogs(domain)
        && has_closed_ports(domain)
        && grants::release_all(domain, HANDLES_AT_ONCE)
        && give_frames_back(domain)
        && domain.p2m.lock().relinquish(reap::ENTRIES_AT_ONCE)
        && empty_pool(domain);
    if !done {
        return Step::More;
    }
    passthrough::forget(domain.id);
    domain.state.lock().life = Life::Dead;
    reap::add_zombie();
    Step::Done
}

/// Marks the domain as dying and halts its vCPUs for good.
fn begin(domain: &Domain) {
    let mut state = domain.state.lock();
    state.life = Life::Dying;
    let unfinished = core::mem::take(&mut state.unfinished);
    drop(state);
    create::remove_vcpus(&unfinished);
    // From here on it gets no page. Its id stays in use until its last page is freed.
    memory().close_account(domain.id);
    domain.set_halted_all(halt::GONE, Halted::Yes);
    // Its pool can then be removed while others still use its pages.
    cpupool::move_domain(domain, PoolId::FIRST);
    domain.events.lock().retire();
    domain.grants.lock().close();
    virq::forget(domain.id);
    uart::end(domain);
}

/// Returns whether the registers of all vCPUs are saved. Asks the CPUs that still have some to save them.
fn is_unloaded(domain: &Domain) -> bool {
    let mut all = true;
    for vcpu in domain.vcpus() {
        let mut scheduler = sched::lock();
        let cpu = scheduler.unload(vcpu.unit);
        all &= cpu.is_none() && !scheduler.is_on_cpu(vcpu.unit);
        drop(scheduler);
        if let Some(cpu) = cpu {
            cpu::repick(cpu);
        }
    }
    all
}

/// Removes the domain's watchdogs. Its vCPUs have stopped, so none is set again. One that was left would shut down the next
/// domain with this id.
fn drop_watchdogs(domain: &Domain) -> bool {
    *domain.watchdogs.lock() = [None, None];
    true
}

/// Closes ports of the domain. Returns true when none is left.
fn has_closed_ports(domain: &Domain) -> bool {
    match close_ports(domain, must_pause) {
        Ok(done) => done,
        // An earlier pass has ended the reset.
        Err(EventError::ResetBusy) => true,
        Err(_) => {
            // Another call was closing a port. It is done by the next pass.
            domain.events.lock().retire();
            false
        }
    }
}

/// Unpins the run-state areas, and frees frames of the grant table. Returns true when there is none left.
fn give_frames_back(domain: &Domain) -> bool {
    for vcpu in domain.vcpus() {
        vcpu.runstate.lock().register(None);
    }
    (0..FRAMES_AT_ONCE).any(|_| domain.grants.lock().take_frame().is_none())
}

fn empty_pool(domain: &Domain) -> bool {
    // Tables that are in use are freed with the map itself.
    domain
        .p2m
        .lock()
        .resize_pool(0, pages::TABLES_AT_ONCE)
        .unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use armv7::addr::Gfn;

    use super::super::reap::forget_abandoned;
    use super::{Step, begin, exclusive, step};
    use crate::domain::testing::{NO_TLB, guest};
    use crate::domain::{Domain, Life, Rights, registry};
    use crate::id::DomId;
    use crate::mem::memory;
    use crate::mem::p2m::Access;
    use crate::time::{Purpose, Timer};

    /// Takes `domain` apart.
    fn destroy(domain: &Arc<Domain>) {
        assert!((0..100).any(|_| exclusively(|| step(domain)) == Step::Done));
    }

    /// Returns whether nobody finds the domain, after as many looks at its map as one takes that is empty.
    fn is_forgotten(id: DomId) -> bool {
        (0..4).any(|_| {
            exclusively(forget_abandoned);
            registry::get(id).is_none()
        })
    }

    /// Other tests end domains too.
    fn exclusively<R>(f: impl FnOnce() -> R) -> R {
        let _exclusive = loop {
            match exclusive() {
                Some(right) => break right,
                None => std::thread::yield_now(),
            }
        };
        f()
    }

    #[test]
    fn a_domain_that_nobody_uses_leaves_nothing_behind() {
        let (domain, _vcpu) = guest(Rights::GUEST, NO_TLB, &[0, 1, 2]);
        let id = domain.id;
        destroy(&domain);
        assert!(is_forgotten(id));
        assert_eq!(domain.state.lock().life, Life::Dead);
        // Its shared_info goes with the last that knows the domain.
        assert_eq!(memory().account(id).map(|account| account.total), Some(0));
        drop(domain);
        exclusively(forget_abandoned);
        assert!(memory().account(id).is_none());
    }

    #[test]
    fn a_page_that_another_uses_keeps_a_dead_domain_findable() {
        let (domain, _vcpu) = guest(Rights::GUEST, NO_TLB, &[0, 1]);
        let id = domain.id;
        let pinned = domain.p2m.lock().pin(Gfn::new(1).unwrap(), Access::Read);
        destroy(&domain);
        assert!(!is_forgotten(id));
        assert_eq!(memory().account(id).map(|account| account.total), Some(1));
        drop(pinned);
        assert!(is_forgotten(id));
    }

    #[test]
    fn a_watchdog_that_was_set_while_the_domain_began_to_end_goes_too() {
        let (domain, _vcpu) = guest(Rights::GUEST, NO_TLB, &[0]);
        begin(&domain);
        let timer = Timer::new(Purpose::Watchdog(domain.id)).unwrap();
        domain.watchdogs.lock()[0] = Some(timer);
        destroy(&domain);
        assert!(domain.watchdogs.lock().iter().all(Option::is_none));
    }
}
