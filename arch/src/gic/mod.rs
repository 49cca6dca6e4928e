//! GICv2 with virtualization extensions (IHI 0048B): distributor, CPU interface, virtual interface control.
//!
//! The hypervisor drops priority and deactivates separately (GICC_CTLR.EOImodeNS), so that an interrupt delivered to a
//! guest stays active until the guest ends it.

mod cpu;
mod dist;
mod hyp;

use spin::Once;

pub use cpu::{Ack, CpuInterface};
pub use dist::{Distributor, TargetMasks, Trigger};
pub use hyp::{HypInterface, VirtualInterface};

use crate::mmio::Window;

/// Maximum number of INTIDs; 1020 to 1023 are special (IHI 0048B 2.2.1).
pub const MAX_INTIDS: u32 = 1020;

/// Maximum number of SPIs in whole banks of 32, as an emulated distributor has them (Xen 4.17: 992 less the private ones).
pub const MAX_SPIS: u16 = 960;

/// Maximum number of CPU interfaces (IHI 0048B 1.4).
pub const MAX_CPU_INTERFACES: u8 = 8;

/// INTID of a spurious acknowledge (IHI 0048B 3.2.5). 1022 and 1023 both require no action.
pub const SPURIOUS: u32 = 1022;

/// The interrupt controller.
pub struct Gic {
    /// Shared by all CPUs.
    pub dist: Distributor,
    /// This CPU's interface. Each CPU accesses its own at the same address.
    pub cpu: CpuInterface,
    /// This CPU's virtual interface control.
    pub hyp: HypInterface,
}

static GIC: Once<Gic> = Once::new();

/// Initializes the controller: all interrupts disabled and inactive, this CPU's interface on.
///
/// Called once, by the boot CPU, with the mapped register blocks.
pub fn init(gicd: Window, gicc: Window, gich: Window) -> &'static Gic {
    GIC.call_once(|| Gic {
        dist: Distributor::new(gicd),
        cpu: CpuInterface::new(gicc),
        hyp: HypInterface::new(gich),
    })
}

/// Returns the controller; `None` before [`init`].
pub fn get() -> Option<&'static Gic> {
    GIC.get()
}
