//! RAM of a domain at addresses of the machine (`xen,static-mem`), and memory that domains share
//! (`xen,domain-shared-memory-v1`).

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use armv7::addr::PAGE_SHIFT;

use dt::{Node, number};

use super::{PAGE, fault};
use crate::platform::ranges::PhysRange;

/// Compatible of a node of shared memory.
pub const SHARED_MEMORY: &str = "xen,domain-shared-memory-v1";
/// Where RAM of a domain is in the machine.
pub const STATIC: &str = "xen,static-mem";
/// Where shared memory is, in the machine and in the domain.
pub const SHARED: &str = "xen,shared-mem";
const ID: &str = "xen,shm-id";
/// Bytes of an id of shared memory, with the zero at its end.
const MAX_ID: usize = 16;

/// Memory that a domain shares with others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shared {
    /// Its node.
    pub path: String,
    /// The name by which domains know it.
    pub id: String,
    /// Its machine addresses.
    pub host: PhysRange,
    /// Its addresses in the domain.
    pub guest: PhysRange,
}

impl Shared {
    /// Returns its size in pages.
    pub fn pages(&self) -> u32 {
        u32::try_from(self.host.size() >> PAGE_SHIFT).unwrap_or(u32::MAX)
    }
}

/// Reads where a domain's RAM is in the machine: `size` bytes, or none if any place will do.
pub fn static_memory(domain: &Node<'_>, size: u64) -> Result<Vec<PhysRange>, String> {
    let mut ranges: Vec<PhysRange> = Vec::new();
    let Some(value) = domain.property(STATIC) else {
        return Ok(ranges);
    };
    let mut numbers = Numbers::new(domain, value);
    let mut sum = 0u64;
    while !numbers.rest.is_empty() {
        let (base, size) = (numbers.address(), numbers.size());
        let range = pages(STATIC, base, size)?;
        sum = sum.saturating_add(range.size());
        ranges.push(range);
    }
    match sum == size {
        true => Ok(ranges),
        false => {
            let (sum, size) = (sum >> 10, size >> 10);
            let why = format_args!("{sum} KiB, where memory says {size}");
            Err(fault(STATIC, &why))
        }
    }
}

/// Reads a node of memory that a domain shares. It belongs to no domain, whatever `role` says.
pub fn shared(node: &Node<'_>) -> Result<Shared, String> {
    let id = node.string(ID).filter(|id| (1..MAX_ID).contains(&id.len()));
    let id = id.ok_or("xen,shm-id: not 1 to 15 characters")?;
    if !matches!(node.string("role"), None | Some("owner" | "borrower")) {
        return Err("role: neither \"owner\" nor \"borrower\"".into());
    }
    let value = node.property(SHARED).unwrap_or(&[]);
    let domain = node.parent().unwrap_or(*node);
    let mut numbers = Numbers::new(&domain, value);
    let (host, guest, size) = (numbers.address(), numbers.address(), numbers.size());
    if !numbers.rest.is_empty() {
        return Err(fault(SHARED, &"more than one range"));
    }
    Ok(Shared {
        path: node.path().to_string(),
        id: id.to_string(),
        host: pages(SHARED, host, size)?,
        guest: pages(SHARED, guest, size)?,
    })
}

/// Reads numbers of a property in the cells of a domain's node.
struct Numbers<'a> {
    rest: &'a [u8],
    cells: (usize, usize),
}

impl<'a> Numbers<'a> {
    fn new(domain: &Node<'_>, rest: &'a [u8]) -> Self {
        let cells = (domain.address_cells(), domain.size_cells());
        Self { rest, cells }
    }

    fn address(&mut self) -> Option<u64> {
        self.next(self.cells.0)
    }

    fn size(&mut self) -> Option<u64> {
        self.next(self.cells.1)
    }

    /// Returns the next number; none, and no further ones, if there is not so much left or the cells cannot be.
    #[inline(never)] // for size: it has five callers
    fn next(&mut self, cells: usize) -> Option<u64> {
        let whole = core::mem::take(&mut self.rest);
        let (first, rest) = whole.split_at_checked(4 * cells)?;
        self.rest = rest;
        number(first)
    }
}

fn pages(name: &str, base: Option<u64>, size: Option<u64>) -> Result<PhysRange, String> {
    let (Some(base), Some(size)) = (base, size) else {
        return Err(fault(
            name,
            &"numbers are missing, or their cells cannot be",
        ));
    };
    let is_whole = (base | size).is_multiple_of(PAGE);
    let range = PhysRange::new(base, size).filter(|_| is_whole);
    range.ok_or_else(|| {
        let why = format_args!("{size:#x} bytes at {base:#x} are no whole pages");
        fault(name, &why)
    })
}
