//! Finding the records of an image in words that may be anything.

use core::fmt;

use super::DESCRIPTOR_WORDS;
use super::records::{DomainState, Fields, Header, Shape, Type, VcpuState};
use crate::id::MAX_VCPUS;

/// The fault of an image, and its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wrong {
    /// Type of the record, as it stands in the image; 0 for the image as a whole.
    pub kind: u32,
    /// Which of them.
    pub instance: u32,
    /// The fault.
    pub fault: &'static str,
    /// Something is missing, rather than there and wrong.
    pub missing: bool,
}

impl Wrong {
    /// Returns that a record is there, and wrong.
    pub const fn record(kind: Type, instance: u32, fault: &'static str) -> Self {
        Self {
            kind: kind as u32,
            instance,
            fault,
            missing: false,
        }
    }

    const fn missing(kind: Type, instance: u32) -> Self {
        Self {
            missing: true,
            ..Self::record(kind, instance, "missing")
        }
    }

    /// Returns the fault of the image as a whole.
    const fn end(fault: &'static str) -> Self {
        Self {
            kind: 0,
            instance: 0,
            fault,
            missing: true,
        }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record {}.{}: {}", self.kind, self.instance, self.fault)
    }
}

/// The records of a vCPU.
#[derive(Clone, Copy, Debug)]
pub struct VcpuImage<'a> {
    /// General registers, cp15, other modes' registers.
    pub cpu: &'a [u32],
    /// VFP and Advanced SIMD.
    pub vfp: &'a [u32],
    /// The rest.
    pub state: VcpuState,
    /// Private interrupts.
    pub interrupts: &'a [u32],
    /// Performance monitors; empty when it has none.
    pub monitors: &'a [u32],
}

/// An image whose records are all there, each once and as long as it should be.
pub struct Image<'a> {
    words: &'a [u32],
    shape: Shape,
    /// The domain's own state.
    pub domain: DomainState,
}

/// One more than the number of the last type.
const KINDS: usize = Type::Ports as usize + 1;

/// A record in an image.
struct Record<'a> {
    kind: u32,
    instance: u32,
    body: &'a [u32],
}

/// Returns the first record of `words`, and the words behind it; `None` when it does not end in them.
fn split(words: &[u32]) -> Option<(Record<'_>, &[u32])> {
    let (descriptor, rest) = words.split_at_checked(DESCRIPTOR_WORDS)?;
    let [head, bytes] = *descriptor else {
        return None;
    };
    if bytes % 4 != 0 {
        return None;
    }
    let (body, rest) = rest.split_at_checked(bytes as usize / 4)?;
    let record = Record {
        kind: head & 0xFFFF,
        instance: head >> 16,
        body,
    };
    Some((record, rest))
}

/// Returns the image that `words` are, of a domain with the header `here`.
pub fn image<'a>(words: &'a [u32], shape: Shape, here: &Header) -> Result<Image<'a>, Wrong> {
    // For each type a bit for each instance. Shared interrupts have 30 banks at most.
    let mut found = [0u32; KINDS];
    let mut left = words;
    let mut first = true;
    loop {
        let (record, rest) = split(left).ok_or(Wrong::end("it ends within a record"))?;
        left = rest;
        let kind = Type::new(record.kind);
        if first && kind != Some(Type::Header) {
            return Err(Wrong::missing(Type::Header, 0));
        }
        first = false;
        let wrong = |fault| Wrong {
            kind: record.kind,
            instance: record.instance,
            fault,
            missing: false,
        };
        if record.kind == 0 {
            if !record.body.is_empty() || record.instance != 0 {
                return Err(wrong("an end with something in it"));
            }
            break;
        }
        let kind = kind.ok_or(wrong("no such type"))?;
        if record.body.len() != kind.words() && kind != Type::Ports {
            return Err(wrong("another length"));
        }
        if kind == Type::Header
            && let Some(what) = Header::from_words(record.body).difference(here)
        {
            return Err(wrong(what));
        }
        if record.instance >= kind.instances(&shape) {
            return Err(wrong("more of them than there are"));
        }
        let mask = 1 << (record.instance & 31);
        let of_kind = &mut found[kind as usize % KINDS];
        if *of_kind & mask != 0 {
            return Err(wrong("it is there twice"));
        }
        *of_kind |= mask;
    }
    if !left.is_empty() {
        return Err(Wrong {
            missing: false,
            ..Wrong::end("something behind the end")
        });
    }
    for kind in Type::ALL {
        let of_kind = found[kind as usize % KINDS];
        let next = of_kind.trailing_ones();
        if next < kind.instances(&shape) {
            return Err(Wrong::missing(kind, next));
        }
    }
    let mut image = Image {
        words,
        shape,
        domain: DomainState::default(),
    };
    image.domain = DomainState::from_words(image.body(Type::Domain, 0));
    Ok(image)
}

impl<'a> Image<'a> {
    /// Returns the body of a record; no words when there is none.
    pub fn body(&self, kind: Type, instance: u32) -> &'a [u32] {
        let mut left = self.words;
        while let Some((record, rest)) = split(left) {
            if record.kind == kind as u32 && record.instance == instance {
                return record.body;
            }
            left = rest;
        }
        &[]
    }

    /// Returns a bank of shared interrupts.
    pub fn shared(&self, n: u32) -> &'a [u32] {
        self.body(Type::Shared, n)
    }

    /// Returns a vCPU's records.
    pub fn vcpu(&self, n: u32) -> VcpuImage<'a> {
        VcpuImage {
            cpu: self.body(Type::Cpu, n),
            vfp: self.body(Type::Vfp, n),
            state: VcpuState::from_words(self.body(Type::Vcpu, n)),
            interrupts: self.body(Type::Interrupts, n),
            monitors: self.body(Type::Monitors, n),
        }
    }

    /// Returns the vCPUs' numbers.
    pub fn vcpus(&self) -> core::ops::Range<u32> {
        0..self.shape.vcpus.min(MAX_VCPUS.into())
    }
}

#[cfg(test)]
mod tests;
