//! Shared by the attacks: code made at run time, holes, random numbers, and vCPUs that race.

use core::arch::global_asm;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use guests::abi::{self, DOMID_SELF};
use guests::event::{self, SharedInfo, VcpuInfo};
use guests::exception::{Fault, Kind, Probe, catch};
use guests::grant::{MAP_HOST, PERMIT_ACCESS, Table, map, myself, unmap};
use guests::harness::{Failure, Verdict, expect};
use guests::memory::{Frame, PAGE_SIZE};
use guests::smp::{self, MAX_CPUS};
use guests::{clock, cp15, ensure, ensure_eq, gic, platform};

global_asm!(
    ".arm",
    ".global hostile_load, hostile_store",
    "hostile_load: ldr r0, [r0]",
    "bx lr",
    "hostile_store: str r1, [r0]",
    "bx lr",
);

unsafe extern "C" {
    fn hostile_load(address: u32, unused: u32) -> u32;
    fn hostile_store(address: u32, value: u32) -> u32;
}

/// Reads a word, if that does not fault.
pub fn load(address: u32) -> Result<u32, Fault> {
    catch(hostile_load, address, 0)
}

/// Writes a word, if that does not fault.
pub fn store(address: u32, value: u32) -> Result<u32, Fault> {
    catch(hostile_store, address, value)
}

/// Instructions that the attacks put together.
pub mod code {
    /// `bx lr`.
    pub const RETURN: u32 = 0xe12f_ff1e;
    /// `cps #0x10`: to user mode.
    pub const TO_USER: u32 = 0xf102_0010;
    /// `svc #0`: back to who caught it.
    pub const SUPERVISOR_CALL: u32 = 0xef00_0000;

    pub const fn hvc(immediate: u32) -> u32 {
        0xe140_0070 | (immediate & 0xfff0) << 4 | immediate & 0xf
    }

    pub const fn smc(immediate: u32) -> u32 {
        0xe160_0070 | immediate & 0xf
    }

    /// `mrc` (or `mcr`) of r0.
    pub const fn register(read: bool, cp: u32, op1: u32, crn: u32, crm: u32, op2: u32) -> u32 {
        0xee00_0010 | (read as u32) << 20 | op1 << 21 | crn << 16 | cp << 8 | op2 << 5 | crm
    }

    /// `mrrc` (or `mcrr`) of r0 and r1.
    pub const fn pair(read: bool, cp: u32, op1: u32, crm: u32) -> u32 {
        0xec41_0000 | (read as u32) << 20 | cp << 8 | op1 << 4 | crm
    }
}

/// A page that code is written into.
#[derive(Clone, Copy)]
pub struct Code(Frame);

impl Code {
    /// The page of this vCPU.
    pub fn page() -> Self {
        static PAGES: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(0) }; MAX_CPUS];
        let page = &PAGES[cp15::cpu_index()];
        if page.load(Ordering::Relaxed) == 0 {
            page.store(Frame::take().address(), Ordering::Relaxed);
        }
        Code(Frame::at(page.load(Ordering::Relaxed)))
    }

    fn write(self, words: &[u32]) {
        for (index, &word) in words.iter().enumerate() {
            self.0.write(index as u32 * 4, word);
        }
        for line in (0..words.len() as u32 * 4).step_by(64) {
            cp15::clean_and_invalidate(self.0.address() + line);
        }
        invalidate_instructions();
    }

    /// Runs the words as a function of r0 and r1.
    pub fn run(self, words: &[u32], a: u32, b: u32) -> Result<u32, Fault> {
        let mut all = [code::RETURN; 16];
        all[..words.len()].copy_from_slice(words);
        self.write(&all[..words.len() + 1]);
        self.enter(a, b)
    }

    /// Runs the words in user mode. What came of it: the fault, or the SVC behind them.
    pub fn run_in_user_mode(self, words: &[u32], a: u32, b: u32) -> Option<Fault> {
        let mut all = [code::SUPERVISOR_CALL; 16];
        all[0] = code::TO_USER;
        all[1..=words.len()].copy_from_slice(words);
        self.write(&all[..words.len() + 2]);
        self.enter(a, b).err().filter(|fault| fault.kind != Kind::SupervisorCall)
    }

    fn enter(self, a: u32, b: u32) -> Result<u32, Fault> {
        // SAFETY: the page holds instructions that end in a return, an exception, or another vCPU's reset of this one.
        let probe: Probe = unsafe { core::mem::transmute(self.0.pointer::<u8>()) };
        catch(probe, a, b)
    }
}

fn invalidate_instructions() {
    // SAFETY: forgets cached instructions and predictions.
    unsafe {
        core::arch::asm!("dsb", "mcr p15, 0, {0}, c7, c5, 0", "dsb", "isb", in(reg) 0, options(nostack, preserves_flags))
    };
}

/// A fault, and of this kind.
pub fn is<T>(result: Result<T, Fault>, kind: Kind) -> bool {
    matches!(result, Err(fault) if fault.kind == kind)
}

/// Numbers by chance, the same ones in each run (xorshift).
pub struct Random(u32);

impl Random {
    pub fn new(seed: u32) -> Self {
        let given = platform::get().arguments("seed").find_map(|text| text.parse::<u32>().ok()).unwrap_or(0);
        Random((seed ^ given.wrapping_mul(0x9e37_79b9)).max(1))
    }

    pub fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }

    pub fn below(&mut self, limit: u32) -> u32 {
        self.next() % limit
    }

    pub fn of<T: Copy>(&mut self, some: &[T]) -> T {
        some[self.below(some.len() as u32) as usize]
    }
}

/// A number by chance from a number in a row.
pub fn mix(n: u32) -> u32 {
    let x = (n ^ n >> 16).wrapping_mul(0x85eb_ca6b);
    (x ^ x >> 13).wrapping_mul(0xc2b2_ae35) ^ x >> 16
}

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

/// Nothing pending, nothing active, the distributor and this vCPU's interface as they were at first.
pub fn quiet() {
    gic::enable_distributor();
    for word in 0..4 {
        guests::mmio::write32(gic::distributor(gic::CPENDSGIR + word * 4), u32::MAX);
    }
    guests::mmio::write32(gic::distributor(gic::ICENABLER), 0xffff_0000);
    guests::mmio::write32(gic::distributor(gic::ICPENDR), 0xffff_0000);
    guests::mmio::write32(gic::distributor(gic::ICACTIVER), u32::MAX);
    gic::enable_cpu_interface();
    for _ in 0..64 {
        let value = gic::acknowledge();
        if value & gic::INTID_MASK == gic::SPURIOUS {
            break;
        }
        gic::end(value);
    }
}

/// Bytes of a page's first half word by word: one number for them.
pub fn sum(frame: Frame) -> u32 {
    (0..PAGE_SIZE).step_by(4).fold(0, |sum: u32, offset| sum.rotate_left(1) ^ frame.read(offset))
}
