//! Arguments in guest memory: copies in and out, by guest virtual address.
//!
//! A guest passes pointers of its own (often of its user space). Each page is translated by the guest's stage 1 as it
//! stands (armv7::guest::translate), then by our own stage-2 map, and only ordinary memory of the calling domain is
//! accepted: no device, no grant, no foreign page. The stage-2 map stays locked during the copy of a page, so nobody can
//! take the page away meanwhile. Nothing is ever a reference into guest memory; what was copied in is checked and used,
//! not read again.

use armv7::addr::{GuestVa, Ipa, PAGE_SIZE};
use armv7::frame::{self, SharedPage};
use armv7::guest::{Access, translate};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use crate::domain::Domain;
use crate::error::Errno;
use crate::mem::p2m::P2mType;

/// Runs `copy` on the page at `va`.
#[inline]
fn in_page(
    domain: &Domain,
    va: GuestVa,
    access: Access,
    copy: impl FnOnce(&SharedPage) -> bool,
) -> Result<(), Errno> {
    // Locked first: the walk of the guest's tables must not meet another CPU's break-before-make.
    let p2m = domain.p2m.lock();
    let ipa = translate(va.0, access)
        .and_then(Ipa::new)
        .ok_or(Errno::Fault)?;
    let entry = p2m.lookup(ipa.frame()).ok_or(Errno::Fault)?;
    let allowed =
        entry.kind == P2mType::RamRw || access == Access::Read && entry.kind == P2mType::RamRo;
    if allowed && frame::with(entry.mfn, copy) == Some(true) {
        Ok(())
    } else {
        Err(Errno::Fault)
    }
}

#[inline(never)]
fn read_page(domain: &Domain, va: GuestVa, out: &mut [u8]) -> Result<(), Errno> {
    in_page(domain, va, Access::Read, |page| page.read(va.offset(), out))
}

#[inline(never)]
fn write_page(domain: &Domain, va: GuestVa, data: &[u8]) -> Result<(), Errno> {
    in_page(domain, va, Access::Write, |page| {
        page.write(va.offset(), data)
    })
}

/// Copies bytes in.
pub fn copy_in(domain: &Domain, va: GuestVa, out: &mut [u8]) -> Result<(), Errno> {
    let (mut at, mut rest) = (va, out);
    while at.offset() + rest.len() > PAGE_SIZE {
        let count = PAGE_SIZE - at.offset();
        let (part, later) = rest.split_at_mut(count);
        read_page(domain, at, part)?;
        at = at.checked_add(count as u32).ok_or(Errno::Fault)?;
        rest = later;
    }
    if rest.is_empty() {
        return Ok(());
    }
    read_page(domain, at, rest)
}

/// Copies bytes out.
pub fn copy_out(domain: &Domain, va: GuestVa, data: &[u8]) -> Result<(), Errno> {
    let (mut at, mut rest) = (va, data);
    while at.offset() + rest.len() > PAGE_SIZE {
        let count = PAGE_SIZE - at.offset();
        let (part, later) = rest.split_at(count);
        write_page(domain, at, part)?;
        at = at.checked_add(count as u32).ok_or(Errno::Fault)?;
        rest = later;
    }
    if rest.is_empty() {
        return Ok(());
    }
    write_page(domain, at, rest)
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
