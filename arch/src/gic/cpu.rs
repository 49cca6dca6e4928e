//! The CPU interface (IHI 0048B 4.4), with split priority drop and deactivation.

use tock_registers::interfaces::{Readable, Writeable};
use tock_registers::registers::{ReadOnly, ReadWrite, WriteOnly};
use tock_registers::{register_bitfields, register_structs};

use crate::mmio::{Block, Window};

register_bitfields![u32,
    CTLR [
        /// Signal interrupts to the CPU.
        ENABLE OFFSET(0) NUMBITS(1) [],
        /// EOIR drops priority only; DIR deactivates.
        EOIMODE OFFSET(9) NUMBITS(1) []
    ]
];

register_structs! {
    Registers {
        (0x0000 => ctlr: ReadWrite<u32, CTLR::Register>),
        (0x0004 => pmr: ReadWrite<u32>),
        (0x0008 => bpr: ReadWrite<u32>),
        (0x000C => iar: ReadOnly<u32>),
        (0x0010 => eoir: WriteOnly<u32>),
        (0x0014 => _reserved0),
        /// GICC_APR of group 0, then GICC_NSAPR of group 1, four registers each.
        (0x00D0 => active_priorities: [ReadWrite<u32>; 8]),
        (0x00F0 => _reserved1),
        (0x1000 => dir: WriteOnly<u32>),
        (0x1004 => @END),
    }
}

/// This CPU's interface.
pub struct CpuInterface {
    regs: Block<Registers>,
}

/// An acknowledged interrupt. It is active and requires [`CpuInterface::drop_priority`].
#[derive(Clone, Copy, Debug)]
pub struct Ack(u32);

impl Ack {
    /// Returns the INTID.
    pub fn intid(self) -> u32 {
        self.0 & 0x3FF
    }
}

impl CpuInterface {
    pub(super) fn new(regs: Window) -> Self {
        let interface = Self { regs: regs.block() };
        interface.init_cpu();
        interface
    }

    /// Sets up this CPU's interface: all priorities, separate deactivation. Clears active priorities that a boot loader
    /// left, which would mask interrupts.
    pub fn init_cpu(&self) {
        for priorities in &self.regs.active_priorities {
            priorities.set(0);
        }
        self.regs.pmr.set(0xFF);
        self.regs.bpr.set(0);
        self.regs.ctlr.write(CTLR::ENABLE::SET + CTLR::EOIMODE::SET);
    }

    /// Signals no more interrupts to this CPU, which is to be switched off.
    pub fn close(&self) {
        self.regs.ctlr.set(0);
    }

    /// Acknowledges the pending interrupt of highest priority, if any.
    pub fn acknowledge(&self) -> Option<Ack> {
        let iar = self.regs.iar.get();
        (iar & 0x3FF < super::SPURIOUS).then_some(Ack(iar))
    }

    /// Drops the running priority, so that interrupts of the same priority can be taken. The acknowledged one stays
    /// active.
    pub fn drop_priority(&self, ack: Ack) {
        self.regs.eoir.set(ack.0);
    }

    /// Deactivates an acknowledged interrupt.
    pub fn deactivate(&self, ack: Ack) {
        self.regs.dir.set(ack.0);
    }

    /// Deactivates an interrupt by number.
    pub fn deactivate_intid(&self, intid: u32) {
        self.regs.dir.set(intid & 0x3FF);
    }
}
