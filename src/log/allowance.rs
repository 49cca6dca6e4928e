//! Limits on output that guests cause: bytes per period for each domain, and for all together.
//!
//! In bytes, as the console's serial line is the bottleneck that dom0's output shares.

use core::sync::atomic::{AtomicU32, Ordering};

/// Capacity of a serial line at 115,200 baud in bytes per second, at ten bits each.
const LINE: u32 = 115_200 / 10;
/// Bytes per period for all domains together. A period is at least a second.
const OF_ALL: u32 = LINE / 2;
/// Bytes per period for one domain. Eight noisy domains can suppress another one's output.
const OF_A_DOMAIN: u32 = OF_ALL / 8;

/// An allowance of bytes per period, and what is used of it.
#[derive(Debug)]
pub struct Allowance {
    /// Bytes per period; the last line may exceed it.
    most: u32,
    /// The current period.
    period: AtomicU32,
    /// Bytes printed in the current period.
    spent: AtomicU32,
    /// Refused lines that have not been reported.
    refused: AtomicU32,
}

/// The result of [`Allowance::request`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision {
    /// The line may be printed.
    pub granted: bool,
    /// Lines refused in earlier periods and not reported before.
    pub suppressed: u32,
}

impl Allowance {
    /// Returns a domain's allowance.
    pub const fn of_a_domain() -> Self {
        Self::new(OF_A_DOMAIN)
    }

    /// Returns the allowance of all domains together.
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

    /// Requests a line in `period`. At the start of a period two CPUs may each get one line more.
    pub fn request(&self, period: u32) -> Decision {
        // Relaxed: these are counters that publish nothing.
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

    /// Counts a granted line that could not be printed.
    pub(super) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Charges a line's bytes.
    pub(super) fn charge(&self, bytes: u32) {
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
            let granted = allowances.iter().all(|one| one.request(period).granted);
            if granted {
                allowances.iter().for_each(|one| one.charge(COST));
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
        domain.request(1);
        domain.charge(OF_A_DOMAIN);
        for _ in 0..7 {
            assert!(!domain.request(1).granted);
        }
        let told = Decision {
            granted: true,
            suppressed: 7,
        };
        let quiet = Decision {
            granted: true,
            suppressed: 0,
        };
        assert_eq!(domain.request(2), told);
        assert_eq!(domain.request(2), quiet);
        assert_eq!(domain.request(9), quiet, "nothing was refused in period 2");
        domain.refuse();
        assert_eq!(domain.request(10).suppressed, 1);
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
