//! Interrupt lines of emulated devices, which are high until what raises them is over (IHI 0048B 3.2.2, level-sensitive).
//!
//! While the line is high the interrupt is pending whenever it is not in a list register. There it asks for a maintenance
//! interrupt at its end, so that the next refill finds it ended and makes it pending again. When the line falls, what is
//! pending is dropped.
//!
//! Such an interrupt has no route: the bit that asks for the maintenance interrupt would be one of the physical interrupt's.

use super::Vgic;
use super::irq::{bank_of, bit_of};
use crate::id::{IntId, VcpuId, VcpuSet};

impl Vgic {
    /// Sets the line of SPI `irq` high or low. Returns the vCPUs that must refill.
    pub fn set_level(&mut self, irq: IntId, high: bool) -> VcpuSet {
        let (number, mask) = (bank_of(irq), 1u32 << bit_of(irq));
        let Some(spi) = self.spi_mut(number) else {
            return VcpuSet::EMPTY;
        };
        if (spi.level & mask != 0) == high {
            return VcpuSet::EMPTY;
        }
        if high {
            spi.level |= mask;
            return self.raise(VcpuId::ZERO, irq);
        }
        spi.level &= !mask;
        let bank = &mut spi.bank;
        let in_flight = bank.in_flight() & mask;
        bank.pending &= !mask;
        bank.drop_pending |= bank.in_lr & mask;
        self.requeue(VcpuId::ZERO, number, in_flight)
    }

    /// Makes those interrupts of a shared bank pending that have ended and whose lines are high.
    #[cold]
    #[inline(never)]
    pub(super) fn raise_high(&mut self, number: u32, ended: u32) {
        if let Some(spi) = self.spi_mut(number) {
            spi.bank.pending |= spi.level & ended;
        }
    }
}
