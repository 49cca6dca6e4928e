//! A domain's emulated UART, and where its line ends: at the hypervisor's console, or in a page that it shares with a daemon
//! of dom0's (`ring`).
//!
//! The registers are [`SbsaUart`]'s. What the guest sends to the console appears there as it is while the domain has the
//! input, and in lines that begin with `DOMn:` otherwise. What is typed for the domain waits here until it is read.

mod ring;

use core::fmt::{self, Write};

use armv7::addr::{Mfn, PAGE_SHIFT};
use armv7::heap;
use armv7::syndrome::Width;
use arrayvec::ArrayVec;

use super::guest_map::Layout;
use super::{Domain, interface, registry};
use crate::console::{self, Switched};
use crate::emulate::sbsa_uart::{Line, Refused, SbsaUart};
use crate::error::Errno;
use crate::event::{Port, Sent};
use crate::id::{DomId, IntId};
use crate::sync::{Guard, Lock, rank};

use ring::Ring;

/// Typed bytes that wait to be read.
const INPUT: usize = 1024;
/// Bytes of a line of a domain without the input: what Xen cuts them at.
const LINE: usize = 126;

/// A domain's UART.
pub struct Uart {
    /// The guest page of its registers.
    pub page: u32,
    /// Its interrupt.
    pub irq: IntId,
    state: Lock<State, { rank::UART }>,
}

/// The state of a UART.
pub struct State {
    registers: SbsaUart,
    end: End,
}

/// The line's other end.
#[expect(
    clippy::large_enum_variant,
    reason = "it stays where it is, behind the UART's lock"
)]
enum End {
    Console(Terminal),
    Ring(Ring),
    /// It was there, and its domain ends.
    Gone,
}

impl End {
    fn terminal(&mut self) -> Option<&mut Terminal> {
        match self {
            Self::Console(terminal) => Some(terminal),
            _ => None,
        }
    }

    /// Returns the port on which the other end is to be told of what changed in the ring, if something did.
    fn take_news(&mut self) -> Option<Port> {
        match self {
            Self::Ring(ring) => ring.take_news(),
            _ => None,
        }
    }
}

impl Line for End {
    fn take(&mut self) -> Option<u8> {
        match self {
            Self::Console(terminal) => terminal.take(),
            Self::Ring(ring) => ring.take(),
            Self::Gone => None,
        }
    }

    fn waiting(&self) -> usize {
        match self {
            Self::Console(terminal) => terminal.waiting(),
            Self::Ring(ring) => ring.waiting(),
            Self::Gone => 0,
        }
    }

    fn is_full(&self) -> bool {
        match self {
            Self::Console(terminal) => terminal.is_full(),
            Self::Ring(ring) => ring.is_full(),
            Self::Gone => false,
        }
    }

    fn has_room(&self) -> bool {
        match self {
            Self::Console(terminal) => terminal.has_room(),
            Self::Ring(ring) => ring.has_room(),
            Self::Gone => true,
        }
    }

    fn send(&mut self, byte: u8) {
        match self {
            Self::Console(terminal) => terminal.send(byte),
            Self::Ring(ring) => ring.send(byte),
            Self::Gone => {}
        }
    }
}

/// The line's end on the hypervisor's console.
struct Terminal {
    domain: DomId,
    input: Queue,
    /// Bytes sent while another domain has the input, up to the end of their line.
    line: ArrayVec<u8, LINE>,
}

/// Bytes in the order in which they came.
struct Queue {
    bytes: [u8; INPUT],
    first: usize,
    len: usize,
}

impl Queue {
    /// Adds a byte; one too many is lost.
    fn push(&mut self, byte: u8) {
        let at = (self.first + self.len) % INPUT;
        if self.len < INPUT
            && let Some(cell) = self.bytes.get_mut(at)
        {
            *cell = byte;
            self.len += 1;
        }
    }

    fn pop(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.first).filter(|_| self.len > 0)?;
        self.first = (self.first + 1) % INPUT;
        self.len -= 1;
        Some(byte)
    }
}

impl Terminal {
    /// Prints the line that is held back.
    fn print_line(&mut self) {
        let line = core::mem::take(&mut self.line);
        crate::log::print(format_args!("DOM{}: {}", self.domain.0, Printable(&line)));
    }
}

impl Line for Terminal {
    fn take(&mut self) -> Option<u8> {
        self.input.pop()
    }

    fn waiting(&self) -> usize {
        self.input.len
    }

    fn is_full(&self) -> bool {
        self.input.len == INPUT
    }

    fn has_room(&self) -> bool {
        console::takes_from_uarts()
    }

    fn send(&mut self, byte: u8) {
        if console::has_input(self.domain) {
            if !self.line.is_empty() {
                console::write_of_uart(self.domain, &self.line);
                self.line.clear();
            }
            return console::write_of_uart(self.domain, &[byte]);
        }
        if byte == b'\n' {
            return self.print_line();
        }
        if self.line.is_full() {
            self.print_line();
        }
        self.line.push(byte);
    }
}

/// Text of a guest in a line of the hypervisor's: what could move the cursor is left out or shown as a question mark.
struct Printable<'a>(&'a [u8]);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            match byte {
                b'\r' => {}
                b' '..=b'~' | b'\t' => f.write_char(char::from(*byte))?,
                _ => f.write_char('?')?,
            }
        }
        Ok(())
    }
}

/// Gives a domain, which has not run yet, a UART on the console, and lets it take part in the round of the input.
pub fn open_on_console(domain: &Domain, layout: &Layout) -> Result<(), Errno> {
    let terminal = Terminal {
        domain: domain.id,
        input: Queue {
            bytes: [0; INPUT],
            first: 0,
            len: 0,
        },
        line: ArrayVec::new(),
    };
    open(domain, layout, End::Console(terminal))?;
    take_part(domain);
    Ok(())
}

/// Gives a domain, which has not run yet, a UART whose line ends in its page at `gfn`, and returns the port that `other`,
/// which reads and writes there, is to bind to.
pub fn open_on_ring(domain: &Domain, gfn: u64, other: DomId) -> Result<Port, Errno> {
    let layout = Layout::new().ok_or(Errno::Inval)?;
    let irq = layout.uart_irq;
    if domain.uart().is_some() || other == domain.id {
        return Err(Errno::Inval);
    }
    let vgic = domain.vgic.lock();
    let has_interrupt = vgic.target_of(irq).is_some() && vgic.pirq_of(irq).is_none();
    drop(vgic);
    if !has_interrupt {
        return Err(Errno::Inval);
    }
    let page = domain.pin(gfn)?;
    let port = domain.events.lock().offer(other)?;
    open(domain, &layout, End::Ring(Ring::new(page, port)))?;
    Ok(port)
}

fn open(domain: &Domain, layout: &Layout, end: End) -> Result<(), Errno> {
    let registers = SbsaUart::new();
    let uart = Uart {
        page: (layout.uart.0 >> PAGE_SHIFT) as u32,
        irq: layout.uart_irq,
        state: Lock::new(State { registers, end }),
    };
    domain.set_uart(heap::try_arc(uart).ok_or(Errno::NoMem)?);
    Ok(())
}

/// Takes a domain that shuts down out of the round of the input. What it has written of a line is printed.
pub fn close(domain: &Domain) {
    let Some(uart) = domain.uart() else { return };
    let mut state = uart.state.lock();
    if let Some(terminal) = state.end.terminal()
        && !terminal.line.is_empty()
    {
        terminal.print_line();
    }
    drop(state);
    if let Some(switched) = console::remove_input(domain.id) {
        say(switched);
    }
}

/// Does as [`close`] for a domain that ends, and lets go of its page.
pub fn end(domain: &Domain) {
    close(domain);
    if let Some(uart) = domain.uart() {
        let end = core::mem::replace(&mut uart.state.lock().end, End::Gone);
        drop(end);
    }
}

/// Returns the page that the hypervisor keeps for a domain's UART.
pub fn ring_page(domain: &Domain) -> Option<Mfn> {
    match &domain.uart()?.state.lock().end {
        End::Ring(ring) => Some(ring.mfn()),
        _ => None,
    }
}

/// Lets a domain that goes on take part in the round of the input again.
pub fn reopen(domain: &Domain) {
    let on_console = |uart: &Uart| uart.state.lock().end.terminal().is_some();
    if domain.uart().is_some_and(on_console) {
        take_part(domain);
    }
}

/// Lets a domain take part in the round of the input.
fn take_part(domain: &Domain) {
    if let Some(switched) = console::add_input(domain.id) {
        say(switched);
    }
}

fn say(switched: Switched) {
    log::info!("{switched}");
}

/// Reads the register at `offset` of a domain's UART.
pub fn read(domain: &Domain, offset: u32, width: Width) -> Result<u32, Refused> {
    with(domain, |state| {
        state.registers.read(offset, width, &mut state.end)
    })
}

/// Writes to the register at `offset` of a domain's UART.
pub fn write(domain: &Domain, offset: u32, width: Width, value: u32) -> Result<(), Refused> {
    with(domain, |state| {
        state.registers.write(offset, width, value, &mut state.end)
    })
}

/// Gives a domain's UART a byte that was typed.
pub fn receive(domain: &Domain, byte: u8) {
    change(domain, |state| {
        if let Some(terminal) = state.end.terminal() {
            terminal.input.push(byte);
        }
        state.registers.arrived(&state.end);
    });
}

/// Tells all UARTs that the console takes more.
pub fn tell_of_room() {
    for domain in registry::all_that(|domain| domain.uart().is_some()) {
        change(&domain, |state| state.registers.drained(&state.end));
    }
}

/// Handles an event on `port` for a domain's UART, if it has one: the other end of its line has read or written.
pub fn on_event(domain: &Domain, port: Port) {
    if domain.uart().is_some() {
        on_ring_event(domain, port);
    }
}

#[cold]
fn on_ring_event(domain: &Domain, port: Port) {
    change(domain, |state| {
        if let End::Ring(ring) = &state.end
            && ring.port() == port
        {
            state.registers.arrived(&state.end);
            state.registers.drained(&state.end);
        }
    });
}

fn with<T>(
    domain: &Domain,
    f: impl FnOnce(&mut State) -> Result<T, Refused>,
) -> Result<T, Refused> {
    change(domain, f).unwrap_or(Err(Refused))
}

/// Does something with a domain's UART, if it has one, and sets its interrupt line to what it is then.
fn change<T>(domain: &Domain, f: impl FnOnce(&mut State) -> T) -> Option<T> {
    let uart = domain.uart()?;
    let mut state = uart.state.lock();
    let result = f(&mut state);
    set_line(domain, uart.irq, &state);
    let news = state.end.take_news();
    drop(state);
    if let Some(port) = news {
        notify(domain, port);
    }
    Some(result)
}

/// Sends an event to the other end of the line.
fn notify(domain: &Domain, port: Port) {
    let sent = domain.events.lock().send_of_hypervisor(port);
    if let Sent::Peer { to, from } = sent
        && let Some(peer) = registry::get(to.dom)
    {
        let notify = peer.events.lock().raise_from_peer(to.port, from);
        peer.notify(notify);
    }
}

/// Sets the interrupt line. With the UART locked, so that of two changes the later one counts.
fn set_line(domain: &Domain, irq: IntId, state: &Guard<'_, State>) {
    let mut vgic = domain.vgic.lock();
    let named = vgic.set_level(irq, state.registers.is_raised());
    interface::deliver(domain, vgic, named);
}

#[cfg(test)]
mod tests;
