//! cache_flush.

use super::*;
use crate::abi::grant_table::{
    CACHE_CLEAN, CACHE_INVAL, CACHE_SOURCE_GREF, CacheFlush, MapGrantRef, OP_CACHE_FLUSH,
    OP_MAP_GRANT_REF,
};
use crate::domain::grants::release_all;

fn flush(guest: &Guest, address: u64, offset: u16, length: u16, op: u32) -> Outcome {
    guest.place(&[CacheFlush {
        address,
        offset,
        length,
        op,
    }]);
    guest.call(OP_CACHE_FLUSH, 0, 1)
}

#[test]
fn own_pages_are_flushed_and_others_when_granted() {
    let (user, granter) = (Guest::control(), Guest::plain());
    let mine = user.mfn(RAM).addr().raw();
    let theirs = granter.mfn(RAM).addr().raw();
    for op in [CACHE_CLEAN, CACHE_INVAL, CACHE_CLEAN | CACHE_INVAL] {
        assert_eq!(flush(&user, mine, 0, 4096, op), Ok(Reply::OK));
        assert_eq!(flush(&user, mine, 4095, 1, op), Ok(Reply::OK));
        assert_eq!(flush(&user, theirs, 0, 1, op), Err(Errno::Perm));
    }
    granter.grant(500, &user, RAM);
    let map = MapGrantRef {
        host_addr: gfn(HOLE).addr().raw(),
        flags: abi::MAP_HOST,
        grant_ref: 500,
        dom: granter.id(),
        ..MapGrantRef::ZERO
    };
    let map = user.one(OP_MAP_GRANT_REF, &map);
    assert_eq!(
        flush(&user, map.dev_bus_addr, 0, 64, CACHE_CLEAN),
        Ok(Reply::OK)
    );
    assert_eq!(flush(&granter, mine, 0, 64, CACHE_CLEAN), Err(Errno::Perm));
    assert!(release_all(&user.domain, 1000));
    assert_eq!(flush(&user, theirs, 0, 64, CACHE_CLEAN), Err(Errno::Perm));
}

#[test]
fn a_probe_asks_for_nothing_and_gets_it() {
    let guest = Guest::plain();
    assert_eq!(flush(&guest, 0, 0, 0, 0), Ok(Reply::OK));
    assert_eq!(flush(&guest, 0, 0, 64, 0), Ok(Reply::OK));
    assert_eq!(flush(&guest, 0, 0, 0, CACHE_CLEAN), Ok(Reply::OK));
}

#[test]
fn a_flush_that_leaves_its_page_or_memory_is_refused() {
    let guest = Guest::plain();
    let mine = guest.mfn(RAM).addr().raw();
    let inval = Err(Errno::Inval);
    assert_eq!(flush(&guest, mine, 4096, 0, CACHE_CLEAN), inval);
    assert_eq!(flush(&guest, mine, 1, 4096, CACHE_CLEAN), inval);
    assert_eq!(flush(&guest, mine, 0, 1, 4), inval);
    assert_eq!(flush(&guest, 1 << 40, 0, 1, CACHE_CLEAN), inval);
    assert_eq!(flush(&guest, 0, 0, 1, CACHE_CLEAN), inval);
    let by_reference = CACHE_CLEAN | CACHE_SOURCE_GREF;
    assert_eq!(flush(&guest, mine, 0, 1, by_reference), inval);
    assert_eq!(flush(&guest, 0, 0, 0, CACHE_SOURCE_GREF), inval);
}

#[test]
fn a_long_list_is_flushed_in_parts() {
    let guest = Guest::plain();
    guest.place(&[CacheFlush::ZERO; 256]);
    let outcome = guest.call(OP_CACHE_FLUSH, 0, 257);
    let Ok(Reply::Again(args)) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(args, Args([OP_CACHE_FLUSH, 256 * 16, 1, 3, 4]));
    assert_eq!(guest.call_with(args), Ok(Reply::OK));
    assert_eq!(guest.call(OP_CACHE_FLUSH, 0, 256), Ok(Reply::OK));
}

#[test]
fn whole_pages_are_flushed_in_smaller_parts_than_lines() {
    let guest = Guest::plain();
    let done = |length| {
        let element = CacheFlush {
            address: guest.mfn(RAM).addr().raw(),
            offset: 0,
            length,
            op: CACHE_CLEAN,
        };
        guest.place(&vec![element; 256]);
        match guest.call(OP_CACHE_FLUSH, 0, 256) {
            Ok(Reply::Again(args)) => 256 - args.0[2],
            outcome => panic!("{outcome:?}"),
        }
    };
    // No more than about a thousand lines, and at least one element.
    assert_eq!((done(4096), done(64)), (16, 205));
}

#[test]
fn a_list_pauses_between_elements_when_an_interrupt_waits() {
    let guest = Guest::plain();
    guest.place(&[CacheFlush::ZERO; 8]);
    armv7::host::registers::set_interrupt(true);
    let outcome = guest.call(OP_CACHE_FLUSH, 0, 8);
    armv7::host::registers::set_interrupt(false);
    let Ok(Reply::Again(args)) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(args.0[2], 7, "the first one is done");
}

#[test]
fn searches_of_a_list_end_together() {
    const LAST: u32 = 4 * 512 - 1;
    let (user, granter) = (Guest::control(), Guest::plain());
    while !granter.domain.grow_grants(4).unwrap() {}
    granter.grant(LAST, &user, RAM);
    let map = MapGrantRef {
        host_addr: gfn(HOLE).addr().raw(),
        flags: abi::MAP_HOST,
        grant_ref: LAST,
        dom: granter.id(),
        ..MapGrantRef::ZERO
    };
    let map = user.one(OP_MAP_GRANT_REF, &map);
    // Each search goes through a whole table, of which two are as much as one call may look at.
    let element = CacheFlush {
        address: map.dev_bus_addr,
        offset: 0,
        length: 64,
        op: CACHE_CLEAN,
    };
    user.place(&[element; 5]);
    let mut outcome = user.call(OP_CACHE_FLUSH, 0, 5);
    for left in [3, 1] {
        let Ok(Reply::Again(args)) = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!(args.0[2], left);
        outcome = user.call_with(args);
    }
    assert_eq!(outcome, Ok(Reply::OK));
    assert!(release_all(&user.domain, 1000));
}
