//! The list of all domains, and the vCPU of each scheduler unit.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::Domain;
use crate::id::DomId;
use crate::sched::UnitId;
use crate::sync::{Lock, rank};
use crate::vcpu::Vcpu;

struct Registry {
    /// By id, ascending.
    domains: Vec<Arc<Domain>>,
    /// By unit number.
    units: Vec<Option<(Arc<Domain>, Arc<Vcpu>)>>,
}

static REGISTRY: Lock<Registry, { rank::REGISTRY }> = Lock::new(Registry {
    domains: Vec::new(),
    units: Vec::new(),
});

/// The errors of [`insert`] and [`insert_unit`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RegistryError {
    /// The id is taken.
    Exists,
    /// The heap is full.
    NoMemory,
}

/// Adds a domain.
pub fn insert(domain: Arc<Domain>) -> Result<(), RegistryError> {
    let domains = &mut REGISTRY.lock().domains;
    match domains.binary_search_by_key(&domain.id, |other| other.id) {
        Ok(_) => Err(RegistryError::Exists),
        Err(place) => {
            domains
                .try_reserve(1)
                .map_err(|_| RegistryError::NoMemory)?;
            domains.insert(place, domain);
            Ok(())
        }
    }
}

/// Removes a domain. Its memory is freed when its last user drops it.
pub fn remove(id: DomId) {
    let mut registry = REGISTRY.lock();
    let removed = registry
        .domains
        .binary_search_by_key(&id, |other| other.id)
        .ok()
        .map(|n| registry.domains.remove(n));
    drop(registry);
    drop(removed);
}

/// Returns the domain `id`.
pub fn get(id: DomId) -> Option<Arc<Domain>> {
    let domains = &REGISTRY.lock().domains;
    let place = domains.binary_search_by_key(&id, |other| other.id).ok()?;
    domains.get(place).cloned()
}

/// Returns the first domain whose id is at least `id`.
pub fn at_or_after(id: DomId) -> Option<Arc<Domain>> {
    first_that(id, |_| true)
}

/// Returns the first domain whose id is at least `id` and for which `is_wanted` holds.
fn first_that(id: DomId, is_wanted: impl Fn(&Domain) -> bool) -> Option<Arc<Domain>> {
    let domains = &REGISTRY.lock().domains;
    let place = domains.partition_point(|other| other.id < id);
    let mut rest = domains.iter().skip(place);
    rest.find(|domain| is_wanted(domain)).cloned()
}

/// Returns all domains, lowest id first. The lock is not held between two of them.
pub fn all() -> impl Iterator<Item = Arc<Domain>> {
    all_that(|_| true)
}

/// Returns the domains for which `is_wanted` holds. It is called under the registry's lock.
pub fn all_that(is_wanted: impl Fn(&Domain) -> bool) -> impl Iterator<Item = Arc<Domain>> {
    let mut next = Some(DomId(0));
    core::iter::from_fn(move || {
        let domain = first_that(next?, &is_wanted)?;
        next = domain.id.0.checked_add(1).map(DomId);
        Some(domain)
    })
}

/// Records the vCPU of `unit`.
pub fn insert_unit(
    unit: UnitId,
    domain: Arc<Domain>,
    vcpu: Arc<Vcpu>,
) -> Result<(), RegistryError> {
    let units = &mut REGISTRY.lock().units;
    let index = usize::from(unit.raw());
    let missing = (index + 1).saturating_sub(units.len());
    units
        .try_reserve(missing)
        .map_err(|_| RegistryError::NoMemory)?;
    if missing > 0 {
        units.resize_with(index + 1, || None);
    }
    if let Some(entry) = units.get_mut(index) {
        *entry = Some((domain, vcpu));
    }
    Ok(())
}

/// Forgets the vCPU of `unit`.
pub fn remove_unit(unit: UnitId) {
    let entry = REGISTRY
        .lock()
        .units
        .get_mut(usize::from(unit.raw()))
        .and_then(Option::take);
    drop(entry);
}

/// Returns the domain and vCPU behind `unit`.
pub fn unit(unit: UnitId) -> Option<(Arc<Domain>, Arc<Vcpu>)> {
    REGISTRY
        .lock()
        .units
        .get(usize::from(unit.raw()))
        .cloned()
        .flatten()
}
