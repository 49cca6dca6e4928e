//! A domain's emulated UART, and where its line ends: at the hypervisor's console.
//!
//! The registers are [`SbsaUart`]'s. What the guest sends appears on the console: as it is while the domain has the input,
//! and in lines that begin with `DOMn:` otherwise. What is typed for the domain waits here until it is read.

use alloc::sync::Arc;
use core::fmt::{self, Write};

use armv7::heap;
use armv7::syndrome::Width;
use arrayvec::ArrayVec;

use super::{Domain, guest_map, interface, registry};
use crate::console::{self, Switched};
use crate::emulate::sbsa_uart::{Line, Refused, SbsaUart};
use crate::error::Errno;
use crate::id::DomId;
use crate::sync::{Guard, Lock, rank};

/// Typed bytes that wait to be read.
const INPUT: usize = 1024;
/// Bytes of a line of a domain without the input: what Xen cuts them at.
const LINE: usize = 126;

/// A domain's UART.
pub type Uart = Arc<Lock<State, { rank::UART }>>;

/// The state of a UART.
pub struct State {
    registers: SbsaUart,
    terminal: Terminal,
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
pub fn open_on_console(domain: &Domain) -> Result<(), Errno> {
    let state = State {
        registers: SbsaUart::new(),
        terminal: Terminal {
            domain: domain.id,
            input: Queue {
                bytes: [0; INPUT],
                first: 0,
                len: 0,
            },
            line: ArrayVec::new(),
        },
    };
    let uart = heap::try_arc(Lock::new(state)).ok_or(Errno::NoMem)?;
    domain.set_uart(uart);
    console::add_input(domain.id);
    Ok(())
}

/// Takes a domain that ends, or shuts down, out of the round of the input. What it has written of a line is printed.
pub fn close(domain: &Domain) {
    let Some(uart) = domain.uart() else { return };
    let mut state = uart.lock();
    if !state.terminal.line.is_empty() {
        state.terminal.print_line();
    }
    drop(state);
    if let Some(switched) = console::remove_input(domain.id) {
        say(switched);
    }
}

/// Lets a domain that goes on take part in the round of the input again.
pub fn reopen(domain: &Domain) {
    if domain.uart().is_some() {
        console::add_input(domain.id);
    }
}

fn say(switched: Switched) {
    log::info!("{switched}");
}

/// Reads the register at `offset` of a domain's UART.
pub fn read(domain: &Domain, offset: u32, width: Width) -> Result<u32, Refused> {
    with(domain, |state| {
        state.registers.read(offset, width, &mut state.terminal)
    })
}

/// Writes to the register at `offset` of a domain's UART.
pub fn write(domain: &Domain, offset: u32, width: Width, value: u32) -> Result<(), Refused> {
    with(domain, |state| {
        state
            .registers
            .write(offset, width, value, &mut state.terminal)
    })
}

/// Gives a domain's UART a byte that was typed.
pub fn receive(domain: &Domain, byte: u8) {
    change(domain, |state| {
        state.terminal.input.push(byte);
        state.registers.arrived(&state.terminal);
    });
}

/// Tells all UARTs that the console takes more.
pub fn tell_of_room() {
    for domain in registry::all_that(|domain| domain.uart().is_some()) {
        change(&domain, |state| state.registers.drained(&state.terminal));
    }
}

fn with<T>(
    domain: &Domain,
    f: impl FnOnce(&mut State) -> Result<T, Refused>,
) -> Result<T, Refused> {
    change(domain, f).unwrap_or(Err(Refused))
}

/// Does something with a domain's UART, if it has one, and sets its interrupt line to what it is then.
fn change<T>(domain: &Domain, f: impl FnOnce(&mut State) -> T) -> Option<T> {
    let mut state = domain.uart()?.lock();
    let result = f(&mut state);
    set_line(domain, &state);
    Some(result)
}

/// Sets the interrupt line. With the UART locked, so that of two changes the later one counts.
fn set_line(domain: &Domain, state: &Guard<'_, State>) {
    if let Some(irq) = guest_map::uart_irq() {
        let mut vgic = domain.vgic.lock();
        let named = vgic.set_level(irq, state.registers.is_raised());
        interface::deliver(domain, vgic, named);
    }
}

#[cfg(test)]
mod tests;
