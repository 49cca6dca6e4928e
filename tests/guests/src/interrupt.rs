//! Interrupts as they are taken: every acknowledge is logged, per CPU, in order.

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use crate::smp::MAX_CPUS;
use crate::{clock, cp15, gic, harness};

const CAPACITY: usize = 128;

/// More than any test provokes: an interrupt that is raised again and again would starve the test of its time-out.
const STORM: usize = 100_000;

struct Log {
    acknowledged: [AtomicU32; CAPACITY],
    count: AtomicUsize,
}

static LOGS: [Log; MAX_CPUS] =
    [const { Log { acknowledged: [const { AtomicU32::new(0) }; CAPACITY], count: AtomicUsize::new(0) } }; MAX_CPUS];

/// Runs between acknowledge and end of interrupt; 0 for none.
static HOOK: AtomicUsize = AtomicUsize::new(0);

/// Runs `hook(acknowledge register)` for every interrupt before its end, until the next `reset`.
pub fn set_hook(hook: fn(u32)) {
    HOOK.store(hook as usize, Ordering::SeqCst);
}

/// Forgets this CPU's log and the hook.
pub fn reset() {
    HOOK.store(0, Ordering::SeqCst);
    LOGS[cp15::cpu_index()].count.store(0, Ordering::SeqCst);
}

/// How many interrupts `cpu` took since its reset.
pub fn total_on(cpu: usize) -> usize {
    LOGS[cpu].count.load(Ordering::SeqCst)
}

/// The `index`th acknowledge on `cpu`: INTID, and source CPU for an SGI.
pub fn acknowledged_on(cpu: usize, index: usize) -> u32 {
    LOGS[cpu].acknowledged[index].load(Ordering::SeqCst)
}

/// How often `cpu` took `intid` since its reset.
pub fn count_on(cpu: usize, intid: u32) -> usize {
    (0..total_on(cpu).min(CAPACITY)).filter(|&i| acknowledged_on(cpu, i) & gic::INTID_MASK == intid).count()
}

/// How often this CPU took `intid` since its reset.
pub fn count(intid: u32) -> usize {
    count_on(cp15::cpu_index(), intid)
}

/// Long enough for an emulated interrupt to arrive, when the test's point is that none does.
pub const SETTLE_US: u64 = 3_000;

/// Takes interrupts for a while, then holds them back again.
pub fn settle() {
    cp15::enable_interrupts();
    clock::delay(SETTLE_US);
    cp15::disable_interrupts();
}

/// Takes interrupts until `intid` came `times` (and a little longer, to see one too many); whether exactly so many came.
#[must_use]
pub fn comes(intid: u32, times: usize) -> bool {
    cp15::enable_interrupts();
    let arrived = clock::poll(|| count(intid) >= times);
    clock::delay(SETTLE_US);
    cp15::disable_interrupts();
    arrived && count(intid) == times
}

#[unsafe(no_mangle)]
extern "C" fn interrupt_main() {
    let value = gic::acknowledge();
    let intid = value & gic::INTID_MASK;
    let log = &LOGS[cp15::cpu_index()];
    let count = log.count.load(Ordering::Relaxed);
    if let Some(slot) = log.acknowledged.get(count) {
        slot.store(value, Ordering::SeqCst);
    }
    log.count.store(count + 1, Ordering::SeqCst);
    if count == STORM {
        println!("FAIL guest: interrupt {intid} does not end");
        harness::power_off();
    }
    if intid == gic::SPURIOUS {
        return;
    }
    match intid {
        gic::VIRTUAL_TIMER => cp15::write_cntv_ctl(cp15::cntv_ctl() | TIMER_MASKED),
        gic::PHYSICAL_TIMER => cp15::write_cntp_ctl(cp15::cntp_ctl() | TIMER_MASKED),
        _ => {}
    }
    let hook = HOOK.load(Ordering::SeqCst);
    if hook != 0 {
        // SAFETY: only `set_hook` stores there, a `fn(u32)`.
        let hook: fn(u32) = unsafe { core::mem::transmute(hook) };
        hook(value);
    }
    gic::end(value);
}

/// Timer control bits (DDI 0406C.d B4.1.32).
pub const TIMER_ENABLED: u32 = 1;
pub const TIMER_MASKED: u32 = 2;
pub const TIMER_FIRED: u32 = 4;
