//! Whom a hypercall is about: domain ids in arguments, and the right to name them.

use alloc::sync::Arc;

use super::Caller;
use crate::domain::{Domain, registry};
use crate::error::Errno;
use crate::id::DomId;

/// The domain that an operation is about.
pub enum Target<'a> {
    /// The caller's.
    Own(&'a Arc<Domain>),
    /// Another one.
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

/// Returns the domain named `id`, which may be the caller's own under its number or `DOMID_SELF`; `-ESRCH` when there is
/// none.
///
/// For operations that check rights themselves.
pub fn any<'a>(caller: &Caller<'a>, id: u16) -> Result<Target<'a>, Errno> {
    let id = DomId(id);
    if id == DomId::SELF || id == caller.domain.id {
        return Ok(Target::Own(caller.domain));
    }
    registry::get(id).map(Target::Other).ok_or(Errno::Srch)
}

/// Returns the domain named `id`, if the caller may act on it: itself, or any when it is the control domain.
///
/// A caller without the right learns `-EPERM` for every id that exists and `-ESRCH` for others, as under Xen.
pub fn control<'a>(caller: &Caller<'a>, id: u16) -> Result<Target<'a>, Errno> {
    let target = any(caller, id)?;
    if target.is_own() || caller.domain.is_control() {
        Ok(target)
    } else {
        Err(Errno::Perm)
    }
}

/// Returns the domain id that `id` means, whether or not such a domain exists.
pub fn resolve_id(caller: &Caller<'_>, id: u16) -> DomId {
    let id = DomId(id);
    if id == DomId::SELF {
        caller.domain.id
    } else {
        id
    }
}

/// Another domain than the caller's, by its number, which a control domain manages: `DOMID_SELF` names none.
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
