//! The console: one UART, shared by the hypervisor, dom0 and the domains whose emulated UARTs are connected to it, and the
//! ring of past output.
//!
//! Output goes to the UART by a queue (`transmit`), and into the ring. Input goes to one of the domains that take it, or to
//! the hypervisor's debug keys: the switch character (Ctrl-A by default), typed three times, moves it to the next (`focus`).
//! This room only moves bytes. The actions that received bytes call for (an event for dom0, an interrupt of a UART, a debug
//! key) are returned as [`Received`].

mod focus;
mod open_line;
mod ring;
mod transmit;

use core::fmt;

use armv7::mmio::Window;
use arrayvec::ArrayVec;
use spin::Once;

use crate::id::DomId;
use crate::platform::uart::{Model, Registers, Uart, Width};
use crate::sync::{Lock, rank};

use focus::Inputs;
pub use focus::Switched;
use open_line::OpenLines;
use ring::Ring;
use transmit::Transmitter;

/// The size of dom0's input buffer, in bytes.
const INPUT_SIZE: usize = 1024;
/// The bytes that one interrupt takes from the UART.
const RECEIVED_AT_ONCE: usize = 256;
/// The number of switch characters in a row that moves the input.
const SWITCH_PRESSES: u8 = 3;

/// A UART's registers, where the machine has them.
#[derive(Debug)]
pub struct MappedUart(Window);

impl Registers for MappedUart {
    fn read(&self, offset: u32, width: Width) -> u32 {
        let offset = offset as usize;
        match width {
            Width::Byte => self.0.read8(offset).into(),
            Width::Half => self.0.read16(offset).into(),
            Width::Word => self.0.read32(offset),
        }
    }

    fn write(&mut self, offset: u32, width: Width, value: u32) {
        let offset = offset as usize;
        match width {
            Width::Byte => self.0.write8(offset, value as u8),
            Width::Half => self.0.write16(offset, value as u16),
            Width::Word => self.0.write32(offset, value),
        }
    }
}

/// The actions that received bytes call for.
#[derive(Debug, Default)]
pub struct Received {
    /// dom0 has input to read.
    pub for_dom0: bool,
    /// Input for the UARTs of other domains.
    pub for_uarts: ArrayVec<(DomId, u8), RECEIVED_AT_ONCE>,
    /// The hypervisor's debug keys.
    pub keys: ArrayVec<u8, 32>,
    /// The input moved: a line to print.
    pub switched: Option<Switched>,
}

struct Console {
    line: Option<Transmitter<MappedUart>>,
    ring: Ring,
    input: ArrayVec<u8, INPUT_SIZE>,
    inputs: Inputs,
    switch_char: u8,
    presses: u8,
    /// The lines that are not ended. Kept only where domains have UARTs.
    open: OpenLines,
    /// A domain's UART has found no room.
    is_awaited: bool,
    /// True if the ring keeps the output of domains as well.
    keep_domains: bool,
}

static CONSOLE: Lock<Console, { rank::CONSOLE }> = Lock::new(Console {
    line: None,
    ring: Ring::new(),
    input: ArrayVec::new_const(),
    inputs: Inputs::new(),
    switch_char: 1,
    presses: 0,
    open: OpenLines::new(),
    is_awaited: false,
    keep_domains: false,
});

/// The console's notifications to the rest of the hypervisor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum News {
    /// The ring has new output.
    Kept,
    /// Output waits that no interrupt will send: [`drain`] is to be called soon.
    Waiting,
    /// There is room again, for which the UART of some domain waits.
    Room,
}

/// The receiver of [`News`].
static LISTENER: Once<fn(News)> = Once::new();

/// Sets the receiver of [`News`]. It is called with the console locked.
pub fn listen(listener: fn(News)) {
    LISTENER.call_once(|| listener);
}

fn tell(news: News) {
    if let Some(listener) = LISTENER.get() {
        listener(news);
    }
}

impl Console {
    /// Writes output of the hypervisor.
    fn put(&mut self, data: &[u8]) {
        self.keep(data);
        if let Some(line) = &mut self.line {
            line.send(data);
            self.look_after();
        }
    }

    /// Writes what a domain says, as much as there is room for, and returns how much that was. Where several write, the line of
    /// another one is ended first, and one of its own that was interrupted is begun again.
    fn put_of_domain(&mut self, domain: DomId, data: &[u8]) -> usize {
        if !self.inputs.has_uarts() {
            return self.put_some(data);
        }
        if self.open.is_in_another(domain) {
            self.end_open_line();
        }
        if !self.open.is_in_any() && !self.begin_again(domain) {
            return 0;
        }
        let count = self.put_some(data);
        self.open.wrote(domain, data.get(..count).unwrap_or(data));
        count
    }

    /// Begins the line again that `domain` was interrupted in, if there was one. False if there is no room for all of it.
    #[inline(never)]
    fn begin_again(&mut self, domain: DomId) -> bool {
        let begun = self.open.begun(domain);
        let line = self.line.as_ref();
        let has_room = line.is_none_or(|line| line.room_of_domains() >= begun.len());
        if has_room {
            self.put_some(&begun);
        }
        has_room
    }

    /// Ends the line that a domain left open.
    fn end_open_line(&mut self) {
        if self.open.interrupt() {
            self.put(b"\n");
        }
    }

    /// Writes what a domain says, as much as there is room for, and returns how much that was.
    fn put_some(&mut self, data: &[u8]) -> usize {
        let count = match &mut self.line {
            Some(line) => line.send_of_domain(data),
            None => data.len(),
        };
        self.look_after();
        if self.keep_domains {
            self.keep(data.get(..count).unwrap_or(data));
        }
        count
    }

    fn keep(&mut self, data: &[u8]) {
        self.ring.push(data);
        tell(News::Kept);
    }

    /// Asks for a call of [`drain`] if output waits and the UART has no interrupt.
    fn look_after(&self) {
        if self.line.as_ref().is_some_and(Transmitter::wants_timer) {
            tell(News::Waiting);
        }
    }

    fn take(&mut self, byte: u8, received: &mut Received) {
        if self.switch_char != 0 && byte == self.switch_char {
            self.presses += 1;
            if self.presses == SWITCH_PRESSES {
                self.presses = 0;
                received.switched = Some(self.inputs.switch());
            }
            return;
        }
        for _ in 0..core::mem::take(&mut self.presses) {
            self.deliver(self.switch_char, received);
        }
        self.deliver(byte, received);
    }

    fn deliver(&mut self, byte: u8, received: &mut Received) {
        match self.inputs.focus() {
            // Input beyond a full buffer is lost, as in a terminal.
            Some(DomId::DOM0) => received.for_dom0 |= self.input.try_push(byte).is_ok(),
            Some(domain) => {
                if !received.for_uarts.is_full() {
                    received.for_uarts.push((domain, byte));
                }
            }
            None if received.keys.is_full() => {}
            None => received.keys.push(byte),
        }
    }

    /// Announces room if the UART of some domain waits for it.
    fn announce_room(&mut self) {
        if self.is_awaited && self.takes_from_uarts() {
            self.is_awaited = false;
            tell(News::Room);
        }
    }

    fn takes_from_uarts(&self) -> bool {
        let line = self.line.as_ref();
        line.is_none_or(Transmitter::takes_from_uarts)
    }
}

/// Starts to use the UART behind `window`, and prints the ring's content on it.
pub fn attach(model: Model, window: Window) {
    let mut console = CONSOLE.lock();
    let mut uart = Uart::new(model, MappedUart(window));
    let mut at = console.ring.start();
    let mut chunk = [0; 64];
    loop {
        let (count, next) = console.ring.read(at, &mut chunk);
        if count == 0 {
            break;
        }
        uart.put_all(chunk.get(..count).unwrap_or(&chunk));
        at = next;
    }
    console.line = Some(Transmitter::new(uart));
}

/// The size of the ring before there is a heap, in bytes.
const FIRST_RING: u32 = 4 << 10;

/// Starts to keep output, to be printed once there is a UART.
pub fn remember() {
    CONSOLE.lock().ring.resize(FIRST_RING);
}

/// The console's options on the command line.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The switch character; 0 for none.
    pub switch_char: u8,
    /// True if the ring keeps the output of domains as well.
    pub keep_domains: bool,
}

/// Applies the options, once the command line has been read.
pub fn configure(settings: &Settings) {
    let mut console = CONSOLE.lock();
    console.switch_char = settings.switch_char;
    console.keep_domains = settings.keep_domains;
}

/// Sets the size of the ring. Returns false, and changes nothing, if there is no memory for it.
pub fn keep(bytes: u32) -> bool {
    CONSOLE.lock().ring.resize(bytes)
}

/// Enables the UART's interrupt, whose handler calls [`serve`].
pub fn enable_interrupt() {
    if let Some(line) = &mut CONSOLE.lock().line {
        line.enable_interrupt();
    }
}

/// Ends polling: from here on, output for which the UART has no room waits in a queue. Returns false if there is no memory
/// for it.
pub fn queue_up() -> bool {
    let mut console = CONSOLE.lock();
    console.line.as_mut().is_none_or(Transmitter::queue_up)
}

/// Sends output that waits, as much as the UART has room for.
pub fn drain() {
    let mut console = CONSOLE.lock();
    if let Some(line) = &mut console.line {
        line.drain();
        console.look_after();
        console.announce_room();
    }
}

/// Adds a domain that takes input: dom0, or one whose emulated UART is on the console. Returns the new target of the input if
/// that is this domain again.
pub fn add_input(domain: DomId) -> Option<Switched> {
    CONSOLE.lock().inputs.add(domain)
}

/// Removes a domain that takes input. Returns the new target of the input if it was this domain.
pub fn remove_input(domain: DomId) -> Option<Switched> {
    CONSOLE.lock().inputs.remove(domain)
}

/// Moves the input to the first domain that takes it, and returns that target.
pub fn give_input_to_a_domain() -> Switched {
    CONSOLE.lock().inputs.switch_to_first()
}

/// Returns whether `domain` has the input. Its output is then written as it is.
pub fn has_input(domain: DomId) -> bool {
    CONSOLE.lock().inputs.focus() == Some(domain)
}

/// Returns whether there is room for output of emulated UARTs. If there is none, [`News::Room`] follows.
pub fn takes_from_uarts() -> bool {
    let console = &mut *CONSOLE.lock();
    let takes = console.takes_from_uarts();
    console.is_awaited |= !takes;
    takes
}

/// Writes output of the emulated UART of the domain that has the input, as it is.
pub fn write_of_uart(domain: DomId, data: &[u8]) {
    CONSOLE.lock().put_of_domain(domain, data);
}

/// Writes output of dom0, as it is. Returns the number of bytes for which there was room.
pub fn write_bytes(data: &[u8]) -> usize {
    CONSOLE.lock().put_of_domain(DomId::DOM0, data)
}

/// Returns whether there is room for output that can wait. If not, lines that guests cause are dropped, and debug keys wait.
pub fn has_room() -> bool {
    let console = CONSOLE.lock();
    let line = console.line.as_ref();
    line.is_none_or(Transmitter::has_room)
}

/// Writes a formatted text of the hypervisor, and returns its length in bytes.
pub fn write_fmt(text: fmt::Arguments<'_>) -> u32 {
    struct Writer<'a>(&'a mut Console, u32);
    impl fmt::Write for Writer<'_> {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.put(text.as_bytes());
            self.1 = self.1.saturating_add(text.len() as u32);
            Ok(())
        }
    }
    let console = &mut *CONSOLE.lock();
    console.end_open_line();
    let mut writer = Writer(console, 0);
    #[expect(
        clippy::let_underscore_must_use,
        reason = "the writer takes everything"
    )]
    let _ = fmt::Write::write_fmt(&mut writer, text);
    writer.1
}

/// Handles the UART's interrupt: takes the received bytes, and sends output that waits.
pub fn serve() -> Received {
    let mut received = Received::default();
    let console = &mut *CONSOLE.lock();
    let mut bytes = ArrayVec::<u8, RECEIVED_AT_ONCE>::new();
    if let Some(line) = &mut console.line {
        line.receive(RECEIVED_AT_ONCE, |byte| {
            if !bytes.is_full() {
                bytes.push(byte);
            }
        });
        line.drain();
    }
    console.announce_room();
    for byte in bytes {
        console.take(byte, &mut received);
    }
    received
}

/// Reads dom0's input into `out`, and returns the number of bytes.
pub fn read_input(out: &mut [u8]) -> usize {
    let console = &mut *CONSOLE.lock();
    let count = out.len().min(console.input.len());
    for (cell, byte) in out.iter_mut().zip(console.input.drain(..count)) {
        *cell = byte;
    }
    count
}

/// Reads past output from position `from` on. Returns the number of bytes, and the position after them.
pub fn read_ring(from: u32, out: &mut [u8]) -> (usize, u32) {
    CONSOLE.lock().ring.read(from, out)
}

/// Returns the position of the oldest output.
pub fn ring_start() -> u32 {
    CONSOLE.lock().ring.start()
}

/// Removes past output before position `to`.
pub fn consume_ring(to: u32) {
    CONSOLE.lock().ring.consume(to);
}

/// Waits until all output has left the UART. Comes before the machine ends.
pub fn flush() {
    if let Some(line) = &mut CONSOLE.lock().line {
        line.flush();
    }
}

/// Takes the console for a panic: breaks its lock if another CPU keeps it, sends the output that waits, and polls from then
/// on.
pub fn seize() {
    let free = (0..1_000_000).any(|_| {
        core::hint::spin_loop();
        CONSOLE.try_lock().is_some()
    });
    if !free {
        CONSOLE.force_unlock();
    }
    if let Some(line) = &mut CONSOLE.lock().line {
        line.poll();
    }
}

#[cfg(test)]
mod tests;
