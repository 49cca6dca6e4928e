//! The emulated UART of a domain that the hypervisor starts itself: every register and width, its interrupt, and input
//! (SBSA, Arm DEN0029 appendix B; PL011, DDI 0183G). It runs beside or without dom0, never in dom0's place.
//!
//! The lines that say what was found go through the same UART: a sentence about output starts from what that leaves.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, Ordering};

use guests::exception::{Kind, catch};
use guests::harness::Verdict;
use guests::mmio::{read8, read16, read32, write8, write16, write32};
use guests::{clock, cp15, ensure, ensure_eq, gic, interrupt, platform, println, suite};

suite! { "uart":
    it_is_idle_when_nothing_is_typed,
    its_registers_are_equal_by_every_width,
    the_mask_keeps_what_is_written,
    a_short_write_changes_the_low_bits_of_the_mask,
    registers_that_are_read_ignore_writes,
    a_byte_by_each_width_signals_room,
    what_only_a_full_pl011_has_is_zero,
    the_clear_register_cannot_be_read,
    other_offsets_abort,
    a_doubleword_aborts,
    a_masked_interrupt_is_not_taken,
    an_interrupt_comes_again_until_it_is_cleared,
    an_interrupt_that_is_cleared_before_it_is_taken_is_not_taken,
    typed_bytes_arrive_in_order_and_are_signalled,
}

const DR: u32 = 0x00;
const RSR: u32 = 0x04;
const FR: u32 = 0x18;
const IMSC: u32 = 0x38;
const RIS: u32 = 0x3c;
const MIS: u32 = 0x40;
const ICR: u32 = 0x44;

const TXFE: u32 = 0x80;
const RXFE: u32 = 0x10;
const RTI: u32 = 0x40;
const TXI: u32 = 0x20;
const RXI: u32 = 0x10;
const ALL: u32 = 0x7f0;

/// SPI 0.
const INTERRUPT: u32 = 32;

fn register(offset: u32) -> u32 {
    platform::get().sbsa_uart + offset
}

fn read(offset: u32) -> u32 {
    read32(register(offset))
}

fn write(offset: u32, value: u32) {
    write32(register(offset), value);
}

/// Masks and clears everything.
fn fresh() {
    write(IMSC, 0);
    write(ICR, ALL);
    interrupt::reset();
}

fn it_is_idle_when_nothing_is_typed() -> Verdict {
    fresh();
    ensure_eq!(read(FR), TXFE | RXFE);
    ensure_eq!(read(RIS), 0);
    ensure_eq!(read(MIS), 0);
    ensure_eq!(read(RSR), 0);
    ensure_eq!(read(DR), 0);
    Ok(())
}

fn its_registers_are_equal_by_every_width() -> Verdict {
    fresh();
    write(IMSC, TXI | RXI);
    // A carriage return leaves no trace on the console.
    write(DR, 0x0d);
    for (offset, value) in [(DR, 0), (RSR, 0), (FR, TXFE | RXFE), (IMSC, TXI | RXI), (RIS, TXI), (MIS, TXI)] {
        ensure_eq!(read32(register(offset)), value, offset);
        ensure_eq!(read16(register(offset)), value, offset);
        ensure_eq!(read8(register(offset)), value, offset);
    }
    fresh();
    Ok(())
}

fn the_mask_keeps_what_is_written() -> Verdict {
    for mask in [ALL, 0x550, 0x2a0, 0] {
        write(IMSC, mask);
        ensure_eq!(read(IMSC), mask, mask);
    }
    Ok(())
}

fn a_short_write_changes_the_low_bits_of_the_mask() -> Verdict {
    write(IMSC, ALL);
    write8(register(IMSC), 0);
    ensure_eq!(read(IMSC), 0x700);
    write8(register(IMSC), 0x50);
    ensure_eq!(read(IMSC), 0x750);
    write16(register(IMSC), 0x20);
    ensure_eq!(read(IMSC), 0x20);
    fresh();
    Ok(())
}

fn registers_that_are_read_ignore_writes() -> Verdict {
    fresh();
    for offset in [RSR, FR, RIS, MIS] {
        let before = read(offset);
        write32(register(offset), u32::MAX);
        write16(register(offset), 0xffff);
        write8(register(offset), 0xff);
        ensure_eq!(read(offset), before, offset);
    }
    Ok(())
}

fn a_byte_by_each_width_signals_room() -> Verdict {
    let writes: [fn(u32, u32); 3] = [write32, write16, write8];
    for (width, write_byte) in writes.into_iter().enumerate() {
        fresh();
        write_byte(register(DR), 0x0d);
        ensure_eq!(read(RIS), TXI, width);
        ensure_eq!(read(MIS), 0, width);
        ensure_eq!(read(FR), TXFE | RXFE, width);
        write8(register(ICR), TXI);
        ensure_eq!(read(RIS), 0, width);
    }
    Ok(())
}

fn what_only_a_full_pl011_has_is_zero() -> Verdict {
    let set_up = (0x20..=0x34).step_by(4);
    for offset in set_up.chain([0x48]).chain((0xfe0..=0xffc).step_by(4)) {
        write(offset, u32::MAX);
        ensure_eq!(read32(register(offset)), 0, offset);
        ensure_eq!(read16(register(offset)), 0, offset);
        ensure_eq!(read8(register(offset)), 0, offset);
    }
    Ok(())
}

unsafe extern "C" fn load32(address: u32, _: u32) -> u32 {
    read32(address)
}

unsafe extern "C" fn load16(address: u32, _: u32) -> u32 {
    read16(address)
}

unsafe extern "C" fn load8(address: u32, _: u32) -> u32 {
    read8(address)
}

unsafe extern "C" fn store32(address: u32, value: u32) -> u32 {
    write32(address, value);
    0
}

unsafe extern "C" fn store8(address: u32, value: u32) -> u32 {
    write8(address, value);
    0
}

core::arch::global_asm!(
    ".balign 4",
    ".global load64",
    ".type load64, %function",
    "load64: mov r2, r0",
    "ldrd r0, r1, [r2]",
    "bx lr",
);

unsafe extern "C" {
    fn load64(address: u32, unused: u32) -> u32;
}

/// Returns whether an access is a data abort.
fn aborts(probe: guests::exception::Probe, offset: u32) -> bool {
    catch(probe, register(offset), 0).is_err_and(|fault| fault.kind == Kind::DataAbort)
}

fn the_clear_register_cannot_be_read() -> Verdict {
    ensure!(aborts(load32, ICR));
    ensure!(aborts(load16, ICR));
    ensure!(aborts(load8, ICR));
    Ok(())
}

fn other_offsets_abort() -> Verdict {
    for offset in [0x08, 0x0c, 0x10, 0x14, 0x1c, 0x4c, 0x100, 0xf00, 0xfdc] {
        ensure!(aborts(load32, offset), offset);
        ensure!(aborts(store32, offset), offset);
    }
    for offset in [0x01, 0x19, 0x3b, 0xffd] {
        ensure!(aborts(load8, offset), offset);
        ensure!(aborts(store8, offset), offset);
    }
    Ok(())
}

fn a_doubleword_aborts() -> Verdict {
    ensure!(aborts(load64, DR));
    ensure!(aborts(load64, IMSC));
    Ok(())
}

fn a_masked_interrupt_is_not_taken() -> Verdict {
    fresh();
    gic::enable(INTERRUPT);
    write(DR, 0x0d);
    ensure_eq!(read(RIS), TXI);
    interrupt::settle();
    ensure_eq!(interrupt::count(INTERRUPT), 0);
    Ok(())
}

/// How often the interrupt was taken before it was cleared.
static TAKEN: AtomicU32 = AtomicU32::new(0);

fn clears_the_third_time(_: u32) {
    if TAKEN.fetch_add(1, Ordering::SeqCst) == 2 {
        write(ICR, TXI);
    }
}

fn an_interrupt_comes_again_until_it_is_cleared() -> Verdict {
    fresh();
    interrupt::set_hook(clears_the_third_time);
    write(IMSC, TXI);
    write(DR, 0x0d);
    ensure!(interrupt::comes(INTERRUPT, 3));
    ensure_eq!(read(MIS), 0);
    fresh();
    Ok(())
}

fn an_interrupt_that_is_cleared_before_it_is_taken_is_not_taken() -> Verdict {
    fresh();
    write(IMSC, TXI);
    write(DR, 0x0d);
    ensure!(gic::bit(gic::ISPENDR, INTERRUPT));
    write(ICR, TXI);
    ensure!(!gic::bit(gic::ISPENDR, INTERRUPT));
    interrupt::settle();
    ensure_eq!(interrupt::count(INTERRUPT), 0);
    fresh();
    Ok(())
}

/// The text that the runner types on request.
const TYPED: &[u8] = b"0123456789abcdefghij";

fn reads_nothing_more(_: u32) {
    write(IMSC, 0);
}

fn typed_bytes_arrive_in_order_and_are_signalled() -> Verdict {
    fresh();
    interrupt::set_hook(reads_nothing_more);
    write(ICR, ALL);
    write(IMSC, RTI);
    // Somebody types, in his own time: all of it may be there before the next instruction.
    println!("type 0123456789abcdefghij");
    cp15::enable_interrupts();
    let deadline = clock::now() + 60 * clock::ticks(1_000_000);
    while interrupt::count(INTERRUPT) == 0 && clock::now() < deadline {}
    while read(RIS) & RXI == 0 && clock::now() < deadline {}
    cp15::disable_interrupts();
    ensure_eq!(interrupt::count(INTERRUPT), 1);
    ensure_eq!(read(RIS) & (RTI | RXI), RTI | RXI);
    ensure_eq!(read(FR) & RXFE, 0);
    for (n, byte) in TYPED.iter().enumerate() {
        while read(FR) & RXFE != 0 && clock::now() < deadline {}
        ensure_eq!(read(DR), *byte, n);
    }
    ensure_eq!(read(FR) & RXFE, RXFE);
    ensure_eq!(read(RIS) & (RTI | RXI), 0);
    ensure_eq!(read(DR), 0);
    fresh();
    Ok(())
}
