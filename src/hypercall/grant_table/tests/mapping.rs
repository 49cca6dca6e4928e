//! Map, unmap, and what a domain leaves behind.

use super::*;
use crate::abi::grant_table::{MapGrantRef, OP_MAP_GRANT_REF, OP_UNMAP_GRANT_REF, UnmapGrantRef};
use crate::domain::grants::release_all;

const INVALID: u32 = !0;

fn map_op(granter: &Guest, grant_ref: u32, at: u32) -> MapGrantRef {
    MapGrantRef {
        host_addr: gfn(at).addr().raw(),
        flags: abi::MAP_HOST,
        grant_ref,
        dom: granter.id(),
        status: 77,
        handle: 77,
        dev_bus_addr: 77,
    }
}

pub fn unmap_op(handle: u32, at: u32) -> UnmapGrantRef {
    UnmapGrantRef {
        host_addr: gfn(at).addr().raw(),
        handle,
        ..UnmapGrantRef::ZERO
    }
}

/// Maps reference `grant_ref` at `at`, which succeeds.
pub fn map(user: &Guest, granter: &Guest, grant_ref: u32, at: u32) -> u32 {
    let op = user.one(OP_MAP_GRANT_REF, &map_op(granter, grant_ref, at));
    assert_eq!(op.status, abi::STATUS_OKAY);
    op.handle
}

#[test]
fn a_grant_appears_where_nothing_was_and_goes_again() {
    let (user, granter) = (Guest::control(), Guest::plain());
    granter.grant(9, &user, RAM);
    let op = user.one(OP_MAP_GRANT_REF, &map_op(&granter, 9, HOLE));
    assert_eq!(
        (op.status, op.dev_bus_addr),
        (0, granter.mfn(RAM).addr().raw())
    );
    let entry = user.entry(HOLE).unwrap();
    assert_eq!(
        (entry.mfn, entry.kind),
        (granter.mfn(RAM), P2mType::GrantRw)
    );
    assert_eq!(
        granter.flags(9),
        abi::GTF_PERMIT_ACCESS | abi::GTF_READING | abi::GTF_WRITING
    );
    WATCHED.set(Some(granter.domain.clone()));
    let undone = user.one(OP_UNMAP_GRANT_REF, &unmap_op(op.handle, HOLE));
    WATCHED.set(None);
    assert_eq!(PINNED.get(), 1, "flushed before the granter's entry ends");
    assert_eq!((undone.status, user.entry(HOLE)), (0, None));
    assert_eq!(granter.flags(9), abi::GTF_PERMIT_ACCESS);
    assert!(granter.domain.grants.lock().is_idle() && user.domain.grants.lock().is_idle());
    let again = user.one(OP_UNMAP_GRANT_REF, &unmap_op(op.handle, HOLE));
    assert_eq!(again.status, abi::STATUS_BAD_HANDLE);
}

#[test]
fn a_grant_lends_its_frame_beyond_the_granter_s_own_entry() {
    let (user, granter) = (Guest::control(), Guest::plain());
    granter.grant_with(9, abi::GTF_PERMIT_ACCESS | abi::GTF_READONLY, &user, RAM);
    let total = granter.total();
    let mut op = map_op(&granter, 9, HOLE);
    assert_eq!(user.one(OP_MAP_GRANT_REF, &op).status, -1, "read-only");
    op.flags |= abi::MAP_READONLY;
    let op = user.one(OP_MAP_GRANT_REF, &op);
    assert_eq!(op.status, 0);
    assert_eq!(user.entry(HOLE).unwrap().kind, P2mType::GrantRo);
    let mut removed = Removed::new();
    let mut p2m = granter.domain.p2m.lock();
    let unmapped = p2m.unmap(gfn(RAM), 1, 1, P2mType::is_own_ram, &mut removed);
    assert_eq!(unmapped, Ok(1));
    p2m.release(removed);
    drop(p2m);
    assert_eq!(granter.total(), total, "still in use");
    user.one(OP_UNMAP_GRANT_REF, &unmap_op(op.handle, HOLE));
    assert_eq!(granter.total(), total - 1);
}

#[test]
fn a_mapping_replaces_plain_ram_and_nothing_else() {
    let (user, granter) = (Guest::control(), Guest::plain());
    granter.grant(1, &user, RAM);
    granter.grant(2, &user, RAM + 1);
    let total = user.total();
    let handle = map(&user, &granter, 1, RAM);
    assert_eq!(user.total(), total - 1, "the page went back");

    let table = user.domain.grants.lock().frame(0).unwrap().mfn();
    let table = memory().get(table, user.domain.id).unwrap().into_raw();
    user.force(RAM + 1, table, P2mType::RamRw);
    user.force(RAM + 2, Mfn::new(9).unwrap(), P2mType::MmioDirect);
    let foreign = memory().get_any(granter.mfn(RAM)).unwrap().into_raw();
    user.force(RAM + 3, foreign, P2mType::ForeignRw);
    for at in [RAM, RAM + 1, RAM + 2, RAM + 3] {
        let before = user.entry(at);
        let op = user.one(OP_MAP_GRANT_REF, &map_op(&granter, 2, at));
        assert_eq!((op.status, op.handle, op.dev_bus_addr), (-1, INVALID, 77));
        assert_eq!(user.entry(at), before);
        assert_eq!(granter.flags(2), abi::GTF_PERMIT_ACCESS);
    }
    user.one(OP_UNMAP_GRANT_REF, &unmap_op(handle, RAM));
    assert!(granter.domain.grants.lock().is_idle());
    assert_eq!(user.entry(RAM), None);
}

#[test]
fn pages_that_the_granter_does_not_own_are_not_lent() {
    let (user, granter) = (Guest::control(), Guest::plain());
    let table = granter.domain.grants.lock().frame(0).unwrap().mfn();
    let table = memory().get(table, granter.domain.id).unwrap().into_raw();
    granter.force(RAM, table, P2mType::RamRw);
    let foreign = memory().get_any(user.mfn(RAM)).unwrap().into_raw();
    granter.force(RAM + 1, foreign, P2mType::ForeignRw);
    granter.force(RAM + 2, Mfn::new(9).unwrap(), P2mType::MmioDirect);
    for at in [RAM, RAM + 1, RAM + 2, HOLE] {
        granter.grant(5, &user, at);
        let op = user.one(OP_MAP_GRANT_REF, &map_op(&granter, 5, HOLE));
        assert_eq!(op.status, abi::STATUS_BAD_PAGE);
        assert_eq!(granter.flags(5), abi::GTF_PERMIT_ACCESS);
    }
    assert!(granter.domain.grants.lock().is_idle());
}

#[test]
fn a_batch_is_flushed_in_one_go() {
    let (user, granter) = (Guest::control(), Guest::plain());
    let maps: Vec<_> = (0..PAGES)
        .map(|n| {
            granter.grant(n, &user, RAM + n);
            map_op(&granter, n, HOLE + 2 * n)
        })
        .collect();
    let mapped = user.all(OP_MAP_GRANT_REF, &maps);
    assert!(mapped.iter().all(|op| op.status == 0));
    // Keeps the table of these entries, so that it is not flushed away.
    granter.grant(100, &user, RAM);
    let kept = map(&user, &granter, 100, HOLE + 0x100);
    let unmaps: Vec<_> = mapped
        .iter()
        .map(|op| UnmapGrantRef {
            host_addr: op.host_addr,
            handle: op.handle,
            ..UnmapGrantRef::ZERO
        })
        .collect();
    FLUSHES.set(0);
    let unmapped = user.all(OP_UNMAP_GRANT_REF, &unmaps);
    assert!(unmapped.iter().all(|op| op.status == 0));
    assert_eq!(FLUSHES.get(), PAGES.div_ceil(Removed::MAX_RUNS as u32));
    assert_eq!(granter.domain.grants.lock().pinned(), 1);
    user.one(OP_UNMAP_GRANT_REF, &unmap_op(kept, HOLE + 0x100));
    assert!(granter.domain.grants.lock().is_idle());
}

#[test]
fn what_was_unmapped_before_a_bad_pointer_is_finished() {
    let (user, granter) = (Guest::control(), Guest::plain());
    granter.grant(9, &user, RAM);
    let handle = map(&user, &granter, 9, HOLE);
    assert!(
        user.page(0)
            .write(4096 - 32, unmap_op(handle, HOLE).as_bytes())
    );
    let outcome = user.call(OP_UNMAP_GRANT_REF, 0u32.wrapping_sub(32), 2);
    assert_eq!(
        outcome,
        Err(Errno::Fault),
        "the second leaves the address space"
    );
    assert!(granter.domain.grants.lock().is_idle());
    assert_eq!(user.entry(HOLE), None);
}

#[test]
fn an_array_that_cannot_be_answered_is_refused_before_anything_is_done() {
    let (user, granter) = (Guest::control(), Guest::plain());
    granter.grant(9, &user, RAM);
    let own = user.mfn(0);
    user.place(&[map_op(&granter, 9, HOLE)]);
    for kind in [P2mType::RamRo, P2mType::GrantRw, P2mType::ForeignRw] {
        memory().get_any(own).unwrap().into_raw();
        user.force(0, own, kind);
        assert_eq!(user.call(OP_MAP_GRANT_REF, 0, 1), Err(Errno::Fault));
        assert_eq!(granter.flags(9), abi::GTF_PERMIT_ACCESS);
    }
    assert_eq!(user.entry(HOLE), None);
}

#[test]
fn an_element_may_lie_in_two_pages() {
    let (user, granter) = (Guest::control(), Guest::plain());
    granter.grant(9, &user, RAM);
    // Both halves are in guest frame 0 here.
    let op = map_op(&granter, 9, HOLE);
    let (first, second) = op.as_bytes().split_at(16);
    assert!(user.page(0).write(4096 - 16, first) && user.page(0).write(0, second));
    let at = 4096 - 16;
    assert_eq!(user.call(OP_MAP_GRANT_REF, at, 1), Ok(Reply::OK));
    let mut status = [0xFF; 2];
    assert!(user.page(0).read(2, &mut status));
    assert_eq!(status, [0, 0]);
    assert!(release_all(&user.domain, 1000));
}

#[test]
fn an_unmap_takes_nothing_but_its_grant_away() {
    let (user, granter) = (Guest::control(), Guest::plain());
    granter.grant(9, &user, RAM);
    let handle = map(&user, &granter, 9, HOLE);
    let wrong = user.one(OP_UNMAP_GRANT_REF, &unmap_op(handle, HOLE + 1));
    assert_eq!(wrong.status, abi::STATUS_GENERAL_ERROR);
    let nothing = user.one(OP_UNMAP_GRANT_REF, &unmap_op(handle, 0));
    assert_eq!(nothing.status, 0);
    assert!(user.entry(HOLE).is_some());
    // Somebody else put a page there.
    let other = memory().get_any(user.mfn(RAM)).unwrap().into_raw();
    user.force(HOLE, other, P2mType::RamRw);
    let op = user.one(OP_UNMAP_GRANT_REF, &unmap_op(handle, HOLE));
    assert_eq!(op.status, 0);
    assert_eq!(user.entry(HOLE).map(|entry| entry.mfn), Some(other));
    assert!(granter.domain.grants.lock().is_idle());
}

#[test]
fn guests_are_kept_apart() {
    let (a, b, control) = (Guest::plain(), Guest::plain(), Guest::control());
    b.grant(9, &a, RAM);
    let op = a.one(OP_MAP_GRANT_REF, &map_op(&b, 9, HOLE));
    assert_eq!(op.status, abi::STATUS_PERMISSION_DENIED);
    control.grant(9, &a, RAM);
    assert_eq!(
        a.one(OP_MAP_GRANT_REF, &map_op(&control, 9, HOLE)).status,
        0
    );
    a.grant(9, &a, RAM);
    assert_eq!(a.one(OP_MAP_GRANT_REF, &map_op(&a, 9, HOLE + 1)).status, 0);
    assert!(release_all(&a.domain, 1000));
    for dom in [DomId::SELF.0, DomId::IO.0, 0x7FEF] {
        let op = MapGrantRef {
            dom,
            ..map_op(&b, 9, HOLE)
        };
        let op = control.one(OP_MAP_GRANT_REF, &op);
        assert_eq!(op.status, abi::STATUS_BAD_DOMAIN);
    }
}

#[test]
fn a_dying_domain_gives_its_mappings_up_step_by_step() {
    let (user, granter) = (Guest::control(), Guest::plain());
    for n in 0..PAGES {
        granter.grant(n, &user, RAM + n);
        map(&user, &granter, n, HOLE + n);
    }
    let mut steps = 0;
    while !release_all(&user.domain, 30) {
        steps += 1;
    }
    assert!((256 / 30..=256 / 30 + 1).contains(&steps), "{steps}");
    assert!(granter.domain.grants.lock().is_idle() && user.domain.grants.lock().is_idle());
    assert!((0..PAGES).all(|n| user.entry(HOLE + n).is_none()));
    let op = user.one(OP_MAP_GRANT_REF, &map_op(&granter, 0, HOLE));
    assert_eq!((op.status, op.handle), (-1, INVALID));
    assert!(granter.domain.grants.lock().is_idle());
    assert!(release_all(&user.domain, 1));
}
