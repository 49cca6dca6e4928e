//! Zombies: dead domains that stay findable by their ids while others use their pages.

use core::sync::atomic::{AtomicU32, Ordering};

use super::exclusive;
use crate::domain::{Domain, Life, create, registry, shutdown};
use crate::mem::memory;

/// Entries of a dying or dead domain's memory map removed before others may run.
pub(super) const ENTRIES_AT_ONCE: u32 = 512;

/// Dead domains that are still findable.
static ZOMBIES: AtomicU32 = AtomicU32::new(0);

/// Counts a domain that is dead from here on, and tells the toolstack.
pub(super) fn add_zombie() {
    ZOMBIES.fetch_add(1, Ordering::Relaxed);
    shutdown::announce();
}

/// Forgets dead domains whose last page is gone, if nobody is changing domains' lives right now. Cheap when there are none.
/// Returns whether there was one.
#[inline]
pub fn reap() -> bool {
    if has_zombies()
        && let Some(_exclusive) = exclusive()
    {
        return forget_abandoned();
    }
    false
}

/// Returns whether there may be something to reap.
fn has_zombies() -> bool {
    ZOMBIES.load(Ordering::Relaxed) > 0
}

/// Forgets the dead domains whose pages nobody uses any more, and returns whether there was one. The caller has the exclusive
/// right to change domains' lives.
pub(super) fn forget_abandoned() -> bool {
    let mut forgot = false;
    if has_zombies() {
        for domain in registry::all_that(|domain| domain.state.lock().life == Life::Dead) {
            // A call that began before the domain's end may have mapped a page since.
            let empty = domain.p2m.lock().relinquish(ENTRIES_AT_ONCE);
            if empty && is_abandoned(&domain) {
                forget(&domain);
                forgot = true;
            }
        }
    }
    while memory().take_emptied().is_some() {}
    forgot
}

/// Returns whether nobody uses a page of the domain or a grant. Its shared_info goes with the domain itself.
fn is_abandoned(domain: &Domain) -> bool {
    /// The domain's own shared_info.
    const KEPT: u32 = 1;
    let idle = domain.grants.lock().is_idle();
    idle && memory()
        .account(domain.id)
        .is_none_or(|account| account.total == 0 && account.shared <= KEPT)
}

fn forget(domain: &Domain) {
    create::remove_vcpus(domain.vcpus());
    registry::remove(domain.id);
    ZOMBIES.fetch_sub(1, Ordering::Relaxed);
    shutdown::announce();
}
