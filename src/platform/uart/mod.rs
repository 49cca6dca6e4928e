//! UART drivers for the console: transmit, receive, interrupts. The firmware's baud rate is kept.
//!
//! A driver accesses its registers only through [`Registers`]: boot supplies device memory, a test supplies a fake. The
//! node's compatible selects the driver at run time.
//!
//! Sending by interrupt follows one rule, for level and edge interrupts alike: put bytes until the transmitter takes no
//! more ([`Uart::put_some`]), enable the interrupt ([`Uart::raise_for`]), and put again, to replace bytes sent in
//! between. Then the FIFO was full after enabling, and its draining raises the interrupt. The handler calls
//! [`Uart::acknowledge`] first.

mod exynos4210;
mod imx;
mod ns16550;
mod pl011;
mod scif;
mod stm32h7;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use dt::Node;

use exynos4210::Exynos4210;
use imx::Imx;
pub use ns16550::Family;
use ns16550::Ns16550;
use pl011::Pl011;
use scif::{Layout, Scif};
use stm32h7::Stm32h7;

/// Width of a register access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Width {
    /// One byte.
    Byte,
    /// Two bytes.
    Half,
    /// Four bytes.
    Word,
}

/// Registers of a UART.
pub trait Registers {
    /// Reads the register at a byte offset.
    fn read(&self, offset: u32, width: Width) -> u32;
    /// Writes the register at a byte offset.
    fn write(&mut self, offset: u32, width: Width, value: u32);
}

/// Enabled interrupts of a UART.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interrupts {
    /// None, as after [`Uart::new`].
    None,
    /// Bytes received.
    Receive,
    /// Bytes received, or space to send more.
    ReceiveAndTransmit,
}

/// A UART model with a driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Model {
    /// ARM PrimeCell PL011.
    Pl011,
    /// 16550 and compatibles.
    Ns16550 {
        /// log2 of the distance in bytes between registers.
        shift: u32,
        /// Width of an access.
        width: Width,
        /// Registers in addition to a 16550's.
        family: Family,
    },
    /// Samsung Exynos.
    Exynos4210,
    /// NXP i.MX.
    Imx,
    /// ST's USART with FIFOs.
    Stm32h7,
    /// Renesas SCIF.
    Scif(Layout),
}

/// A model's name, and where it is found.
struct Row {
    /// Name on the command line, as Linux' `earlycon=` has it.
    name: &'static str,
    /// Compatibles of nodes.
    compatible: &'static [&'static str],
    /// Driver; a 16550's node may say another distance and width.
    model: Model,
}

const fn ns16550(shift: u32, width: Width, family: Family) -> Model {
    Model::Ns16550 {
        shift,
        width,
        family,
    }
}

const ROWS: &[Row] = &[
    Row {
        name: "pl011",
        compatible: &["arm,pl011", "arm,sbsa-uart"],
        model: Model::Pl011,
    },
    Row {
        name: "exynos4210",
        compatible: &["samsung,exynos4210-uart"],
        model: Model::Exynos4210,
    },
    Row {
        name: "imx",
        compatible: &["fsl,imx6q-uart", "fsl,imx6ul-uart", "fsl,imx7d-uart"],
        model: Model::Imx,
    },
    Row {
        name: "stm32",
        compatible: &["st,stm32h7-uart"],
        model: Model::Stm32h7,
    },
    Row {
        name: "scif",
        compatible: &["renesas,scif", "renesas,hscif"],
        model: Model::Scif(scif::SCIF),
    },
    Row {
        name: "scifa",
        compatible: &["renesas,scifa"],
        model: Model::Scif(scif::SCIFA),
    },
    // OMAP's trees may omit the distance.
    Row {
        name: "omap8250",
        compatible: &[
            "ti,omap2-uart",
            "ti,omap3-uart",
            "ti,omap4-uart",
            "ti,dra742-uart",
            "ti,am3352-uart",
        ],
        model: ns16550(2, Width::Byte, Family::Omap),
    },
    // So may those of MediaTek, and of Tegra's UARTs with DMA, which do without as well.
    Row {
        name: "uart8250,mmio32",
        compatible: &[
            "mediatek,mt6577-uart",
            "nvidia,tegra30-hsuart",
            "nvidia,tegra20-hsuart",
        ],
        model: ns16550(2, Width::Word, Family::Plain),
    },
    Row {
        name: "uart8250,mmio",
        compatible: &[
            "ns16550",
            "ns16550a",
            "ns16450",
            "snps,dw-apb-uart",
            "nvidia,tegra20-uart",
            "nvidia,tegra124-uart",
            "marvell,armada-38x-uart",
        ],
        model: ns16550(0, Width::Byte, Family::Plain),
    },
];

impl Model {
    /// Returns the driver for a node, if any.
    pub fn of(node: &Node<'_>) -> Option<Self> {
        let row = ROWS.iter().find(|row| node.is_compatible(row.compatible))?;
        let Self::Ns16550 {
            shift,
            width,
            family,
        } = row.model
        else {
            return Some(row.model);
        };
        let width = match node.u32("reg-io-width") {
            Some(4) => Width::Word,
            Some(2) => Width::Half,
            Some(_) => Width::Byte,
            None => width,
        };
        Some(ns16550(
            node.u32("reg-shift").unwrap_or(shift).min(4),
            width,
            family,
        ))
    }

    /// Returns the driver with this name on the command line.
    pub fn named(name: &str) -> Option<Self> {
        let row = ROWS.iter().find(|row| row.name == name)?;
        Some(row.model)
    }
}

/// Driver of one UART.
#[derive(Debug)]
enum Driver<R> {
    Pl011(Pl011<R>),
    Ns16550(Ns16550<R>),
    Exynos4210(Exynos4210<R>),
    Imx(Imx<R>),
    Stm32h7(Stm32h7<R>),
    Scif(Scif<R>),
}

macro_rules! each {
    ($driver:expr, $uart:ident => $call:expr) => {
        match $driver {
            Driver::Pl011($uart) => $call,
            Driver::Ns16550($uart) => $call,
            Driver::Exynos4210($uart) => $call,
            Driver::Imx($uart) => $call,
            Driver::Stm32h7($uart) => $call,
            Driver::Scif($uart) => $call,
        }
    };
}

/// Maximum polls of a full transmitter: a dead UART must not stop the machine.
const PATIENCE: u32 = 1_000_000;

/// One UART.
#[derive(Debug)]
pub struct Uart<R> {
    driver: Driver<R>,
    /// The carriage return before the next line feed has been sent.
    returned: bool,
    /// Polls left before the transmitter counts as dead. A dead one is offered each byte once, until it takes one.
    patience: u32,
}

impl<R: Registers> Uart<R> {
    /// Initializes the UART: FIFOs on, interrupts off. Keeps firmware's speed and format.
    pub fn new(model: Model, registers: R) -> Self {
        let driver = match model {
            Model::Pl011 => Driver::Pl011(Pl011::new(registers)),
            Model::Ns16550 {
                shift,
                width,
                family,
            } => Driver::Ns16550(Ns16550::new(registers, shift, width, family)),
            Model::Exynos4210 => Driver::Exynos4210(Exynos4210::new(registers)),
            Model::Imx => Driver::Imx(Imx::new(registers)),
            Model::Stm32h7 => Driver::Stm32h7(Stm32h7::new(registers)),
            Model::Scif(layout) => Driver::Scif(Scif::new(registers, layout)),
        };
        Self {
            driver,
            returned: false,
            patience: PATIENCE,
        }
    }

    /// Sends as much of a text as there is space for, with a terminal's line ends. Returns the number of bytes of
    /// `text` sent. The driver is selected once for all of it.
    pub fn put_some(&mut self, text: &[u8]) -> usize {
        let returned = &mut self.returned;
        each!(&mut self.driver, uart => {
            for (count, &byte) in text.iter().enumerate() {
                let put = if byte == b'\n' {
                    *returned = *returned || uart.try_put(b'\r');
                    let put = *returned && uart.try_put(byte);
                    *returned &= !put;
                    put
                } else {
                    uart.try_put(byte)
                };
                if !put {
                    return count;
                }
            }
            text.len()
        })
    }

    /// Sends a text, waiting for space. Discards it if the transmitter is dead.
    pub fn put_all(&mut self, mut text: &[u8]) {
        while !text.is_empty() {
            let mut count = self.put_some(text);
            if count != 0 {
                self.patience = PATIENCE;
            } else if !self.may_wait() {
                count = 1;
            }
            text = text.get(count..).unwrap_or(&[]);
        }
    }

    /// Waits until all bytes have been sent, before a reset.
    pub fn flush(&mut self) {
        while !each!(&self.driver, uart => uart.is_idle()) && self.may_wait() {}
    }

    /// Returns whether to poll the transmitter again.
    fn may_wait(&mut self) -> bool {
        let waits = self.patience != 0;
        self.patience = self.patience.saturating_sub(1);
        core::hint::spin_loop();
        waits
    }

    /// Returns a received byte, if any.
    pub fn get(&mut self) -> Option<u8> {
        each!(&mut self.driver, uart => uart.get())
    }

    /// Enables the interrupts `what`, and no others.
    pub fn raise_for(&mut self, what: Interrupts) {
        each!(&mut self.driver, uart => uart.raise_for(what));
    }

    /// Clears the UART's interrupt. A handler calls it before reading by [`Uart::get`] until that returns `None`, and
    /// before sending more.
    pub fn acknowledge(&mut self) {
        each!(&mut self.driver, uart => uart.acknowledge());
    }
}
