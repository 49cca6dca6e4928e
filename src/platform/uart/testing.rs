//! UARTs on a line of 115,200 baud, in virtual time: a byte takes ten bits, and each access of the processor takes a moment.
//!
//! They have what the drivers use: the FIFO with its levels, and each kind's own notion of the transmit interrupt. A PL011
//! (DDI 0183G 2.8) and an Exynos UART signal as the FIFO comes down through a level, a 16550 and a SCIF when it has become
//! empty; an i.MX and an STM32 UART for as long as the FIFO is down.

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;

use super::scif::SCIF;
use super::{Family, Model, Registers, Uart, Width};

/// Nanoseconds that a byte is on the line.
pub const BYTE: u64 = 86_806;
/// Nanoseconds of an access to a device register.
pub const ACCESS: u64 = 200;

/// A kind of UART, with the bytes of its FIFO.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Kind {
    Pl011(usize),
    /// 16450 with one byte.
    Ns16550(usize),
    Exynos(usize),
    Imx(usize),
    Stm32(usize),
    Scif(usize),
}

/// All that the tests try.
pub const KINDS: [Kind; 9] = [
    Kind::Pl011(16),
    Kind::Pl011(32),
    Kind::Ns16550(1),
    Kind::Ns16550(16),
    Kind::Exynos(16),
    Kind::Exynos(256),
    Kind::Imx(32),
    Kind::Stm32(16),
    Kind::Scif(16),
];

#[derive(Debug)]
struct State {
    kind: Kind,
    now: u64,
    /// The byte that is on the line, and when it has left.
    leaving: Option<(u8, u64)>,
    fifo: VecDeque<u8>,
    sent: Vec<u8>,
    /// The transmit interrupt, before its mask.
    raised: bool,
    /// The transmit interrupt is let through.
    enabled: bool,
    /// Somebody at the other end holds the line.
    held: bool,
}

/// One of them; a clone is the same one.
#[derive(Clone, Debug)]
pub struct Slow(Rc<RefCell<State>>);

impl Slow {
    /// Returns a UART, and its driver.
    pub fn new(kind: Kind) -> (Self, Uart<Self>) {
        let slow = Self(Rc::new(RefCell::new(State {
            kind,
            now: 0,
            leaving: None,
            fifo: VecDeque::new(),
            sent: Vec::new(),
            raised: false,
            enabled: false,
            held: false,
        })));
        let model = match kind {
            Kind::Pl011(_) => Model::Pl011,
            Kind::Ns16550(_) => Model::Ns16550 {
                shift: 0,
                width: Width::Byte,
                family: Family::Plain,
            },
            Kind::Exynos(_) => Model::Exynos4210,
            Kind::Imx(_) => Model::Imx,
            Kind::Stm32(_) => Model::Stm32h7,
            Kind::Scif(_) => Model::Scif(SCIF),
        };
        let uart = Uart::new(model, slow.clone());
        (slow, uart)
    }

    /// Nanoseconds so far.
    pub fn now(&self) -> u64 {
        self.0.borrow().now
    }

    /// Lets time pass.
    pub fn pass(&self, ns: u64) {
        self.0.borrow_mut().pass(ns);
    }

    /// Returns whether the interrupt line is up.
    pub fn signals(&self) -> bool {
        let state = self.0.borrow();
        state.raises() && state.enabled
    }

    /// Returns what has left.
    pub fn sent(&self) -> Vec<u8> {
        self.0.borrow().sent.clone()
    }

    /// Returns how many bytes have left.
    pub fn count(&self) -> usize {
        self.0.borrow().sent.len()
    }

    /// Nothing leaves any more.
    pub fn hold(&self) {
        self.0.borrow_mut().held = true;
    }
}

impl State {
    fn depth(&self) -> usize {
        match self.kind {
            Kind::Pl011(depth)
            | Kind::Ns16550(depth)
            | Kind::Exynos(depth)
            | Kind::Imx(depth)
            | Kind::Stm32(depth)
            | Kind::Scif(depth) => depth,
        }
    }

    /// Lets the interrupt come when the FIFO has come down to this.
    fn level(&self) -> usize {
        match self.kind {
            Kind::Pl011(depth) => depth / 8,
            Kind::Ns16550(_) | Kind::Stm32(_) | Kind::Scif(_) => 0,
            Kind::Exynos(depth) => depth / 4,
            Kind::Imx(_) => 1,
        }
    }

    /// Returns whether the transmit interrupt is up before its mask.
    fn raises(&self) -> bool {
        match self.kind {
            Kind::Imx(_) | Kind::Stm32(_) => self.fifo.len() <= self.level(),
            _ => self.raised,
        }
    }

    fn pass(&mut self, ns: u64) {
        self.now += ns;
        while !self.held
            && let Some((byte, end)) = self.leaving
            && end <= self.now
        {
            self.sent.push(byte);
            self.leaving = None;
            self.next(end);
        }
    }

    /// Moves the next byte onto the line.
    fn next(&mut self, at: u64) {
        if let Some(byte) = self.fifo.pop_front() {
            self.leaving = Some((byte, at + BYTE));
            self.raised |= self.fifo.len() == self.level();
        }
    }

    fn put(&mut self, byte: u8) {
        assert!(self.fifo.len() < self.depth(), "the FIFO overflows");
        self.fifo.push_back(byte);
        let above = self.fifo.len() > self.level();
        match self.kind {
            Kind::Pl011(_) | Kind::Ns16550(_) => self.raised &= !above,
            Kind::Exynos(_) | Kind::Imx(_) | Kind::Stm32(_) | Kind::Scif(_) => {}
        }
        if self.leaving.is_none() && !self.held {
            self.next(self.now);
        }
    }

    fn flag(&self, bit: u32, set: bool) -> u32 {
        u32::from(set) << bit
    }

    fn read(&mut self, offset: u32) -> u32 {
        let is_full = self.fifo.len() == self.depth();
        let is_busy = self.leaving.is_some() || !self.fifo.is_empty();
        match (self.kind, offset) {
            // FR: nothing received; MIS.
            (Kind::Pl011(_), 0x18) => self.flag(3, is_busy) | 1 << 4 | self.flag(5, is_full),
            (Kind::Pl011(_), 0x40) => self.flag(5, self.raised && self.enabled),
            // IIR, whose reading takes the interrupt back that it tells of; LSR.
            (Kind::Ns16550(depth), 2) => {
                let fifos = if depth > 1 { 0xc0 } else { 0 };
                let tells = self.raised && self.enabled;
                self.raised &= !tells;
                fifos | if tells { 2 } else { 1 }
            }
            (Kind::Ns16550(_), 5) => self.flag(5, self.fifo.is_empty()) | self.flag(6, !is_busy),
            // UTRSTAT, UFSTAT, UINTP.
            (Kind::Exynos(_), 0x10) => self.flag(2, !is_busy),
            (Kind::Exynos(_), 0x18) => self.flag(24, is_full),
            (Kind::Exynos(_), 0x30) => self.flag(2, self.raised && self.enabled),
            // USR2, UTS.
            (Kind::Imx(_), 0x98) => self.flag(3, !is_busy),
            (Kind::Imx(_), 0xb4) => self.flag(4, is_full),
            // ISR.
            (Kind::Stm32(_), 0x1c) => self.flag(6, !is_busy) | self.flag(7, !is_full),
            // FSR, FDR.
            (Kind::Scif(_), 0x10) => self.flag(5, self.raised) | self.flag(6, !is_busy),
            (Kind::Scif(_), 0x1c) => (self.fifo.len() as u32) << 8,
            _ => 0,
        }
    }

    fn write(&mut self, offset: u32, value: u32) {
        match (self.kind, offset) {
            (Kind::Pl011(_) | Kind::Ns16550(_), 0)
            | (Kind::Exynos(_), 0x20)
            | (Kind::Imx(_), 0x40)
            | (Kind::Stm32(_), 0x28)
            | (Kind::Scif(_), 0x0c) => {
                self.put(value as u8);
            }
            // IMSC, ICR.
            (Kind::Pl011(_), 0x38) => self.enabled = value & 1 << 5 != 0,
            (Kind::Pl011(_), 0x44) => self.raised &= value & 1 << 5 == 0,
            // IER: enabling it with nothing to send raises it.
            (Kind::Ns16550(_), 1) => {
                let was = core::mem::replace(&mut self.enabled, value & 2 != 0);
                self.raised |= self.enabled && !was && self.fifo.is_empty();
            }
            // UINTM, whose bits mask, and UINTP.
            (Kind::Exynos(_), 0x38) => self.enabled = value & 1 << 2 == 0,
            (Kind::Exynos(_), 0x30) => self.raised &= value & 1 << 2 == 0,
            // UCR1.
            (Kind::Imx(_), 0x80) => self.enabled = value & 1 << 13 != 0,
            // CR1.
            (Kind::Stm32(_), 0) => self.enabled = value & 1 << 30 != 0,
            // SCR; FSR, whose flag is kept while its reason lasts.
            (Kind::Scif(_), 0x08) => self.enabled = value & 1 << 7 != 0,
            (Kind::Scif(_), 0x10) if value & 1 << 5 == 0 => self.raised = self.fifo.is_empty(),
            _ => {}
        }
    }
}

impl Registers for Slow {
    fn read(&self, offset: u32, _: Width) -> u32 {
        let mut state = self.0.borrow_mut();
        state.pass(ACCESS);
        state.read(offset)
    }

    fn write(&mut self, offset: u32, _: Width, value: u32) {
        let mut state = self.0.borrow_mut();
        state.pass(ACCESS);
        state.write(offset, value);
    }
}
