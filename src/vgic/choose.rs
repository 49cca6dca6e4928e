//! The choice of interrupts for the list registers when there are too many.
//!
//! The best pending interrupt always gets a list register, so that the guest can take it. Active ones come next, so
//! that hardware sees their ends, then the other pending ones. Within a class the best priority wins, then the lowest
//! INTID.

use super::bits;
use super::irq::{BANK, Bank};
use super::lr::{MAX_LRS, Maintenance};

/// Set in the key of an interrupt that is not active.
const PENDING: u32 = 1 << 31;
const PRIORITY_SHIFT: u32 = 16;

/// Returns the sort key of an interrupt: class, priority, INTID. Lower is better.
fn key(bank: &Bank, number: u32, bit: u32) -> u32 {
    let class = if bank.active >> bit & 1 != 0 {
        0
    } else {
        PENDING
    };
    class | u32::from(bank.priority(bit)) << PRIORITY_SHIFT | (number * BANK + bit)
}

/// The interrupts chosen for list registers, by key.
pub(super) struct Limit {
    /// Keys of the chosen interrupts, ascending; the first `len` are valid.
    keys: [u32; MAX_LRS],
    len: usize,
    room: usize,
    /// Key of the best pending interrupt that was left out.
    best_left: Option<u32>,
    maintenance: Maintenance,
}

impl Limit {
    /// Returns an empty choice of up to `room` interrupts.
    pub fn new(room: usize) -> Self {
        Self {
            keys: [0; MAX_LRS],
            len: 0,
            room,
            best_left: None,
            maintenance: Maintenance::NONE,
        }
    }

    /// Adds interrupt `bit` of bank `number` to the candidates.
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

    /// Completes the choice: if no pending interrupt was chosen, the best one replaces the worst active one.
    pub fn finish(&mut self) {
        if let Some(best) = self.best_left
            && let Some(last) = self.keys.get_mut(self.len.wrapping_sub(1))
            && *last & PENDING == 0
        {
            *last = best;
            self.maintenance = self.maintenance.and(Maintenance::NOT_PRESENT);
        }
    }

    /// Returns the chosen ones among the interrupts `mask` of a bank.
    pub fn within(&self, bank: &Bank, number: u32, mask: u32) -> u32 {
        bits(mask)
            .filter(|bit| self.is_chosen(key(bank, number, *bit)))
            .fold(0, |chosen, bit| chosen | 1 << bit)
    }

    fn is_chosen(&self, key: u32) -> bool {
        self.keys.iter().take(self.len).any(|kept| *kept == key)
    }

    /// Returns the maintenance interrupts that signal when to choose again: NPIE while a pending interrupt waits,
    /// LRENPIE while an active one is spilled.
    pub fn maintenance(&self) -> Maintenance {
        self.maintenance
    }
}
