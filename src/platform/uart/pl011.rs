//! ARM PrimeCell PL011 (DDI 0183G, chapter 3).

use super::{Interrupts, Registers, Width};

const DR: u32 = 0x00;
const FR: u32 = 0x18;
const CR: u32 = 0x30;
const LCR_H: u32 = 0x2c;
const IFLS: u32 = 0x34;
const IMSC: u32 = 0x38;
const MIS: u32 = 0x40;
const ICR: u32 = 0x44;

const FR_BUSY: u32 = 1 << 3;
const FR_RXFE: u32 = 1 << 4;
const FR_TXFF: u32 = 1 << 5;
const CR_UARTEN: u32 = 1 << 0;
const CR_TXE: u32 = 1 << 8;
const CR_RXE: u32 = 1 << 9;
const LCR_H_FEN: u32 = 1 << 4;
/// The receive interrupt comes when the FIFO is an eighth full, or on a time-out with fewer bytes. The transmit
/// interrupt comes when the FIFO drains to an eighth: on passing that level, not while below (section 2.8).
const IFLS_EIGHTHS: u32 = 0;
const INT_RX: u32 = 1 << 4;
const INT_TX: u32 = 1 << 5;
const INT_RX_TIMEOUT: u32 = 1 << 6;
const INT_ALL: u32 = 0x7ff;

/// A PL011.
#[derive(Debug)]
pub struct Pl011<R> {
    registers: R,
}

impl<R: Registers> Pl011<R> {
    pub(super) fn new(registers: R) -> Self {
        let mut uart = Self { registers };
        uart.write(IMSC, 0);
        uart.write(ICR, INT_ALL);
        uart.write(IFLS, IFLS_EIGHTHS);
        // A write to LCR_H applies the baud rate registers, which are unchanged.
        let line = uart.read(LCR_H);
        if line & LCR_H_FEN == 0 {
            uart.write(LCR_H, line | LCR_H_FEN);
        }
        let control = uart.read(CR);
        uart.write(CR, control | CR_UARTEN | CR_TXE | CR_RXE);
        uart
    }

    pub(super) fn try_put(&mut self, byte: u8) -> bool {
        let room = self.read(FR) & FR_TXFF == 0;
        if room {
            self.write(DR, u32::from(byte));
        }
        room
    }

    pub(super) fn is_idle(&self) -> bool {
        self.read(FR) & FR_BUSY == 0
    }

    pub(super) fn get(&mut self) -> Option<u8> {
        // Bits 8 and up report framing, parity, break and overrun errors; the byte is passed on regardless.
        (self.read(FR) & FR_RXFE == 0).then(|| self.read(DR) as u8)
    }

    pub(super) fn raise_for(&mut self, what: Interrupts) {
        const RECEIVE: u32 = INT_RX | INT_RX_TIMEOUT;
        let mask = match what {
            Interrupts::None => 0,
            Interrupts::Receive => RECEIVE,
            Interrupts::ReceiveAndTransmit => RECEIVE | INT_TX,
        };
        self.write(IMSC, mask);
    }

    pub(super) fn acknowledge(&mut self) {
        let signalled = self.read(MIS);
        self.write(ICR, signalled);
    }

    fn read(&self, offset: u32) -> u32 {
        self.registers.read(offset, Width::Word)
    }

    fn write(&mut self, offset: u32, value: u32) {
        self.registers.write(offset, Width::Word, value);
    }
}
