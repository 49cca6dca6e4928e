//! The stream that a saved domain is (docs/migration-format.md): libxc's migration stream, version 3, with records of our own
//! where it has none. It comes from a file or a network, so what is read is checked here and never trusted.

use std::io::{self, Read, Write};
use std::ops::Range;

use crate::machine::{BATCH, PAGE};

/// First eight bytes of a stream.
const MARKER: u64 = u64::MAX;
/// "XENF".
const ID: u32 = 0x5845_4E46;
const VERSION: u32 = 3;
/// The guest's type: 1 and 2 are x86's, and Arm has none yet.
const ARM_HVM: u32 = 3;
const PAGE_SHIFT: u32 = 12;
/// The version of the ABI.
const XEN: (u32, u32) = (4, 17);

/// Pages, and frames without one.
pub const PAGE_DATA: u32 = 0x01;
/// The image of the domain beside its memory.
pub const HVM_CONTEXT: u32 = 0x09;
/// HVM parameters.
pub const HVM_PARAMS: u32 = 0x0A;
/// Comes before the memory.
pub const STATIC_DATA_END: u32 = 0x10;
/// The end.
pub const END: u32 = 0x00;
/// Ours: a configuration for `xl create`.
pub const CONFIG: u32 = 0x8000_0001;
/// Ours: nodes of xenstore that the guest will not write again, a line each.
pub const NODES: u32 = 0x8000_0002;
/// Ours: the sum of all that was before it.
pub const SUM: u32 = 0x8000_0003;

/// Ours: a page of a guest that knows nothing of being saved, which is not among its RAM.
pub const KEPT: u32 = 0x4000_0001;

/// A record may be ignored by who does not know it.
const OPTIONAL: u32 = 1 << 31;
/// Most bytes of a record with pages, and of any other.
const MOST_PAGES: u32 = (8 + BATCH * (8 + PAGE)) as u32;
const MOST: u32 = 1 << 16;

const TYPE_SHIFT: u32 = 60;
/// Its contents are zero (XALLOC: allocated, and no more).
const ZERO: u64 = 0xE;
/// There is no page.
const NONE: u64 = 0xF;

/// Returns the error of what came from outside and is wrong.
pub fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// The kind of page at a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    /// A page.
    Page(Box<[u8; PAGE]>),
    /// A page of zeros.
    Zero,
    /// No page of the domain's own.
    Hole,
}

/// The place of a page that is not among the guest's RAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keeps {
    /// The ring of xenstore.
    StoreRing,
    /// The ring of the console.
    ConsoleRing,
    /// shared_info, whose frame the context has.
    SharedInfo,
    /// A frame of the grant table.
    GrantFrame {
        /// Its number.
        index: u32,
        /// Where the guest has it.
        place: Option<u64>,
    },
}

impl Keeps {
    /// Returns whether that is the same page.
    pub fn is_where(self, other: Self) -> bool {
        let page = |keeps: Self| (keeps.numbers()[0], keeps.numbers()[1]);
        page(self) == page(other)
    }

    /// Returns its numbers in a record.
    fn numbers(self) -> [u64; 3] {
        match self {
            Self::StoreRing => [0, 0, NOWHERE],
            Self::ConsoleRing => [1, 0, NOWHERE],
            Self::SharedInfo => [2, 0, NOWHERE],
            Self::GrantFrame { index, place } => [3, index.into(), place.unwrap_or(NOWHERE)],
        }
    }

    fn of(numbers: [u64; 3]) -> Option<Self> {
        Some(match numbers {
            [0, 0, NOWHERE] => Self::StoreRing,
            [1, 0, NOWHERE] => Self::ConsoleRing,
            [2, 0, NOWHERE] => Self::SharedInfo,
            [3, index, place] if index < MOST_GRANT_FRAMES => Self::GrantFrame {
                index: index as u32,
                place: (place != NOWHERE).then_some(place),
            },
            _ => return None,
        })
    }
}

/// No frame.
const NOWHERE: u64 = u64::MAX;
/// Most frames of a grant table here.
const MOST_GRANT_FRAMES: u64 = 1024;

/// A page that is not among the guest's RAM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kept {
    /// Its place.
    pub keeps: Keeps,
    /// Its contents.
    pub page: Box<[u8; PAGE]>,
}

impl Kept {
    /// Returns a page and its place.
    pub fn new(keeps: Keeps, page: Box<[u8; PAGE]>) -> Self {
        Self { keeps, page }
    }

    /// Returns the body of its record.
    pub fn body(&self) -> Vec<u8> {
        let numbers = self.keeps.numbers();
        let head = numbers.iter().flat_map(|number| number.to_le_bytes());
        head.chain(self.page.iter().copied()).collect()
    }

    fn of(body: &[u8]) -> Option<Self> {
        let (head, page) = body.split_at_checked(24)?;
        let numbers: Vec<u64> = u64s(head).collect();
        Some(Self {
            keeps: Keeps::of(numbers.try_into().ok()?)?,
            page: Box::new(page.try_into().ok()?),
        })
    }
}

/// A sum over words of eight bytes, of which a stream consists.
#[derive(Clone, Copy, Default)]
struct Sum(u64);

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        for word in bytes.chunks(8) {
            let mut whole = [0; 8];
            whole[..word.len()].copy_from_slice(word);
            let word = u64::from_le_bytes(whole);
            self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }
    }
}

/// Writes a stream.
pub struct Writer<W> {
    to: W,
    sum: Sum,
    /// Bytes that it has.
    pub bytes: u64,
}

impl<W: Write> Writer<W> {
    /// Begins one.
    pub fn start(to: W) -> io::Result<Self> {
        let mut writer = Self {
            to,
            sum: Sum::default(),
            bytes: 0,
        };
        // This header alone is big-endian; options 0: the rest is little-endian.
        let mut header = Vec::new();
        header.extend(MARKER.to_be_bytes());
        header.extend(ID.to_be_bytes());
        header.extend(VERSION.to_be_bytes());
        header.extend([0; 8]);
        for word in [ARM_HVM, PAGE_SHIFT, XEN.0, XEN.1] {
            header.extend(word.to_le_bytes());
        }
        writer.put(&header)?;
        Ok(writer)
    }

    /// Each piece but the last of a record has whole words of eight bytes.
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum.add(bytes);
        self.bytes += bytes.len() as u64;
        self.to.write_all(bytes)
    }

    /// Writes a record; one that no reader would take is an error.
    pub fn record(&mut self, kind: u32, body: &[u8]) -> io::Result<()> {
        if body.len() > MOST as usize {
            return Err(invalid(format!(
                "record {kind:#x} would have {} bytes: at most {MOST} are allowed",
                body.len()
            )));
        }
        self.begin(kind, body.len())?;
        let mut padded = body.to_vec();
        padded.resize(body.len().next_multiple_of(8), 0);
        self.put(&padded)
    }

    fn begin(&mut self, kind: u32, length: usize) -> io::Result<()> {
        let mut header = [0; 8];
        header[..4].copy_from_slice(&kind.to_le_bytes());
        header[4..].copy_from_slice(&(length as u32).to_le_bytes());
        self.put(&header)
    }

    /// Writes what is at frames, at most [`BATCH`] of them.
    pub fn pages(&mut self, frames: &[(u64, Content)]) -> io::Result<()> {
        let is_page = |content: &Content| matches!(content, Content::Page(_));
        let pages = frames
            .iter()
            .filter(|(_, content)| is_page(content))
            .count();
        self.begin(PAGE_DATA, 8 + 8 * frames.len() + PAGE * pages)?;
        let mut head = Vec::with_capacity(8 + 8 * frames.len());
        head.extend((frames.len() as u64).to_le_bytes());
        for (frame, content) in frames {
            let kind = match content {
                Content::Page(_) => 0,
                Content::Zero => ZERO,
                Content::Hole => NONE,
            };
            head.extend((frame | kind << TYPE_SHIFT).to_le_bytes());
        }
        self.put(&head)?;
        for (_, content) in frames {
            if let Content::Page(page) = content {
                self.put(&page[..])?;
            }
        }
        Ok(())
    }

    /// Writes HVM parameters.
    pub fn params(&mut self, params: &[(u64, u64)]) -> io::Result<()> {
        let mut body = (params.len() as u64).to_le_bytes().to_vec();
        for (index, value) in params {
            body.extend(index.to_le_bytes());
            body.extend(value.to_le_bytes());
        }
        self.record(HVM_PARAMS, &body)
    }

    /// Ends the stream.
    pub fn end(mut self) -> io::Result<W> {
        let sum = self.sum.0;
        self.record(SUM, &sum.to_le_bytes())?;
        self.record(END, &[])?;
        self.to.flush()?;
        Ok(self.to)
    }
}

/// A record that was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    /// [`STATIC_DATA_END`].
    StaticDataEnd,
    /// [`PAGE_DATA`]: frames, and what is there.
    Pages(Vec<(u64, Content)>),
    /// [`HVM_PARAMS`]: indices and values.
    Params(Vec<(u64, u64)>),
    /// [`HVM_CONTEXT`].
    Context(Vec<u8>),
    /// [`CONFIG`].
    Config(String),
    /// [`NODES`]: paths below the domain's own, and values.
    Nodes(Vec<(String, String)>),
    /// [`KEPT`].
    Kept(Kept),
    /// An optional one that is not known, or the sum, which was right.
    Other,
    /// [`END`].
    End,
}

/// Reads a stream.
pub struct Reader<R> {
    from: R,
    sum: Sum,
    /// Bytes that were read.
    pub bytes: u64,
    summed: bool,
}

impl<R: Read> Reader<R> {
    /// Reads the headers.
    pub fn start(from: R) -> io::Result<Self> {
        let mut reader = Self {
            from,
            sum: Sum::default(),
            bytes: 0,
            summed: false,
        };
        let header = reader.take(40)?;
        let big = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().expect("four"));
        let little = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four"));
        if header[..8] != MARKER.to_be_bytes() || big(8) != ID {
            return Err(invalid("this is no saved domain"));
        }
        if big(12) != VERSION {
            return Err(invalid(format!(
                "a stream of version {}, where {VERSION} is expected",
                big(12)
            )));
        }
        if big(16) >> 16 != 0 {
            return Err(invalid("a big-endian stream"));
        }
        if little(24) != ARM_HVM {
            return Err(invalid(format!(
                "a guest of type {}: this program knows Arm's alone ({ARM_HVM})",
                little(24)
            )));
        }
        if little(28) != PAGE_SHIFT {
            return Err(invalid("pages that have not 4 KiB"));
        }
        Ok(reader)
    }

    fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.from.read_exact(&mut bytes).map_err(|error| {
            let at = self.bytes;
            match error.kind() {
                io::ErrorKind::UnexpectedEof => {
                    invalid(format!("the stream is cut off behind byte {at}"))
                }
                _ => io::Error::new(error.kind(), format!("behind byte {at}: {error}")),
            }
        })?;
        self.sum.add(&bytes);
        self.bytes += length as u64;
        Ok(bytes)
    }

    /// Reads the next record.
    pub fn record(&mut self) -> io::Result<Record> {
        let (at, sum) = (self.bytes, self.sum.0);
        let header = self.take(8)?;
        let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four"));
        let (kind, length) = (word(0), word(4));
        let most = if kind == PAGE_DATA { MOST_PAGES } else { MOST };
        if length > most {
            return Err(invalid(format!(
                "record {kind:#x} at byte {at} has {length} bytes: at most {most} are allowed"
            )));
        }
        let mut body = self.take(length.next_multiple_of(8) as usize)?;
        body.truncate(length as usize);
        decode(kind, body, sum)
            .inspect(|_| self.summed |= kind == SUM)
            .and_then(|record| match record {
                Record::End if !self.summed => Err(invalid("the sum is missing")),
                record => Ok(record),
            })
            .map_err(|error| invalid(format!("record {kind:#x} at byte {at}: {error}")))
    }
}

/// Returns the record of a type with a body; `sum` is of all before it.
fn decode(kind: u32, body: Vec<u8>, sum: u64) -> io::Result<Record> {
    let is_empty = || match body.is_empty() {
        true => Ok(()),
        false => Err(invalid("it should be empty")),
    };
    Ok(match kind {
        END => is_empty().map(|()| Record::End)?,
        STATIC_DATA_END => is_empty().map(|()| Record::StaticDataEnd)?,
        PAGE_DATA => Record::Pages(pages(&body)?),
        HVM_PARAMS => Record::Params(params(&body)?),
        HVM_CONTEXT => Record::Context(body),
        KEPT => Record::Kept(Kept::of(&body).ok_or(invalid("no page of a place that is known"))?),
        CONFIG => Record::Config(text(body)?),
        NODES => Record::Nodes(
            text(body)?
                .lines()
                .map(|line| {
                    let (path, value) = line
                        .split_once(' ')
                        .ok_or(invalid("a node without value"))?;
                    Ok((path.to_owned(), value.to_owned()))
                })
                .collect::<io::Result<_>>()?,
        ),
        SUM if body == sum.to_le_bytes() => Record::Other,
        SUM => return Err(invalid("the sum is wrong: what was saved is damaged")),
        _ if kind & OPTIONAL != 0 => Record::Other,
        _ => return Err(invalid("a type that this program does not know")),
    })
}

fn text(body: Vec<u8>) -> io::Result<String> {
    String::from_utf8(body).map_err(|_| invalid("it is no text"))
}

fn u64s(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes
        .chunks_exact(8)
        .map(|word| u64::from_le_bytes(word.try_into().expect("eight")))
}

fn pages(body: &[u8]) -> io::Result<Vec<(u64, Content)>> {
    let count = u64s(body).next().ok_or(invalid("no count"))?;
    let count = usize::try_from(count)
        .ok()
        .filter(|count| (1..=BATCH).contains(count) && 8 + 8 * count <= body.len())
        .ok_or(invalid("a wrong count of frames"))?;
    let (heads, contents) = body[8..].split_at(8 * count);
    let mut contents = contents.chunks_exact(PAGE);
    let mut frames = Vec::with_capacity(count);
    for head in u64s(heads) {
        let frame = head & ((1 << 52) - 1);
        let content = match head >> TYPE_SHIFT {
            0 => {
                let page = contents.next().ok_or(invalid("a page is missing"))?;
                Content::Page(Box::new(page.try_into().expect("a page")))
            }
            ZERO => Content::Zero,
            NONE => Content::Hole,
            other => return Err(invalid(format!("frame {frame:#x} of type {other:#x}"))),
        };
        // 40 bits of addresses.
        if frame >> 28 != 0 || head >> 52 & 0xFF != 0 {
            return Err(invalid(format!("frame {frame:#x} is beyond all memory")));
        }
        frames.push((frame, content));
    }
    if contents.next().is_some() || !contents.remainder().is_empty() {
        return Err(invalid("more than its pages"));
    }
    Ok(frames)
}

fn params(body: &[u8]) -> io::Result<Vec<(u64, u64)>> {
    let words: Vec<u64> = u64s(body).collect();
    let (count, rest) = words.split_first().ok_or(invalid("no count"))?;
    let twice = usize::try_from(*count)
        .ok()
        .and_then(|count| count.checked_mul(2));
    if !body.len().is_multiple_of(8) || twice != Some(rest.len()) {
        return Err(invalid("a wrong count of parameters"));
    }
    Ok(rest
        .chunks_exact(2)
        .map(|pair| (pair[0], pair[1]))
        .collect())
}

/// Returns where the body of the first record of a type is in a context.
pub fn record_in(context: &[u8], kind: u16) -> Option<Range<usize>> {
    let mut at = 0;
    while let Some(descriptor) = context.get(at..at + 8) {
        let its = u16::from_le_bytes(descriptor[..2].try_into().ok()?);
        let length = u32::from_le_bytes(descriptor[4..].try_into().ok()?);
        let first = at + 8;
        let end = first.checked_add(length as usize)?;
        if its == kind && end <= context.len() {
            return Some(first..end);
        }
        at = end;
    }
    None
}

/// Returns the frame of shared_info that a context tells of, if it does (record 7, word 4).
pub fn shared_info_in(context: &[u8]) -> Option<u32> {
    const DOMAIN: u16 = 7;
    const PLACE: usize = 16;
    let body = &context[record_in(context, DOMAIN)?];
    let word = body.get(PLACE..PLACE + 4)?.try_into().ok()?;
    Some(u32::from_le_bytes(word)).filter(|frame| *frame != u32::MAX)
}

#[cfg(test)]
mod tests;
