//! Samsung Exynos UART (Exynos 5250 user's manual, chapter 28).

use super::{Interrupts, Registers, Width};

const ULCON: u32 = 0x00;
const UCON: u32 = 0x04;
const UFCON: u32 = 0x08;
const UMCON: u32 = 0x0c;
const UTRSTAT: u32 = 0x10;
const UFSTAT: u32 = 0x18;
const UTXH: u32 = 0x20;
const URXH: u32 = 0x24;
const UINTP: u32 = 0x30;
const UINTM: u32 = 0x38;

/// 8 data bits, no parity, 1 stop bit.
const ULCON_8N1: u32 = 3;
const UCON_RX_POLL_OR_INTERRUPT: u32 = 1 << 0;
const UCON_TX_POLL_OR_INTERRUPT: u32 = 1 << 2;
const UCON_RX_TIMEOUT: u32 = 1 << 7;
const UFCON_ENABLE: u32 = 1 << 0;
const UFCON_RX_RESET: u32 = 1 << 1;
const UFCON_TX_RESET: u32 = 1 << 2;
/// The transmit FIFO interrupts at a quarter of its size, which is 16 to 256 bytes.
const UFCON_TX_TRIGGER: u32 = 2 << 8;
const UTRSTAT_TX_EMPTY: u32 = 1 << 2;
const UFSTAT_RX_COUNT: u32 = 0xff;
const UFSTAT_RX_FULL: u32 = 1 << 8;
const UFSTAT_TX_FULL: u32 = 1 << 24;
const INT_ALL: u32 = 0xf;
const INT_RX: u32 = 1 << 0;
const INT_ERROR: u32 = 1 << 1;
const INT_TX: u32 = 1 << 2;

/// Maximum polls for the end of a FIFO reset, which takes a few bus clocks.
const RESET_POLLS: u32 = 10_000;

/// An Exynos UART.
#[derive(Debug)]
pub struct Exynos4210<R> {
    registers: R,
}

impl<R: Registers> Exynos4210<R> {
    pub(super) fn new(registers: R) -> Self {
        let mut uart = Self { registers };
        uart.write(UCON, 0);
        uart.write(UMCON, 0);
        uart.write(ULCON, ULCON_8N1);
        uart.write(UINTM, INT_ALL);
        uart.write(UINTP, INT_ALL);
        uart.write(UFCON, UFCON_RX_RESET | UFCON_TX_RESET);
        for _ in 0..RESET_POLLS {
            if uart.read(UFCON) & (UFCON_RX_RESET | UFCON_TX_RESET) == 0 {
                break;
            }
        }
        uart.write(UFCON, UFCON_TX_TRIGGER | UFCON_ENABLE);
        // Pulse, not level: in level mode the interrupt stays asserted while the FIFO holds bytes. The transmitter's
        // pulse comes when the FIFO drains to its trigger level.
        let modes = UCON_RX_POLL_OR_INTERRUPT | UCON_TX_POLL_OR_INTERRUPT | UCON_RX_TIMEOUT;
        uart.write(UCON, modes);
        uart
    }

    pub(super) fn try_put(&mut self, byte: u8) -> bool {
        let room = self.read(UFSTAT) & UFSTAT_TX_FULL == 0;
        if room {
            self.write(UTXH, u32::from(byte));
        }
        room
    }

    pub(super) fn is_idle(&self) -> bool {
        self.read(UTRSTAT) & UTRSTAT_TX_EMPTY != 0
    }

    pub(super) fn get(&mut self) -> Option<u8> {
        let waiting = self.read(UFSTAT) & (UFSTAT_RX_COUNT | UFSTAT_RX_FULL) != 0;
        waiting.then(|| self.read(URXH) as u8)
    }

    pub(super) fn raise_for(&mut self, what: Interrupts) {
        const RECEIVE: u32 = INT_RX | INT_ERROR;
        // Set bits mask. A pulse that came while masked is signalled on unmasking.
        let let_through = match what {
            Interrupts::None => 0,
            Interrupts::Receive => RECEIVE,
            Interrupts::ReceiveAndTransmit => RECEIVE | INT_TX,
        };
        self.write(UINTM, INT_ALL & !let_through);
    }

    pub(super) fn acknowledge(&mut self) {
        // Write one to clear.
        let pending = self.read(UINTP);
        self.write(UINTP, pending);
    }

    fn read(&self, offset: u32) -> u32 {
        self.registers.read(offset, Width::Word)
    }

    fn write(&mut self, offset: u32, value: u32) {
        self.registers.write(offset, Width::Word, value);
    }
}
