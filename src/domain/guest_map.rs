//! Where things are in a guest that the toolstack builds (xen/include/public/arch-arm.h), and what of the machine they
//! need.

use armv7::addr::{Gfn, Mfn, PAGE_SHIFT};
use spin::Once;

use super::GicMap;
use crate::id::IntId;

/// GUEST_GICD_BASE.
const GICD_BASE: u64 = 0x0300_1000;
/// GUEST_GICD_SIZE.
const GICD_SIZE: u64 = 0x1000;
/// GUEST_GICC_BASE: the machine's virtual CPU interface is mapped here.
const GICC_BASE: u64 = 0x0300_2000;
/// GUEST_GICC_SIZE.
const GICC_SIZE: u64 = 0x2000;
/// GUEST_EVTCHN_PPI.
const EVENT_PPI: u32 = 31;

/// The parts of the machine that guests get.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Host {
    /// First frame of the virtual CPU interface.
    pub virtual_cpu: Mfn,
    /// Its frames.
    pub frames: u32,
    /// The timer's frequency where firmware left CNTFRQ wrong, else 0.
    pub clock_frequency: u32,
}

static HOST: Once<Host> = Once::new();

/// Tells what guests get of the machine; only the first call counts.
pub fn init(host: Host) {
    HOST.call_once(|| host);
}

/// Returns what guests get of the machine, once boot has told.
pub fn host() -> Option<&'static Host> {
    HOST.get()
}

/// Returns the distributor.
pub const fn gic() -> GicMap {
    GicMap {
        first_page: (GICD_BASE >> PAGE_SHIFT) as u32,
        pages: (GICD_SIZE >> PAGE_SHIFT) as u32,
    }
}

/// Interrupt that announces events.
pub const fn event_irq() -> Option<IntId> {
    IntId::new(EVENT_PPI)
}

/// Returns where the virtual CPU interface goes: guest frame, and number of frames.
pub fn cpu_interface(host: &Host) -> Option<(Gfn, u32)> {
    let frames = (GICC_SIZE >> PAGE_SHIFT) as u32;
    Some((Gfn::new(GICC_BASE >> PAGE_SHIFT)?, frames.min(host.frames)))
}

#[cfg(test)]
mod tests {
    use super::{Host, cpu_interface, event_irq, gic};
    use armv7::addr::Mfn;

    #[test]
    fn the_controller_is_where_the_toolstack_says() {
        let host = Host {
            virtual_cpu: Mfn::new(0x8040).unwrap(),
            frames: 16,
            clock_frequency: 0,
        };
        assert_eq!(
            cpu_interface(&host).map(|(gfn, count)| (gfn.raw(), count)),
            Some((0x3002, 2))
        );
        assert_eq!((gic().first_page, gic().pages), (0x3001, 1));
        assert_eq!(event_irq().map(|irq| irq.raw()), Some(31));
    }
}
