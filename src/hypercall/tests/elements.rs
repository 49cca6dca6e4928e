//! Grant operations: calls that are refused, and elements, each with a status of its own.

use zerocopy::IntoBytes;

use super::{ABSENT, BAD, BEYOND, Guest, HOLE, OK, SELF, Scene, told, words};
use crate::abi::grant_table as grant;
use crate::domain::Rights;
use crate::error::Errno;
use crate::hypercall::number;

/// Reads the status in the first element that a grant operation left.
fn status(guest: &Guest, offset: usize) -> i16 {
    let mut bytes = [0; 2];
    assert!(guest.argument().unwrap().read(offset, &mut bytes));
    i16::from_le_bytes(bytes)
}

/// A faulty element: its faults, caller, operation, the element, the offset of its status, and the status.
type Element<'a> = (&'a str, &'a Guest, u32, Vec<u32>, usize, i16);

fn check_elements(rows: &[Element<'_>]) {
    for (what, who, op, words, offset, wanted) in rows {
        let outcome = who.call(number::GRANT_TABLE_OP, [*op, 0, 1, 0, 0], words);
        assert_eq!(outcome, OK, "{op}: {what}");
        assert_eq!(status(who, *offset), *wanted, "{op}: {what}");
    }
}

/// An entry beyond the table.
const NO_REF: u32 = 9999;
/// An entry that grants nothing.
const EMPTY: u32 = 9;
/// An entry that grants a page to its own domain.
const GIVEN: u32 = 1;

/// Has a domain grant its frame 0x10 to itself.
fn give(guest: &Guest) {
    let grants = guest.0.grants.lock();
    let entry = grant::GrantEntryV1 {
        flags: grant::GTF_PERMIT_ACCESS,
        domid: guest.0.id.0,
        frame: 0x10,
    };
    let table = armv7::frame::PageRef::page(grants.frame(0).unwrap());
    assert!(table.write(GIVEN as usize * 8, entry.as_bytes()));
}

#[test]
#[rustfmt::skip]
fn grant_operations_as_calls() {
    let scene = Scene::new();
    let (plain, blind) = (&scene.plain, &scene.blind_plain);
    for (what, who, op, count, outcome) in [
        ("count, operation", blind, 99, 1 << 31, told(Errno::Inval)),
        ("progress, operation", blind, 99 | 1 << 12, 1, told(Errno::Inval)),
        ("operation", blind, 99, 1, told(Errno::NoSys)),
        ("dump_table", blind, grant::OP_DUMP_TABLE, 1, told(Errno::NoSys)),
        ("pointer", blind, grant::OP_MAP_GRANT_REF, 1, told(Errno::Fault)),
        ("count, pointer", blind, grant::OP_SETUP_TABLE, 2, told(Errno::Inval)),
        ("pointer", blind, grant::OP_SETUP_TABLE, 1, told(Errno::Fault)),
        ("count, pointer", blind, grant::OP_QUERY_SIZE, 0, told(Errno::Inval)),
        ("count, pointer", blind, grant::OP_GET_STATUS_FRAMES, 2, told(Errno::Inval)),
        ("pointer", blind, grant::OP_SET_VERSION, 1, told(Errno::Fault)),
        ("pointer", blind, grant::OP_GET_VERSION, 1, told(Errno::Fault)),
        ("pointer", blind, grant::OP_CACHE_FLUSH, 1, told(Errno::Fault)),
    ] {
        let told = who.call(number::GRANT_TABLE_OP, [op, 0, count, 0, 0], &[]);
        assert_eq!(told, outcome, "{what}");
    }
    let flush = |offset: u32, length: u32, op: u32| vec![0, 1 << 31, offset | length << 16, op];
    for (what, argument, outcome) in [
        ("range, kind, address", flush(4095, 2, 4), told(Errno::Inval)),
        ("kind, nothing to do", flush(0, 0, 4), told(Errno::Inval)),
        ("by reference, nothing to do", flush(0, 0, 1 << 31), told(Errno::Inval)),
        ("nothing to do, address", flush(0, 0, 1), OK),
        ("address", flush(0, 1, 1), told(Errno::Inval)),
    ] {
        let told = plain.call(
            number::GRANT_TABLE_OP,
            [grant::OP_CACHE_FLUSH, 0, 1, 0, 0],
            &argument,
        );
        assert_eq!(told, outcome, "{what}");
    }
}

#[test]
#[rustfmt::skip]
fn elements_of_grant_operations() {
    let scene = Scene::new();
    let (control, plain) = (&scene.control, &scene.plain);
    give(plain);
    let (own, other) = (plain.id(), control.id());
    let peer = Guest::new(Rights::GUEST, &[0]);
    let map = |at: [u32; 2], flags: u32, reference: u32, dom: u32| {
        words(&[&at, &[flags, reference, dom, 0, 0, 0]])
    };
    let place = [0x7777_0000, 0];
    let (host, device, pte, unknown) = (
        grant::MAP_HOST,
        grant::MAP_DEVICE,
        grant::MAP_CONTAINS_PTE,
        grant::MAP_HOST | 1 << 16,
    );
    let (op, at) = (grant::OP_MAP_GRANT_REF, 18);
    check_elements(&[
        ("no use, nobody", plain, op, map([0, 0], 0, NO_REF, ABSENT), at, grant::STATUS_BAD_GNTREF),
        ("kind, nobody", plain, op, map([0, 0], host | device, NO_REF, ABSENT), at, grant::STATUS_GENERAL_ERROR),
        ("kind, nobody", plain, op, map([0, 0], host | pte, NO_REF, ABSENT), at, grant::STATUS_GENERAL_ERROR),
        ("nobody, flags, place", plain, op, map([0, 0], unknown, NO_REF, ABSENT), at, grant::STATUS_BAD_DOMAIN),
        ("DOMID_SELF", plain, op, map(place, host, GIVEN, SELF), at, grant::STATUS_BAD_DOMAIN),
        ("no right, place", plain, op, map([0, 0], host, NO_REF, peer.id()), at, grant::STATUS_PERMISSION_DENIED),
        ("entry, flags", plain, op, map(place, unknown, NO_REF, own), at, grant::STATUS_BAD_GNTREF),
        ("entry, place", plain, op, map([0, 0], host, NO_REF, own), at, grant::STATUS_BAD_GNTREF),
        ("no grant, place", plain, op, map(BEYOND_ALL, host, EMPTY, own), at, grant::STATUS_GENERAL_ERROR),
        ("flags", plain, op, map(place, unknown, GIVEN, own), at, grant::STATUS_GENERAL_ERROR),
        ("place", plain, op, map([0, 0], host, GIVEN, own), at, grant::STATUS_BAD_VIRT_ADDR),
    ]);
    assert!(
        plain.0.grants.lock().is_idle(),
        "what was refused is given back"
    );

    let side = |value: u32, dom: u32, offset: u32| vec![value, 0, dom | offset << 16, 0];
    let copy = |source: Vec<u32>, dest: Vec<u32>, length: u32, flags: u32| {
        words(&[&source, &dest, &[length | flags << 16, 0]])
    };
    let (from, to) = (
        grant::COPY_SOURCE_GREF.into(),
        u32::from(grant::COPY_DEST_GREF),
    );
    let (op, at) = (grant::OP_COPY, 36);
    let hole = || side(0x7777, SELF, 4000);
    check_elements(&[
        ("form of the source, dest's domain", plain, op, copy(side(0, own, 0), side(0, ABSENT, 0), 97, to), at, grant::STATUS_PERMISSION_DENIED),
        ("source's domain, form of the dest", plain, op, copy(side(0, ABSENT, 0), side(0, own, 0), 97, from), at, grant::STATUS_BAD_DOMAIN),
        ("dest's domain, right", plain, op, copy(side(0, peer.id(), 0), side(0, ABSENT, 0), 97, from | to), at, grant::STATUS_BAD_DOMAIN),
        ("dest's domain, source's entry", plain, op, copy(side(NO_REF, own, 0), side(0, ABSENT, 0), 97, from | to), at, grant::STATUS_BAD_DOMAIN),
        ("form of the dest, source's page", plain, op, copy(hole(), side(0, own, 0), 97, 0), at, grant::STATUS_PERMISSION_DENIED),
        ("right, source's entry", plain, op, copy(side(NO_REF, own, 0), side(0, peer.id(), 0), 97, from | to), at, grant::STATUS_PERMISSION_DENIED),
        ("source's entry, range", plain, op, copy(side(NO_REF, own, 4000), hole(), 97, from), at, grant::STATUS_BAD_GNTREF),
        ("source's page, dest's entry", plain, op, copy(hole(), side(NO_REF, own, 0), 97, to), at, grant::STATUS_BAD_PAGE),
        ("dest's page, range", plain, op, copy(side(0x10, SELF, 4000), hole(), 97, 0), at, grant::STATUS_BAD_PAGE),
        ("range", plain, op, copy(side(GIVEN, own, 4000), side(0x10, SELF, 0), 97, from), at, grant::STATUS_BAD_COPY_ARG),
    ]);
    assert!(
        plain.0.grants.lock().is_idle(),
        "what was refused is given back"
    );

    let table = |dom: u32, frames: u32, list: [u32; 2]| words(&[&[dom, frames, 0, 0], &list]);
    let statuses = |dom: u32, frames: u32| words(&[&[frames, dom], &BAD]);
    let replace = |handle: u32| words(&[&place, &[1, 0, handle, 0]]);
    let transfer = |frame: [u32; 2], dom: u32| words(&[&frame, &[dom, 0, 0, 0]]);
    check_elements(&[
        ("nobody, size, list", plain, grant::OP_SETUP_TABLE, table(ABSENT, 99, BAD), 8, grant::STATUS_BAD_DOMAIN),
        ("no right, size, list", plain, grant::OP_SETUP_TABLE, table(other, 99, BAD), 8, grant::STATUS_PERMISSION_DENIED),
        ("size, list", plain, grant::OP_SETUP_TABLE, table(SELF, 99, BAD), 8, grant::STATUS_GENERAL_ERROR),
        ("list", plain, grant::OP_SETUP_TABLE, table(SELF, 1, BAD), 8, grant::STATUS_BAD_VIRT_ADDR),
        ("nobody", plain, grant::OP_QUERY_SIZE, vec![ABSENT, 0, 0, 0], 12, grant::STATUS_BAD_DOMAIN),
        ("no right", plain, grant::OP_QUERY_SIZE, vec![other, 0, 0, 0], 12, grant::STATUS_PERMISSION_DENIED),
        ("nobody, count", plain, grant::OP_GET_STATUS_FRAMES, statuses(ABSENT, 1), 6, grant::STATUS_BAD_DOMAIN),
        ("no right, count", plain, grant::OP_GET_STATUS_FRAMES, statuses(other, 1), 6, grant::STATUS_PERMISSION_DENIED),
        ("count", plain, grant::OP_GET_STATUS_FRAMES, statuses(SELF, 1), 6, grant::STATUS_GENERAL_ERROR),
        ("nothing", plain, grant::OP_GET_STATUS_FRAMES, statuses(SELF, 0), 6, grant::STATUS_OKAY),
        ("handle, new address", plain, grant::OP_UNMAP_AND_REPLACE, replace(0), 20, grant::STATUS_BAD_HANDLE),
        ("page, nobody", plain, grant::OP_TRANSFER, transfer(HOLE, ABSENT), 16, grant::STATUS_BAD_PAGE),
        ("beyond all, nobody", plain, grant::OP_TRANSFER, transfer(BEYOND, ABSENT), 16, grant::STATUS_BAD_PAGE),
        ("not on Arm, nobody", plain, grant::OP_TRANSFER, transfer([0x10, 0], ABSENT), 16, grant::STATUS_GENERAL_ERROR),
        ("first, second", plain, grant::OP_SWAP_GRANT_REF, vec![NO_REF, NO_REF, 0], 8, grant::STATUS_BAD_GNTREF),
    ]);
}

/// An address beyond all guest memory.
const BEYOND_ALL: [u32; 2] = [0, 1 << 8];

#[test]
#[rustfmt::skip]
fn a_full_table_of_handles_is_told_before_the_granter_s_entry() {
    let scene = Scene::new();
    let plain = &scene.plain;
    give(plain);
    let map = |at: u32, reference: u32| {
        words(&[&[at, 0], &[grant::MAP_HOST, reference, plain.id(), 0, 0, 0]])
    };
    // Test domains have two units of handles.
    for n in 0..2 * crate::grant::HANDLES_PER_FRAME {
        let place = 0x7000_0000 + (n << 12);
        assert_eq!(
            plain.call(
                number::GRANT_TABLE_OP,
                [grant::OP_MAP_GRANT_REF, 0, 1, 0, 0],
                &map(place, GIVEN)
            ),
            OK
        );
        assert_eq!(status(plain, 18), grant::STATUS_OKAY, "{n}");
    }
    check_elements(&[
        ("entry", plain, grant::OP_MAP_GRANT_REF, map(0x7fff_0000, NO_REF), 18, grant::STATUS_NO_SPACE),
        ("entry, place", plain, grant::OP_MAP_GRANT_REF, map(0, NO_REF), 18, grant::STATUS_NO_SPACE),
    ]);
    let handle = words(&[&[0x7000_0000, 0], &[1, 0, 0, 0]]);
    check_elements(&[(
        "new address",
        plain,
        grant::OP_UNMAP_AND_REPLACE,
        handle,
        20,
        grant::STATUS_GENERAL_ERROR,
    )]);
    assert!(crate::domain::grants::release_all(&plain.0, 1000));
}
