use std::sync::Arc;

use armv7::addr::{Gfn, Mfn};

use super::{add_one, decrease, foreign, let_go, map_foreign, populate};
use crate::abi::memory as abi;
use crate::call::Caller;
use crate::domain::testing::{NO_TLB, guest};
use crate::domain::{Domain, Life, Rights, registry};
use crate::error::Errno;
use crate::mem::memory;
use crate::mem::p2m::{P2mType, Removed};

/// Where a test domain has RAM.
const RAM: u32 = 0x10;
/// And where it has nothing.
const HOLE: u32 = 0x1000;

struct Guest(Arc<Domain>);

impl Guest {
    fn new() -> Self {
        Self(guest(Rights::GUEST, NO_TLB, &[0, RAM, RAM + 1]).0)
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
        add_one(&self.0, space, idx, at.into())
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
    // What was refused is to be had elsewhere.
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
    assert_eq!(decrease(&guest.0, gfn(HOLE), 1, &mut removed), Ok(()));
    let_go(&guest.0, removed);
    assert_eq!(guest.kind(HOLE), None);
    assert_eq!(guest.add(abi::SPACE_SHARED_INFO, 0, HOLE + 1), Ok(()));
}

#[test]
fn a_domain_that_is_being_taken_apart_gets_no_memory() {
    let guest = Guest::new();
    assert_eq!(populate(&guest.0, gfn(HOLE), 0), Ok(()));
    let before = memory().account(guest.0.id).unwrap().total;
    for life in [Life::Dying, Life::Dead] {
        guest.0.state.lock().life = life;
        assert_eq!(populate(&guest.0, gfn(HOLE + 1), 0), Err(Errno::Inval));
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
