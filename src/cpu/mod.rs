//! The physical CPUs and the requests between them: a word of work per CPU, and the SGIs that make a CPU check it.
//!
//! | file | contents |
//! |---|---|
//! | `hold.rs` | holding all other CPUs |
//! | `power.rs` | switching CPUs off and on |
//! | `flush.rs` | flushing a domain's translations from the TLBs of all CPUs |

pub mod flush;
pub mod hold;
pub mod power;

use core::sync::atomic::{AtomicU32, Ordering};

use armv7::cpu::{CpuId, CpuSet, MAX_CPUS};
use armv7::gic::{self, TargetMasks};
use armv7::smp;

/// SGI that makes a CPU leave its guest or idle loop and check its requests.
pub const SGI_WORK: u32 = 0;
/// SGI that stops a CPU permanently, as another one panicked.
pub const SGI_STOP: u32 = 1;

/// Requests to a CPU, one bit each.
pub mod work {
    /// Choose what to run.
    pub const PICK: u32 = 1;
    /// Notify the reader of the console's ring of new data.
    pub const CONSOLE_RING: u32 = 1 << 1;
    /// Wait until the requesting CPU is done ([`super::hold`]).
    pub const HOLD: u32 = 1 << 2;
    /// Continue sending the data that waits for the console's UART.
    pub const CONSOLE_DRAIN: u32 = 1 << 3;
    /// Tell the UARTs of domains that the console takes more.
    pub const CONSOLE_ROOM: u32 = 1 << 4;
    /// Start domains of the boot that have ended again.
    pub const RESTARTS: u32 = 1 << 5;
}

/// Pending requests per CPU: set by any CPU, taken by the CPU itself.
static WORK: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(0) }; MAX_CPUS];
static TARGETS: TargetMasks = TargetMasks::new();

/// Returns the word of pending requests of `cpu`.
pub fn word(cpu: CpuId) -> &'static AtomicU32 {
    &WORK[cpu.index() % MAX_CPUS]
}

/// Marks a CPU as online; `mask` is its bit in `GICD_ITARGETSR`.
pub fn set_online(cpu: CpuId, mask: u8) {
    TARGETS.set(cpu, mask);
}

/// Returns a CPU's bit in `GICD_ITARGETSR`, 0 if it is not online.
pub fn target_mask(cpu: CpuId) -> u8 {
    TARGETS.get(cpu)
}

/// Returns all online CPUs except this one.
fn others() -> CpuSet {
    let this = smp::this_cpu();
    CpuId::all()
        .filter(|cpu| *cpu != this && TARGETS.get(*cpu) != 0)
        .collect()
}

/// Takes all pending requests of `cpu`.
pub fn take_work(cpu: CpuId) -> u32 {
    word(cpu).swap(0, Ordering::SeqCst)
}

/// Requests work of this CPU before it enters a guest again. Takes no lock.
pub fn request_this(work: u32) {
    word(smp::this_cpu()).fetch_or(work, Ordering::Relaxed);
}

/// Requests work of `cpu`, and interrupts it if it is another CPU.
fn request(cpu: CpuId, work: u32) {
    word(cpu).fetch_or(work, Ordering::SeqCst);
    interrupt(cpu);
}

/// Makes `cpu` choose again what to run.
pub fn repick(cpu: CpuId) {
    request(cpu, work::PICK);
}

/// Makes every CPU of `set` choose again what to run.
pub fn repick_all(set: CpuSet) {
    for cpu in set {
        repick(cpu);
    }
}

/// Makes another CPU leave its guest. Does nothing for this CPU, which is not in a guest.
pub fn interrupt(cpu: CpuId) {
    if cpu != smp::this_cpu()
        && let Some(gic) = gic::get()
    {
        gic.dist.send_sgi(SGI_WORK, TARGETS.get(cpu));
    }
}
