//! Making a domain from a stream: `xl create -p` makes a paused one of the same configuration, whose memory and state are then
//! replaced.

use std::collections::BTreeMap;
use std::io::{self, Read};

use crate::config;
use crate::machine::{Machine, PAGE, PARAMS, PORT_PARAMS, RAM_START};
use crate::stream::{Content, Kept, Reader, Record, shared_info_in};
use crate::transparent;

const ZERO: [u8; PAGE] = [0; PAGE];

/// The records of a stream that come once, but for the configuration.
#[derive(Default)]
struct Rest {
    nodes: Vec<(String, String)>,
    params: Vec<(u64, u64)>,
    context: Vec<u8>,
    kept: Vec<Kept>,
}

/// The result of a restore.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// The domain's name.
    pub name: String,
    /// Number of pages.
    pub pages: u64,
    /// Bytes of the stream.
    pub bytes: u64,
}

/// The user of a stream: gets the configuration, then each batch of pages.
trait Sink {
    fn begin(&mut self, config: &str) -> io::Result<()>;
    fn pages(&mut self, batch: Vec<(u64, Content)>) -> io::Result<()>;
}

/// Reads a stream to its end. Returns its other records and its length in bytes.
fn read(from: impl Read, sink: &mut impl Sink) -> io::Result<(Rest, u64)> {
    let wrong = |fault: &str| Err(io::Error::new(io::ErrorKind::InvalidData, fault));
    let mut reader = Reader::start(from)?;
    let mut rest = Rest::default();
    let (mut begun, mut static_end) = (false, false);
    loop {
        match reader.record()? {
            Record::Config(text) if !begun => {
                begun = true;
                sink.begin(&text)?;
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
                sink.pages(batch)?;
            }
            Record::Params(params) => rest.params = params,
            Record::Context(context) => rest.context = context,
            Record::Nodes(nodes) => rest.nodes = nodes,
            Record::Kept(kept) if rest.kept.iter().any(|k| k.keeps.is_where(kept.keeps)) => {
                return wrong("two pages for the same place");
            }
            Record::Kept(kept) => rest.kept.push(kept),
            Record::Other => {}
            Record::End => break,
        }
    }
    if !begun || rest.context.is_empty() || rest.params.is_empty() {
        return wrong("the configuration, the state or the parameters are missing");
    }
    Ok((rest, reader.bytes))
}

/// Counts the contents of a stream.
#[derive(Default)]
struct Count {
    name: String,
    /// Frames, and if a page is there. Of a frame that comes again, the last contents count.
    frames: BTreeMap<u64, bool>,
}

impl Sink for Count {
    fn begin(&mut self, config: &str) -> io::Result<()> {
        self.name = config::setting(config, "name").unwrap_or("").to_owned();
        Ok(())
    }

    fn pages(&mut self, batch: Vec<(u64, Content)>) -> io::Result<()> {
        let there = batch
            .into_iter()
            .map(|(frame, content)| (frame, content != Content::Hole));
        self.frames.extend(there);
        Ok(())
    }
}

/// Reads a stream to its end and returns its contents.
pub fn verify(from: impl Read) -> io::Result<Summary> {
    let mut count = Count::default();
    let (_, bytes) = read(from, &mut count)?;
    let pages = count.frames.values().filter(|there| **there).count() as u64;
    Ok(Summary {
        name: count.name,
        pages,
        bytes,
    })
}

/// Makes the domain of a stream, by another name if one is given, and unpauses it unless `paused`. After a failure nothing of
/// it is left.
pub fn domain(
    machine: &mut Machine,
    from: impl Read,
    name: Option<&str>,
    paused: bool,
) -> io::Result<Summary> {
    let made = make(machine, from, |own| name.unwrap_or(own).to_owned())?;
    match paused {
        true => Ok(made.summary),
        false => made.run(machine),
    }
}

/// Ends the name of a domain that has not arrived yet.
const INCOMING: &str = "--incoming";

/// Makes the domain of a stream, paused, by a name of passage. After a failure nothing of it is left.
pub fn incoming(machine: &mut Machine, from: impl Read) -> io::Result<Made> {
    make(machine, from, |own| format!("{own}{INCOMING}"))
}

/// A domain that is complete, and paused.
#[derive(Debug)]
pub struct Made {
    id: u16,
    /// The figures of its stream.
    pub summary: Summary,
}

impl Made {
    /// Unpauses it. After a failure nothing of it is left.
    pub fn run(self, machine: &mut Machine) -> io::Result<Summary> {
        // Does without xl, which would have to start first while the guest stands still.
        match machine.xen.unpause(self.id) {
            Ok(()) => Ok(self.summary),
            Err(error) => Err(destroyed(machine, self.id, error)),
        }
    }

    /// Destroys it because of an error, and returns that.
    pub fn destroyed(self, machine: &mut Machine, error: io::Error) -> io::Error {
        destroyed(machine, self.id, error)
    }
}

/// Destroys a domain because of an error, and returns that.
fn destroyed(machine: &mut Machine, id: u16, error: io::Error) -> io::Error {
    match machine.xl.run(&["destroy", &id.to_string()]) {
        Ok(()) => error,
        Err(other) => io::Error::new(error.kind(), format!("{error}; and {other}")),
    }
}

/// Gives a domain that came by a name of passage its own name, which must be free.
pub fn arrive(machine: &mut Machine, name: &str) -> io::Result<String> {
    let own = name.strip_suffix(INCOMING).unwrap_or(name);
    machine.xl.run(&["rename", name, own])?;
    Ok(own.to_owned())
}

fn make(
    machine: &mut Machine,
    from: impl Read,
    naming: impl Fn(&str) -> String,
) -> io::Result<Made> {
    let mut target = Target {
        machine,
        naming,
        id: None,
        summary: Summary::default(),
    };
    let filled = read(from, &mut target).and_then(|(rest, bytes)| {
        target.summary.bytes = bytes;
        target.finish(&rest)
    });
    match (filled, target.id) {
        (Ok(id), _) => Ok(Made {
            id,
            summary: target.summary,
        }),
        (Err(error), Some(id)) => Err(destroyed(machine, id, error)),
        (Err(error), None) => Err(error),
    }
}

/// A domain that is being made.
struct Target<'a, N> {
    machine: &'a mut Machine,
    naming: N,
    /// Nothing before the configuration was read.
    id: Option<u16>,
    summary: Summary,
}

/// Returns what puts words before an error.
fn while_doing(what: &'static str) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::other(format!("{what}: {error}"))
}

impl<N: Fn(&str) -> String> Sink for Target<'_, N> {
    /// Makes the domain, paused.
    fn begin(&mut self, config: &str) -> io::Result<()> {
        let own = config::setting(config, "name").unwrap_or("");
        let name = (self.naming)(own);
        if self.machine.find(&name).is_ok() {
            return Err(io::Error::other(format!(
                "there is a domain {name} already: destroy it, or give another name with --name"
            )));
        }
        self.machine.xl.create(&config::renamed(config, &name))?;
        self.id = Some(self.machine.find(&name)?);
        self.summary.name = name;
        Ok(())
    }

    /// Gives frames the contents of a batch.
    fn pages(&mut self, batch: Vec<(u64, Content)>) -> io::Result<()> {
        let id = self.id()?;
        let xen = &mut self.machine.xen;
        let frames: Vec<u64> = batch.iter().map(|(frame, _)| *frame).collect();
        let there = xen.have_pages(id, &frames)?;
        let (mut missing, mut surplus) = (Vec::new(), Vec::new());
        for ((frame, content), there) in batch.iter().zip(there) {
            match (content, there) {
                (Content::Hole, true) => surplus.push(*frame),
                (Content::Page(_) | Content::Zero, false) => missing.push(*frame),
                _ => {}
            }
        }
        xen.take_away(id, &surplus)
            .map_err(while_doing("taking pages from the domain"))?;
        xen.populate(id, &missing)
            .map_err(while_doing("giving pages to the domain"))?;
        let pages: Vec<(u64, &[u8; PAGE])> = batch
            .iter()
            .filter_map(|(frame, content)| match content {
                Content::Page(page) => Some((*frame, &**page)),
                Content::Zero => Some((*frame, &ZERO)),
                Content::Hole => None,
            })
            .collect();
        self.summary.pages += pages.len() as u64;
        if pages.is_empty() {
            return Ok(());
        }
        xen.write_pages(id, &pages)?;
        // The guest's instructions were written as data.
        for (first, count) in runs(&frames) {
            xen.flush(id, first, count)?;
        }
        Ok(())
    }
}

impl<N> Target<'_, N> {
    fn id(&self) -> io::Result<u16> {
        self.id.ok_or(io::Error::other("there is no domain yet"))
    }

    /// Gives the domain everything but its pages.
    fn finish(&mut self, rest: &Rest) -> io::Result<u16> {
        let id = self.id()?;
        let mut wanted = PARAMS.to_vec();
        if !rest.kept.is_empty() {
            wanted.extend(PORT_PARAMS);
        }
        let xen = &mut self.machine.xen;
        for (index, name) in wanted {
            let here = xen.param(id, index)?;
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
            xen.map_shared_info(id, frame.into())
                .map_err(while_doing("placing its shared_info"))?;
        }
        transparent::put_back(self.machine, id, &rest.context, &rest.kept)
            .map_err(while_doing("giving the domain its grants and rings"))?;
        let Machine { xen, store, .. } = &mut *self.machine;
        xen.set_context(id, &rest.context).map_err(|error| {
            io::Error::other(format!(
                "the hypervisor refuses its state ({error}): `xl dmesg` names the record"
            ))
        })?;
        for (node, value) in &rest.nodes {
            store.write(&format!("/local/domain/{id}/{node}"), value)?;
        }
        Ok(id)
    }
}

/// Returns ranges of frames that cover `frames`, which rise, by first frames and lengths. A call for a range costs as much as
/// some frames more.
fn runs(frames: &[u64]) -> Vec<(u64, u64)> {
    const GAP: u64 = 4;
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for frame in frames {
        match runs.last_mut() {
            Some((first, count)) if (*first..*first + *count + GAP).contains(frame) => {
                *count = (*count).max(*frame - *first + 1);
            }
            _ => runs.push((*frame, 1)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::runs;

    #[test]
    fn frames_are_flushed_by_ranges_that_cover_them() {
        assert_eq!(runs(&[]), []);
        assert_eq!(runs(&[7, 8, 9]), [(7, 3)]);
        assert_eq!(runs(&[7, 11, 16]), [(7, 5), (16, 1)]);
        // A hostile stream may have them in any order.
        assert_eq!(
            runs(&[9, 9, 3, u64::MAX >> 12]),
            [(9, 1), (3, 1), (u64::MAX >> 12, 1)]
        );
    }
}
