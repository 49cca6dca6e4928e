//! multicall (13): several hypercalls in one.
//!
//! Each entry is read once, carried out, and its result written back. One that must be continued is rewritten with its new
//! arguments, and the multicall continued from it. Entries may not be multicalls themselves.

use armv7::addr::GuestVa;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::guest_ptr::{element, read, write};
use super::{Args, Budget, Caller, Outcome, Reply, number};
use crate::domain::shutdown;
use crate::error::Errno;

/// `multicall_entry` (xen/include/public/xen.h), with 64-bit fields as on every Arm guest.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Entry {
    op: u64,
    result: u64,
    args: [u64; 6],
}
const _: () = assert!(size_of::<Entry>() == 64);

/// Offset of [`Entry::result`].
const RESULT: u32 = 8;
/// Entries carried out before others may run.
const AT_ONCE: u32 = 32;

pub(super) fn call(caller: &Caller<'_>, args: &Args) -> Outcome {
    let list = args.ptr(0);
    let count = args.0[1];
    let mut budget = Budget::new(AT_ONCE);
    for index in 0..count {
        let at = element::<Entry>(list, index)?;
        if !budget.spend(1) {
            return Ok(rest(at, count - index));
        }
        let entry: Entry = read(caller.domain, at)?;
        let Some(inner) = registers(&entry) else {
            shutdown::crash(caller.domain, "multicall argument beyond 32 bits");
            return Ok(Reply::OK);
        };
        let outcome = match u32::try_from(entry.op) {
            Ok(number::MULTICALL) => Err(Errno::Inval),
            Ok(number) => super::call(caller, number, &inner),
            Err(_) => Err(Errno::NoSys),
        };
        let result = match outcome {
            Ok(Reply::Value(value)) => i64::from(value as i32),
            // A multicall does not touch the caller's interrupt mask.
            Ok(Reply::Unmask) => 0,
            Ok(Reply::Again(next)) => {
                let mut again = entry;
                for (to, from) in again.args.iter_mut().zip(next.0) {
                    *to = from.into();
                }
                write(caller.domain, at, &again)?;
                return Ok(rest(at, count - index));
            }
            Err(error) => -i64::from(error as i32),
        };
        write(
            caller.domain,
            at.checked_add(RESULT).ok_or(Errno::Fault)?,
            &result,
        )?;
    }
    Ok(Reply::OK)
}

/// The multicall again, from the entry at `at`.
fn rest(at: GuestVa, count: u32) -> Reply {
    Reply::Again(Args([at.0, count, 0, 0, 0]))
}

/// The entry's arguments as registers; `None` when one does not fit.
fn registers(entry: &Entry) -> Option<Args> {
    let mut args = Args::default();
    for (to, from) in args.0.iter_mut().zip(entry.args) {
        *to = u32::try_from(from).ok()?;
    }
    Some(args)
}
