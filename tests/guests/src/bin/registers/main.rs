//! State that no list has: every coprocessor register that keeps what is written to it belongs to its vCPU.
//!
//! The guest tries every encoding of coprocessors 14 and 15, notes those that read back what was written, and sees whether
//! they are its own when another vCPU has its turn on the same CPU, or another domain's ([`another_domain`]), or its domain is saved ([`saved`]). It knows no
//! register by name but those that it cannot change as it runs ([`CAREFUL`]). And for each trap that the hypervisor arms,
//! something says that it is armed ([`armed`]).
#![no_std]
#![no_main]

mod another_domain;
mod armed;
mod saved;

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, Ordering};

use guests::abi::{self, DOM0};
use guests::domain::Domain;
use guests::exception::{Probe, catch};
use guests::harness::{Failure, Verdict, expect};
use guests::hypercall::{self, call};
use guests::memory::{Frame, PAGE_SIZE};
use guests::{cp15, ensure, ensure_eq, println, smp, suite};

suite! { "registers":
    every_register_that_keeps_a_value_is_found,
    a_register_belongs_to_its_vcpu,
    another_domain::a_register_belongs_to_its_domain,
    saved::a_register_outlives_a_save,
    fcseidr_moves_nothing_of_the_hypervisor_s,
    armed::each_armed_trap_is_armed,
    armed::a_vcpu_in_wfi_is_blocked,
}

/// A register, by how it is reached.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Register {
    /// By MRC and MCR: coprocessor, opc1, CRn, CRm, opc2.
    Narrow(u32, u32, u32, u32, u32),
    /// By MRRC and MCRR: coprocessor, opc1, CRm; this half of it.
    Wide(u32, u32, u32, Half),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    Low,
    High,
}

use Half::{High, Low};
use Register::{Narrow, Wide};

/// Registers of which only some bits can be changed while this guest runs, and why.
const CAREFUL: [(Register, u32, &str); 22] = [
    (Narrow(15, 0, 1, 0, 0), 1 << 10, "SCTLR: SW only, the rest is the regime that this runs in"),
    (Narrow(15, 0, 2, 0, 0), 0, "TTBR0: where the tables are; the wide form has an ASID"),
    (Wide(15, 0, 2, Low), 0, "TTBR0: where the tables are"),
    (Wide(15, 0, 2, High), 0x00ff_0000, "TTBR0: the ASID only"),
    (Narrow(15, 0, 2, 0, 1), 0, "TTBR1: the wide form has it"),
    (Narrow(15, 0, 2, 0, 2), 0x3f00_0000, "TTBCR: what is said of TTBR1's walks, which are off"),
    (Narrow(15, 0, 7, 4, 0), 0, "PAR: the wide form has it"),
    (Narrow(15, 0, 10, 2, 0), 0xff00_0000, "MAIR0: the index that no mapping has"),
    (Narrow(15, 0, 12, 0, 0), !0x1f, "VBAR: all of it, as nothing is taken meanwhile"),
    (Narrow(15, 0, 14, 2, 0), 0, "CNTP_TVAL: CNTP_CVAL, seen from a counter that goes on"),
    (Narrow(15, 0, 14, 2, 1), 1 << 1, "CNTP_CTL: IMASK only, the timer stays off"),
    (Narrow(15, 0, 14, 3, 0), 0, "CNTV_TVAL: CNTV_CVAL, seen from a counter that goes on"),
    (Narrow(15, 0, 14, 3, 1), 1 << 1, "CNTV_CTL: IMASK only, the timer stays off"),
    (Wide(15, 0, 14, Low), 0, "CNTPCT: counts"),
    (Wide(15, 0, 14, High), 0, "CNTPCT: counts"),
    (Wide(15, 1, 14, Low), 0, "CNTVCT: counts"),
    (Wide(15, 1, 14, High), 0, "CNTVCT: counts"),
    // Operations, should they read as something: their effect is not kept, and not undone either.
    (Narrow(15, 0, 7, 8, 0), 0, "ATS1CPR: writes PAR"),
    (Narrow(15, 0, 7, 8, 1), 0, "ATS1CPW: writes PAR"),
    (Narrow(15, 0, 7, 8, 2), 0, "ATS1CUR: writes PAR"),
    (Narrow(15, 0, 7, 8, 3), 0, "ATS1CUW: writes PAR"),
    (Narrow(15, 0, 7, 0, 4), 0, "the wait for interrupts of older architectures"),
];

/// Registers that must be among those that are found, so that the search is one: in the order of the search.
const KNOWN: [(Register, &str); 13] = [
    (Narrow(14, 6, 0, 0, 0), "TEECR"),
    (Narrow(14, 6, 1, 0, 0), "TEEHBR"),
    (Narrow(15, 0, 3, 0, 0), "DACR"),
    (Narrow(15, 0, 5, 0, 0), "DFSR"),
    (Narrow(15, 0, 6, 0, 0), "DFAR"),
    (Narrow(15, 0, 12, 0, 0), "VBAR"),
    (Narrow(15, 0, 13, 0, 1), "CONTEXTIDR"),
    (Narrow(15, 0, 13, 0, 2), "TPIDRURW"),
    (Narrow(15, 0, 14, 1, 0), "CNTKCTL"),
    (Narrow(15, 2, 0, 0, 0), "CSSELR"),
    (Wide(15, 1, 2, Low), "TTBR1"),
    (Wide(15, 2, 14, Low), "CNTP_CVAL"),
    (Wide(15, 3, 14, Low), "CNTV_CVAL"),
];

impl Register {
    fn wide(coprocessor: u32, opc1: u32, crm: u32) -> [Self; 2] {
        [Low, High].map(|half| Wide(coprocessor, opc1, crm, half))
    }

    /// MRC or MRRC into r`to` (and r`to2`).
    const fn read(self, to: u32, to2: u32) -> u32 {
        match self {
            Narrow(..) => self.encoding() | 1 << 20 | to << 12,
            Wide(..) => self.encoding() | 1 << 20 | to << 12 | to2 << 16,
        }
    }

    /// MCR or MCRR from r`from` (and r`from2`).
    fn write(self, from: u32, from2: u32) -> u32 {
        match self {
            Narrow(..) => self.encoding() | from << 12,
            Wide(..) => self.encoding() | from << 12 | from2 << 16,
        }
    }

    const fn encoding(self) -> u32 {
        match self {
            Narrow(p, opc1, crn, crm, opc2) => 0xee00_0010 | opc1 << 21 | crn << 16 | p << 8 | opc2 << 5 | crm,
            Wide(p, opc1, crm, _) => 0xec40_0000 | p << 8 | opc1 << 4 | crm,
        }
    }

    /// Which bits may be changed.
    fn changeable(self) -> u32 {
        CAREFUL.iter().find(|(careful, ..)| *careful == self).map_or(!0, |(_, bits, _)| *bits)
    }
}

// Instructions, with r0 and r1 as arguments and r0 as the answer.
const RETURN: u32 = 0xe12f_ff1e; // bx lr
const ISB: u32 = 0xf57f_f06f;
/// eor r12, r2, r0
const CHANGE_LOW: u32 = 0xe022_c000;
/// eor r1, r3, r1
const CHANGE_HIGH: u32 = 0xe023_1001;
/// eor r0, r12, r2
const DIFFERENCE_LOW: u32 = 0xe02c_0002;
/// eor r0, r1, r3
const DIFFERENCE_HIGH: u32 = 0xe021_0003;
/// mov r0, r1
const TAKE_HIGH: u32 = 0xe1a0_0001;

/// A piece of memory that is filled with code.
#[derive(Clone, Copy)]
struct Code(u32);

impl Code {
    /// Puts instructions there, so that they can be fetched.
    fn put(self, instructions: &[u32]) -> Probe {
        for (index, instruction) in instructions.iter().enumerate() {
            let at = self.0 + index as u32 * 4;
            // SAFETY: a frame of this guest's own.
            unsafe { (at as *mut u32).write_volatile(*instruction) };
            cp15::clean_and_invalidate(at);
        }
        // SAFETY: ICIALLU and BPIALL: forgets what was fetched before.
        unsafe {
            core::arch::asm!("mcr p15, 0, {0}, c7, c5, 0", "mcr p15, 0, {0}, c7, c5, 6", "dsb", "isb", in(reg) 0)
        };
        // SAFETY: the instructions are a function: arguments in r0 and r1, the answer in r0.
        unsafe { core::mem::transmute::<usize, Probe>(self.0 as usize) }
    }
}

/// A register that keeps what is written to it.
#[derive(Clone, Copy)]
struct Found {
    register: Register,
    /// The bits that do.
    bits: u32,
    reads: Probe,
    writes: Probe,
}

impl Found {
    fn read(&self) -> u32 {
        // SAFETY: a read of a register that has been read before.
        unsafe { (self.reads)(0, 0) }
    }

    /// Writes the value, of which only the bits that it keeps differ from what is there.
    fn write(&self, value: u32) {
        // SAFETY: as when it was found.
        unsafe { (self.writes)(value, 0) };
    }
}

const MOST: usize = 2048;
/// Bytes for the code that reads and writes a register.
const SIZE: u32 = 128;

struct List {
    found: [Option<Found>; MOST],
    count: usize,
}

impl List {
    fn all(&self) -> impl Iterator<Item = &Found> {
        self.found.iter().take(self.count).flatten()
    }
}

/// Every encoding.
fn encodings() -> impl Iterator<Item = Register> {
    let narrow = (0..1_u32 << 14).flat_map(|n| [14, 15].map(|p| Narrow(p, n >> 11, n >> 7 & 15, n >> 3 & 15, n & 7)));
    let wide = (0..1_u32 << 8).flat_map(|n| [14, 15].map(|p| Register::wide(p, n >> 4, n & 15))).flatten();
    narrow.chain(wide)
}

/// Which bits of a register keep what is written to them; none when it cannot be read or written.
fn kept_bits(code: Code, register: Register) -> u32 {
    let bits = register.changeable();
    // First: can it be read? Most cannot, and an operation must not be tried that only writes.
    if bits == 0 || catch(code.put(&[register.read(2, 3), RETURN]), 0, 0).is_err() {
        return 0;
    }
    let (read, restore) = (register.read(2, 3), register.write(2, 3));
    let kept = match register {
        Narrow(..) => {
            let (write, again) = (register.write(12, 0), register.read(12, 0));
            let code = code.put(&[read, CHANGE_LOW, write, ISB, again, restore, ISB, DIFFERENCE_LOW, RETURN]);
            catch(code, bits, 0)
        }
        Wide(_, _, _, half) => {
            let (write, again) = (register.write(12, 1), register.read(12, 1));
            let (difference, low, high) = match half {
                Low => (DIFFERENCE_LOW, bits, 0),
                High => (DIFFERENCE_HIGH, 0, bits),
            };
            let code = code.put(&[read, CHANGE_LOW, CHANGE_HIGH, write, ISB, again, restore, ISB, difference, RETURN]);
            catch(code, low, high)
        }
    };
    kept.unwrap_or(0) & bits
}

struct Shared(UnsafeCell<List>);

// SAFETY: the first vCPU fills it while it is alone; from then on it is only read.
unsafe impl Sync for Shared {}

static LIST: Shared = Shared(UnsafeCell::new(List { found: [None; MOST], count: 0 }));

/// The registers that keep a value; the first who asks tries every encoding.
fn list() -> Result<&'static List, Failure> {
    // SAFETY: see `Shared`.
    if unsafe { (*LIST.0.get()).count } == 0 {
        // SAFETY: as above; nobody has a reference yet.
        search(unsafe { &mut *LIST.0.get() })?;
    }
    // SAFETY: as above.
    Ok(unsafe { &*LIST.0.get() })
}

fn search(list: &mut List) -> Verdict {
    let scratch = Code(Frame::take().address());
    let functions = Frame::take_aligned(MOST as u32 * SIZE / PAGE_SIZE);
    for register in encodings() {
        let bits = kept_bits(scratch, register);
        if bits == 0 {
            continue;
        }
        ensure!(list.count < MOST);
        let code = Code(functions.address() + list.count as u32 * SIZE);
        let read = match register {
            Wide(_, _, _, High) => [register.read(0, 1), TAKE_HIGH, RETURN],
            _ => [register.read(0, 1), RETURN, RETURN],
        };
        let reads = code.put(&read);
        let write = match register {
            Narrow(..) => [register.write(0, 0), ISB, RETURN, RETURN],
            Wide(_, _, _, Low) => [register.read(2, 3), register.write(0, 3), ISB, RETURN],
            Wide(_, _, _, High) => [register.read(2, 3), register.write(2, 0), ISB, RETURN],
        };
        let writes = Code(code.0 + 64).put(&write);
        list.found[list.count] = Some(Found { register, bits, reads, writes });
        list.count += 1;
    }
    Ok(())
}

fn print(found: &Found, what: &str) {
    let bits = found.bits;
    match found.register {
        Narrow(p, opc1, crn, crm, opc2) => println!("# p{p}, {opc1}, c{crn}, c{crm}, {opc2} ({bits:08x}) {what}"),
        Wide(p, opc1, crm, half) => {
            let half = if half == Low { "low" } else { "high" };
            println!("# p{p}, {opc1}, c{crm}, {half} half ({bits:08x}) {what}");
        }
    }
}

fn every_register_that_keeps_a_value_is_found() -> Verdict {
    let list = list()?;
    let mut before = (0, 0);
    for found in list.all() {
        let group = match found.register {
            Narrow(_, opc1, crn, ..) => (opc1, crn),
            Wide(..) => (0, 0),
        };
        // The emulator takes the whole of c3 for DACR.
        if group.1 != 3 || group != before {
            print(found, "keeps what is written");
        }
        before = group;
    }
    for (index, (register, _)) in KNOWN.iter().enumerate() {
        ensure!(list.all().any(|found| found.register == *register), index);
    }
    Ok(())
}

/// How this vCPU's registers read before it changes them.
static BEFORE: [AtomicU32; MOST] = [const { AtomicU32::new(0) }; MOST];
/// The values that each of the two vCPUs wants to find again.
static WANTED: [[AtomicU32; MOST]; 2] = [const { [const { AtomicU32::new(0) }; MOST] }; 2];
/// In which registers the other vCPU found what the first had written.
static LEAKS: [AtomicU32; MOST] = [const { AtomicU32::new(0) }; MOST];
/// One more than the index of a register that did not stay as the other vCPU had it.
static CHANGES: AtomicU32 = AtomicU32::new(0);

fn yield_often() {
    for _ in 0..100 {
        yield_once();
    }
}

fn yield_once() {
    call(hypercall::SCHED_OP, [abi::SCHEDOP_YIELD, 0, 0, 0, 0]);
}

/// Inverts every bit that keeps what is written while something happens that needs nothing but hypercalls: even the vectors
/// are elsewhere. Returns one more than the index of a register that was not as it had been left; 0 for none.
fn with_all_inverted(list: &List, meanwhile: impl FnOnce()) -> usize {
    for (index, found) in list.all().enumerate() {
        BEFORE[index].store(found.read(), Ordering::SeqCst);
    }
    // One after the other, as some are seen in more than one place.
    for (index, found) in list.all().enumerate() {
        found.write(BEFORE[index].load(Ordering::SeqCst) ^ found.bits);
    }
    for (index, found) in list.all().enumerate() {
        WANTED[0][index].store(found.read(), Ordering::SeqCst);
    }
    meanwhile();
    let mut lost = 0;
    for (index, found) in list.all().enumerate() {
        if (found.read() ^ WANTED[0][index].load(Ordering::SeqCst)) & found.bits != 0 {
            lost = index + 1;
        }
    }
    for (index, found) in list.all().enumerate() {
        found.write(BEFORE[index].load(Ordering::SeqCst));
    }
    lost
}

/// Returns whether a value seen elsewhere is what this vCPU had in the register: each bit that it inverted.
fn is_leak(index: usize, found: &Found, seen: u32) -> bool {
    (seen ^ BEFORE[index].load(Ordering::SeqCst)) & found.bits == found.bits
}

fn look_from_another_vcpu() {
    let Ok(list) = list() else { return };
    for (index, found) in list.all().enumerate() {
        let value = found.read();
        WANTED[1][index].store(value, Ordering::SeqCst);
        LEAKS[index].store(is_leak(index, found, value).into(), Ordering::SeqCst);
    }
    yield_often();
    for (index, found) in list.all().enumerate() {
        if (found.read() ^ WANTED[1][index].load(Ordering::SeqCst)) & found.bits != 0 {
            CHANGES.store(index as u32 + 1, Ordering::SeqCst);
        }
    }
}

fn a_register_belongs_to_its_vcpu() -> Verdict {
    let list = list()?;
    // On one CPU, each yield is a switch.
    for vcpu in 0..2 {
        expect(Domain(DOM0).pin(vcpu, 0))?;
    }
    let mut started = 0;
    let lost = with_all_inverted(list, || {
        started = smp::start(1, look_from_another_vcpu);
        yield_often();
    });
    ensure_eq!(started, 0);
    ensure!(smp::goes_off(1));
    for (index, found) in list.all().enumerate() {
        ensure_eq!(found.read() & found.bits, BEFORE[index].load(Ordering::SeqCst) & found.bits, index);
    }
    let mut leaks = 0;
    for (index, found) in list.all().enumerate() {
        if LEAKS[index].load(Ordering::SeqCst) != 0 {
            leaks += 1;
            print(found, "is not the vCPU's own");
        }
    }
    ensure_eq!(leaks, 0);
    ensure_eq!(lost, 0);
    ensure_eq!(CHANGES.load(Ordering::SeqCst), 0);
    Ok(())
}

fn fcseidr_moves_nothing_of_the_hypervisor_s() -> Verdict {
    let frame = Frame::take();
    // All this is above 32 MiB; whatever the hypervisor has must be too.
    cp15::write_fcseidr(0x1000_0000);
    let mut kept = true;
    for _ in 0..10 {
        kept &= abi::reservation(abi::MEM_DECREASE_RESERVATION, &mut [frame.gfn()], 0) == 1;
        kept &= abi::reservation(abi::MEM_POPULATE_PHYSMAP, &mut [frame.gfn()], 0) == 1;
    }
    cp15::write_fcseidr(0);
    ensure!(kept);
    Ok(())
}
