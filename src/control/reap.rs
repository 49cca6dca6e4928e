//! Zombies: dead domains that can be found by their ids while others use their pages.

use core::sync::atomic::{AtomicU32, Ordering};

use super::exclusive;
use crate::domain::{Domain, Life, create, registry, shutdown};
use crate::mem::memory;

/// The number of entries of a dying or dead domain's stage 2 that one call removes.
pub(super) const ENTRIES_AT_ONCE: u32 = 512;

/// The number of zombies.
static ZOMBIES: AtomicU32 = AtomicU32::new(0);

/// Counts a domain that is dead from here on, and notifies the toolstack.
pub(super) fn add_zombie() {
    ZOMBIES.fetch_add(1, Ordering::Relaxed);
    shutdown::announce();
}

/// Removes zombies whose pages are all free, unless another call changes domains' lives right now. Cheap when there are
/// none. Returns whether it removed one.
pub fn reap() -> bool {
    if has_zombies()
        && let Some(_exclusive) = exclusive()
    {
        return forget_abandoned();
    }
    false
}

/// Returns whether there are zombies.
fn has_zombies() -> bool {
    ZOMBIES.load(Ordering::Relaxed) > 0
}

/// Removes zombies whose pages are all free, and returns whether it removed one. The caller has the exclusive right to
/// change domains' lives.
pub(super) fn forget_abandoned() -> bool {
    let mut forgot = false;
    if has_zombies() {
        for domain in registry::all_that(|domain| domain.state.lock().life == Life::Dead) {
            // A call that began before the domain died may have mapped a page since.
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

/// Returns whether no page and no grant of the domain is in use. Its shared_info is freed with the domain itself.
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
