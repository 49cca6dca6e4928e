//! multicall (13): several hypercalls in one.
//!
//! Each entry is read once and performed, and its result written back. An entry that must be continued is rewritten
//! with its new arguments, and the multicall continued from it. The multicall is also continued if an interrupt is
//! pending before an entry. Entries must not be multicalls.

use armv7::smp;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::number;
use crate::call::guest_ptr::{element, read, write};
use crate::call::{Args, Budget, Caller, Outcome, Reply};
use crate::domain::shutdown;
use crate::error::Errno;
use crate::latency;

/// `multicall_entry` (xen/include/public/xen.h), with 64-bit fields as for every Arm guest.
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
/// Entries performed before the call is continued.
const AT_ONCE: u32 = 32;

pub(super) fn call(caller: &Caller<'_>, args: &Args) -> Outcome {
    let list = args.ptr(0);
    let count = args.0[1];
    let mut budget = Budget::new(AT_ONCE);
    for index in 0..count {
        let at = element::<Entry>(list, index)?;
        // An entry may take as long as a whole call, so interrupts are checked for between entries.
        if !budget.spend(1) || index > 0 && smp::interrupt_waits() {
            return Ok(args.again([(0, at.0), (1, count - index)]));
        }
        latency::split();
        let entry: Entry = read(caller.domain, at)?;
        let Some(inner) = registers(&entry) else {
            shutdown::crash(
                caller.domain,
                format_args!("multicall argument beyond 32 bits"),
            );
            return Ok(Reply::OK);
        };
        let outcome = match u32::try_from(entry.op) {
            Ok(number::MULTICALL) => Err(Errno::Inval),
            Ok(number) => super::call(caller, number, &inner),
            Err(_) => Err(Errno::NoSys),
        };
        let result = match outcome {
            Ok(Reply::Value(value)) => i64::from(value as i32),
            // A multicall does not change the caller's interrupt mask.
            Ok(Reply::Unmask) => 0,
            Ok(Reply::Again(next)) => {
                let mut again = entry;
                for (to, from) in again.args.iter_mut().zip(next.0) {
                    *to = from.into();
                }
                write(caller.domain, at, &again)?;
                return Ok(args.again([(0, at.0), (1, count - index)]));
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

/// Returns the entry's arguments as registers; `None` if one exceeds 32 bits.
fn registers(entry: &Entry) -> Option<Args> {
    let mut args = Args::default();
    for (to, from) in args.0.iter_mut().zip(entry.args) {
        *to = u32::try_from(from).ok()?;
    }
    Some(args)
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes;

    use super::{AT_ONCE, Entry, call};
    use crate::domain::testing::{NO_TLB, guest};
    use crate::domain::{Rights, registry};
    use crate::hypercall::{Args, Caller, Reply, number};
    use armv7::addr::Gfn;
    use armv7::frame::page;

    #[test]
    fn a_long_list_goes_on_where_it_stopped() {
        let (domain, vcpu) = guest(Rights::GUEST, NO_TLB, &[0]);
        let caller = Caller {
            domain: &domain,
            vcpu: &vcpu,
        };
        let mfn = domain.p2m.lock().lookup(Gfn::new(0).unwrap()).unwrap().mfn;
        let entry = Entry {
            op: number::XEN_VERSION.into(),
            result: 0,
            args: [0; 6],
        };
        let count = AT_ONCE + 1;
        let list = vec![entry; count as usize];
        assert!(page(mfn).unwrap().write(0, list.as_bytes()));
        let first = call(&caller, &Args([0, count, 7, 8, 9]));
        let at = AT_ONCE * size_of::<Entry>() as u32;
        let next = Args([at, 1, 7, 8, 9]);
        assert_eq!(first, Ok(Reply::Again(next)));
        assert_eq!(call(&caller, &next), Ok(Reply::OK));
        registry::remove(domain.id);
    }
}
