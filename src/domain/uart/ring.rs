//! The line of a UART that ends in a page of its domain, where a daemon in dom0 reads and writes
//! (`struct xencons_interface`, xen/include/public/io/console.h).
//!
//! | offset | | moved by |
//! |---|---|---|
//! | 0 | 1,024 bytes of input | |
//! | 1024 | 2,048 bytes of output | |
//! | 3072, 3076 | in_cons, in_prod | the UART, the daemon |
//! | 3080, 3084 | out_cons, out_prod | the daemon, the UART |
//!
//! Counts wrap at 2^32. The bytes between two of them wait to be read. The domain can write to the page, and so spoil its
//! own line; each count is read once where it is used, and each offset is reduced to the page.

use core::sync::atomic::Ordering;

use armv7::addr::Mfn;
use armv7::frame::PageRef;

use crate::domain::GuestPage;
use crate::emulate::sbsa_uart::Line;
use crate::event::Port;

const IN_SIZE: u32 = 1024;
const OUT: usize = 1024;
const OUT_SIZE: u32 = 2048;
const IN_CONS: usize = 3072;
const IN_PROD: usize = 3076;
const OUT_CONS: usize = 3080;
const OUT_PROD: usize = 3084;

/// The line's end.
pub(super) struct Ring {
    page: GuestPage,
    port: Port,
    /// A count has moved since the last event to the other end.
    news: bool,
}

impl Ring {
    pub(super) fn new(page: GuestPage, port: Port) -> Self {
        Self {
            page,
            port,
            news: false,
        }
    }

    pub(super) fn mfn(&self) -> Mfn {
        self.page.mfn()
    }

    pub(super) fn port(&self) -> Port {
        self.port
    }

    pub(super) fn take_news(&mut self) -> Option<Port> {
        core::mem::take(&mut self.news).then_some(self.port)
    }

    /// Reads a count. The bytes that the other side wrote before are visible then.
    fn count(&self, at: usize) -> u32 {
        let word = self.page.page().u32_at(at);
        word.map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Sets a count, after all reads and writes before it.
    fn set(&mut self, at: usize, count: u32) {
        if let Some(word) = self.page.page().u32_at(at) {
            word.store(count, Ordering::Release);
            self.news = true;
        }
    }

    /// Returns the number of bytes of output that wait. It may exceed the buffer where the domain has spoilt the counts.
    fn unsent(&self) -> u32 {
        self.count(OUT_PROD).wrapping_sub(self.count(OUT_CONS))
    }
}

impl Line for Ring {
    fn take(&mut self) -> Option<u8> {
        let at = self.count(IN_CONS);
        if at == self.count(IN_PROD) {
            return None;
        }
        let cell = self.page.page().u8_at((at % IN_SIZE) as usize)?;
        let byte = cell.load(Ordering::Relaxed);
        self.set(IN_CONS, at.wrapping_add(1));
        Some(byte)
    }

    fn waiting(&self) -> usize {
        let waiting = self.count(IN_PROD).wrapping_sub(self.count(IN_CONS));
        waiting.min(IN_SIZE) as usize
    }

    fn is_full(&self) -> bool {
        self.waiting() == IN_SIZE as usize
    }

    fn has_room(&self) -> bool {
        self.unsent() < OUT_SIZE
    }

    fn send(&mut self, byte: u8) {
        if !self.has_room() {
            return;
        }
        let at = self.count(OUT_PROD);
        if let Some(cell) = self.page.page().u8_at(OUT + (at % OUT_SIZE) as usize) {
            cell.store(byte, Ordering::Relaxed);
            self.set(OUT_PROD, at.wrapping_add(1));
        }
    }
}
