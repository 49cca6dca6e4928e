//! Devices of the machine for domains that are not dom0, without an IOMMU.
//!
//! | file | question |
//! |---|---|
//! | `rule` | which devices may be passed, and why not the others? |
//! | this file | which domain has a device, and how does it lose it? |
//!
//! A device goes to one domain at a time, with all its pages and interrupts, from the first of them that is asked for until
//! the domain's end. Its registers are mapped as Device memory, so no cache has anything of them; its interrupts arrive as
//! dom0's do (`crate::irq`).

pub mod rule;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use armv7::addr::{Gfn, Mfn, PAGE_SHIFT};
use armv7::gic;

use crate::domain::Domain;
use crate::error::Errno;
use crate::id::DomId;
use crate::irq::{self, RouteError};
use crate::mem::p2m::{P2m, P2mError, P2mType, Removed};
use crate::platform::ranges::PhysRange;
use crate::sync::{Lock, rank};
use crate::vgic::bits;

use rule::{Catalogue, Want};

static CATALOGUE: Lock<Catalogue, { rank::DEVICES }> = Lock::new(Catalogue::new());

/// Sets the devices of the machine. Called once per boot.
pub fn init(catalogue: Catalogue) {
    *CATALOGUE.lock() = catalogue;
}

/// The refusal of a device: an error for the caller, and a line for the console.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Error of the call.
    pub error: Errno,
    /// The node at fault, and why.
    pub why: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl Refusal {
    /// Returns a refusal with this reason.
    pub fn new(error: Errno, why: impl fmt::Display) -> Self {
        let why = alloc::format!("{why}");
        Self { error, why }
    }
}

/// Gives a domain the devices that `want` is of, if it may have them. `word` is true if the domain's description says that a
/// device with DMA is meant; otherwise the machine's tree must say it.
pub fn claim(domain: &Domain, want: &Want<'_>, word: bool) -> Result<(), Refusal> {
    let claimed = CATALOGUE.lock().claim(domain.id, want, word)?;
    for path in claimed.with_dma {
        log::warn!("WARNING: {domain} has {path}, which may reach all memory by DMA");
    }
    Ok(())
}

/// Returns whether all pages of `range` are a device's that the domain has.
pub fn has(domain: DomId, range: &PhysRange) -> bool {
    CATALOGUE.lock().has(domain, range)
}

/// Returns the interrupts of the device at a path.
pub fn lines_of(path: &str) -> Vec<u32> {
    let catalogue = CATALOGUE.lock();
    let lines = catalogue.find(path).map_or(&[][..], |device| &device.lines);
    lines.iter().map(|line| line.intid).collect()
}

/// Returns the path of a device that the domain has.
pub fn device_of(domain: DomId) -> Option<String> {
    let catalogue = CATALOGUE.lock();
    let mut devices = catalogue.of_domain(domain);
    devices.next().map(|device| device.path.clone())
}

/// Maps whole pages of devices that the domain has at `gfn`. An error leaves nothing mapped.
pub fn map(domain: &Domain, gfn: Gfn, range: &PhysRange) -> Result<(), Refusal> {
    if !has(domain.id, range) {
        let why = alloc::format!("{range} is not its own");
        return Err(Refusal::new(Errno::Perm, why));
    }
    let count = pages(range);
    let mut p2m = domain.p2m.lock();
    let mfn = range.start().frame();
    let mapped = p2m.map(gfn, mfn, count, P2mType::Device, u32::MAX);
    let error = match mapped {
        Ok(done) if done == count => return Ok(()),
        Ok(done) => {
            unmap_pages(&mut p2m, gfn, mfn, done)
                .map_err(|error| Refusal::new(error.into(), "its map"))?;
            Errno::Exist
        }
        Err(error) => error.into(),
    };
    let at = gfn.raw();
    let why = alloc::format!("{range} cannot be mapped at frame {at:#x}: {error}");
    Err(Refusal::new(error, why))
}

/// Unmaps pages at `gfn` that are those of `range`; the others stay. At most as many as one call maps.
pub fn unmap(domain: &Domain, gfn: Gfn, range: &PhysRange) -> Result<(), Errno> {
    let mut p2m = domain.p2m.lock();
    unmap_pages(&mut p2m, gfn, range.start().frame(), pages(range))?;
    Ok(())
}

/// Unmaps those of `count` pages at `gfn` that map a device's pages from `mfn` on.
fn unmap_pages(p2m: &mut P2m<'static>, gfn: Gfn, mfn: Mfn, count: u32) -> Result<(), P2mError> {
    for n in 0..count {
        let mut removed = Removed::new();
        let (Some(gfn), Some(mfn)) = (gfn.checked_add(n), mfn.checked_add(n)) else {
            break;
        };
        p2m.unmap_exact(gfn, mfn, P2mType::Device, &mut removed)?;
        p2m.release(removed);
    }
    Ok(())
}

fn pages(range: &PhysRange) -> u32 {
    u32::try_from(range.size() >> PAGE_SHIFT).unwrap_or(u32::MAX)
}

/// Routes an interrupt of devices that the domain has, which has not run yet, to it.
pub fn route(domain: &Domain, intid: u32) -> Result<(), Refusal> {
    let line = CATALOGUE.lock().line_of(domain.id, intid);
    let no = |error, why| Refusal::new(error, alloc::format!("interrupt {intid} {why}"));
    let line = line.ok_or_else(|| no(Errno::Perm, "is not its own"))?;
    if domain.uart().map(|uart| u32::from(uart.irq.raw())) == Some(intid) {
        return Err(no(Errno::Busy, "is its UART's"));
    }
    let gic = gic::get().ok_or_else(|| no(Errno::NoDev, "has no controller"))?;
    irq::route_to_guest(gic, intid, domain, line.trigger).map_err(|error| match error {
        RouteError::Busy => no(Errno::Busy, "is in use"),
        RouteError::NoSuchInterrupt => no(Errno::Inval, "is beyond the domain's (nr_spis)"),
    })
}

/// Routes those of 32 SPIs from `first` that dom0 is about to enable and nobody owns to dom0, but for those of marked devices.
#[cold]
#[inline(never)]
pub fn give_unowned(dom0: &Domain, first: u32, enabled: u32) {
    for bit in bits(irq::unowned(first, enabled)) {
        let intid = first + bit;
        if !CATALOGUE.lock().is_marked(intid)
            && let Some(gic) = gic::get()
        {
            irq::give_unowned(gic, intid, dom0);
        }
    }
}

/// Takes the interrupts of a domain that ends back. No vCPU of it is loaded. Returns false if it is to be called again.
pub fn take_interrupts(domain: &Domain) -> bool {
    let Some(gic) = gic::get() else { return true };
    let mut after = 0;
    while let Some(intid) = line_after(domain.id, after) {
        if !irq::take_from_guest(gic, intid, domain) {
            return false;
        }
        after = intid;
    }
    true
}

/// Returns the next interrupt of the domain's devices.
fn line_after(domain: DomId, after: u32) -> Option<u32> {
    let catalogue = CATALOGUE.lock();
    let lines = catalogue.of_domain(domain).flat_map(|device| &device.lines);
    let next = lines.map(|line| line.intid).filter(|line| *line > after);
    next.min()
}

/// Lets others have the devices of a domain whose map is empty.
pub fn forget(domain: DomId) {
    CATALOGUE.lock().forget(domain);
}

#[cfg(test)]
mod tests;
