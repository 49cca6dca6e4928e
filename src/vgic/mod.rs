//! The virtual interrupt controller of a domain: a GICv2 distributor in software in front of the hardware's virtual
//! CPU interfaces.
//!
//! Owns the state of every virtual interrupt of one domain, the contents of its vCPUs' list registers, and the routes
//! from physical interrupts. It is pure state: the list registers are reached through [`ListRegisters`], and what must
//! happen elsewhere (kick a vCPU, enable a physical interrupt) is answered as a value. The domain keeps the whole in
//! one `Lock<Vgic, { rank::VGIC }>`.
//!
//! How an interrupt travels: [`Vgic::inject`] latches it and names the vCPU to kick; that vCPU, before it enters the
//! guest, calls [`Vgic::refill`], which moves what waits into list registers, best priority first. The list registers
//! stay in the hardware across exits and are read back ([`Vgic::fold`]) only when something needs the truth.
//!
//! Invariants:
//! * whoever becomes `dirty` is in the returned [`VcpuSet`], unless the distributor is off, or it was told of a change of
//!   `GICD_CTLR` and has not refilled since; so one flag per vCPU outside the lock tells whether a refill is due;
//! * while a vCPU is `resident`, its list registers in hardware are the truth and `slots` is what was last known, save
//!   for slots in `stale`, which are yet to be written; while it is not, `slots` is the truth;
//! * nothing a guest writes can panic: numbers are masked or looked up with `get`.
//!
//! | file | question |
//! |---|---|
//! | `irq.rs` | what state has an interrupt, and who waits for it? |
//! | `dist.rs` | which register is it, and what does it read? |
//! | `change.rs` | what does a write to it do? |
//! | `lr.rs` | what does a list register say, and what are they as a device? |
//! | `flow.rs` | how do interrupts get into list registers and back? |
//! | `fast.rs` | how does a single interrupt get there quickly? |
//! | `place.rs` | which interrupt goes into which list register? |
//! | `route.rs` | which physical interrupt feeds which virtual one? |
//!
//! Manual: IHI 0048B chapters 3 (state machine), 4.3 (distributor), 5 (virtualization).

mod change;
mod dist;
mod fast;
mod flow;
mod irq;
mod lr;
mod place;
mod route;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;

use self::irq::{Bank, SpiBank, bank_of, bit_of};
use self::lr::{Lr, MAX_LRS};
use crate::id::{IntId, MAX_VCPUS, VcpuId, VcpuSet};

pub use self::dist::{Effects, HostOp, HostWork, Refused};
pub use self::flow::Unloaded;
pub use self::lr::{ListRegisters, Maintenance};
pub use self::route::{NotRouted, RouteError, Unrouted};

/// Shared interrupts at most: INTIDs 32 to 991. The last 28 numbers would fill no whole bank, as in Xen.
pub const MAX_SPIS: u16 = 960;

/// SGIs are always enabled, as the GIC-400 has it (IHI 0048B 4.3.5 leaves the choice).
const SGIS: u32 = 0xFFFF;

/// Why there is no distributor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NewError {
    /// No vCPU, or more than eight.
    VcpuCount,
    /// More than [`MAX_SPIS`] shared interrupts.
    SpiCount,
    /// No memory.
    NoMemory,
}

/// A domain's interrupt controller.
pub struct Vgic {
    vcpus: [VcpuState; MAX_VCPUS as usize],
    /// INTIDs from 32 on.
    spis: Vec<SpiBank>,
    /// Physical interrupt behind each routed PPI, from INTID 16 on.
    ppi_pirq: [u16; 16],
    nr_vcpus: u8,
    /// The same as a set.
    existing: VcpuSet,
    /// Those that were kicked for a change of `GICD_CTLR` and have not refilled since.
    told: VcpuSet,
    /// `GICD_CTLR.Enable`.
    forwarding: bool,
    /// Shared banks with `owed` bits, by bank number.
    owed_banks: u32,
}

/// The interrupts of one vCPU.
struct VcpuState {
    /// SGIs and PPIs.
    private: Bank,
    /// For each SGI the vCPUs from which it is pending here.
    sgi_sources: [u8; 16],
    /// For each SGI that is active without a list register: who sent it.
    sgi_active_from: [u8; 16],
    /// Shared interrupts to deliver here: pending and enabled. Indexed by bank number; bank 0 stays empty.
    spi_ready: [u32; 32],
    /// Banks of `spi_ready` that are not empty.
    ready_banks: u32,
    /// What the list registers hold.
    slots: [Lr; MAX_LRS],
    /// Slots with an interrupt in them, as far as we have looked.
    in_use: u16,
    /// Slots that the hardware has yet to be told of.
    stale: u16,
    /// What the maintenance interrupt is asked to report: nothing while the vCPU is not resident.
    maintenance: Maintenance,
    /// The list registers of a physical CPU hold this vCPU's interrupts.
    resident: bool,
    /// A refill has something to do.
    dirty: bool,
    /// The refill must look at every slot first: an interrupt in one was disabled, cleared, moved.
    resettle: bool,
    /// The last refill, or unload, left nothing special behind and nothing special came since: the vCPU is resident,
    /// forwarded to, with no `stale`, `resettle`, `spilled`, maintenance or private `owed`. May be false at any time.
    calm: bool,
    /// Interrupts that the guest took may be active here without a list register.
    spilled: bool,
}

impl VcpuState {
    const fn new() -> Self {
        Self {
            private: Bank::new(SGIS),
            sgi_sources: [0; 16],
            sgi_active_from: [0; 16],
            spi_ready: [0; 32],
            ready_banks: 0,
            slots: [Lr::FREE; MAX_LRS],
            in_use: 0,
            stale: 0,
            maintenance: Maintenance::NONE,
            resident: false,
            dirty: false,
            resettle: false,
            calm: false,
            spilled: false,
        }
    }

    #[inline]
    fn enqueue(&mut self, number: u32, mask: u32) {
        self.spi_ready[number as usize & 31] |= mask;
        self.ready_banks |= 1 << (number & 31);
    }

    #[inline]
    fn dequeue(&mut self, number: u32, mask: u32) {
        let ready = &mut self.spi_ready[number as usize & 31];
        *ready &= !mask;
        if *ready == 0 {
            self.ready_banks &= !(1 << (number & 31));
        }
    }

    /// Whether an interrupt is pending and enabled and in no list register yet, or fired again.
    #[inline]
    fn waits(&self) -> bool {
        self.private.pending & self.private.enabled != 0 || self.ready_banks != 0
    }

    #[inline]
    fn slot(&self, index: u32) -> Lr {
        self.slots[index as usize % MAX_LRS]
    }

    /// Changes what a slot is to hold; the hardware hears of it at the end of the refill.
    #[inline]
    fn set_slot(&mut self, index: u32, lr: Lr) {
        self.slots[index as usize % MAX_LRS] = lr;
        self.stale |= 1 << (index % MAX_LRS as u32);
    }

    /// The slot that holds `irq`.
    fn slot_of(&self, irq: IntId) -> Option<u32> {
        self.slot_of_number(irq.raw().into())
    }

    /// The slot that holds interrupt `virq`.
    #[inline]
    fn slot_of_number(&self, virq: u32) -> Option<u32> {
        let mut left = self.in_use;
        while left != 0 {
            let index = left.trailing_zeros();
            if u32::from(self.slot(index).virq()) == virq {
                return Some(index);
            }
            left &= left - 1;
        }
        None
    }
}

/// Numbers of the bits set in `mask`, lowest first.
#[inline]
fn bits(mut mask: u32) -> impl Iterator<Item = u32> {
    core::iter::from_fn(move || {
        let bit = mask.trailing_zeros();
        mask &= mask.wrapping_sub(1);
        (bit < 32).then_some(bit)
    })
}

impl Vgic {
    /// A distributor as after reset, for `nr_vcpus` vCPUs and `nr_spis` shared interrupts, rounded up to whole banks.
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
            ppi_pirq: [0; 16],
            nr_vcpus,
            existing: VcpuSet(u8::MAX >> (MAX_VCPUS - nr_vcpus)),
            told: VcpuSet::EMPTY,
            forwarding: false,
            owed_banks: 0,
        })
    }

    #[inline]
    fn vcpu(&self, vcpu: VcpuId) -> &VcpuState {
        &self.vcpus[vcpu.index() % MAX_VCPUS as usize]
    }

    #[inline]
    fn vcpu_mut(&mut self, vcpu: VcpuId) -> &mut VcpuState {
        &mut self.vcpus[vcpu.index() % MAX_VCPUS as usize]
    }

    /// Makes `irq` pending as an edge does: for an SGI or PPI at `vcpu`, for an SPI at its target. An SGI comes from
    /// the vCPU itself. Interrupts and vCPUs that do not exist are ignored.
    #[inline]
    pub fn inject(&mut self, vcpu: VcpuId, irq: IntId) -> VcpuSet {
        if !self.existing.contains(vcpu) {
            VcpuSet::EMPTY
        } else if irq.is_sgi() {
            self.raise_sgi(vcpu, irq, vcpu)
        } else {
            self.raise(vcpu, irq)
        }
    }

    /// Whether the list registers of a physical CPU hold `vcpu`'s interrupts: from its first refill to its unload.
    #[inline]
    pub fn is_resident(&self, vcpu: VcpuId) -> bool {
        self.vcpu(vcpu).resident
    }

    /// Whether [`Self::refill`] has something to do for `vcpu`.
    #[inline]
    pub fn is_dirty(&self, vcpu: VcpuId) -> bool {
        self.vcpu(vcpu).dirty
    }

    /// Whether `vcpu` should wake: an interrupt is pending for it, enabled, and not waiting for its own end. Looks
    /// neither at CPSR.I nor at the priority mask, as WFI does not (DDI 0406C.d B1.8.14).
    ///
    /// Of a vCPU whose list registers are loaded it knows what it last saw: [`Self::fold`] first for the truth.
    #[inline]
    pub fn has_deliverable(&self, vcpu: VcpuId) -> bool {
        if !self.forwarding {
            return false;
        }
        let state = self.vcpu(vcpu);
        let private = &state.private;
        if private.pending & private.enabled & !private.blocked() != 0 {
            return true;
        }
        let queued = bits(state.ready_banks).any(|number| {
            let ready = state.spi_ready[number as usize & 31];
            self.spi(number)
                .is_some_and(|spi| ready & !spi.bank.blocked() != 0)
        });
        queued || bits(state.in_use.into()).any(|index| state.slot(index).is_only_pending())
    }

    /// Drops what is pending and active at `vcpu` for a new start (CPU_ON; xen clears its pending interrupts there).
    /// Enables and priorities stay. Shared interrupts that wait for it keep waiting.
    ///
    /// The vCPU should be unloaded; if it is not, the next refill or unload clears the list registers.
    pub fn reset_vcpu(&mut self, vcpu: VcpuId) -> VcpuSet {
        let mut kick = VcpuSet::EMPTY;
        let state = self.vcpu_mut(vcpu);
        let mut physical = state.private.held | state.private.owed;
        for index in bits(state.in_use.into()) {
            let lr = self.vcpu(vcpu).slot(index);
            if lr.is_private() && lr.is_hw() {
                physical |= 1 << (lr.virq() & 31);
            }
            kick |= self.evict(vcpu, index);
        }
        let state = self.vcpu_mut(vcpu);
        let private = &mut state.private;
        private.pending = 0;
        private.active = 0;
        private.forced = 0;
        private.held = 0;
        // Unloaded, its physical PPIs were made inactive when they were taken off their CPU.
        private.owed = if state.resident { physical } else { 0 };
        state.sgi_sources = [0; 16];
        state.calm = false;
        state.dirty = true;
        for number in 1..=self.spis.len() as u32 {
            let ended = self.spilled_in(vcpu, number);
            if ended != 0 {
                kick |= self.end_spilled(vcpu, number, ended);
            }
        }
        kick
    }

    /// What is known of `irq` as `vcpu` sees it, for debug keys.
    pub fn snapshot(&self, vcpu: VcpuId, irq: IntId) -> Option<Snapshot> {
        let (number, mask) = (bank_of(irq), 1 << bit_of(irq));
        let bank = self.bank(vcpu, number)?;
        Some(Snapshot {
            irq,
            enabled: bank.enabled & mask != 0,
            pending: self.pending_word(vcpu, number) & mask != 0,
            active: self.active_word(vcpu, number) & mask != 0,
            in_lr: bank.in_lr & mask != 0,
            held: bank.held & mask != 0,
            priority: bank.priority(bit_of(irq)),
            target: self.target_of(irq),
            pirq: self.pirq_of(irq),
        })
    }

    /// Every interrupt of `vcpu`, and for the boot vCPU every shared one, that is pending, active, in a list register
    /// or routed.
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

    /// The list registers of `vcpu` that are in use, as last known: number and value.
    pub fn list_registers(&self, vcpu: VcpuId) -> impl Iterator<Item = (u32, u32)> {
        let state = self.vcpu(vcpu);
        bits(state.in_use.into()).map(|index| (index, state.slot(index).raw()))
    }

    fn nr_intids(&self) -> u32 {
        irq::BANK * (1 + self.spis.len() as u32)
    }
}

/// An interrupt at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // the names are the documentation
pub struct Snapshot {
    pub irq: IntId,
    pub enabled: bool,
    pub pending: bool,
    pub active: bool,
    pub in_lr: bool,
    pub held: bool,
    pub priority: u8,
    pub target: Option<VcpuId>,
    pub pirq: Option<IntId>,
}
