//! The memory map of guests other than dom0 (xen/include/public/arch-arm.h).

use armv7::addr::{Gfn, Mfn, PAGE_SHIFT};
use spin::Once;

use super::GicMap;
use crate::id::IntId;

/// A region: address and size.
pub type Region = (u64, u64);

/// The emulated distributor (GUEST_GICD_BASE, GUEST_GICD_SIZE).
pub const GICD: Region = (0x0300_1000, 0x1000);
/// The machine's virtual CPU interface (GUEST_GICC_BASE, GUEST_GICC_SIZE).
pub const GICC: Region = (0x0300_2000, 0x2000);
/// The emulated UART (GUEST_PL011_BASE, GUEST_PL011_SIZE).
pub const UART: Region = (0x2200_0000, 0x1000);
/// The region set aside for the guest's grant table (GUEST_GNTTAB_BASE, GUEST_GNTTAB_SIZE).
pub const GRANT_TABLE: Region = (0x3800_0000, 0x0100_0000);
/// The pages that the toolstack gives a guest (GUEST_MAGIC_BASE, GUEST_MAGIC_SIZE).
pub const MAGIC: Region = (0x3900_0000, 0x0100_0000);
/// The two banks of RAM at their largest (GUEST_RAM0_BASE, GUEST_RAM1_BASE and their sizes).
pub const RAM_BANKS: [Region; 2] = [(0x4000_0000, 0xC000_0000), (0x02_0000_0000, 0xFE_0000_0000)];
/// GUEST_EVTCHN_PPI.
const EVENT_PPI: u32 = 31;
/// GUEST_VPL011_SPI.
const UART_SPI: u32 = 32;

/// The parts of the machine that guests get.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Host {
    /// The first frame of the virtual CPU interface.
    pub virtual_cpu: Mfn,
    /// Its number of frames.
    pub frames: u32,
    /// The timer's frequency in Hz where firmware left CNTFRQ wrong, else 0.
    pub clock_frequency: u32,
}

static HOST: Once<Host> = Once::new();

/// Sets the parts of the machine that guests get. Only the first call has an effect.
pub fn init(host: Host) {
    HOST.call_once(|| host);
}

/// Returns the parts of the machine that guests get, after [`init`].
pub fn host() -> Option<&'static Host> {
    HOST.get()
}

/// Where a guest finds what is emulated or mapped for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// The emulated distributor.
    pub distributor: Region,
    /// The virtual CPU interface.
    pub cpu_interface: Region,
    /// The emulated UART.
    pub uart: Region,
    /// The interrupt of the emulated UART.
    pub uart_irq: IntId,
}

impl Layout {
    /// Returns that of guests that have no memory at addresses of the machine.
    pub const fn new() -> Option<Self> {
        let Some(uart_irq) = IntId::new(UART_SPI) else {
            return None;
        };
        Some(Self {
            distributor: GICD,
            cpu_interface: GICC,
            uart: UART,
            uart_irq,
        })
    }

    /// Returns the place of the distributor, in pages.
    pub const fn gic(&self) -> GicMap {
        GicMap {
            first_page: (self.distributor.0 >> PAGE_SHIFT) as u32,
            pages: (self.distributor.1 >> PAGE_SHIFT) as u32,
        }
    }

    /// Returns the place of the machine's virtual CPU interface: gfn, and number of frames.
    pub fn cpu_frames(&self, host: &Host) -> Option<(Gfn, u32)> {
        let (base, size) = self.cpu_interface;
        let frames = (size >> PAGE_SHIFT) as u32;
        Some((Gfn::new(base >> PAGE_SHIFT)?, frames.min(host.frames)))
    }
}

/// Returns the interrupt that announces events.
pub const fn event_irq() -> Option<IntId> {
    IntId::new(EVENT_PPI)
}

#[cfg(test)]
mod tests {
    use super::{Host, Layout, event_irq};
    use armv7::addr::Mfn;

    #[test]
    fn the_controller_is_where_the_toolstack_says() {
        let host = Host {
            virtual_cpu: Mfn::new(0x8040).unwrap(),
            frames: 16,
            clock_frequency: 0,
        };
        let layout = Layout::new().unwrap();
        assert_eq!(
            layout
                .cpu_frames(&host)
                .map(|(gfn, count)| (gfn.raw(), count)),
            Some((0x3002, 2))
        );
        assert_eq!((layout.gic().first_page, layout.gic().pages), (0x3001, 1));
        assert_eq!(event_irq().map(|irq| irq.raw()), Some(31));
    }
}
