//! Moving a domain through a command's pipes, such as `ssh other kmove receive`: the stream one way, a word back.
//!
//! ```text
//! send                                   receive
//!   stream ------------------------------> makes the domain, paused
//!   <------------------------------ ready
//!   go ----------------------------------> lets it run
//!   <------------------------------- runs
//!   destroys its own, ends --------------> gives it its name
//! ```
//!
//! Until `go` is sent the domain is here, and goes on if anything fails; the other side then destroys what it has made. From
//! then on only the other side knows: if the link breaks before it has said `runs` or `failed`, both stay suspended or paused
//! until a person has looked.

use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use crate::guest::Guest;
use crate::live::{self, Rounds};
use crate::restore;
use crate::save::{self, Summary};

const READY: &str = "ready";
const GO: &str = "go";
const RUNS: &str = "runs";
const FAILED: &str = "failed";

/// The ways in which a transfer fails.
#[derive(Debug)]
pub enum Failure {
    /// Before the other side was told to go on: the domain is here alone.
    Here(io::Error),
    /// The other side was told, and has not answered: nobody knows where the domain runs.
    Unknown(io::Error),
}

/// The state of the domain during a transfer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// While it runs, but for the last pages.
    Live,
    /// Suspended.
    Suspended,
}

/// A domain that was sent.
#[derive(Debug)]
pub struct Sent {
    /// The figures of the save.
    pub summary: Summary,
    /// The rounds, if it ran meanwhile.
    pub rounds: Option<Rounds>,
    /// When it stopped.
    pub still: Instant,
}

/// The command at the other end of the pipes.
pub struct Peer {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts a command.
    pub fn start(command: &[&str]) -> io::Result<Self> {
        let (program, arguments) = command.split_first().ok_or(io::Error::other(
            "send needs a command: -- ssh HOST kmove receive",
        ))?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))?;
        let missing = || io::Error::other("no pipe");
        let to = child.stdin.take().ok_or_else(missing)?;
        let from = child.stdout.take().ok_or_else(missing)?;
        Ok(Self {
            child,
            to: Some(to),
            from: BufReader::new(from),
        })
    }

    /// Waits for a word.
    fn word(&mut self) -> io::Result<String> {
        word(&mut self.from)?.ok_or(io::Error::other("the other side has ended (above)"))
    }

    /// Sends a domain: while it runs, or suspended.
    pub fn send(&mut self, guest: &mut Guest, config: &str, how: How) -> Result<Sent, Failure> {
        let sent = self.prepare(guest, config, how).map_err(Failure::Here)?;
        let to = self.to.as_mut();
        let told = to.map_or(Ok(()), |to| writeln!(to, "{GO}").and_then(|()| to.flush()));
        match told.and_then(|()| self.word()) {
            Ok(word) if word == RUNS => Ok(sent),
            Ok(word) if word == FAILED => Err(Failure::Here(io::Error::other(
                "the other side could not let it run",
            ))),
            Ok(word) => Err(Failure::Unknown(io::Error::other(format!(
                "the other side says {word:?}"
            )))),
            Err(error) => Err(Failure::Unknown(error)),
        }
    }

    fn prepare(&mut self, guest: &mut Guest, config: &str, how: How) -> io::Result<Sent> {
        let to = self.to.as_mut().ok_or(io::Error::other("no pipe"))?;
        let to = BufWriter::with_capacity(1 << 16, to);
        let mut still = None;
        let (summary, rounds) = match how {
            How::Live => {
                let (summary, rounds) = live::domain(guest, config, to, &mut still)?;
                (summary, Some(rounds))
            }
            How::Suspended => {
                guest.suspend()?;
                still = Some(Instant::now());
                (save::domain(guest, config, to)?, None)
            }
        };
        match self.word()?.as_str() {
            READY => Ok(Sent {
                summary,
                rounds,
                still: still.unwrap_or_else(Instant::now),
            }),
            other => Err(io::Error::other(format!("the other side says {other:?}"))),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Without its input the command ends.
        drop(self.to.take());
        let _ = self.child.wait();
    }
}

/// Reads a word of a line of its own; `None` at the end.
fn word(from: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    // No word is longer; a peer that never ends its line is none.
    from.take(64).read_line(&mut line)?;
    match line.trim_end() {
        "" => Ok(None),
        word => Ok(Some(word.to_owned())),
    }
}

/// Receives a domain from `from` and answers to `to`.
pub fn receive(from: impl Read, mut to: impl Write) -> io::Result<restore::Summary> {
    let mut from = BufReader::with_capacity(1 << 16, from);
    let incoming = restore::incoming(&mut from)?;
    let mut say = |word: &str| writeln!(to, "{word}").and_then(|()| to.flush());
    let told = say(READY).and_then(|()| word(&mut from));
    if !matches!(told, Ok(Some(ref word)) if word == GO) {
        incoming.destroy();
        return Err(io::Error::other(
            "the other side did not let it go, and what was made of it here is gone",
        ));
    }
    match incoming.run() {
        Ok(mut summary) => {
            let _ = say(RUNS);
            // The other side ends its own and closes the pipe: then the name is free, on one machine too.
            let _ = io::copy(&mut from, &mut io::sink());
            summary.name = restore::arrive(&summary.name)?;
            Ok(summary)
        }
        Err(error) => {
            let _ = say(FAILED);
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::word;
    use std::io::BufReader;

    #[test]
    fn words_are_lines_and_an_end_is_none() {
        let mut from = BufReader::new(&b"ready\nruns\n"[..]);
        assert_eq!(word(&mut from).unwrap().as_deref(), Some("ready"));
        assert_eq!(word(&mut from).unwrap().as_deref(), Some("runs"));
        assert_eq!(word(&mut from).unwrap(), None);
        let long = [b'x'; 1000];
        let mut from = BufReader::new(&long[..]);
        assert_eq!(word(&mut from).unwrap().map(|word| word.len()), Some(64));
    }
}
