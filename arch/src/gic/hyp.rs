//! The virtual interface control: list registers and related state (IHI 0048B 5.3).

use tock_registers::interfaces::{Readable, Writeable};
use tock_registers::registers::{ReadOnly, ReadWrite};
use tock_registers::{register_bitfields, register_structs};

use crate::mmio::{Block, Window};

register_bitfields![u32,
    HCR [
        /// Virtual interface on.
        EN OFFSET(0) NUMBITS(1) []

    ]
];

/// GICH_HCR.EOICount.
const EOICOUNT_SHIFT: u32 = 27;
const EOICOUNT: u32 = 0x1F << EOICOUNT_SHIFT;

register_structs! {
    Registers {
        (0x000 => hcr: ReadWrite<u32, HCR::Register>),
        (0x004 => vtr: ReadOnly<u32>),
        (0x008 => vmcr: ReadWrite<u32>),
        (0x00C => _reserved0),
        (0x010 => misr: ReadOnly<u32>),
        (0x014 => _reserved1),
        (0x020 => eisr: [ReadOnly<u32>; 2]),
        (0x028 => _reserved2),
        (0x030 => elrsr: [ReadOnly<u32>; 2]),
        (0x038 => _reserved3),
        (0x0F0 => apr: ReadWrite<u32>),
        (0x0F4 => _reserved4),
        (0x100 => lr: [ReadWrite<u32>; 64]),
        (0x200 => @END),
    }
}

/// This CPU's virtual interface control.
pub struct HypInterface {
    regs: Block<Registers>,
    count: usize,
}

/// State of a guest's virtual CPU interface that is not in the hardware.
#[derive(Clone, Copy, Debug, Default)]
pub struct VirtualInterface {
    vmcr: u32,
    apr: u32,
}

impl VirtualInterface {
    /// Bits of GICH_VMCR that a guest has (IHI 0048B 5.3.5): enables, AckCtl, FIQEn, CBPR, EOIM, both binary points and the
    /// priority mask.
    const VMCR_BITS: u32 = 0xF8FC_021F;

    /// Returns a view with these GICH_VMCR and GICH_APR; `None` when VMCR has bits that do not exist.
    pub const fn new(vmcr: u32, apr: u32) -> Option<Self> {
        if vmcr & !Self::VMCR_BITS == 0 {
            Some(Self { vmcr, apr })
        } else {
            None
        }
    }

    /// Returns GICH_VMCR and GICH_APR.
    pub const fn registers(&self) -> (u32, u32) {
        (self.vmcr & Self::VMCR_BITS, self.apr)
    }
}

impl HypInterface {
    pub(super) fn new(regs: Window) -> Self {
        let regs: Block<Registers> = regs.block();
        let count = (regs.vtr.get() as usize & 0x3F) + 1;
        let interface = Self {
            regs,
            count: count.min(64),
        };
        interface.init_cpu();
        interface
    }

    /// Sets up this CPU's virtual interface: enabled, with empty list registers.
    pub fn init_cpu(&self) {
        for lr in self.regs.lr.iter().take(self.count) {
            lr.set(0);
        }
        self.regs.apr.set(0);
        self.regs.vmcr.set(0);
        self.regs.hcr.write(HCR::EN::SET);
    }

    /// Returns the number of list registers.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Reads list register `index`; 0 if it does not exist.
    pub fn read(&self, index: usize) -> u32 {
        self.regs.lr.get(index).map_or(0, |lr| lr.get())
    }

    /// Writes list register `index`.
    pub fn write(&self, index: usize, value: u32) {
        if let Some(lr) = self.regs.lr.get(index) {
            lr.set(value);
        }
    }

    /// Sets the maintenance interrupt enables in GICH_HCR.
    pub fn set_maintenance(&self, enables: u32) {
        let count = self.regs.hcr.get() & EOICOUNT;
        self.regs.hcr.set(HCR::EN::SET.value | enables | count);
    }

    /// Reads and clears GICH_HCR.EOICount: the number of ends of interrupts without a list register since the last
    /// call.
    pub fn take_eoi_count(&self) -> u32 {
        let hcr = self.regs.hcr.get();
        let count = hcr >> EOICOUNT_SHIFT;
        if count != 0 {
            self.regs.hcr.set(hcr & !EOICOUNT);
        }
        count
    }

    /// Loads a guest's virtual CPU interface state.
    pub fn load(&self, view: &VirtualInterface) {
        self.regs.vmcr.set(view.vmcr);
        self.regs.apr.set(view.apr);
    }

    /// Saves the guest's virtual CPU interface state.
    pub fn save(&self) -> VirtualInterface {
        VirtualInterface {
            vmcr: self.regs.vmcr.get(),
            apr: self.regs.apr.get(),
        }
    }
}
