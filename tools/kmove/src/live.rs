//! Writing a domain while it runs: all its pages, then those that it has written meanwhile, in rounds, until so few are left
//! that it can be suspended for them.

use std::io::{self, Write};
use std::time::Instant;

use crate::guest::Guest;
use crate::progress::Progress;
use crate::save::{Saving, Summary};
use crate::xen::RAM_START;

/// So few pages are left for the time when the guest stands still.
const FEW: usize = 64;
/// Rounds after which the guest is suspended however many are left.
const MOST_ROUNDS: u32 = 6;

/// The figures of a live move.
#[derive(Clone, Copy, Default, Debug)]
pub struct Rounds {
    /// Rounds while the guest ran, and the one after that.
    pub rounds: u32,
    /// Pages of all rounds but the first: sent again.
    pub again: u64,
    /// Pages of the last round.
    pub last: u64,
    /// Faults of the guest by writes that were logged.
    pub faults: u64,
    /// Pages that became written.
    pub written: u64,
}

/// Writes a domain that runs, and leaves it suspended. `still` is when it stopped.
pub fn domain(
    guest: &mut Guest,
    config: &str,
    to: impl Write,
    still: &mut Option<Instant>,
) -> io::Result<(Summary, Rounds)> {
    guest.ready()?;
    guest.begin_log()?;
    let mut saving = Saving::start(config, to)?;
    let mut done = Rounds::default();
    let last = guest.xen.last_frame(guest.id)?;
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
        // Rounds that get no shorter get nowhere.
        if frames.len() <= FEW || done.rounds >= MOST_ROUNDS || frames.len() >= before {
            break;
        }
        done.again += frames.len() as u64;
    }
    // The pages that are left are sent with those that are written until the guest stands still.
    guest.suspend()?;
    *still = Some(Instant::now());
    frames.extend(written(guest, &mut done)?);
    frames.sort_unstable();
    frames.dedup();
    done.rounds += 1;
    done.last = frames.len() as u64;
    done.again += done.last;
    round(guest, &mut saving, &frames, "the last round")?;
    let summary = saving.rest(guest)?;
    Ok((summary, done))
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

/// Returns the frames that were written since the last time.
fn written(guest: &mut Guest, done: &mut Rounds) -> io::Result<Vec<u64>> {
    let last = guest.xen.last_frame(guest.id)?;
    let log = guest.xen.read_log(guest.id, last + 1)?;
    done.faults += u64::from(log.faults);
    done.written += u64::from(log.written);
    Ok(log
        .frames
        .into_iter()
        .filter(|frame| *frame >= RAM_START)
        .collect())
}
