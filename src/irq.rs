//! Physical interrupts: their owners, and delivery.
//!
//! Every interrupt has one owner: none (it is disabled), the hypervisor, or a guest. An SPI without an owner becomes dom0's
//! when dom0 enables it: some controllers before the GIC leave the choice of the SPI to their driver. A guest's interrupt is
//! acknowledged and its priority dropped; it stays active until the guest ends it (list register with HW bit).

use core::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use armv7::cpu::{CpuId, MAX_CPUS};
use armv7::gic::{Gic, Trigger};

use crate::domain::Domain;
use crate::id::{DomId, IntId, VcpuId};
use crate::vgic;

/// Handler of an interrupt of the hypervisor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum Handler {
    /// The console's UART: input, or space for output.
    Console = 1,
    /// This CPU's hypervisor timer.
    Timer = 2,
    /// The GIC's maintenance interrupt.
    Maintenance = 3,
    /// The loaded guest's virtual timer.
    VirtualTimer = 4,
    /// The loaded guest's performance monitors.
    Monitors = 5,
}

/// Owner of an interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// No owner.
    None,
    /// The hypervisor.
    Hypervisor(Handler),
    /// A guest, which sees it with the same INTID.
    Guest(DomId),
}

const LINES: usize = 1020;
const GUEST: u16 = 1 << 15;
static OWNERS: [AtomicU16; LINES] = [const { AtomicU16::new(0) }; LINES];
/// Interrupts that have an owner: a hint, set behind the owner and cleared behind it.
static OWNED: Lines = Lines::new();
/// SPIs that dom0 took by enabling them.
static TAKEN: Lines = Lines::new();
/// The interrupt of each CPU's performance monitors; 0 for none.
static MONITORS: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(0) }; MAX_CPUS];
/// Number of interrupts without an owner.
static STRAY: AtomicU32 = AtomicU32::new(0);

/// Returns the owner of `intid`.
pub fn owner(intid: u32) -> Owner {
    let Some(owner) = OWNERS.get(intid as usize) else {
        return Owner::None;
    };
    match owner.load(Ordering::Acquire) {
        0 => Owner::None,
        1 => Owner::Hypervisor(Handler::Console),
        2 => Owner::Hypervisor(Handler::Timer),
        3 => Owner::Hypervisor(Handler::Maintenance),
        4 => Owner::Hypervisor(Handler::VirtualTimer),
        5 => Owner::Hypervisor(Handler::Monitors),
        guest => Owner::Guest(DomId(guest & !GUEST)),
    }
}

/// A set of interrupts, 32 to a word.
struct Lines([AtomicU32; LINES.div_ceil(32)]);

impl Lines {
    const fn new() -> Self {
        Self([const { AtomicU32::new(0) }; LINES.div_ceil(32)])
    }

    /// Returns the word of `intid` and its bit there.
    fn place(&self, intid: u32) -> Option<(&AtomicU32, u32)> {
        Some((self.0.get(intid as usize / 32)?, 1 << (intid % 32)))
    }

    fn insert(&self, intid: u32) {
        if let Some((word, bit)) = self.place(intid) {
            word.fetch_or(bit, Ordering::Release);
        }
    }

    fn remove(&self, intid: u32) {
        if let Some((word, bit)) = self.place(intid) {
            word.fetch_and(!bit, Ordering::Release);
        }
    }

    fn contains(&self, intid: u32) -> bool {
        let place = self.place(intid);
        place.is_some_and(|(word, bit)| word.load(Ordering::Acquire) & bit != 0)
    }
}

fn take(intid: u32, value: u16) -> bool {
    let taken = OWNERS.get(intid as usize).is_some_and(|owner| {
        owner
            .compare_exchange(0, value, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    });
    if taken {
        OWNED.insert(intid);
    }
    taken
}

/// Returns those of the 32 interrupts `mask` from `first`, a multiple of 32, that seem to have no owner.
#[inline(always)]
pub fn unowned(first: u32, mask: u32) -> u32 {
    let place = OWNED.place(first);
    place.map_or(0, |(word, _)| mask & !word.load(Ordering::Acquire))
}

/// Claims `intid` for the hypervisor. Returns false if it has an owner.
pub fn claim(intid: u32, handler: Handler) -> bool {
    take(intid, handler as u16)
}

/// Makes `intid` the interrupt of the performance monitors of `cpu`.
pub fn set_monitors(cpu: CpuId, intid: u32) {
    if let Some(line) = MONITORS.get(cpu.index()) {
        line.store(intid, Ordering::Relaxed);
    }
}

/// Returns the interrupt of the performance monitors of `cpu`: a PPI, or an SPI of that CPU alone.
pub fn monitors_of(cpu: CpuId) -> Option<IntId> {
    IntId::new(MONITORS.get(cpu.index())?.load(Ordering::Relaxed)).filter(|line| !line.is_sgi())
}

/// Reason an interrupt was not routed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RouteError {
    /// It has an owner, or the guest uses its own interrupt of that number.
    Busy,
    /// The guest's distributor does not implement it.
    NoSuchInterrupt,
}

/// Routes the SPI `intid` to a guest, which sees it with the same INTID. The SPI stays disabled until the guest enables
/// it.
pub fn route_to_guest(
    gic: &Gic,
    intid: u32,
    domain: &Domain,
    trigger: Trigger,
) -> Result<(), RouteError> {
    let id = IntId::new(intid).ok_or(RouteError::NoSuchInterrupt)?;
    if !take(intid, GUEST | domain.id.0) {
        return Err(RouteError::Busy);
    }
    // Before the guest can enable it.
    gic.dist.disable(intid);
    gic.dist.set_trigger(intid, trigger);
    let mut vgic = domain.vgic.lock();
    let routed = match vgic.is_enabled(VcpuId::ZERO, id) {
        true => Err(RouteError::Busy),
        false => vgic.route_hw(id, id).map_err(|error| match error {
            vgic::RouteError::NoSuchInterrupt => RouteError::NoSuchInterrupt,
            _ => RouteError::Busy,
        }),
    };
    drop(vgic);
    if routed.is_err() {
        give_up(intid);
    }
    routed
}

/// Routes an SPI without an owner to dom0, which is about to enable it. The trigger is the one that dom0 has configured.
pub fn give_unowned(gic: &Gic, intid: u32, dom0: &Domain) {
    let Some(id) = IntId::new(intid) else { return };
    let trigger = dom0.vgic.lock().trigger_of(id);
    if route_to_guest(gic, intid, dom0, trigger).is_ok() {
        TAKEN.insert(intid);
    }
}

/// Returns the SPIs that dom0 took by enabling them.
pub fn taken() -> impl Iterator<Item = u32> {
    (0..LINES as u32).filter(|intid| TAKEN.contains(*intid))
}

/// Returns the interrupts that have an owner for which `is_it` holds.
pub fn owned(is_it: impl Fn(Owner) -> bool) -> impl Iterator<Item = u32> {
    (0..LINES as u32).filter(move |intid| is_it(owner(*intid)))
}

fn give_up(intid: u32) {
    if let Some(owner) = OWNERS.get(intid as usize) {
        owner.store(0, Ordering::Release);
    }
    OWNED.remove(intid);
}

/// Takes an SPI back from a guest none of whose vCPUs is loaded, if it is routed to it: afterwards it is disabled, neither
/// active nor pending, and has no owner. Returns false if a vCPU has it in a list register.
pub fn take_from_guest(gic: &Gic, intid: u32, domain: &Domain) -> bool {
    let (Owner::Guest(id), Some(virq)) = (owner(intid), IntId::new(intid)) else {
        return true;
    };
    if id != domain.id {
        return true;
    }
    gic.dist.disable(intid);
    // The guest may have died between its acknowledgement and its end, on any CPU: then it is active whatever the route says.
    let unrouted = domain.vgic.lock().unroute_hw(virq);
    if matches!(unrouted, Err(vgic::RouteError::InUse)) {
        return false;
    }
    gic.dist.clear_active(intid);
    gic.dist.clear_pending(intid);
    give_up(intid);
    true
}

/// Returns the number of interrupts without an owner.
pub fn stray() -> u32 {
    STRAY.load(Ordering::Relaxed)
}

/// Counts an interrupt without an owner.
pub fn count_stray() {
    STRAY.fetch_add(1, Ordering::Relaxed);
}

/// Delivers an active physical SPI to `domain`, its owner. Returns false if the domain has no route for it.
#[inline(always)]
pub fn deliver(domain: &Domain, intid: u32) -> bool {
    let Some(id) = IntId::new(intid) else {
        return false;
    };
    let mut vgic = domain.vgic.lock();
    let Ok(named) = vgic.inject_hw(VcpuId::ZERO, id) else {
        return false;
    };
    crate::domain::interface::deliver(domain, vgic, named);
    true
}
