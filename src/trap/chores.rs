//! Requests to a CPU other than picking ([`crate::cpu::work`]), and those it makes of itself for the console.

use armv7::cpu::CpuId;
use spin::Once;

use crate::console;
use crate::cpu::{self, work};
use crate::domain::{uart, virq};
use crate::event::EventVirq;
use crate::partition::restart;
use crate::sync::{Lock, rank};
use crate::time::{self, Nanos, Purpose, Timer, TimerError, now};

/// Polling interval of a UART without interrupt. The smallest FIFO, 16 bytes, takes 1.4 ms at 115,200 baud.
const CONSOLE_INTERVAL: Nanos = Nanos(1_000_000);
static CONSOLE_TIMER: Once<Lock<Timer, { rank::CONSOLE_TIMER }>> = Once::new();

/// Creates the timer that drains the console if its UART has no interrupt.
pub fn set_up_console_timer() -> Result<(), TimerError> {
    CONSOLE_TIMER
        .try_call_once(|| Timer::new(Purpose::Console).map(Lock::new))
        .map(|_| ())
}

/// Moves the console's timer from one CPU to another ([`Timer::migrate`]).
pub(super) fn migrate_console_timer(from: CpuId, to: CpuId) {
    if let Some(timer) = CONSOLE_TIMER.get() {
        timer.lock().migrate(from, to);
    }
}

/// Requests of this CPU to handle news of the console. Takes no lock, so that it may be called wherever something is
/// printed.
pub fn request_console(news: console::News) {
    cpu::request_this(match news {
        console::News::Kept => work::CONSOLE_RING,
        console::News::Waiting => work::CONSOLE_DRAIN,
        console::News::Room => work::CONSOLE_ROOM,
    });
}

/// Does the work `asked`, except picking.
#[cold]
pub(super) fn run(asked: u32) {
    if asked & work::CONSOLE_RING != 0 {
        virq::raise(EventVirq::CON_RING);
    }
    if asked & work::CONSOLE_DRAIN != 0
        && let Some(timer) = CONSOLE_TIMER.get()
    {
        let deadline = now().plus(time::clock().ticks(CONSOLE_INTERVAL));
        timer.lock().arm(deadline);
    }
    if asked & work::CONSOLE_ROOM != 0 {
        uart::tell_of_room();
    }
    if asked & work::RESTARTS != 0 {
        restart::go_on();
    }
    if asked & work::HOLD != 0 {
        cpu::hold::wait();
    }
}
