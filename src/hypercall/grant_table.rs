//! grant_table_op (20).
use super::{Args, Caller, Outcome};
use crate::error::Errno;

pub(super) fn call(_caller: &Caller<'_>, _args: &Args) -> Outcome {
    Err(Errno::NoSys)
}
