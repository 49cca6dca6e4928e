//! UART drivers for the console: transmit, receive, receive interrupt; the firmware's baud rate stays.
//!
//! A driver sees its registers only through [`Registers`]: the boot code supplies device memory, a test supplies a fake.
//! Which driver it is the node's compatible decides at run time.

use super::tree::Node;

mod exynos4210;
mod ns16550;
mod pl011;

#[cfg(test)]
mod tests;

use exynos4210::Exynos4210;
use ns16550::Ns16550;
use pl011::Pl011;

/// Bytes of one register access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Width {
    /// One byte.
    Byte,
    /// Two bytes.
    Half,
    /// Four bytes.
    Word,
}

/// The registers of one UART.
pub trait Registers {
    /// Reads the register at a byte offset.
    fn read(&self, offset: u32, width: Width) -> u32;
    /// Writes the register at a byte offset.
    fn write(&mut self, offset: u32, width: Width, value: u32);
}

/// A UART that one of the drivers serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Model {
    /// ARM PrimeCell PL011.
    Pl011,
    /// 16550 and its many relatives.
    Ns16550 {
        /// log2 of the distance of two registers.
        shift: u32,
        /// Bytes of one access.
        width: Width,
    },
    /// Samsung Exynos.
    Exynos4210,
}

const PL011: &[&str] = &["arm,pl011", "arm,sbsa-uart"];
const EXYNOS4210: &[&str] = &["samsung,exynos4210-uart"];
const NS16550: &[&str] = &[
    "ns16550",
    "ns16550a",
    "ns16450",
    "snps,dw-apb-uart",
    "nvidia,tegra20-uart",
    "nvidia,tegra124-uart",
    "ti,omap2-uart",
    "ti,omap3-uart",
    "ti,omap4-uart",
    "ti,dra742-uart",
    "ti,am3352-uart",
    "marvell,armada-38x-uart",
];
/// Relatives whose registers are words apart although their trees may not say so.
const NS16550_WORDS: &[&str] = &[
    "ti,omap2-uart",
    "ti,omap3-uart",
    "ti,omap4-uart",
    "ti,dra742-uart",
    "ti,am3352-uart",
];

impl Model {
    /// The driver for a node, if there is one.
    pub fn of(node: &Node<'_>) -> Option<Self> {
        if node.is_compatible(PL011) {
            return Some(Self::Pl011);
        }
        if node.is_compatible(EXYNOS4210) {
            return Some(Self::Exynos4210);
        }
        if !node.is_compatible(NS16550) {
            return None;
        }
        let words = node.is_compatible(NS16550_WORDS);
        let shift = node.u32("reg-shift").unwrap_or(if words { 2 } else { 0 });
        let width = match node.u32("reg-io-width") {
            Some(4) => Width::Word,
            Some(2) => Width::Half,
            _ => Width::Byte,
        };
        Some(Self::Ns16550 {
            shift: shift.min(4),
            width,
        })
    }
}

/// One UART's driver.
#[derive(Debug)]
pub enum Uart<R> {
    /// ARM PrimeCell PL011.
    Pl011(Pl011<R>),
    /// 16550 and relatives.
    Ns16550(Ns16550<R>),
    /// Samsung Exynos.
    Exynos4210(Exynos4210<R>),
}

macro_rules! each {
    ($self:ident, $uart:ident => $call:expr) => {
        match $self {
            Uart::Pl011($uart) => $call,
            Uart::Ns16550($uart) => $call,
            Uart::Exynos4210($uart) => $call,
        }
    };
}

/// Polls of a full transmitter before a byte is given up: a dead UART must not stop the machine.
const PATIENCE: u32 = 1_000_000;

/// Asks until the answer is yes; false when patience is at its end.
#[inline]
fn patiently(mut is_done: impl FnMut() -> bool) -> bool {
    for _ in 0..PATIENCE {
        if is_done() {
            return true;
        }
        core::hint::spin_loop();
    }
    false
}

impl<R: Registers> Uart<R> {
    /// Makes the UART ready: FIFOs on, no interrupts; the line's speed and format stay as firmware set them.
    pub fn new(model: Model, registers: R) -> Self {
        match model {
            Model::Pl011 => Self::Pl011(Pl011::new(registers)),
            Model::Ns16550 { shift, width } => Self::Ns16550(Ns16550::new(registers, shift, width)),
            Model::Exynos4210 => Self::Exynos4210(Exynos4210::new(registers)),
        }
    }

    /// Sends a byte if there is room for it.
    pub fn try_put(&mut self, byte: u8) -> bool {
        each!(self, uart => uart.try_put(byte))
    }

    /// Sends a byte, waiting for room; a transmitter that never empties loses it.
    pub fn put(&mut self, byte: u8) {
        patiently(|| self.try_put(byte));
    }

    /// Sends a text with the line ends of a terminal. Which driver it goes to is decided once for all of it. After a byte that
    /// was given up the rest of the text is not waited for.
    pub fn put_text(&mut self, text: &[u8]) {
        each!(self, uart => {
            let mut waits = true;
            for &byte in text {
                if byte == b'\n' {
                    waits = waits && patiently(|| uart.try_put(b'\r'));
                }
                waits = waits && patiently(|| uart.try_put(byte));
            }
        });
    }

    /// Waits until everything has left, for the last words before a reset.
    pub fn flush(&mut self) {
        patiently(|| each!(self, uart => uart.is_idle()));
    }

    /// A received byte, if there is one.
    pub fn get(&mut self) -> Option<u8> {
        each!(self, uart => uart.get())
    }

    /// Lets received bytes raise the interrupt.
    pub fn enable_receive_interrupt(&mut self) {
        each!(self, uart => uart.enable_receive_interrupt());
    }

    /// Takes back what the UART signals; call it in the handler before [`Uart::get`] until that gives nothing.
    pub fn acknowledge(&mut self) {
        each!(self, uart => uart.acknowledge());
    }
}
