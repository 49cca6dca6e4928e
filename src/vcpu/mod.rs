//! A virtual CPU: its registers, why it does not run, and what waits to be done for it.
//!
//! The physical CPU that runs a vCPU holds [`Vcpu::registers`] locked for as long as they are in its hardware; nobody else
//! can look at them meanwhile. Everything that others may touch is beside that lock.
//!
//! | file | question |
//! |---|---|
//! | `run.rs` | what makes it run, wait and wake? |
//! | `runstate.rs` | how long did it do what? |

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

/// CPSR of a vCPU that starts: SVC mode, everything masked (xen/include/public/arch-arm.h, PSR_GUEST32_INIT, with Z set as
/// Xen has it).
pub const START_CPSR: u32 = 0x4000_01D3;
/// SCTLR of a vCPU that starts: MMU and caches off (SCTLR_GUEST_INIT).
pub const START_SCTLR: u32 = 0x00C5_0078;

/// Processor state of a vCPU.
#[derive(Debug)]
pub struct Registers {
    /// General registers, saved at every exit.
    pub context: GuestContext,
    /// The rest, in the hardware while the vCPU is loaded.
    pub cpu: VcpuRegs,
    /// The guest's view of its interrupt interface.
    pub interface: VirtualInterface,
}

impl Registers {
    /// A vCPU at its start: ARM or (bit 0 of `entry`) Thumb state.
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

/// Reasons for a vCPU not to run, a bit each; it runs when there is none.
pub mod halt {
    /// It waits for an interrupt or event.
    pub const BLOCKED: u32 = 1;
    /// It is not up (PSCI).
    pub const OFFLINE: u32 = 1 << 1;
    /// Its domain is paused by the toolstack.
    pub const PAUSED: u32 = 1 << 2;
    /// Its domain has shut down.
    pub const SHUTDOWN: u32 = 1 << 3;
    /// Its domain is being taken apart: this reason never goes away.
    pub const GONE: u32 = 1 << 4;
    /// The toolstack wants its registers.
    pub const INSPECTED: u32 = 1 << 5;
}

/// Things to do before a vCPU's guest is entered again, a bit each.
pub mod work {
    /// Its list registers are to be filled.
    pub const INTERRUPTS: u32 = 1;
    /// Its registers are to be started from scratch before it runs (CPU_ON).
    pub const RESTART: u32 = 1 << 1;
}

/// Software timers of a vCPU.
#[derive(Debug)]
pub struct Timers {
    /// Wakes it when its virtual timer is due and not in the hardware.
    pub virtual_timer: Timer,
    /// Wakes it when a poll is due.
    pub poll: Timer,
    /// Fires when its emulated physical timer is due.
    pub physical_timer: Timer,
}

impl Timers {
    /// Makes the timers of a vCPU.
    pub fn new(unit: UnitId) -> Result<Self, TimerError> {
        Ok(Self {
            virtual_timer: Timer::new(Purpose::Virtual(unit))?,
            poll: Timer::new(Purpose::Poll(unit))?,
            physical_timer: Timer::new(Purpose::Physical(unit))?,
        })
    }
}

/// A virtual CPU.
pub struct Vcpu {
    /// Its domain.
    pub dom: DomId,
    /// Its number there.
    pub id: VcpuId,
    /// Its place in the scheduler.
    pub unit: UnitId,
    /// Its software timers.
    pub timers: Timers,
    /// Its emulated physical timer.
    pub physical_timer: Lock<PhysicalTimer, { rank::RUNSTATE }>,
    /// Where its memory and time are.
    pub identity: Identity,
    /// Processor state.
    pub registers: Lock<Registers, { rank::REGISTERS }>,
    /// Time spent in each state.
    pub runstate: Lock<Account, { rank::RUNSTATE }>,
    /// Set before CPU_ON lets it run: where it starts.
    pub restart: Lock<Option<(u32, u32)>, { rank::START }>,
    /// Where it is in cleaning its caches by set and way.
    pub set_way: Lock<SetWay, { rank::RUNSTATE }>,
    halt: AtomicU32,
    work: AtomicU32,
    on: AtomicU8,
    /// Where it was loaded last: where the physical interrupts go that its guest sends to it. Changes under its domain's VGIC.
    home: AtomicU8,
    /// Virtual page through which it was last seen to reach its distributor.
    distributor_page: AtomicU32,
    /// It was given registers, by the toolstack or CPU_ON.
    initialised: AtomicBool,
}

const NOWHERE: u8 = u8::MAX;
/// Number of no virtual page.
const NO_PAGE: u32 = u32::MAX;

impl Vcpu {
    /// A vCPU that is not up.
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

    /// Returns why it does not run.
    #[inline]
    pub fn halted(&self) -> u32 {
        // Pairs with `request`: see `Vcpu::block`.
        self.halt.load(Ordering::SeqCst)
    }

    /// Returns whether it is up (PSCI AFFINITY_INFO).
    pub fn is_online(&self) -> bool {
        self.halted() & halt::OFFLINE == 0
    }

    /// Returns whether it was ever given registers.
    pub fn is_initialised(&self) -> bool {
        self.is_online() || self.initialised.load(Ordering::Relaxed)
    }

    /// Notes that it was given registers, or has none any more.
    pub fn set_initialised(&self, initialised: bool) {
        self.initialised.store(initialised, Ordering::Relaxed);
    }

    /// Asks for something to be done before the guest is entered.
    #[inline]
    pub fn request(&self, what: u32) {
        // SeqCst: a vCPU that blocks stores its reason and then looks at this word; who asks does it the other way round.
        self.work.fetch_or(what, Ordering::SeqCst);
    }

    /// Returns what is asked for.
    #[inline]
    pub fn requested(&self) -> u32 {
        self.work.load(Ordering::SeqCst)
    }

    /// Acknowledges a request: clears it before the work is done.
    #[inline]
    pub fn acknowledge(&self, what: u32) {
        if self.requested() & what != 0 {
            self.work.fetch_and(!what, Ordering::SeqCst);
        }
    }

    /// Takes all requests.
    #[inline]
    pub fn take_requests(&self) -> u32 {
        self.work.swap(0, Ordering::SeqCst)
    }

    /// Returns the CPU whose hardware holds its registers.
    #[inline]
    pub fn loaded_on(&self) -> Option<CpuId> {
        match self.on.load(Ordering::SeqCst) {
            NOWHERE => None,
            cpu => CpuId::new(cpu.into()),
        }
    }

    /// Returns the CPU that it was loaded on last.
    pub fn home(&self) -> Option<CpuId> {
        match self.home.load(Ordering::Relaxed) {
            NOWHERE => None,
            cpu => CpuId::new(cpu.into()),
        }
    }

    /// Notes that it is loaded on `cpu`; whether it was loaded elsewhere before.
    #[inline]
    pub fn moves_to(&self, cpu: CpuId) -> bool {
        let moves = u32::from(self.home.load(Ordering::Relaxed)) != cpu.raw();
        if moves {
            self.home.store(cpu.raw() as u8, Ordering::Relaxed);
        }
        moves
    }

    /// Returns whether the hardware of `cpu`, which must be this CPU, holds its registers: that nobody else changes.
    #[inline]
    pub fn is_loaded_on(&self, cpu: CpuId) -> bool {
        u32::from(self.on.load(Ordering::Relaxed)) == cpu.raw()
    }

    /// Returns the virtual page through which it was last seen to reach its distributor; a number that no page has before
    /// that.
    #[inline]
    pub fn distributor_page(&self) -> u32 {
        self.distributor_page.load(Ordering::Relaxed)
    }

    /// Remembers that it reaches its distributor through a virtual page.
    pub fn remember_distributor_page(&self, page: u32) {
        self.distributor_page.store(page, Ordering::Relaxed);
    }

    /// Records where its registers are.
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
