//! A domctl that was read: the domain that it names, its body, and the write of its result.

use alloc::sync::Arc;

use armv7::addr::GuestVa;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::abi::domctl::Domctl;
use crate::call::guest_ptr::write;
use crate::call::{Args, Caller, Outcome, Reply};
use crate::domain::{Domain, registry};
use crate::error::Errno;
use crate::id::DomId;

/// A domctl that was read, and the domain that it names.
pub(super) struct Request<'a> {
    /// The caller.
    pub caller: &'a Caller<'a>,
    /// Arguments of the call.
    pub args: &'a Args,
    /// A copy of the structure.
    pub op: Domctl,
}

impl Request<'_> {
    /// Returns the domain that it names.
    pub fn domain(&self) -> Result<Arc<Domain>, Errno> {
        registry::get(DomId(self.op.domain)).ok_or(Errno::Srch)
    }

    /// Returns the domain that it names. Fails for the caller's own.
    pub fn other(&self) -> Result<Arc<Domain>, Errno> {
        let domain = self.domain()?;
        if domain.id == self.caller.domain.id {
            Err(Errno::Inval)
        } else {
            Ok(domain)
        }
    }

    /// Returns the body.
    pub fn body<T: FromBytes + KnownLayout + Immutable>(&self) -> Result<T, Errno> {
        self.op.body().ok_or(Errno::Fault)
    }

    fn at(&self) -> GuestVa {
        self.args.ptr(0)
    }

    /// Writes a body back.
    pub fn write_back<T: IntoBytes + Immutable>(&self, body: &T) -> Outcome {
        let at = self.at().checked_add(Domctl::BODY).ok_or(Errno::Fault)?;
        write(self.caller.domain, at, body)?;
        Ok(Reply::OK)
    }

    /// Writes a domain's id and a body back.
    pub fn write_back_for<T: IntoBytes + Immutable>(&self, id: DomId, body: &T) -> Outcome {
        let at = self.at().checked_add(Domctl::DOMAIN).ok_or(Errno::Fault)?;
        write(self.caller.domain, at, &id.0)?;
        self.write_back(body)
    }
}
