//! Domains: the parts of a guest, and how they act on one another.
//!
//! A [`Domain`] owns the state rooms (memory map, interrupts, events, grants), each behind a lock of its own, and carries
//! out the actions that they return: [`Notify`] from an event becomes a virtual interrupt, a set of vCPUs from the vGIC
//! becomes kicks ([`Domain::kick`]).

pub mod audit;
pub mod create;
pub mod grants;
pub mod guest_map;
pub mod interface;
pub mod memory;
pub mod place;
pub mod registry;
pub mod shutdown;
#[cfg(test)]
pub mod testing;
pub mod uart;
pub mod virq;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use armv7::addr::{Gfn, Mfn};
use armv7::pmu;
use spin::Once;

use crate::event::{End, EventError, EventTable, EventVirq, Notify, Port, Reset, Sent};
use crate::grant::{GrantTable, Limits};
use crate::id::{DomId, IntId, MAX_VCPUS, VcpuId, VcpuSet};
use crate::log::Allowance;
use crate::mem::PinnedPage;
use crate::mem::p2m::{P2m, PoolLimit};
use crate::sched::{self, PoolId};
use crate::sync::{Lock, rank};
use crate::time::{self, Ticks, Timer};
use crate::vcpu::Vcpu;
use crate::vgic::Vgic;

/// A page of a guest that the hypervisor keeps mapped.
pub type GuestPage = PinnedPage<'static>;

/// The rights of a domain beyond itself. A domain has none unless it is given some.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rights {
    /// Manages other domains and the machine.
    pub control: bool,
    /// Drives the hardware: its RAM is mapped 1:1, and the machine ends with it.
    pub hardware: bool,
    /// Writes to the console.
    pub console: bool,
}

impl Rights {
    /// dom0's rights: all.
    pub const DOM0: Self = Self {
        control: true,
        hardware: true,
        console: true,
    };
    /// A guest's rights: none.
    pub const GUEST: Self = Self {
        control: false,
        hardware: false,
        console: false,
    };
}

/// HVM parameters that exist on Arm (xen/include/public/hvm/params.h).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Params {
    /// HVM_PARAM_CALLBACK_IRQ.
    pub callback_irq: u64,
    /// HVM_PARAM_STORE_PFN.
    pub store_pfn: u64,
    /// HVM_PARAM_STORE_EVTCHN.
    pub store_evtchn: u64,
    /// HVM_PARAM_CONSOLE_PFN.
    pub console_pfn: u64,
    /// HVM_PARAM_CONSOLE_EVTCHN.
    pub console_evtchn: u64,
    /// HVM_PARAM_MONITOR_RING_PFN.
    pub monitor_ring_pfn: u64,
}

/// The stages of a domain's life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Life {
    /// It runs, or may run.
    Alive,
    /// Its resources are being released.
    Dying,
    /// Only pages that other domains still use are left.
    Dead,
}

/// The state of a domain that no fast path needs.
#[derive(Debug)]
pub struct State {
    /// The stage of its life.
    pub life: Life,
    /// Pauses by the toolstack that are not undone yet.
    pub pause_count: u32,
    /// The code with which it shut down (SHUTDOWN_*), once it has.
    pub shutdown: Option<u32>,
    /// The code set ahead of a shutdown (SCHEDOP_shutdown_code).
    pub shutdown_code: Option<u32>,
    /// The toolstack's name for it.
    pub handle: [u8; 16],
    /// HVM parameters.
    pub params: Params,
    /// The gfn at which it has mapped shared_info.
    pub shared_info_gfn: Option<Gfn>,
    /// The place of each vCPU's registered `vcpu_info`: gfn and offset.
    pub vcpu_info: [Option<(Gfn, u32)>; MAX_VCPUS as usize],
    /// The port that announces a suspend in place of VIRQ_DOM_EXC; 0 for none.
    pub suspend_port: u32,
    /// True if run-state copies carry an update flag (vm_assist).
    pub runstate_flag: bool,
    /// Seconds to add to the machine's wall clock for it.
    pub time_offset: i64,
    /// True if it is being debugged.
    pub debugged: bool,
    /// The vCPUs made so far, until the domain has all of them.
    pub unfinished: Vec<Arc<Vcpu>>,
}

/// The place of the emulated distributor in guest physical space, in pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GicMap {
    /// Its first page.
    pub first_page: u32,
    /// Its number of pages.
    pub pages: u32,
}

/// The parameters of a new domain.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Its id.
    pub id: DomId,
    /// Its rights.
    pub rights: Rights,
    /// The highest number of vCPUs.
    pub max_vcpus: u8,
    /// The number of its vGIC's SPIs.
    pub nr_spis: u16,
    /// The interrupt that announces events.
    pub event_irq: IntId,
    /// The place of its distributor.
    pub gic: GicMap,
    /// The highest event port.
    pub max_port: u32,
    /// The limits of its grant and maptrack tables, in frames.
    pub grants: Limits,
    /// The highest number of RAM pages.
    pub max_pages: u32,
    /// The source of its stage-2 tables.
    pub tables: PoolLimit,
    /// The CPU pool that it runs in.
    pub pool: PoolId,
    /// Its access to the performance monitors.
    pub monitors: pmu::Access,
}

/// The parts of a new domain that need memory, allocated by `domain::create`.
pub struct Parts {
    /// Its stage-2 map.
    pub p2m: P2m<'static>,
    /// Its event channels.
    pub events: EventTable<GuestPage>,
    /// Its interrupt controller.
    pub vgic: Vgic,
    /// Its place in the scheduler.
    pub group: sched::Group,
    /// The frame of shared_info.
    pub shared_info: Mfn,
}

/// Watchdogs of one domain (NR_DOMAIN_WATCHDOG_TIMERS).
pub const MAX_WATCHDOGS: usize = 2;

/// A guest.
pub struct Domain {
    /// Its id, by which hypercalls name it.
    pub id: DomId,
    /// Its rights.
    pub rights: Rights,
    /// Its stage-2 map.
    pub p2m: Lock<P2m<'static>, { rank::P2M }>,
    /// The VTTBR of its stage-2 map, which never changes.
    pub vttbr: u64,
    /// Its event channels.
    pub events: Lock<EventTable<GuestPage>, { rank::EVENT }>,
    /// Its grants.
    pub grants: Lock<GrantTable<GuestPage>, { rank::GRANT }>,
    /// Its interrupt controller.
    pub vgic: Lock<Vgic, { rank::VGIC }>,
    /// Its place in the scheduler.
    pub group: sched::Group,
    /// The state that no fast path needs.
    pub state: Lock<State, { rank::DOMAIN }>,
    /// The interrupt that announces events.
    pub event_irq: IntId,
    /// The place of its distributor.
    pub gic: GicMap,
    /// CNTVOFF: the physical counter minus the virtual one, in ticks, modulo 2^64. It changes only before the domain runs.
    cntvoff: AtomicU64,
    /// Its access to the performance monitors.
    pub monitors: pmu::Access,
    /// The highest number of its vCPUs.
    pub max_vcpus: u8,
    /// The frame of shared_info.
    pub shared_info: Mfn,
    /// The watchdogs that it has set.
    pub watchdogs: Lock<[Option<Timer>; MAX_WATCHDOGS], { rank::DOMAIN }>,
    /// The number of lines that it may still have logged.
    pub log_allowance: Allowance,
    uart: Once<Arc<uart::Uart>>,
    fixed: Once<()>,
    /// The ends after which it is started again, one bit for each code (SHUTDOWN_*).
    restart_on: AtomicU32,
    vcpus: Once<Vec<Arc<Vcpu>>>,
}

impl Domain {
    /// Returns a domain without vCPUs.
    pub fn new(spec: &Spec, parts: Parts) -> Self {
        Self {
            id: spec.id,
            rights: spec.rights,
            vttbr: parts.p2m.vttbr(),
            p2m: Lock::new(parts.p2m),
            events: Lock::new(parts.events),
            grants: Lock::new(GrantTable::new(spec.grants)),
            vgic: Lock::new(parts.vgic),
            group: parts.group,
            state: Lock::new(State {
                life: Life::Alive,
                pause_count: 0,
                shutdown: None,
                shutdown_code: None,
                handle: [0; 16],
                params: Params::default(),
                shared_info_gfn: None,
                vcpu_info: [None; MAX_VCPUS as usize],
                suspend_port: 0,
                runstate_flag: false,
                time_offset: 0,
                debugged: false,
                unfinished: Vec::new(),
            }),
            event_irq: spec.event_irq,
            gic: spec.gic,
            cntvoff: AtomicU64::new(time::now().0),
            monitors: spec.monitors,
            max_vcpus: spec.max_vcpus.clamp(1, MAX_VCPUS),
            shared_info: parts.shared_info,
            watchdogs: Lock::new([const { None }; MAX_WATCHDOGS]),
            log_allowance: Allowance::of_a_domain(),
            uart: Once::new(),
            fixed: Once::new(),
            restart_on: AtomicU32::new(0),
            vcpus: Once::new(),
        }
    }

    /// Sets its vCPUs. Only the first call has an effect.
    pub fn set_vcpus(&self, vcpus: Vec<Arc<Vcpu>>) {
        self.vcpus.call_once(|| vcpus);
    }

    /// Returns its vCPUs.
    pub fn vcpus(&self) -> &[Arc<Vcpu>] {
        self.vcpus.get().map_or(&[], Vec::as_slice)
    }

    /// Returns its vCPU `id`.
    pub fn vcpu(&self, id: VcpuId) -> Option<&Arc<Vcpu>> {
        self.vcpus().get(id.index())
    }

    /// Returns CNTVOFF: the physical counter minus the virtual one, modulo 2^64.
    pub fn cntvoff(&self) -> u64 {
        self.cntvoff.load(Ordering::Relaxed)
    }

    /// Sets CNTVOFF. Comes before the domain runs.
    pub fn set_cntvoff(&self, cntvoff: u64) {
        self.cntvoff.store(cntvoff, Ordering::Relaxed);
    }

    /// Returns the time at which its virtual counter reads `cval`. CNTVOFF is negative in a domain restored from a machine
    /// that had been up for longer.
    pub fn ticks_of(&self, cval: u64) -> Ticks {
        Ticks(cval.saturating_add_signed(self.cntvoff() as i64))
    }

    /// Sets its emulated UART. Only the first call has an effect.
    pub fn set_uart(&self, uart: Arc<uart::Uart>) {
        self.uart.call_once(|| uart);
    }

    /// Returns its emulated UART, if it has one.
    pub fn uart(&self) -> Option<&uart::Uart> {
        self.uart.get().map(Arc::as_ref)
    }

    /// Records that it has memory which a copy of it would not have: shared, or at addresses of this machine.
    pub fn set_fixed(&self) {
        self.fixed.call_once(|| ());
    }

    /// Returns whether it has memory which a copy of it would not have.
    pub fn is_fixed(&self) -> bool {
        self.fixed.is_completed()
    }

    /// Sets the ends after which it is started again.
    pub fn set_restart_on(&self, endings: impl Iterator<Item = shutdown::Reason>) {
        let bits = endings.fold(0, |bits, ending| bits | 1 << ending as u32);
        self.restart_on.store(bits, Ordering::Relaxed);
    }

    /// Returns whether it is started again after a shutdown with this code.
    pub fn restarts_on(&self, code: u32) -> bool {
        let bits = self.restart_on.load(Ordering::Relaxed);
        bits.checked_shr(code).is_some_and(|bits| bits & 1 != 0)
    }

    /// Returns whether there are ends after which it is started again.
    pub fn may_restart(&self) -> bool {
        self.restart_on.load(Ordering::Relaxed) != 0
    }

    /// Returns whether some vCPU of it has run.
    pub fn has_run(&self) -> bool {
        let mut vcpus = self.vcpus().iter();
        vcpus.any(|vcpu| vcpu.home().is_some() || vcpu.loaded_on().is_some())
    }

    /// Returns whether it is the control domain.
    pub fn is_control(&self) -> bool {
        self.rights.control
    }

    /// Makes an interrupt pending and kicks the vCPU that takes it.
    pub fn inject(&self, vcpu: VcpuId, irq: IntId) {
        let mut vgic = self.vgic.lock();
        let named = vgic.inject(vcpu, irq);
        interface::deliver(self, vgic, named);
    }

    /// Kicks the vCPUs of `set`: each wakes, or leaves its guest, and refills its list registers.
    pub fn kick(&self, set: VcpuSet) {
        if set != VcpuSet::EMPTY {
            self.kick_each(set);
        }
    }

    fn kick_each(&self, set: VcpuSet) {
        for id in set.iter() {
            if let Some(vcpu) = self.vcpu(id) {
                vcpu.kick();
            }
        }
    }

    /// Interrupts or wakes the vCPUs that an event operation names.
    pub fn notify(&self, notify: Notify) {
        if !notify.is_none() {
            self.notify_some(notify);
        }
    }

    fn notify_some(&self, notify: Notify) {
        let mut named = VcpuSet::EMPTY;
        if notify.upcall != VcpuSet::EMPTY {
            let mut vgic = self.vgic.lock();
            for vcpu in notify.upcalls() {
                named |= vgic.inject(vcpu, self.event_irq);
            }
            interface::deliver(self, vgic, named);
        }
        // These get no new interrupt: theirs is pending already, or they poll with the event masked.
        for id in notify.wakes().minus(named).iter() {
            if let Some(vcpu) = self.vcpu(id) {
                vcpu.wake();
            }
        }
    }

    /// Raises a VIRQ in this domain.
    pub fn raise_virq(&self, virq: EventVirq, vcpu: VcpuId) {
        let notify = self.events.lock().raise_virq(virq, vcpu);
        self.notify(notify);
    }

    /// Sets or clears a reason for which none of its vCPUs runs (`vcpu::halt`).
    pub fn set_halted_all(&self, reason: u32, halted: Halted) {
        for vcpu in self.vcpus() {
            match halted {
                Halted::Yes => vcpu.halt(reason),
                Halted::No => vcpu.unhalt(reason),
            }
        }
    }
}

/// Sends an event by a port of `domain`.
pub fn send(domain: &Domain, port: Port) -> Result<(), EventError> {
    let sent = domain.events.lock().send(port)?;
    match sent {
        Sent::Local(notify) => domain.notify(notify),
        Sent::Peer { to, from } => {
            if let Some(peer) = registry::get(to.dom) {
                let notify = peer.events.lock().raise_from_peer(to.port, from);
                match notify.is_none() {
                    true => uart::on_event(&peer, to.port),
                    false => peer.notify_some(notify),
                }
            }
        }
        Sent::Nowhere => {}
    }
    Ok(())
}

/// The number of ports that [`close_ports`] closes under one lock.
pub(crate) const PORTS_AT_ONCE: u32 = 32;
/// The number of peers that one call of [`close_ports`] notifies.
pub(crate) const PEERS_AT_ONCE: u32 = 32;

/// Closes ports of a domain whose reset has begun. Returns true when none is left. Stops after a peer once `must_pause`
/// returns true; the event table holds the progress.
pub fn close_ports(domain: &Domain, must_pause: impl Fn() -> bool) -> Result<bool, EventError> {
    for _ in 0..PEERS_AT_ONCE {
        let step = domain.events.lock().reset_step(PORTS_AT_ONCE)?;
        match step {
            Reset::Done => return Ok(true),
            Reset::More => break,
            Reset::Peer { to, from } => {
                tell_closed(to, from);
                domain.events.lock().finish_close(from.port);
                if must_pause() {
                    break;
                }
            }
        }
    }
    Ok(false)
}

/// Notifies the peer of a port that was closed.
pub fn tell_closed(to: End, from: End) {
    if let Some(peer) = registry::get(to.dom) {
        peer.events.lock().peer_closed(to.port, from);
    }
}

/// The argument of [`Domain::set_halted_all`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Halted {
    /// The vCPUs halt.
    Yes,
    /// The vCPUs may run.
    No,
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.id)
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Domain({})", self.id)
    }
}
