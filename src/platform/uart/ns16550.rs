//! 16550 and compatibles: Synopsys DW APB, OMAP, Tegra (PC16550D data sheet, chapter 8).
//!
//! They differ in the distance of registers and in three details. OMAP needs its mode register set to 16x, which
//! firmware has done for the console. OMAP signals space already when some bytes are free (AM335x reference manual
//! SPRUH73, SCR). Synopsys raises "busy detect" if the line control is written while it transmits, which only a read of
//! its status register clears.
//!
//! The only indication of space is an empty transmit FIFO (THRE), so a whole FIFO of bytes is written after it was seen
//! empty.

use super::{Interrupts, Registers, Width};

const DATA: u32 = 0;
const IER: u32 = 1;
const IIR: u32 = 2;
const FCR: u32 = 2;
const LCR: u32 = 3;
const MCR: u32 = 4;
const LSR: u32 = 5;
/// Synopsys' UART status register.
const USR: u32 = 31;

/// OMAP's supplementary control register.
const SCR: u32 = 16;

const IER_RX: u32 = 1 << 0;
const IER_THRE: u32 = 1 << 1;
const FCR_ENABLE: u32 = 1 << 0;
const LCR_DLAB: u32 = 1 << 7;
const MCR_DTR: u32 = 1 << 0;
const MCR_RTS: u32 = 1 << 1;
/// On a PC, OUT2 gates the interrupt; elsewhere it has no effect.
const MCR_OUT2: u32 = 1 << 3;
const LSR_READY: u32 = 1 << 0;
const LSR_THRE: u32 = 1 << 5;
const LSR_IDLE: u32 = 1 << 6;
const IIR_ID: u32 = 0xf;
const IIR_BUSY: u32 = 0x7;
/// Both bits: the FIFOs exist and are on. One alone identifies the first 16550, whose FIFOs do not work.
const IIR_FIFOS: u32 = 0xc0;
/// The transmit interrupt comes when all bytes have been sent.
const SCR_TX_EMPTY: u32 = 1 << 3;

/// Size of a 16550A's FIFO in bytes; no compatible has a smaller one.
const FIFO: u32 = 16;

/// Registers in addition to a 16550's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// None that matter here.
    Plain,
    /// OMAP's supplementary registers.
    Omap,
}

/// A 16550.
#[derive(Debug)]
pub struct Ns16550<R> {
    registers: R,
    shift: u32,
    width: Width,
    /// Bytes that an empty transmitter takes.
    depth: u32,
    /// Bytes that it takes before it must be seen empty again.
    room: u32,
}

impl<R: Registers> Ns16550<R> {
    pub(super) fn new(registers: R, shift: u32, width: Width, family: Family) -> Self {
        let mut uart = Self {
            registers,
            shift,
            width,
            depth: 1,
            room: 0,
        };
        // With the divisor latch open, the next writes would change the speed.
        let line = uart.read(LCR);
        if line & LCR_DLAB != 0 {
            uart.write(LCR, line & !LCR_DLAB);
        }
        uart.write(IER, 0);
        uart.write(FCR, FCR_ENABLE);
        if uart.read(IIR) & IIR_FIFOS == IIR_FIFOS {
            uart.depth = FIFO;
        }
        uart.write(MCR, MCR_DTR | MCR_RTS | MCR_OUT2);
        if family == Family::Omap {
            let control = uart.read(SCR);
            uart.write(SCR, control | SCR_TX_EMPTY);
        }
        uart
    }

    pub(super) fn try_put(&mut self, byte: u8) -> bool {
        if self.room == 0 && self.read(LSR) & LSR_THRE != 0 {
            self.room = self.depth;
        }
        let Some(left) = self.room.checked_sub(1) else {
            return false;
        };
        self.room = left;
        self.write(DATA, u32::from(byte));
        true
    }

    pub(super) fn is_idle(&self) -> bool {
        self.read(LSR) & LSR_IDLE != 0
    }

    pub(super) fn get(&mut self) -> Option<u8> {
        (self.read(LSR) & LSR_READY != 0).then(|| self.read(DATA) as u8)
    }

    pub(super) fn raise_for(&mut self, what: Interrupts) {
        let enables = match what {
            Interrupts::None => 0,
            Interrupts::Receive => IER_RX,
            Interrupts::ReceiveAndTransmit => IER_RX | IER_THRE,
        };
        self.write(IER, enables);
    }

    pub(super) fn acknowledge(&mut self) {
        if self.read(IIR) & IIR_ID == IIR_BUSY {
            self.read(USR);
        }
    }

    fn read(&self, register: u32) -> u32 {
        self.registers.read(register << self.shift, self.width) & 0xff
    }

    fn write(&mut self, register: u32, value: u32) {
        self.registers
            .write(register << self.shift, self.width, value);
    }
}
