//! How long to wait for a machine under test, in the time that the machine can have had.
//!
//! The host is shared. It may stand still for minutes, and the machine with it; the clock goes on. So time that passed
//! while this process did not run either counts for little.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// One look at the clock. Whoever sleeps this long and finds that more than [`AT_MOST`] has gone was held up.
const STEP: Duration = Duration::from_millis(500);
const AT_MOST: Duration = Duration::from_secs(2);

/// A limit that shrinks while one waits.
pub struct Patience {
    left: Duration,
    /// Time that passed uncounted.
    pub held_up: Duration,
}

impl Patience {
    pub fn new(limit: Duration) -> Self {
        Self {
            left: limit,
            held_up: Duration::ZERO,
        }
    }

    /// Waits for a message, or until patience runs out.
    pub fn receive<T>(&mut self, source: &Receiver<T>) -> Result<T, RecvTimeoutError> {
        loop {
            let start = Instant::now();
            let received = source.recv_timeout(STEP.min(self.left));
            self.spend(start.elapsed());
            match received {
                Err(RecvTimeoutError::Timeout) if !self.left.is_zero() => {}
                other => return other,
            }
        }
    }

    fn spend(&mut self, elapsed: Duration) {
        let counted = elapsed.min(AT_MOST);
        self.held_up += elapsed - counted;
        self.left = self.left.saturating_sub(counted);
    }
}

#[cfg(test)]
mod tests {
    use super::Patience;
    use std::sync::mpsc::{RecvTimeoutError, channel};
    use std::time::Duration;

    #[test]
    fn time_in_which_nothing_ran_counts_for_little() {
        let mut patience = Patience::new(Duration::from_secs(60));
        patience.spend(Duration::from_secs(257));
        assert_eq!(patience.left, Duration::from_secs(58));
        assert_eq!(patience.held_up, Duration::from_secs(255));
        patience.spend(Duration::from_millis(500));
        assert_eq!(patience.left, Duration::from_millis(57_500));
    }

    #[test]
    fn patience_ends() {
        let (sender, source) = channel::<()>();
        let mut patience = Patience::new(Duration::from_millis(1));
        assert_eq!(patience.receive(&source), Err(RecvTimeoutError::Timeout));
        drop(sender);
        let mut patience = Patience::new(Duration::from_secs(60));
        assert_eq!(
            patience.receive(&source),
            Err(RecvTimeoutError::Disconnected)
        );
    }
}
