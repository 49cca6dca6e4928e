//! Which domain is told of what concerns all: global VIRQs go to one handler each, dom0 unless the toolstack says otherwise.

use core::sync::atomic::{AtomicU16, Ordering};

use super::registry;
use crate::abi::event_channel::NR_VIRQS;
use crate::event::EventVirq;
use crate::id::{DomId, VcpuId};

const COUNT: usize = NR_VIRQS as usize;

/// Handler of each VIRQ. A handler that is gone is as good as none, so nothing has to be ordered with it.
static HANDLERS: [AtomicU16; COUNT] = [const { AtomicU16::new(DomId::DOM0.0) }; COUNT];

/// Tells the handler of a global VIRQ.
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

/// Gives what `domain` handled back to dom0: it ends.
pub fn forget(domain: DomId) {
    for handler in &HANDLERS {
        #[expect(
            clippy::let_underscore_must_use,
            reason = "what another domain handles stays as it is"
        )]
        let _ = handler.compare_exchange(
            domain.0,
            DomId::DOM0.0,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
    }
}
