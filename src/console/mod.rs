//! The console: one UART shared by the hypervisor and dom0, and the ring that remembers what went out.
//!
//! Output goes to the UART at once (polled) and into the ring. Input goes to dom0, or to the hypervisor's debug keys after
//! the switch character (Ctrl-A by default) was typed three times. This room only moves bytes: what a received byte leads
//! to (an event for dom0, a debug key) is answered as [`Received`].

mod ring;

use core::fmt;

use armv7::mmio::Window;
use arrayvec::ArrayVec;
use spin::Once;

use crate::platform::uart::{Model, Registers, Uart, Width};
use crate::sync::{Lock, rank};

pub use ring::Ring;

/// Bytes typed for dom0 that it has not read yet.
const INPUT_SIZE: usize = 1024;
/// Typing the switch character so often in a row moves the input.
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

/// Who gets what is typed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Focus {
    Hypervisor,
    Dom0,
}

/// What a burst of typing leads to.
#[derive(Debug, Default)]
pub struct Received {
    /// dom0 has something to read.
    pub for_dom0: bool,
    /// Debug keys for the hypervisor.
    pub keys: ArrayVec<u8, 32>,
    /// The input moved: a line to print.
    pub switched: Option<&'static str>,
}

struct Console {
    uart: Option<Uart<MappedUart>>,
    ring: Ring,
    input: ArrayVec<u8, INPUT_SIZE>,
    focus: Focus,
    switch_char: u8,
    presses: u8,
    /// The ring also keeps what domains write.
    keep_domains: bool,
}

static CONSOLE: Lock<Console, { rank::CONSOLE }> = Lock::new(Console {
    uart: None,
    ring: Ring::new(),
    input: ArrayVec::new_const(),
    focus: Focus::Hypervisor,
    switch_char: 1,
    presses: 0,
    keep_domains: false,
});

/// Printed when input goes to dom0.
const TO_DOM0: &str = "*** Serial input to DOM0 (type 'CTRL-a' three times to switch input)";
/// Printed when input goes to the hypervisor.
const TO_HYPERVISOR: &str = "*** Serial input to Xen (type 'CTRL-a' three times to switch input)";

/// Whom to tell that the ring has more.
static LISTENER: Once<fn()> = Once::new();

/// Makes `listener` hear of everything that comes into the ring. It is called with the console locked.
pub fn listen(listener: fn()) {
    LISTENER.call_once(|| listener);
}

impl Console {
    /// Writes what the hypervisor says.
    fn put(&mut self, data: &[u8]) {
        self.keep(data);
        self.send(data);
    }

    /// Writes what a domain says.
    fn put_of_domain(&mut self, data: &[u8]) {
        if self.keep_domains {
            self.keep(data);
        }
        self.send(data);
    }

    fn keep(&mut self, data: &[u8]) {
        self.ring.push(data);
        if let Some(listener) = LISTENER.get() {
            listener();
        }
    }

    fn send(&mut self, data: &[u8]) {
        if let Some(uart) = &mut self.uart {
            uart.put_text(data);
        }
    }

    fn switch(&mut self) -> &'static str {
        self.focus = match self.focus {
            Focus::Hypervisor => Focus::Dom0,
            Focus::Dom0 => Focus::Hypervisor,
        };
        match self.focus {
            Focus::Dom0 => TO_DOM0,
            Focus::Hypervisor => TO_HYPERVISOR,
        }
    }

    fn take(&mut self, byte: u8, received: &mut Received) {
        if self.switch_char != 0 && byte == self.switch_char {
            self.presses += 1;
            if self.presses == SWITCH_PRESSES {
                self.presses = 0;
                received.switched = Some(self.switch());
            }
            return;
        }
        for _ in 0..core::mem::take(&mut self.presses) {
            self.deliver(self.switch_char, received);
        }
        self.deliver(byte, received);
    }

    fn deliver(&mut self, byte: u8, received: &mut Received) {
        match self.focus {
            // A full buffer loses what is typed, as a terminal's would.
            Focus::Dom0 => received.for_dom0 |= self.input.try_push(byte).is_ok(),
            Focus::Hypervisor if received.keys.is_full() => {}
            Focus::Hypervisor => received.keys.push(byte),
        }
    }
}

/// Starts using the UART behind `window`. What the ring remembers is printed there.
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
        uart.put_text(chunk.get(..count).unwrap_or(&chunk));
        at = next;
    }
    console.uart = Some(uart);
}

/// Bytes of output that are kept before there is more memory.
const FIRST_RING: u32 = 4 << 10;

/// Starts to remember what is written, so that it can be shown once there is a UART.
pub fn remember() {
    CONSOLE.lock().ring.resize(FIRST_RING);
}

/// What the command line says about the console.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// What is typed three times to move the input; 0 for nothing.
    pub switch_char: u8,
    /// Whether the output of domains is kept too.
    pub keep_domains: bool,
}

/// Sets the console up, once the command line is known.
pub fn configure(settings: &Settings) {
    let mut console = CONSOLE.lock();
    console.switch_char = settings.switch_char;
    console.keep_domains = settings.keep_domains;
}

/// Keeps so many bytes of past output from here on, once there is memory for them; false when there is not.
pub fn keep(bytes: u32) -> bool {
    CONSOLE.lock().ring.resize(bytes)
}

/// Lets typing raise the UART's interrupt.
pub fn enable_input() {
    if let Some(uart) = &mut CONSOLE.lock().uart {
        uart.enable_receive_interrupt();
    }
}

/// Gives the input to dom0; answers the line that says so.
pub fn give_input_to_dom0() -> &'static str {
    let mut console = CONSOLE.lock();
    console.focus = Focus::Dom0;
    TO_DOM0
}

/// Writes bytes as they are: output of a domain.
pub fn write_bytes(data: &[u8]) {
    CONSOLE.lock().put_of_domain(data);
}

/// Writes a formatted text.
pub fn write_fmt(text: fmt::Arguments<'_>) {
    struct Writer<'a>(&'a mut Console);
    impl fmt::Write for Writer<'_> {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.put(text.as_bytes());
            Ok(())
        }
    }
    #[expect(
        clippy::let_underscore_must_use,
        reason = "the writer takes everything"
    )]
    let _ = fmt::Write::write_fmt(&mut Writer(&mut CONSOLE.lock()), text);
}

/// Takes what the UART has received. Called from its interrupt.
pub fn receive() -> Received {
    let mut received = Received::default();
    let console = &mut *CONSOLE.lock();
    let mut bytes = ArrayVec::<u8, 256>::new();
    if let Some(uart) = &mut console.uart {
        uart.acknowledge();
        while let Some(byte) = uart.get() {
            if bytes.try_push(byte).is_err() {
                break;
            }
        }
    }
    for byte in bytes {
        console.take(byte, &mut received);
    }
    received
}

/// Hands up to `out.len()` typed bytes to dom0; answers how many.
pub fn read_input(out: &mut [u8]) -> usize {
    let console = &mut *CONSOLE.lock();
    let count = out.len().min(console.input.len());
    for (cell, byte) in out.iter_mut().zip(console.input.drain(..count)) {
        *cell = byte;
    }
    count
}

/// Reads past output from `from` on; answers how much, and the position after it.
pub fn read_ring(from: u32, out: &mut [u8]) -> (usize, u32) {
    CONSOLE.lock().ring.read(from, out)
}

/// Position of the oldest output.
pub fn ring_start() -> u32 {
    CONSOLE.lock().ring.start()
}

/// Forgets past output before position `to`.
pub fn consume_ring(to: u32) {
    CONSOLE.lock().ring.consume(to);
}

/// Waits until everything has left the UART.
pub fn flush() {
    if let Some(uart) = &mut CONSOLE.lock().uart {
        uart.flush();
    }
}

/// Breaks the console's lock if another CPU holds it: the last resort of a panic, which must be able to speak.
pub fn seize() {
    for _ in 0..1_000_000 {
        if CONSOLE.try_lock().is_some() {
            return;
        }
        core::hint::spin_loop();
    }
    CONSOLE.force_unlock();
}

#[cfg(test)]
mod tests {
    use super::{ArrayVec, Console, Focus, Received, Ring, TO_DOM0, TO_HYPERVISOR};

    const CTRL_A: u8 = 1;

    fn console(focus: Focus) -> Console {
        Console {
            uart: None,
            ring: Ring::new(),
            input: ArrayVec::new_const(),
            focus,
            switch_char: CTRL_A,
            presses: 0,
            keep_domains: false,
        }
    }

    fn typed(console: &mut Console, bytes: &[u8]) -> Received {
        let mut received = Received::default();
        for byte in bytes {
            console.take(*byte, &mut received);
        }
        received
    }

    #[test]
    fn three_presses_in_a_row_move_the_input_there_and_back() {
        let mut console = console(Focus::Dom0);
        assert_eq!(
            typed(&mut console, &[CTRL_A; 3]).switched,
            Some(TO_HYPERVISOR)
        );
        let received = typed(&mut console, b"q");
        assert_eq!(received.keys.as_slice(), b"q");
        assert!(!received.for_dom0);
        assert_eq!(typed(&mut console, &[CTRL_A; 3]).switched, Some(TO_DOM0));
        assert!(typed(&mut console, b"ls").for_dom0);
        assert_eq!(console.input.as_slice(), b"ls");
    }

    #[test]
    fn fewer_presses_are_input_like_any_other() {
        let mut console = console(Focus::Dom0);
        let received = typed(&mut console, &[b'a', CTRL_A, CTRL_A, b'b', CTRL_A]);
        assert_eq!(received.switched, None);
        assert_eq!(console.input.as_slice(), &[b'a', CTRL_A, CTRL_A, b'b']);
    }

    #[test]
    fn what_is_written_before_the_command_line_is_known_is_kept() {
        super::remember();
        let line = b"said too early for a UART";
        super::write_fmt(format_args!("{}", str::from_utf8(line).unwrap()));
        let mut out = [0; super::FIRST_RING as usize];
        let (count, _) = super::read_ring(super::ring_start(), &mut out);
        assert!(out[..count].windows(line.len()).any(|part| part == line));
    }

    #[test]
    fn the_ring_keeps_what_domains_say_only_when_asked() {
        let kept = |keep_domains| {
            let mut console = console(Focus::Dom0);
            console.keep_domains = keep_domains;
            assert!(console.ring.resize(4096));
            console.put(b"ours ");
            console.put_of_domain(b"theirs ");
            console.put(b"ours");
            let mut out = [0; 64];
            let (count, _) = console.ring.read(console.ring.start(), &mut out);
            out[..count].to_vec()
        };
        assert_eq!(kept(false), b"ours ours");
        assert_eq!(kept(true), b"ours theirs ours");
    }

    #[test]
    fn input_that_nobody_reads_is_bounded() {
        let mut console = console(Focus::Dom0);
        typed(&mut console, &[b'x'; super::INPUT_SIZE + 10]);
        assert!(console.input.is_full());
    }
}
