//! Domains: what a guest is made of, and how its parts act on one another.
//!
//! A [`Domain`] composes the state rooms (memory map, interrupts, events, grants), each behind a lock of its own, and
//! carries out what they return: an event's [`Notify`] becomes a virtual interrupt, an interrupt's vCPU set becomes kicks
//! ([`Domain::kick`]).

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
use core::sync::atomic::{AtomicU64, Ordering};

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

/// The rights of a domain beyond its own affairs; every domain starts with nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rights {
    /// Manage other domains and the machine.
    pub control: bool,
    /// Drive the hardware: it is mapped 1:1 and its end is the machine's end.
    pub hardware: bool,
    /// Write to the console.
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

/// Where a domain is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Life {
    /// It runs, or could.
    Alive,
    /// It is being taken apart.
    Dying,
    /// It is gone but for pages that others still use.
    Dead,
}

/// The slow state of a domain.
#[derive(Debug)]
pub struct State {
    /// Where it is in its life.
    pub life: Life,
    /// How often the toolstack has paused it.
    pub pause_count: u32,
    /// It has shut down, with this code (SHUTDOWN_*).
    pub shutdown: Option<u32>,
    /// Code given ahead of a shutdown (SCHEDOP_shutdown_code).
    pub shutdown_code: Option<u32>,
    /// The toolstack's name for it.
    pub handle: [u8; 16],
    /// HVM parameters.
    pub params: Params,
    /// Frame at which it has mapped shared_info.
    pub shared_info_gfn: Option<Gfn>,
    /// Where each vCPU has registered its `vcpu_info`: frame and offset.
    pub vcpu_info: [Option<(Gfn, u32)>; MAX_VCPUS as usize],
    /// Port that tells of a suspend, instead of the VIRQ of all ends; 0 for none.
    pub suspend_port: u32,
    /// Runstate copies carry an update flag (vm_assist).
    pub runstate_flag: bool,
    /// Seconds to add to the machine's wall clock for it.
    pub time_offset: i64,
    /// True if it is being debugged.
    pub debugged: bool,
    /// vCPUs that were made while the domain has not got all of them.
    pub unfinished: Vec<Arc<Vcpu>>,
}

/// Where the emulated distributor is in guest physical space, in pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GicMap {
    /// Its first page.
    pub first_page: u32,
    /// Pages of it.
    pub pages: u32,
}

/// The parameters of a new domain.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Its id.
    pub id: DomId,
    /// Its rights.
    pub rights: Rights,
    /// Most vCPUs.
    pub max_vcpus: u8,
    /// Shared interrupts of its controller.
    pub nr_spis: u16,
    /// Interrupt that announces events.
    pub event_irq: IntId,
    /// Where its interrupt controller is.
    pub gic: GicMap,
    /// Highest event port.
    pub max_port: u32,
    /// Sizes of its grant and maptrack tables.
    pub grants: Limits,
    /// Most pages of RAM.
    pub max_pages: u32,
    /// Where its stage-2 tables come from.
    pub tables: PoolLimit,
    /// CPUs that it runs on.
    pub pool: PoolId,
    /// Its access to the performance monitors.
    pub monitors: pmu::Access,
}

/// The parts of a new domain that take memory, made by `domain::create`.
pub struct Parts {
    /// Its memory.
    pub p2m: P2m<'static>,
    /// Its event channels.
    pub events: EventTable<GuestPage>,
    /// Its interrupts.
    pub vgic: Vgic,
    /// Its place in the scheduler.
    pub group: sched::Group,
    /// Frame of shared_info.
    pub shared_info: Mfn,
}

/// Watchdogs of one domain (NR_DOMAIN_WATCHDOG_TIMERS).
pub const MAX_WATCHDOGS: usize = 2;

/// A guest.
pub struct Domain {
    /// Its name to hypercalls.
    pub id: DomId,
    /// Its rights.
    pub rights: Rights,
    /// Its memory.
    pub p2m: Lock<P2m<'static>, { rank::P2M }>,
    /// VTTBR of its memory, which never changes.
    pub vttbr: u64,
    /// Its event channels.
    pub events: Lock<EventTable<GuestPage>, { rank::EVENT }>,
    /// Its grants.
    pub grants: Lock<GrantTable<GuestPage>, { rank::GRANT }>,
    /// Its interrupts.
    pub vgic: Lock<Vgic, { rank::VGIC }>,
    /// Its place in the scheduler.
    pub group: sched::Group,
    /// Slow state.
    pub state: Lock<State, { rank::DOMAIN }>,
    /// Interrupt that announces events.
    pub event_irq: IntId,
    /// Where its interrupt controller is.
    pub gic: GicMap,
    /// The difference between the physical counter and its virtual one, in ticks, modulo 2^64: it changes only before the
    /// domain runs.
    cntvoff: AtomicU64,
    /// Its access to the performance monitors.
    pub monitors: pmu::Access,
    /// Most vCPUs it may have.
    pub max_vcpus: u8,
    /// Frame of shared_info.
    pub shared_info: Mfn,
    /// Watchdogs that it has set up.
    pub watchdogs: Lock<[Option<Timer>; MAX_WATCHDOGS], { rank::DOMAIN }>,
    /// The lines that it may have logged.
    pub log_allowance: Allowance,
    uart: Once<uart::Uart>,
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
            vcpus: Once::new(),
        }
    }

    /// Gives the domain its vCPUs, once.
    pub fn set_vcpus(&self, vcpus: Vec<Arc<Vcpu>>) {
        self.vcpus.call_once(|| vcpus);
    }

    /// Returns its vCPUs.
    #[inline]
    pub fn vcpus(&self) -> &[Arc<Vcpu>] {
        self.vcpus.get().map_or(&[], Vec::as_slice)
    }

    /// Returns one of its vCPUs.
    #[inline]
    pub fn vcpu(&self, id: VcpuId) -> Option<&Arc<Vcpu>> {
        self.vcpus().get(id.index())
    }

    /// Returns what is subtracted from the physical counter to give its virtual one, modulo 2^64.
    #[inline]
    pub fn cntvoff(&self) -> u64 {
        self.cntvoff.load(Ordering::Relaxed)
    }

    /// Sets its virtual counter, before it runs.
    pub fn set_cntvoff(&self, cntvoff: u64) {
        self.cntvoff.store(cntvoff, Ordering::Relaxed);
    }

    /// Returns when its virtual counter reads `cval`. The offset of one that was carried on from a machine that runs for
    /// longer is negative.
    #[inline]
    pub fn ticks_of(&self, cval: u64) -> Ticks {
        Ticks(cval.saturating_add_signed(self.cntvoff() as i64))
    }

    /// Gives the domain an emulated UART, once.
    pub fn set_uart(&self, uart: uart::Uart) {
        self.uart.call_once(|| uart);
    }

    /// Returns its emulated UART.
    #[inline]
    pub fn uart(&self) -> Option<&uart::Uart> {
        self.uart.get()
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

    /// Makes an interrupt of the domain pending and its vCPU look.
    #[inline]
    pub fn inject(&self, vcpu: VcpuId, irq: IntId) {
        let mut vgic = self.vgic.lock();
        let named = vgic.inject(vcpu, irq);
        interface::deliver(self, vgic, named);
    }

    /// Makes the vCPUs of `set` look at their interrupts: they wake, or leave their guests.
    #[inline]
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
    #[inline]
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
        // Those of whom the interrupt says nothing new, or that poll with the event masked.
        for id in notify.wakes().minus(named).iter() {
            if let Some(vcpu) = self.vcpu(id) {
                vcpu.wake();
            }
        }
    }

    /// Raises an event of the hypervisor's in this domain.
    pub fn raise_virq(&self, virq: EventVirq, vcpu: VcpuId) {
        let notify = self.events.lock().raise_virq(virq, vcpu);
        self.notify(notify);
    }

    /// Why no vCPU of it runs, if none does: paused or shut down.
    pub fn set_halted_all(&self, reason: u32, halted: Halted) {
        for vcpu in self.vcpus() {
            match halted {
                Halted::Yes => vcpu.halt(reason),
                Halted::No => vcpu.unhalt(reason),
            }
        }
    }
}

/// Sends on a port of `domain`.
#[inline]
pub fn send(domain: &Domain, port: Port) -> Result<(), EventError> {
    let sent = domain.events.lock().send(port)?;
    match sent {
        Sent::Local(notify) => domain.notify(notify),
        Sent::Peer { to, from } => {
            if let Some(peer) = registry::get(to.dom) {
                let notify = peer.events.lock().raise_from_peer(to.port, from);
                peer.notify(notify);
            }
        }
        Sent::Nowhere => {}
    }
    Ok(())
}

/// Ports closed by [`close_ports`] in one step.
pub(crate) const PORTS_AT_ONCE: u32 = 32;
/// Peers notified by [`close_ports`] in one go.
pub(crate) const PEERS_AT_ONCE: u32 = 32;

/// Closes ports of a domain whose reset has begun; true when none is left. Stops early once `must_pause` after a peer was
/// notified. The table holds the progress.
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

/// Tells the peer of a port that was closed.
pub fn tell_closed(to: End, from: End) {
    if let Some(peer) = registry::get(to.dom) {
        peer.events.lock().peer_closed(to.port, from);
    }
}

/// A choice between halting vCPUs and letting them run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Halted {
    /// Halt them.
    Yes,
    /// Let them run.
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
