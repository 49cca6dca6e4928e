//! domctl (36).
use crate::error::Errno;
use crate::hypercall::{Args, Caller, Outcome};

/// Carries out a domctl.
pub fn call(caller: &Caller<'_>, _args: &Args) -> Outcome {
    if !caller.domain.is_control() {
        return Err(Errno::Perm);
    }
    Err(Errno::NoSys)
}
