//! Writing a domain while it runs: all its pages, then in rounds those that it has written since, until few are left. For these
//! it suspends.

use std::io::{self, Write};
use std::time::Instant;

use crate::guest::Guest;
use crate::machine::RAM_START;
use crate::progress::Progress;
use crate::save::{Saving, Summary};

/// With so few dirty pages left, the guest suspends.
const FEW: usize = 64;
/// After so many rounds the guest suspends, however many pages are left.
const MOST_ROUNDS: u32 = 6;

/// The figures of a live move.
#[derive(Clone, Copy, Default, Debug)]
pub struct Rounds {
    /// Number of rounds, with the last one, when the guest was suspended.
    pub rounds: u32,
    /// Pages sent again: those of all rounds but the first.
    pub again: u64,
    /// Pages of the last round.
    pub last: u64,
    /// Faults that the logged writes took.
    pub faults: u64,
    /// Pages that became dirty.
    pub written: u64,
}

/// Moments of a domain's stop.
#[derive(Clone, Copy, Debug)]
pub struct Stop {
    /// It was asked to suspend.
    pub asked: Instant,
    /// It was seen to have suspended.
    pub suspended: Instant,
    /// The last of its pages was handed to the link.
    pub sent: Instant,
}

/// Writes a running domain, and leaves it suspended.
pub fn domain(
    guest: &mut Guest,
    config: &str,
    to: impl Write,
) -> io::Result<(Summary, Rounds, Stop)> {
    guest.ready()?;
    guest.begin_log()?;
    let mut saving = Saving::start(config, to)?;
    let mut done = Rounds::default();
    let last = guest.machine.xen.last_frame(guest.id)?;
    let mut frames: Vec<u64> = (RAM_START..=last).collect();
    loop {
        done.rounds += 1;
        round(
            guest,
            &mut saving,
            &frames,
            &format!("round {}", done.rounds),
        )?;
        let before = frames.len();
        frames = written(guest, &mut done)?;
        // Further rounds are of no use when they get no shorter.
        if frames.len() <= FEW || done.rounds >= MOST_ROUNDS || frames.len() >= before {
            break;
        }
        done.again += frames.len() as u64;
    }
    // The last round has the pages that are left, and those written until the suspend.
    let asked = Instant::now();
    guest.suspend()?;
    let suspended = Instant::now();
    frames.extend(written(guest, &mut done)?);
    frames.sort_unstable();
    frames.dedup();
    done.rounds += 1;
    done.last = frames.len() as u64;
    done.again += done.last;
    round(guest, &mut saving, &frames, "the last round")?;
    let stop = Stop {
        asked,
        suspended,
        sent: Instant::now(),
    };
    let summary = saving.rest(guest, None)?;
    Ok((summary, done, stop))
}

fn round(
    guest: &mut Guest,
    saving: &mut Saving<impl Write>,
    frames: &[u64],
    what: &str,
) -> io::Result<()> {
    let progress = Progress::new(what, frames.len());
    saving.frames(guest, frames, |sent| progress.show(sent))
}

/// Returns the frames of RAM that were written since the log was read last.
fn written(guest: &mut Guest, done: &mut Rounds) -> io::Result<Vec<u64>> {
    let last = guest.machine.xen.last_frame(guest.id)?;
    let log = guest.machine.xen.read_log(guest.id, last + 1)?;
    done.faults += u64::from(log.faults);
    done.written += u64::from(log.written);
    Ok(log
        .frames
        .into_iter()
        .filter(|frame| *frame >= RAM_START)
        .collect())
}
