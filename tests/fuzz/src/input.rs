//! Bytes as numbers.

/// The rest of an input. Reads beyond its end return zeroes.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    pub fn word(&mut self) -> u32 {
        self.bytes(4).iter().rev().fold(0, |value, &byte| value << 8 | u32::from(byte))
    }

    /// A number that is mostly one of the small ones, of which each means something.
    pub fn number(&mut self) -> u32 {
        match self.byte() {
            255 => self.word(),
            254 => u32::MAX - u32::from(self.byte()),
            253 => 1 << (self.byte() % 32),
            252 => u32::from(self.byte()) << 12,
            small => small.into(),
        }
    }
}
