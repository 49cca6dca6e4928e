//! Moving a domain by a link, such as the pipes of `ssh other kmove receive`: the stream one way, words the other.
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
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::guest::Guest;
use crate::live::{self, Rounds, Stop};
use crate::machine::Machine;
use crate::patient;
use crate::restore;
use crate::save::{self, Summary};

/// Said of a `send` without a command.
pub const NO_COMMAND: &str = "send needs a command: -- ssh HOST kmove receive";

const READY: &str = "ready";
const GO: &str = "go";
const RUNS: &str = "runs";
const FAILED: &str = "failed";

/// The ways in which a transfer fails.
#[derive(Debug)]
enum Failure {
    /// Before the other side was told to go on: the domain is here alone.
    Here(io::Error),
    /// The other side was told, and has not answered: nobody knows where the domain runs.
    Unknown(io::Error),
}

/// The state of the domain during a transfer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// It runs until the last pages.
    Live,
    /// It is suspended.
    Suspended,
}

/// The result of a transfer.
#[derive(Debug)]
pub struct Sent {
    /// The figures of the stream.
    pub summary: Summary,
    /// The rounds, if it ran meanwhile.
    pub rounds: Option<Rounds>,
    /// The times of its stop.
    pub downtime: Downtime,
}

/// The times of a domain's stop, one after another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Downtime {
    /// The guest's own, from the request to its suspend. It runs for most of it.
    pub suspend: Duration,
    /// For the last pages.
    pub pages: Duration,
    /// Until the other side had them and all else.
    pub rest: Duration,
    /// Until it ran there.
    pub start: Duration,
}

impl Downtime {
    /// Returns the time from its suspend until it ran on the other side.
    pub fn still(&self) -> Duration {
        self.pages + self.rest + self.start
    }
}

/// The other side, by a link.
pub struct Peer {
    to: Option<patient::Writer>,
    from: BufReader<patient::Reader>,
    /// The command that is the link.
    child: Option<Child>,
}

impl Peer {
    /// Starts a command whose input and output are the link.
    pub fn start(command: &[&str], patience: Duration) -> io::Result<Self> {
        let (program, arguments) = command.split_first().ok_or(io::Error::other(NO_COMMAND))?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))?;
        let missing = || io::Error::other("no pipe");
        let to = child.stdin.take().ok_or_else(missing)?;
        let from = child.stdout.take().ok_or_else(missing)?;
        let mut peer = Self::over(to, from, patience);
        peer.child = Some(child);
        Ok(peer)
    }

    /// Returns the peer at the other end of `to` and `from`. Gives up when nothing moves for `patience`.
    pub fn over(
        to: impl Write + Send + 'static,
        from: impl Read + Send + 'static,
        patience: Duration,
    ) -> Self {
        Self {
            to: Some(patient::Writer::new(to, patience)),
            from: BufReader::new(patient::Reader::new(from, patience)),
            child: None,
        }
    }

    /// Waits for a word.
    fn word(&mut self) -> io::Result<String> {
        word(&mut self.from)?.ok_or(io::Error::other("the other side has ended (above)"))
    }

    /// Sends a domain, which is suspended after that.
    fn send(&mut self, guest: &mut Guest, config: &str, how: How) -> Result<Sent, Failure> {
        let (summary, rounds, stop) = self.prepare(guest, config, how).map_err(Failure::Here)?;
        let ready = Instant::now();
        let to = self.to.as_mut();
        let told = to.map_or(Ok(()), |to| writeln!(to, "{GO}"));
        match told.and_then(|()| self.word()) {
            Ok(word) if word == RUNS => Ok(Sent {
                summary,
                rounds,
                downtime: Downtime {
                    suspend: stop.suspended - stop.asked,
                    pages: stop.sent - stop.suspended,
                    rest: ready - stop.sent,
                    start: ready.elapsed(),
                },
            }),
            Ok(word) if word == FAILED => Err(Failure::Here(io::Error::other(
                "the other side could not let it run",
            ))),
            Ok(word) => Err(Failure::Unknown(io::Error::other(format!(
                "the other side says {word:?}"
            )))),
            Err(error) => Err(Failure::Unknown(error)),
        }
    }

    /// Sends the stream, until the other side has made the domain.
    fn prepare(
        &mut self,
        guest: &mut Guest,
        config: &str,
        how: How,
    ) -> io::Result<(Summary, Option<Rounds>, Stop)> {
        let to = self.to.as_mut().ok_or(io::Error::other("no link"))?;
        let to = BufWriter::with_capacity(1 << 16, to);
        let (summary, rounds, stop) = match how {
            How::Live => {
                let (summary, rounds, stop) = live::domain(guest, config, to)?;
                (summary, Some(rounds), stop)
            }
            How::Suspended => {
                let asked = Instant::now();
                guest.suspend()?;
                let suspended = Instant::now();
                let summary = save::domain(guest, config, to)?;
                let sent = Instant::now();
                let stop = Stop {
                    asked,
                    suspended,
                    sent,
                };
                (summary, None, stop)
            }
        };
        match self.word()?.as_str() {
            READY => Ok((summary, rounds, stop)),
            other => Err(io::Error::other(format!("the other side says {other:?}"))),
        }
    }

    /// Tells the other side that the domain is destroyed here, and waits until it has ended.
    fn end(mut self) {
        drop(self.to.take());
        // The domain runs there, whatever else becomes of the link.
        let _ = io::copy(&mut self.from, &mut io::sink());
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.to.take());
        if let Some(child) = &mut self.child {
            // Both fail only when it has ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Moves a domain to a peer. After a failure it runs on here, but for one: when the link broke between `go` and its answer.
pub fn send(guest: &mut Guest, config: &str, mut peer: Peer, how: How) -> io::Result<Sent> {
    let name = guest.name.clone();
    match peer.send(guest, config, how) {
        Ok(sent) => {
            guest.destroy(&format!("{name} runs on the other side"))?;
            peer.end();
            Ok(sent)
        }
        Err(Failure::Here(error)) => {
            drop(peer);
            guest.go_on().map_err(|other| {
                io::Error::other(format!("{error}; and {name} does not resume: {other}"))
            })?;
            Err(io::Error::other(format!("{error}; {name} runs on")))
        }
        Err(Failure::Unknown(error)) => Err(io::Error::other(format!(
            "{error}; {name} is suspended here and may run on the other side. If it does not, `kmove resume {name}`; if it does, \
             `xl destroy {name}`"
        ))),
    }
}

/// Reads a word, which is a line of its own; `None` at the end, and for half a word.
fn word(from: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    // No word is longer; a peer that never ends its line is none.
    from.take(64).read_line(&mut line)?;
    Ok(line.strip_suffix('\n').map(str::to_owned))
}

/// Receives a domain from `from` and answers to `to`.
pub fn receive(
    machine: &mut Machine,
    from: impl Read,
    mut to: impl Write,
) -> io::Result<restore::Summary> {
    let mut from = BufReader::with_capacity(1 << 16, from);
    let incoming = restore::incoming(machine, &mut from)?;
    let mut say = |word: &str| writeln!(to, "{word}").and_then(|()| to.flush());
    let told = say(READY).and_then(|()| word(&mut from));
    if !matches!(told, Ok(Some(ref word)) if word == GO) {
        let error = "the other side did not let it go, and its copy here is destroyed";
        return Err(incoming.destroyed(machine, io::Error::other(error)));
    }
    match incoming.run(machine) {
        Ok(mut summary) => {
            let _ = say(RUNS);
            // The other side destroys its own and closes the link: then the name is free, on one machine too.
            let _ = io::copy(&mut from, &mut io::sink());
            summary.name = restore::arrive(machine, &summary.name)?;
            Ok(summary)
        }
        Err(error) => {
            let _ = say(FAILED);
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests;
