//! The audit of the whole machine: the reference count of each frame must equal the number of its known holders.

use armv7::addr::Gfn;

use super::{Domain, registry};
use crate::mem::audit::{Discrepancy, Name};
use crate::mem::memory;

/// Compares the frame table with the references that all domains hold. All other CPUs must be held meanwhile
/// (`cpu::hold::others_wait`).
pub fn audit() -> Result<(), Discrepancy> {
    memory().audit(|name| {
        for domain in registry::all() {
            name_all(&domain, name);
        }
    })
}

/// Names every reference of a domain: those of its map, of the pages that the hypervisor keeps for it, and of the pages
/// that it has granted and that are in use.
fn name_all(domain: &Domain, name: Name<'_>) {
    if let Some(start) = Gfn::new(0) {
        domain.p2m.lock().visit(start, |run| {
            if run.kind.is_ram() {
                name(run.mfn, run.count);
            }
            true
        });
    }
    let events = domain.events.lock();
    events.pages().for_each(|page| name(page.mfn(), 1));
    drop(events);
    let grants = domain.grants.lock();
    grants.pages().for_each(|page| name(page.mfn(), 1));
    grants.pinned_frames().for_each(|mfn| name(mfn, 1));
    drop(grants);
    if let Some(mfn) = super::uart::ring_page(domain) {
        name(mfn, 1);
    }
    for vcpu in domain.vcpus() {
        let runstate = vcpu.runstate.lock();
        runstate.pages().for_each(|page| name(page.mfn(), 1));
    }
}
