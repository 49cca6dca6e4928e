//! ST's USART with FIFOs, of STM32H7 and STM32MP1 (STM32MP157 reference manual RM0436, chapter 54).

use super::{Interrupts, Registers, Width};

const CR1: u32 = 0x00;
const CR3: u32 = 0x08;
const ISR: u32 = 0x1c;
const ICR: u32 = 0x20;
const RDR: u32 = 0x24;
const TDR: u32 = 0x28;

const CR1_UE: u32 = 1 << 0;
const CR1_RE: u32 = 1 << 2;
const CR1_TE: u32 = 1 << 3;
const CR1_RXFNEIE: u32 = 1 << 5;
const CR1_FIFOEN: u32 = 1 << 29;
const CR1_TXFEIE: u32 = 1 << 30;
/// Interrupt enables of CR1: IDLE, RXFNE, TC, TXFNF, PE, CM, RTO, EOB, TXFE, RXFF.
const CR1_INTERRUPTS: u32 = 0x1f << 4 | 1 << 14 | 3 << 26 | 3 << 30;
/// Interrupt enables and DMA of CR3: error, DMA of both directions, CTS, wake-up, thresholds, end of a guard time.
const CR3_INTERRUPTS: u32 = 1 | 3 << 6 | 1 << 10 | 1 << 22 | 1 << 23 | 1 << 24 | 1 << 28;
const ISR_ERRORS: u32 = 0xf;
const ISR_RXFNE: u32 = 1 << 5;
const ISR_TC: u32 = 1 << 6;
const ISR_TXFNF: u32 = 1 << 7;

/// Polls for the end of what firmware sends, before the USART is disabled: 16 bytes at 9,600 baud.
const DRAIN_POLLS: u32 = 200_000;

/// An STM32 USART.
#[derive(Debug)]
pub struct Stm32h7<R> {
    registers: R,
    /// CR1 without interrupts.
    control: u32,
}

impl<R: Registers> Stm32h7<R> {
    pub(super) fn new(registers: R) -> Self {
        let mut uart = Self {
            registers,
            control: 0,
        };
        let control = uart.read(CR1) & !CR1_INTERRUPTS;
        uart.write(CR1, control);
        let third = uart.read(CR3);
        uart.write(CR3, third & !CR3_INTERRUPTS);
        if control & CR1_FIFOEN == 0 {
            // FIFOEN can be written only while the USART is disabled, which loses what has not left.
            for _ in 0..DRAIN_POLLS {
                if control & CR1_UE == 0 || uart.read(ISR) & ISR_TC != 0 {
                    break;
                }
            }
            uart.write(CR1, control & !CR1_UE);
            uart.write(CR1, control & !CR1_UE | CR1_FIFOEN);
        }
        uart.control = control | CR1_FIFOEN | CR1_UE | CR1_RE | CR1_TE;
        uart.write(CR1, uart.control);
        uart
    }

    pub(super) fn try_put(&mut self, byte: u8) -> bool {
        let room = self.read(ISR) & ISR_TXFNF != 0;
        if room {
            self.write(TDR, u32::from(byte));
        }
        room
    }

    pub(super) fn is_idle(&self) -> bool {
        self.read(ISR) & ISR_TC != 0
    }

    pub(super) fn get(&mut self) -> Option<u8> {
        (self.read(ISR) & ISR_RXFNE != 0).then(|| self.read(RDR) as u8)
    }

    pub(super) fn raise_for(&mut self, what: Interrupts) {
        // TXFE: the transmit FIFO is empty.
        let enables = match what {
            Interrupts::None => 0,
            Interrupts::Receive => CR1_RXFNEIE,
            Interrupts::ReceiveAndTransmit => CR1_RXFNEIE | CR1_TXFEIE,
        };
        self.write(CR1, self.control | enables);
    }

    pub(super) fn acknowledge(&mut self) {
        // RXFNEIE lets the overrun through as well, which lasts until it is cleared.
        self.write(ICR, ISR_ERRORS);
    }

    fn read(&self, offset: u32) -> u32 {
        self.registers.read(offset, Width::Word)
    }

    fn write(&mut self, offset: u32, value: u32) {
        self.registers.write(offset, Width::Word, value);
    }
}
