//! memory_op: this domain's own frames, and the hypervisor's pages in it (abi.md 2.3).

use guests::abi::{
    self, AddToPhysmap, AddToPhysmapBatch, DOMID_ABSENT, DOMID_SELF, Reservation, add_to_physmap, remove_from_physmap,
    reservation,
};
use guests::exception::catch;
use guests::harness::Verdict;
use guests::hypercall::{MEMORY_OP, address_of, call, call_with};
use guests::memory::{self, Frame, PAGE_SIZE};
use guests::status::{EBUSY, EFAULT, EINVAL, ENOENT, ENOSYS, EOPNOTSUPP, EPERM, ESRCH};
use guests::{ensure, ensure_eq, platform};

use crate::load_word;
use crate::version::is_dom0;

fn count_of(operation: u32, domid: u16) -> i32 {
    let mut argument = domid;
    call_with(MEMORY_OP, operation, &mut argument)
}

fn ram_pages() -> u32 {
    platform::get().ram_size / PAGE_SIZE
}

pub fn reservation_counts_agree_with_the_device_tree() -> Verdict {
    let current = count_of(abi::MEM_CURRENT_RESERVATION, DOMID_SELF) as u32;
    ensure!(current >= ram_pages(), current);
    ensure!(count_of(abi::MEM_MAXIMUM_RESERVATION, DOMID_SELF) as u32 >= current, current);
    Ok(())
}

pub fn maximum_gpfn_covers_ram() -> Verdict {
    let maximum = count_of(abi::MEM_MAXIMUM_GPFN, DOMID_SELF) as u32;
    ensure!(maximum >= (platform::get().ram_base >> 12) + ram_pages() - 1, maximum);
    Ok(())
}

pub fn maximum_ram_page_covers_ram() -> Verdict {
    let maximum = call(MEMORY_OP, [abi::MEM_MAXIMUM_RAM_PAGE, 0, 0, 0, 0]) as u32;
    ensure!(maximum >= (platform::get().ram_base >> 12) + ram_pages(), maximum);
    Ok(())
}

pub fn reservation_counts_of_an_absent_domain_return_esrch() -> Verdict {
    for operation in [abi::MEM_CURRENT_RESERVATION, abi::MEM_MAXIMUM_RESERVATION, abi::MEM_MAXIMUM_GPFN] {
        ensure_eq!(count_of(operation, DOMID_ABSENT), ESRCH, operation);
    }
    Ok(())
}

fn is_accessible(address: u32) -> bool {
    catch(load_word, address, 0).is_ok()
}

pub fn decreased_pages_are_gone_and_populated_pages_come_back() -> Verdict {
    let frames = Frame::take_aligned(4);
    let mut list = [0, 1, 2, 3].map(|index| frames.nth(index).gfn());
    ensure_eq!(reservation(abi::MEM_DECREASE_RESERVATION, &mut list, 0), 4);
    for index in 0..4 {
        ensure!(!is_accessible(frames.nth(index).address()), index);
    }
    ensure_eq!(reservation(abi::MEM_POPULATE_PHYSMAP, &mut list, 0), 4);
    for index in 0..4 {
        ensure!(is_accessible(frames.nth(index).address()), index);
        frames.nth(index).write(0, index);
    }
    for index in 0..4 {
        ensure_eq!(frames.nth(index).read(0), index);
    }
    Ok(())
}

pub fn decrease_stops_at_a_hole_and_tells_how_far_it_got() -> Verdict {
    let frames = Frame::take_aligned(2);
    let hole = 0xf_0000_u64;
    let mut list = [frames.gfn(), hole, frames.nth(1).gfn()];
    ensure_eq!(reservation(abi::MEM_DECREASE_RESERVATION, &mut list, 0), 1);
    ensure!(!is_accessible(frames.address()));
    ensure!(is_accessible(frames.nth(1).address()));
    ensure_eq!(reservation(abi::MEM_POPULATE_PHYSMAP, &mut list[..1], 0), 1);
    Ok(())
}

pub fn decrease_of_a_two_megabyte_extent_is_one_extent() -> Verdict {
    let frames = Frame::take_aligned(512);
    let mut list = [frames.gfn()];
    ensure_eq!(reservation(abi::MEM_DECREASE_RESERVATION, &mut list, 9), 1);
    ensure!(!is_accessible(frames.address()) && !is_accessible(frames.nth(511).address()));
    ensure_eq!(reservation(abi::MEM_POPULATE_PHYSMAP, &mut list, 9), 1);
    ensure!(is_accessible(frames.address()) && is_accessible(frames.nth(511).address()));
    Ok(())
}

pub fn populate_beyond_the_order_limit_does_nothing() -> Verdict {
    // A plain domain may ask for order 9, the control domain for all that the allocator has, order 18.
    let frame = Frame::take();
    for order in [if is_dom0() { 19 } else { 10 }, 32, u32::MAX] {
        ensure_eq!(reservation(abi::MEM_POPULATE_PHYSMAP, &mut [frame.gfn()], order), 0, order);
    }
    Ok(())
}

pub fn reservation_with_a_bad_list_does_nothing() -> Verdict {
    for operation in [abi::MEM_DECREASE_RESERVATION, abi::MEM_POPULATE_PHYSMAP] {
        let mut argument =
            Reservation { extents: u64::from(memory::UNMAPPED), count: 1, domid: DOMID_SELF, ..Reservation::default() };
        ensure_eq!(call_with(MEMORY_OP, operation, &mut argument), 0, operation);
        ensure_eq!(call(MEMORY_OP, [operation, memory::UNMAPPED, 0, 0, 0]), 0, operation);
        argument.domid = DOMID_ABSENT;
        ensure_eq!(call_with(MEMORY_OP, operation, &mut argument), 0, operation);
    }
    Ok(())
}

pub fn reservation_without_extents_does_nothing() -> Verdict {
    for operation in [abi::MEM_INCREASE_RESERVATION, abi::MEM_DECREASE_RESERVATION, abi::MEM_POPULATE_PHYSMAP] {
        ensure_eq!(reservation(operation, &mut [], 0), 0, operation);
    }
    Ok(())
}

pub fn shared_info_can_be_in_one_place_only() -> Verdict {
    let (first, second) = (Frame::take(), Frame::take());
    ensure_eq!(add_to_physmap(abi::SPACE_SHARED_INFO, 0, first.gfn()), 0);
    ensure_eq!(add_to_physmap(abi::SPACE_SHARED_INFO, 0, second.gfn()), EBUSY);
    ensure_eq!(remove_from_physmap(first.gfn()), 0);
    Ok(())
}

pub fn shared_info_can_be_moved_by_removing_it_first() -> Verdict {
    let (first, second) = (Frame::take(), Frame::take());
    const UNUSED_TAIL: u32 = 4000;
    ensure_eq!(add_to_physmap(abi::SPACE_SHARED_INFO, 0, first.gfn()), 0);
    first.write(UNUSED_TAIL, 0x1234_5678);
    ensure_eq!(remove_from_physmap(first.gfn()), 0);
    ensure!(!is_accessible(first.address()));
    ensure_eq!(add_to_physmap(abi::SPACE_SHARED_INFO, 0, second.gfn()), 0);
    ensure_eq!(second.read(UNUSED_TAIL), 0x1234_5678);
    ensure_eq!(remove_from_physmap(second.gfn()), 0);
    Ok(())
}

pub fn shared_info_has_one_page() -> Verdict {
    ensure_eq!(add_to_physmap(abi::SPACE_SHARED_INFO, 1, Frame::take().gfn()), EINVAL);
    Ok(())
}

pub fn a_grant_frame_can_be_mapped_and_removed() -> Verdict {
    let frame = Frame::take();
    frame.write(0, 0xffff_ffff);
    ensure_eq!(add_to_physmap(abi::SPACE_GRANT_TABLE, 0, frame.gfn()), 0);
    ensure_eq!(frame.read(0), 0);
    ensure_eq!(remove_from_physmap(frame.gfn()), 0);
    ensure!(!is_accessible(frame.address()));
    Ok(())
}

pub fn grant_frames_beyond_the_limit_are_refused() -> Verdict {
    for index in [64, 65, 0x7fff_ffff] {
        ensure!(add_to_physmap(abi::SPACE_GRANT_TABLE, index, Frame::take().gfn()) < 0, index);
    }
    Ok(())
}

pub fn spaces_of_other_architectures_return_enosys() -> Verdict {
    for space in [abi::SPACE_GMFN, abi::SPACE_GMFN_RANGE, abi::SPACE_FOREIGN, 6, 0xffff] {
        let mut argument = AddToPhysmap { domid: DOMID_SELF, size: 1, space, index: 0, gfn: Frame::take().gfn() };
        ensure_eq!(call_with(MEMORY_OP, abi::MEM_ADD_TO_PHYSMAP, &mut argument), ENOSYS, space);
    }
    Ok(())
}

pub fn add_to_physmap_of_an_absent_domain_returns_esrch() -> Verdict {
    let mut argument = AddToPhysmap { domid: DOMID_ABSENT, gfn: Frame::take().gfn(), ..AddToPhysmap::default() };
    ensure_eq!(call_with(MEMORY_OP, abi::MEM_ADD_TO_PHYSMAP, &mut argument), ESRCH);
    argument.space = abi::SPACE_FOREIGN;
    ensure_eq!(call_with(MEMORY_OP, abi::MEM_ADD_TO_PHYSMAP, &mut argument), ENOSYS);
    Ok(())
}

/// One batch; `errors` is poisoned before.
fn batch(space: u32, foreign: u16, indices: &mut [u64], gfns: &mut [u64], errors: &mut [i32]) -> i32 {
    errors.fill(0x5a5a_5a5a);
    let mut argument = AddToPhysmapBatch {
        domid: DOMID_SELF,
        space: space as u16,
        size: indices.len() as u16,
        foreign,
        indices: u64::from(address_of(indices)),
        gfns: u64::from(address_of(gfns)),
        errors: u64::from(address_of(errors)),
    };
    call_with(MEMORY_OP, abi::MEM_ADD_TO_PHYSMAP_BATCH, &mut argument)
}

pub fn add_to_physmap_batch_reports_each_page() -> Verdict {
    let (good, bad) = (Frame::take(), Frame::take());
    let mut errors = [0; 3];
    ensure_eq!(batch(abi::SPACE_GRANT_TABLE, 0, &mut [0, 64], &mut [good.gfn(), bad.gfn()], &mut errors[..2]), 0);
    ensure_eq!(errors[0], 0);
    ensure!(errors[1] < 0, errors[1]);
    ensure_eq!(errors[2], 0);
    ensure_eq!(remove_from_physmap(good.gfn()), 0);
    ensure_eq!(batch(abi::SPACE_GMFN_RANGE, 0, &mut [0], &mut [good.gfn()], &mut errors[..1]), EOPNOTSUPP);
    ensure_eq!(errors[0], 0x5a5a_5a5a);
    ensure_eq!(call(MEMORY_OP, [abi::MEM_ADD_TO_PHYSMAP_BATCH, memory::UNMAPPED, 0, 0, 0]), EFAULT);
    Ok(())
}

pub fn foreign_pages_of_oneself_are_refused() -> Verdict {
    let (source, target) = (Frame::take(), Frame::take());
    let mut errors = [0];
    let result = batch(abi::SPACE_FOREIGN, DOMID_SELF, &mut [source.gfn()], &mut [target.gfn()], &mut errors);
    ensure_eq!(result, 0);
    ensure_eq!(errors[0], EINVAL);
    Ok(())
}

pub fn foreign_pages_of_an_absent_domain_return_esrch() -> Verdict {
    let (source, target) = (Frame::take(), Frame::take());
    let mut errors = [0];
    let result = batch(abi::SPACE_FOREIGN, DOMID_ABSENT, &mut [source.gfn()], &mut [target.gfn()], &mut errors);
    ensure_eq!(result, 0);
    ensure_eq!(errors[0], ESRCH);
    Ok(())
}

pub fn remove_of_a_hole_returns_enoent() -> Verdict {
    ensure_eq!(remove_from_physmap(0xf_0000), ENOENT);
    ensure_eq!(remove_from_physmap(u64::from(platform::get().cpu_interface >> 12)), ENOENT);
    Ok(())
}

pub fn memory_operations_of_other_architectures_return_enosys() -> Verdict {
    let mut argument = [0_u64; 8];
    for operation in [5, 9, 10, 12, 13, 16, 17, 22, 25, 29, 40, 63] {
        ensure_eq!(call_with(MEMORY_OP, operation, &mut argument), ENOSYS, operation);
    }
    Ok(())
}

pub fn memory_exchange_is_not_supported_for_translated_domains() -> Verdict {
    // struct xen_memory_exchange: in, out, nr_exchanged.
    let mut list = [Frame::take().gfn()];
    let side = Reservation {
        extents: u64::from(address_of(&mut list)),
        count: 1,
        domid: DOMID_SELF,
        ..Reservation::default()
    };
    let mut argument = (side, side, 0_u64);
    ensure_eq!(call_with(MEMORY_OP, abi::MEM_EXCHANGE, &mut argument), EOPNOTSUPP);
    Ok(())
}

pub fn claim_pages_wants_a_plain_request() -> Verdict {
    let cancel = Reservation { domid: DOMID_SELF, ..Reservation::default() };
    ensure_eq!(call_with(MEMORY_OP, abi::MEM_CLAIM_PAGES, &mut Reservation { order: 1, ..cancel }), EINVAL);
    ensure_eq!(call_with(MEMORY_OP, abi::MEM_CLAIM_PAGES, &mut Reservation { flags: 1, ..cancel }), EINVAL);
    ensure_eq!(call_with(MEMORY_OP, abi::MEM_CLAIM_PAGES, &mut Reservation { extents: 8, ..cancel }), EINVAL);
    Ok(())
}

/// `struct xen_mem_acquire_resource`.
#[repr(C)]
struct AcquireResource {
    domid: u16,
    kind: u16,
    id: u32,
    count: u32,
    pad: u32,
    first: u64,
    list: u64,
}

pub fn acquire_resource_serves_other_domains_only() -> Verdict {
    const GRANT_TABLE: u16 = 1;
    let request = |domid, pad| AcquireResource { domid, kind: GRANT_TABLE, id: 0, count: 0, pad, first: 0, list: 0 };
    // DOMID_SELF is not translated here; one's real number is refused.
    ensure_eq!(call_with(MEMORY_OP, abi::MEM_ACQUIRE_RESOURCE, &mut request(DOMID_SELF, 0)), ESRCH);
    if is_dom0() {
        ensure_eq!(call_with(MEMORY_OP, abi::MEM_ACQUIRE_RESOURCE, &mut request(0, 0)), EPERM);
    }
    ensure_eq!(call_with(MEMORY_OP, abi::MEM_ACQUIRE_RESOURCE, &mut request(DOMID_ABSENT, 0)), ESRCH);
    ensure_eq!(call_with(MEMORY_OP, abi::MEM_ACQUIRE_RESOURCE, &mut request(DOMID_ABSENT, 1)), EINVAL);
    Ok(())
}
