//! NXP i.MX UART (i.MX 6UltraLite reference manual, chapter 55).

use super::{Interrupts, Registers, Width};

const URXD: u32 = 0x00;
const UTXD: u32 = 0x40;
const UCR1: u32 = 0x80;
const UCR2: u32 = 0x84;
const UCR3: u32 = 0x88;
const UCR4: u32 = 0x8c;
const UFCR: u32 = 0x90;
const USR2: u32 = 0x98;
const UTS: u32 = 0xb4;

const URXD_DATA: u32 = 0xff;
const UCR1_UARTEN: u32 = 1 << 0;
const UCR1_RRDYEN: u32 = 1 << 9;
const UCR1_TRDYEN: u32 = 1 << 13;
/// Clear: reset.
const UCR2_SRST: u32 = 1 << 0;
const UCR2_RXEN: u32 = 1 << 1;
const UCR2_TXEN: u32 = 1 << 2;
/// Sends whatever RTS says.
const UCR2_IRTS: u32 = 1 << 14;
/// Interrupt enables of UCR2: aging timer, RTS pin, escape.
const UCR2_INTERRUPTS: u32 = 1 << 3 | 1 << 4 | 1 << 15;
/// Interrupt enables of UCR3: ACST, AWAKE, AIRINT, RXDS, FRAERR, PARERR, DTR.
const UCR3_INTERRUPTS: u32 = 1 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 11 | 1 << 12 | 1 << 13;
/// Interrupt enables of UCR4: DR, OR, BK, TC, WK, ENIR, and the DMA of infrared.
const UCR4_INTERRUPTS: u32 = 0x1f | 1 << 7 | 1 << 8;
/// The receiver signals each byte, the transmitter when fewer than two bytes are left, the least that it knows.
const UFCR_LEVELS: u32 = 2 << 10 | 1;
const UFCR_LEVELS_MASK: u32 = 0x3f << 10 | 0x3f;
const USR2_RDR: u32 = 1 << 0;
const USR2_TXDC: u32 = 1 << 3;
const UTS_TXFULL: u32 = 1 << 4;

/// An i.MX UART.
#[derive(Debug)]
pub struct Imx<R> {
    registers: R,
}

impl<R: Registers> Imx<R> {
    pub(super) fn new(registers: R) -> Self {
        let mut uart = Self { registers };
        // The divisors (UBIR, UBMR, UFCR.RFDIV) and the format (UCR2) stay.
        uart.write(UCR1, UCR1_UARTEN);
        uart.change(UCR3, UCR3_INTERRUPTS, 0);
        uart.change(UCR4, UCR4_INTERRUPTS, 0);
        uart.change(UFCR, UFCR_LEVELS_MASK, UFCR_LEVELS);
        let on = UCR2_SRST | UCR2_RXEN | UCR2_TXEN | UCR2_IRTS;
        uart.change(UCR2, UCR2_INTERRUPTS, on);
        uart
    }

    pub(super) fn try_put(&mut self, byte: u8) -> bool {
        let room = self.read(UTS) & UTS_TXFULL == 0;
        if room {
            self.write(UTXD, u32::from(byte));
        }
        room
    }

    pub(super) fn is_idle(&self) -> bool {
        self.read(USR2) & USR2_TXDC != 0
    }

    pub(super) fn get(&mut self) -> Option<u8> {
        // Bits 10 and up tell of errors; the byte is passed on all the same.
        (self.read(USR2) & USR2_RDR != 0).then(|| (self.read(URXD) & URXD_DATA) as u8)
    }

    pub(super) fn raise_for(&mut self, what: Interrupts) {
        let enables = match what {
            Interrupts::None => 0,
            Interrupts::Receive => UCR1_RRDYEN,
            Interrupts::ReceiveAndTransmit => UCR1_RRDYEN | UCR1_TRDYEN,
        };
        self.write(UCR1, UCR1_UARTEN | enables);
    }

    /// Does nothing: both interrupts last for as long as their reason does.
    pub(super) fn acknowledge(&mut self) {}

    fn change(&mut self, offset: u32, clear: u32, set: u32) {
        let value = self.read(offset);
        self.write(offset, value & !clear | set);
    }

    fn read(&self, offset: u32) -> u32 {
        self.registers.read(offset, Width::Word)
    }

    fn write(&mut self, offset: u32, value: u32) {
        self.registers.write(offset, Width::Word, value);
    }
}
