//! Renesas SCIF, HSCIF and SCIFA (R-Car Series, 2nd Generation, user's manual: hardware, chapters 50 to 52).
//!
//! A flag of the status register stays set until it is read as 1 and written as 0, so each is cleared once its reason is
//! gone: the transmitter's behind each byte, the receiver's when no byte is left.

use super::{Interrupts, Registers, Width};

const SCR: u32 = 0x08;
const FCR: u32 = 0x18;
/// Bytes in the FIFOs: to send in bits 15:8, received in bits 7:0.
const FDR: u32 = 0x1c;

/// The clock's source; firmware's is kept.
const SCR_CKE: u32 = 3;
const SCR_RE: u32 = 1 << 4;
const SCR_TE: u32 = 1 << 5;
const SCR_RIE: u32 = 1 << 6;
const SCR_TIE: u32 = 1 << 7;
/// The transmitter signals an empty FIFO, the receiver each byte.
const FCR_TRIGGERS: u32 = 3 << 4;
/// DR and RDF: bytes received.
const FSR_RECEIVED: u32 = 1 | 1 << 1;
/// BRK and ER.
const FSR_ERRORS: u32 = 1 << 4 | 1 << 7;
const FSR_TDFE: u32 = 1 << 5;
const FSR_TEND: u32 = 1 << 6;

/// Bytes of the smallest FIFO, that of a SCIF.
const FIFO: u32 = 16;

/// Places in which the kinds differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// Status.
    fsr: u32,
    /// Byte to send.
    ftdr: u32,
    /// Received byte.
    frdr: u32,
    /// Register with the overrun flag, and the flag.
    overrun: (u32, u32),
}

/// SCIF and HSCIF.
pub const SCIF: Layout = Layout {
    fsr: 0x10,
    ftdr: 0x0c,
    frdr: 0x14,
    overrun: (0x24, 1),
};

/// SCIFA.
pub const SCIFA: Layout = Layout {
    fsr: 0x14,
    ftdr: 0x20,
    frdr: 0x24,
    overrun: (0x14, 1 << 9),
};

/// A SCIF.
#[derive(Debug)]
pub struct Scif<R> {
    registers: R,
    layout: Layout,
    /// SCR without interrupts.
    control: u32,
}

impl<R: Registers> Scif<R> {
    pub(super) fn new(registers: R, layout: Layout) -> Self {
        let mut uart = Self {
            registers,
            layout,
            control: 0,
        };
        // The speed (BRR) and the format (SMR) stay.
        uart.control = uart.read(SCR) & SCR_CKE | SCR_RE | SCR_TE;
        uart.write(SCR, uart.control);
        uart.write(FCR, FCR_TRIGGERS);
        uart
    }

    pub(super) fn try_put(&mut self, byte: u8) -> bool {
        let room = self.read(FDR) >> 8 & 0xff < FIFO;
        if room {
            let place = self.layout.ftdr;
            self.registers.write(place, Width::Byte, u32::from(byte));
            self.clear(self.layout.fsr, FSR_TDFE | FSR_TEND);
        }
        room
    }

    pub(super) fn is_idle(&self) -> bool {
        self.read(self.layout.fsr) & FSR_TEND != 0
    }

    pub(super) fn get(&mut self) -> Option<u8> {
        if self.received() == 0 {
            self.clear(self.layout.fsr, FSR_RECEIVED);
        }
        // A byte that came before the flag was cleared raises no interrupt.
        let place = self.layout.frdr;
        (self.received() != 0).then(|| self.registers.read(place, Width::Byte) as u8)
    }

    pub(super) fn raise_for(&mut self, what: Interrupts) {
        let enables = match what {
            Interrupts::None => 0,
            Interrupts::Receive => SCR_RIE,
            Interrupts::ReceiveAndTransmit => SCR_RIE | SCR_TIE,
        };
        self.write(SCR, self.control | enables);
    }

    /// Clears errors, which signal as received bytes do; after an overrun nothing more is received.
    pub(super) fn acknowledge(&mut self) {
        self.clear(self.layout.fsr, FSR_ERRORS);
        let (place, flag) = self.layout.overrun;
        self.clear(place, flag);
    }

    fn received(&self) -> u32 {
        self.read(FDR) & 0xff
    }

    fn clear(&mut self, offset: u32, flags: u32) {
        let value = self.read(offset);
        if value & flags != 0 {
            self.write(offset, value & !flags);
        }
    }

    fn read(&self, offset: u32) -> u32 {
        self.registers.read(offset, Width::Half)
    }

    fn write(&mut self, offset: u32, value: u32) {
        self.registers.write(offset, Width::Half, value);
    }
}
