//! The machine's scheduler, behind its lock.

use armv7::cpu::CpuSet;
use spin::Once;

use super::{GroupId, PoolId, SchedError, Scheduler};
use crate::sync::{Guard, Lock, rank};
use crate::time;

/// Placeholder frequency of the scheduler that exists before [`init`], without CPUs.
const EARLY_HZ: u32 = 1_000_000;
static SCHEDULER: Lock<Scheduler, { rank::SCHED }> =
    Lock::new(Scheduler::new(CpuSet::EMPTY, EARLY_HZ));
static READY: Once<Ready> = Once::new();

/// Proof that the clock and the run queues are set up, required to run vCPUs and to build dom0.
#[derive(Clone, Copy, Debug)]
pub struct Ready(());

/// Sets up the clock and the run queues. `hz` is the system counter's frequency, `ratelimit_us` the first pool's rate
/// limit in microseconds. Returns `None` if `hz` is out of range. Only the first call has an effect.
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

/// Returns the proof of [`init`], for CPUs that start later; `None` before [`init`].
pub fn ready() -> Option<Ready> {
    READY.get().copied()
}

/// Locks the scheduler. It has no CPUs before [`init`].
#[inline(never)] // for size: it has many callers
pub fn lock() -> Guard<'static, Scheduler> {
    SCHEDULER.lock()
}

/// A domain's group. Dropping it removes the group; its vCPUs must be removed before.
#[derive(Debug)]
pub struct Group(GroupId);

impl Group {
    /// Adds a group with the CPUs of `pool`.
    pub fn new(pool: PoolId) -> Result<Self, SchedError> {
        lock().add_group(pool).map(Self)
    }

    /// Returns the group's id in the scheduler.
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
