//! The queue of what is to be sent, and sending without waiting for the line.
//!
//! While the machine boots every byte is polled out: nothing else is there to be done, and a line is seen at once. From
//! [`Transmitter::queue_up`] on, what the UART does not take at once waits in a queue, which the UART's interrupt drains, or
//! a timer where the UART has none. A line of 115,200 baud takes 87 us for a byte, so nothing may wait for it with
//! interrupts masked, but the last words before the machine ends ([`Transmitter::flush`], [`Transmitter::poll`]).
//!
//! Bytes leave in the order in which they were sent, whatever waits for what.

use super::Ring;
use crate::platform::uart::{Interrupts, Registers, Uart};

/// Bytes that may wait. Debug keys print pages: they have what domains may not use.
const CAPACITY: u32 = 128 << 10;
/// Bytes in the queue above which dom0 has to wait with its own.
const OF_DOMAINS: u32 = 16 << 10;
/// Bytes in the queue above which the UARTs of domains have to wait: dom0 finds room then.
const OF_UARTS: u32 = 8 << 10;
/// Bytes in the queue above which nothing is added that need not be.
const ENOUGH: u32 = 32 << 10;
/// Bytes taken from the queue at a time.
const CHUNK: usize = 64;

/// How the queue is drained.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Drain {
    /// There is none: each byte is waited for.
    Polling,
    /// By the UART's interrupt.
    Interrupt,
    /// By whoever calls [`Transmitter::drain`] from time to time.
    Timer,
}

/// A UART with a queue before it.
#[derive(Debug)]
pub struct Transmitter<R> {
    uart: Uart<R>,
    queue: Ring,
    drain: Drain,
    raises_for: Interrupts,
}

impl<R: Registers> Transmitter<R> {
    /// Sends by polling.
    pub fn new(uart: Uart<R>) -> Self {
        Self {
            uart,
            queue: Ring::new(),
            drain: Drain::Polling,
            raises_for: Interrupts::None,
        }
    }

    /// Lets typing raise the UART's interrupt, which somebody handles from now on.
    pub fn enable_interrupt(&mut self) {
        self.raise_for(Interrupts::Receive);
    }

    /// Lets wait what the UART does not take at once; false without memory for that.
    pub fn queue_up(&mut self) -> bool {
        let queues = self.queue.resize(CAPACITY);
        if queues {
            self.drain = match self.raises_for {
                Interrupts::None => Drain::Timer,
                _ => Drain::Interrupt,
            };
        }
        queues
    }

    /// Polls everything out that waits, and from now on.
    pub fn poll(&mut self) {
        self.poll_out(self.queue.len());
        self.drain = Drain::Polling;
    }

    /// Returns whether bytes wait that no interrupt drains.
    pub fn wants_timer(&self) -> bool {
        self.drain == Drain::Timer && self.queue.len() != 0
    }

    /// Returns whether there is room for more than must be said.
    pub fn has_room(&self) -> bool {
        self.queue.len() < ENOUGH
    }

    /// Returns whether there is room for what the UART of a domain sends.
    pub fn takes_from_uarts(&self) -> bool {
        self.queue.len() < OF_UARTS
    }

    /// Returns the bytes that there is room for of what dom0 says. The UARTs of domains, which stop earlier, always have as much
    /// as a line takes.
    pub fn room_of_domains(&self) -> usize {
        OF_DOMAINS.saturating_sub(self.queue.len()) as usize
    }

    /// Sends what a domain says, as much as there is room for, and returns how much that was.
    pub fn send_of_domain(&mut self, text: &[u8]) -> usize {
        if self.queue.len() != 0 {
            // Bytes that have left in the meantime make room, even if no interrupt tells so.
            self.drain();
        }
        let room = OF_DOMAINS.saturating_sub(self.queue.len()) as usize;
        let text = text.get(..room).unwrap_or(text);
        self.send(text);
        text.len()
    }

    /// Sends what the hypervisor says. All of it: what finds no room even in the queue is waited for.
    pub fn send(&mut self, text: &[u8]) {
        if self.drain == Drain::Polling {
            return self.uart.put_all(text);
        }
        let sent = match self.queue.len() {
            0 => self.uart.put_some(text),
            _ => 0,
        };
        if sent == text.len() {
            return;
        }
        for part in text.get(sent..).unwrap_or(&[]).chunks(CHUNK) {
            let room = CAPACITY - self.queue.len();
            self.poll_out((part.len() as u32).saturating_sub(room));
            self.queue.push(part);
        }
        self.drain();
    }

    /// Gives the UART what it takes, and has it ask for more if something is left.
    pub fn drain(&mut self) {
        self.fill();
        if self.drain != Drain::Interrupt {
            return;
        }
        match self.queue.len() {
            0 => self.raise_for(Interrupts::Receive),
            _ => {
                self.raise_for(Interrupts::ReceiveAndTransmit);
                // Bytes that left before that were not told of.
                self.fill();
            }
        }
    }

    /// Takes back what the UART signals, and hands what it has received to `take`; at most `most` bytes.
    pub fn receive(&mut self, most: usize, mut take: impl FnMut(u8)) {
        self.uart.acknowledge();
        for _ in 0..most {
            let Some(byte) = self.uart.get() else { return };
            take(byte);
        }
    }

    /// Waits until everything has left: the last words before the machine ends.
    pub fn flush(&mut self) {
        self.poll_out(self.queue.len());
        self.uart.flush();
    }

    fn raise_for(&mut self, what: Interrupts) {
        if self.raises_for != what {
            self.raises_for = what;
            self.uart.raise_for(what);
        }
    }

    fn fill(&mut self) {
        self.take_out(self.queue.len(), Uart::put_some);
    }

    /// Waits until `count` bytes of the queue have been taken.
    fn poll_out(&mut self, count: u32) {
        self.take_out(count, |uart, chunk| {
            uart.put_all(chunk);
            chunk.len()
        });
    }

    /// Takes up to `count` bytes out of the queue, in chunks, until `put` takes no more of one.
    fn take_out(&mut self, count: u32, mut put: impl FnMut(&mut Uart<R>, &[u8]) -> usize) {
        let mut left = count as usize;
        let mut chunk = [0; CHUNK];
        while left != 0 {
            let Some(part) = chunk.get_mut(..left.min(CHUNK)) else {
                return;
            };
            let start = self.queue.start();
            let (there, _) = self.queue.read(start, part);
            let taken = put(&mut self.uart, part.get(..there).unwrap_or(&[]));
            self.queue.consume(start.wrapping_add(taken as u32));
            left -= taken;
            if taken < part.len() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
