//! Further vCPUs: each runs one function and switches itself off.

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use crate::{clock, cp15, gic, interrupt, memory, psci};

/// boot.S has a stack for each; GICv2 knows no more.
pub const MAX_CPUS: usize = 8;

static WORK: [AtomicUsize; MAX_CPUS] = [const { AtomicUsize::new(0) }; MAX_CPUS];
static STARTS: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(0) }; MAX_CPUS];

unsafe extern "C" {
    fn secondary_boot();
}

/// Guest-physical entry for CPU_ON.
pub fn entry() -> u32 {
    memory::physical(secondary_boot as *const () as u32)
}

/// Switches `cpu` on to run `work`; returns PSCI's answer.
pub fn start(cpu: usize, work: fn()) -> i32 {
    WORK[cpu].store(work as usize, Ordering::SeqCst);
    psci::call(psci::CPU_ON, cpu as u32, entry(), 0)
}

/// How often `cpu` came up so far.
pub fn starts(cpu: usize) -> u32 {
    STARTS[cpu].load(Ordering::SeqCst)
}

pub fn is_off(cpu: usize) -> bool {
    psci::call(psci::AFFINITY_INFO, cpu as u32, 0, 0) == psci::OFF
}

/// Waits until `cpu` has switched itself off.
///
/// Xen says so before it has saved that vCPU's registers, which then overwrite those of a new start: hence the delay.
#[must_use]
pub fn goes_off(cpu: usize) -> bool {
    let off = clock::poll(|| is_off(cpu));
    clock::delay(interrupt::SETTLE_US);
    off
}

/// Switches `cpu` on for `work` and waits until it is off again; whether all that happened.
#[must_use]
pub fn run_on(cpu: usize, work: fn()) -> bool {
    start(cpu, work) == crate::status::psci::SUCCESS && goes_off(cpu)
}

#[unsafe(no_mangle)]
extern "C" fn secondary_main(cpu: u32) -> ! {
    let index = cpu as usize;
    cp15::set_cpu_index(cpu);
    interrupt::reset();
    gic::enable_cpu_interface();
    STARTS[index].fetch_add(1, Ordering::SeqCst);
    // SAFETY: `start` stored a `fn()` before it switched this CPU on.
    let work: fn() = unsafe { core::mem::transmute(WORK[index].load(Ordering::SeqCst)) };
    work();
    psci::call(psci::CPU_OFF, 0, 0, 0);
    panic!("CPU_OFF returned");
}
