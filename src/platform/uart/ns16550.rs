//! 16550 and relatives: Synopsys DW APB, OMAP, Tegra (PC16550D data sheet, chapter 8).
//!
//! The relatives differ in the distance of registers and in two habits: OMAP needs its mode register set to 16x, which
//! firmware has done for the console; Synopsys raises "busy detect" when the line control is written while it works, and
//! only a read of its status register ends that.

use super::{Registers, Width};

const DATA: u32 = 0;
const IER: u32 = 1;
const IIR: u32 = 2;
const FCR: u32 = 2;
const LCR: u32 = 3;
const MCR: u32 = 4;
const LSR: u32 = 5;
/// Synopsys' UART status register.
const USR: u32 = 31;

const IER_RX: u32 = 1 << 0;
const FCR_ENABLE: u32 = 1 << 0;
const LCR_DLAB: u32 = 1 << 7;
const MCR_DTR: u32 = 1 << 0;
const MCR_RTS: u32 = 1 << 1;
/// On a PC, and harmlessly elsewhere, OUT2 gates the interrupt.
const MCR_OUT2: u32 = 1 << 3;
const LSR_READY: u32 = 1 << 0;
const LSR_THRE: u32 = 1 << 5;
const LSR_IDLE: u32 = 1 << 6;
const IIR_ID: u32 = 0xf;
const IIR_BUSY: u32 = 0x7;

/// A 16550.
#[derive(Debug)]
pub struct Ns16550<R> {
    registers: R,
    shift: u32,
    width: Width,
}

impl<R: Registers> Ns16550<R> {
    pub(super) fn new(registers: R, shift: u32, width: Width) -> Self {
        let mut uart = Self {
            registers,
            shift,
            width,
        };
        // With the divisor latch open the next writes would change the speed.
        let line = uart.read(LCR);
        if line & LCR_DLAB != 0 {
            uart.write(LCR, line & !LCR_DLAB);
        }
        uart.write(IER, 0);
        uart.write(FCR, FCR_ENABLE);
        uart.write(MCR, MCR_DTR | MCR_RTS | MCR_OUT2);
        uart
    }

    pub(super) fn try_put(&mut self, byte: u8) -> bool {
        let room = self.read(LSR) & LSR_THRE != 0;
        if room {
            self.write(DATA, u32::from(byte));
        }
        room
    }

    pub(super) fn is_idle(&self) -> bool {
        self.read(LSR) & LSR_IDLE != 0
    }

    pub(super) fn get(&mut self) -> Option<u8> {
        (self.read(LSR) & LSR_READY != 0).then(|| self.read(DATA) as u8)
    }

    pub(super) fn enable_receive_interrupt(&mut self) {
        self.write(IER, IER_RX);
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
