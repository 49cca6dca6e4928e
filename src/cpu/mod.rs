//! The physical CPUs and what they ask of each other: a word of work for each, and the SGIs that make it look there.
//!
//! | file | question |
//! |---|---|
//! | `hold.rs` | how does one CPU make all others wait? |
//! | `flush.rs` | how are a domain's translations flushed from the TLBs of all CPUs? |

pub mod flush;
pub mod hold;

use core::sync::atomic::{AtomicU32, Ordering};

use armv7::cpu::{CpuId, CpuSet, MAX_CPUS};
use armv7::gic::{self, TargetMasks};
use armv7::smp;

/// SGI that makes a CPU leave its guest, or its wait, and look at what it is asked to do.
pub const SGI_LOOK: u32 = 0;
/// SGI that stops a CPU for good: another one panics.
pub const SGI_STOP: u32 = 1;

/// The requests to a CPU, a bit each.
pub mod work {
    /// Choose what runs.
    pub const PICK: u32 = 1;
    /// Tell whoever reads the console's ring that there is more in it.
    pub const CONSOLE_RING: u32 = 1 << 1;
    /// Wait until the CPU that asked is done ([`super::hold`]).
    pub const HOLD: u32 = 1 << 2;
    /// Come back for what waits on the console's UART.
    pub const CONSOLE_DRAIN: u32 = 1 << 3;
}

/// The requests to each CPU: set by any CPU, taken by its own.
static WORK: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(0) }; MAX_CPUS];
static TARGETS: TargetMasks = TargetMasks::new();

/// Returns the word of what `cpu` is asked for.
#[inline]
pub fn word(cpu: CpuId) -> &'static AtomicU32 {
    &WORK[cpu.index() % MAX_CPUS]
}

/// Takes a CPU into use; `mask` is its bit in interrupt targets (`GICD_ITARGETSR`).
pub fn set_online(cpu: CpuId, mask: u8) {
    TARGETS.set(cpu, mask);
}

/// Returns the interrupt target bit of a CPU; 0 for one that is not in use.
pub fn target_mask(cpu: CpuId) -> u8 {
    TARGETS.get(cpu)
}

/// Returns all CPUs in use but this one.
fn others() -> CpuSet {
    let this = smp::this_cpu();
    CpuId::all()
        .filter(|cpu| *cpu != this && TARGETS.get(*cpu) != 0)
        .collect()
}

/// Takes all that `cpu` is asked for.
#[inline]
pub fn take_work(cpu: CpuId) -> u32 {
    word(cpu).swap(0, Ordering::SeqCst)
}

/// Asks this CPU for something before it goes on with a guest. Takes no lock.
pub fn ask_this(work: u32) {
    word(smp::this_cpu()).fetch_or(work, Ordering::Relaxed);
}

/// Asks `cpu` for something, and interrupts it when it is another one.
fn ask(cpu: CpuId, work: u32) {
    word(cpu).fetch_or(work, Ordering::SeqCst);
    interrupt(cpu);
}

/// Makes `cpu` choose anew what runs.
pub fn repick(cpu: CpuId) {
    ask(cpu, work::PICK);
}

/// Makes every CPU of `set` choose anew what runs.
pub fn repick_all(set: CpuSet) {
    for cpu in set {
        repick(cpu);
    }
}

/// Makes another CPU leave its guest; this one is not in a guest.
pub fn interrupt(cpu: CpuId) {
    if cpu != smp::this_cpu()
        && let Some(gic) = gic::get()
    {
        gic.dist.send_sgi(SGI_LOOK, TARGETS.get(cpu));
    }
}
