//! The end of a granter and of a mapper.

use super::{GRANTER, MAPPER, Memory, REF, flags, gfn, grant, mfn, page, table};
use crate::abi::grant_table::{GTF_PERMIT_ACCESS, GrantError};
use crate::grant::{Access, GrantHandle, GrowError, HANDLES_PER_FRAME, Mapping, Step};

fn mapping(access: Access) -> Mapping {
    Mapping {
        granter: GRANTER,
        grant_ref: REF,
        access,
        gfn: gfn(5),
        mfn: mfn(0x100),
    }
}

#[test]
fn a_closed_table_begins_nothing() {
    let (mut table, mut memory) = (table(1, 2, 1), Memory::new());
    grant(&table, REF.0, MAPPER, 0x10);
    table.close();
    let refused = table.acquire(REF, MAPPER, Access::Read, &mut memory);
    assert_eq!(refused, Err(GrantError::BadDomain));
    assert_eq!(table.room().err(), Some(GrantError::General));
    let refused = table.grow(page()).map_err(|(why, _)| why);
    assert_eq!(refused, Err(GrowError::Limit));
    assert_eq!(flags(&table, REF.0), GTF_PERMIT_ACCESS);
}

#[test]
fn frames_of_entries_stay_while_the_table_is_open() {
    let mut table = table(2, 2, 1);
    assert!(table.take_frame().is_none());
    table.close();
    assert!(table.take_frame().is_some() && table.take_frame().is_some());
    assert!(table.take_frame().is_none());
    assert!(table.frame(0).is_none());
}

#[test]
fn a_dead_granters_frame_is_held_until_its_last_user_has_gone() {
    let (mut table, mut memory) = (table(1, 1, 1), Memory::new());
    grant(&table, REF.0, MAPPER, 0x10);
    table
        .acquire(REF, MAPPER, Access::Read, &mut memory)
        .unwrap();
    table
        .acquire(REF, MAPPER, Access::Write, &mut memory)
        .unwrap();
    table.close();
    while table.take_frame().is_some() {}
    memory.map.clear();
    assert!(!table.is_idle() && memory.total() == 1);
    table.release(REF, Access::Write, &mut memory);
    assert!(!table.is_idle() && memory.total() == 1);
    table.release(REF, Access::Read, &mut memory);
    assert!(table.is_idle() && memory.total() == 0);
}

#[test]
fn a_dead_mapper_gives_everything_back_in_bounded_steps() {
    let mut mapper = table(1, 1, 3);
    let (mut granter, mut memory) = (table(1, 1, 1), Memory::new());
    grant(&granter, REF.0, MAPPER, 0x10);
    let all = 3 * HANDLES_PER_FRAME;
    for n in 0..all {
        let access = [Access::Read, Access::Write][n as usize % 2];
        granter.acquire(REF, MAPPER, access, &mut memory).unwrap();
        let _ = mapper.room().unwrap().record(mapping(access));
    }
    mapper.close();
    let (mut released, mut calls) = (0, 0);
    loop {
        let mut budget = 10;
        calls += 1;
        let end = loop {
            match mapper.release_next(&mut budget) {
                Step::Release(mapping) => {
                    granter.release(mapping.grant_ref, mapping.access, &mut memory);
                    released += 1;
                }
                end => break end,
            }
        };
        if end == Step::Done {
            break;
        }
        assert_eq!(budget, 0);
    }
    assert_eq!(released, all);
    assert!(calls >= all / 10);
    assert!(mapper.is_idle() && granter.is_idle() && memory.total() == 0);
    assert_eq!(flags(&granter, REF.0), GTF_PERMIT_ACCESS);
}

#[test]
fn handles_without_mappings_cost_budget_too() {
    let mut table = table(1, 1, 1);
    let handle = table.room().unwrap().record(mapping(Access::Read));
    assert!(table.unmap(handle, 5 << 12).is_ok());
    table.close();
    let mut budget = HANDLES_PER_FRAME - 1;
    assert_eq!(table.release_next(&mut budget), Step::More);
    budget = 1;
    assert_eq!(table.release_next(&mut budget), Step::Done);
    assert_eq!(table.release_next(&mut budget), Step::Done);
}

#[test]
fn a_mapping_that_cannot_be_undone_comes_again() {
    let mut table = table(1, 1, 1);
    let _ = table.room().unwrap().record(mapping(Access::Read));
    table.close();
    for _ in 0..3 {
        let mut budget = HANDLES_PER_FRAME;
        let Step::Release(mapping) = table.release_next(&mut budget) else {
            panic!("there is one")
        };
        assert!(table.is_idle());
        table.keep(mapping);
        assert_eq!((table.mappings(), table.is_idle()), (1, false));
    }
    assert!(matches!(table.release_next(&mut 1), Step::Release(_)));
    assert_eq!(table.release_next(&mut 1), Step::Done);
}

#[test]
fn a_table_that_is_being_emptied_knows_no_old_handle() {
    let mut table = table(1, 1, 1);
    for _ in 0..3 {
        let _ = table.room().unwrap().record(mapping(Access::Read));
    }
    table.close();
    let mut budget = HANDLES_PER_FRAME;
    assert!(matches!(table.release_next(&mut budget), Step::Release(_)));
    let refused = table.unmap(GrantHandle(2), 5 << 12);
    assert_eq!(refused, Err(GrantError::BadHandle));
    assert!(matches!(table.unmap(GrantHandle(0), 5 << 12), Ok(Some(_))));
    assert!(matches!(table.release_next(&mut budget), Step::Release(_)));
    assert_eq!(table.release_next(&mut budget), Step::Done);
}
