//! The virtual interrupt controller of a domain: an emulated GICv2 distributor in front of the hardware's virtual CPU
//! interfaces.
//!
//! Owns the state of every virtual interrupt of one domain, the contents of its vCPUs' list registers, and the routes
//! from physical interrupts. This room is pure state: it reaches list registers through [`ListRegisters`], and returns
//! the actions its caller must take (kick a vCPU, enable a physical interrupt) as values. The domain keeps its
//! distributor in a `Lock<Vgic, { rank::VGIC }>`.
//!
//! Path of an interrupt: [`Vgic::inject`] makes it pending in its bank and returns the vCPU to kick. Before that vCPU
//! enters its guest it calls [`Vgic::refill`], which moves the best interrupts into list registers. While the guest
//! runs, hardware changes their state there; the next refill first moves that state back into the banks.
//!
//! Invariants:
//! * every vCPU that becomes `dirty` is in the returned [`VcpuSet`], so one flag per vCPU outside the lock suffices to
//!   show that a refill is due;
//! * between refills of a resident vCPU, the list register holds the state of its interrupt and `lrs` a copy as of the
//!   last refill; a vCPU that is not resident has all its state in the banks;
//! * no value a guest writes can cause a panic: indices are masked or read with `get`.
//!
//! | file | contents |
//! |---|---|
//! | `irq.rs` | state of an interrupt, and the vCPU that places it |
//! | `dist.rs` | register map: decoding and access widths |
//! | `registers.rs` | value of a read and effect of a write, by register |
//! | `lr.rs` | format of a list register, and list registers as a device |
//! | `refill.rs` | moving interrupts into list registers and back |
//! | `choose.rs` | choice among interrupts when list registers run out |
//! | `level.rs` | interrupt lines of emulated devices |
//! | `route.rs` | routes from physical to virtual interrupts |
//! | `saved.rs` | the state as words, to save a domain |
//!
//! Manual: IHI 0048B chapters 3 (state machine), 4.3 (distributor), 5 (virtualization).

mod choose;
mod dist;
mod irq;
mod level;
mod lr;
mod refill;
mod registers;
mod route;
mod saved;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;

use self::irq::{Bank, SpiBank, bank_of, bit_of};
use self::lr::{Lr, MAX_LRS};
use crate::id::{IntId, MAX_VCPUS, VcpuId, VcpuSet};

pub use self::dist::{Effects, HostOp, HostWork, Refused};
pub use self::lr::{ListRegisters, Maintenance};
pub use self::refill::Unloaded;
pub use self::route::{NotRouted, RouteError, Unrouted};
pub use self::saved::{PrivateWords, SharedWords};

/// Maximum number of SPIs: INTIDs 32 to 991. The last 28 INTIDs do not fill a bank, and are left out as in Xen.
pub const MAX_SPIS: u16 = 960;

/// SGIs are always enabled, as on the GIC-400 (implementation defined, IHI 0048B 4.3.5).
const SGIS: u32 = 0xFFFF;

/// Reason a distributor was not created.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NewError {
    /// Zero vCPUs, or more than [`MAX_VCPUS`].
    VcpuCount,
    /// More than [`MAX_SPIS`] SPIs.
    SpiCount,
    /// Out of heap memory.
    NoMemory,
}

/// A domain's interrupt controller.
pub struct Vgic {
    vcpus: [VcpuState; MAX_VCPUS as usize],
    /// SPIs, INTIDs from 32 on.
    spis: Vec<SpiBank>,
    nr_vcpus: u8,
    /// The vCPUs that exist: `nr_vcpus` as a set.
    existing: VcpuSet,
    /// `GICD_CTLR.Enable`.
    forwarding: bool,
    /// SPI banks with physical interrupts to deactivate, by bank number.
    deactivate_banks: u32,
}

/// The interrupts of one vCPU.
struct VcpuState {
    /// SGIs and PPIs.
    private: Bank,
    /// Per SGI, the vCPUs from which it is pending here.
    sgi_sources: [u8; 16],
    /// Per active SGI, the vCPU that sent it.
    sgi_active_from: [u8; 16],
    /// SPIs this vCPU must place, by bank number: pending and enabled, or active without a list register. Bank 0 stays
    /// empty.
    spi_queue: [u32; 32],
    /// Banks of `spi_queue` that are not empty.
    queued_banks: u32,
    /// The list registers as last read or written.
    lrs: [Lr; MAX_LRS],
    /// List registers that were not empty at that time.
    used: u32,
    /// Enabled maintenance interrupts; none while the vCPU is not resident.
    maintenance: Maintenance,
    /// The list registers of a physical CPU hold this vCPU's interrupts.
    resident: bool,
    /// The next refill has work to do.
    dirty: bool,
}

impl VcpuState {
    const fn new() -> Self {
        Self {
            private: Bank::new(SGIS),
            sgi_sources: [0; 16],
            sgi_active_from: [0; 16],
            spi_queue: [0; 32],
            queued_banks: 0,
            lrs: [Lr::FREE; MAX_LRS],
            used: 0,
            maintenance: Maintenance::NONE,
            resident: false,
            dirty: false,
        }
    }

    fn enqueue(&mut self, number: u32, mask: u32) {
        self.spi_queue[number as usize & 31] |= mask;
        self.queued_banks |= 1 << (number & 31);
    }

    fn dequeue(&mut self, number: u32, mask: u32) {
        let queued = &mut self.spi_queue[number as usize & 31];
        *queued &= !mask;
        if *queued == 0 {
            self.queued_banks &= !(1 << (number & 31));
        }
    }

    fn queued(&self, number: u32) -> u32 {
        self.spi_queue[number as usize & 31]
    }

    fn lr(&self, index: u32) -> Lr {
        self.lrs[index as usize % MAX_LRS]
    }

    /// Returns the list registers in use, as last read or written.
    fn used_lrs(&self) -> impl Iterator<Item = Lr> {
        bits(self.used).map(|index| self.lr(index))
    }
}

/// Returns the numbers of the bits set in `mask`, lowest first.
pub fn bits(mut mask: u32) -> impl Iterator<Item = u32> {
    core::iter::from_fn(move || {
        if mask == 0 {
            return None;
        }
        let bit = mask.trailing_zeros();
        mask &= mask - 1;
        Some(bit)
    })
}

impl Vgic {
    /// Returns a distributor in its reset state, for `nr_vcpus` vCPUs and `nr_spis` SPIs, rounded up to whole banks of
    /// 32.
    pub fn new(nr_vcpus: u8, nr_spis: u16) -> Result<Self, NewError> {
        if nr_vcpus == 0 || nr_vcpus > MAX_VCPUS {
            return Err(NewError::VcpuCount);
        }
        if nr_spis > MAX_SPIS {
            return Err(NewError::SpiCount);
        }
        let banks = usize::from(nr_spis.div_ceil(irq::BANK as u16));
        let mut spis = Vec::new();
        spis.try_reserve_exact(banks)
            .map_err(|_| NewError::NoMemory)?;
        spis.extend((0..banks).map(|_| SpiBank::new()));
        Ok(Self {
            vcpus: [const { VcpuState::new() }; MAX_VCPUS as usize],
            spis,
            nr_vcpus,
            existing: VcpuSet(u8::MAX >> (MAX_VCPUS - nr_vcpus)),
            forwarding: false,
            deactivate_banks: 0,
        })
    }

    fn vcpu(&self, vcpu: VcpuId) -> &VcpuState {
        &self.vcpus[vcpu.index() % MAX_VCPUS as usize]
    }

    fn vcpu_mut(&mut self, vcpu: VcpuId) -> &mut VcpuState {
        &mut self.vcpus[vcpu.index() % MAX_VCPUS as usize]
    }

    /// Makes `irq` pending as an edge does: an SGI or PPI at `vcpu`, an SPI at its target. The sender of an SGI is
    /// `vcpu` itself. Ignores interrupts and vCPUs that do not exist. Returns the vCPUs to kick.
    pub fn inject(&mut self, vcpu: VcpuId, irq: IntId) -> VcpuSet {
        if !self.existing.contains(vcpu) {
            VcpuSet::EMPTY
        } else if irq.is_sgi() {
            self.raise_sgi(vcpu, irq, vcpu)
        } else {
            self.raise(vcpu, irq)
        }
    }

    /// Returns whether the list registers of a physical CPU hold `vcpu`'s interrupts: from its first refill until its
    /// unload.
    pub fn is_resident(&self, vcpu: VcpuId) -> bool {
        self.vcpu(vcpu).resident
    }

    /// Returns whether `vcpu` should wake: an enabled interrupt is pending for it and not waiting for its own end.
    /// Ignores CPSR.I and the priority mask, as WFI does (DDI 0406C.d B1.8.14).
    ///
    /// For a resident vCPU the result is as of the last refill; call [`Self::fold`] first for the current state.
    pub fn has_deliverable(&self, vcpu: VcpuId) -> bool {
        let state = self.vcpu(vcpu);
        let is_queued = |number| {
            let spi = self.spi(number);
            spi.is_some_and(|spi| spi.bank.deliverable() & state.queued(number) != 0)
        };
        self.forwarding
            && (state.private.deliverable() != 0
                || bits(state.queued_banks).any(is_queued)
                || state.used_lrs().any(Lr::is_only_pending))
    }

    /// Clears the pending and active state of `vcpu`, which is unloaded, for CPU_ON. Xen clears pending interrupts
    /// there as well. Keeps enables and priorities, and SPIs that are pending for `vcpu`. Returns the vCPUs to kick.
    pub fn reset_vcpu(&mut self, vcpu: VcpuId) -> VcpuSet {
        let state = self.vcpu_mut(vcpu);
        state.sgi_sources = [0; 16];
        let private = &mut state.private;
        private.pending = 0;
        private.active = 0;
        private.set_active = 0;
        // The unload made its physical PPIs inactive.
        private.phys_active = 0;
        private.deactivate = 0;
        (1..=self.spis.len() as u32).fold(VcpuSet::EMPTY, |kick, number| {
            kick | self.end_active(vcpu, number, self.active_in(vcpu, number))
        })
    }

    /// Returns the state of `irq` as `vcpu` sees it, for debug keys.
    pub fn snapshot(&self, vcpu: VcpuId, irq: IntId) -> Option<Snapshot> {
        let (number, mask) = (bank_of(irq), 1 << bit_of(irq));
        let bank = self.bank(vcpu, number)?;
        Some(Snapshot {
            irq,
            enabled: bank.enabled & mask != 0,
            pending: self.read_pending(vcpu, number) & mask != 0,
            active: self.read_active(vcpu, number) & mask != 0,
            in_lr: bank.in_lr & mask != 0,
            phys_active: bank.phys_active & mask != 0,
            priority: bank.priority(bit_of(irq)),
            target: self.target_of(irq),
            pirq: self.pirq_of(irq),
        })
    }

    /// Returns the interrupts of `vcpu` that are pending, active, in a list register or routed. SPIs are listed with
    /// the boot vCPU.
    pub fn dump(&self, vcpu: VcpuId) -> impl Iterator<Item = Snapshot> {
        let end = if vcpu == VcpuId::ZERO {
            self.nr_intids()
        } else {
            irq::BANK
        };
        (0..end)
            .filter_map(IntId::new)
            .filter_map(move |irq| self.snapshot(vcpu, irq))
            .filter(|shot| shot.pending || shot.active || shot.in_lr || shot.pirq.is_some())
    }

    /// Returns index and value of each list register of `vcpu` in use, as last read or written.
    pub fn list_registers(&self, vcpu: VcpuId) -> impl Iterator<Item = (u32, u32)> {
        let state = self.vcpu(vcpu);
        bits(state.used).map(|index| (index, state.lr(index).raw()))
    }

    fn nr_intids(&self) -> u32 {
        irq::BANK * (1 + self.spis.len() as u32)
    }
}

/// State of an interrupt at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // the names are the documentation
pub struct Snapshot {
    pub irq: IntId,
    pub enabled: bool,
    pub pending: bool,
    pub active: bool,
    pub in_lr: bool,
    pub phys_active: bool,
    pub priority: u8,
    pub target: Option<VcpuId>,
    pub pirq: Option<IntId>,
}
