//! How a row is measured: the interrupt path of the guest, the loop, and the two ways to look at a row: instructions by
//! the counter, or one round between two marks for a trace.

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use guests::memory::Frame;
use guests::{clock, cp15, hypercall, platform, println, smp};

global_asm!(
    ".arm",
    ".balign 32",
    "bench_vectors:",
    "b .",
    "b take_undefined",
    "b take_supervisor_call",
    "b take_prefetch_abort",
    "b bench_data_abort",
    "b .",
    "b bench_interrupt",
    "b .",
    ".balign 32",
    "bench_device_vectors:",
    "b .",
    "b take_undefined",
    "b take_supervisor_call",
    "b take_prefetch_abort",
    "b bench_data_abort",
    "b .",
    "b bench_device_interrupt",
    "b .",
    // Acknowledge, stamp, silence the timer if it was that, end, count.
    "bench_interrupt:",
    "sub lr, lr, #4",
    "push {{r0-r3, lr}}",
    "ldr r0, =bench_cpu_interface",
    "ldr r0, [r0]",
    "ldr r1, [r0, #0x0c]",
    "mrrc p15, 1, r2, r3, c14",
    "str r1, [r0, #0x10]",
    "ldr r0, =bench_stamp",
    "strd r2, r3, [r0]",
    "cmp r1, #27",
    "moveq r2, #0",
    "mcreq p15, 0, r2, c14, c3, 1",
    "mrc p15, 0, r1, c13, c0, 4",
    "ldr r0, =bench_taken",
    "add r0, r0, r1, lsl #2",
    "ldr r1, [r0]",
    "add r1, r1, #1",
    "str r1, [r0]",
    "ldm sp!, {{r0-r3, pc}}^",
    // Of a virtio device and nothing else: acknowledge, silence the device, end, count.
    "bench_device_interrupt:",
    "sub lr, lr, #4",
    "push {{r0-r3, lr}}",
    "ldr r0, =bench_cpu_interface",
    "ldr r0, [r0]",
    "ldr r1, [r0, #0x0c]",
    "ldr r2, =bench_device",
    "ldr r2, [r2]",
    "mov r3, #3",
    "str r3, [r2, #0x64]",
    "dsb",
    "str r1, [r0, #0x10]",
    "ldr r0, =bench_taken",
    "ldr r1, [r0]",
    "add r1, r1, #1",
    "str r1, [r0]",
    "ldm sp!, {{r0-r3, pc}}^",
    // The only data aborts are those of bench_faults. Its resume address does not depend on what LR says.
    "bench_data_abort:",
    "ldr lr, =bench_resume",
    "movs pc, lr",
    // bench_faults(rounds, address): loads from the address, which faults.
    ".global bench_faults",
    "bench_faults:",
    "ldr r2, [r1]",
    "bench_resume:",
    "subs r0, r0, #1",
    "bne bench_faults",
    "bx lr",
    // bench_use_vectors(interrupt stack, vectors)
    "bench_use_vectors:",
    "mcr p15, 0, r1, c12, c0, 0",
    "isb",
    "cps #0x12",
    "mov sp, r0",
    "cps #0x13",
    "bx lr",
    // Marks a place for a trace: this address is executed for nothing else.
    "bench_mark:",
    "bx lr",
    ".ltorg",
);

unsafe extern "C" {
    fn bench_use_vectors(stack: u32, vectors: unsafe extern "C" fn());
    fn bench_mark();
    fn bench_vectors();
    fn bench_device_vectors();
}

#[unsafe(export_name = "bench_cpu_interface")]
static CPU_INTERFACE: AtomicU32 = AtomicU32::new(0);

/// The registers of the device whose interrupts the device vectors take.
#[unsafe(export_name = "bench_device")]
static DEVICE: AtomicU32 = AtomicU32::new(0);

/// CNTVCT in the last interrupt.
#[unsafe(export_name = "bench_stamp")]
static STAMP: AtomicU64 = AtomicU64::new(0);

/// Interrupts taken, per vCPU.
#[unsafe(export_name = "bench_taken")]
pub static TAKEN: [AtomicU32; smp::MAX_CPUS] = [const { AtomicU32::new(0) }; smp::MAX_CPUS];

/// Uses the short interrupt path on this vCPU.
pub fn use_vectors() {
    CPU_INTERFACE.store(platform::get().cpu_interface, Ordering::Relaxed);
    let stack = Frame::take().nth(1);
    // SAFETY: the frame is this vCPU's interrupt stack from now on; the vectors expect no more.
    unsafe { bench_use_vectors(stack.address(), bench_vectors) };
}

/// Uses the interrupt path for the device with these registers on this vCPU.
pub fn use_device_vectors(registers: u32) {
    DEVICE.store(registers, Ordering::Relaxed);
    let stack = Frame::take().nth(1);
    // SAFETY: as above, and the device is known.
    unsafe { bench_use_vectors(stack.address(), bench_device_vectors) };
}

#[inline(always)]
pub fn taken() -> u32 {
    TAKEN[0].load(Ordering::Relaxed)
}

/// Does `cause` and waits for the interrupt that it causes.
#[inline(always)]
pub fn until_taken(cause: impl Fn()) {
    let before = taken();
    cause();
    while taken() == before {}
}

/// Nanoseconds per tick: instructions per tick under icount.
pub fn instructions_per_tick() -> u64 {
    1_000_000_000 / u64::from(cp15::cntfrq())
}

/// Mean ticks of `rounds` calls of `body`, in tenths of an instruction.
#[inline(always)]
pub fn mean(rounds: u32, body: impl Fn()) -> i64 {
    let start = clock::now();
    for _ in 0..rounds {
        body();
    }
    tenths(clock::now() - start, rounds)
}

/// Ticks of `rounds` rounds as tenths of an instruction per round.
pub fn tenths(ticks: u64, rounds: u32) -> i64 {
    (ticks * instructions_per_tick() * 10 / u64::from(rounds)) as i64
}

/// Measured once, subtracted from every row.
static EMPTY_LOOP: AtomicU32 = AtomicU32::new(0);

pub fn measure_empty_loop() {
    let empty = mean(16_000, || {
        // SAFETY: nothing; keeps the loop.
        unsafe { asm!("", options(nostack)) }
    });
    EMPTY_LOOP.store(empty as u32, Ordering::Relaxed);
    print("empty_loop", empty);
}

pub fn print(row: &str, tenths: i64) {
    let sign = if tenths < 0 { "-" } else { "" };
    println!("bench {row} {sign}{}.{}", tenths.unsigned_abs() / 10, tenths.unsigned_abs() % 10);
}

/// Measures a row and prints it.
#[inline(always)]
pub fn row(name: &str, rounds: u32, body: impl Fn()) {
    if TRACED.load(Ordering::Relaxed) {
        trace(name, rounds, &body);
    } else {
        print(name, mean(rounds, body) - i64::from(EMPTY_LOOP.load(Ordering::Relaxed)));
    }
}

/// Measures `all(rounds)`, which has a loop of its own.
#[inline(always)]
pub fn whole(name: &str, rounds: u32, all: impl Fn(u32)) {
    if TRACED.load(Ordering::Relaxed) {
        return trace(name, rounds, &|| all(1));
    }
    let start = clock::now();
    all(rounds);
    print(name, tenths(clock::now() - start, rounds));
}

/// Measures rounds that are of so many equal parts, and tell their own ticks; those of `beside`, which is not of the row, are
/// subtracted. A trace does not show such rows.
#[inline(always)]
pub fn timed(name: &str, rounds: u32, parts: u32, beside: impl Fn() -> u64, round: impl Fn() -> u64) {
    if TRACED.load(Ordering::Relaxed) {
        return;
    }
    let sum = |once: &dyn Fn() -> u64| (0..rounds).map(|_| once()).sum::<u64>();
    let ticks = sum(&round).saturating_sub(sum(&beside));
    print(name, tenths(ticks, rounds * parts));
}

/// Measures the mean lateness of the handler after the virtual timer's deadline, waiting by `wait`.
#[inline(always)]
pub fn lateness(name: &str, rounds: u32, microseconds: u64, wait: impl Fn()) {
    let once = || {
        let deadline = clock::now() + clock::ticks(microseconds);
        cp15::write_cntv_cval(deadline);
        until_taken(|| {
            cp15::write_cntv_ctl(1);
            wait();
        });
        STAMP.load(Ordering::Relaxed) - deadline
    };
    if TRACED.load(Ordering::Relaxed) {
        return trace(name, rounds, &|| {
            once();
        });
    }
    let late = (0..rounds).map(|_| once()).sum();
    print(name, tenths(late, rounds));
}

static TRACED: AtomicBool = AtomicBool::new(false);

/// Shows one round of a row, in its steady state, to a trace; not of rows whose rounds are long.
#[inline(never)]
fn trace(name: &str, rounds: u32, body: &dyn Fn()) {
    const SHORT: u32 = 100;
    if rounds < SHORT {
        return;
    }
    for _ in 0..3 {
        body();
    }
    // SAFETY: the mark does nothing.
    unsafe { bench_mark() };
    body();
    // SAFETY: as above.
    unsafe { bench_mark() };
    println!("trace {name}");
}

/// If the boot arguments ask for a trace: says where the mark is, and waits until something is typed, by when the trace
/// is on.
pub fn wait_for_trace() {
    const CONSOLEIO_READ: u32 = 1;
    if platform::get().arguments("trace").next().is_none() {
        return;
    }
    TRACED.store(true, Ordering::Relaxed);
    println!("trace mark {:#x}", bench_mark as *const () as u32);
    let mut key = [0_u8; 1];
    while hypercall::call(hypercall::CONSOLE_IO, [CONSOLEIO_READ, 1, hypercall::address_of(&mut key), 0, 0]) != 1 {}
}
