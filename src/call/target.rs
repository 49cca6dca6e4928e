//! Target domains of hypercalls: domain ids in arguments, and rights over them.

use alloc::sync::Arc;

use super::Caller;
use crate::domain::{Domain, registry};
use crate::error::Errno;
use crate::id::DomId;

/// Target of an operation.
pub enum Target<'a> {
    /// The caller's domain.
    Own(&'a Arc<Domain>),
    /// Another domain.
    Other(Arc<Domain>),
}

impl Target<'_> {
    /// Returns the domain.
    pub fn domain(&self) -> &Arc<Domain> {
        match self {
            Self::Own(domain) => domain,
            Self::Other(domain) => domain,
        }
    }

    /// Returns whether it is the caller's own.
    pub fn is_own(&self) -> bool {
        matches!(self, Self::Own(_))
    }
}

/// Returns the domain with the id `id`, which may be the caller's own id or `DOMID_SELF`. Fails with `-ESRCH` if there
/// is none.
///
/// For operations that check rights themselves.
pub fn any<'a>(caller: &Caller<'a>, id: u16) -> Result<Target<'a>, Errno> {
    let id = DomId(id);
    if id == DomId::SELF || id == caller.domain.id {
        return Ok(Target::Own(caller.domain));
    }
    registry::get(id).map(Target::Other).ok_or(Errno::Srch)
}

/// Returns the domain with the id `id`, if the caller may act on it: its own, or any for the control domain.
///
/// Without the right, the error is `-EPERM` for every id that exists and `-ESRCH` for others, as in Xen.
pub fn control<'a>(caller: &Caller<'a>, id: u16) -> Result<Target<'a>, Errno> {
    let target = any(caller, id)?;
    if target.is_own() || caller.domain.is_control() {
        Ok(target)
    } else {
        Err(Errno::Perm)
    }
}

/// Returns the domain id for `id`, with `DOMID_SELF` resolved, whether or not the domain exists.
pub fn resolve_id(caller: &Caller<'_>, id: u16) -> DomId {
    let id = DomId(id);
    if id == DomId::SELF {
        caller.domain.id
    } else {
        id
    }
}

/// Returns a domain other than the caller's, by its id, for management. `DOMID_SELF` is not accepted.
pub fn remote(caller: &Caller<'_>, id: u16) -> Result<Arc<Domain>, Errno> {
    if DomId(id) == caller.domain.id {
        return Err(Errno::Perm);
    }
    let domain = registry::get(DomId(id)).ok_or(Errno::Srch)?;
    if caller.domain.is_control() {
        Ok(domain)
    } else {
        Err(Errno::Perm)
    }
}
