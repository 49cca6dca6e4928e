//! The same registers, and all others of a vCPU, in a domain that is saved while it runs and goes on as another domain.
//!
//! A puppet loads the general registers, those of other modes, VFP and the interrupt controller with values of their own, inverts
//! every coprocessor register that keeps what is written, reads all, and waits for a word in its memory. Its memory and its
//! saved state make a second puppet, which finds the word, reads all again, and says so.

use guests::abi::DOM0;
use guests::domain::{Domain, MEMORY};
use guests::harness::{Verdict, expect};
use guests::memory::{Frame, PAGE_SIZE};
use guests::{ensure, ensure_eq};

use crate::Register::Wide;
use crate::another_domain::{
    BITS, INVERT_HIGH, INVERT_LOW, KEEP_LOW, PAGES, PATIENCE, Puppet, SAY_DONE, STATE, TAKE_BITS, VALUES, YIELD,
    is_high,
};
use crate::{ISB, List, list, print, yield_once};

/// The page with the values that are loaded.
const INPUT: u32 = 56;
/// Words of the state page: the puppet waits; it may go on; it is through.
const WAITS: usize = 0;
const GO_ON: usize = 1;
const DONE: usize = 2;

// Instructions of the puppet, beside those of the others: r6 points to values, r8 to the state.
/// ldr r0, [r6], #4
const TAKE: u32 = 0xe496_0004;
/// vldmia r6!, {d0-d15} and {d16-d31}
const TAKE_VFP: [u32; 2] = [0xecb6_0b20, 0xecf6_0b20];
/// vstmia r6!, {d0-d15} and {d16-d31}
const KEEP_VFP: [u32; 2] = [0xeca6_0b20, 0xece6_0b20];
/// ldmia r6!, {r4, r5, r9, r10, r11, r13, r14}
const TAKE_GENERAL: u32 = 0xe8b6_6e30;
/// stmia r6!, {r4, r5, r9, r10, r11, r13, r14}
const KEEP_GENERAL: u32 = 0xe8a6_6e30;
const GENERAL: usize = 7;
/// VFP on: mov r0, #0xf00000; mcr p15, 0, r0, c1, c0, 2; isb; mov r0, #0x40000000; vmsr fpexc, r0
const VFP_ON: [u32; 5] = [0xe3a0_060f, 0xee01_0f50, ISB, 0xe3a0_0101, 0xeee8_0a10];
/// vmsr fpscr, r0
const TAKE_FPSCR: u32 = 0xeee1_0a10;
/// vmrs r0, fpscr
const READ_FPSCR: u32 = 0xeef1_0a10;
/// ldr r0, [r8, #4]; cmp r0, #0; beq to six instructions before
const UNTIL_IT_MAY: [u32; 3] = [0xe598_0004, 0xe350_0000, 0x0aff_fff9];
/// str r6, [r8, #8]
const SAY_THROUGH: u32 = 0xe588_6008;
/// MRRC p15, 1, r0, r1, c14: CNTVCT
const READ_COUNTER: u32 = 0xec51_0f1e;
/// str r1, [r6], #4
const KEEP_R1: u32 = 0xe486_1004;
/// str r0, [r2]
const WRITE_R2: u32 = 0xe582_0000;
/// ldr r0, [r2]
const READ_R2: u32 = 0xe592_0000;

/// Registers of other modes, by MSR (banked register) and MSR SPSR, with the bits that they keep: a PSR's are those of flags and
/// of a mode that a guest has.
#[rustfmt::skip]
const BANKED: [(u32, u32, u32); 20] = [
    // SP_usr; r8 to r12, SP and LR of FIQ, and SPSR.
    (0xe125_f200, 0xe105_0200, !0),
    (0xe128_f200, 0xe108_0200, !0), (0xe129_f200, 0xe109_0200, !0), (0xe12a_f200, 0xe10a_0200, !0),
    (0xe12b_f200, 0xe10b_0200, !0), (0xe12c_f200, 0xe10c_0200, !0), (0xe12d_f200, 0xe10d_0200, !0),
    (0xe12e_f200, 0xe10e_0200, !0), (0xe16e_f200, 0xe14e_0200, PSR),
    // LR, SP and SPSR of IRQ, abort and undefined.
    (0xe120_f300, 0xe100_0300, !0), (0xe121_f300, 0xe101_0300, !0), (0xe160_f300, 0xe140_0300, PSR),
    (0xe124_f300, 0xe104_0300, !0), (0xe125_f300, 0xe105_0300, !0), (0xe164_f300, 0xe144_0300, PSR),
    (0xe126_f300, 0xe106_0300, !0), (0xe127_f300, 0xe107_0300, !0), (0xe166_f300, 0xe146_0300, PSR),
    // LR_usr, and SPSR_svc, the mode's own.
    (0xe126_f200, 0xe106_0200, !0), (0xe16f_f000, 0xe14f_0000, PSR),
];
/// N, Z, C, V, Q and GE: any value of them is one of a PSR.
const PSR: u32 = 0xf80f_0000;
/// The mode that the SPSRs name: system.
const MODE: u32 = 0x1f;

/// Distributor and CPU interface of a domU (abi.md 6.1).
const GICD: u32 = 0x0300_1000;
const GICC: u32 = 0x0300_2000;
/// Words that are written: CTLR last, so that nothing is signalled before.
#[rustfmt::skip]
const GIC_WRITES: [(u32, u32); 15] = [
    (GICD + 0x100, 1 << 31 | 1 << 18), (GICD + 0x104, 0x1234_5678),
    (GICD + 0x204, 0x00f0_0f01), (GICD + 0x304, 0x0000_0f0f),
    (GICD + 0x400, 0x1020_3040), (GICD + 0x41c, 0x5060_7080), (GICD + 0x420, 0x90a0_b0c0), (GICD + 0x43c, 0xd0e0_0810),
    (GICD + 0x820, 0x0101_0101), (GICD + 0xc08, 0xaaaa_0000), (GICD + 0xc0c, 0x0000_aaaa),
    (GICD + 0xf20, 0x0001_0100),
    (GICC + 0x4, 0xf0), (GICC + 0x8, 3), (GICC, 1),
];
#[rustfmt::skip]
const GIC_READS: [u32; 19] = [
    GICD, GICD + 0x100, GICD + 0x104, GICD + 0x200, GICD + 0x204, GICD + 0x300, GICD + 0x304, GICD + 0x400, GICD + 0x41c,
    GICD + 0x420, GICD + 0x43c, GICD + 0x820, GICD + 0xc04, GICD + 0xc08, GICD + 0xc0c, GICD + 0xf20, GICC, GICC + 4, GICC + 8,
];
/// Words that are loaded: VFP, FPSCR, general registers, others.
const VFP: usize = 64;
const LOADED: usize = VFP + 1 + GENERAL + BANKED.len();
/// Words of the interrupt controller that must not be 0, or nothing was there to lose.
const FULL: usize = 14;

/// Returns the value that word `index` of the input has.
fn loaded(index: usize) -> u32 {
    let value = (index as u32 + 1).wrapping_mul(0x0101_4d4d);
    match index.checked_sub(VFP + 1 + GENERAL) {
        _ if index == VFP => 0xf0c0_0000,
        Some(n) if BANKED[n].2 == PSR => value & PSR | MODE,
        _ => value,
    }
}

impl Puppet {
    fn put_all_reads(&mut self, list: &List) {
        self.put_reads(list);
        for address in GIC_READS {
            self.put_word(2, address);
            self.put(&[READ_R2, KEEP_LOW]);
        }
        self.put(&[READ_COUNTER, KEEP_LOW, KEEP_R1]);
    }

    fn put_saved_code(&mut self, list: &List) -> Verdict {
        self.put_address(6, INPUT);
        self.put(&VFP_ON);
        self.put(&TAKE_VFP);
        self.put(&[TAKE, TAKE_FPSCR, TAKE_GENERAL]);
        for (write, ..) in BANKED {
            self.put(&[TAKE, write]);
        }
        for (address, value) in GIC_WRITES.into_iter().chain([(GICD, 1)]) {
            self.put_word(2, address);
            self.put_word(0, value);
            self.put(&[WRITE_R2]);
        }
        for (register, page) in [(6, VALUES), (7, BITS), (8, STATE)] {
            self.put_address(register, page);
        }
        for (index, found) in list.all().enumerate() {
            self.word(BITS, index).write(found.bits);
            let (read, write) = (found.register.read(0, 1), found.register.write(0, 1));
            self.put(&[read, TAKE_BITS, if is_high(found) { INVERT_HIGH } else { INVERT_LOW }, write, ISB]);
        }
        self.put_all_reads(list);
        self.put(&[SAY_DONE]);
        self.put(&YIELD);
        self.put(&UNTIL_IT_MAY);
        self.put(&[KEEP_GENERAL]);
        self.put_all_reads(list);
        self.put(&VFP_ON);
        self.put(&KEEP_VFP);
        self.put(&[READ_FPSCR, KEEP_LOW]);
        for (_, read, _) in BANKED {
            self.put(&[read, KEEP_LOW]);
        }
        self.put(&[SAY_THROUGH]);
        self.put_loop();
        self.fits()
    }

    /// Waits until it has written a word of its state.
    fn says(&self, index: usize) -> bool {
        (0..PATIENCE).any(|_| {
            yield_once();
            self.word(STATE, index).read() != 0
        })
    }
}

pub fn a_register_outlives_a_save() -> Verdict {
    let list = list()?;
    let (mut first, second) = (Puppet::new()?, Puppet::new()?);
    for index in 0..LOADED {
        first.word(INPUT, index).write(loaded(index));
    }
    expect(Domain(DOM0).pin(0, 0))?;
    expect(first.domain.pin(0, 0))?;
    first.put_saved_code(list)?;
    expect(first.domain.start((MEMORY * u64::from(PAGE_SIZE)) as u32))?;
    ensure!(first.says(WAITS));
    expect(first.domain.pause())?;
    let image = Frame::take_aligned(2);
    let size = expect(first.domain.context(image.address(), 2 * PAGE_SIZE))?;
    for index in 0..(PAGES * PAGE_SIZE / 4) as usize {
        second.word(0, index).write(first.word(0, index).read());
    }
    first.end()?;
    second.word(STATE, GO_ON).write(1);
    expect(second.domain.set_context(image.address(), size))?;
    expect(second.domain.resume())?;
    ensure!(second.says(DONE));
    let verdict = compare(list, &second);
    second.end()?;
    verdict
}

fn compare(list: &List, puppet: &Puppet) -> Verdict {
    let value = |index: usize| puppet.word(VALUES, index).read();
    // The first round: list, interrupt controller, counter. The second: general registers, the same again, VFP, the rest.
    let round = list.count + GIC_READS.len() + 2;
    let second = round + GENERAL;
    let mut changes = 0;
    for (index, found) in list.all().enumerate() {
        // It is as far from its counter as it was.
        let is_physical_timer = matches!(found.register, Wide(15, 2, 14, _));
        if !is_physical_timer && (value(index) ^ value(second + index)) & found.bits != 0 {
            changes += 1;
            print(found, "was lost with the save");
        }
    }
    ensure_eq!(changes, 0);
    let gic = list.count..list.count + GIC_READS.len();
    for index in gic.clone() {
        ensure_eq!(value(second + index), value(index), index - list.count);
    }
    ensure!(gic.clone().filter(|index| value(*index) != 0).count() >= FULL);
    let counter = |at: usize| u64::from(value(at + 1)) << 32 | u64::from(value(at));
    ensure!(counter(second + gic.end) >= counter(gic.end));
    for n in 0..GENERAL {
        ensure_eq!(value(round + n), loaded(VFP + 1 + n), n);
    }
    let rest = second + round;
    for n in 0..VFP {
        ensure_eq!(value(rest + n), loaded(n), n);
    }
    ensure_eq!(value(rest + VFP), loaded(VFP));
    for (n, (_, _, bits)) in BANKED.into_iter().enumerate() {
        ensure_eq!(value(rest + VFP + 1 + n) & bits, loaded(VFP + 1 + GENERAL + n) & bits, n);
    }
    Ok(())
}
