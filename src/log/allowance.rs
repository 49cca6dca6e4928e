//! How much a guest may have logged: so many bytes in a period for each domain, and a bound on all of them together.
//!
//! Bytes, as they are what the console's line carries and what dom0's own words compete with.

use core::sync::atomic::{AtomicU32, Ordering};

/// Bytes that a line of 115,200 baud carries in a second, ten bits each.
const LINE: u32 = 115_200 / 10;
/// Bytes that all domains together may cause in a period, of at least a second.
const OF_ALL: u32 = LINE / 2;
/// Bytes that one domain may cause in a period: it takes eight noisy ones to silence another.
const OF_A_DOMAIN: u32 = OF_ALL / 8;

/// Bytes in a period, counted.
#[derive(Debug)]
pub struct Allowance {
    /// Bytes in one period; the last line of it may go beyond them.
    most: u32,
    /// The period that is being counted.
    period: AtomicU32,
    /// Bytes printed in it.
    spent: AtomicU32,
    /// Lines refused, and not told of yet.
    refused: AtomicU32,
}

/// The result of [`Allowance::ask`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision {
    /// The line may be printed.
    pub granted: bool,
    /// Lines that were refused in an earlier period, and not told of before.
    pub suppressed: u32,
}

impl Allowance {
    /// A domain's.
    pub const fn of_a_domain() -> Self {
        Self::new(OF_A_DOMAIN)
    }

    /// That of all domains together.
    pub(super) const fn of_all() -> Self {
        Self::new(OF_ALL)
    }

    const fn new(most: u32) -> Self {
        Self {
            most,
            period: AtomicU32::new(0),
            spent: AtomicU32::new(0),
            refused: AtomicU32::new(0),
        }
    }

    /// Asks for a line in `period`. Two CPUs that see a period begin at once may get a line more each.
    pub fn ask(&self, period: u32) -> Decision {
        // Counts only, nothing is published by them.
        let suppressed = match self.period.swap(period, Ordering::Relaxed) == period {
            true => 0,
            false => {
                self.spent.store(0, Ordering::Relaxed);
                self.refused.swap(0, Ordering::Relaxed)
            }
        };
        let granted = self.spent.load(Ordering::Relaxed) < self.most;
        if !granted {
            self.refuse();
        }
        Decision {
            granted,
            suppressed,
        }
    }

    /// Counts a line that was granted and could not be printed all the same.
    pub(super) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes what a line cost.
    pub(super) fn pay(&self, bytes: u32) {
        self.spent.fetch_add(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::{Allowance, Decision, LINE, OF_A_DOMAIN, OF_ALL};

    const COST: u32 = 80;

    /// Lines printed of so many that are asked for.
    fn printed(allowances: &[&Allowance], period: u32, lines: u32) -> u32 {
        let granted = (0..lines).filter(|_| {
            let granted = allowances.iter().all(|one| one.ask(period).granted);
            if granted {
                allowances.iter().for_each(|one| one.pay(COST));
            }
            granted
        });
        granted.count() as u32
    }

    #[test]
    fn a_domain_gets_its_bytes_in_each_period_and_at_most_a_line_more() {
        let domain = Allowance::of_a_domain();
        for period in 1..4 {
            let bytes = printed(&[&domain], period, 1000) * COST;
            assert!((OF_A_DOMAIN..OF_A_DOMAIN + COST).contains(&bytes));
        }
    }

    #[test]
    fn what_was_refused_is_told_once_when_the_next_period_begins() {
        let domain = Allowance::of_a_domain();
        domain.ask(1);
        domain.pay(OF_A_DOMAIN);
        for _ in 0..7 {
            assert!(!domain.ask(1).granted);
        }
        let told = Decision {
            granted: true,
            suppressed: 7,
        };
        let quiet = Decision {
            granted: true,
            suppressed: 0,
        };
        assert_eq!(domain.ask(2), told);
        assert_eq!(domain.ask(2), quiet);
        assert_eq!(domain.ask(9), quiet, "nothing was refused in period 2");
        domain.refuse();
        assert_eq!(domain.ask(10).suppressed, 1);
    }

    #[test]
    fn a_noisy_domain_does_not_silence_another() {
        let (noisy, other, all) = (
            Allowance::of_a_domain(),
            Allowance::of_a_domain(),
            Allowance::of_all(),
        );
        let noise = printed(&[&noisy, &all], 5, 10_000);
        assert_eq!(noise, OF_A_DOMAIN.div_ceil(COST));
        assert_eq!(printed(&[&other, &all], 5, 10_000), noise);
    }

    #[test]
    fn all_domains_together_leave_half_of_the_line() {
        let all = Allowance::of_all();
        let domains: Vec<_> = (0..100).map(|_| Allowance::of_a_domain()).collect();
        let lines: u32 = domains
            .iter()
            .map(|domain| printed(&[domain, &all], 3, 100))
            .sum();
        assert!(lines * COST >= OF_ALL && lines * COST < LINE / 2 + COST);
    }
}
