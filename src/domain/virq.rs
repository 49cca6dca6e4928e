//! Global VIRQs. Each has one handling domain, which is dom0 until the toolstack sets another one.

use core::sync::atomic::{AtomicU16, Ordering};

use super::registry;
use crate::abi::event_channel::NR_VIRQS;
use crate::event::EventVirq;
use crate::id::{DomId, VcpuId};

const COUNT: usize = NR_VIRQS as usize;

/// The handler of each VIRQ. A VIRQ whose handler has ended is dropped, so no ordering is needed.
static HANDLERS: [AtomicU16; COUNT] = [const { AtomicU16::new(DomId::DOM0.0) }; COUNT];

/// Raises a global VIRQ in its handler.
pub fn raise(virq: EventVirq) {
    let handler = HANDLERS
        .get(virq.raw() as usize)
        .map_or(DomId::DOM0, |id| DomId(id.load(Ordering::Relaxed)));
    if let Some(domain) = registry::get(handler) {
        domain.raise_virq(virq, VcpuId::ZERO);
    }
}

/// Makes `domain` the handler of a global VIRQ.
pub fn set_handler(virq: EventVirq, domain: DomId) {
    if let Some(handler) = HANDLERS.get(virq.raw() as usize) {
        handler.store(domain.0, Ordering::Relaxed);
    }
}

/// Makes dom0 the handler of all VIRQs that `domain`, which ends, has handled.
pub fn forget(domain: DomId) {
    for handler in &HANDLERS {
        #[expect(
            clippy::let_underscore_must_use,
            reason = "a VIRQ of another handler stays as it is"
        )]
        let _ = handler.compare_exchange(
            domain.0,
            DomId::DOM0.0,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
    }
}
