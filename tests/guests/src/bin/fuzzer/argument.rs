//! Arguments by chance, which keep away from what this guest itself runs by.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use guests::abi::{DOM0, DOMID_ABSENT, DOMID_INVALID, DOMID_SELF};
use guests::grant::{self, Table};
use guests::memory::{self, Frame, PAGE_SIZE};
use guests::random::Random;
use guests::{console, platform};

/// Pages that steps do anything with, and as many behind them, which a block that begins in them may reach.
pub const VICTIMS: u32 = 512;
/// Pages of one vCPU: arguments, a list, and room behind them for answers that are longer than a page.
const ROOM: u32 = 64;
/// Before each place that must stay: answers begin before it and go on into it.
const MARGIN: u32 = 1 << 20;
/// Virtual addresses of the image and of the pages that it maps as it likes.
const IMAGE: u32 = 0xc000_0000;
const IMAGE_END: u32 = 0xc040_0000;
const IMAGE_SIZE: u32 = 2 << 20;

static VICTIM: AtomicU32 = AtomicU32::new(0);
static TABLE: AtomicU32 = AtomicU32::new(0);
static CONSOLE: AtomicU32 = AtomicU32::new(0);
static TRACES: AtomicBool = AtomicBool::new(false);

/// Memory that all vCPUs share.
pub struct Ground;

impl Ground {
    /// Takes it. What must stay is taken before.
    pub fn lay(traces: bool) -> Result<(), i32> {
        TABLE.store(Table::map()?.0.address(), Ordering::SeqCst);
        CONSOLE.store(console::hvm_parameter(17).map_or(0, |gfn| gfn as u32), Ordering::SeqCst);
        // Pages of all vCPUs, of which each takes its own.
        let rooms = Frame::take_aligned(ROOM * 8);
        ROOMS.store(rooms.address(), Ordering::SeqCst);
        VICTIM.store(Frame::take_aligned(2 * VICTIMS).address(), Ordering::SeqCst);
        TRACES.store(traces, Ordering::SeqCst);
        Ok(())
    }
}

static ROOMS: AtomicU32 = AtomicU32::new(0);

pub fn table() -> Table {
    Table(Frame::at(TABLE.load(Ordering::SeqCst)))
}

pub fn traces() -> bool {
    TRACES.load(Ordering::Relaxed)
}

fn victims() -> Frame {
    Frame::at(VICTIM.load(Ordering::Relaxed))
}

/// Pages of one vCPU.
#[derive(Clone, Copy)]
pub struct Room {
    /// Pointers of hypercalls lead here.
    pub argument: Frame,
    /// Pointers in arguments lead here.
    pub list: Frame,
    /// Calls within a call.
    pub calls: Frame,
}

impl Room {
    pub fn of(cpu: u32) -> Self {
        let first = Frame::at(ROOMS.load(Ordering::SeqCst)).nth(cpu * ROOM);
        Self { calls: first, argument: first.nth(1), list: first.nth(ROOM / 2) }
    }

    /// Fills argument and list.
    pub fn fill(self, random: &mut Random) {
        for word in 0..36 {
            self.argument.write(word * 4, self.value(random));
        }
        for word in 0..128 {
            // Frame numbers of 64 bits for the most part.
            let value = if word % 2 == 1 && random.below(8) > 0 { 0 } else { self.value(random) };
            self.list.write(word * 4, value);
        }
    }

    /// A word of an argument: a number that means something, or any.
    pub fn value(self, random: &mut Random) -> u32 {
        match random.below(32) {
            0..=7 => random.below(24),
            8 => harmless(1 << random.below(32), random),
            9 => u32::MAX - random.below(4),
            10 => 0,
            11 => DOMID_SELF.into(),
            12 => grant::myself().into(),
            13 => random.of(&[DOM0, 1, 2, 3, 0x7ff1, 0x7ff2, DOMID_INVALID, DOMID_ABSENT]).into(),
            14..=18 => victim(random).gfn() as u32,
            19 | 20 => victim(random).address(),
            21 | 22 => self.list.address(),
            23 => self.argument.address(),
            24 => empty_frame(random),
            25 => hole(random),
            26 => random.of(&[64, 512, 4096, 0x7fff_ffff, 0x8000_0000, 1 << 28, 0x0fff_ffff]),
            _ => harmless(random.word(), random),
        }
    }

    /// A hypercall's pointer.
    pub fn pointer(self, random: &mut Random) -> u32 {
        match random.below(24) {
            0 => hole(random),
            1 => victim(random).address() + random.below(PAGE_SIZE),
            2 => self.argument.address() + random.below(64),
            _ => self.argument.address(),
        }
    }
}

pub fn victim(random: &mut Random) -> Frame {
    victims().nth(random.below(VICTIMS))
}

/// An address of a device, of nothing, or of nothing that is mapped.
pub fn hole(random: &mut Random) -> u32 {
    let machine = platform::get();
    let address = random.of(&[
        machine.distributor,
        machine.cpu_interface,
        machine.cpu_interface + PAGE_SIZE,
        memory::UNMAPPED,
        0,
        0x0900_0000,
        0x0a00_0000,
        0xbfff_f000,
        0xe000_0000,
        0xffff_f000,
        u32::MAX,
    ]);
    address.wrapping_add(random.of(&[0, 0, 4, 0xff8]))
}

/// A frame of what [`hole`] returns, but not the distributor's: with a page there this guest is without it.
fn empty_frame(random: &mut Random) -> u32 {
    let frame = hole(random) >> 12;
    if frame == platform::get().distributor >> 12 { 0 } else { frame }
}

/// The number, or a victim's where the number is an address or a frame of what this guest runs by.
fn harmless(number: u32, random: &mut Random) -> u32 {
    if is_needed(number) || is_needed(number << 12) { victim(random).gfn() as u32 } else { number }
}

/// Returns whether something may be lost by a write at this address, be it virtual or guest-physical.
fn is_needed(address: u32) -> bool {
    let console = CONSOLE.load(Ordering::Relaxed) << 12;
    let image = memory::physical(IMAGE);
    let ram = platform::get().ram_base;
    let places =
        [(IMAGE, IMAGE_END), (image, image + IMAGE_SIZE), (ram, victims().address()), (console, console + PAGE_SIZE)];
    places.iter().any(|&(start, end)| start.saturating_sub(MARGIN) <= address && address < end)
}
