//! Arguments in guest memory: copies in and out, by guest virtual address.
//!
//! A guest passes pointers of its own (often of its user space). Each page is translated by the guest's stage 1 as it
//! stands (armv7::guest::translate), then by our own stage-2 map, and only ordinary memory of the calling domain is
//! accepted: no device, no grant, no foreign page. The stage-2 map stays locked during the copy of a page, so nobody can
//! take the page away meanwhile. Nothing is ever a reference into guest memory; what was copied in is checked and used,
//! not read again.

use armv7::addr::{GuestVa, Ipa, Mfn, PAGE_SIZE};
use armv7::frame;
use armv7::guest::{Access, translate};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use crate::domain::Domain;
use crate::error::Errno;
use crate::mem::p2m::P2mType;

/// Runs `f` on each page that `len` bytes at `va` touch: its frame, the offset there, and the range of the copy.
fn each_page(
    domain: &Domain,
    va: GuestVa,
    len: usize,
    access: Access,
    mut f: impl FnMut(Mfn, usize, core::ops::Range<usize>) -> bool,
) -> Result<(), Errno> {
    let mut done = 0;
    while done < len {
        let at = va.checked_add(done as u32).ok_or(Errno::Fault)?;
        let count = (len - done).min(PAGE_SIZE - at.offset());
        // Locked first: the walk of the guest's tables must not meet another CPU's break-before-make.
        let p2m = domain.p2m.lock();
        let ipa = translate(at.0, access)
            .and_then(Ipa::new)
            .ok_or(Errno::Fault)?;
        let entry = p2m.lookup(ipa.frame()).ok_or(Errno::Fault)?;
        let allowed = match access {
            Access::Read => matches!(entry.kind, P2mType::RamRw | P2mType::RamRo),
            Access::Write => entry.kind == P2mType::RamRw,
        };
        if !allowed || !f(entry.mfn, at.offset(), done..done + count) {
            return Err(Errno::Fault);
        }
        done += count;
    }
    Ok(())
}

/// Copies bytes in.
#[inline]
pub fn copy_in(domain: &Domain, va: GuestVa, out: &mut [u8]) -> Result<(), Errno> {
    each_page(domain, va, out.len(), Access::Read, |mfn, offset, range| {
        let Some(out) = out.get_mut(range) else {
            return false;
        };
        frame::with(mfn, |page| page.read(offset, out)) == Some(true)
    })
}

/// Copies bytes out.
#[inline]
pub fn copy_out(domain: &Domain, va: GuestVa, data: &[u8]) -> Result<(), Errno> {
    each_page(
        domain,
        va,
        data.len(),
        Access::Write,
        |mfn, offset, range| {
            let Some(data) = data.get(range) else {
                return false;
            };
            frame::with(mfn, |page| page.write(offset, data)) == Some(true)
        },
    )
}

/// Reads a structure.
#[inline]
pub fn read<T: FromBytes + IntoBytes + FromZeros>(
    domain: &Domain,
    va: GuestVa,
) -> Result<T, Errno> {
    let mut value = T::new_zeroed();
    copy_in(domain, va, value.as_mut_bytes())?;
    Ok(value)
}

/// Writes a structure.
#[inline]
pub fn write<T: IntoBytes + Immutable>(
    domain: &Domain,
    va: GuestVa,
    value: &T,
) -> Result<(), Errno> {
    copy_out(domain, va, value.as_bytes())
}

/// Address of element `index` of an array of `T` at `base`.
#[inline]
pub fn element<T>(base: GuestVa, index: u32) -> Result<GuestVa, Errno> {
    let offset = (size_of::<T>() as u32)
        .checked_mul(index)
        .ok_or(Errno::Fault)?;
    base.checked_add(offset).ok_or(Errno::Fault)
}
