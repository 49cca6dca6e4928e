//! The pool of a domain's stage-2 tables, the types of its pages, and cache maintenance.

use armv7::addr::{Gfn, PAGE_SIZE};
use armv7::cache::{self, Op};
use armv7::frame;

use super::request::Request;
use super::{again, again_at, exclusive, progress};
use crate::abi::domctl::{CacheFlush, GetPageFrameInfo3, PFINFO_XTAB, PagingMempool};
use crate::call::guest_ptr::{element, read, write};
use crate::call::{Outcome, Reply};
use crate::domain::{Domain, Life};
use crate::error::Errno;
use crate::mem::frame_table::Kind;
use crate::mem::p2m::Access;

/// The number of table frames that one call adds or removes.
pub(super) const TABLES_AT_ONCE: u32 = 48;
/// The number of pages that one call flushes. Also the unit of its progress.
const FLUSHES_AT_ONCE: u32 = 12;
/// The highest number of pages of one flush.
const MAX_FLUSH: u64 = 1 << 18;

/// Sets the size of the pool of a domain's tables.
pub fn set_pool(request: &Request<'_>) -> Outcome {
    let domain = request.domain()?;
    let pages = pool_pages(request.body()?)?;
    if domain.rights.hardware {
        // Its tables come from free memory.
        return Err(Errno::OpNotSupp);
    }
    let Some(_exclusive) = exclusive() else {
        return again(request.args);
    };
    if domain.state.lock().life != Life::Alive {
        return Err(Errno::Inval);
    }
    let done = domain.p2m.lock().resize_pool(pages, TABLES_AT_ONCE)?;
    if done {
        Ok(Reply::OK)
    } else {
        again(request.args)
    }
}

/// Returns the size of a pool in pages. Fails if it is not a whole number.
fn pool_pages(op: PagingMempool) -> Result<u32, Errno> {
    let page = PAGE_SIZE as u64;
    if !op.size.is_multiple_of(page) {
        return Err(Errno::Inval);
    }
    u32::try_from(op.size / page).map_err(|_| Errno::NoMem)
}

/// Returns the size of the pool.
pub fn pool(request: &Request<'_>) -> Outcome {
    let domain = request.domain()?;
    let pages = domain.p2m.lock().pool_pages();
    request.write_back(&PagingMempool {
        size: u64::from(pages) * PAGE_SIZE as u64,
    })
}

/// The number of gfns that one call describes. Also the unit of its progress.
const DESCRIBED_AT_ONCE: u32 = 24;
/// The highest number of gfns of one description, as in Xen.
const MAX_DESCRIBED: u64 = 1024;

/// Handles getpageframeinfo3: writes the type of each gfn. Pages of the domain's own can be copied into its image.
pub fn describe(request: &Request<'_>) -> Outcome {
    let domain = request.domain()?;
    let op: GetPageFrameInfo3 = request.body()?;
    if op.num > MAX_DESCRIBED {
        return Err(Errno::TooBig);
    }
    let count = op.num as u32;
    let array = op.array.to_va().ok_or(Errno::Fault)?;
    let unit = progress(request.args).unwrap_or(0);
    let start = unit * DESCRIBED_AT_ONCE;
    let end = start.saturating_add(DESCRIBED_AT_ONCE).min(count);
    for n in start..end {
        let at = element::<u64>(array, n)?;
        let gfn: u64 = read(request.caller.domain, at)?;
        let kind = if has_own_ram(&domain, gfn) {
            0
        } else {
            PFINFO_XTAB
        };
        write(request.caller.domain, at, &kind)?;
    }
    if end < count {
        return again_at(request.args, unit + 1);
    }
    Ok(Reply::OK)
}

/// Returns whether the domain has a page of its own at `gfn`: no grant, no foreign page, no page that the hypervisor shares
/// with it.
fn has_own_ram(domain: &Domain, gfn: u64) -> bool {
    let mut p2m = domain.p2m.lock();
    let pinned = Gfn::new(gfn).and_then(|gfn| p2m.pin(gfn, Access::Read));
    drop(p2m);
    pinned.is_some_and(|(reference, kind)| {
        kind.is_own_ram() && reference.owner() == domain.id && reference.kind() == Kind::Ram
    })
}

/// Cleans a range of a domain's memory to the point of coherency, for those who read past the caches.
pub fn flush(request: &Request<'_>) -> Outcome {
    let domain = request.domain()?;
    let op: CacheFlush = request.body()?;
    if op.nr_pfns > MAX_FLUSH || op.start_pfn.checked_add(op.nr_pfns).is_none() {
        return Err(Errno::Inval);
    }
    let count = op.nr_pfns as u32;
    let unit = progress(request.args).unwrap_or(0);
    let start = unit * FLUSHES_AT_ONCE;
    let end = start.saturating_add(FLUSHES_AT_ONCE).min(count);
    for n in start..end {
        // No page is beyond the last gfn.
        let Some(gfn) = Gfn::new(op.start_pfn + u64::from(n)) else {
            break;
        };
        flush_page(&domain, gfn);
    }
    if end < count {
        return again_at(request.args, unit + 1);
    }
    cache::invalidate_instruction_caches();
    Ok(Reply::OK)
}

/// Cleans a page of the domain's own. The map's lock keeps it mapped.
fn flush_page(domain: &Domain, gfn: Gfn) {
    let p2m = domain.p2m.lock();
    if let Some(entry) = p2m.lookup(gfn).filter(|entry| entry.kind.is_own_ram()) {
        frame::with(entry.mfn, |page| cache::page(page, Op::CleanInvalidate));
    }
}

const _: () = assert!(MAX_FLUSH / (FLUSHES_AT_ONCE as u64) < super::PROGRESS_MASK as u64);

#[cfg(test)]
mod tests {
    use super::{PagingMempool, pool_pages};
    use crate::error::Errno;

    #[test]
    fn a_pool_has_whole_pages() {
        let pages = |size| pool_pages(PagingMempool { size });
        assert_eq!(pages(0x34_0000), Ok(832));
        assert_eq!(pages(0x34_0001), Err(Errno::Inval));
        assert_eq!(pages(!0xFFF), Err(Errno::NoMem));
    }
}
