//! The machine's scheduler, behind the lock of all.

use armv7::cpu::CpuSet;
use spin::Once;

use super::{GroupId, PoolId, SchedError, Scheduler};
use crate::sync::{Guard, Lock, rank};
use crate::time;

/// Ticks in a second of the scheduler that has no CPU yet.
const EARLY_HZ: u32 = 1_000_000;
static SCHEDULER: Lock<Scheduler, { rank::SCHED }> =
    Lock::new(Scheduler::new(CpuSet::EMPTY, EARLY_HZ));
static READY: Once<Ready> = Once::new();

/// Shows that the clock and the run queues are set up: without it no CPU runs vCPUs, and no dom0 is built.
#[derive(Clone, Copy, Debug)]
pub struct Ready(());

/// Sets up the clock and the run queues; `hz` is the system counter's frequency, `None` if it cannot be one.
/// Only the first call counts.
pub fn init(hz: u32, online: CpuSet, ratelimit_us: u32) -> Option<Ready> {
    let hz = time::init(hz)?.hz();
    let ready = READY.call_once(|| {
        let mut scheduler = lock();
        *scheduler = Scheduler::new(online, hz);
        scheduler.set_ratelimit(PoolId::FIRST, ratelimit_us);
        Ready(())
    });
    Some(*ready)
}

/// Returns what [`init`] returned, for CPUs that come later.
pub fn ready() -> Option<Ready> {
    READY.get().copied()
}

/// Locks the scheduler. Before [`init`] it has no CPU.
#[inline(never)] // its callers are many
pub fn lock() -> Guard<'static, Scheduler> {
    SCHEDULER.lock()
}

/// A domain's group; goes with the value, when its vCPUs have gone.
#[derive(Debug)]
pub struct Group(GroupId);

impl Group {
    /// Makes a group with the CPUs of `pool`.
    pub fn new(pool: PoolId) -> Result<Self, SchedError> {
        lock().add_group(pool).map(Self)
    }

    /// Returns its name to the scheduler.
    pub fn id(&self) -> GroupId {
        self.0
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if lock().remove_group(self.0).is_err() {
            log::error!("{:?} still has vCPUs", self.0);
        }
    }
}
