//! Bare-metal test guests (tests/guests) in dom0's place.
//!
//! A guest prints `ok <sentence>` or `FAIL <sentence>: why` for each check, then `done: N ok, M failed`.

use std::path::PathBuf;

use crate::machine::Machine;
use crate::options::Options;
use crate::project::{self, root};
use crate::session::{Echo, Session};
use crate::{Result, build, partitions};

/// Returns the names of all guests.
pub fn names() -> Result<Vec<String>> {
    project::programs_in("tests/guests/src/bin")
}

/// Guests that are the only domain.
const UART: &str = "uart";
const MONITORS: &str = "monitors";
/// The guest that is two domains.
const TWICE: &str = "partition";
/// The guest that is started again when it ends.
const RESTART: &str = "restart";

/// Builds the guests, boots one and judges its transcript.
pub fn test(name: &str, options: &Options, echo: Echo) -> Result {
    match name {
        UART => return partitions::runs_typist(&flat(name)?, options, echo),
        MONITORS => return partitions::runs_monitors(&flat(name)?, options, echo),
        TWICE => return partitions::runs_two_guests(&flat(name)?, options, echo),
        RESTART => return partitions::runs_again(&flat(name)?, options, echo),
        _ => {}
    }
    run(&machine(name, options)?, options, echo)
}

/// The guest that does whatever comes to it by chance, and its seeds and steps in a soak.
const BY_CHANCE: &str = "fuzzer";
const SEEDS: u32 = 100;
const STEPS: u32 = 1_000_000;

/// Boots the guest that does whatever comes to it by chance, with a seed after the other, unless the options name one.
pub fn test_by_chance(options: &Options, echo: Echo) -> Result {
    for seed in 1..=options.count.unwrap_or(SEEDS) {
        let words = format!("{} seed={seed} steps={STEPS}", options.dom0_append);
        let options = Options {
            dom0_append: words,
            timeout: options.timeout * 10,
            ..options.clone()
        };
        test(BY_CHANCE, &options, echo)?;
        println!("seed {seed}: {STEPS} steps come to nothing");
    }
    Ok(())
}

/// Boots the machine of a guest and judges its transcript.
pub fn run(machine: &Machine, options: &Options, echo: Echo) -> Result {
    let mut session = Session::start(machine, echo)?;
    let sum = session.expect("done: * ok, * failed", options.timeout)?;
    judge(session.transcript(), &sum)?;
    session.hazards()
}

/// Returns the machine with the guest in dom0's place.
pub fn machine(name: &str, options: &Options) -> Result<Machine> {
    let mut machine = Machine::new(options)?;
    machine.kernel = Some(flat(name)?);
    machine.initrd = None;
    if let Some(watch) = &mut machine.hazards {
        // It has few instructions: all of its accesses.
        watch.guests = "all";
    }
    machine.dom0_append.clone_from(&options.dom0_append);
    Ok(machine)
}

/// Builds a guest as a boot loader takes it.
fn flat(name: &str) -> Result<PathBuf> {
    let elf = build::guests()?.join(name);
    build::flat_guest(&elf, &root().join("target/guests").join(name))
}

/// Checks the sum: it must say that nothing failed, and count every `ok` line: a guest that skips checks does not pass.
pub fn judge(transcript: &str, sum: &str) -> Result {
    let start = transcript.find("guest: ").unwrap_or(0);
    let count = |word: &str| {
        transcript[start..]
            .lines()
            .filter(|line| line.starts_with(word))
            .count()
    };
    let (held, failed) = (count("ok "), count("FAIL "));
    let sum = &sum[sum.find("done: ").unwrap_or(0)..];
    if failed == 0 && held > 0 && sum.starts_with(&format!("done: {held} ok, 0 failed")) {
        return Ok(());
    }
    Err(format!("{sum}\n{}", &transcript[start..]))
}

#[cfg(test)]
mod tests {
    use super::judge;

    #[test]
    fn a_transcript_passes_when_the_sum_agrees_with_its_lines() {
        let sum = "done: 2 ok, 0 failed";
        assert!(judge("boot\nguest: events\nok a\nok b\ndone: 2 ok, 0 failed", sum).is_ok());
        assert!(judge("guest: events\nok a\ndone: 2 ok, 0 failed", sum).is_err());
        assert!(
            judge(
                "guest: events\nok a\nok b\nFAIL c: why\ndone: 2 ok, 0 failed",
                sum
            )
            .is_err()
        );
        assert!(
            judge(
                "guest: events\ndone: 0 ok, 0 failed",
                "done: 0 ok, 0 failed"
            )
            .is_err()
        );
    }
}
