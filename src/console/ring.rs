//! A ring of bytes: past console output (`conring`), as `xl dmesg` and xenconsoled read it, and what waits to be sent.
//!
//! Positions are free-running 32-bit counts of bytes; the newest `capacity` bytes are there.

use alloc::vec::Vec;

/// The ring.
#[derive(Debug, Default)]
pub struct Ring {
    bytes: Vec<u8>,
    /// Position of the oldest byte that was not consumed.
    consumed: u32,
    /// Position after the newest byte.
    produced: u32,
}

impl Ring {
    /// A ring without room.
    pub const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            consumed: 0,
            produced: 0,
        }
    }

    /// Makes room for `capacity` bytes, rounded up to a power of two; keeps what is there. False without memory.
    pub fn resize(&mut self, capacity: u32) -> bool {
        let capacity = capacity.clamp(1 << 12, 1 << 24).next_power_of_two() as usize;
        let mut bytes = Vec::new();
        if bytes.try_reserve_exact(capacity).is_err() {
            return false;
        }
        bytes.resize(capacity, 0);
        let mut old = core::mem::replace(
            self,
            Self {
                bytes,
                consumed: self.oldest(),
                produced: self.oldest(),
            },
        );
        let mut chunk = [0; 64];
        let mut at = old.oldest();
        loop {
            let (count, next) = old.read(at, &mut chunk);
            if count == 0 {
                break;
            }
            self.push(&chunk[..count]);
            at = next;
        }
        old.consumed = old.produced;
        true
    }

    fn oldest(&self) -> u32 {
        self.produced.wrapping_sub(self.len())
    }

    /// Bytes that are there.
    #[allow(clippy::len_without_is_empty)] // a count like another
    pub fn len(&self) -> u32 {
        let produced = self.produced.wrapping_sub(self.consumed);
        produced.min(self.bytes.len() as u32)
    }

    /// Adds output; the oldest makes room.
    pub fn push(&mut self, data: &[u8]) {
        let Some(mask) = self.bytes.len().checked_sub(1) else {
            return;
        };
        for &byte in data {
            if let Some(cell) = self.bytes.get_mut(self.produced as usize & mask) {
                *cell = byte;
            }
            self.produced = self.produced.wrapping_add(1);
        }
        self.consumed = self.oldest();
    }

    /// Copies output from position `from` (or the oldest there is, if that is gone) into `out`, and returns how much, and the
    /// position after it.
    pub fn read(&self, from: u32, out: &mut [u8]) -> (usize, u32) {
        let Some(mask) = self.bytes.len().checked_sub(1) else {
            return (0, from);
        };
        let oldest = self.oldest();
        let available = self.produced.wrapping_sub(oldest);
        let mut at = if self.produced.wrapping_sub(from) > available {
            oldest
        } else {
            from
        };
        let mut count = 0;
        for cell in out {
            if at == self.produced {
                break;
            }
            *cell = self.bytes.get(at as usize & mask).copied().unwrap_or(0);
            at = at.wrapping_add(1);
            count += 1;
        }
        (count, at)
    }

    /// Position of the oldest byte.
    pub fn start(&self) -> u32 {
        self.oldest()
    }

    /// Forgets what is before position `to`, which a read answered (`xl dmesg -c`).
    pub fn consume(&mut self, to: u32) {
        let ahead = to.wrapping_sub(self.oldest());
        if ahead <= self.produced.wrapping_sub(self.oldest()) {
            self.consumed = to;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Ring;

    fn all(ring: &Ring) -> Vec<u8> {
        let mut out = [0; 9000];
        let (count, _) = ring.read(ring.start(), &mut out);
        out[..count].to_vec()
    }

    #[test]
    fn the_oldest_output_makes_room() {
        let mut ring = Ring::new();
        assert!(ring.resize(4096));
        ring.push(&[b'a'; 4000]);
        ring.push(&[b'b'; 100]);
        let seen = all(&ring);
        assert_eq!(seen.len(), 4096);
        assert!(seen.ends_with(&[b'b'; 100]) && seen.starts_with(&[b'a'; 3996]));
    }

    #[test]
    fn a_reader_who_comes_too_late_starts_at_the_oldest() {
        let mut ring = Ring::new();
        assert!(ring.resize(4096));
        ring.push(b"first");
        let (_, at) = ring.read(0, &mut [0; 5]);
        ring.push(&[b'x'; 5000]);
        let mut out = [0; 10];
        assert_eq!(ring.read(at, &mut out).0, 10);
        assert_eq!(out, [b'x'; 10]);
    }

    #[test]
    fn a_larger_ring_keeps_the_past() {
        let mut ring = Ring::new();
        assert!(ring.resize(4096));
        ring.push(b"hello ");
        assert!(ring.resize(16384));
        ring.push(b"again");
        assert_eq!(all(&ring), b"hello again");
    }

    #[test]
    fn what_was_cleared_is_not_read_again() {
        let mut ring = Ring::new();
        assert!(ring.resize(4096));
        ring.push(b"old");
        let (_, at) = ring.read(ring.start(), &mut [0; 3]);
        ring.push(b"new");
        ring.consume(at);
        ring.consume(at.wrapping_add(100));
        ring.consume(0);
        assert_eq!(all(&ring), b"new");
    }
}
