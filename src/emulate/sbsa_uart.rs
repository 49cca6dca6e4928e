//! An SBSA Generic UART (Arm DEN0029, appendix B), as Xen gives one to its guests: the registers of a PL011 (DDI 0183G) that
//! a driver needs to send and receive.
//!
//! | offset | name | read | write |
//! |---|---|---|---|
//! | 00 | DR | the next byte received; 0 without one | a byte to send |
//! | 04 | RSR | 0 | ignored |
//! | 18 | FR | state of both directions | ignored |
//! | 38 | IMSC | mask | mask |
//! | 3C | RIS | what is signalled | ignored |
//! | 40 | MIS | RIS and IMSC | ignored |
//! | 44 | ICR | refused | clears bits of RIS |
//!
//! The registers of a PL011 that set line and FIFOs up (20 to 34), that of DMA (48) and the identification registers (FE0 to
//! FFC) read as zero and ignore writes, so that a driver of the full UART finds them. Accesses of 1, 2 and 4 bytes are
//! equal; a short one covers the low bits. All else is refused.
//!
//! The interrupt is a level: high while MIS is not 0.

use armv7::syndrome::Width;

const DR: u32 = 0x00;
const RSR: u32 = 0x04;
const FR: u32 = 0x18;
const IMSC: u32 = 0x38;
const RIS: u32 = 0x3C;
const MIS: u32 = 0x40;
const ICR: u32 = 0x44;
const DMACR: u32 = 0x48;

/// FR: the transmitter has nothing to send.
const TXFE: u32 = 1 << 7;
/// FR: nothing more is received until something is read.
const RXFF: u32 = 1 << 6;
/// FR: the transmitter takes nothing.
const TXFF: u32 = 1 << 5;
/// FR: there is nothing to read.
const RXFE: u32 = 1 << 4;
/// FR: the transmitter sends.
const BUSY: u32 = 1 << 3;

/// RIS: something has been received and not been read.
const RECEIVE_TIMEOUT: u32 = 1 << 6;
/// RIS: there is room to send.
const TRANSMIT: u32 = 1 << 5;
/// RIS: half a FIFO has been received.
const RECEIVE: u32 = 1 << 4;
/// The bits of IMSC, RIS and ICR that there are.
const INTERRUPTS: u32 = 0x7FF;

/// Half of the FIFO that an SBSA UART has.
const HALF_FIFO: usize = 16;

/// The other end of the UART's line.
pub trait Line {
    /// Takes the next byte that waits to be read.
    fn take(&mut self) -> Option<u8>;
    /// Returns the number of bytes that wait to be read.
    fn waiting(&self) -> usize;
    /// Returns whether no more bytes can wait.
    fn is_full(&self) -> bool;
    /// Returns whether a byte that is sent now arrives.
    fn has_room(&self) -> bool;
    /// Sends a byte; without room it is lost.
    fn send(&mut self, byte: u8);
}

/// The access is to no register, or of a kind that the register does not take: the guest gets a data abort.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused;

/// The state of the UART beside its line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SbsaUart {
    /// IMSC.
    mask: u32,
    /// RIS.
    raised: u32,
}

impl SbsaUart {
    /// A UART as after reset.
    pub const fn new() -> Self {
        Self { mask: 0, raised: 0 }
    }

    /// Returns whether its interrupt line is high.
    pub const fn is_raised(&self) -> bool {
        self.mask & self.raised != 0
    }

    /// Reads the register at `offset`.
    pub fn read(
        &mut self,
        offset: u32,
        width: Width,
        line: &mut impl Line,
    ) -> Result<u32, Refused> {
        let value = match offset {
            DR => self.receive(line).into(),
            FR => flags(line),
            IMSC => self.mask,
            RIS => self.raised,
            MIS => self.raised & self.mask,
            RSR => 0,
            _ if is_silent(offset) => 0,
            _ => return Err(Refused),
        };
        Ok(value & covered(width))
    }

    /// Writes to the register at `offset`.
    pub fn write(
        &mut self,
        offset: u32,
        width: Width,
        value: u32,
        line: &mut impl Line,
    ) -> Result<(), Refused> {
        let covered = covered(width);
        let value = value & covered;
        match offset {
            DR => self.send(value as u8, line),
            IMSC => self.mask = (self.mask & !covered | value) & INTERRUPTS,
            ICR => self.raised &= !value,
            RSR | FR | RIS | MIS => {}
            _ if is_silent(offset) => {}
            _ => return Err(Refused),
        }
        Ok(())
    }

    /// Signals bytes that have come to wait on the line.
    pub fn arrived(&mut self, line: &impl Line) {
        let waiting = line.waiting();
        if waiting > 0 {
            self.raised |= RECEIVE_TIMEOUT;
        }
        if waiting >= HALF_FIFO {
            self.raised |= RECEIVE;
        }
    }

    /// Signals room on a line that had none.
    pub fn drained(&mut self, line: &impl Line) {
        if line.has_room() {
            self.raised |= TRANSMIT;
        }
    }

    fn receive(&mut self, line: &mut impl Line) -> u8 {
        let byte = line.take().unwrap_or(0);
        let waiting = line.waiting();
        if waiting == 0 {
            self.raised &= !RECEIVE_TIMEOUT;
        }
        if waiting < HALF_FIFO {
            self.raised &= !RECEIVE;
        }
        byte
    }

    fn send(&mut self, byte: u8, line: &mut impl Line) {
        line.send(byte);
        self.raised &= !TRANSMIT;
        self.drained(line);
    }
}

fn flags(line: &impl Line) -> u32 {
    let input = match (line.waiting(), line.is_full()) {
        (0, _) => RXFE,
        (_, true) => RXFF,
        (_, false) => 0,
    };
    input
        | match line.has_room() {
            true => TXFE,
            false => TXFF | BUSY,
        }
}

/// Returns whether a register reads as zero and ignores writes.
const fn is_silent(offset: u32) -> bool {
    offset.is_multiple_of(4) && matches!(offset, 0x20..=0x34 | DMACR | 0xFE0..=0xFFC)
}

/// Returns the bits that an access covers.
const fn covered(width: Width) -> u32 {
    match width {
        Width::Byte => 0xFF,
        Width::Half => 0xFFFF,
        Width::Word => u32::MAX,
    }
}

#[cfg(test)]
mod tests;
