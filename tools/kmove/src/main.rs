//! kmove: saves domUs of Krypton to a file, restores them, and takes checkpoints, from the control domain.
//!
//! | file | contents |
//! |---|---|
//! | `guest.rs` | suspend and resume of a guest |
//! | `save.rs`, `restore.rs` | from a domain to a stream, and back |
//! | `live.rs` | a domain that runs, in rounds |
//! | `transfer.rs` | send and receive through a command's pipes |
//! | `stream.rs` | format of the stream |
//! | `progress.rs` | a line of progress on a terminal |
//! | `config.rs`, `json.rs` | configuration for `xl create` |
//! | `xen.rs`, `store.rs` | hypercalls and xenstore requests |
//! | `sys.rs` | privcmd; all `unsafe` |
#![deny(unsafe_code)]

mod config;
mod guest;
mod json;
mod live;
mod progress;
mod restore;
mod save;
mod store;
mod stream;
mod sys;
mod transfer;
mod xen;

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::process::{Command, ExitCode};
use std::time::Instant;

use crate::config::Config;
use crate::guest::Guest;
use crate::transfer::{Failure, How, Peer, Sent};

const USAGE: &str = "\
kmove: saves and restores domUs, from the control domain

  kmove checkpoint NAME [FILE]        suspend NAME, write it to FILE if one is given, let it go on
  kmove save NAME FILE                write NAME to FILE and end it here
  kmove restore FILE [--name NAME] [--paused]
                                      make the domain in FILE, and let it run
  kmove send NAME [--no-live] -- COMMAND...
                                      move NAME to where COMMAND leads, such as: ssh HOST kmove receive
  kmove receive                       the other end
  kmove resume NAME                   let NAME, which has suspended, go on here
  kmove verify FILE                   read FILE to its end and say what it holds

FILE may be -, for a pipe. After a failure the domain runs on, and nothing of a half-made one is left.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["checkpoint", name] => checkpoint(name, None),
        ["checkpoint", name, file] => checkpoint(name, Some(file)),
        ["save", name, file] => save(name, file),
        ["restore", file, ref options @ ..] => restore(file, options),
        ["send", name, "--", ref command @ ..] => send(name, command, How::Live),
        ["send", name, "--no-live", "--", ref command @ ..] => send(name, command, How::Suspended),
        ["receive"] => receive(),
        ["resume", name] => resume(name),
        ["verify", file] => verify(file),
        ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            Ok(())
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kmove: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Messages go where a stream does not.
fn say(what: std::fmt::Arguments<'_>) {
    eprintln!("kmove: {what}");
}

/// Returns the configuration of a domain, as xl tells it.
fn configuration(name: &str) -> io::Result<String> {
    let told = Command::new("xl")
        .args(["list", "-l", name])
        .output()
        .map_err(|error| io::Error::other(format!("cannot run xl: {error}")))?;
    let config = Config::of(&String::from_utf8_lossy(&told.stdout))
        .ok_or_else(|| io::Error::other(format!("`xl list -l {name}` tells no configuration")))?;
    if !config.left_out.is_empty() {
        say(format_args!(
            "settings that do not go along: {}",
            config.left_out.join(", ")
        ));
    }
    Ok(config.text)
}

fn create(file: &str) -> io::Result<Box<dyn Write>> {
    if file == "-" {
        return Ok(Box::new(io::stdout().lock()));
    }
    let made = File::create(file)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot make {file}: {error}")))?;
    Ok(Box::new(Synced(made)))
}

/// A file whose flush means the disk.
struct Synced(File);

impl Write for Synced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.sync_all()
    }
}

fn open(file: &str) -> io::Result<Box<dyn io::Read>> {
    if file == "-" {
        return Ok(Box::new(io::stdin().lock()));
    }
    let opened = File::open(file)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot read {file}: {error}")))?;
    Ok(Box::new(BufReader::with_capacity(1 << 16, opened)))
}

/// Suspends a domain, does `work`, and, if that fails or if it is to go on, lets it go on.
fn suspended<T>(
    guest: &mut Guest,
    goes_on: bool,
    work: impl FnOnce(&mut Guest) -> io::Result<T>,
) -> io::Result<T> {
    guest.suspend()?;
    let done = work(guest);
    if goes_on || done.is_err() {
        let resumed = guest.resume();
        return match (done, resumed) {
            (Ok(done), Ok(())) => Ok(done),
            (Ok(_), Err(error)) => Err(io::Error::other(format!(
                "{} does not go on: {error}",
                guest.name
            ))),
            (Err(error), Ok(())) => {
                Err(io::Error::other(format!("{error}; {} runs on", guest.name)))
            }
            (Err(error), Err(other)) => Err(io::Error::other(format!(
                "{error}; and {} does not go on: {other}",
                guest.name
            ))),
        };
    }
    done
}

/// Writes a suspended domain to a file, and removes that if it fails.
fn write(guest: &mut Guest, config: &str, file: &str) -> io::Result<save::Summary> {
    let to = BufWriter::with_capacity(1 << 16, create(file)?);
    save::domain(guest, config, to).map_err(|error| {
        if file != "-" {
            let _ = std::fs::remove_file(file);
        }
        io::Error::new(error.kind(), format!("writing {file}: {error}"))
    })
}

fn checkpoint(name: &str, file: Option<&str>) -> io::Result<()> {
    let mut guest = Guest::find(name)?;
    let config = match file {
        Some(_) => configuration(name)?,
        None => String::new(),
    };
    let mut began = Instant::now();
    let summary = suspended(&mut guest, true, |guest| {
        began = Instant::now();
        match file {
            Some(file) => write(guest, &config, file),
            None => Ok(save::Summary::default()),
        }
    })?;
    say(format_args!(
        "{name} stood still for {} ms; {}",
        began.elapsed().as_millis(),
        told(&summary)
    ));
    Ok(())
}

fn told(summary: &save::Summary) -> String {
    format!(
        "{} pages, {} of them zero, {} bytes",
        summary.pages, summary.zero, summary.bytes
    )
}

fn save(name: &str, file: &str) -> io::Result<()> {
    let mut guest = Guest::find(name)?;
    let config = configuration(name)?;
    let summary = suspended(&mut guest, false, |guest| write(guest, &config, file))?;
    destroy(&guest, &format!("{file} is complete"))?;
    say(format_args!("{name} is in {file}: {}", told(&summary)));
    Ok(())
}

/// Ends a domain that is elsewhere now.
fn destroy(guest: &Guest, but: &str) -> io::Result<()> {
    let status = Command::new("xl")
        .args(["destroy", &guest.id.to_string()])
        .stdout(io::stderr())
        .status()?;
    if status.success() {
        return Ok(());
    }
    let name = &guest.name;
    Err(io::Error::other(format!(
        "{but}, but `xl destroy {name}` failed: the domain is suspended here, and must not go on"
    )))
}

fn send(name: &str, command: &[&str], how: How) -> io::Result<()> {
    let mut guest = Guest::find(name)?;
    let config = configuration(name)?;
    let mut peer = Peer::start(command)?;
    match peer.send(&mut guest, &config, how) {
        Ok(sent) => {
            let still = sent.still.elapsed().as_millis();
            destroy(&guest, &format!("{name} runs on the other side"))?;
            drop(peer);
            say(format_args!(
                "{name} has moved, and stood still for {still} ms: {}",
                told_of(&sent)
            ));
            Ok(())
        }
        Err(Failure::Here(error)) => {
            guest.go_on().map_err(|other| {
                io::Error::other(format!("{error}; and {name} does not go on: {other}"))
            })?;
            Err(io::Error::other(format!("{error}; {name} runs on")))
        }
        Err(Failure::Unknown(error)) => Err(io::Error::other(format!(
            "{error}; {name} is suspended here and may run on the other side. If it does not, `kmove resume {name}`; if it does, \
             `xl destroy {name}`"
        ))),
    }
}

fn told_of(sent: &Sent) -> String {
    let pages = told(&sent.summary);
    match sent.rounds {
        None => pages,
        Some(rounds) => format!(
            "{pages}; {} rounds, {} pages sent again, {} of them in the last one; {} faults for {} pages written",
            rounds.rounds, rounds.again, rounds.last, rounds.faults, rounds.written
        ),
    }
}

fn receive() -> io::Result<()> {
    let summary = transfer::receive(io::stdin().lock(), io::stdout().lock())?;
    say(format_args!(
        "{} runs here: {} pages, {} bytes",
        summary.name, summary.pages, summary.bytes
    ));
    Ok(())
}

fn resume(name: &str) -> io::Result<()> {
    let mut guest = Guest::find(name)?;
    if guest.xen.info(guest.id)?.shutdown != Some(xen::SUSPENDED) {
        return Err(io::Error::other(format!("{name} has not suspended")));
    }
    guest.go_on()
}

fn restore(file: &str, options: &[&str]) -> io::Result<()> {
    let (mut name, mut paused) = (None, false);
    let mut left = options.iter();
    while let Some(option) = left.next() {
        match *option {
            "--paused" => paused = true,
            "--name" => {
                let given = left.next().ok_or(io::Error::other("--name needs a name"))?;
                name = Some(*given);
            }
            other => return Err(io::Error::other(format!("there is no option {other}"))),
        }
    }
    let summary = restore::domain(open(file)?, name, paused)
        .map_err(|error| io::Error::new(error.kind(), format!("restoring {file}: {error}")))?;
    let state = if paused { "is paused" } else { "runs" };
    say(format_args!(
        "{} {state}: {} pages, {} bytes",
        summary.name, summary.pages, summary.bytes
    ));
    Ok(())
}

fn verify(file: &str) -> io::Result<()> {
    let summary = restore::verify(open(file)?)
        .map_err(|error| io::Error::new(error.kind(), format!("{file}: {error}")))?;
    say(format_args!(
        "{file} holds {}, whole: {} pages, {} bytes",
        summary.name, summary.pages, summary.bytes
    ));
    Ok(())
}
