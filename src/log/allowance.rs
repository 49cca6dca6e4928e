//! How many lines a guest may cause: so many in a period for each domain, and a bound on all of them together.

use core::sync::atomic::{AtomicU32, Ordering};

/// Lines that one domain may cause in a period.
const OF_A_DOMAIN: u32 = 20;
/// Lines that all domains together may cause in a period: it takes eight noisy ones to silence another.
const OF_ALL: u32 = 8 * OF_A_DOMAIN;

/// Lines in a period, counted.
#[derive(Debug)]
pub struct Allowance {
    /// Most lines in one period.
    most: u32,
    /// The period that is being counted.
    period: AtomicU32,
    /// Lines asked for in it.
    asked: AtomicU32,
}

/// What [`Allowance::ask`] answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
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
            asked: AtomicU32::new(0),
        }
    }

    /// Asks for one line in `period`. Two CPUs that see a period begin at once may get a line more each.
    pub fn ask(&self, period: u32) -> Answer {
        // Counts only, nothing is published by them; saturation would take 2^32 lines in one period.
        let suppressed = match self.period.swap(period, Ordering::Relaxed) == period {
            true => 0,
            false => {
                let asked = self.asked.swap(0, Ordering::Relaxed);
                asked.saturating_sub(self.most)
            }
        };
        Answer {
            granted: self.asked.fetch_add(1, Ordering::Relaxed) < self.most,
            suppressed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Allowance, Answer, OF_A_DOMAIN, OF_ALL};

    fn granted(allowance: &Allowance, period: u32, lines: u32) -> u32 {
        let answers = (0..lines).filter(|_| allowance.ask(period).granted);
        answers.count() as u32
    }

    #[test]
    fn a_domain_gets_its_lines_in_each_period_and_no_more() {
        let domain = Allowance::of_a_domain();
        for period in 1..4 {
            assert_eq!(granted(&domain, period, 1000), OF_A_DOMAIN);
        }
    }

    #[test]
    fn what_was_refused_is_told_once_when_the_next_period_begins() {
        let domain = Allowance::of_a_domain();
        granted(&domain, 1, OF_A_DOMAIN + 7);
        let told = Answer {
            granted: true,
            suppressed: 7,
        };
        let quiet = Answer {
            granted: true,
            suppressed: 0,
        };
        assert_eq!(domain.ask(2), told);
        assert_eq!(domain.ask(2), quiet);
        assert_eq!(domain.ask(9), quiet, "nothing was refused in period 2");
    }

    #[test]
    fn a_noisy_domain_does_not_silence_another() {
        let (noisy, other, all) = (
            Allowance::of_a_domain(),
            Allowance::of_a_domain(),
            Allowance::of_all(),
        );
        let print = |domain: &Allowance| domain.ask(5).granted && all.ask(5).granted;
        let noise = (0..10_000).filter(|_| print(&noisy)).count() as u32;
        assert_eq!(noise, OF_A_DOMAIN);
        assert!(print(&other));
    }

    #[test]
    fn all_domains_together_are_bounded() {
        let all = Allowance::of_all();
        let domains: Vec<_> = (0..100).map(|_| Allowance::of_a_domain()).collect();
        let lines = domains.iter().map(|domain| {
            let printed = (0..100).filter(|_| domain.ask(3).granted && all.ask(3).granted);
            printed.count() as u32
        });
        assert_eq!(lines.sum::<u32>(), OF_ALL);
    }
}
