//! Writing a domain as a stream.

use std::io::{self, Write};

use crate::guest::Guest;
use crate::progress::Progress;
use crate::stream::{self, Content, Writer};
use crate::sys::PAGE;
use crate::xen::{BATCH, PARAMS, RAM_START};

/// The result of a save.
#[derive(Clone, Copy, Default, Debug)]
pub struct Summary {
    /// Pages.
    pub pages: u64,
    /// Of these, such that are zero.
    pub zero: u64,
    /// Bytes of the stream.
    pub bytes: u64,
}

/// Nodes of xenstore below a domain's own that its guest writes once, when it starts, or that the toolstack keeps up.
const KEPT: [&str; 2] = ["control", "cpu"];

/// Writes a domain, which has suspended, and its configuration.
pub fn domain(guest: &mut Guest, config: &str, to: impl Write) -> io::Result<Summary> {
    let mut saving = Saving::start(config, to)?;
    let last = guest.xen.last_frame(guest.id)?;
    let frames: Vec<u64> = (RAM_START..=last).collect();
    let progress = Progress::new("writing", frames.len());
    saving.frames(guest, &frames, |sent| progress.show(sent))?;
    drop(progress);
    saving.rest(guest)
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

    /// Writes what a domain has at frames now, and tells after each batch how many are through.
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

    /// Ends the stream by all that a domain, which has suspended, is beside its memory.
    pub fn rest(mut self, guest: &mut Guest) -> io::Result<Summary> {
        self.writer
            .record(stream::NODES, nodes(guest)?.as_bytes())?;
        let mut params = Vec::new();
        for (index, _) in PARAMS {
            params.push((u64::from(index), guest.xen.param(guest.id, index)?));
        }
        self.writer.params(&params)?;
        let context = guest.xen.context(guest.id).map_err(|error| {
            io::Error::other(format!("the hypervisor does not tell its state: {error}"))
        })?;
        self.writer.record(stream::HVM_CONTEXT, &context)?;
        self.summary.bytes = self.writer.bytes;
        self.writer.end()?;
        Ok(self.summary)
    }
}

/// A domain that runs may give a page back between two looks at it.
const TRIES: u32 = 5;

/// Returns what a domain has at frames.
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
    let there = guest.xen.have_pages(guest.id, frames)?;
    let mut batch = Vec::with_capacity(frames.len());
    let pages: Vec<u64> = frames
        .iter()
        .zip(&there)
        .filter_map(|(frame, there)| there.then_some(*frame))
        .collect();
    if pages.is_empty() {
        return Ok(frames.iter().map(|frame| (*frame, Content::Hole)).collect());
    }
    let mapped = guest.xen.map(guest.id, &pages, false)?;
    let mut next = 0;
    let mut page = ZERO;
    for (frame, there) in frames.iter().zip(there) {
        let content = match there {
            false => Content::Hole,
            true => {
                mapped.read(next, &mut page);
                next += 1;
                match page == ZERO {
                    true => Content::Zero,
                    false => Content::Page(Box::new(page)),
                }
            }
        };
        batch.push((*frame, content));
    }
    Ok(batch)
}

/// Returns the nodes that are kept, a line each.
fn nodes(guest: &mut Guest) -> io::Result<String> {
    let mut all = String::new();
    let mut keep = |guest: &mut Guest, node: String| -> io::Result<()> {
        let path = guest.path(&node);
        if let Some(value) = guest.store.read(&path)?
            && !value.is_empty()
            && !value.contains('\n')
        {
            all += &format!("{node} {value}\n");
        }
        Ok(())
    };
    for parent in KEPT {
        for name in guest.store.list(&guest.path(parent))? {
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

const ZERO: [u8; PAGE] = [0; PAGE];
