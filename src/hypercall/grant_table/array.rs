//! Reads the caller's array element by element, and writes each back in place.
//!
//! The page of an element is translated once, for writing, and stays referenced until an element is in another page. An
//! element that cannot be written is refused before it is handled.

use core::ops::Range;

use armv7::addr::{GuestVa, Mfn, PAGE_SHIFT, PAGE_SIZE};
use armv7::frame;
use armv7::guest::{self, translate};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::call::guest_ptr::{copy_out, element, read};
use crate::call::{Args, Outcome, Reply, must_pause};
use crate::domain::Domain;
use crate::error::Errno;
use crate::mem::FrameRef;
use crate::mem::p2m::{Access, P2mType};

/// The number of elements that one call handles.
const AT_ONCE: u32 = 64;
/// The number of elements between two checks for a pending interrupt: each may copy a page.
const PAUSE_EACH: u32 = 4;

/// Reads each element of the call's array, passes it to `f`, and writes back the bytes that `f` returns.
pub(super) fn each<T>(
    domain: &Domain,
    args: &Args,
    mut f: impl FnMut(&mut T) -> Range<usize>,
) -> Outcome
where
    T: FromBytes + IntoBytes + Immutable,
{
    let (base, count) = (args.ptr(1), args.0[2]);
    let mut now = count.min(AT_ONCE);
    let mut array = Array { domain, held: None };
    let mut op = T::new_zeroed();
    for n in 0..now {
        let at = element::<T>(base, n)?;
        array.get(at, &mut op)?;
        let changed = f(&mut op);
        array.write_back(at, &op, changed)?;
        if n % PAUSE_EACH == PAUSE_EACH - 1 && must_pause() {
            now = n + 1;
            break;
        }
    }
    if now == count {
        return Ok(Reply::Value(0));
    }
    let rest = element::<T>(base, now)?;
    Ok(args.again([(1, rest.0), (2, count - now)]))
}

/// Writes the bytes `fields` of `op` back to its place at `at`.
pub(super) fn write_back<T: IntoBytes + Immutable>(
    domain: &Domain,
    at: GuestVa,
    op: &T,
    fields: Range<usize>,
) -> Result<(), Errno> {
    let start = at.checked_add(fields.start as u32).ok_or(Errno::Fault)?;
    copy_out(domain, start, bytes(op, fields)?)
}

fn bytes<T: IntoBytes + Immutable>(op: &T, fields: Range<usize>) -> Result<&[u8], Errno> {
    op.as_bytes().get(fields).ok_or(Errno::Fault)
}

struct Array<'a> {
    domain: &'a Domain,
    /// The number of a virtual page, and its frame.
    held: Option<(u32, FrameRef<'static>)>,
}

impl Array<'_> {
    fn get<T: FromBytes + IntoBytes>(&mut self, at: GuestVa, op: &mut T) -> Result<(), Errno> {
        if is_in_two_pages::<T>(at) {
            *op = read(self.domain, at)?;
            return Ok(());
        }
        let mfn = self.page(at)?;
        match frame::with(mfn, |page| page.read(at.offset(), op.as_mut_bytes())) {
            Some(true) => Ok(()),
            _ => Err(Errno::Fault),
        }
    }

    fn write_back<T: IntoBytes + Immutable>(
        &mut self,
        at: GuestVa,
        op: &T,
        fields: Range<usize>,
    ) -> Result<(), Errno> {
        if is_in_two_pages::<T>(at) {
            return write_back(self.domain, at, op, fields);
        }
        let mfn = self.page(at)?;
        let offset = at.offset() + fields.start;
        let data = bytes(op, fields)?;
        match frame::with(mfn, |page| page.write(offset, data)) {
            Some(true) => Ok(()),
            _ => Err(Errno::Fault),
        }
    }

    /// Returns the frame that holds all of the element at `at`.
    fn page(&mut self, at: GuestVa) -> Result<Mfn, Errno> {
        match &self.held {
            Some((number, reference)) if *number == at.0 >> PAGE_SHIFT => Ok(reference.mfn()),
            _ => self.hold(at),
        }
    }

    #[inline(never)]
    fn hold(&mut self, at: GuestVa) -> Result<Mfn, Errno> {
        // The lock comes first: the walk of the guest's tables must not meet another CPU's break-before-make.
        let mut p2m = self.domain.p2m.lock();
        let gfn = translate(at.0, guest::Access::Write).map_err(|_| Errno::Fault)?;
        let pinned = p2m.pin(gfn, Access::Write);
        drop(p2m);
        // Arguments are in the caller's own memory only.
        let (reference, P2mType::RamRw) = pinned.ok_or(Errno::Fault)? else {
            return Err(Errno::Fault);
        };
        let mfn = reference.mfn();
        self.held = Some((at.0 >> PAGE_SHIFT, reference));
        Ok(mfn)
    }
}

/// Returns whether the element at `at` begins in one page and ends in the next.
fn is_in_two_pages<T>(at: GuestVa) -> bool {
    at.offset() + size_of::<T>() > PAGE_SIZE
}
