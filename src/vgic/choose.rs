//! Which interrupts get a list register when there are too many.
//!
//! The best pending one always does, so that the guest can take it. Then come active ones, so that hardware sees their
//! ends, then the other pending ones; each best first, and of equals the lowest-numbered.

use super::bits;
use super::irq::{BANK, Bank};
use super::lr::{MAX_LRS, Maintenance};

/// Set in the key of an interrupt that is not active.
const PENDING: u32 = 1 << 31;
const PRIORITY_SHIFT: u32 = 16;

/// Returns the place of an interrupt in the order: class, priority, number.
fn key(bank: &Bank, number: u32, bit: u32) -> u32 {
    let class = if bank.active >> bit & 1 != 0 {
        0
    } else {
        PENDING
    };
    class | u32::from(bank.priority(bit)) << PRIORITY_SHIFT | (number * BANK + bit)
}

/// The interrupts that get a list register: all with one of these keys.
pub(super) struct Limit {
    /// The first `len` are keys of the chosen, in ascending order.
    keys: [u32; MAX_LRS],
    len: usize,
    room: usize,
    /// The best pending interrupt that was left out.
    best_left: Option<u32>,
    maintenance: Maintenance,
}

impl Limit {
    /// Chooses up to `room` interrupts, from none so far.
    pub fn new(room: usize) -> Self {
        Self {
            keys: [0; MAX_LRS],
            len: 0,
            room,
            best_left: None,
            maintenance: Maintenance::NONE,
        }
    }

    /// Considers interrupt `bit` of bank `number`.
    pub fn add(&mut self, bank: &Bank, number: u32, bit: u32) {
        let mut key = key(bank, number, bit);
        for kept in self.keys.iter_mut().take(self.len) {
            if key < *kept {
                core::mem::swap(kept, &mut key);
            }
        }
        match self.keys.get_mut(self.len) {
            Some(last) if self.len < self.room => {
                *last = key;
                self.len += 1;
            }
            _ => self.leave_out(key),
        }
    }

    fn leave_out(&mut self, key: u32) {
        if key & PENDING == 0 {
            self.maintenance = self.maintenance.and(Maintenance::NOT_PRESENT);
        } else {
            self.maintenance = self.maintenance.and(Maintenance::NO_PENDING);
            self.best_left = Some(self.best_left.map_or(key, |best| best.min(key)));
        }
    }

    /// Ends the choice: the best pending interrupt gets the place of the worst active one if none is chosen yet.
    pub fn finish(&mut self) {
        if let Some(best) = self.best_left
            && let Some(last) = self.keys.get_mut(self.len.wrapping_sub(1))
            && *last & PENDING == 0
        {
            *last = best;
            self.maintenance = self.maintenance.and(Maintenance::NOT_PRESENT);
        }
    }

    /// Returns which of the interrupts `mask` of a bank are chosen.
    pub fn within(&self, bank: &Bank, number: u32, mask: u32) -> u32 {
        bits(mask)
            .filter(|bit| self.is_chosen(key(bank, number, *bit)))
            .fold(0, |chosen, bit| chosen | 1 << bit)
    }

    fn is_chosen(&self, key: u32) -> bool {
        self.keys.iter().take(self.len).any(|kept| *kept == key)
    }

    /// Returns the maintenance interrupts that tell when others can be chosen: NPIE while a pending interrupt waits, LRENPIE
    /// while an active one is spilled.
    pub fn maintenance(&self) -> Maintenance {
        self.maintenance
    }
}
