//! The same registers, seen from another domain on the same CPU: a puppet without an MMU, whose code is made from the list.
//!
//! The puppet reads each register, inverts the bits that keep what is written, reads all again, gives its turn
//! to this domain, again and again, and reads all once more.

use guests::abi::{self, DOM0};
use guests::domain::{self, Domain, MEMORY};
use guests::harness::{Failure, Verdict, expect};
use guests::memory::{Frame, PAGE_SIZE};
use guests::{ensure, ensure_eq};

use crate::Half::High;
use crate::Register::Wide;
use crate::{Code, Found, ISB, KNOWN, List, MOST, is_leak, list, print, with_all_inverted, yield_once};

// The puppet's memory, by pages. Code of a register is at most 11 instructions long.
pub const PAGES: u32 = 64;
pub const BITS: u32 = 32;
pub const VALUES: u32 = 40;
pub const STATE: u32 = 63;
/// Bytes for the puppet's tables.
const POOL: u32 = 1 << 20;
/// Shared interrupts of the puppet.
const SPIS: u32 = 32;
/// Turns that it gives away.
const TURNS: u32 = 50;
/// Turns that this domain gives away until the puppet must be through.
pub const PATIENCE: u32 = 1_000_000;

// Instructions of the puppet: r0 and r1 have the value, r2 the bits, r6 points to the values, r7 to the bits.
/// str r0, [r6], #4
pub const KEEP_LOW: u32 = 0xe486_0004;
/// str r1, [r6], #4
const KEEP_HIGH: u32 = 0xe486_1004;
/// ldr r2, [r7], #4
pub const TAKE_BITS: u32 = 0xe497_2004;
/// eor r0, r0, r2
pub const INVERT_LOW: u32 = 0xe020_0002;
/// eor r1, r1, r2
pub const INVERT_HIGH: u32 = 0xe021_1002;
/// SCHEDOP_yield: mov r0, #0; mov r12, #29; hvc #0xea1
pub const YIELD: [u32; 3] = [0xe3a0_0000, 0xe3a0_c01d, 0xe140_ea71];
/// str r6, [r8]
pub const SAY_DONE: u32 = 0xe588_6000;
/// To three instructions before.
const BRANCH_BACK: u32 = 0xeaff_fffb;

/// Memory of a domain, mapped here from `frame` on.
pub struct Puppet {
    pub domain: Domain,
    frame: Frame,
    /// Where its next instruction goes.
    end: u32,
}

impl Puppet {
    pub fn new() -> Result<Self, Failure> {
        let frame = Frame::take_aligned(PAGES);
        let domain = expect(Domain::create_with_spis(PAGES, POOL, SPIS))?;
        for page in 0..PAGES {
            let (gfn, at) = (MEMORY + u64::from(page), frame.nth(page));
            expect(domain.populate(gfn, 0))?;
            ensure_eq!(abi::reservation(abi::MEM_DECREASE_RESERVATION, &mut [at.gfn()], 0), 1);
            ensure_eq!(domain.map(gfn, at), 0);
        }
        Ok(Self { domain, frame, end: 0 })
    }

    pub fn put(&mut self, instructions: &[u32]) {
        Code(self.frame.address() + self.end).put(instructions);
        self.end += instructions.len() as u32 * 4;
    }

    /// MOVW and MOVT of a page's address.
    pub fn put_address(&mut self, register: u32, page: u32) {
        self.put_word(register, (MEMORY as u32 + page) * PAGE_SIZE);
    }

    /// MOVW and MOVT of a word.
    pub fn put_word(&mut self, register: u32, word: u32) {
        let halves = [(0xe300_0000, word & 0xffff), (0xe340_0000, word >> 16)];
        self.put(&halves.map(|(move_half, half)| move_half | half >> 12 << 16 | register << 12 | half & 0xfff));
    }

    pub fn put_reads(&mut self, list: &List) {
        for found in list.all() {
            self.put(&[found.register.read(0, 1), if is_high(found) { KEEP_HIGH } else { KEEP_LOW }]);
        }
    }

    fn put_code(&mut self, list: &List) -> Verdict {
        for (register, page) in [(6, VALUES), (7, BITS), (8, STATE)] {
            self.put_address(register, page);
        }
        self.put_reads(list);
        for (index, found) in list.all().enumerate() {
            self.word(BITS, index).write(found.bits);
            let (read, write) = (found.register.read(0, 1), found.register.write(0, 1));
            self.put(&[read, TAKE_BITS, if is_high(found) { INVERT_HIGH } else { INVERT_LOW }, write, ISB]);
        }
        self.put_reads(list);
        for _ in 0..TURNS {
            self.put(&YIELD);
        }
        self.put_reads(list);
        self.put(&[SAY_DONE]);
        self.put_loop();
        self.fits()
    }

    /// Gives its turns away for ever.
    pub fn put_loop(&mut self) {
        self.put(&YIELD);
        self.put(&[BRANCH_BACK]);
    }

    /// Checks that its code has not reached its data.
    pub fn fits(&self) -> Verdict {
        ensure!(self.end <= BITS * PAGE_SIZE, self.end);
        Ok(())
    }

    pub fn word(&self, page: u32, index: usize) -> Word {
        Word(self.frame.nth(page + index as u32 / 1024), index as u32 % 1024 * 4)
    }

    fn is_done(&self) -> bool {
        self.word(STATE, 0).read() != 0
    }

    pub fn end(&self) -> Verdict {
        for page in 0..PAGES {
            ensure_eq!(domain::unmap(self.frame.nth(page)), 0);
        }
        expect(self.domain.destroy())
    }
}

pub struct Word(Frame, u32);

impl Word {
    pub fn read(&self) -> u32 {
        self.0.read(self.1)
    }

    pub fn write(&self, value: u32) {
        self.0.write(self.1, value);
    }
}

pub fn is_high(found: &Found) -> bool {
    matches!(found.register, Wide(.., High))
}

pub fn a_register_belongs_to_its_domain() -> Verdict {
    let list = list()?;
    let mut puppet = Puppet::new()?;
    let verdict = look_from(&mut puppet, list);
    puppet.end()?;
    verdict
}

fn look_from(puppet: &mut Puppet, list: &List) -> Verdict {
    puppet.put_code(list)?;
    // On one CPU, each turn that is given away is a switch.
    expect(Domain(DOM0).pin(0, 0))?;
    expect(puppet.domain.pin(0, 0))?;
    let mut started = Ok(());
    let lost = with_all_inverted(list, || {
        started = puppet.domain.start((MEMORY * u64::from(PAGE_SIZE)) as u32);
        for _ in 0..PATIENCE {
            if puppet.is_done() {
                break;
            }
            yield_once();
        }
    });
    expect(started)?;
    ensure!(puppet.is_done());
    let (mut leaks, mut changes, mut changed) = (0, 0, 0);
    for (index, found) in list.all().enumerate() {
        let [first, inverted, last] = [0, 1, 2].map(|round| puppet.word(VALUES, round * list.count + index).read());
        if is_leak(index, found, first) {
            leaks += 1;
            print(found, "is not the domain's own");
        }
        changed += u32::from((first ^ inverted) & found.bits == found.bits);
        if (inverted ^ last) & found.bits != 0 {
            changes += 1;
            print(found, "did not stay as the other domain left it");
        }
    }
    ensure!(changed >= KNOWN.len() as u32, changed);
    ensure_eq!(leaks, 0);
    ensure_eq!(changes, 0);
    ensure_eq!(lost, 0);
    Ok(())
}

const _: () =
    assert!(STATE - VALUES >= 3 * MOST as u32 * 4 / PAGE_SIZE && VALUES - BITS >= MOST as u32 * 4 / PAGE_SIZE);
