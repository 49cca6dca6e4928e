//! Policy for sharing memory and events between domains: Xen's SILO, or none (`xsm=dummy`).
//!
//! Under SILO two domains may be connected only if one of them, or the caller, is the control domain.

use core::sync::atomic::{AtomicBool, Ordering};

use crate::domain::{Domain, registry};
use crate::error::Errno;
use crate::id::DomId;

static SILO: AtomicBool = AtomicBool::new(true);

/// Enables or disables SILO.
pub fn set_silo(on: bool) {
    SILO.store(on, Ordering::Relaxed);
}

/// Returns whether `caller` may connect `a` and `b`.
pub fn may_share(caller: &Domain, a: DomId, b: DomId) -> Result<(), Errno> {
    may_share_under(SILO.load(Ordering::Relaxed), caller, a, b)
}

fn may_share_under(silo: bool, caller: &Domain, a: DomId, b: DomId) -> Result<(), Errno> {
    let is_control = |id: DomId| registry::get(id).is_some_and(|domain| domain.is_control());
    if a == b || caller.is_control() || !silo || is_control(a) || is_control(b) {
        Ok(())
    } else {
        Err(Errno::Perm)
    }
}

#[cfg(test)]
mod tests {
    use super::{may_share, may_share_under};
    use crate::domain::Rights;
    use crate::domain::testing::{NO_TLB, guest};
    use crate::error::Errno;

    #[test]
    fn under_silo_one_of_two_domains_or_who_asks_is_the_control_domain() {
        let (control, _) = guest(Rights::DOM0, NO_TLB, &[]);
        let (first, _) = guest(Rights::GUEST, NO_TLB, &[]);
        let (second, _) = guest(Rights::GUEST, NO_TLB, &[]);
        for (caller, a, b, answer) in [
            (&first, &first, &second, Err(Errno::Perm)),
            (&first, &second, &first, Err(Errno::Perm)),
            (&first, &second, &second, Ok(())),
            (&first, &first, &first, Ok(())),
            (&first, &first, &control, Ok(())),
            (&first, &control, &first, Ok(())),
            (&control, &first, &second, Ok(())),
        ] {
            // It is the rule unless the command line has another.
            assert_eq!(may_share(caller, a.id, b.id), answer);
            assert_eq!(may_share_under(true, caller, a.id, b.id), answer);
            assert_eq!(may_share_under(false, caller, a.id, b.id), Ok(()));
        }
    }
}
