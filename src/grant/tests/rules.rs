//! The granter's side: the right to use an entry, and the marks.

use super::{
    GRANTER, MAPPER, Memory, REF, STRANGER, flags, gfn, grant, mfn, page, table, word, write,
};
use crate::abi::grant_table::{
    GTF_ACCEPT_TRANSFER, GTF_INVALID, GTF_PAT, GTF_PERMIT_ACCESS, GTF_READING, GTF_READONLY,
    GTF_SUB_PAGE, GTF_TRANSITIVE, GTF_WRITING, GrantError,
};
use crate::error::Errno;
use crate::grant::{
    Access, GrantRef, GrantTable, GrantedFrame, GrowError, Limits, Search, set_version,
};

const BOTH: u16 = GTF_READING | GTF_WRITING;

#[test]
fn a_granted_entry_is_pinned_and_marked_until_released() {
    let (mut table, mut memory) = (table(1, 1, 1), Memory::new());
    grant(&table, REF.0, MAPPER, 0x12);
    let pinned = table
        .acquire(REF, MAPPER, Access::Write, &mut memory)
        .unwrap();
    assert_eq!((pinned.mfn, pinned.gfn), (mfn(0x102), gfn(0x12)));
    assert_eq!(flags(&table, REF.0), GTF_PERMIT_ACCESS | BOTH);
    assert_eq!((memory.total(), table.pinned()), (1, 1));
    table.release(REF, Access::Write, &mut memory);
    assert_eq!(flags(&table, REF.0), GTF_PERMIT_ACCESS);
    assert_eq!((memory.total(), table.pinned()), (0, 0));
    assert!(table.is_idle());
}

#[test]
fn reading_does_not_mark_as_writing() {
    let (mut table, mut memory) = (table(1, 1, 1), Memory::new());
    write(
        &table,
        REF.0,
        GTF_PERMIT_ACCESS | GTF_READONLY,
        MAPPER,
        0x10,
    );
    table
        .acquire(REF, MAPPER, Access::Read, &mut memory)
        .unwrap();
    assert_eq!(flags(&table, REF.0) & BOTH, GTF_READING);
}

#[test]
fn the_first_use_that_writes_is_noted_though_others_read_before() {
    let (mut table, mut memory) = (table(1, 1, 1), Memory::new());
    grant(&table, REF.0, MAPPER, 0x12);
    for (access, noted) in [
        (Access::Read, 0),
        (Access::Write, 1),
        (Access::Write, 1),
        (Access::Read, 1),
    ] {
        table.acquire(REF, MAPPER, access, &mut memory).unwrap();
        assert_eq!(memory.written, vec![gfn(0x12); noted]);
    }
}

#[test]
fn what_is_not_granted_is_refused_and_left_alone() {
    let (mut table, mut memory) = (table(1, 1, 1), Memory::new());
    for bad in [
        GTF_INVALID,
        GTF_ACCEPT_TRANSFER,
        GTF_TRANSITIVE,
        GTF_PERMIT_ACCESS | GTF_SUB_PAGE,
        !GTF_PERMIT_ACCESS,
    ] {
        write(&table, REF.0, bad, MAPPER, 0x10);
        let before = word(&table, REF.0);
        let refused = table.acquire(REF, MAPPER, Access::Read, &mut memory);
        assert_eq!(refused, Err(GrantError::General), "flags {bad:#x}");
        assert_eq!(word(&table, REF.0), before);
    }
    assert_eq!((memory.pins, table.pinned()), (0, 0));
}

#[test]
fn x86_cache_attributes_and_unknown_flags_are_kept() {
    let (mut table, mut memory) = (table(1, 1, 1), Memory::new());
    let odd = GTF_PERMIT_ACCESS | GTF_PAT | 1 << 15;
    write(&table, REF.0, odd, MAPPER, 0x10);
    table
        .acquire(REF, MAPPER, Access::Write, &mut memory)
        .unwrap();
    assert_eq!(flags(&table, REF.0), odd | BOTH);
    table.release(REF, Access::Write, &mut memory);
    assert_eq!(flags(&table, REF.0), odd);
}

#[test]
fn only_the_domain_that_the_entry_names_may_use_it() {
    let (mut table, mut memory) = (table(1, 1, 1), Memory::new());
    grant(&table, REF.0, MAPPER, 0x10);
    for other in [GRANTER, STRANGER] {
        let refused = table.acquire(REF, other, Access::Read, &mut memory);
        assert_eq!(refused, Err(GrantError::General));
    }
    grant(&table, REF.0, GRANTER, 0x10);
    assert!(
        table
            .acquire(REF, GRANTER, Access::Read, &mut memory)
            .is_ok()
    );
}

#[test]
fn an_entry_in_use_stays_with_its_user_when_the_granter_renames_it() {
    let (mut table, mut memory) = (table(1, 1, 1), Memory::new());
    grant(&table, REF.0, MAPPER, 0x10);
    table
        .acquire(REF, MAPPER, Access::Read, &mut memory)
        .unwrap();
    grant(&table, REF.0, STRANGER, 0x11);
    let refused = table.acquire(REF, STRANGER, Access::Read, &mut memory);
    assert_eq!(refused, Err(GrantError::General));
    assert!(
        table
            .acquire(REF, MAPPER, Access::Read, &mut memory)
            .is_ok()
    );
}

#[test]
fn a_reference_outside_the_table_is_bad() {
    let (mut table, mut memory) = (table(1, 4, 1), Memory::new());
    for number in [512, 513, 1 << 20, 1 << 31, !0] {
        let refused = table.acquire(GrantRef(number), MAPPER, Access::Read, &mut memory);
        assert_eq!(refused, Err(GrantError::BadGrantRef), "{number:#x}");
    }
}

#[test]
fn a_table_without_frames_has_no_entries() {
    let mut table: GrantTable<super::Page> = GrantTable::new(Limits::new(1, 0).unwrap());
    let mut memory = Memory::new();
    let refused = table.acquire(GrantRef(0), MAPPER, Access::Read, &mut memory);
    assert_eq!(refused, Err(GrantError::BadGrantRef));
    assert_eq!(
        table.swap(GrantRef(0), GrantRef(0)),
        Err(GrantError::BadGrantRef)
    );
    assert_eq!(table.room().err(), Some(GrantError::NoSpace));
    assert_eq!((table.size(), table.frame_gfn(0)), (0, !0));
}

#[test]
fn the_last_entry_of_each_frame_works() {
    let (mut table, mut memory) = (table(2, 2, 1), Memory::new());
    for number in [0, 511, 512, 1023] {
        grant(&table, number, MAPPER, 0x13);
        let grant_ref = GrantRef(number);
        assert!(
            table
                .acquire(grant_ref, MAPPER, Access::Write, &mut memory)
                .is_ok()
        );
        table.release(grant_ref, Access::Write, &mut memory);
    }
    assert_eq!(memory.pins, 4);
}

#[test]
fn writing_through_a_read_only_entry_is_refused() {
    let (mut table, mut memory) = (table(1, 1, 1), Memory::new());
    write(
        &table,
        REF.0,
        GTF_PERMIT_ACCESS | GTF_READONLY,
        MAPPER,
        0x10,
    );
    let refused = table.acquire(REF, MAPPER, Access::Write, &mut memory);
    assert_eq!(refused, Err(GrantError::General));
    assert_eq!(flags(&table, REF.0) & BOTH, 0);
    table
        .acquire(REF, MAPPER, Access::Read, &mut memory)
        .unwrap();
    let refused = table.acquire(REF, MAPPER, Access::Write, &mut memory);
    assert_eq!(refused, Err(GrantError::General));
    assert_eq!(flags(&table, REF.0) & BOTH, GTF_READING);
}

#[test]
fn a_bad_frame_leaves_no_mark() {
    let (mut table, mut memory) = (table(1, 1, 1), Memory::new());
    for frame in [0, 0x18, 0x0FFF_FFFF, 0x1000_0000, !0] {
        grant(&table, REF.0, MAPPER, frame);
        let refused = table.acquire(REF, MAPPER, Access::Write, &mut memory);
        assert_eq!(refused, Err(GrantError::BadPage), "{frame:#x}");
        assert_eq!(flags(&table, REF.0), GTF_PERMIT_ACCESS);
    }
    assert_eq!((memory.total(), table.pinned()), (0, 0));
}

#[test]
fn memory_that_its_owner_may_not_write_is_not_granted_for_writing() {
    let (mut table, mut memory) = (table(1, 1, 1), Memory::new());
    grant(&table, REF.0, MAPPER, 0x17);
    let refused = table.acquire(REF, MAPPER, Access::Write, &mut memory);
    assert_eq!(refused, Err(GrantError::BadPage));
    assert_eq!(memory.total(), 0);
    table
        .acquire(REF, MAPPER, Access::Read, &mut memory)
        .unwrap();
    let refused = table.acquire(REF, MAPPER, Access::Write, &mut memory);
    assert_eq!(refused, Err(GrantError::BadPage));
    assert_eq!(flags(&table, REF.0) & BOTH, GTF_READING);
}

#[test]
fn a_second_user_gets_the_frame_that_was_pinned_first() {
    let (mut table, mut memory) = (table(1, 1, 1), Memory::new());
    grant(&table, REF.0, MAPPER, 0x10);
    let first = table
        .acquire(REF, MAPPER, Access::Read, &mut memory)
        .unwrap();
    grant(&table, REF.0, MAPPER, 0x15);
    memory.map.insert(
        gfn(0x10),
        GrantedFrame {
            mfn: mfn(0x999),
            writable: true,
        },
    );
    let second = table
        .acquire(REF, MAPPER, Access::Write, &mut memory)
        .unwrap();
    assert_eq!(first, second);
    assert_eq!((memory.pins, memory.total()), (1, 1));
    table.release(REF, Access::Read, &mut memory);
    table.release(REF, Access::Write, &mut memory);
    assert_eq!(memory.total(), 0);
}

#[test]
fn marks_go_with_the_last_writer_and_the_last_user() {
    let (mut table, mut memory) = (table(1, 1, 1), Memory::new());
    grant(&table, REF.0, MAPPER, 0x10);
    let marks = |table: &GrantTable<super::Page>| flags(table, REF.0) & BOTH;
    for access in [Access::Read, Access::Write, Access::Write] {
        table.acquire(REF, MAPPER, access, &mut memory).unwrap();
    }
    table.release(REF, Access::Write, &mut memory);
    assert_eq!(marks(&table), BOTH);
    table.release(REF, Access::Write, &mut memory);
    assert_eq!(marks(&table), GTF_READING);
    table.release(REF, Access::Read, &mut memory);
    assert_eq!(marks(&table), 0);
}

#[test]
fn a_writer_keeps_the_reading_mark_when_the_readers_go() {
    let (mut table, mut memory) = (table(1, 1, 1), Memory::new());
    grant(&table, REF.0, MAPPER, 0x10);
    table
        .acquire(REF, MAPPER, Access::Read, &mut memory)
        .unwrap();
    table
        .acquire(REF, MAPPER, Access::Write, &mut memory)
        .unwrap();
    table.release(REF, Access::Read, &mut memory);
    assert_eq!(flags(&table, REF.0) & BOTH, BOTH);
}

#[test]
fn users_are_counted_up_to_a_limit_and_not_beyond() {
    let (mut table, mut memory) = (table(1, 1, 1), Memory::new());
    grant(&table, REF.0, MAPPER, 0x10);
    for _ in 0..u16::MAX {
        table
            .acquire(REF, MAPPER, Access::Read, &mut memory)
            .unwrap();
    }
    let refused = table.acquire(REF, MAPPER, Access::Read, &mut memory);
    assert_eq!(refused, Err(GrantError::General));
    for _ in 0..u16::MAX {
        table.release(REF, Access::Read, &mut memory);
    }
    assert!(table.is_idle() && memory.total() == 0);
}

#[test]
fn swapping_exchanges_whole_entries() {
    let mut table = table(2, 2, 1);
    write(&table, 3, GTF_PERMIT_ACCESS | GTF_READONLY, MAPPER, 0x10);
    grant(&table, 700, STRANGER, 0x11);
    table.swap(GrantRef(3), GrantRef(700)).unwrap();
    let mut memory = Memory::new();
    let swapped = table.acquire(GrantRef(3), STRANGER, Access::Write, &mut memory);
    assert_eq!(swapped.map(|p| p.gfn), Ok(gfn(0x11)));
    assert!(
        table
            .acquire(GrantRef(700), MAPPER, Access::Read, &mut memory)
            .is_ok()
    );
}

#[test]
fn swapping_refuses_references_that_do_not_exist_or_are_in_use() {
    let (mut table, mut memory) = (table(1, 2, 1), Memory::new());
    grant(&table, REF.0, MAPPER, 0x10);
    for (a, b) in [(0, 512), (512, 0), (!0, !0), (512, 512)] {
        let refused = table.swap(GrantRef(a), GrantRef(b));
        assert_eq!(refused, Err(GrantError::BadGrantRef));
    }
    table
        .acquire(REF, MAPPER, Access::Read, &mut memory)
        .unwrap();
    assert_eq!(table.swap(REF, GrantRef(1)), Err(GrantError::Again));
    assert_eq!(table.swap(GrantRef(1), REF), Err(GrantError::Again));
    assert_eq!(table.swap(REF, REF), Ok(()));
}

#[test]
fn a_table_grows_to_its_limit_and_not_beyond() {
    let mut table = table(1, 3, 1);
    assert_eq!((table.size(), table.max_size()), (1, 3));
    assert_eq!(table.missing_frames(0), Ok(0));
    assert_eq!(table.missing_frames(3), Ok(2));
    for wanted in [4, u64::from(u32::MAX), 1 << 32, u64::MAX] {
        assert_eq!(table.missing_frames(wanted), Err(GrantError::General));
    }
    assert!(table.grow(page()).is_ok() && table.grow(page()).is_ok());
    let refused = table.grow(page()).map_err(|(why, _)| why);
    assert_eq!(refused, Err(GrowError::Limit));
}

#[test]
fn limits_that_cannot_be_kept_are_refused() {
    assert!(Limits::new(0, 1).is_none());
    assert!(Limits::new(u32::MAX, 1).is_none());
    assert!(Limits::new(1, u32::MAX).is_none());
    assert!(Limits::new(64, 1024).is_some());
}

#[test]
fn a_frame_without_a_place_reads_as_all_ones() {
    let mut table = table(2, 2, 1);
    assert_eq!((table.frame_gfn(0), table.frame_gfn(99)), (!0, !0));
    table.set_place(1, gfn(0x38000));
    table.set_place(2, gfn(0x38001));
    assert!(table.has_place(1) && !table.has_place(0) && !table.has_place(2));
    assert_eq!((table.frame_gfn(0), table.frame_gfn(1)), (!0, 0x38000));
    table.forget_place(gfn(0x38001));
    assert!(table.has_place(1));
    table.forget_place(gfn(0x38000));
    assert_eq!(table.frame_gfn(1), !0);
    table.set_place(1, gfn(0x38001));
}

#[test]
fn entries_in_use_can_be_listed_in_small_steps() {
    let (mut table, mut memory) = (table(3, 3, 1), Memory::new());
    for number in [5, 1030] {
        grant(&table, number, MAPPER, 0x10);
        table
            .acquire(GrantRef(number), MAPPER, Access::Read, &mut memory)
            .unwrap();
    }
    let Search::Found(first) = table.next_active(GrantRef(0), 6) else {
        panic!("entry 5 is among the first six");
    };
    assert_eq!(
        (first.grant_ref, first.by, first.readers, first.writers),
        (GrantRef(5), MAPPER, 1, 0)
    );
    assert_eq!(table.next_active(GrantRef(0), 5), Search::More(5));
    let mut from = GrantRef(6);
    let second = loop {
        match table.next_active(from, 10) {
            Search::More(next) => from = GrantRef(next),
            other => break other,
        }
    };
    assert!(matches!(second, Search::Found(found) if found.grant_ref == GrantRef(1030)));
    for end in [1536, !0] {
        assert_eq!(table.next_active(GrantRef(end), 10), Search::Absent);
    }
}

#[test]
fn a_frame_is_found_for_its_user_only() {
    let (mut table, mut memory) = (table(1, 1, 1), Memory::new());
    grant(&table, REF.0, MAPPER, 0x10);
    let find = |table: &GrantTable<super::Page>, by, n| {
        matches!(
            table.find_frame(by, mfn(n), GrantRef(0), 512),
            Search::Found(_)
        )
    };
    assert!(!find(&table, MAPPER, 0x100));
    table
        .acquire(REF, MAPPER, Access::Read, &mut memory)
        .unwrap();
    assert!(find(&table, MAPPER, 0x100));
    assert!(!find(&table, STRANGER, 0x100) && !find(&table, MAPPER, 0x101));
}

#[test]
fn there_is_only_version_one() {
    assert_eq!(set_version(1), Ok(1));
    assert_eq!(set_version(2), Err(Errno::NoSys));
    for version in [0, 3, !0] {
        assert_eq!(set_version(version), Err(Errno::Inval));
    }
}

#[test]
fn what_a_domain_needs_of_the_heap_ends_before_the_heap_does() {
    use armv7::heap::RESERVE;
    use armv7::host::heap::set_free;

    let mut table: GrantTable<super::Page> = GrantTable::new(Limits::new(4, 4).unwrap());
    set_free(RESERVE + 8191);
    assert!(matches!(table.grow(page()), Err((GrowError::NoMemory, _))));
    // Handles have pages of their own.
    assert!(table.room().is_ok());
    set_free(RESERVE + 8192);
    assert!(table.grow(page()).is_ok());
}
