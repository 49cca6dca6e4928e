//! Asynchronous aborts: whose they are, and what `serrors=` makes of them.
//!
//! Nothing tells which access caused one (DDI 0406C.d B3.12.4). It is put down to the guest whose vCPU is loaded when it
//! arises. While that guest runs the abort traps at once. While the hypervisor runs it stays pending, so it is looked for
//! where guests change: before a vCPU is taken off, once its accesses are complete, and when an idle CPU wakes. An abort
//! that the hypervisor's own accesses cause while a vCPU is loaded is put down to that guest too; to tell the two apart
//! Xen completes all accesses at each entry and exit, which would cost each hypercall more than the rest of it.

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

/// The treatment of an asynchronous abort.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    /// The loaded guest gets it.
    Forward,
    /// The machine stops.
    Stop,
}

/// The origin of an abort: with a guest loaded, or without.
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

/// Returns whether an abort must be looked for before a vCPU is taken off: where it matters which guest gets it.
const fn settles(policy: Serrors) -> bool {
    matches!(policy, Serrors::Diverse)
}

fn policy() -> Serrors {
    options::get().map_or(Serrors::Diverse, |options| options.serrors)
}

/// An abort that the loaded guest trapped for.
#[cold]
pub fn arrived(domain: &Arc<Domain>, vcpu: &Arc<Vcpu>) {
    handle(policy(), Some((domain, vcpu)));
}

/// Takes the abort that is still to come of what the loaded guest did, before it is taken off this CPU.
#[inline]
pub fn settle(domain: &Arc<Domain>, vcpu: &Arc<Vcpu>) {
    let policy = policy();
    if settles(policy) && abort::settle() {
        handle(policy, Some((domain, vcpu)));
    }
}

/// Takes an abort that is pending while this CPU idles, which keeps it from waiting. The guest that gets it has waited for
/// an interrupt, and waits no more (DDI 0406C.d B1.8.13).
#[inline]
pub fn look_while_idle(loaded: Loaded<'_>) {
    if abort::is_pending() && abort::settle() {
        handle(policy(), loaded);
        if let Some((_, vcpu)) = loaded {
            vcpu.unhalt(halt::BLOCKED);
        }
    }
}

/// # Panics
/// When the policy is that the machine stops.
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

    use super::{Serrors, Source, Verdict, halt, handle, judge, look_while_idle, settle, settles};
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
        assert!(settles(Serrors::Diverse));
        assert!(!settles(Serrors::Forward) && !settles(Serrors::Panic));
    }

    #[test]
    fn a_late_abort_goes_to_the_guest_that_is_taken_off() {
        let (domain, vcpu) = guest(Rights::GUEST, NO_TLB, &[]);
        settle(&domain, &vcpu);
        assert!(!has_async_abort(), "there was none");
        set_async_abort(true);
        settle(&domain, &vcpu);
        assert!(has_async_abort());
        assert!(!armv7::abort::is_pending(), "nobody else gets it");
    }

    #[test]
    fn an_abort_on_an_idle_cpu_is_the_loaded_guest_s_and_wakes_it() {
        let (domain, vcpu) = guest(Rights::GUEST, NO_TLB, &[]);
        vcpu.unhalt(halt::OFFLINE);
        vcpu.halt(halt::BLOCKED);
        look_while_idle(Some((&domain, &vcpu)));
        assert!(!has_async_abort());
        assert_eq!(vcpu.halted(), halt::BLOCKED);
        set_async_abort(true);
        look_while_idle(Some((&domain, &vcpu)));
        assert!(has_async_abort());
        assert_eq!(vcpu.halted(), 0);
    }

    #[test]
    #[should_panic(expected = "asynchronous abort with no guest loaded")]
    fn an_abort_on_an_idle_cpu_without_a_guest_stops_the_machine() {
        look_while_idle(None);
        set_async_abort(true);
        look_while_idle(None);
    }

    #[test]
    #[should_panic(expected = "v0 loaded")]
    fn the_policy_panic_spares_nobody() {
        let (domain, vcpu) = guest(Rights::GUEST, NO_TLB, &[]);
        handle(Serrors::Panic, Some((&domain, &vcpu)));
    }
}
