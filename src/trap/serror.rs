//! Asynchronous aborts: attributing them, and the policies of `serrors=`.
//!
//! The hardware does not report which access caused one (DDI 0406C.d B3.12.4). It is attributed to the guest whose vCPU
//! is loaded when it arrives. While that guest runs, the abort traps at once. While the hypervisor runs, the abort
//! stays pending, so it is checked for where guests change: before a vCPU is unloaded, once its accesses are complete,
//! and when an idle CPU wakes. An abort caused by the hypervisor while a vCPU is loaded is attributed to that guest
//! too. Xen tells the two apart by completing all accesses at each entry and exit, which would more than double the
//! cost of a hypercall.

use alloc::sync::Arc;

use armv7::abort;
use armv7::guest;

use crate::cmdline::Serrors;
use crate::domain::Domain;
use crate::guest_warn;
use crate::options;
use crate::vcpu::{Vcpu, halt};

/// The domain and vCPU that are loaded on this CPU.
type Loaded<'a> = Option<(&'a Arc<Domain>, &'a Arc<Vcpu>)>;

/// Treatment of an asynchronous abort.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    /// The loaded guest takes it.
    Forward,
    /// The machine stops.
    Stop,
}

/// Origin of an abort: a guest was loaded, or none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Source {
    Guest,
    Hypervisor,
}

const fn judge(policy: Serrors, source: Source) -> Verdict {
    match (policy, source) {
        (Serrors::Diverse | Serrors::Forward, Source::Guest) => Verdict::Forward,
        (Serrors::Panic, _) | (_, Source::Hypervisor) => Verdict::Stop,
    }
}

/// Returns whether to take pending aborts before a vCPU is unloaded: only where it matters which guest gets them.
const fn synchronizes(policy: Serrors) -> bool {
    matches!(policy, Serrors::Diverse)
}

fn policy() -> Serrors {
    options::get().map_or(Serrors::Diverse, |options| options.serrors)
}

/// Handles an abort that trapped from the loaded guest.
#[cold]
pub fn arrived(domain: &Arc<Domain>, vcpu: &Arc<Vcpu>) {
    handle(policy(), Some((domain, vcpu)));
}

/// Takes the abort that the loaded guest's accesses may still cause, before it is unloaded from this CPU.
pub fn synchronize(domain: &Arc<Domain>, vcpu: &Arc<Vcpu>) {
    let policy = policy();
    if synchronizes(policy) && abort::synchronize() {
        handle(policy, Some((domain, vcpu)));
    }
}

/// Takes an abort that is pending while this CPU idles, as it would end every WFI. The guest that gets it stops waiting
/// (DDI 0406C.d B1.8.13).
pub fn poll_idle(loaded: Loaded<'_>) {
    if abort::is_pending() && abort::synchronize() {
        handle(policy(), loaded);
        if let Some((_, vcpu)) = loaded {
            vcpu.unhalt(halt::BLOCKED);
        }
    }
}

/// Forwards the abort to the loaded guest, or stops the machine.
///
/// # Panics
/// If `policy` is to stop the machine.
#[cold]
fn handle(policy: Serrors, loaded: Loaded<'_>) {
    let source = match loaded {
        Some(_) => Source::Guest,
        None => Source::Hypervisor,
    };
    match (judge(policy, source), loaded) {
        (Verdict::Forward, Some((domain, vcpu))) => {
            guest_warn!(domain, vcpu, "Asynchronous abort, given to the guest");
            guest::raise_async_abort();
        }
        (_, Some((_, vcpu))) => panic!("asynchronous abort with {vcpu} loaded"),
        (_, None) => panic!("asynchronous abort with no guest loaded"),
    }
}

#[cfg(test)]
mod tests {
    use armv7::guest::has_async_abort;
    use armv7::host::registers::set_async_abort;

    use super::{
        Serrors, Source, Verdict, halt, handle, judge, poll_idle, synchronize, synchronizes,
    };
    use crate::domain::Rights;
    use crate::domain::testing::{NO_TLB, guest};

    #[test]
    fn each_policy_judges_as_its_name_says() {
        use Source::{Guest, Hypervisor};
        let all = [
            (Serrors::Diverse, Guest, Verdict::Forward),
            (Serrors::Diverse, Hypervisor, Verdict::Stop),
            (Serrors::Forward, Guest, Verdict::Forward),
            (Serrors::Forward, Hypervisor, Verdict::Stop),
            (Serrors::Panic, Guest, Verdict::Stop),
            (Serrors::Panic, Hypervisor, Verdict::Stop),
        ];
        for (policy, source, verdict) in all {
            assert_eq!(judge(policy, source), verdict, "{policy:?} {source:?}");
        }
        assert!(synchronizes(Serrors::Diverse));
        assert!(!synchronizes(Serrors::Forward) && !synchronizes(Serrors::Panic));
    }

    #[test]
    fn a_late_abort_goes_to_the_guest_that_is_taken_off() {
        let (domain, vcpu) = guest(Rights::GUEST, NO_TLB, &[]);
        synchronize(&domain, &vcpu);
        assert!(!has_async_abort(), "there was none");
        set_async_abort(true);
        synchronize(&domain, &vcpu);
        assert!(has_async_abort());
        assert!(!armv7::abort::is_pending(), "nobody else gets it");
    }

    #[test]
    fn an_abort_on_an_idle_cpu_is_the_loaded_guest_s_and_wakes_it() {
        let (domain, vcpu) = guest(Rights::GUEST, NO_TLB, &[]);
        vcpu.unhalt(halt::OFFLINE);
        vcpu.halt(halt::BLOCKED);
        poll_idle(Some((&domain, &vcpu)));
        assert!(!has_async_abort());
        assert_eq!(vcpu.halted(), halt::BLOCKED);
        set_async_abort(true);
        poll_idle(Some((&domain, &vcpu)));
        assert!(has_async_abort());
        assert_eq!(vcpu.halted(), 0);
    }

    #[test]
    #[should_panic(expected = "asynchronous abort with no guest loaded")]
    fn an_abort_on_an_idle_cpu_without_a_guest_stops_the_machine() {
        poll_idle(None);
        set_async_abort(true);
        poll_idle(None);
    }

    #[test]
    #[should_panic(expected = "v0 loaded")]
    fn the_policy_panic_spares_nobody() {
        let (domain, vcpu) = guest(Rights::GUEST, NO_TLB, &[]);
        handle(Serrors::Panic, Some((&domain, &vcpu)));
    }
}
