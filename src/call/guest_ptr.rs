//! Hypercall arguments in guest memory: copies by guest virtual address.
//!
//! A guest passes virtual addresses, often of its user space. Each page is translated by the guest's current stage 1
//! (`armv7::guest::translate`), then by the domain's p2m. Only ordinary memory of the calling domain is accepted: no
//! device, grant or foreign page. The p2m stays locked while a page is copied, so the page cannot be unmapped
//! meanwhile. No reference points into guest memory; data is copied in once, then checked and used.

use core::ops::Range;

use armv7::addr::{GuestVa, PAGE_SIZE};
use armv7::frame::{self, SharedPage};
use armv7::guest::{Access, translate};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use crate::domain::Domain;
use crate::error::Errno;
use crate::mem::p2m::P2mType;

/// Runs `copy` on the page at `va`.
fn in_page(
    domain: &Domain,
    va: GuestVa,
    access: Access,
    copy: impl FnOnce(&SharedPage) -> bool,
) -> Result<(), Errno> {
    // Locked first, so that the walk of the guest's tables cannot meet another CPU's break-before-make.
    let mut p2m = domain.p2m.lock();
    let gfn = translate(va.0, access).map_err(|_| Errno::Fault)?;
    let entry = p2m.find(gfn).ok_or(Errno::Fault)?;
    let allowed = match entry.kind {
        P2mType::RamRw => true,
        P2mType::RamRo => access == Access::Read,
        P2mType::RamLogDirty => {
            if access == Access::Write {
                p2m.note_write(gfn);
            }
            true
        }
        _ => false,
    };
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

/// Copies bytes from the guest. Inlined, as callers know the length, which is not 0 for any structure of the ABI.
#[inline(always)]
pub fn copy_in(domain: &Domain, va: GuestVa, out: &mut [u8]) -> Result<(), Errno> {
    if out.is_empty() || va.offset() + out.len() > PAGE_SIZE {
        copy_in_pages(domain, va, out)
    } else {
        read_page(domain, va, out)
    }
}

#[cold]
#[inline(never)]
fn copy_in_pages(domain: &Domain, va: GuestVa, out: &mut [u8]) -> Result<(), Errno> {
    by_page(va, out.len(), |at, part| {
        read_page(domain, at, out.get_mut(part).ok_or(Errno::Fault)?)
    })
}

/// Runs `copy` on each part of `length` bytes at `va` that lies in one page, with its address and its range of the
/// bytes.
fn by_page(
    va: GuestVa,
    length: usize,
    mut copy: impl FnMut(GuestVa, Range<usize>) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let mut done = 0;
    while done < length {
        let at = va.checked_add(done as u32).ok_or(Errno::Fault)?;
        let count = (length - done).min(PAGE_SIZE - at.offset());
        copy(at, done..done + count)?;
        done += count;
    }
    Ok(())
}

/// Copies bytes to the guest. Inlined as [`copy_in`].
#[inline(always)]
pub fn copy_out(domain: &Domain, va: GuestVa, data: &[u8]) -> Result<(), Errno> {
    if data.is_empty() || va.offset() + data.len() > PAGE_SIZE {
        copy_out_pages(domain, va, data)
    } else {
        write_page(domain, va, data)
    }
}

#[cold]
#[inline(never)]
fn copy_out_pages(domain: &Domain, va: GuestVa, data: &[u8]) -> Result<(), Errno> {
    by_page(va, data.len(), |at, part| {
        write_page(domain, at, data.get(part).ok_or(Errno::Fault)?)
    })
}

/// Reads a structure from the guest.
#[inline(always)]
pub fn read<T: FromBytes + IntoBytes + FromZeros>(
    domain: &Domain,
    va: GuestVa,
) -> Result<T, Errno> {
    let mut value = T::new_zeroed();
    copy_in(domain, va, value.as_mut_bytes())?;
    Ok(value)
}

/// Writes a structure to the guest.
#[inline(always)]
pub fn write<T: IntoBytes + Immutable>(
    domain: &Domain,
    va: GuestVa,
    value: &T,
) -> Result<(), Errno> {
    copy_out(domain, va, value.as_bytes())
}

/// Returns the address of element `index` of an array of `T` at `base`.
pub fn element<T>(base: GuestVa, index: u32) -> Result<GuestVa, Errno> {
    let offset = (size_of::<T>() as u32)
        .checked_mul(index)
        .ok_or(Errno::Fault)?;
    base.checked_add(offset).ok_or(Errno::Fault)
}
