//! The mapper's side: requests and handles.

use super::{GRANTER, REF, gfn, mfn, table};
use crate::abi::grant_table::{
    GrantError, MAP_APPLICATION, MAP_CONTAINS_PTE, MAP_DEVICE, MAP_HOST, MAP_READONLY, MapGrantRef,
};
use crate::grant::{Access, GrantHandle, HANDLES_PER_FRAME, MapRequest, Mapping, Search};

fn op(flags: u32, host_addr: u64) -> MapGrantRef {
    MapGrantRef {
        host_addr,
        flags,
        grant_ref: REF.0,
        dom: GRANTER.0,
        ..MapGrantRef::ZERO
    }
}

fn mapping(n: u32) -> Mapping {
    MapRequest::decode(&op(MAP_HOST, u64::from(n) << 12))
        .unwrap()
        .mapping(gfn(n), mfn(n))
}

#[test]
fn a_request_names_granter_entry_access_and_place() {
    let request = MapRequest::decode(&op(MAP_HOST | MAP_READONLY, 0x4567_8000)).unwrap();
    assert_eq!((request.granter, request.grant_ref), (GRANTER, REF));
    assert_eq!(
        (request.access, request.gfn),
        (Access::Read, Ok(gfn(0x45678)))
    );
    let request = MapRequest::decode(&op(MAP_HOST, 0x4567_8000)).unwrap();
    assert_eq!(request.access, Access::Write);
}

#[test]
fn only_host_mappings_exist() {
    let decode = |flags| MapRequest::decode(&op(flags, 0x1000)).map(|request| request.gfn);
    let no_use = Err(GrantError::BadGrantRef);
    let (first, last) = (Err(GrantError::General), Ok(Err(GrantError::General)));
    for (flags, refused) in [
        (0, no_use),
        (MAP_READONLY, no_use),
        (MAP_DEVICE, first),
        (MAP_DEVICE | MAP_HOST, first),
        (MAP_HOST | MAP_APPLICATION, first),
        (MAP_HOST | MAP_CONTAINS_PTE, first),
        (MAP_HOST | 1 << 16, last),
        (MAP_HOST | 1 << 5, last),
        (!0, first),
    ] {
        assert_eq!(decode(flags), refused, "{flags:#x}");
    }
}

#[test]
fn a_place_beyond_the_address_space_or_at_zero_is_refused() {
    for host_addr in [0, 0xFFF, 1 << 40, u64::MAX] {
        let request = MapRequest::decode(&op(MAP_HOST, host_addr)).unwrap();
        assert_eq!(request.gfn, Err(GrantError::BadVirtAddr), "{host_addr:#x}");
    }
}

#[test]
fn a_handle_is_unmapped_once() {
    let mut table = table(1, 1, 1);
    let handle = table.room().unwrap().record(mapping(5));
    assert_eq!(table.mappings(), 1);
    assert_eq!(table.unmap(handle, 5 << 12), Ok(Some(mapping(5))));
    assert_eq!(table.unmap(handle, 5 << 12), Err(GrantError::BadHandle));
    assert_eq!(table.mappings(), 0);
}

#[test]
fn a_handle_that_was_never_given_out_is_bad() {
    let mut table = table(1, 1, 4);
    for number in [0, 1, 255, 256, 1 << 31, !0] {
        let refused = table.unmap(GrantHandle(number), 0x1000);
        assert_eq!(refused, Err(GrantError::BadHandle));
    }
    let _ = table.room().unwrap().record(mapping(5));
    assert_eq!(
        table.unmap(GrantHandle(1), 0x5000),
        Err(GrantError::BadHandle)
    );
    assert_eq!(
        table.unmap(GrantHandle(256), 0x5000),
        Err(GrantError::BadHandle)
    );
}

#[test]
fn unmapping_at_the_wrong_place_changes_nothing() {
    let mut table = table(1, 1, 1);
    let handle = table.room().unwrap().record(mapping(5));
    for host_addr in [0x6000, 0x1_0000_5000, 1 << 63] {
        assert_eq!(table.unmap(handle, host_addr), Err(GrantError::General));
    }
    assert_eq!(table.unmap(handle, 0), Ok(None));
    assert_eq!(table.mappings(), 1);
    assert_eq!(table.unmap(handle, 0x5FFF), Ok(Some(mapping(5))));
}

#[test]
fn a_vacancy_that_is_not_used_costs_no_handle() {
    let mut table = table(1, 1, 1);
    for _ in 0..2 * HANDLES_PER_FRAME {
        assert!(table.room().is_ok());
    }
    assert_eq!(table.mappings(), 0);
}

#[test]
fn handles_end_at_the_limit_and_come_back() {
    let mut table = table(1, 1, 2);
    let mut handles = Vec::new();
    for n in 1..=2 * HANDLES_PER_FRAME {
        handles.push(table.room().unwrap().record(mapping(n)));
    }
    assert_eq!(table.room().err(), Some(GrantError::NoSpace));
    handles.sort();
    handles.dedup();
    assert_eq!(handles.len() as u32, table.mappings());
    assert!(!handles.contains(&GrantHandle::INVALID));
    let given_back = handles[300];
    let Search::Found((_, old)) = table.next_mapping(given_back, 1) else {
        panic!("the handle is in use");
    };
    assert_eq!(
        table.unmap(given_back, u64::from(old.gfn.raw()) << 12),
        Ok(Some(old))
    );
    assert_eq!(table.room().unwrap().record(mapping(9)), given_back);
    assert_eq!(table.room().err(), Some(GrantError::NoSpace));
}

#[test]
fn mappings_can_be_listed_in_small_steps() {
    let mut table = table(1, 1, 2);
    for n in 1..=300 {
        let _ = table.room().unwrap().record(mapping(n));
    }
    let (mut from, mut found) = (GrantHandle(0), 0);
    loop {
        match table.next_mapping(from, 7) {
            Search::Found((handle, mapping)) => {
                assert_eq!(mapping.gfn.raw(), handle.0 + 1);
                found += 1;
                from = GrantHandle(handle.0 + 1);
            }
            Search::More(next) => from = GrantHandle(next),
            Search::Absent => break,
        }
    }
    assert_eq!(found, 300);
    assert_eq!(table.next_mapping(GrantHandle::INVALID, 7), Search::Absent);
}
