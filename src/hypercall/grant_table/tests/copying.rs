//! Copy.

use super::*;
use crate::abi::grant_table::{COPY_DEST_GREF, COPY_SOURCE_GREF, Copy, CopyPtr, OP_COPY};

fn own(frame: u32, offset: u16) -> CopyPtr {
    CopyPtr {
        frame: frame.into(),
        domid: DomId::SELF.0,
        offset,
        ..CopyPtr::ZERO
    }
}

fn granted(granter: &Guest, grant_ref: u32, offset: u16) -> CopyPtr {
    CopyPtr {
        frame: grant_ref.into(),
        domid: granter.id(),
        offset,
        ..CopyPtr::ZERO
    }
}

fn op(source: CopyPtr, dest: CopyPtr, len: u16, flags: u16) -> Copy {
    Copy {
        source,
        dest,
        len,
        flags,
        status: 77,
        ..Copy::ZERO
    }
}

#[test]
fn bytes_go_between_grants_and_own_pages() {
    let (user, a, b) = (Guest::control(), Guest::plain(), Guest::plain());
    a.page(RAM).write(100, b"from a");
    a.grant_with(1, abi::GTF_PERMIT_ACCESS | abi::GTF_READONLY, &user, RAM);
    b.grant(2, &user, RAM);
    user.grant(3, &user, RAM + 1);
    let itself = CopyPtr {
        domid: DomId::SELF.0,
        ..granted(&user, 3, 7)
    };
    let both = COPY_SOURCE_GREF | COPY_DEST_GREF;
    let ops = [
        op(granted(&a, 1, 100), own(RAM, 0), 6, COPY_SOURCE_GREF),
        op(own(RAM, 0), granted(&b, 2, 4090), 6, COPY_DEST_GREF),
        op(granted(&b, 2, 4090), itself, 6, both),
        op(granted(&a, 1, 100), granted(&b, 2, 0), 6, both),
        op(own(RAM + 1, 7), own(RAM + 2, 8), 6, 0),
        op(own(RAM, 0), own(RAM, 4096), 0, 0),
    ];
    let done = user.all(OP_COPY, &ops);
    assert!(done.iter().all(|op| op.status == 0), "{done:?}");
    for (guest, at, offset) in [
        (&user, RAM, 0),
        (&b, RAM, 4090),
        (&user, RAM + 1, 7),
        (&b, RAM, 0),
        (&user, RAM + 2, 8),
    ] {
        let mut out = [0; 6];
        assert!(guest.page(at).read(offset, &mut out));
        assert_eq!(&out, b"from a");
    }
    assert_eq!(a.flags(1), abi::GTF_PERMIT_ACCESS | abi::GTF_READONLY);
    assert_eq!(b.flags(2), abi::GTF_PERMIT_ACCESS);
    assert!(
        [&user, &a, &b]
            .iter()
            .all(|guest| guest.domain.grants.lock().is_idle())
    );
}

#[test]
fn what_may_not_be_copied_is_refused_with_its_reason() {
    let (user, peer) = (Guest::control(), Guest::plain());
    peer.grant_with(1, abi::GTF_PERMIT_ACCESS | abi::GTF_READONLY, &user, RAM);
    peer.grant(2, &peer, RAM);
    peer.grant(3, &user, RAM);
    let foreign = memory().get_any(peer.mfn(RAM)).unwrap().into_raw();
    user.force(RAM + 5, foreign, P2mType::ForeignRw);
    let same = memory().get_any(user.mfn(RAM + 6)).unwrap().into_raw();
    user.force(RAM + 6, same, P2mType::RamRo);
    let no_gref = CopyPtr {
        domid: peer.id(),
        ..own(RAM, 0)
    };
    let nobody = CopyPtr {
        domid: 0x7FEF,
        ..own(1, 0)
    };
    let bad_frame = CopyPtr {
        frame: 1 << 32,
        ..own(0, 0)
    };
    let (from, to) = (COPY_SOURCE_GREF, COPY_DEST_GREF);
    let cases = [
        (op(no_gref, own(RAM, 0), 1, 0), -8),
        (op(own(RAM, 0), no_gref, 1, 0), -8),
        (op(nobody, own(RAM, 0), 1, from), -2),
        (op(own(RAM, 0), granted(&peer, 1, 0), 1, to), -1),
        (op(granted(&peer, 2, 0), own(RAM, 0), 1, from), -1),
        (op(granted(&peer, 9999, 0), own(RAM, 0), 1, from), -3),
        (op(own(RAM, 4095), own(RAM + 1, 0), 2, 0), -10),
        (op(own(RAM, 0), own(RAM + 1, 1), 4096, 0), -10),
        (op(own(HOLE, 0), own(RAM, 0), 1, 0), -9),
        (op(bad_frame, own(RAM, 0), 1, 0), -9),
        (op(own(RAM + 5, 0), own(RAM, 0), 1, 0), -9),
        (op(own(RAM, 0), own(RAM + 6, 0), 1, 0), -9),
        (op(own(RAM + 6, 0), own(RAM, 0), 1, 0), 0),
        // The first side is given back when the second cannot be had.
        (op(granted(&peer, 3, 0), own(HOLE, 0), 1, from), -9),
    ];
    let ops: Vec<_> = cases.iter().map(|case| case.0).collect();
    let done = user.all(OP_COPY, &ops);
    let statuses: Vec<_> = done.iter().map(|op| op.status).collect();
    let wanted: Vec<i16> = cases.iter().map(|case| case.1).collect();
    assert_eq!(statuses, wanted);
    assert!(peer.domain.grants.lock().is_idle());
    assert_eq!(peer.flags(3), abi::GTF_PERMIT_ACCESS);
}

#[test]
fn guests_do_not_copy_from_each_other() {
    let (a, b) = (Guest::plain(), Guest::plain());
    b.grant(1, &a, RAM);
    let op = a.one(
        OP_COPY,
        &op(granted(&b, 1, 0), own(RAM, 0), 1, COPY_SOURCE_GREF),
    );
    assert_eq!(op.status, abi::STATUS_PERMISSION_DENIED);
}
