//! Sizes, versions, swaps, and what there is not.

use super::*;
use crate::abi::grant_table::{
    GetStatusFrames, GetVersion, OP_GET_STATUS_FRAMES, OP_GET_VERSION, OP_QUERY_SIZE,
    OP_SET_VERSION, OP_SETUP_TABLE, OP_SWAP_GRANT_REF, OP_TRANSFER, OP_UNMAP_AND_REPLACE,
    QuerySize, SetVersion, SetupTable, SwapGrantRef, Transfer, UnmapAndReplace,
};
use crate::abi::handle::GuestHandle;

fn size_of_table(guest: &Guest, dom: u16) -> QuerySize {
    guest.one(
        OP_QUERY_SIZE,
        &QuerySize {
            dom,
            nr_frames: 77,
            ..QuerySize::ZERO
        },
    )
}

fn setup(guest: &Guest, dom: u16, nr_frames: u32, list: u64) -> SetupTable {
    let op = SetupTable {
        dom,
        nr_frames,
        frame_list: GuestHandle::from_raw(list),
        ..SetupTable::ZERO
    };
    guest.one(OP_SETUP_TABLE, &op)
}

#[test]
fn a_table_s_size_is_told_to_those_who_may_know() {
    let (control, guest) = (Guest::control(), Guest::plain());
    for (asker, dom) in [
        (&guest, DomId::SELF.0),
        (&guest, guest.id()),
        (&control, guest.id()),
    ] {
        let op = size_of_table(asker, dom);
        assert_eq!((op.status, op.nr_frames, op.max_nr_frames), (0, 1, 4));
    }
    let op = size_of_table(&guest, control.id());
    assert_eq!((op.status, op.nr_frames, op.max_nr_frames), (-8, 77, 0));
    assert_eq!(size_of_table(&control, 0x7FEF).status, -2);
    assert_eq!(guest.call(OP_QUERY_SIZE, 0, 2), Err(Errno::Inval));
    assert_eq!(guest.call(OP_SETUP_TABLE, 0, 0), Err(Errno::Inval));
    assert_eq!(guest.call(OP_GET_STATUS_FRAMES, 0, 2), Err(Errno::Inval));
}

#[test]
fn a_table_grows_when_it_is_set_up() {
    let (control, guest) = (Guest::control(), Guest::plain());
    guest.domain.grants.lock().set_place(0, gfn(0x77));
    let list = 0x800;
    assert_eq!(setup(&guest, DomId::SELF.0, 3, list).status, 0);
    let mut gfns = [0u64; 4];
    assert!(guest.page(0).read(list as usize, gfns.as_mut_bytes()));
    assert_eq!(gfns, [0x77, !0, !0, 0]);
    assert_eq!(setup(&control, guest.id(), 2, list).status, 0);
    assert_eq!(setup(&guest, guest.id(), 5, list).status, -1);
    assert_eq!(setup(&guest, guest.id(), 1, 1 << 32).status, -5);
    assert_eq!(setup(&guest, control.id(), 1, list).status, -8);
    assert_eq!(setup(&guest, 0x7FEF, 1, list).status, -2);
    assert_eq!(size_of_table(&guest, DomId::SELF.0).nr_frames, 3);
}

#[test]
fn there_is_version_one() {
    let (control, guest) = (Guest::control(), Guest::plain());
    for (version, outcome) in [
        (1, Ok(Reply::OK)),
        (2, Err(Errno::NoSys)),
        (3, Err(Errno::Inval)),
    ] {
        guest.place(&[SetVersion { version }]);
        assert_eq!(guest.call(OP_SET_VERSION, 0, 1), outcome);
        assert_eq!(guest.fetch::<SetVersion>(0).version, 1);
    }
    for (asker, dom, outcome) in [
        (&guest, DomId::SELF.0, Ok(Reply::OK)),
        (&control, guest.id(), Ok(Reply::OK)),
        (&guest, control.id(), Err(Errno::Perm)),
        (&guest, 0x7FEF, Err(Errno::Srch)),
    ] {
        asker.place(&[GetVersion {
            dom,
            ..GetVersion::ZERO
        }]);
        assert_eq!(asker.call(OP_GET_VERSION, 0, 1), outcome);
        let version = asker.fetch::<GetVersion>(0).version;
        assert_eq!(version, u32::from(outcome.is_ok()));
    }
    let frames = |dom| {
        let op = GetStatusFrames {
            dom,
            nr_frames: 1,
            ..GetStatusFrames::ZERO
        };
        guest.one(OP_GET_STATUS_FRAMES, &op).status
    };
    assert_eq!(
        [DomId::SELF.0, control.id(), 0x7FEF].map(frames),
        [-1, -8, -2]
    );
}

#[test]
fn entries_change_places() {
    let (user, guest) = (Guest::control(), Guest::plain());
    guest.grant(4, &user, RAM);
    let op = |ref_a, ref_b| SwapGrantRef {
        ref_a,
        ref_b,
        ..SwapGrantRef::ZERO
    };
    let ops = [op(4, 5), op(4, 4), op(4, 512)];
    let done = guest.all(OP_SWAP_GRANT_REF, &ops);
    assert_eq!(
        done.iter().map(|op| op.status).collect::<Vec<_>>(),
        [0, 0, -3]
    );
    assert_eq!(
        (guest.flags(4), guest.flags(5)),
        (0, abi::GTF_PERMIT_ACCESS)
    );
}

#[test]
fn what_arm_does_not_have_fails_element_by_element() {
    let guest = Guest::plain();
    let transfers = guest.all(OP_TRANSFER, &[Transfer::ZERO; 3]);
    assert!(transfers.iter().all(|op| op.status == -1));
    // Nor a handle.
    let replaces = guest.all(OP_UNMAP_AND_REPLACE, &[UnmapAndReplace::ZERO; 100]);
    assert!(replaces.iter().all(|op| op.status == -4));
}
