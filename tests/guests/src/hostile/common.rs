//! Shared by the attacks: holes, and vCPUs that race.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use guests::abi::{self, DOMID_SELF};
use guests::event::{self, SharedInfo, VcpuInfo};
use guests::grant::{MAP_HOST, PERMIT_ACCESS, Table, map, myself, unmap};
use guests::harness::{Failure, Verdict, expect};
use guests::memory::{Frame, PAGE_SIZE};
use guests::smp::{self, MAX_CPUS};
use guests::{clock, cp15, ensure, ensure_eq, platform};

pub use guests::code::{self, Code, is, load, store};
pub use guests::gic::quiet;
pub use guests::random::{Random, mix};

/// A guest frame with nothing in it.
pub fn hole() -> Result<Frame, Failure> {
    holes(1)
}

/// Contiguous guest frames with nothing in them.
pub fn holes(count: u32) -> Result<Frame, Failure> {
    let first = Frame::take_aligned(count);
    for page in 0..count {
        ensure_eq!(decrease(first.nth(page).gfn()), 1, page);
    }
    Ok(first)
}

pub fn decrease(gfn: u64) -> i32 {
    abi::reservation(abi::MEM_DECREASE_RESERVATION, &mut [gfn], 0)
}

pub fn populate(gfn: u64) -> i32 {
    abi::reservation(abi::MEM_POPULATE_PHYSMAP, &mut [gfn], 0)
}

/// Pages in this domain's account.
pub fn pages() -> i32 {
    let mut myself = u32::from(DOMID_SELF);
    guests::hypercall::call_with(guests::hypercall::MEMORY_OP, abi::MEM_CURRENT_RESERVATION, &mut myself)
}

/// Pages that it may have.
pub fn most_pages() -> i32 {
    let mut myself = u32::from(DOMID_SELF);
    guests::hypercall::call_with(guests::hypercall::MEMORY_OP, abi::MEM_MAXIMUM_RESERVATION, &mut myself)
}

/// The first frame of the grant table, mapped once.
pub fn table() -> Result<Table, Failure> {
    static TABLE: AtomicU32 = AtomicU32::new(0);
    let known = TABLE.load(Ordering::Relaxed);
    let table = if known == 0 { expect(Table::map())? } else { Table(Frame::at(known)) };
    TABLE.store(table.0.address(), Ordering::Relaxed);
    for reference in FIRST..FIRST + REFERENCES {
        table.clear(reference);
    }
    Ok(table)
}

/// References that the attacks use: the first behind those that are reserved, and how many.
pub const FIRST: u32 = 8;
pub const REFERENCES: u32 = 16;

/// Grants `frame` to this domain itself by reference FIRST + `index`.
pub fn lend(table: Table, index: u32, flags: u32, frame: Frame) {
    table.set(FIRST + index, PERMIT_ACCESS | flags, myself(), frame.gfn());
}

/// Maps a page of one's own by its grant; its handle.
pub fn borrow(reference: u32, at: Frame) -> Result<u32, Failure> {
    let mapping = map(reference, myself(), MAP_HOST, at);
    ensure_eq!(mapping.status, 0);
    Ok(mapping.handle)
}

/// Gives a mapping back, which leaves a hole.
pub fn give_back(handle: u32, at: Frame) -> Verdict {
    ensure_eq!(unmap(handle, at), 0);
    ensure!(load(at.address()).is_err());
    Ok(())
}

/// The page shared with the hypervisor, mapped once; all ports closed, two levels, nothing pending.
pub fn fresh() -> Result<(SharedInfo, VcpuInfo), Failure> {
    static SHARED: AtomicU32 = AtomicU32::new(0);
    let known = SHARED.load(Ordering::Relaxed);
    let shared = if known == 0 { expect(SharedInfo::map())? } else { SharedInfo(Frame::at(known)) };
    SHARED.store(shared.0.address(), Ordering::Relaxed);
    ensure_eq!(event::reset(DOMID_SELF), 0);
    shared.clear_all();
    let vcpu = VcpuInfo(shared.0.address());
    vcpu.take_upcall();
    vcpu.take_selector();
    Ok((shared, vcpu))
}

/// Numbers that the vCPUs of an attack share.
static CELLS: [AtomicU32; 16] = [const { AtomicU32::new(0) }; 16];

pub fn cell(index: usize) -> &'static AtomicU32 {
    &CELLS[index]
}

pub fn put(index: usize, value: u32) {
    CELLS[index].store(value, Ordering::SeqCst);
}

pub fn got(index: usize) -> u32 {
    CELLS[index].load(Ordering::SeqCst)
}

/// The frame whose address is in a cell.
pub fn frame(index: usize) -> Frame {
    Frame::at(got(index))
}

/// A vCPU's part in a race, run again and again; its argument is the number of the round.
pub type Step = fn(u32);

static STEPS: [AtomicUsize; MAX_CPUS] = [const { AtomicUsize::new(0) }; MAX_CPUS];
static ROUNDS: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(0) }; MAX_CPUS];
static ENOUGH: AtomicBool = AtomicBool::new(false);
static WRONG: AtomicU32 = AtomicU32::new(0);

/// Remembers that something that must not happen did; `what` is not 0.
pub fn wrong(what: u32) {
    WRONG.store(what, Ordering::SeqCst);
}

/// Remembers it unless the condition holds.
pub fn must(holds: bool, what: u32) {
    if !holds {
        wrong(what);
    }
}

fn step_of(cpu: usize) -> Step {
    // SAFETY: `race` stored a `Step` before it started this vCPU.
    unsafe { core::mem::transmute::<usize, Step>(STEPS[cpu].load(Ordering::SeqCst)) }
}

fn racer() {
    let cpu = cp15::cpu_index();
    let step = step_of(cpu);
    let mut n = 0;
    while !ENOUGH.load(Ordering::SeqCst) {
        step(n);
        n += 1;
        ROUNDS[cpu].store(n, Ordering::SeqCst);
    }
}

/// The emulator may have much else to do.
const PATIENCE_US: u64 = 60_000_000;

/// How long a race lasts, at least.
pub const SOME_US: u64 = 120_000;

/// Each step on a vCPU of its own, the first on this one, until the time is over and each was taken.
pub fn race(microseconds: u64, steps: &[Step]) -> Verdict {
    ensure!(steps.len() <= platform::get().cpus as usize);
    WRONG.store(0, Ordering::SeqCst);
    ENOUGH.store(false, Ordering::SeqCst);
    for (cpu, &step) in steps.iter().enumerate() {
        STEPS[cpu].store(step as usize, Ordering::SeqCst);
        ROUNDS[cpu].store(0, Ordering::SeqCst);
    }
    for cpu in 1..steps.len() {
        ensure_eq!(smp::start(cpu, racer), 0, cpu);
    }
    let end = clock::now() + clock::ticks(microseconds);
    let mut n = 0;
    while clock::now() < end {
        steps[0](n);
        n += 1;
    }
    let all_ran = clock::poll_for(PATIENCE_US, || {
        steps[0](n);
        (1..steps.len()).all(|cpu| ROUNDS[cpu].load(Ordering::SeqCst) > 0)
    });
    ENOUGH.store(true, Ordering::SeqCst);
    for cpu in 1..steps.len() {
        ensure!(clock::poll_for(PATIENCE_US, || smp::is_off(cpu)), cpu);
    }
    ensure!(all_ran);
    ensure_eq!(WRONG.load(Ordering::SeqCst), 0);
    Ok(())
}

/// The same step on all vCPUs.
pub fn crowd(microseconds: u64, step: Step) -> Verdict {
    let steps = [step; 4];
    race(microseconds, &steps[..(platform::get().cpus as usize).min(4)])
}

/// Bytes of a page's first half word by word: one number for them.
pub fn sum(frame: Frame) -> u32 {
    (0..PAGE_SIZE).step_by(4).fold(0, |sum: u32, offset| sum.rotate_left(1) ^ frame.read(offset))
}
