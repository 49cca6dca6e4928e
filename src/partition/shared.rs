//! Memory that domains of the boot share: it belongs to none of them, and stays when they end.

use alloc::format;
use alloc::string::String;

use armv7::addr::{Gfn, Mfn, PAGE_SHIFT};

use crate::domain::Domain;
use crate::id::DomId;
use crate::loader::Refused;
use crate::mem::frame_table::{Kind, State, Use};
use crate::mem::memory;
use crate::mem::p2m::P2mType;
use crate::platform::partitions::memory::{SHARED, Shared};

/// Pages that are mapped in one go.
const AT_ONCE: u32 = 16;

/// Maps some of the memory that a domain shares, from page `from` of the region on, and returns how many pages. The first who
/// comes gets all of it zeroed.
pub fn map_some(domain: &Domain, region: &Shared, from: u32) -> Result<u32, Refused> {
    let no = |why: String| Refused(format!("{}: {SHARED}: {why}", region.path));
    let first = region.host.start().frame();
    let count = region.pages();
    if memory().state(first) == State::Used(Use::Domain) {
        // Only the first opens the account.
        let _is_new = memory().open_account(DomId::IO, u32::MAX);
        let given = memory().alloc_kept(DomId::IO, first, count, Kind::Direct);
        given.map_err(|error| no(format!("{error:?}")))?;
    }
    let end = count.min(from.saturating_add(AT_ONCE));
    for n in from..end {
        let gfn = Gfn::new((region.guest.base() >> PAGE_SHIFT) + u64::from(n));
        let (Some(gfn), Some(mfn)) = (gfn, first.checked_add(n)) else {
            return Err(no("beyond 40 bits".into()));
        };
        map_page(domain, gfn, mfn).map_err(|why| no(why.into()))?;
    }
    Ok(end.saturating_sub(from))
}

fn map_page(domain: &Domain, gfn: Gfn, mfn: Mfn) -> Result<(), &'static str> {
    let reference = memory().get(mfn, DomId::IO).ok_or("it is not shared")?;
    let mut p2m = domain.p2m.lock();
    match p2m.map(gfn, mfn, 1, P2mType::ForeignRw, 1) {
        Ok(1) => {
            // The map has the reference now.
            reference.into_raw();
            Ok(())
        }
        _ => Err("something is there, or its memory map needs more tables"),
    }
}
