//! Making a domain of a stream: `xl create -p` makes one of the same configuration, and its memory and state are replaced.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::process::{Command, Stdio};

use crate::config;
use crate::store::Store;
use crate::stream::{Content, Reader, Record, shared_info_in};
use crate::sys::PAGE;
use crate::xen::{PARAMS, RAM_START, Xen};

const ZERO: [u8; PAGE] = [0; PAGE];

/// The content of a stream, without its pages.
#[derive(Default)]
struct Rest {
    nodes: Vec<(String, String)>,
    params: Vec<(u64, u64)>,
    context: Vec<u8>,
}

/// The result of a restore.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// The domain's name.
    pub name: String,
    /// Pages.
    pub pages: u64,
    /// Bytes of the stream.
    pub bytes: u64,
}

/// Reads a stream, hands the configuration and then each batch of pages to its user, and returns the rest.
fn read(
    from: impl Read,
    mut begin: impl FnMut(&str) -> io::Result<()>,
    mut pages: impl FnMut(Vec<(u64, Content)>) -> io::Result<()>,
) -> io::Result<(Rest, u64)> {
    let wrong = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidData, what));
    let mut reader = Reader::start(from)?;
    let mut rest = Rest::default();
    let (mut begun, mut static_end) = (false, false);
    loop {
        match reader.next()? {
            Record::Config(text) if !begun => {
                begun = true;
                begin(&text)?;
            }
            Record::Config(_) => return wrong("two configurations"),
            Record::StaticDataEnd => static_end = true,
            Record::Pages(_) if !begun || !static_end => {
                return wrong("pages before the configuration and the end of static data");
            }
            Record::Pages(batch) => {
                if batch.iter().any(|(frame, _)| *frame < RAM_START) {
                    return wrong("a page below the guest's RAM");
                }
                pages(batch)?;
            }
            Record::Params(params) => rest.params = params,
            Record::Context(context) => rest.context = context,
            Record::Nodes(nodes) => rest.nodes = nodes,
            Record::Other => {}
            Record::End => break,
        }
    }
    if !begun || rest.context.is_empty() || rest.params.is_empty() {
        return wrong("the configuration, the state or the parameters are missing");
    }
    Ok((rest, reader.bytes))
}

/// Reads a stream to its end and says what it holds.
pub fn verify(from: impl Read) -> io::Result<Summary> {
    let mut name = String::new();
    // Of frames that come again, the last contents count.
    let mut frames = BTreeMap::new();
    let (_, bytes) = read(
        from,
        |text| {
            name = config::setting(text, "name").unwrap_or("").to_owned();
            Ok(())
        },
        |batch| {
            for (frame, content) in batch {
                frames.insert(frame, content != Content::Hole);
            }
            Ok(())
        },
    )?;
    let pages = frames.values().filter(|there| **there).count() as u64;
    Ok(Summary { name, pages, bytes })
}

/// Makes the domain that a stream holds, by another name if one is given, and lets it run unless `paused`. If that fails,
/// nothing of it is left.
pub fn domain(from: impl Read, name: Option<&str>, paused: bool) -> io::Result<Summary> {
    let made = make(from, |own| name.unwrap_or(own).to_owned())?;
    if !paused && let Err(error) = made.target.unpause() {
        return Err(made.target.destroyed(error));
    }
    Ok(made.summary)
}

/// Makes the domain that a stream holds, paused, by a name of passage. If that fails, nothing of it is left.
pub fn incoming(from: impl Read) -> io::Result<Made> {
    make(from, |own| format!("{own}{PASSAGE}"))
}

/// Ends the name of a domain that is on its way.
const PASSAGE: &str = "--incoming";

/// A domain that was made whole, and is paused.
pub struct Made {
    target: Target,
    /// The figures of its stream.
    pub summary: Summary,
}

impl Made {
    /// Lets it run; if that fails, nothing of it is left.
    pub fn run(self) -> io::Result<Summary> {
        match self.target.unpause() {
            Ok(()) => Ok(self.summary),
            Err(error) => Err(self.target.destroyed(error)),
        }
    }

    /// Ends it.
    pub fn destroy(self) {
        let _ = xl(&["destroy", &self.target.id.to_string()]);
    }
}

/// Gives a domain that came by a name of passage its own, once nobody else has it.
pub fn arrive(name: &str) -> io::Result<String> {
    let own = name.strip_suffix(PASSAGE).unwrap_or(name);
    xl(&["rename", name, own])?;
    Ok(own.to_owned())
}

fn make(from: impl Read, naming: impl Fn(&str) -> String) -> io::Result<Made> {
    let mut target = None;
    let mut summary = Summary::default();
    let filled = fill(from, naming, &mut target, &mut summary);
    match (target, filled) {
        (Some(target), Ok(())) => Ok(Made { target, summary }),
        (Some(target), Err(error)) => Err(target.destroyed(error)),
        (None, Err(error)) => Err(error),
        (None, Ok(())) => Err(io::Error::other("no domain was made")),
    }
}

/// A domain that is being made.
struct Target {
    xen: Xen,
    store: Store,
    id: u16,
}

fn fill(
    from: impl Read,
    naming: impl Fn(&str) -> String,
    made: &mut Option<Target>,
    summary: &mut Summary,
) -> io::Result<()> {
    let target = std::cell::RefCell::new(made);
    let summary = std::cell::RefCell::new(summary);
    let (rest, bytes) = read(
        from,
        |text| {
            let name = naming(config::setting(text, "name").unwrap_or(""));
            let text = config::renamed(text, &name);
            **target.borrow_mut() = Some(create(&text, &name)?);
            summary.borrow_mut().name = name;
            Ok(())
        },
        |batch| {
            let mut target = target.borrow_mut();
            let target = target.as_mut().ok_or(io::Error::other("no domain yet"))?;
            summary.borrow_mut().pages += target.put(batch)?;
            Ok(())
        },
    )?;
    summary.borrow_mut().bytes = bytes;
    let mut target = target.borrow_mut();
    let target = target.as_mut().ok_or(io::Error::other("no domain"))?;
    target.finish(&rest)
}

/// Has xl make a paused domain.
fn create(text: &str, name: &str) -> io::Result<Target> {
    let mut store = Store::open()?;
    if store.find(name).is_ok() {
        return Err(io::Error::other(format!(
            "there is a domain {name} already: destroy it, or give another name with --name"
        )));
    }
    let xen = Xen::open()?;
    let file = std::env::temp_dir().join(format!("kmove-{}.cfg", std::process::id()));
    std::fs::write(&file, text)?;
    let created = xl(&["create", "-p", &file.to_string_lossy()]);
    let _ = std::fs::remove_file(&file);
    created?;
    let id = store.find(name)?;
    Ok(Target { xen, store, id })
}

/// Runs xl; what it says is seen by the caller of this program.
fn xl(arguments: &[&str]) -> io::Result<()> {
    let words = arguments.join(" ");
    let status = Command::new("xl")
        .args(arguments)
        .stdin(Stdio::null())
        // Standard output may carry the messages of the protocol.
        .stdout(io::stderr())
        .status()
        .map_err(|error| io::Error::other(format!("cannot run xl: {error}")))?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!("`xl {words}` failed (above)")))
    }
}

impl Target {
    fn unpause(&self) -> io::Result<()> {
        xl(&["unpause", &self.id.to_string()])
    }

    /// Ends the domain because of an error, and returns that.
    fn destroyed(self, error: io::Error) -> io::Error {
        let left = xl(&["destroy", &self.id.to_string()]).err();
        let left = left.map(|error| format!("; and {error}"));
        io::Error::new(error.kind(), format!("{error}{}", left.unwrap_or_default()))
    }

    /// Makes frames hold what a batch says; returns how many pages they have.
    fn put(&mut self, batch: Vec<(u64, Content)>) -> io::Result<u64> {
        let frames: Vec<u64> = batch.iter().map(|(frame, _)| *frame).collect();
        let there = self.xen.have_pages(self.id, &frames)?;
        let (mut missing, mut surplus) = (Vec::new(), Vec::new());
        for ((frame, content), there) in batch.iter().zip(there) {
            match (content, there) {
                (Content::Hole, true) => surplus.push(*frame),
                (Content::Page(_) | Content::Zero, false) => missing.push(*frame),
                _ => {}
            }
        }
        let context = |what: &'static str| {
            move |error: io::Error| io::Error::other(format!("{what} the domain: {error}"))
        };
        self.xen
            .take_away(self.id, &surplus)
            .map_err(context("taking pages from"))?;
        self.xen
            .populate(self.id, &missing)
            .map_err(context("giving pages to"))?;
        let pages: Vec<&(u64, Content)> = batch
            .iter()
            .filter(|(_, content)| *content != Content::Hole)
            .collect();
        if pages.is_empty() {
            return Ok(0);
        }
        let frames: Vec<u64> = pages.iter().map(|(frame, _)| *frame).collect();
        let mut mapped = self.xen.map(self.id, &frames, true)?;
        for (n, (_, content)) in pages.iter().enumerate() {
            match content {
                Content::Page(page) => mapped.write(n, page),
                _ => mapped.write(n, &ZERO),
            }
        }
        Ok(pages.len() as u64)
    }

    /// Gives the domain everything but its pages.
    fn finish(&mut self, rest: &Rest) -> io::Result<()> {
        for (index, name) in PARAMS {
            let here = self.xen.param(self.id, index)?;
            let saved = rest
                .params
                .iter()
                .find(|(saved, _)| *saved == u64::from(index));
            if saved.is_none_or(|(_, value)| *value != here) {
                return Err(io::Error::other(format!(
                    "the guest has its {name} elsewhere than this toolstack puts it ({here:#x})"
                )));
            }
        }
        if let Some(frame) = shared_info_in(&rest.context) {
            self.xen
                .map_shared_info(self.id, frame.into())
                .map_err(|error| io::Error::other(format!("placing its shared_info: {error}")))?;
        }
        self.xen
            .set_context(self.id, &rest.context)
            .map_err(|error| {
                io::Error::other(format!(
                    "the hypervisor refuses its state ({error}): `xl dmesg` says which record"
                ))
            })?;
        for (node, value) in &rest.nodes {
            self.store
                .write(&format!("/local/domain/{}/{node}", self.id), value)?;
        }
        // The guest's instructions are in memory that other caches may have had.
        let last = self.xen.last_frame(self.id)?;
        let mut first = RAM_START;
        while first <= last {
            let count = (last - first + 1).min(1 << 16);
            self.xen.flush(self.id, first, count)?;
            first += count;
        }
        Ok(())
    }
}
