//! Software timers, multiplexed on one hardware timer per CPU: CNTHP (DDI 0406C.d B8.1.5).
//!
//! A [`Timer`] is armed in the queue of the CPU that arms it. The hardware timer is programmed for the first deadline
//! in the queue or for the end of the running vCPU's turn, whichever comes first.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use armv7::cpu::{CpuId, MAX_CPUS};
use armv7::smp;

use super::Ticks;
use super::queue::TimerQueue;
use crate::id::{DomId, UnitId};
use crate::sync::{Lock, rank};

/// Effect of a timer's expiry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Wakes a vCPU whose virtual timer is not in the hardware.
    Virtual(UnitId),
    /// Ends a vCPU's poll.
    Poll(UnitId),
    /// Raises the interrupt of a vCPU's emulated physical timer.
    Physical(UnitId),
    /// Shuts a domain down by its watchdog.
    Watchdog(DomId),
    /// Continues console output if the UART has no interrupt.
    Console,
    /// Goes on with domains of the boot that are started again.
    Restarts,
}

/// Reason a timer was not created.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimerError {
    /// Out of heap memory.
    NoMemory,
    /// All ids are in use.
    NoId,
}

type Queue = Lock<TimerQueue<Purpose>, { rank::TIMER }>;

/// Maximum number of timers, as positions in a queue are 16 bits.
const MAX_TIMERS: usize = 0x8000;
/// CPU number of a timer that is not armed.
const NOWHERE: u8 = u8::MAX;

static QUEUES: [Queue; MAX_CPUS] = [const { Lock::new(TimerQueue::new()) }; MAX_CPUS];
/// Ids in use, by id.
static IDS: Lock<Vec<bool>, { rank::TIMER_IDS }> = Lock::new(Vec::new());
/// End of the running vCPU's turn per CPU, in ticks; `u64::MAX` for none.
static TURN_ENDS: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(u64::MAX) }; MAX_CPUS];

fn queue(cpu: CpuId) -> &'static Queue {
    &QUEUES[cpu.index() % MAX_CPUS]
}

fn turn_end(cpu: CpuId) -> &'static AtomicU64 {
    &TURN_ENDS[cpu.index() % MAX_CPUS]
}

/// A timer; disarmed when dropped. Callers must not arm or disarm one timer on two CPUs at the same time.
#[derive(Debug)]
pub struct Timer {
    id: u16,
    purpose: Purpose,
    /// CPU in whose queue it is, or was before it expired.
    on: AtomicU8,
}

impl Timer {
    /// Returns a timer that is not armed.
    pub fn new(purpose: Purpose) -> Result<Self, TimerError> {
        let mut ids = IDS.lock();
        let index = ids.iter().position(|taken| !taken).unwrap_or(ids.len());
        let id = u16::try_from(index)
            .ok()
            .filter(|_| index < MAX_TIMERS)
            .ok_or(TimerError::NoId)?;
        if index == ids.len() {
            ids.try_reserve(1).map_err(|_| TimerError::NoMemory)?;
            for queue in &QUEUES {
                let room = queue.lock().reserve(id + 1);
                room.map_err(|_| TimerError::NoMemory)?;
            }
            ids.push(true);
        } else if let Some(taken) = ids.get_mut(index) {
            *taken = true;
        }
        Ok(Self {
            id,
            purpose,
            on: AtomicU8::new(NOWHERE),
        })
    }

    /// Arms the timer on this CPU for `deadline`, in ticks, replacing an earlier deadline.
    pub fn arm(&self, deadline: Ticks) {
        let cpu = smp::this_cpu();
        let timer = self.arm_on(cpu, deadline);
        program_first(timer, turn_end(cpu).load(Ordering::Relaxed));
    }

    /// Arms the timer in the queue of `cpu`. Returns the first deadline there.
    fn arm_on(&self, cpu: CpuId, deadline: Ticks) -> Option<Ticks> {
        let before = self.on.load(Ordering::Relaxed);
        if u32::from(before) != cpu.raw() {
            self.disarm();
            self.on.store(cpu.raw() as u8, Ordering::Relaxed);
        }
        let mut queue = queue(cpu).lock();
        queue.arm(self.id, self.purpose, deadline);
        queue.next()
    }

    /// Moves the timer to the queue of `to` if it is armed on `from`. The hardware timer of `to` is not programmed. No
    /// other CPU may arm or disarm timers meanwhile.
    pub fn migrate(&self, from: CpuId, to: CpuId) {
        if u32::from(self.on.load(Ordering::Relaxed)) != from.raw() {
            return;
        }
        let deadline = queue(from).lock().cancel(self.id);
        if let Some(deadline) = deadline {
            self.arm_on(to, deadline);
        }
    }

    /// Disarms the timer. The hardware timer may fire once more without effect.
    pub fn disarm(&self) {
        if let Some(cpu) = CpuId::new(self.on.load(Ordering::Relaxed).into()) {
            self.on.store(NOWHERE, Ordering::Relaxed);
            queue(cpu).lock().cancel(self.id);
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // Another timer may get the id from here on, so every queue drops it.
        for queue in &QUEUES {
            queue.lock().cancel(self.id);
        }
        if let Some(taken) = IDS.lock().get_mut(usize::from(self.id)) {
            *taken = false;
        }
    }
}

/// Returns the number of timers.
pub fn registered() -> usize {
    IDS.lock().iter().filter(|taken| **taken).count()
}

/// Disarms one timer of `cpu` whose deadline is at or before `now` and returns its purpose. Call it until `None`.
pub fn expired(cpu: CpuId, now: Ticks) -> Option<Purpose> {
    queue(cpu).lock().expire(now)
}

/// Returns the purpose of the first timer of `cpu`.
pub fn first(cpu: CpuId) -> Option<Purpose> {
    queue(cpu).lock().first()
}

/// Sets the end of the running vCPU's turn on `cpu`, which is this CPU, and programs the hardware timer.
pub fn set_turn_end(cpu: CpuId, end: Option<Ticks>) {
    let end = end.map_or(u64::MAX, |end| end.0);
    turn_end(cpu).store(end, Ordering::Relaxed);
    program_first(queue(cpu).lock().next(), end);
}

/// Returns whether the running vCPU's turn on `cpu` has ended.
pub fn turn_is_over(cpu: CpuId, now: Ticks) -> bool {
    turn_end(cpu).load(Ordering::Relaxed) <= now.0
}

/// Programs the hardware timer of `cpu`, which is this CPU.
pub fn program(cpu: CpuId) {
    let timer = queue(cpu).lock().next();
    program_first(timer, turn_end(cpu).load(Ordering::Relaxed));
}

fn program_first(timer: Option<Ticks>, turn_ends: u64) {
    let first = timer.map_or(turn_ends, |timer| timer.0.min(turn_ends));
    armv7::timer::set_deadline((first != u64::MAX).then_some(first));
}

#[cfg(test)]
mod tests {
    use armv7::cpu::CpuId;

    use super::{Purpose, Ticks, Timer, expired, first, queue};
    use crate::id::UnitId;

    /// Returns the CPUs that no other test has timers on.
    fn cpus() -> (CpuId, CpuId) {
        (CpuId::new(6).unwrap(), CpuId::new(7).unwrap())
    }

    #[test]
    fn an_armed_timer_moves_with_its_cpu_and_ends_with_its_value() {
        let purpose = Purpose::Poll(UnitId(7));
        let (one, other) = cpus();
        let timer = Timer::new(purpose).unwrap();
        timer.arm_on(one, Ticks(10));
        assert_eq!(timer.arm_on(other, Ticks(20)), Some(Ticks(20)));
        assert_eq!(queue(one).lock().next(), None);
        assert_eq!(expired(other, Ticks(19)), None);
        assert_eq!(expired(other, Ticks(20)), Some(purpose));
        assert_eq!(expired(other, Ticks(20)), None, "a timer fires once");
        timer.arm_on(other, Ticks(30));
        timer.disarm();
        assert_eq!(queue(other).lock().next(), None);
        timer.arm_on(other, Ticks(40));
        timer.migrate(other, one);
        assert_eq!(queue(other).lock().next(), None);
        assert_eq!(first(other), None);
        assert_eq!(first(one), Some(purpose));
        assert_eq!(queue(one).lock().next(), Some(Ticks(40)));
        timer.migrate(other, one);
        assert_eq!(
            queue(one).lock().next(),
            Some(Ticks(40)),
            "it was not there"
        );
        timer.disarm();
        timer.migrate(one, other);
        assert_eq!(queue(other).lock().next(), None, "it is not armed");
        timer.arm_on(other, Ticks(40));
        drop(timer);
        assert_eq!(queue(other).lock().next(), None);
    }
}
