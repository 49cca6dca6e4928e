//! Copies and cache flushes.

use armv7::frame::PageRef;

use super::{GRANTER, REF, gfn, page};
use crate::abi::grant_table::{
    CACHE_CLEAN, CACHE_INVAL, CACHE_SOURCE_GREF, COPY_DEST_GREF, COPY_SOURCE_GREF, CacheFlush,
    Copy, CopyPtr, GrantError,
};
use crate::error::Errno;
use crate::grant::{Access, CopyPlan, FlushAction, FlushRequest, GrantId, Place};
use crate::id::DomId;

fn ptr(domid: DomId, frame: u64, offset: u16) -> CopyPtr {
    CopyPtr {
        frame,
        domid: domid.0,
        offset,
        ..CopyPtr::ZERO
    }
}

fn copy(source: CopyPtr, dest: CopyPtr, len: u16, flags: u16) -> Copy {
    Copy {
        source,
        dest,
        len,
        flags,
        ..Copy::ZERO
    }
}

#[test]
fn each_side_is_a_grant_or_own_memory_as_the_flags_say() {
    let plan = CopyPlan::decode(&copy(
        ptr(GRANTER, 0xFFFF_FFFF_0000_0000 | u64::from(REF.0), 100),
        ptr(DomId::SELF, 0x4000, 200),
        300,
        COPY_SOURCE_GREF,
    ))
    .unwrap();
    let grant = GrantId {
        granter: GRANTER,
        grant_ref: REF,
    };
    assert_eq!(plan.source.place, Place::Grant(grant));
    assert_eq!(plan.dest.place, Place::Own(Some(gfn(0x4000))));
    assert_eq!(
        (plan.source.access, plan.dest.access),
        (Access::Read, Access::Write)
    );
    assert_eq!(
        (plan.source.offset, plan.dest.offset, plan.len),
        (100, 200, 300)
    );
    let own = ptr(DomId::SELF, 1, 0);
    let plan = CopyPlan::decode(&copy(own, ptr(GRANTER, 9, 0), 1, COPY_DEST_GREF)).unwrap();
    assert!(matches!(plan.dest.place, Place::Grant(_)));
}

#[test]
fn other_domains_memory_is_reached_by_grants_only() {
    let own = ptr(DomId::SELF, 1, 0);
    for (source, dest) in [
        (ptr(GRANTER, 1, 0), own),
        (own, ptr(GRANTER, 1, 0)),
        (own, ptr(DomId::IO, 1, 0)),
        (ptr(DomId(0), 1, 0), own),
    ] {
        let refused = CopyPlan::decode(&copy(source, dest, 1, 0));
        assert_eq!(refused, Err(GrantError::PermissionDenied));
    }
}

#[test]
fn a_range_that_leaves_its_page_is_refused() {
    let (source, dest) = (page(), page());
    let run = |from, to, len| {
        let sides = (ptr(DomId::SELF, 1, from), ptr(DomId::SELF, 2, to));
        let plan = CopyPlan::decode(&copy(sides.0, sides.1, len, 0)).unwrap();
        plan.run(source.page(), dest.page())
    };
    assert_eq!(run(0, 0, 4096), Ok(()));
    assert_eq!(run(4095, 0, 1), Ok(()));
    assert_eq!(run(4096, 4096, 0), Ok(()));
    for (from, to, len) in [
        (0, 0, 4097),
        (4095, 0, 2),
        (0, 1, 4096),
        (4097, 0, 0),
        (u16::MAX, u16::MAX, u16::MAX),
        (1, 0, u16::MAX),
    ] {
        assert_eq!(run(from, to, len), Err(GrantError::BadCopyArg));
    }
}

#[test]
fn a_frame_number_beyond_the_address_space_is_nobody_s() {
    for frame in [1 << 28, u64::MAX] {
        let (source, dest) = (ptr(DomId::SELF, frame, 0), ptr(DomId::SELF, 0, 0));
        let plan = CopyPlan::decode(&copy(source, dest, 1, 0)).unwrap();
        assert_eq!(plan.source.place, Place::Own(None));
    }
}

#[test]
fn only_the_named_bytes_are_copied() {
    let (from, to) = (page(), page());
    assert!(from.page().write(0, &[7; 4096]));
    let own = |offset| ptr(DomId::SELF, 1, offset);
    let plan = CopyPlan::decode(&copy(own(4090), own(3), 6, 0)).unwrap();
    assert_eq!(plan.run(from.page(), to.page()), Ok(()));
    let mut out = [0; 12];
    assert!(to.page().read(0, &mut out));
    assert_eq!(out, [0, 0, 0, 7, 7, 7, 7, 7, 7, 0, 0, 0]);
    let nothing = CopyPlan::decode(&copy(own(4096), own(0), 0, 0)).unwrap();
    assert_eq!(nothing.run(from.page(), to.page()), Ok(()));
    assert!(to.page().read(0, &mut out) && out[0] == 0);
}

#[test]
fn a_copy_within_one_page_stays_inside_it() {
    let page = page();
    let own = |offset| ptr(DomId::SELF, 1, offset);
    let plan = CopyPlan::decode(&copy(own(0), own(8), 4088, 0)).unwrap();
    assert_eq!(plan.run(page.page(), page.page()), Ok(()));
}

#[test]
fn a_flush_of_nothing_is_how_guests_probe() {
    let probe = CacheFlush {
        address: u64::MAX,
        ..CacheFlush::ZERO
    };
    assert_eq!(FlushRequest::decode(&probe), Ok(None));
    let no_op = CacheFlush {
        length: 4096,
        ..probe
    };
    assert_eq!(FlushRequest::decode(&no_op), Ok(None));
    let no_bytes = CacheFlush {
        op: CACHE_CLEAN,
        ..probe
    };
    assert_eq!(FlushRequest::decode(&no_bytes), Ok(None));
}

#[test]
fn a_flush_outside_the_page_or_of_an_unknown_kind_is_refused() {
    let op = |address, offset, length, op| {
        FlushRequest::decode(&CacheFlush {
            address,
            offset,
            length,
            op,
        })
    };
    for (offset, length) in [(4096, 0), (4095, 2), (0, 4097), (u16::MAX, u16::MAX)] {
        assert_eq!(op(0, offset, length, CACHE_CLEAN), Err(Errno::Inval));
    }
    for bad in [4, CACHE_SOURCE_GREF | CACHE_CLEAN, !0] {
        assert_eq!(op(0, 0, 1, bad), Err(Errno::Inval));
    }
    assert_eq!(op(1 << 40, 0, 1, CACHE_CLEAN), Err(Errno::Inval));
    let both = op(0x4000_0123, 1, 4095, CACHE_CLEAN | CACHE_INVAL)
        .unwrap()
        .unwrap();
    assert_eq!(both.action, FlushAction::CleanInvalidate);
    assert_eq!(
        (both.mfn.raw(), both.offset, both.length),
        (0x4_0000, 1, 4095)
    );
}
