//! A virtual CPU: its registers, its reasons not to run, and the work pending for it.
//!
//! The physical CPU that runs a vCPU holds the lock of [`Vcpu::registers`] while they are in its hardware, so no other
//! CPU can access them meanwhile. State that other CPUs may access is outside that lock.
//!
//! | file | contents |
//! |---|---|
//! | `run.rs` | running, blocking and waking |
//! | `runstate.rs` | time spent in each state |

mod run;
mod runstate;

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

use armv7::cpu::CpuId;
use armv7::gic::VirtualInterface;
use armv7::guest::{GuestContext, Identity, VcpuRegs};

use crate::emulate::set_way::SetWay;
use crate::emulate::timer::PhysicalTimer;
use crate::id::{DomId, VcpuId};
use crate::sched::UnitId;
use crate::sync::{Lock, rank};
use crate::time::{Purpose, Timer, TimerError};

pub use run::{pick, release};
pub use runstate::{Account, COPY_SIZE, GuestCopy, RunState};

/// CPSR at a vCPU's start: SVC mode, A, I and F masked (PSR_GUEST32_INIT in xen/include/public/arch-arm.h), with Z set
/// as in Xen.
pub const START_CPSR: u32 = 0x4000_01D3;
/// SCTLR at a vCPU's start: MMU and caches off (Xen's SCTLR_GUEST_INIT).
pub const START_SCTLR: u32 = 0x00C5_0078;

/// Processor state of a vCPU.
#[derive(Debug)]
pub struct Registers {
    /// General registers, saved at every exit.
    pub context: GuestContext,
    /// All other registers; in the hardware while the vCPU is loaded.
    pub cpu: VcpuRegs,
    /// The virtual CPU interface's state (`GICH_VMCR`, `GICH_APR`).
    pub interface: VirtualInterface,
}

impl Registers {
    /// Returns the registers of a vCPU that starts at `entry`; bit 0 of `entry` selects Thumb state.
    pub fn start(entry: u32, r0: u32) -> Self {
        const THUMB: u32 = 1 << 5;
        let mut context = GuestContext::default();
        context.r[0] = r0;
        context.pc = entry & !1;
        context.cpsr = START_CPSR | if entry & 1 != 0 { THUMB } else { 0 };
        Self {
            context,
            cpu: VcpuRegs::reset(START_SCTLR),
            interface: VirtualInterface::default(),
        }
    }
}

/// Reasons for a vCPU not to run, one bit each. A vCPU without reasons is runnable.
pub mod halt {
    /// Waits for an interrupt or event.
    pub const BLOCKED: u32 = 1;
    /// Switched off (PSCI).
    pub const OFFLINE: u32 = 1 << 1;
    /// Its domain is paused by the toolstack.
    pub const PAUSED: u32 = 1 << 2;
    /// Its domain has shut down.
    pub const SHUTDOWN: u32 = 1 << 3;
    /// Its domain is being destroyed. Never removed.
    pub const GONE: u32 = 1 << 4;
    /// The toolstack reads or writes its registers.
    pub const INSPECTED: u32 = 1 << 5;
}

/// Work to do before a vCPU's guest is entered, one bit each.
pub mod work {
    /// Refill its list registers.
    pub const INTERRUPTS: u32 = 1;
    /// Reset its registers before it runs (CPU_ON).
    pub const RESTART: u32 = 1 << 1;
}

/// Software timers of a vCPU.
#[derive(Debug)]
pub struct Timers {
    /// Wakes the vCPU when its virtual timer is due and not in the hardware.
    pub virtual_timer: Timer,
    /// Wakes the vCPU when a poll times out.
    pub poll: Timer,
    /// Fires when the emulated physical timer is due.
    pub physical_timer: Timer,
}

impl Timers {
    /// Returns the timers of a vCPU, not armed.
    pub fn new(unit: UnitId) -> Result<Self, TimerError> {
        Ok(Self {
            virtual_timer: Timer::new(Purpose::Virtual(unit))?,
            poll: Timer::new(Purpose::Poll(unit))?,
            physical_timer: Timer::new(Purpose::Physical(unit))?,
        })
    }

    /// Returns all of them.
    pub fn all(&self) -> [&Timer; 3] {
        [&self.virtual_timer, &self.poll, &self.physical_timer]
    }
}

/// A virtual CPU.
pub struct Vcpu {
    /// Its domain.
    pub dom: DomId,
    /// Its number in the domain.
    pub id: VcpuId,
    /// Its entry in the scheduler.
    pub unit: UnitId,
    /// Its software timers.
    pub timers: Timers,
    /// Its emulated physical timer.
    pub physical_timer: Lock<PhysicalTimer, { rank::RUNSTATE }>,
    /// Its translation table base, MPIDR, counter offset and PMU access.
    pub identity: Identity,
    /// Processor state.
    pub registers: Lock<Registers, { rank::REGISTERS }>,
    /// Time spent in each state.
    pub runstate: Lock<Account, { rank::RUNSTATE }>,
    /// Start address and r0 for CPU_ON, set before the vCPU may run.
    pub restart: Lock<Option<(u32, u32)>, { rank::START }>,
    /// Progress of a guest that cleans its caches by set and way.
    pub set_way: Lock<SetWay, { rank::RUNSTATE }>,
    halt: AtomicU32,
    work: AtomicU32,
    on: AtomicU8,
    /// CPU on which it was last loaded, the target of the physical interrupts its guest directs to it. Changes under
    /// its domain's VGIC lock.
    home: AtomicU8,
    /// Virtual page through which it last accessed its distributor.
    distributor_page: AtomicU32,
    /// Its registers have been set, by the toolstack or CPU_ON.
    initialised: AtomicBool,
}

const NOWHERE: u8 = u8::MAX;
/// Stands for no virtual page.
const NO_PAGE: u32 = u32::MAX;

impl Vcpu {
    /// Returns a vCPU that is off.
    pub fn new(dom: DomId, id: VcpuId, unit: UnitId, timers: Timers, identity: Identity) -> Self {
        Self {
            dom,
            id,
            unit,
            timers,
            physical_timer: Lock::new(PhysicalTimer::default()),
            identity,
            registers: Lock::new(Registers::start(0, 0)),
            runstate: Lock::new(Account::new()),
            restart: Lock::new(None),
            set_way: Lock::new(SetWay::default()),
            halt: AtomicU32::new(halt::OFFLINE),
            work: AtomicU32::new(work::INTERRUPTS),
            on: AtomicU8::new(NOWHERE),
            home: AtomicU8::new(NOWHERE),
            distributor_page: AtomicU32::new(NO_PAGE),
            initialised: AtomicBool::new(false),
        }
    }

    /// Returns its reasons not to run, see [`halt`].
    pub fn halted(&self) -> u32 {
        // Pairs with `request`: see `Vcpu::block`.
        self.halt.load(Ordering::SeqCst)
    }

    /// Returns whether it is on (PSCI AFFINITY_INFO).
    pub fn is_online(&self) -> bool {
        self.halted() & halt::OFFLINE == 0
    }

    /// Returns whether its registers have been set.
    pub fn is_initialised(&self) -> bool {
        self.is_online() || self.initialised.load(Ordering::Relaxed)
    }

    /// Records whether its registers have been set.
    pub fn set_initialised(&self, initialised: bool) {
        self.initialised.store(initialised, Ordering::Relaxed);
    }

    /// Requests work to be done before the guest is entered, see [`work`].
    pub fn request(&self, what: u32) {
        // SeqCst: a vCPU that blocks stores its reason and then reads this word; a requester does the reverse.
        self.work.fetch_or(what, Ordering::SeqCst);
    }

    /// Returns the pending requests.
    pub fn requested(&self) -> u32 {
        self.work.load(Ordering::SeqCst)
    }

    /// Clears a request. Call it before doing the work.
    pub fn acknowledge(&self, what: u32) {
        if self.requested() & what != 0 {
            self.work.fetch_and(!what, Ordering::SeqCst);
        }
    }

    /// Takes all pending requests.
    pub fn take_requests(&self) -> u32 {
        self.work.swap(0, Ordering::SeqCst)
    }

    /// Returns the CPU whose hardware holds its registers.
    pub fn loaded_on(&self) -> Option<CpuId> {
        match self.on.load(Ordering::SeqCst) {
            NOWHERE => None,
            cpu => CpuId::new(cpu.into()),
        }
    }

    /// Returns the CPU on which it was last loaded.
    pub fn home(&self) -> Option<CpuId> {
        match self.home.load(Ordering::Relaxed) {
            NOWHERE => None,
            cpu => CpuId::new(cpu.into()),
        }
    }

    /// Records that it is loaded on `cpu`. Returns whether it was last loaded on another CPU, or never.
    pub fn set_home(&self, cpu: CpuId) -> bool {
        let moves = u32::from(self.home.load(Ordering::Relaxed)) != cpu.raw();
        if moves {
            self.home.store(cpu.raw() as u8, Ordering::Relaxed);
        }
        moves
    }

    /// Returns whether its registers are in the hardware of `cpu`, which must be this CPU; then no other CPU changes
    /// that.
    pub fn is_loaded_on(&self, cpu: CpuId) -> bool {
        u32::from(self.on.load(Ordering::Relaxed)) == cpu.raw()
    }

    /// Returns the virtual page through which it last accessed its distributor, or a number beyond any page.
    pub fn distributor_page(&self) -> u32 {
        self.distributor_page.load(Ordering::Relaxed)
    }

    /// Records the virtual page through which it accesses its distributor.
    pub fn remember_distributor_page(&self, page: u32) {
        self.distributor_page.store(page, Ordering::Relaxed);
    }

    /// Records the CPU whose hardware holds its registers.
    pub fn set_loaded_on(&self, cpu: Option<CpuId>) {
        self.on
            .store(cpu.map_or(NOWHERE, |cpu| cpu.raw() as u8), Ordering::SeqCst);
    }
}

impl fmt::Display for Vcpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "d{}v{}", self.dom.0, self.id.raw())
    }
}

impl fmt::Debug for Vcpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{self} halted {:#x} on {:?}",
            self.halted(),
            self.loaded_on()
        )
    }
}
