//! The virtual interface control: list registers and what goes with them (IHI 0048B 5.3).

use tock_registers::interfaces::{Readable, Writeable};
use tock_registers::registers::{ReadOnly, ReadWrite};
use tock_registers::{register_bitfields, register_structs};

use crate::mmio::{Block, Window};

register_bitfields![u32,
    HCR [
        /// Virtual interface on.
        EN OFFSET(0) NUMBITS(1) [],
        /// Maintenance interrupt when at most one list register is in use.
        UIE OFFSET(1) NUMBITS(1) [],
        /// Maintenance interrupt when no list register is pending.
        NPIE OFFSET(3) NUMBITS(1) []
    ]
];

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

/// When the virtual interface asks for attention.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Maintenance {
    /// Never.
    Off,
    /// When at most one list register is still in use: more interrupts are waiting than fit.
    Underflow,
    /// When no list register is pending any more.
    NoPending,
}

/// This CPU's virtual interface.
pub struct HypInterface {
    regs: Block<Registers>,
    count: usize,
}

/// A guest's view of its CPU interface, while it is not in the hardware.
#[derive(Clone, Copy, Debug, Default)]
pub struct VirtualInterface {
    vmcr: u32,
    apr: u32,
}

impl HypInterface {
    pub(super) fn new(regs: Window) -> Self {
        let regs: Block<Registers> = regs.block();
        let count = (regs.vtr.get() as usize & 0x3F) + 1;
        let interface = Self { regs, count: count.min(64) };
        interface.init_cpu();
        interface
    }

    /// Sets up this CPU's virtual interface: on, with nothing in it.
    pub fn init_cpu(&self) {
        for lr in self.regs.lr.iter().take(self.count) {
            lr.set(0);
        }
        self.regs.apr.set(0);
        self.regs.vmcr.set(0);
        self.regs.hcr.write(HCR::EN::SET);
    }

    /// Number of list registers.
    #[inline]
    pub fn count(&self) -> usize {
        self.count
    }

    /// List register `index`; 0 when there is none.
    #[inline]
    pub fn read(&self, index: usize) -> u32 {
        self.regs.lr.get(index).map_or(0, |lr| lr.get())
    }

    /// Sets list register `index`.
    #[inline]
    pub fn write(&self, index: usize, value: u32) {
        if let Some(lr) = self.regs.lr.get(index) {
            lr.set(value);
        }
    }

    /// List registers that hold nothing, a bit each.
    #[inline]
    pub fn empty(&self) -> u64 {
        let low = u64::from(self.regs.elrsr[0].get());
        if self.count > 32 { low | u64::from(self.regs.elrsr[1].get()) << 32 } else { low }
    }

    /// Chooses when the maintenance interrupt comes.
    #[inline]
    pub fn set_maintenance(&self, when: Maintenance) {
        self.regs.hcr.write(match when {
            Maintenance::Off => HCR::EN::SET,
            Maintenance::Underflow => HCR::EN::SET + HCR::UIE::SET,
            Maintenance::NoPending => HCR::EN::SET + HCR::NPIE::SET,
        });
    }

    /// Puts a guest's view of its CPU interface into the hardware.
    pub fn load(&self, view: &VirtualInterface) {
        self.regs.vmcr.set(view.vmcr);
        self.regs.apr.set(view.apr);
    }

    /// Takes it out again.
    pub fn save(&self) -> VirtualInterface {
        VirtualInterface { vmcr: self.regs.vmcr.get(), apr: self.regs.apr.get() }
    }
}
