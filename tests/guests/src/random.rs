//! Numbers by chance.

use crate::platform;

/// Numbers by chance, the same ones in each run (xorshift).
pub struct Random(u32);

impl Random {
    pub fn new(seed: u32) -> Self {
        let given = platform::get().arguments("seed").find_map(|text| text.parse::<u32>().ok()).unwrap_or(0);
        Self::of_state(seed ^ given.wrapping_mul(0x9e37_79b9))
    }

    /// Numbers that follow from this one alone.
    pub fn of_state(state: u32) -> Self {
        Random(state.max(1))
    }

    /// Any number.
    pub fn word(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }

    /// One below the limit.
    pub fn below(&mut self, limit: u32) -> u32 {
        self.word() % limit
    }

    /// One of some.
    pub fn of<T: Copy>(&mut self, some: &[T]) -> T {
        some[self.below(some.len() as u32) as usize]
    }
}

/// A number by chance from a number in a row.
pub fn mix(n: u32) -> u32 {
    let x = (n ^ n >> 16).wrapping_mul(0x85eb_ca6b);
    (x ^ x >> 13).wrapping_mul(0xc2b2_ae35) ^ x >> 16
}
