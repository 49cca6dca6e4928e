//! memory_op (12): a domain's physical memory, and what it may map there.
//!
//! The number's low six bits are the operation; what is above them is the progress of a call that is being continued.
//! Operations on lists return how many entries were done, and never an error for what comes after the first.

use armv7::addr::{Gfn, GuestVa, Mfn, ORDER_2M};

use super::grow_grants;
use crate::abi::memory as abi;
use crate::call::guest_ptr::{element, read, write};
use crate::call::target::{self, Target};
use crate::call::{Args, Caller, Outcome, Reply, must_pause};
use crate::domain::place::{self, Shared};
use crate::domain::{Domain, Life, registry};
use crate::error::Errno;
use crate::id::DomId;
use crate::mem::p2m::{Access, P2mType, Removed, Run};
use crate::mem::{AllocError, memory};
use crate::options;

/// Pages zeroed before others may run.
const ZEROED_AT_ONCE: u32 = 8;
/// Entries of a map looked at before others may run.
const ENTRIES_AT_ONCE: u32 = 512;
/// The largest extent that is populated, a block of the map; larger ones are refused as if there were no such piece of
/// memory, and callers ask for smaller ones then.
const LARGEST_EXTENT: u32 = ORDER_2M;
/// Bits of the operation in the call's number.
const OP_BITS: u32 = 6;
/// No guest frame: what guests say where they have none (`INVALID_GFN`).
const NO_GFN: u64 = u64::MAX;
/// The most that the rest of the number holds.
const MAX_PROGRESS: u32 = u32::MAX >> OP_BITS;

pub(super) fn call(caller: &Caller<'_>, args: &Args) -> Outcome {
    let op = args.0[0] & abi::OP_MASK;
    crate::latency::detail(op);
    let start = args.0[0] >> OP_BITS;
    if start != 0 {
        check_progress(op, start)?;
    }
    match op {
        abi::OP_INCREASE_RESERVATION | abi::OP_DECREASE_RESERVATION | abi::OP_POPULATE_PHYSMAP => {
            reservation(caller, args, op, start)
        }
        abi::OP_ADD_TO_PHYSMAP => add_to_physmap(caller, args),
        abi::OP_ADD_TO_PHYSMAP_BATCH => add_batch(caller, args, start),
        abi::OP_REMOVE_FROM_PHYSMAP => remove_from_physmap(caller, args),
        abi::OP_MAXIMUM_RAM_PAGE => Ok(Reply::Value(memory().max_page())),
        abi::OP_CURRENT_RESERVATION | abi::OP_MAXIMUM_RESERVATION | abi::OP_MAXIMUM_GPFN => {
            size(caller, args, op)
        }
        abi::OP_GET_SHARING_FREED_PAGES | abi::OP_GET_SHARING_SHARED_PAGES => Ok(Reply::OK),
        abi::OP_CLAIM_PAGES => claim(caller, args),
        abi::OP_GET_VNUMAINFO => {
            let op: abi::VnumaTopologyInfo = read(caller.domain, args.ptr(1))?;
            if op.pad != 0 {
                return Err(Errno::Inval);
            }
            target::control(caller, op.domid)?;
            Err(Errno::OpNotSupp)
        }
        abi::OP_EXCHANGE => {
            let _: abi::MemoryExchange = read(caller.domain, args.ptr(1))?;
            Err(Errno::OpNotSupp)
        }
        abi::OP_RESERVED_DEVICE_MEMORY_MAP => {
            let mut op: abi::ReservedDeviceMemoryMap = read(caller.domain, args.ptr(1))?;
            if op.flags & !abi::RDM_ALL != 0 {
                return Err(Errno::Inval);
            }
            op.nr_entries = 0;
            write(caller.domain, args.ptr(1), &op)?;
            Ok(Reply::OK)
        }
        abi::OP_ACQUIRE_RESOURCE => acquire_resource(caller, args, start),
        _ => Err(Errno::NoSys),
    }
}

/// Operations whose calls go on with some progress, a bit each.
const CONTINUED: u64 = 1 << abi::OP_INCREASE_RESERVATION
    | 1 << abi::OP_DECREASE_RESERVATION
    | 1 << abi::OP_POPULATE_PHYSMAP
    | 1 << abi::OP_ACQUIRE_RESOURCE;
/// Operations on pages whose number has 16 bits.
const OF_FEW: u64 = 1 << abi::OP_ADD_TO_PHYSMAP | 1 << abi::OP_ADD_TO_PHYSMAP_BATCH;
/// Other operations that there are.
const AT_ONCE: u64 = 1 << abi::OP_EXCHANGE
    | 1 << abi::OP_MAXIMUM_RAM_PAGE
    | 1 << abi::OP_CURRENT_RESERVATION
    | 1 << abi::OP_MAXIMUM_RESERVATION
    | 1 << abi::OP_MAXIMUM_GPFN
    | 1 << abi::OP_REMOVE_FROM_PHYSMAP
    | 1 << abi::OP_CLAIM_PAGES
    | 1 << abi::OP_GET_VNUMAINFO
    | 1 << abi::OP_RESERVED_DEVICE_MEMORY_MAP;

/// Refuses progress in the argument of an operation that is never continued, or beyond what it can reach.
#[cold]
#[inline(never)]
fn check_progress(op: u32, start: u32) -> Result<(), Errno> {
    let is_of = |set: u64| set >> op & 1 != 0;
    if is_of(CONTINUED) || is_of(OF_FEW) && start <= u16::MAX.into() {
        Ok(())
    } else if is_of(OF_FEW) {
        Err(Errno::Dom)
    } else if is_of(AT_ONCE) {
        Err(Errno::Inval)
    } else {
        Err(Errno::NoSys)
    }
}

/// Returns a number of pages of a domain: its highest gfn, its reservation or its limit.
fn size(caller: &Caller<'_>, args: &Args, op: u32) -> Outcome {
    let arg: abi::MemoryDomain = read(caller.domain, args.ptr(1))?;
    let target = target::control(caller, arg.domid)?;
    let domain = target.domain();
    Ok(Reply::Value(match op {
        abi::OP_MAXIMUM_GPFN => domain.p2m.lock().max_gfn().map_or(0, Gfn::raw),
        _ => {
            let account = memory().account(domain.id).ok_or(Errno::Srch)?;
            if op == abi::OP_CURRENT_RESERVATION {
                account.total
            } else {
                account.limit
            }
        }
    }))
}

/// Increase, decrease and populate: `nr_extents` extents of `1 << extent_order` pages each. The progress is in pages.
fn reservation(caller: &Caller<'_>, args: &Args, op: u32, start: u32) -> Outcome {
    let Ok(arg) = read::<abi::MemoryReservation>(caller.domain, args.ptr(1)) else {
        return Ok(Reply::Value(start));
    };
    let order = arg.extent_order;
    if order > options::memop_max_order(caller.domain) {
        return Ok(Reply::Value(start));
    }
    let done_before = Ok(Reply::Value(start >> order));
    let Some(list) = arg.extent_start.to_va() else {
        return done_before;
    };
    let pages = u32::try_from(arg.nr_extents)
        .ok()
        .and_then(|count| count.checked_mul(1 << order))
        .filter(|pages| (start..=MAX_PROGRESS).contains(pages));
    let Some(pages) = pages else {
        return done_before;
    };
    let Ok(target) = target::control(caller, arg.domid) else {
        return done_before;
    };
    let domain = target.domain();
    let mut removed = Removed::new();
    let mut done = start;
    while done < pages {
        let within = done & ((1 << order) - 1);
        let step = match op {
            abi::OP_INCREASE_RESERVATION => Step::Refused,
            _ if arg.mem_flags & abi::MEMF_POPULATE_ON_DEMAND != 0 => Step::Refused,
            _ => match extent(caller, list, done >> order) {
                Some(gfn) if op == abi::OP_POPULATE_PHYSMAP => populate(domain, gfn, order),
                Some(gfn) => decrease(domain, gfn, within, (1 << order) - within, &mut removed),
                None => Step::Refused,
            },
        };
        match step {
            Step::Done(pages) => done += pages,
            Step::Zeroing => {}
            Step::Refused => break,
        }
        if done < pages && must_pause() {
            let_go(domain, removed);
            return Ok(again(args, op, done));
        }
    }
    let_go(domain, removed);
    Ok(Reply::Value(done >> order))
}

/// The outcome of one step of an extent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// This many pages are done.
    Done(u32),
    /// A part of its new memory was zeroed; the step is repeated.
    Zeroing,
    /// The extent is refused. Pages of it that are done stay done.
    Refused,
}

impl<E> From<Result<u32, E>> for Step {
    fn from(result: Result<u32, E>) -> Self {
        result.map_or(Self::Refused, Self::Done)
    }
}

/// Returns the continuation with the progress `done`.
fn again(args: &Args, op: u32, done: u32) -> Reply {
    args.again([(0, op | done << OP_BITS)])
}

fn extent(caller: &Caller<'_>, list: GuestVa, n: u32) -> Option<Gfn> {
    let gfn: u64 = read(caller.domain, element::<u64>(list, n).ok()?).ok()?;
    Gfn::new(gfn)
}

/// Maps pages at `gfn` of `domain`: the frames of the same numbers when it is mapped 1:1, new ones otherwise.
fn populate(domain: &Domain, gfn: Gfn, order: u32) -> Step {
    if order > LARGEST_EXTENT {
        return Step::Refused;
    }
    let memory = memory();
    let count = 1 << order;
    let mfn = if domain.rights.hardware {
        match Mfn::new(gfn.raw().into()) {
            Some(mfn) if memory.get_direct(domain.id, mfn, count) => mfn,
            _ => return Step::Refused,
        }
    } else {
        match memory.alloc_domain_pages_by(domain.id, order, ZEROED_AT_ONCE) {
            Ok(mfn) => mfn,
            Err(AllocError::Zeroing) => return Step::Zeroing,
            Err(_) => return Step::Refused,
        }
    };
    let mapped = map_alive(domain, gfn, mfn, count);
    // Mapped frames keep their references, which are the map's. The others are given back.
    let done = mapped.unwrap_or(0);
    if done == count {
        return Step::Done(count);
    }
    if let Some(rest) = mfn.checked_add(done) {
        memory.put_run(rest, count - done);
    }
    Step::Refused
}

/// Maps new pages of a domain unless it is dying: the end empties its map once.
fn map_alive(domain: &Domain, gfn: Gfn, mfn: Mfn, count: u32) -> Result<u32, Errno> {
    let state = domain.state.lock();
    if state.life != Life::Alive {
        return Err(Errno::Inval);
    }
    let done = domain
        .p2m
        .lock()
        .map(gfn, mfn, count, P2mType::RamRw, u32::MAX)?;
    Ok(done)
}

/// Unmaps up to `count` pages of the extent at `gfn`, from its page `within` on. They are freed when `removed` is released.
fn decrease(domain: &Domain, gfn: Gfn, within: u32, count: u32, removed: &mut Removed) -> Step {
    let Some(at) = gfn.checked_add(within) else {
        return Step::Refused;
    };
    let mut p2m = domain.p2m.lock();
    if within == 0 && p2m.lookup(at).is_none() {
        return Step::Refused;
    }
    let own = |kind: P2mType| kind.is_own_ram() && kind.allows(Access::Write);
    let done = p2m.unmap(at, count, ENTRIES_AT_ONCE, own, removed);
    drop(p2m);
    // `Ok(0)` means that `removed` has no room for the next entry.
    if removed.is_full() || done == Ok(0) {
        let_go(domain, core::mem::take(removed));
    }
    done.into()
}

/// Releases unmapped pages. Shared pages among them lose their place.
fn let_go(domain: &Domain, removed: Removed) {
    let frames = |run: &Run| {
        let run = *run;
        (0..run.count).filter_map(move |n| Some((run.gfn.checked_add(n)?, run.mfn.checked_add(n)?)))
    };
    // A longer run is one block of RAM without shared pages.
    let small = |run: &&Run| run.count <= Removed::MAX_FRAMES;
    for (gfn, mfn) in removed.runs().iter().filter(small).flat_map(frames) {
        if place::is_shared(mfn) {
            place::forget(domain, gfn);
        }
    }
    domain.p2m.lock().release(removed);
}

fn add_to_physmap(caller: &Caller<'_>, args: &Args) -> Outcome {
    let op: abi::AddToPhysmap = read(caller.domain, args.ptr(1))?;
    if op.space == abi::SPACE_GMFN_FOREIGN {
        return Err(Errno::NoSys);
    }
    let target = changeable(caller, op.domid, op.space)?;
    match add_one(target.domain(), op.space, op.idx, op.gpfn)? {
        Added::Yes => Ok(Reply::OK),
        Added::NotYet => Ok(args.again([])),
    }
}

/// Returns the domain `id`. Fails unless the caller may add pages of `space` to its memory: device pages only the hardware
/// domain, and to its own.
fn changeable<'a>(caller: &Caller<'a>, id: u16, space: u32) -> Result<Target<'a>, Errno> {
    let target = target::any(caller, id)?;
    let own_hardware = target.is_own() && caller.domain.rights.hardware;
    if space == abi::SPACE_DEV_MMIO && !own_hardware {
        return Err(Errno::Acces);
    }
    if target.is_own() || caller.domain.is_control() {
        Ok(target)
    } else {
        Err(Errno::Perm)
    }
}

/// The outcome of [`add_one`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Added {
    Yes,
    /// The grant table has grown by a frame; the call is continued.
    NotYet,
}

/// Maps a page that the hypervisor shares, or a device page, at `gpfn`.
fn add_one(domain: &Domain, space: u32, idx: u64, gpfn: u64) -> Result<Added, Errno> {
    if gpfn == NO_GFN {
        return Err(Errno::Inval);
    }
    let gfn = || Gfn::new(gpfn).ok_or(Errno::Inval);
    match space {
        abi::SPACE_SHARED_INFO => {
            if idx != 0 {
                return Err(Errno::Inval);
            }
            place::put_shared(domain, Shared::Info, gfn()?)?;
        }
        abi::SPACE_GRANT_TABLE => {
            let index = u32::try_from(idx).map_err(|_| Errno::Inval)?;
            if index & abi::IDX_GRANT_TABLE_STATUS != 0 {
                return Err(Errno::Inval);
            }
            if !grow_grants(domain, u64::from(index) + 1)? {
                return Ok(Added::NotYet);
            }
            place::put_shared(domain, Shared::GrantFrame(index), gfn()?)?;
        }
        // All device pages of a domain are mapped from its start.
        abi::SPACE_DEV_MMIO => match domain.entry_at(gpfn) {
            Some(entry)
                if entry.kind == P2mType::MmioDirect && u64::from(entry.mfn.raw()) == idx => {}
            _ => return Err(Errno::Perm),
        },
        _ => return Err(Errno::NoSys),
    }
    Ok(Added::Yes)
}

/// Maps the page `gfn` of `source` at `at` of `domain`.
fn map_foreign(domain: &Domain, source: &Domain, gfn: u64, at: u64) -> Result<(), Errno> {
    let gfn = Gfn::new(gfn).ok_or(Errno::Inval)?;
    let at = Gfn::new(at).ok_or(Errno::Inval)?;
    let (reference, kind) = source
        .p2m
        .lock()
        .pin(gfn, Access::Read)
        .ok_or(Errno::Inval)?;
    let kind = match kind {
        P2mType::RamRw => P2mType::ForeignRw,
        P2mType::RamRo => P2mType::ForeignRo,
        P2mType::RamLogDirty => P2mType::ForeignLogDirty,
        _ => return Err(Errno::Inval),
    };
    place::put_foreign(domain, at, reference, kind)
}

/// Returns the domain `id`, whose pages `domain` maps. Fails unless it is another one and `domain` is the control domain.
fn foreign<'a>(caller: &Caller<'a>, domain: &Domain, id: u16) -> Result<Target<'a>, Errno> {
    let source = target::any(caller, id)?;
    if source.domain().id == domain.id {
        Err(Errno::Inval)
    } else if domain.is_control() {
        Ok(source)
    } else {
        Err(Errno::Perm)
    }
}

fn add_batch(caller: &Caller<'_>, args: &Args, start: u32) -> Outcome {
    let op: abi::AddToPhysmapBatch = read(caller.domain, args.ptr(1))?;
    let space = u32::from(op.space);
    if space == abi::SPACE_GMFN_RANGE {
        return Err(Errno::OpNotSupp);
    }
    let target = changeable(caller, op.domid, space)?;
    let count = u32::from(op.size);
    if start >= count {
        return if start == 0 {
            Ok(Reply::OK)
        } else {
            Err(Errno::IlSeq)
        };
    }
    // An error of the foreign domain is written to each page's status.
    let source = match space {
        abi::SPACE_GMFN_FOREIGN => Some(foreign(caller, target.domain(), op.foreign_domid)),
        abi::SPACE_DEV_MMIO if op.foreign_domid != 0 => return Err(Errno::OpNotSupp),
        _ => None,
    };
    let idxs = op.idxs.to_va().ok_or(Errno::Fault)?;
    let gpfns = op.gpfns.to_va().ok_or(Errno::Fault)?;
    let errs = op.errs.to_va().ok_or(Errno::Fault)?;
    for n in start..count {
        if n > start && must_pause() {
            return Ok(again(args, abi::OP_ADD_TO_PHYSMAP_BATCH, n));
        }
        let idx: u64 = read(caller.domain, element::<u64>(idxs, n)?)?;
        let gpfn: u64 = read(caller.domain, element::<u64>(gpfns, n)?)?;
        if gpfn == NO_GFN {
            return Err(Errno::Inval);
        }
        let result = match &source {
            Some(Err(error)) => Err(*error),
            Some(Ok(source)) => map_foreign(target.domain(), source.domain(), idx, gpfn),
            None => match add_one(target.domain(), space, idx, gpfn) {
                Ok(Added::NotYet) => {
                    return Ok(again(args, abi::OP_ADD_TO_PHYSMAP_BATCH, n));
                }
                added => added.map(|_| ()),
            },
        };
        let status: i32 = result.err().map_or(0, |error| -(error as i32));
        write(caller.domain, element::<i32>(errs, n)?, &status)?;
    }
    Ok(Reply::OK)
}

fn remove_from_physmap(caller: &Caller<'_>, args: &Args) -> Outcome {
    let op: abi::RemoveFromPhysmap = read(caller.domain, args.ptr(1))?;
    let target = target::control(caller, op.domid)?;
    let domain = target.domain();
    let gfn = Gfn::new(op.gpfn).ok_or(Errno::NoEnt)?;
    let mut removed = Removed::new();
    let mut p2m = domain.p2m.lock();
    if p2m.lookup(gfn).is_none_or(|entry| !entry.kind.is_ram()) {
        return Err(Errno::NoEnt);
    }
    // Grants are unmapped by their handles, device pages never.
    p2m.unmap(
        gfn,
        1,
        u32::MAX,
        |kind| kind.is_own_ram() || kind.is_foreign(),
        &mut removed,
    )?;
    p2m.release(removed);
    drop(p2m);
    place::forget(domain, gfn);
    Ok(Reply::OK)
}

fn claim(caller: &Caller<'_>, args: &Args) -> Outcome {
    let op: abi::MemoryReservation = read(caller.domain, args.ptr(1))?;
    if !op.extent_start.is_null() || op.extent_order != 0 || op.mem_flags != 0 {
        return Err(Errno::Inval);
    }
    // `DOMID_SELF` names no domain here.
    let domain = registry::get(DomId(op.domid)).ok_or(Errno::Inval)?;
    if !caller.domain.is_control() {
        return Err(Errno::Perm);
    }
    let pages = u32::try_from(op.nr_extents).map_err(|_| Errno::NoMem)?;
    match memory().set_claim(domain.id, pages) {
        true => Ok(Reply::OK),
        false => Err(Errno::NoMem),
    }
}

/// Maps frames of another domain's grant table. The toolstack writes the first entries there.
fn acquire_resource(caller: &Caller<'_>, args: &Args, start: u32) -> Outcome {
    let mut op: abi::MemAcquireResource = read(caller.domain, args.ptr(1))?;
    let end = op.frame.checked_add(op.nr_frames.into());
    let end = end.and_then(|end| u32::try_from(end).ok());
    let (0, Some(end)) = (op.pad, end) else {
        return Err(Errno::Inval);
    };
    let source = target::remote(caller, op.domid)?;
    if op.resource != abi::RESOURCE_GRANT_TABLE || op.id != abi::RESOURCE_GRANT_TABLE_ID_SHARED {
        return Err(Errno::Inval);
    }
    if op.frame_list.is_null() {
        if op.nr_frames != 0 || start != 0 {
            return Err(Errno::Inval);
        }
        op.nr_frames = source.grants.lock().max_size();
        write(caller.domain, args.ptr(1), &op)?;
        return Ok(Reply::OK);
    }
    if start >= op.nr_frames || op.nr_frames > MAX_PROGRESS {
        return Err(Errno::Inval);
    }
    if !grow_grants(&source, end.into())? {
        return Ok(again(args, abi::OP_ACQUIRE_RESOURCE, start));
    }
    let list = op.frame_list.to_va().ok_or(Errno::Fault)?;
    for n in start..op.nr_frames {
        if n > start && must_pause() {
            return Ok(again(args, abi::OP_ACQUIRE_RESOURCE, n));
        }
        let at: u64 = read(caller.domain, element::<u64>(list, n)?)?;
        let at = Gfn::new(at).ok_or(Errno::Inval)?;
        let index = u32::try_from(op.frame)
            .ok()
            .and_then(|first| first.checked_add(n))
            .ok_or(Errno::Inval)?;
        let mfn = source.grants.lock().frame(index).ok_or(Errno::Inval)?.mfn();
        let reference = memory().get(mfn, source.id).ok_or(Errno::Inval)?;
        place::put_foreign(caller.domain, at, reference, P2mType::ForeignRw)?;
    }
    Ok(Reply::OK)
}

#[cfg(test)]
mod tests;
