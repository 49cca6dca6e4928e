//! Devices of the machine that the toolstack gives to domains: `iomem` and `irqs` of xl.
//!
//! `crate::passthrough` has the rule. What it refuses is named on the console, with the node at fault. The right to a device
//! lasts as long as its domain: taking it away changes nothing.

use alloc::sync::Arc;
use core::fmt::Display;

use armv7::addr::{Gfn, Mfn, PAGE_SHIFT};

use super::request::Request;
use super::{again, exclusive};
use crate::abi::domctl as abi;
use crate::call::{Outcome, Reply};
use crate::domain::{Domain, Life};
use crate::error::Errno;
use crate::guest_warn;
use crate::id::MAX_INTIDS;
use crate::irq::{self, Owner};
use crate::passthrough::rule::Want;
use crate::passthrough::{self, Refusal};
use crate::platform::interrupt::FIRST_SPI;
use crate::platform::ranges::PhysRange;

/// The highest number of frames of one mapping.
const MAX_MAPPING: u64 = 64;

/// Allows a domain an interrupt.
pub fn permit_interrupt(request: &Request<'_>) -> Outcome {
    let domain = request.domain()?;
    let body: abi::IrqPermission = request.body()?;
    if body.pirq >= MAX_INTIDS {
        return Err(Errno::Inval);
    }
    if body.allow_access == 0 {
        return Ok(Reply::OK);
    }
    permit(request, &domain, &Want::Line(body.pirq))
}

/// Allows a domain frames of the machine.
pub fn permit_pages(request: &Request<'_>) -> Outcome {
    let domain = request.domain()?;
    let body: abi::IomemPermission = request.body()?;
    range_end(body.first_mfn, body.nr_mfns)?;
    if body.allow_access == 0 {
        return Ok(Reply::OK);
    }
    // Beyond 40 bits there is nothing.
    let range = frames(body.first_mfn, body.nr_mfns).ok_or(Errno::Perm)?;
    permit(request, &domain, &Want::Pages(range))
}

fn permit(request: &Request<'_>, domain: &Arc<Domain>, want: &Want<'_>) -> Outcome {
    let Some(_exclusive) = exclusive() else {
        return again(request.args);
    };
    let claimed = may_have_devices(domain).and_then(|()| passthrough::claim(domain, want, false));
    claimed.map_err(|refusal| log_refusal(request, domain, &refusal))?;
    Ok(Reply::OK)
}

/// Maps frames of the machine into a domain, or unmaps them.
pub fn map(request: &Request<'_>) -> Outcome {
    let domain = request.domain()?;
    let body: abi::MemoryMapping = request.body()?;
    Mfn::new(range_end(body.first_mfn, body.nr_mfns)?).ok_or(Errno::Inval)?;
    range_end(body.first_gfn, body.nr_mfns)?;
    if body.nr_mfns > MAX_MAPPING {
        return Err(Errno::TooBig);
    }
    let range = frames(body.first_mfn, body.nr_mfns).ok_or(Errno::Inval)?;
    let gfn = Gfn::new(body.first_gfn).ok_or(Errno::Inval)?;
    let Some(_exclusive) = exclusive() else {
        return again(request.args);
    };
    if !passthrough::has(domain.id, &range) {
        return Err(Errno::Perm);
    }
    if body.add_mapping == 0 {
        passthrough::unmap(&domain, gfn, &range)?;
        return Ok(Reply::OK);
    }
    let mapped = may_have_devices(&domain).and_then(|()| passthrough::map(&domain, gfn, &range));
    mapped.map_err(|refusal| log_refusal(request, &domain, &refusal))?;
    Ok(Reply::OK)
}

/// Routes an interrupt of the machine to a domain.
pub fn bind(request: &Request<'_>) -> Outcome {
    let (domain, intid) = guest_interrupt(request)?;
    let Some(_exclusive) = exclusive() else {
        return again(request.args);
    };
    let routed = may_have_devices(&domain)
        .and_then(|()| match domain.has_run() {
            false => Ok(()),
            true => Err(Refusal::new(Errno::Busy, "it runs already")),
        })
        .and_then(|()| passthrough::claim(&domain, &Want::Line(intid), false))
        .and_then(|()| passthrough::route(&domain, intid));
    routed.map_err(|refusal| log_refusal(request, &domain, &refusal))?;
    Ok(Reply::OK)
}

/// Takes an interrupt back, which only the domain's end does: there is nothing left to do then.
pub fn unbind(request: &Request<'_>) -> Outcome {
    let (domain, intid) = guest_interrupt(request)?;
    let life = domain.state.lock().life;
    match (irq::owner(intid), life) {
        (Owner::Guest(id), Life::Alive) if id == domain.id => Err(Errno::Busy),
        (_, Life::Alive) => Err(Errno::Inval),
        _ => Ok(Reply::OK),
    }
}

/// Returns the domain of a request, which is not dom0, and the SPI, which the domain sees under the same INTID. The body is
/// `machine_irq`, `irq_type`, and the INTID in the domain (16 bits).
fn guest_interrupt(request: &Request<'_>) -> Result<(Arc<Domain>, u32), Errno> {
    /// `PT_IRQ_TYPE_SPI`.
    const SHARED: u32 = 4;
    let domain = request.domain()?;
    let [machine, kind, spi]: [u32; 3] = request.body()?;
    if kind != SHARED {
        Err(Errno::OpNotSupp)
    } else if spi & 0xFFFF != machine
        || !(FIRST_SPI..MAX_INTIDS).contains(&machine)
        || domain.rights.hardware
    {
        Err(Errno::Inval)
    } else {
        Ok((domain, machine))
    }
}

/// Fails for dom0, which has all devices that are not marked, and for a domain that is being destroyed.
fn may_have_devices(domain: &Domain) -> Result<(), Refusal> {
    if domain.rights.hardware {
        Err(Refusal::new(
            Errno::Perm,
            "marked devices are for other domains than dom0",
        ))
    } else if domain.state.lock().life != Life::Alive {
        Err(Refusal::new(Errno::Inval, "it is being destroyed"))
    } else {
        Ok(())
    }
}

/// Logs a refusal, and returns its error.
fn log_refusal(request: &Request<'_>, domain: &dyn Display, refusal: &Refusal) -> Errno {
    let caller = request.caller;
    guest_warn!(
        caller.domain,
        caller.vcpu,
        "{domain} is not given a device: {refusal}"
    );
    refusal.error
}

fn frames(first: u64, count: u64) -> Option<PhysRange> {
    let start = first.checked_mul(1 << PAGE_SHIFT)?;
    PhysRange::new(start, count.checked_mul(1 << PAGE_SHIFT)?)
}

/// Returns the last frame of a range that may not wrap around.
fn range_end(first: u64, count: u64) -> Result<u64, Errno> {
    let rest = count.checked_sub(1).ok_or(Errno::Inval)?;
    first.checked_add(rest).ok_or(Errno::Inval)
}
