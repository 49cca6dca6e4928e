//! VMIDs: eight bits that tag a domain's translations in the TLB (DDI 0406C.d B3.9.1).
//!
//! VMID 0 stands for "no stage 2". A reused VMID may still have translations in a TLB, so its new owner flushes it
//! before the first use ([`super::p2m::P2m::new`] does).

use core::sync::atomic::{AtomicU32, Ordering};

/// The VMIDs in use.
#[derive(Debug)]
pub struct Vmids([AtomicU32; 8]);

impl Default for Vmids {
    fn default() -> Self {
        Self::new()
    }
}

impl Vmids {
    /// Returns the set in which only VMID 0 is used.
    pub const fn new() -> Self {
        let mut used = [const { AtomicU32::new(0) }; 8];
        used[0] = AtomicU32::new(1);
        Self(used)
    }

    /// Takes a free VMID; `None` if all are in use.
    pub fn take(&self) -> Option<u8> {
        for (index, word) in self.0.iter().enumerate() {
            // AcqRel: pairs with the Release in `give`, so the old owner's tables are freed before the new owner's
            // exist.
            let taken = word.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |used| {
                (used != u32::MAX).then(|| used | (used + 1))
            });
            if let Ok(before) = taken {
                return Some((index as u32 * 32 + before.trailing_ones()) as u8);
            }
        }
        None
    }

    /// Returns the number of VMIDs in use, including 0.
    pub fn in_use(&self) -> u32 {
        let words = self.0.iter();
        words
            .map(|word| word.load(Ordering::Relaxed).count_ones())
            .sum()
    }

    /// Frees a VMID.
    pub fn give(&self, vmid: u8) {
        if let Some(word) = self.0.get(usize::from(vmid / 32))
            && vmid != 0
        {
            word.fetch_and(!(1 << (vmid % 32)), Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Vmids;

    #[test]
    fn there_are_255_vmids_and_zero_is_none_of_them() {
        let vmids = Vmids::new();
        let mut all: Vec<u8> = core::iter::from_fn(|| vmids.take()).collect();
        all.sort_unstable();
        assert_eq!(all, (1..=255).collect::<Vec<u8>>());
        vmids.give(77);
        vmids.give(0);
        assert_eq!(vmids.take(), Some(77));
        assert_eq!(vmids.take(), None);
    }
}
