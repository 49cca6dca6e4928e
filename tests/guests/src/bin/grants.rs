//! Grant tables: every sub-operation, with this domain as granter and grantee (abi.md section 5). Between two domains the
//! rules are the same; what another domain may not do: `domains`.
#![no_std]
#![no_main]

use core::arch::global_asm;
use core::sync::atomic::{AtomicU32, Ordering};

use guests::abi::{self, DOM0, DOMID_ABSENT, DOMID_SELF, reservation};
use guests::exception::{Kind, catch};
use guests::grant::{
    self, CacheFlush, CopySide, MAP_HOST, MAP_READ_ONLY, PERMIT_ACCESS, POISON_STATUS, QuerySize, READ_ONLY, READING,
    SetupTable, Table, Unmap, WRITING, copy, local, map, myself, operate, unmap,
};
use guests::harness::{Failure, Verdict, expect};
use guests::hypercall::{GRANT_TABLE_OP, address_of, call, call_with};
use guests::memory::{self, Frame, PAGE_SIZE};
use guests::status::grant::{
    BAD_COPY_ARG, BAD_DOMAIN, BAD_GNTREF, BAD_HANDLE, BAD_PAGE, GENERAL_ERROR, OKAY, PERMISSION_DENIED,
};
use guests::status::{EFAULT, EINVAL, ENOSYS, EPERM};
use guests::{ensure, ensure_eq, gic, suite};

suite! { "grants":
    size_is_between_one_frame_and_the_limit,
    size_grows_with_the_frame_that_is_mapped,
    size_of_an_absent_domain_is_refused,
    version_is_one_and_stays_one,
    setup_table_lists_where_the_frames_are,
    setup_table_beyond_the_limit_is_refused,

    a_mapping_shows_the_granted_page,
    a_mapping_tells_the_machine_address,
    a_writable_mapping_marks_the_entry_reading_and_writing,
    a_read_only_mapping_marks_the_entry_reading,
    an_unmapped_page_is_gone_and_its_entry_unmarked,
    a_read_only_mapping_faults_on_writes,
    a_mapping_is_not_executable,
    marks_stay_until_the_last_mapping_goes,
    a_writing_mark_goes_with_the_last_writable_mapping,
    a_read_only_grant_cannot_be_mapped_writable,
    an_entry_that_permits_nothing_cannot_be_mapped,
    an_entry_for_another_domain_cannot_be_mapped,
    a_reference_beyond_the_table_cannot_be_mapped,
    a_grant_of_an_absent_domain_cannot_be_mapped,
    a_grant_of_what_is_not_ram_cannot_be_mapped,
    a_mapping_must_be_of_a_known_kind,
    a_failed_mapping_leaves_the_entry_unmarked,
    a_handle_unmaps_once,
    a_handle_that_was_never_given_does_not_unmap,
    a_handle_does_not_unmap_another_address,
    handles_are_recycled,
    a_batch_reports_each_element,
    an_unreadable_batch_returns_efault,
    an_empty_batch_succeeds,

    a_copy_moves_a_whole_page,
    a_copy_moves_just_its_bytes,
    a_copy_works_from_and_to_grants,
    a_copy_within_one_domain_needs_no_grant,
    a_copy_across_a_page_end_is_refused,
    a_copy_of_nothing_succeeds,
    a_copy_into_a_read_only_grant_is_refused,
    a_copy_by_frame_of_another_domain_is_refused,
    a_copy_with_a_bad_reference_or_domain_is_refused,
    a_copy_leaves_the_entries_unmarked,

    swap_exchanges_two_entries,
    swap_refuses_references_beyond_the_table,
    transfer_and_replace_are_not_for_translated_domains,
    status_frames_belong_to_version_two,
    dump_table_and_unknown_operations_return_enosys,
    cache_flush_with_nothing_to_do_succeeds,
    cache_flush_cleans_and_invalidates_own_pages,
    cache_flush_stays_within_a_page,
    cache_flush_refuses_unknown_operations,
    cache_flush_refuses_what_is_not_own_ram,
}

global_asm!(
    ".arm",
    // u32 store_word(address, value)
    ".global store_word",
    "store_word: str r1, [r0]",
    "bx lr",
    // u32 load_word(address, _)
    ".global load_word",
    "load_word: ldr r0, [r0]",
    "bx lr",
    // u32 jump_to(address, _)
    ".global jump_to",
    "jump_to: bx r0",
);

unsafe extern "C" {
    fn store_word(address: u32, value: u32) -> u32;
    fn load_word(address: u32, unused: u32) -> u32;
    fn jump_to(address: u32, unused: u32) -> u32;
}

/// The entries that the tests use; 0-7 are reserved (abi.md 5).
const FIRST: u32 = 8;
const SECOND: u32 = 9;

/// The grant table, mapped by the first test that asks; its entries cleared.
fn table() -> Result<Table, Failure> {
    static TABLE: AtomicU32 = AtomicU32::new(0);
    let known = TABLE.load(Ordering::Relaxed);
    let table = if known == 0 { expect(Table::map())? } else { Table(Frame::at(known)) };
    TABLE.store(table.0.address(), Ordering::Relaxed);
    for reference in [FIRST, SECOND] {
        table.clear(reference);
    }
    Ok(table)
}

/// A reference of this domain as one side of a copy.
fn granted(reference: u32, offset: u16) -> CopySide {
    grant::granted(myself(), reference, offset)
}

/// A guest frame with nothing in it.
fn hole() -> Result<Frame, Failure> {
    let frame = Frame::take();
    ensure_eq!(reservation(abi::MEM_DECREASE_RESERVATION, &mut [frame.gfn()], 0), 1);
    Ok(frame)
}

/// A table whose entry FIRST grants a fresh frame to this domain.
fn grant(flags: u32) -> Result<(Table, Frame), Failure> {
    let (table, frame) = (table()?, Frame::take());
    table.set(FIRST, PERMIT_ACCESS | flags, myself(), frame.gfn());
    Ok((table, frame))
}

fn size(domain: u16) -> QuerySize {
    let mut element = [QuerySize {
        domain,
        pad: 0,
        frames: grant::POISON,
        max_frames: grant::POISON,
        status: POISON_STATUS,
        pad2: 0,
    }];
    operate(grant::QUERY_SIZE, &mut element);
    element[0]
}

fn size_is_between_one_frame_and_the_limit() -> Verdict {
    let size = size(DOMID_SELF);
    ensure_eq!(size.status, OKAY);
    ensure!(size.frames >= 1 && size.frames <= size.max_frames, size.frames);
    ensure_eq!(size.max_frames, 64);
    Ok(())
}

fn size_grows_with_the_frame_that_is_mapped() -> Verdict {
    let frame = Frame::take();
    ensure_eq!(abi::add_to_physmap(abi::SPACE_GRANT_TABLE, 3, frame.gfn()), 0);
    ensure!(size(DOMID_SELF).frames >= 4);
    ensure_eq!(abi::remove_from_physmap(frame.gfn()), 0);
    Ok(())
}

fn size_of_an_absent_domain_is_refused() -> Verdict {
    ensure_eq!(size(DOMID_ABSENT).status, BAD_DOMAIN);
    Ok(())
}

fn version_is_one_and_stays_one() -> Verdict {
    // gnttab_get_version: domid, then the version.
    let mut version = [[u32::from(DOMID_SELF), 0]];
    ensure_eq!(operate(grant::GET_VERSION, &mut version), 0);
    ensure_eq!(version[0][1], 1);
    ensure_eq!(operate(grant::SET_VERSION, &mut [1_u32]), 0);
    ensure_eq!(operate(grant::SET_VERSION, &mut [2_u32]), ENOSYS);
    ensure_eq!(operate(grant::SET_VERSION, &mut [3_u32]), EINVAL);
    ensure_eq!(operate(grant::SET_VERSION, &mut [0_u32]), EINVAL);
    Ok(())
}

fn setup(frames: u32, list: &mut [u64]) -> (i32, i16) {
    let mut element = [SetupTable {
        domain: DOMID_SELF,
        pad: 0,
        frames,
        status: POISON_STATUS,
        pad2: [0; 3],
        list: u64::from(address_of(list)),
    }];
    (operate(grant::SETUP_TABLE, &mut element), element[0].status)
}

fn setup_table_lists_where_the_frames_are() -> Verdict {
    let table = table()?;
    let mut list = [0x5a5a; 2];
    let (result, status) = setup(1, &mut list);
    ensure_eq!(result, 0);
    ensure_eq!(status, OKAY);
    ensure_eq!(list[0], table.0.gfn());
    ensure_eq!(list[1], 0x5a5a);
    Ok(())
}

fn setup_table_beyond_the_limit_is_refused() -> Verdict {
    let mut list = [0x5a5a; 2];
    for frames in [65, 0x1_0000, u32::MAX] {
        let (result, status) = setup(frames, &mut list);
        ensure!(result < 0 || status == GENERAL_ERROR, frames);
        ensure_eq!(list[0], 0x5a5a, frames);
    }
    Ok(())
}

fn a_mapping_shows_the_granted_page() -> Verdict {
    let (_, granted) = grant(0)?;
    let at = hole()?;
    granted.write(0, 0x1234_5678);
    let mapping = map(FIRST, myself(), MAP_HOST, at);
    ensure_eq!(mapping.status, OKAY);
    ensure_eq!(at.read(0), 0x1234_5678);
    at.write(PAGE_SIZE - 4, 0x8765_4321);
    ensure_eq!(granted.read(PAGE_SIZE - 4), 0x8765_4321_u32);
    ensure_eq!(unmap(mapping.handle, at), OKAY);
    Ok(())
}

fn a_mapping_tells_the_machine_address() -> Verdict {
    let (table, granted) = grant(0)?;
    let at = hole()?;
    let mapping = map(FIRST, myself(), MAP_HOST, at);
    // dom0 is mapped 1:1; elsewhere there is nothing to compare with but another mapping.
    if myself() == DOM0 {
        ensure_eq!(mapping.bus_address, granted.address());
    } else {
        ensure_eq!(mapping.bus_address % u64::from(PAGE_SIZE), 0);
        ensure_eq!(mapping.bus_address, machine_address(table, granted)?);
    }
    ensure_eq!(unmap(mapping.handle, at), OKAY);
    Ok(())
}

/// Where a frame is in the machine: what a mapping of it tells.
fn machine_address(table: Table, frame: Frame) -> Result<u64, Failure> {
    if myself() == DOM0 {
        return Ok(frame.address().into());
    }
    let at = hole()?;
    table.set(SECOND, PERMIT_ACCESS, myself(), frame.gfn());
    let mapping = map(SECOND, myself(), MAP_HOST, at);
    ensure_eq!(unmap(mapping.handle, at), OKAY);
    Ok(mapping.bus_address)
}

fn a_writable_mapping_marks_the_entry_reading_and_writing() -> Verdict {
    let (table, _) = grant(0)?;
    let at = hole()?;
    let mapping = map(FIRST, myself(), MAP_HOST, at);
    ensure_eq!(table.flags(FIRST), PERMIT_ACCESS | READING | WRITING);
    ensure_eq!(unmap(mapping.handle, at), OKAY);
    Ok(())
}

fn a_read_only_mapping_marks_the_entry_reading() -> Verdict {
    let (table, _) = grant(0)?;
    let at = hole()?;
    let mapping = map(FIRST, myself(), MAP_HOST | MAP_READ_ONLY, at);
    ensure_eq!(mapping.status, OKAY);
    ensure_eq!(table.flags(FIRST), PERMIT_ACCESS | READING);
    ensure_eq!(unmap(mapping.handle, at), OKAY);
    Ok(())
}

fn an_unmapped_page_is_gone_and_its_entry_unmarked() -> Verdict {
    let (table, _) = grant(0)?;
    let at = hole()?;
    let mapping = map(FIRST, myself(), MAP_HOST, at);
    ensure!(catch(load_word, at.address(), 0).is_ok());
    ensure_eq!(unmap(mapping.handle, at), OKAY);
    ensure!(catch(load_word, at.address(), 0).is_err());
    ensure_eq!(table.flags(FIRST), PERMIT_ACCESS);
    Ok(())
}

fn a_read_only_mapping_faults_on_writes() -> Verdict {
    let (_, granted) = grant(READ_ONLY)?;
    let at = hole()?;
    granted.write(0, 7);
    let mapping = map(FIRST, myself(), MAP_HOST | MAP_READ_ONLY, at);
    ensure_eq!(mapping.status, OKAY);
    ensure_eq!(catch(load_word, at.address(), 0).unwrap_or(0), 7);
    ensure!(matches!(catch(store_word, at.address(), 8), Err(fault) if fault.kind == Kind::DataAbort));
    ensure_eq!(granted.read(0), 7);
    ensure_eq!(unmap(mapping.handle, at), OKAY);
    Ok(())
}

fn a_mapping_is_not_executable() -> Verdict {
    let (_, granted) = grant(0)?;
    let at = hole()?;
    const BX_LR: u32 = 0xe12f_ff1e;
    granted.write(0, BX_LR);
    ensure!(catch(jump_to, granted.address(), 0).is_ok());
    let mapping = map(FIRST, myself(), MAP_HOST, at);
    ensure!(matches!(catch(jump_to, at.address(), 0), Err(fault) if fault.kind == Kind::PrefetchAbort));
    ensure_eq!(unmap(mapping.handle, at), OKAY);
    Ok(())
}

fn marks_stay_until_the_last_mapping_goes() -> Verdict {
    let (table, _) = grant(0)?;
    let (first, second) = (hole()?, hole()?);
    let mappings = (map(FIRST, myself(), MAP_HOST, first), map(FIRST, myself(), MAP_HOST, second));
    ensure!(mappings.0.handle != mappings.1.handle);
    ensure_eq!(unmap(mappings.0.handle, first), OKAY);
    ensure_eq!(table.flags(FIRST), PERMIT_ACCESS | READING | WRITING);
    ensure_eq!(unmap(mappings.1.handle, second), OKAY);
    ensure_eq!(table.flags(FIRST), PERMIT_ACCESS);
    Ok(())
}

fn a_writing_mark_goes_with_the_last_writable_mapping() -> Verdict {
    let (table, _) = grant(0)?;
    let (first, second) = (hole()?, hole()?);
    let writable = map(FIRST, myself(), MAP_HOST, first);
    let readable = map(FIRST, myself(), MAP_HOST | MAP_READ_ONLY, second);
    ensure_eq!(unmap(writable.handle, first), OKAY);
    ensure_eq!(table.flags(FIRST), PERMIT_ACCESS | READING);
    ensure_eq!(unmap(readable.handle, second), OKAY);
    ensure_eq!(table.flags(FIRST), PERMIT_ACCESS);
    Ok(())
}

fn a_read_only_grant_cannot_be_mapped_writable() -> Verdict {
    let (table, _) = grant(READ_ONLY)?;
    ensure_eq!(map(FIRST, myself(), MAP_HOST, hole()?).status, GENERAL_ERROR);
    ensure_eq!(table.flags(FIRST), PERMIT_ACCESS | READ_ONLY);
    Ok(())
}

fn an_entry_that_permits_nothing_cannot_be_mapped() -> Verdict {
    let (table, frame) = grant(0)?;
    for flags in [0, grant::ACCEPT_TRANSFER, grant::TRANSITIVE] {
        table.set(FIRST, flags, myself(), frame.gfn());
        ensure_eq!(map(FIRST, myself(), MAP_HOST, hole()?).status, GENERAL_ERROR, flags);
        ensure_eq!(table.flags(FIRST), flags);
    }
    Ok(())
}

fn an_entry_for_another_domain_cannot_be_mapped() -> Verdict {
    let (table, frame) = grant(0)?;
    for domain in [DOMID_ABSENT, myself() + 1, DOMID_SELF] {
        table.set(FIRST, PERMIT_ACCESS, domain, frame.gfn());
        ensure_eq!(map(FIRST, myself(), MAP_HOST, hole()?).status, GENERAL_ERROR, domain);
    }
    Ok(())
}

fn a_reference_beyond_the_table_cannot_be_mapped() -> Verdict {
    table()?;
    let entries = size(DOMID_SELF).frames * grant::ENTRIES_PER_FRAME;
    for reference in [entries, entries + 1, 0x8000_0000, u32::MAX] {
        ensure_eq!(map(reference, myself(), MAP_HOST, hole()?).status, BAD_GNTREF, reference);
    }
    Ok(())
}

fn a_grant_of_an_absent_domain_cannot_be_mapped() -> Verdict {
    grant(0)?;
    for domain in [DOMID_ABSENT, DOMID_SELF, abi::DOMID_INVALID] {
        ensure_eq!(map(FIRST, domain, MAP_HOST, hole()?).status, BAD_DOMAIN, domain);
        // A flag that nobody knows is told later.
        ensure_eq!(map(FIRST, domain, MAP_HOST | 1 << 16, hole()?).status, BAD_DOMAIN, domain);
    }
    Ok(())
}

fn a_grant_of_what_is_not_ram_cannot_be_mapped() -> Verdict {
    let table = table()?;
    for gfn in [hole()?.gfn(), u64::from(gic::distributor(0) >> 12), 0xf_0000, 0xffff_ffff] {
        table.set(FIRST, PERMIT_ACCESS, myself(), gfn);
        ensure_eq!(map(FIRST, myself(), MAP_HOST, hole()?).status, BAD_PAGE, gfn);
        ensure_eq!(table.flags(FIRST), PERMIT_ACCESS, gfn);
    }
    Ok(())
}

fn a_mapping_must_be_of_a_known_kind() -> Verdict {
    grant(0)?;
    for flags in [0, MAP_READ_ONLY, grant::MAP_APPLICATION] {
        ensure!(map(FIRST, myself(), flags, hole()?).status < 0, flags);
    }
    // Page table entries are for x86 guests.
    ensure_eq!(map(FIRST, myself(), MAP_HOST | grant::MAP_CONTAINS_PTE, hole()?).status, GENERAL_ERROR);
    Ok(())
}

fn a_failed_mapping_leaves_the_entry_unmarked() -> Verdict {
    let (table, _) = grant(0)?;
    ensure!(map(FIRST, myself(), MAP_HOST | grant::MAP_CONTAINS_PTE, hole()?).status < 0);
    ensure_eq!(table.flags(FIRST), PERMIT_ACCESS);
    Ok(())
}

fn a_handle_unmaps_once() -> Verdict {
    grant(0)?;
    let at = hole()?;
    let mapping = map(FIRST, myself(), MAP_HOST, at);
    ensure_eq!(unmap(mapping.handle, at), OKAY);
    ensure_eq!(unmap(mapping.handle, at), BAD_HANDLE);
    Ok(())
}

fn a_handle_that_was_never_given_does_not_unmap() -> Verdict {
    for handle in [0x1_0000, 0x8000_0000, u32::MAX] {
        ensure_eq!(unmap(handle, Frame::take()), BAD_HANDLE, handle);
    }
    Ok(())
}

fn a_handle_does_not_unmap_another_address() -> Verdict {
    let (table, _) = grant(0)?;
    let at = hole()?;
    let mapping = map(FIRST, myself(), MAP_HOST, at);
    let bystander = Frame::take();
    bystander.write(0, 9);
    ensure_eq!(unmap(mapping.handle, bystander), GENERAL_ERROR);
    ensure_eq!(bystander.read(0), 9);
    ensure_eq!(table.flags(FIRST), PERMIT_ACCESS | READING | WRITING);
    ensure_eq!(unmap(mapping.handle, at), OKAY);
    Ok(())
}

fn handles_are_recycled() -> Verdict {
    grant(0)?;
    let at = hole()?;
    // A pin count that is not given back overflows its eight bits within 256 rounds.
    for round in 0..600 {
        let mapping = map(FIRST, myself(), MAP_HOST, at);
        ensure_eq!(mapping.status, OKAY, round);
        ensure!(mapping.handle < 512, mapping.handle);
        ensure_eq!(unmap(mapping.handle, at), OKAY, round);
    }
    Ok(())
}

fn a_batch_reports_each_element() -> Verdict {
    grant(0)?;
    let at = hole()?;
    let element = grant::Map {
        host_address: u64::from(at.address()),
        flags: MAP_HOST,
        reference: FIRST,
        domain: myself(),
        status: POISON_STATUS,
        handle: grant::POISON,
        bus_address: 0,
    };
    let absent = grant::Map { domain: DOMID_ABSENT, ..element };
    let mut batch = [absent, element, absent];
    ensure_eq!(operate(grant::MAP_GRANT_REF, &mut batch), 0);
    ensure_eq!(batch[0].status, BAD_DOMAIN);
    ensure_eq!(batch[1].status, OKAY);
    ensure_eq!(batch[2].status, BAD_DOMAIN);

    let bad = Unmap { host_address: 0, bus_address: 0, handle: u32::MAX, status: POISON_STATUS, pad: 0 };
    let good = Unmap { host_address: u64::from(at.address()), handle: batch[1].handle, ..bad };
    let mut batch = [bad, good];
    ensure_eq!(operate(grant::UNMAP_GRANT_REF, &mut batch), 0);
    ensure_eq!(batch[0].status, BAD_HANDLE);
    ensure_eq!(batch[1].status, OKAY);
    Ok(())
}

fn an_unreadable_batch_returns_efault() -> Verdict {
    for operation in
        [grant::MAP_GRANT_REF, grant::UNMAP_GRANT_REF, grant::COPY, grant::QUERY_SIZE, grant::SWAP_GRANT_REF]
    {
        ensure_eq!(call(GRANT_TABLE_OP, [operation, memory::UNMAPPED, 1, 0, 0]), EFAULT, operation);
    }
    Ok(())
}

fn an_empty_batch_succeeds() -> Verdict {
    for operation in [grant::MAP_GRANT_REF, grant::UNMAP_GRANT_REF, grant::COPY, grant::SWAP_GRANT_REF] {
        ensure_eq!(call(GRANT_TABLE_OP, [operation, memory::UNMAPPED, 0, 0, 0]), 0, operation);
    }
    Ok(())
}

/// Two frames; every word of the first is its offset.
fn pattern() -> (Frame, Frame) {
    let (source, destination) = (Frame::take(), Frame::take());
    for offset in (0..PAGE_SIZE).step_by(4) {
        source.write(offset, offset | 0x8000_0000);
    }
    (source, destination)
}

fn a_copy_moves_a_whole_page() -> Verdict {
    let table = table()?;
    let (source, destination) = pattern();
    table.set(FIRST, PERMIT_ACCESS | READ_ONLY, myself(), source.gfn());
    ensure_eq!(copy(granted(FIRST, 0), local(destination, 0), 4096, grant::COPY_SOURCE_GREF), OKAY);
    for offset in (0..PAGE_SIZE).step_by(4) {
        ensure_eq!(destination.read(offset), source.read(offset), offset);
    }
    Ok(())
}

fn a_copy_moves_just_its_bytes() -> Verdict {
    let table = table()?;
    let (source, destination) = pattern();
    table.set(FIRST, PERMIT_ACCESS, myself(), source.gfn());
    ensure_eq!(copy(granted(FIRST, 101), local(destination, 7), 3, grant::COPY_SOURCE_GREF), OKAY);
    // Source bytes 101-103 to destination bytes 7-9.
    ensure_eq!(destination.read(4), (source.read(100) >> 8 & 0xff) << 24);
    ensure_eq!(destination.read(8), source.read(100) >> 16);
    ensure_eq!(destination.read(0) | destination.read(12), 0);
    Ok(())
}

fn a_copy_works_from_and_to_grants() -> Verdict {
    let table = table()?;
    let (source, destination) = pattern();
    table.set(FIRST, PERMIT_ACCESS, myself(), source.gfn());
    table.set(SECOND, PERMIT_ACCESS, myself(), destination.gfn());
    let both = grant::COPY_SOURCE_GREF | grant::COPY_DESTINATION_GREF;
    ensure_eq!(copy(granted(FIRST, 64), granted(SECOND, 128), 4, both), OKAY);
    ensure_eq!(destination.read(128), source.read(64));
    ensure_eq!(copy(local(source, 4), granted(SECOND, 0), 4, grant::COPY_DESTINATION_GREF), OKAY);
    ensure_eq!(destination.read(0), source.read(4));
    Ok(())
}

fn a_copy_within_one_domain_needs_no_grant() -> Verdict {
    let (source, destination) = pattern();
    ensure_eq!(copy(local(source, 8), local(destination, 16), 8, 0), OKAY);
    ensure_eq!(destination.read(20), source.read(12));
    Ok(())
}

fn a_copy_across_a_page_end_is_refused() -> Verdict {
    let (source, destination) = pattern();
    for (from, to, length) in
        [(4000, 0, 97), (0, 4000, 97), (0, 0, 4097), (4096, 0, 1), (0, 4096, 1), (65535, 0, 65535)]
    {
        ensure_eq!(copy(local(source, from), local(destination, to), length, 0), BAD_COPY_ARG, length);
    }
    ensure_eq!(destination.read(0), 0);
    Ok(())
}

fn a_copy_of_nothing_succeeds() -> Verdict {
    let (source, destination) = pattern();
    ensure_eq!(copy(local(source, 0), local(destination, 0), 0, 0), OKAY);
    ensure_eq!(destination.read(0), 0);
    Ok(())
}

fn a_copy_into_a_read_only_grant_is_refused() -> Verdict {
    let table = table()?;
    let (source, destination) = pattern();
    table.set(FIRST, PERMIT_ACCESS | READ_ONLY, myself(), destination.gfn());
    ensure_eq!(copy(local(source, 0), granted(FIRST, 0), 4, grant::COPY_DESTINATION_GREF), GENERAL_ERROR);
    ensure_eq!(destination.read(0), 0);
    Ok(())
}

fn a_copy_by_frame_of_another_domain_is_refused() -> Verdict {
    let (source, destination) = pattern();
    let foreign = CopySide { domain: myself(), ..local(source, 0) };
    ensure_eq!(copy(foreign, local(destination, 0), 4, 0), PERMISSION_DENIED);
    Ok(())
}

fn a_copy_with_a_bad_reference_or_domain_is_refused() -> Verdict {
    table()?;
    let destination = Frame::take();
    ensure_eq!(copy(granted(FIRST, 0), local(destination, 0), 4, grant::COPY_SOURCE_GREF), GENERAL_ERROR);
    ensure_eq!(copy(granted(u32::MAX, 0), local(destination, 0), 4, grant::COPY_SOURCE_GREF), BAD_GNTREF);
    let absent = CopySide { domain: DOMID_ABSENT, ..granted(FIRST, 0) };
    ensure_eq!(copy(absent, local(destination, 0), 4, grant::COPY_SOURCE_GREF), BAD_DOMAIN);
    // Of several mistakes the first: domains, then pages, then the range.
    let both = grant::COPY_SOURCE_GREF | grant::COPY_DESTINATION_GREF;
    ensure_eq!(copy(granted(u32::MAX, 0), absent, 4, both), BAD_DOMAIN);
    ensure_eq!(copy(granted(u32::MAX, 4095), local(destination, 0), 4, grant::COPY_SOURCE_GREF), BAD_GNTREF);
    Ok(())
}

fn a_copy_leaves_the_entries_unmarked() -> Verdict {
    let table = table()?;
    let (source, destination) = pattern();
    table.set(FIRST, PERMIT_ACCESS, myself(), source.gfn());
    table.set(SECOND, PERMIT_ACCESS, myself(), destination.gfn());
    let both = grant::COPY_SOURCE_GREF | grant::COPY_DESTINATION_GREF;
    ensure_eq!(copy(granted(FIRST, 0), granted(SECOND, 0), 4096, both), OKAY);
    ensure_eq!(table.flags(FIRST), PERMIT_ACCESS);
    ensure_eq!(table.flags(SECOND), PERMIT_ACCESS);
    Ok(())
}

/// `gnttab_swap_grant_ref`: two references, then the status; returns the status.
fn swap(first: u32, second: u32) -> i16 {
    let mut element = [[first, second, POISON_STATUS as u32]];
    operate(grant::SWAP_GRANT_REF, &mut element);
    element[0][2] as i16
}

fn swap_exchanges_two_entries() -> Verdict {
    let table = table()?;
    table.set(FIRST, PERMIT_ACCESS | READ_ONLY, 3, 0x111);
    table.set(SECOND, PERMIT_ACCESS, 4, 0x222);
    ensure_eq!(swap(FIRST, SECOND), OKAY);
    ensure_eq!(table.0.read(FIRST * 8), 4 << 16 | PERMIT_ACCESS);
    ensure_eq!(table.0.read(FIRST * 8 + 4), 0x222);
    ensure_eq!(table.0.read(SECOND * 8), 3 << 16 | PERMIT_ACCESS | READ_ONLY);
    ensure_eq!(table.0.read(SECOND * 8 + 4), 0x111);
    Ok(())
}

fn swap_refuses_references_beyond_the_table() -> Verdict {
    table()?;
    ensure_eq!(swap(FIRST, u32::MAX), BAD_GNTREF);
    ensure_eq!(swap(0x8000_0000, FIRST), BAD_GNTREF);
    Ok(())
}

fn transfer_and_replace_are_not_for_translated_domains() -> Verdict {
    // gnttab_transfer: mfn, domid, ref, status.
    #[repr(C)]
    struct Transfer {
        mfn: u64,
        domain: u16,
        pad: u16,
        reference: u32,
        status: i16,
        pad2: [u16; 3],
    }
    let frame = Frame::take();
    let mut element = [Transfer {
        mfn: frame.gfn(),
        domain: myself(),
        pad: 0,
        reference: FIRST,
        status: POISON_STATUS,
        pad2: [0; 3],
    }];
    let result = operate(grant::TRANSFER, &mut element);
    ensure!(result < 0 || element[0].status < 0, result);

    // gnttab_unmap_and_replace: host_addr, new_addr, handle, status.
    grant(0)?;
    let at = hole()?;
    let mapping = map(FIRST, myself(), MAP_HOST, at);
    let mut element = [Unmap {
        host_address: u64::from(at.address()),
        bus_address: u64::from(frame.address()),
        handle: mapping.handle,
        status: POISON_STATUS,
        pad: 0,
    }];
    let result = operate(grant::UNMAP_AND_REPLACE, &mut element);
    ensure!(result < 0 || element[0].status < 0, result);
    ensure_eq!(unmap(mapping.handle, at), OKAY);
    Ok(())
}

fn status_frames_belong_to_version_two() -> Verdict {
    // gnttab_get_status_frames: nr_frames, domid, status, frame_list.
    let mut list = [0_u64];
    #[repr(C)]
    struct StatusFrames {
        frames: u32,
        domain: u16,
        status: i16,
        list: u64,
    }
    let mut element =
        [StatusFrames { frames: 1, domain: DOMID_SELF, status: POISON_STATUS, list: u64::from(address_of(&mut list)) }];
    operate(grant::GET_STATUS_FRAMES, &mut element);
    ensure_eq!(element[0].status, GENERAL_ERROR);
    Ok(())
}

fn dump_table_and_unknown_operations_return_enosys() -> Verdict {
    for operation in [grant::DUMP_TABLE, 13, 14, 64] {
        ensure_eq!(call_with(GRANT_TABLE_OP, operation, &mut [0_u64; 8]), ENOSYS, operation);
    }
    Ok(())
}

const FLUSH_CLEAN: u32 = 1;
const FLUSH_INVALIDATE: u32 = 2;
const FLUSH_SOURCE_GREF: u32 = 1 << 31;

/// By machine address.
fn flush(address: u64, offset: u16, length: u16, operation: u32) -> i32 {
    operate(grant::CACHE_FLUSH, &mut [CacheFlush { address, offset, length, operation }])
}

fn cache_flush_with_nothing_to_do_succeeds() -> Verdict {
    // Linux probes with operation 0 at boot.
    ensure_eq!(flush(0, 0, 0, 0), 0);
    ensure_eq!(flush(machine_address(table()?, Frame::take())?, 0, 0, FLUSH_CLEAN), 0);
    Ok(())
}

fn cache_flush_cleans_and_invalidates_own_pages() -> Verdict {
    let frame = Frame::take();
    let address = machine_address(table()?, frame)?;
    for operation in [FLUSH_CLEAN, FLUSH_CLEAN | FLUSH_INVALIDATE] {
        frame.write(64, operation);
        ensure_eq!(flush(address, 0, 4096, operation), 0, operation);
        ensure_eq!(frame.read(64), operation);
    }
    Ok(())
}

fn cache_flush_stays_within_a_page() -> Verdict {
    let address = machine_address(table()?, Frame::take())?;
    ensure_eq!(flush(address, 1, 4096, FLUSH_CLEAN), EINVAL);
    ensure_eq!(flush(address, 0, 4097, FLUSH_CLEAN), EINVAL);
    Ok(())
}

fn cache_flush_refuses_unknown_operations() -> Verdict {
    let address = machine_address(table()?, Frame::take())?;
    for operation in [4, FLUSH_CLEAN | 8, u32::MAX >> 1] {
        ensure_eq!(flush(address, 0, 64, operation), EINVAL, operation);
    }
    // Defined, but by no hypervisor implemented; told before there is nothing to do.
    ensure_eq!(flush(address, 0, 64, FLUSH_CLEAN | FLUSH_SOURCE_GREF), EINVAL);
    ensure_eq!(flush(address, 0, 0, FLUSH_SOURCE_GREF), EINVAL);
    Ok(())
}

fn cache_flush_refuses_what_is_not_own_ram() -> Verdict {
    for address in [gic::distributor(0), memory::UNMAPPED, 0xf000_0000] {
        let refused = flush(address.into(), 0, 64, FLUSH_CLEAN);
        ensure!(refused == EINVAL || refused == EPERM, address);
    }
    ensure_eq!(call(GRANT_TABLE_OP, [grant::CACHE_FLUSH, memory::UNMAPPED, 1, 0, 0]), EFAULT);
    Ok(())
}
