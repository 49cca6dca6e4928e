use std::sync::Arc;

use armv7::addr::{Gfn, Mfn};
use armv7::frame::page;
use armv7::host::registers::set_interrupt;
use zerocopy::IntoBytes;

use super::{Added, Step, add_one, decrease, foreign, let_go, map_foreign, populate, reservation};
use crate::abi::handle::GuestHandle;
use crate::abi::memory as abi;
use crate::call::{Args, Caller, Reply};
use crate::domain::testing::{NO_TLB, guest};
use crate::domain::{Domain, Life, Rights, registry};
use crate::error::Errno;
use crate::mem::memory;
use crate::mem::p2m::{P2mType, Removed};
use crate::vcpu::Vcpu;

/// Where a test domain has RAM.
const RAM: u32 = 0x10;
/// And where it has nothing.
const HOLE: u32 = 0x1000;

struct Guest(Arc<Domain>, Arc<Vcpu>);

impl Guest {
    fn new() -> Self {
        let (domain, vcpu) = guest(Rights::GUEST, NO_TLB, &[0, RAM, RAM + 1]);
        Self(domain, vcpu)
    }

    fn kind(&self, at: u32) -> Option<P2mType> {
        let entry = self.0.p2m.lock().lookup(gfn(at));
        entry.map(|entry| entry.kind)
    }

    fn mfn(&self, at: u32) -> Mfn {
        self.0.p2m.lock().lookup(gfn(at)).unwrap().mfn
    }

    /// Maps a frame, whose reference is the map's if it is RAM.
    fn map(&self, at: u32, mfn: Mfn, kind: P2mType) {
        let mut p2m = self.0.p2m.lock();
        assert_eq!(p2m.map(gfn(at), mfn, 1, kind, 1), Ok(1));
    }

    fn add(&self, space: u32, idx: u64, at: u32) -> Result<(), Errno> {
        let added = add_one(&self.0, space, idx, at.into())?;
        assert_eq!(added, Added::Yes, "no interrupt waits");
        Ok(())
    }

    fn shared_info_gfn(&self) -> Option<Gfn> {
        self.0.state.lock().shared_info_gfn
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        registry::remove(self.0.id);
    }
}

fn gfn(n: u32) -> Gfn {
    Gfn::new(u64::from(n)).unwrap()
}

#[test]
fn nothing_takes_the_place_of_a_grant_or_a_device() {
    let (guest, other) = (Guest::new(), Guest::new());
    let granted = other.mfn(RAM);
    for kind in [
        P2mType::GrantRw,
        P2mType::GrantRo,
        P2mType::MmioDirect,
        P2mType::GicV,
    ] {
        let at = HOLE + kind as u32;
        if kind.is_ram() {
            memory().get(granted, other.0.id).unwrap().into_raw();
        }
        guest.map(at, granted, kind);
        for (space, idx) in [(abi::SPACE_SHARED_INFO, 0), (abi::SPACE_GRANT_TABLE, 0)] {
            assert_eq!(guest.add(space, idx, at), Err(Errno::Inval), "{kind:?}");
        }
        let foreign = map_foreign(&guest.0, &other.0, RAM.into(), at.into());
        assert_eq!(foreign, Err(Errno::Inval), "{kind:?}");
        assert_eq!(guest.kind(at), Some(kind), "it is there still");
    }
    // A refused page is to be had elsewhere.
    assert_eq!(guest.add(abi::SPACE_SHARED_INFO, 0, HOLE), Ok(()));
    assert_eq!(guest.add(abi::SPACE_GRANT_TABLE, 0, HOLE + 100), Ok(()));
}

#[test]
fn memory_and_foreign_pages_give_way() {
    let (guest, other) = (Guest::new(), Guest::new());
    let old = guest.mfn(RAM);
    assert_eq!(
        map_foreign(&guest.0, &other.0, RAM.into(), RAM.into()),
        Ok(())
    );
    assert_eq!(guest.mfn(RAM), other.mfn(RAM));
    assert!(memory().get(old, guest.0.id).is_none(), "it is free");
    let next = u64::from(RAM + 1);
    assert_eq!(map_foreign(&guest.0, &other.0, next, RAM.into()), Ok(()));
    assert_eq!(guest.kind(RAM), Some(P2mType::ForeignRw));
    assert_eq!(guest.add(abi::SPACE_SHARED_INFO, 0, RAM), Ok(()));
    assert_eq!(guest.kind(RAM), Some(P2mType::RamRw));
}

#[test]
fn a_page_of_the_hypervisors_that_gave_way_has_no_place() {
    let guest = Guest::new();
    assert_eq!(guest.add(abi::SPACE_SHARED_INFO, 0, HOLE), Ok(()));
    assert_eq!(
        guest.add(abi::SPACE_SHARED_INFO, 0, HOLE + 1),
        Err(Errno::Busy)
    );
    // A grant frame where shared_info was, another one in its place, and shared_info again.
    assert_eq!(guest.add(abi::SPACE_GRANT_TABLE, 0, HOLE), Ok(()));
    assert_eq!(guest.shared_info_gfn(), None);
    assert_eq!(guest.add(abi::SPACE_GRANT_TABLE, 1, HOLE), Ok(()));
    assert_eq!(guest.add(abi::SPACE_GRANT_TABLE, 0, HOLE + 1), Ok(()));
    assert_eq!(
        guest.add(abi::SPACE_GRANT_TABLE, 1, HOLE + 2),
        Err(Errno::Busy)
    );
    assert_eq!(guest.add(abi::SPACE_SHARED_INFO, 0, HOLE), Ok(()));
    assert_eq!(guest.add(abi::SPACE_GRANT_TABLE, 1, HOLE + 2), Ok(()));
}

#[test]
fn a_refused_grant_frame_leaves_the_one_that_was_there() {
    let guest = Guest::new();
    assert_eq!(guest.add(abi::SPACE_GRANT_TABLE, 0, HOLE), Ok(()));
    assert_eq!(guest.add(abi::SPACE_GRANT_TABLE, 1, HOLE + 1), Ok(()));
    assert_eq!(guest.add(abi::SPACE_GRANT_TABLE, 1, HOLE), Err(Errno::Busy));
    assert_eq!(
        guest.add(abi::SPACE_GRANT_TABLE, 0, HOLE + 2),
        Err(Errno::Busy),
        "it has its place as before"
    );
}

#[test]
fn a_page_of_the_hypervisors_that_was_given_up_can_be_had_again() {
    let guest = Guest::new();
    assert_eq!(guest.add(abi::SPACE_SHARED_INFO, 0, HOLE), Ok(()));
    let mut removed = Removed::new();
    assert_eq!(
        decrease(&guest.0, gfn(HOLE), 0, 1, &mut removed),
        Step::Done(1)
    );
    let_go(&guest.0, removed);
    assert_eq!(guest.kind(HOLE), None);
    assert_eq!(guest.add(abi::SPACE_SHARED_INFO, 0, HOLE + 1), Ok(()));
}

#[test]
fn a_domain_that_is_being_taken_apart_gets_no_memory() {
    let guest = Guest::new();
    assert_eq!(populate(&guest.0, gfn(HOLE), 0), Step::Done(1));
    let before = memory().account(guest.0.id).unwrap().total;
    for life in [Life::Dying, Life::Dead] {
        guest.0.state.lock().life = life;
        assert_eq!(populate(&guest.0, gfn(HOLE + 1), 0), Step::Refused);
        assert_eq!(guest.kind(HOLE + 1), None);
    }
    assert_eq!(memory().account(guest.0.id).unwrap().total, before);
}

#[test]
fn only_the_control_domain_maps_memory_of_others_and_none_its_own() {
    let (control, vcpu) = guest(Rights::DOM0, NO_TLB, &[]);
    let (one, two) = (Guest::new(), Guest::new());
    let caller = Caller {
        domain: &control,
        vcpu: &vcpu,
    };
    let source = |domain: &Domain, id: u16| foreign(&caller, domain, id).map(|t| t.domain().id.0);
    let (of_one, of_two) = (one.0.id.0, two.0.id.0);
    assert_eq!(source(&control, of_one), Ok(of_one));
    assert_eq!(source(&control, control.id.0), Err(Errno::Inval));
    assert_eq!(source(&one.0, of_one), Err(Errno::Inval));
    assert_eq!(source(&one.0, of_two), Err(Errno::Perm));
    assert_eq!(source(&control, 0x7000), Err(Errno::Srch));
    registry::remove(control.id);
}

/// Returns where a domain has pages and blocks, and how many frames in each.
fn map_of(domain: &Domain) -> Vec<(u32, u32)> {
    let mut map = Vec::new();
    domain.p2m.lock().visit(gfn(0), |run| {
        map.push((run.gfn.raw(), run.count));
        true
    });
    map
}

/// Makes a call about extents for a domain of its own until it is finished: what that answers, and how often it was
/// continued.
fn extents(guest: &Guest, op: u32, order: u32, at: &[u32]) -> (u32, u32) {
    const LIST: usize = 2048;
    let arguments = page(guest.mfn(0)).unwrap();
    let list: Vec<u64> = at.iter().copied().map(u64::from).collect();
    let arg = abi::MemoryReservation {
        extent_start: GuestHandle::from_raw(LIST as u64),
        nr_extents: list.len() as u64,
        extent_order: order,
        domid: guest.0.id.0,
        ..abi::MemoryReservation::ZERO
    };
    assert!(arguments.write(0, arg.as_bytes()) && arguments.write(LIST, list.as_bytes()));
    let caller = Caller {
        domain: &guest.0,
        vcpu: &guest.1,
    };
    let mut args = Args([op, 0, 0, 0, 0]);
    for continued in 0.. {
        let start = args.0[0] >> super::OP_BITS;
        match reservation(&caller, &args, op, start) {
            Ok(Reply::Value(done)) => return (done, continued),
            Ok(Reply::Again(next)) => args = next,
            other => panic!("{other:?}"),
        }
    }
    unreachable!()
}

#[test]
fn a_reservation_is_the_same_at_whatever_pages_it_is_continued() {
    const BLOCK: u32 = 0x8000;
    let calls: &[(u32, u32, &[u32])] = &[
        (abi::OP_POPULATE_PHYSMAP, 0, &[HOLE, HOLE + 2, HOLE + 3]),
        // The second one is there already.
        (abi::OP_POPULATE_PHYSMAP, 1, &[HOLE + 4, HOLE + 2, HOLE + 6]),
        (abi::OP_POPULATE_PHYSMAP, 9, &[BLOCK, BLOCK + 512]),
        (abi::OP_DECREASE_RESERVATION, 0, &[BLOCK + 3, BLOCK + 700]),
        // A hole in it does not matter, one at its start does.
        (abi::OP_DECREASE_RESERVATION, 9, &[BLOCK]),
        (abi::OP_DECREASE_RESERVATION, 2, &[HOLE, HOLE + 7, RAM]),
        (abi::OP_DECREASE_RESERVATION, 9, &[BLOCK + 512, BLOCK]),
    ];
    let (plain, paused) = (Guest::new(), Guest::new());
    for guest in [&plain, &paused] {
        assert!(memory().set_limit(guest.0.id, 1200));
    }
    for (op, order, at) in calls {
        let (expected, _) = extents(&plain, *op, *order, at);
        set_interrupt(true);
        let (done, continued) = extents(&paused, *op, *order, at);
        set_interrupt(false);
        assert_eq!(done, expected, "{op} {order} {at:x?}");
        assert!(continued + 1 >= done, "one extent at a time");
        assert_eq!(map_of(&paused.0), map_of(&plain.0), "{op} {order} {at:x?}");
        let total = |guest: &Guest| memory().account(guest.0.id).map(|account| account.total);
        assert_eq!(total(&paused), total(&plain));
    }
}
