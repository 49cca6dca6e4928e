//! Who may share memory and events with whom: Xen's SILO rule, or none (`xsm=dummy`).
//!
//! Under SILO two domains may be connected only when one of them, or whoever asks, is the control domain.

use core::sync::atomic::{AtomicBool, Ordering};

use crate::domain::{Domain, registry};
use crate::error::Errno;
use crate::id::DomId;

static SILO: AtomicBool = AtomicBool::new(true);

/// Chooses between SILO and no rule.
pub fn set_silo(on: bool) {
    SILO.store(on, Ordering::Relaxed);
}

/// Whether `caller` may connect `a` and `b`.
#[inline]
pub fn may_share(caller: &Domain, a: DomId, b: DomId) -> Result<(), Errno> {
    let is_control = |id: DomId| registry::get(id).is_some_and(|domain| domain.is_control());
    if a == b
        || caller.is_control()
        || !SILO.load(Ordering::Relaxed)
        || is_control(a)
        || is_control(b)
    {
        Ok(())
    } else {
        Err(Errno::Perm)
    }
}
