//! Where things are in a guest that is not dom0 (xen/include/public/arch-arm.h), and what of the machine they need.

use armv7::addr::{Gfn, Mfn, PAGE_SHIFT};
use spin::Once;

use super::GicMap;
use crate::id::IntId;

/// A region: address and size.
pub type Region = (u64, u64);

/// The emulated distributor (GUEST_GICD_BASE, GUEST_GICD_SIZE).
pub const GICD: Region = (0x0300_1000, 0x1000);
/// Where the machine's virtual CPU interface is mapped (GUEST_GICC_BASE, GUEST_GICC_SIZE).
pub const GICC: Region = (0x0300_2000, 0x2000);
/// The emulated UART (GUEST_PL011_BASE, GUEST_PL011_SIZE).
pub const UART: Region = (0x2200_0000, 0x1000);
/// Where the guest may map its grant table (GUEST_GNTTAB_BASE, GUEST_GNTTAB_SIZE).
pub const GRANT_TABLE: Region = (0x3800_0000, 0x0100_0000);
/// Pages that the toolstack gives a guest (GUEST_MAGIC_BASE, GUEST_MAGIC_SIZE).
pub const MAGIC: Region = (0x3900_0000, 0x0100_0000);
/// The most RAM at each of its two places (GUEST_RAM0_BASE, GUEST_RAM1_BASE and their sizes).
pub const RAM_BANKS: [Region; 2] = [(0x4000_0000, 0xC000_0000), (0x02_0000_0000, 0xFE_0000_0000)];
/// GUEST_EVTCHN_PPI.
const EVENT_PPI: u32 = 31;
/// GUEST_VPL011_SPI.
const UART_SPI: u32 = 32;

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
        first_page: (GICD.0 >> PAGE_SHIFT) as u32,
        pages: (GICD.1 >> PAGE_SHIFT) as u32,
    }
}

/// Interrupt that announces events.
pub const fn event_irq() -> Option<IntId> {
    IntId::new(EVENT_PPI)
}

/// Interrupt of the emulated UART.
pub const fn uart_irq() -> Option<IntId> {
    IntId::new(UART_SPI)
}

/// Returns where the virtual CPU interface goes: guest frame, and number of frames.
pub fn cpu_interface(host: &Host) -> Option<(Gfn, u32)> {
    let frames = (GICC.1 >> PAGE_SHIFT) as u32;
    Some((Gfn::new(GICC.0 >> PAGE_SHIFT)?, frames.min(host.frames)))
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
