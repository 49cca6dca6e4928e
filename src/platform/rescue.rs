//! Consoles of well-known machines, used if the device tree is missing, has no UART with a driver, or has not been read
//! before a panic.
//!
//! Each candidate is checked by its identification registers before anything is written to it.

use super::uart::Model;

/// A possible UART.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Start of the machine's RAM, checked first.
    ram: u32,
    /// Address of the UART.
    pub address: u64,
    /// Its driver.
    pub model: Model,
}

const CANDIDATES: &[Candidate] = &[
    // QEMU's virt.
    Candidate {
        ram: 0x4000_0000,
        address: 0x0900_0000,
        model: Model::Pl011,
    },
    // Versatile Express, memory map RS1.
    Candidate {
        ram: 0x8000_0000,
        address: 0x1C09_0000,
        model: Model::Pl011,
    },
];

/// PrimeCell identification registers, and a PL011's values in their low bytes (DDI 0183 3.3.16-17).
const PL011_ID: [(usize, u32); 6] = [
    (0xFE0, 0x11),
    (0xFE4, 0x10),
    (0xFF0, 0x0D),
    (0xFF4, 0xF0),
    (0xFF8, 0x05),
    (0xFFC, 0xB1),
];

/// Returns the candidates for a machine that loaded the image at `load`.
pub fn candidates(load: u32) -> impl Iterator<Item = &'static Candidate> {
    const GIB: u32 = 1 << 30;
    CANDIDATES
        .iter()
        .filter(move |candidate| candidate.ram == load & !(GIB - 1))
}

impl Candidate {
    /// Returns whether the UART exists. `read` returns `None` if there is no device.
    pub fn is_there(&self, read: impl Fn(usize) -> Option<u32>) -> bool {
        PL011_ID
            .iter()
            .all(|(offset, id)| read(*offset).is_some_and(|word| word & 0xFF == *id))
    }
}

#[cfg(test)]
mod tests {
    use super::{PL011_ID, candidates};

    #[test]
    fn only_a_uart_that_identifies_itself_is_used() {
        let candidate = candidates(0x4001_0000).next().unwrap();
        let pl011 = |offset| {
            PL011_ID
                .iter()
                .find(|(at, _)| *at == offset)
                .map(|(_, id)| *id)
        };
        assert!(candidate.is_there(pl011));
        assert!(!candidate.is_there(|_| None));
        assert!(!candidate.is_there(|_| Some(0)));
    }

    #[test]
    fn an_unknown_machine_has_no_candidate() {
        assert_eq!(candidates(0xC000_0000).count(), 0);
    }
}
