//! Values of the hypervisor's stores. Tables are read from here: QEMU's plugins cannot read physical memory.

/// RAM from one address on, as far as the hypervisor has written it; zero elsewhere.
pub struct Memory {
    base: u64,
    words: Vec<u64>,
}

impl Memory {
    pub fn new(base: u64, size: u64) -> Self {
        Self {
            base,
            words: vec![0; (size / 8) as usize],
        }
    }

    pub fn word(&self, address: u64) -> u64 {
        let index = address.wrapping_sub(self.base) / 8;
        self.words.get(index as usize).copied().unwrap_or(0)
    }

    /// Stores up to eight bytes that lie in one word. Returns the word as it was and as it is.
    pub fn store(&mut self, address: u64, size: u32, value: u64) -> Option<(u64, u64)> {
        let index = address.wrapping_sub(self.base) / 8;
        let word = self.words.get_mut(index as usize)?;
        let old = *word;
        let new = if size >= 8 {
            value
        } else {
            let shift = (address % 8) * 8;
            let mask = ((1 << (size * 8)) - 1) << shift;
            old & !mask | value << shift & mask
        };
        // Pages that stay zero cost nothing.
        if new != old {
            *word = new;
        }
        Some((old, new))
    }
}
