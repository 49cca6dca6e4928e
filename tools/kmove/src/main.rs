//! kmove: the command line. The work is the library's (`lib.rs`).
#![deny(unsafe_code)]

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use kmove::config::Config;
use kmove::guest::Guest;
use kmove::machine::{Machine, SUSPENDED};
use kmove::transfer::{self, Downtime, How, Peer, Sent};
use kmove::{patient, restore, save, xl};

const USAGE: &str = "\
kmove: saves and restores domUs, from the control domain

  kmove checkpoint NAME [FILE [--transparent]]
                                      suspend NAME, write it to FILE if one is given, let it go on
  kmove save NAME FILE [--transparent]
                                      write NAME to FILE and end it here
  kmove restore FILE [--name NAME] [--paused]
                                      make the domain in FILE, and let it run
  kmove send NAME [--no-live] [--patience SECONDS] -- COMMAND...
                                      move NAME to where COMMAND leads, such as: ssh HOST kmove receive
  kmove receive [--patience SECONDS]  the other end
  kmove resume NAME                   let NAME, which has suspended, go on here
  kmove verify FILE                   read FILE to its end and say what it holds

FILE may be -, for a pipe. With --transparent NAME is paused and not asked to suspend, for a guest that knows nothing of it and
has no disk or network; its file is restored on the same machine. --name gives it another name. After a failure the domain runs on, and nothing of a half-made one is left. A link by which nothing
comes or goes for SECONDS (300) is given up.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["checkpoint", name] => checkpoint(name, None, Stop::Suspend),
        ["checkpoint", name, file] => checkpoint(name, Some(file), Stop::Suspend),
        ["checkpoint", name, file, TRANSPARENT] => checkpoint(name, Some(file), Stop::Pause),
        ["save", name, file] => save(name, file, Stop::Suspend),
        ["save", name, file, TRANSPARENT] => save(name, file, Stop::Pause),
        ["restore", file, ref options @ ..] => restore(file, options),
        ["send", name, ref rest @ ..] => send(name, rest),
        ["receive", ref options @ ..] => receive(options),
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

/// Returns the configuration of a domain, as xl describes it.
fn configuration(name: &str) -> io::Result<String> {
    let config = Config::of(&xl::described(name)?)
        .ok_or_else(|| io::Error::other(format!("`xl list -l {name}` gives no configuration")))?;
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

/// A file whose flush waits for the disk.
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

const TRANSPARENT: &str = "--transparent";

/// How a domain is stopped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// Its guest suspends.
    Suspend,
    /// It is paused, and its guest knows nothing of it.
    Pause,
}

/// Stops a domain and does `work`. Lets it go on if `goes_on`, or if that fails.
fn stopped<T>(
    guest: &mut Guest,
    how: Stop,
    goes_on: bool,
    work: impl FnOnce(&mut Guest) -> io::Result<T>,
) -> io::Result<T> {
    match how {
        Stop::Suspend => guest.suspend()?,
        Stop::Pause => guest.pause()?,
    }
    let done = work(guest);
    if goes_on || done.is_err() {
        let resumed = match how {
            Stop::Suspend => guest.resume(),
            Stop::Pause => guest.machine.xen.unpause(guest.id),
        };
        return match (done, resumed) {
            (Ok(done), Ok(())) => Ok(done),
            (Ok(_), Err(error)) => Err(io::Error::other(format!(
                "{} does not resume: {error}",
                guest.name
            ))),
            (Err(error), Ok(())) => {
                Err(io::Error::other(format!("{error}; {} runs on", guest.name)))
            }
            (Err(error), Err(other)) => Err(io::Error::other(format!(
                "{error}; and {} does not resume: {other}",
                guest.name
            ))),
        };
    }
    done
}

/// Writes a stopped domain to a file, and removes that if it fails.
fn write(guest: &mut Guest, config: &str, file: &str, how: Stop) -> io::Result<save::Summary> {
    let to = BufWriter::with_capacity(1 << 16, create(file)?);
    let written = match how {
        Stop::Suspend => save::domain(guest, config, to),
        Stop::Pause => save::unaware(guest, config, to),
    };
    written.map_err(|error| {
        if file != "-" {
            let _ = std::fs::remove_file(file);
        }
        io::Error::new(error.kind(), format!("writing {file}: {error}"))
    })
}

fn checkpoint(name: &str, file: Option<&str>, how: Stop) -> io::Result<()> {
    let mut guest = Guest::find(Machine::open()?, name)?;
    let config = match file {
        Some(_) => configuration(name)?,
        None => String::new(),
    };
    let mut began = Instant::now();
    let summary = stopped(&mut guest, how, true, |guest| {
        began = Instant::now();
        match file {
            Some(file) => write(guest, &config, file, how),
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

fn save(name: &str, file: &str, how: Stop) -> io::Result<()> {
    let mut guest = Guest::find(Machine::open()?, name)?;
    let config = configuration(name)?;
    let summary = stopped(&mut guest, how, false, |guest| {
        write(guest, &config, file, how)
    })?;
    guest.destroy(&format!("{file} is complete"))?;
    say(format_args!("{name} is in {file}: {}", told(&summary)));
    Ok(())
}

/// Longest time by default in which nothing moves on a link: longer than a guest may take to suspend, when nothing is sent.
const PATIENCE: Duration = Duration::from_secs(300);

/// Reads the options that `send` and `receive` have in common.
fn link_options<'a>(mut left: impl Iterator<Item = &'a str>) -> io::Result<Duration> {
    let mut patience = PATIENCE;
    while let Some(option) = left.next() {
        match option {
            "--patience" => {
                let seconds = left.next().and_then(|word| word.parse().ok());
                let seconds = seconds
                    .filter(|seconds| *seconds > 0)
                    .ok_or(io::Error::other("--patience needs seconds"))?;
                patience = Duration::from_secs(seconds);
            }
            other => return Err(io::Error::other(format!("there is no option {other}"))),
        }
    }
    Ok(patience)
}

fn send(name: &str, words: &[&str]) -> io::Result<()> {
    const NO_LIVE: &str = "--no-live";
    let dashes = words.iter().position(|word| *word == "--");
    let dashes = dashes.ok_or(io::Error::other(transfer::NO_COMMAND))?;
    let (options, command) = (&words[..dashes], &words[dashes + 1..]);
    let how = match options.contains(&NO_LIVE) {
        true => How::Suspended,
        false => How::Live,
    };
    let of_link = options.iter().copied().filter(|word| *word != NO_LIVE);
    let patience = link_options(of_link)?;
    let mut guest = Guest::find(Machine::open()?, name)?;
    let config = configuration(name)?;
    let peer = Peer::start(command, patience)?;
    let sent = transfer::send(&mut guest, &config, peer, how)?;
    say(format_args!(
        "{name} has moved, and stood still for {}: {}",
        told_times(&sent.downtime),
        told_of(&sent)
    ));
    Ok(())
}

fn told_times(times: &Downtime) -> String {
    let ms = |time: Duration| time.as_millis();
    format!(
        "{} ms, after {} to suspend ({} for its last pages, {} for the rest, {} to run there)",
        ms(times.still()),
        ms(times.suspend),
        ms(times.pages),
        ms(times.rest),
        ms(times.start)
    )
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

fn receive(options: &[&str]) -> io::Result<()> {
    let patience = link_options(options.iter().copied())?;
    let from = patient::Reader::new(io::stdin(), patience);
    let summary = transfer::receive(&mut Machine::open()?, from, io::stdout().lock())?;
    say(format_args!(
        "{} runs here: {} pages, {} bytes",
        summary.name, summary.pages, summary.bytes
    ));
    Ok(())
}

fn resume(name: &str) -> io::Result<()> {
    let mut guest = Guest::find(Machine::open()?, name)?;
    if guest.machine.xen.info(guest.id)?.shutdown != Some(SUSPENDED) {
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
    let summary = restore::domain(&mut Machine::open()?, open(file)?, name, paused)
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
