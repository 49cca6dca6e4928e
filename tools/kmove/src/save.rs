//! Writing a domain as a stream.

use std::io::{self, Write};

use crate::guest::Guest;
use crate::machine::{BATCH, PAGE, PARAMS, PORT_PARAMS, RAM_START};
use crate::progress::Progress;
use crate::stream::{self, Content, Writer};
use crate::transparent::{self, Unaware};

/// The result of a save.
#[derive(Clone, Copy, Default, Debug)]
pub struct Summary {
    /// Number of pages.
    pub pages: u64,
    /// Number of pages of zeros among them.
    pub zero: u64,
    /// Bytes of the stream.
    pub bytes: u64,
}

/// Directories of a domain in xenstore whose nodes go along: its guest writes them at its start only, or the toolstack does.
const KEPT: [&str; 2] = ["control", "cpu"];

/// Writes a suspended domain and its configuration.
pub fn domain(guest: &mut Guest, config: &str, to: impl Write) -> io::Result<Summary> {
    written(guest, config, to, None)
}

/// Writes a paused domain, whose guest knows nothing of it, and its configuration.
pub fn unaware(guest: &mut Guest, config: &str, to: impl Write) -> io::Result<Summary> {
    let unaware = transparent::look(guest)?;
    written(guest, config, to, Some(unaware))
}

fn written(
    guest: &mut Guest,
    config: &str,
    to: impl Write,
    unaware: Option<Unaware>,
) -> io::Result<Summary> {
    let mut saving = Saving::start(config, to)?;
    let last = guest.machine.xen.last_frame(guest.id)?;
    let frames: Vec<u64> = (RAM_START..=last).collect();
    let progress = Progress::new("writing", frames.len());
    saving.frames(guest, &frames, |sent| progress.show(sent))?;
    drop(progress);
    saving.rest(guest, unaware)
}

/// A stream that is being written.
pub struct Saving<W> {
    writer: Writer<W>,
    summary: Summary,
}

impl<W: Write> Saving<W> {
    /// Begins a stream by the configuration.
    pub fn start(config: &str, to: W) -> io::Result<Self> {
        let mut writer = Writer::start(to)?;
        writer.record(stream::CONFIG, config.as_bytes())?;
        writer.record(stream::STATIC_DATA_END, &[])?;
        Ok(Self {
            writer,
            summary: Summary::default(),
        })
    }

    /// Writes the present contents of frames. Calls `told` after each batch with the number of frames written.
    pub fn frames(
        &mut self,
        guest: &mut Guest,
        frames: &[u64],
        told: impl Fn(usize),
    ) -> io::Result<()> {
        let mut through = 0;
        for part in frames.chunks(BATCH) {
            let batch = contents(guest, part)?;
            for (_, content) in &batch {
                self.summary.pages += u64::from(*content != Content::Hole);
                self.summary.zero += u64::from(*content == Content::Zero);
            }
            self.writer.pages(&batch)?;
            through += part.len();
            told(through);
        }
        Ok(())
    }

    /// Writes the state of a domain beside its memory, and ends the stream. It has suspended, or is paused and `unaware`.
    pub fn rest(mut self, guest: &mut Guest, unaware: Option<Unaware>) -> io::Result<Summary> {
        let mut all = nodes(guest)?;
        let mut wanted = PARAMS.to_vec();
        if unaware.is_some() {
            add_nodes(guest, "data", &mut all)?;
            wanted.extend(PORT_PARAMS);
        }
        self.writer.record(stream::NODES, all.as_bytes())?;
        let mut params = Vec::new();
        for (index, _) in wanted {
            params.push((u64::from(index), guest.machine.xen.param(guest.id, index)?));
        }
        self.writer.params(&params)?;
        let context = match unaware {
            Some(unaware) => {
                for kept in &unaware.kept {
                    self.writer.record(stream::KEPT, &kept.body())?;
                }
                unaware.context
            }
            None => guest.context()?,
        };
        self.writer.record(stream::HVM_CONTEXT, &context)?;
        self.summary.bytes = self.writer.bytes;
        self.writer.end()?;
        Ok(self.summary)
    }
}

/// A running domain may give a page back between the two calls that read it: then both are repeated.
const TRIES: u32 = 5;

/// Returns the contents of frames.
fn contents(guest: &mut Guest, frames: &[u64]) -> io::Result<Vec<(u64, Content)>> {
    let mut tries = 1;
    loop {
        match look(guest, frames) {
            Err(_) if tries < TRIES => tries += 1,
            done => return done,
        }
    }
}

fn look(guest: &mut Guest, frames: &[u64]) -> io::Result<Vec<(u64, Content)>> {
    let there = guest.machine.xen.have_pages(guest.id, frames)?;
    let pages: Vec<u64> = frames
        .iter()
        .zip(&there)
        .filter_map(|(frame, there)| there.then_some(*frame))
        .collect();
    if pages.is_empty() {
        return Ok(frames.iter().map(|frame| (*frame, Content::Hole)).collect());
    }
    let mut copies = Vec::with_capacity(pages.len());
    let mut copy = |page: &[u8; PAGE]| {
        copies.push(match *page == ZERO {
            true => Content::Zero,
            false => Content::Page(Box::new(*page)),
        });
    };
    guest.machine.xen.read_pages(guest.id, &pages, &mut copy)?;
    let mut copies = copies.into_iter();
    let content = |there| match there {
        true => copies.next().unwrap_or(Content::Hole),
        false => Content::Hole,
    };
    let contents = there.into_iter().map(content);
    Ok(frames.iter().copied().zip(contents).collect())
}

/// Returns the nodes that go along, one a line.
fn nodes(guest: &mut Guest) -> io::Result<String> {
    let mut all = String::new();
    let mut keep = |guest: &mut Guest, node: String| -> io::Result<()> {
        let path = guest.path(&node);
        if let Some(value) = guest.machine.store.read(&path)?
            && !value.is_empty()
            && !value.contains('\n')
        {
            all += &format!("{node} {value}\n");
        }
        Ok(())
    };
    for parent in KEPT {
        for name in guest.machine.store.list(&guest.path(parent))? {
            match (parent, name.as_str()) {
                ("cpu", _) => keep(guest, format!("cpu/{name}/availability"))?,
                (_, name) if name.starts_with("feature-") => {
                    keep(guest, format!("{parent}/{name}"))?;
                }
                _ => {}
            }
        }
    }
    keep(guest, "memory/target".to_owned())?;
    Ok(all)
}

/// Adds the nodes below one that have a value.
fn add_nodes(guest: &mut Guest, below: &str, all: &mut String) -> io::Result<()> {
    let mut left = vec![below.to_owned()];
    while let Some(node) = left.pop() {
        let path = guest.path(&node);
        let value = guest.machine.store.read(&path)?.unwrap_or_default();
        if !value.is_empty() && !value.contains('\n') {
            *all += &format!("{node} {value}\n");
        }
        let names = guest.machine.store.list(&path)?;
        left.extend(names.iter().map(|name| format!("{node}/{name}")));
    }
    Ok(())
}

const ZERO: [u8; PAGE] = [0; PAGE];
