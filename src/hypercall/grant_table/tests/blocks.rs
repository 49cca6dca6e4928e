//! Grants whose pages would make a block, in a domain without a table to break it up.

use super::mapping::{map, unmap_op};
use super::*;
use crate::abi::grant_table::OP_UNMAP_GRANT_REF;
use crate::domain::grants::release_all;
use crate::domain::testing::limited;
use crate::mem::p2m::{P2mError, PoolLimit};

/// Pages of a block.
const BLOCK: u32 = 512;
/// A page of the block.
const PAGE: u32 = 5;
/// Tables of the mapper: two for its own page, two for the block's pages, and some more.
const TABLES: u32 = 6;

/// Returns a domain that may have little: `pages` pages, and [`TABLES`] tables.
fn small(rights: Rights, pages: u32, tables: PoolLimit) -> Guest {
    let (domain, vcpu) = limited(rights, TLB, &[0], pages, tables);
    Guest { domain, vcpu }
}

/// Returns a domain with an aligned block at [`RAM`], granted to `by` page by page; the block's first frame.
fn granter(by: &Guest) -> (Guest, Mfn) {
    let granter = small(Rights::DOM0, 2 * BLOCK, PoolLimit::Unlimited);
    let first = memory().alloc_domain_pages(granter.domain.id, 9).unwrap();
    let mut p2m = granter.domain.p2m.lock();
    let mapped = p2m.map(gfn(BLOCK), first, BLOCK, P2mType::RamRw, 1);
    assert_eq!(mapped, Ok(BLOCK));
    drop(p2m);
    for n in 0..BLOCK {
        granter.grant(n, by, BLOCK + n);
    }
    (granter, first)
}

/// Maps a page in so many regions that no table is left.
fn use_all_tables(guest: &Guest) {
    let own = guest.mfn(0);
    let mut p2m = guest.domain.p2m.lock();
    for region in 100.. {
        let page = memory().get_any(own).unwrap().into_raw();
        match p2m.map(gfn(region * BLOCK), page, 1, P2mType::RamRw, 1) {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error, P2mError::NoMemory);
                memory().put(page);
                return;
            }
        }
    }
}

#[test]
fn adjacent_grants_stay_pages_and_leave_without_a_table() {
    let user = small(Rights::GUEST, 1, PoolLimit::Pages(TABLES));
    let (granter, _) = granter(&user);
    let handles: Vec<u32> = (0..BLOCK)
        .map(|n| map(&user, &granter, n, HOLE + n))
        .collect();
    let mut last = *handles.last().unwrap();
    // The table is full for the time at which pages become a block.
    for _ in 1..armv7::table::MERGE_AFTER {
        let at = HOLE + BLOCK - 1;
        assert_eq!(user.one(OP_UNMAP_GRANT_REF, &unmap_op(last, at)).status, 0);
        last = map(&user, &granter, BLOCK - 1, at);
    }
    use_all_tables(&user);
    let op = unmap_op(handles[PAGE as usize], HOLE + PAGE);
    assert_eq!(user.one(OP_UNMAP_GRANT_REF, &op).status, 0);
    assert_eq!(user.entry(HOLE + PAGE), None);
    assert_eq!(granter.flags(PAGE), abi::GTF_PERMIT_ACCESS);
    while !release_all(&user.domain, 1000) {}
    assert!(granter.domain.grants.lock().is_idle());
}

#[test]
fn a_grant_that_cannot_be_unmapped_keeps_its_handle() {
    let user = small(Rights::GUEST, 1, PoolLimit::Pages(TABLES));
    let (granter, first) = granter(&user);
    let handle = map(&user, &granter, PAGE, HOLE + PAGE);
    // Nothing makes a block of grants. This one stands for whatever else could keep an entry in its place.
    let mut removed = Removed::new();
    let mut p2m = user.domain.p2m.lock();
    let unmapped = p2m.unmap(gfn(HOLE + PAGE), 1, 1, P2mType::is_grant, &mut removed);
    assert_eq!(unmapped, Ok(1));
    p2m.release(removed);
    for n in 0..BLOCK {
        let frame = first.checked_add(n).unwrap();
        memory().get_any(frame).unwrap().into_raw();
    }
    let mapped = p2m.map(gfn(HOLE), first, BLOCK, P2mType::GrantRw, 1);
    assert_eq!(mapped, Ok(BLOCK));
    drop(p2m);
    use_all_tables(&user);

    let marked = abi::GTF_PERMIT_ACCESS | abi::GTF_READING | abi::GTF_WRITING;
    let op = unmap_op(handle, HOLE + PAGE);
    for _ in 0..2 {
        let refused = user.one(OP_UNMAP_GRANT_REF, &op);
        assert_eq!(refused.status, abi::STATUS_GENERAL_ERROR);
        let entry = user.entry(HOLE + PAGE).unwrap();
        assert_eq!(
            (entry.mfn, entry.kind),
            (first.checked_add(PAGE).unwrap(), P2mType::GrantRw)
        );
        assert_eq!(granter.flags(PAGE), marked);
        assert_eq!(user.domain.grants.lock().mappings(), 1);
    }
    // Nor does the domain's end let go of the granter's entry while the page can be reached.
    assert!(!release_all(&user.domain, 1000));
    assert_eq!(granter.flags(PAGE), marked);

    let enough = user.domain.p2m.lock().resize_pool(TABLES + 1, 1);
    assert_eq!(enough, Ok(true));
    assert_eq!(user.one(OP_UNMAP_GRANT_REF, &op).status, 0);
    assert_eq!(user.entry(HOLE + PAGE), None);
    assert_eq!(granter.flags(PAGE), abi::GTF_PERMIT_ACCESS);
    assert!(release_all(&user.domain, 1000));
    while !user.domain.p2m.lock().relinquish(10_000) {}
}
