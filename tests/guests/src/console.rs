//! Output: dom0 has the hypervisor's `console_io`, another domain the PV console ring in its console page, one of the
//! hypervisor's own making its emulated UART, and without a hypervisor there is the machine's.

use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::abi::DOMID_SELF;
use crate::{event, hypercall, mmio, platform};

const CONSOLEIO_WRITE: u32 = 0;
/// `hvm_op` parameters (abi.md 3.5).
pub const PARAM_CONSOLE_PFN: u32 = 17;
pub const PARAM_CONSOLE_EVTCHN: u32 = 18;

/// xen/include/public/io/console.h: in[1024], out[2048], then the four indices.
const OUT_OFFSET: u32 = 1024;
const OUT_SIZE: u32 = 2048;
const OUT_CONS_OFFSET: u32 = 3080;
const OUT_PROD_OFFSET: u32 = 3084;

/// Collects one formatted line, so that two vCPUs' lines do not interleave and each costs one hypercall.
struct Line {
    bytes: [u8; 256],
    length: usize,
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            if self.length == self.bytes.len() {
                write(&mut self.bytes[..self.length]);
                self.length = 0;
            }
            self.bytes[self.length] = byte;
            self.length += 1;
        }
        Ok(())
    }
}

/// Formats and writes; use `println!`.
pub fn print(arguments: fmt::Arguments) {
    let mut line = Line { bytes: [0; 256], length: 0 };
    // Line never fails; a Display that does would only cut its own text.
    let _ = fmt::write(&mut line, arguments);
    write(&mut line.bytes[..line.length]);
}

fn write(text: &mut [u8]) {
    if let Some(machine) = platform::known()
        && !machine.is_guest()
    {
        // The first register of a PL011 is its data register; QEMU's is never full.
        text.iter().for_each(|&byte| mmio::write8(machine.uart, byte.into()));
        return;
    }
    if let Some(machine) = platform::known()
        && machine.sbsa_uart != 0
    {
        text.iter().for_each(|&byte| send(machine.sbsa_uart, byte));
        return;
    }
    let result =
        hypercall::call(hypercall::CONSOLE_IO, [CONSOLEIO_WRITE, text.len() as u32, hypercall::address_of(text), 0, 0]);
    if result < 0 {
        write_to_ring(text);
    }
}

/// Waits for room, and sends a byte.
fn send(uart: u32, byte: u8) {
    const FR: u32 = 0x18;
    const TXFF: u32 = 0x20;
    while mmio::read32(uart + FR) & TXFF != 0 {}
    mmio::write8(uart, byte.into());
}

/// Without dom0's privilege the line goes through the shared ring.
fn write_to_ring(text: &[u8]) {
    let (Ok(page), Ok(port)) = (hvm_parameter(PARAM_CONSOLE_PFN), hvm_parameter(PARAM_CONSOLE_EVTCHN)) else { return };
    if page == 0 {
        return;
    }
    // libxl's console page lies below 0x40000000, where boot.S's identity map is Device: look at it through the fixmap.
    let ring = crate::memory::map_fixed(crate::memory::Slot::Console, (page as u32) << 12);
    let port = port as u32;
    if leads_to_the_daemon(port) {
        write_through(port, ring, text);
    } else if let Ok(port) = event::bind_interdomain(daemon(0) as u16, daemon(1)) {
        // A test closed all ports, and is to find none: this one is there for a line only.
        write_through(port, ring, text);
        event::close(port);
    }
}

/// Domain and port of the console daemon's end, from the first line on.
static DAEMON: [AtomicU32; 2] = [const { AtomicU32::new(u32::MAX) }; 2];

/// Forgets that end, as a domain that has been restored has another one.
pub fn forget_daemon() {
    DAEMON.iter().for_each(|known| known.store(u32::MAX, Ordering::Relaxed));
}

fn daemon(which: usize) -> u32 {
    DAEMON[which].load(Ordering::Relaxed)
}

/// Returns whether it is the port that libxl made, and not one of a test with its number.
fn leads_to_the_daemon(port: u32) -> bool {
    let Ok(status) = event::status(DOMID_SELF, port) else { return false };
    if status.status != event::STATUS_INTERDOMAIN {
        return false;
    }
    let end = [status.detail & 0xffff, status.remote_port];
    if daemon(0) == u32::MAX {
        DAEMON.iter().zip(end).for_each(|(known, value)| known.store(value, Ordering::Relaxed));
    }
    end == [daemon(0), daemon(1)]
}

/// Waits for the daemon where the ring is full.
fn write_through(port: u32, ring: u32, text: &[u8]) {
    // SAFETY: the page is this domain's console ring, mapped for good; indices are shared words, hence atomics.
    let (consumer, producer) =
        unsafe { (&*((ring + OUT_CONS_OFFSET) as *const AtomicU32), &*((ring + OUT_PROD_OFFSET) as *const AtomicU32)) };
    for &byte in text {
        let index = producer.load(Ordering::Relaxed);
        while index.wrapping_sub(consumer.load(Ordering::Acquire)) >= OUT_SIZE {
            event::send(port);
        }
        let slot = (ring + OUT_OFFSET + index % OUT_SIZE) as *mut u8;
        // SAFETY: within the out array; the consumer does not read it before the producer index passes.
        unsafe { slot.write_volatile(byte) };
        producer.store(index.wrapping_add(1), Ordering::Release);
    }
    event::send(port);
}

/// Reads one of this domain's HVM parameters.
pub fn hvm_parameter(index: u32) -> Result<u64, i32> {
    let mut argument = crate::abi::HvmParameter { domid: DOMID_SELF, pad: 0, index, value: 0 };
    match hypercall::call_with(hypercall::HVM_OP, crate::abi::HVMOP_GET_PARAM, &mut argument) {
        0 => Ok(argument.value),
        error => Err(error),
    }
}

/// Prints one line to the hypervisor's console.
#[macro_export]
macro_rules! println {
    ($($argument:tt)*) => {
        $crate::console::print(format_args!("{}\n", format_args!($($argument)*)))
    };
}
