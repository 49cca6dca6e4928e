//! What the hypervisor's services cost, in executed instructions.
//!
//! Run under `-icount shift=0,sleep=off` with one CPU: an instruction takes one nanosecond of virtual time, so counter
//! ticks are instructions and a figure is exact. Each row is the mean over `n` rounds less the empty loop, and includes
//! what the guest itself executes in a round (its interrupt path below is 20 instructions long). Without icount the
//! numbers mean nothing. With a second vCPU on the same CPU the rows of two vCPUs are measured too.
#![no_std]
#![no_main]

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use guests::abi::{self, DOMID_SELF, reservation};
use guests::event::{self, SharedInfo, VcpuInfo};
use guests::gic::{self, Target, VIRTUAL_TIMER, distributor};
use guests::grant::{self, Table};
use guests::hypercall::{self, address_of, call};
use guests::memory::Frame;
use guests::status::EBUSY;
use guests::{clock, cp15, harness, mmio, platform, println, psci, smp};

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
    // The only data aborts are those of bench_faults. Its resume address does not depend on what LR says.
    "bench_data_abort:",
    "ldr lr, =bench_resume",
    "movs pc, lr",
    // bench_faults(rounds, address): loads from the address, which faults.
    "bench_faults:",
    "ldr r2, [r1]",
    "bench_resume:",
    "subs r0, r0, #1",
    "bne bench_faults",
    "bx lr",
    // bench_use_vectors(interrupt stack)
    "bench_use_vectors:",
    "ldr r1, =bench_vectors",
    "mcr p15, 0, r1, c12, c0, 0",
    "isb",
    "cps #0x12",
    "mov sp, r0",
    "cps #0x13",
    "bx lr",
    ".ltorg",
);

unsafe extern "C" {
    fn bench_faults(rounds: u32, address: u32);
    fn bench_use_vectors(stack: u32);
}

#[unsafe(export_name = "bench_cpu_interface")]
static CPU_INTERFACE: AtomicU32 = AtomicU32::new(0);

/// CNTVCT in the last interrupt.
#[unsafe(export_name = "bench_stamp")]
static STAMP: AtomicU64 = AtomicU64::new(0);

/// Interrupts taken, per vCPU.
#[unsafe(export_name = "bench_taken")]
static TAKEN: [AtomicU32; smp::MAX_CPUS] = [const { AtomicU32::new(0) }; smp::MAX_CPUS];

/// Uses the short interrupt path on this vCPU.
fn use_vectors() {
    let stack = Frame::take().nth(1);
    // SAFETY: the frame is this vCPU's interrupt stack from now on; the vectors expect no more.
    unsafe { bench_use_vectors(stack.address()) };
}

#[inline(always)]
fn taken() -> u32 {
    TAKEN[0].load(Ordering::Relaxed)
}

/// Does `cause` and waits for the interrupt that it causes.
#[inline(always)]
fn until_taken(cause: impl Fn()) {
    let before = taken();
    cause();
    while taken() == before {}
}

/// Nanoseconds per tick: instructions per tick under icount.
fn instructions_per_tick() -> u64 {
    1_000_000_000 / u64::from(cp15::cntfrq())
}

/// Mean ticks of `rounds` calls of `body`, in tenths of an instruction.
#[inline(always)]
fn mean(rounds: u32, body: impl Fn()) -> i64 {
    let start = clock::now();
    for _ in 0..rounds {
        body();
    }
    let ticks = clock::now() - start;
    (ticks * instructions_per_tick() * 10 / u64::from(rounds)) as i64
}

/// Measured once, subtracted from every row.
static EMPTY_LOOP: AtomicU32 = AtomicU32::new(0);

fn print(row: &str, tenths: i64) {
    let sign = if tenths < 0 { "-" } else { "" };
    println!("bench {row} {sign}{}.{}", tenths.unsigned_abs() / 10, tenths.unsigned_abs() % 10);
}

#[inline(always)]
fn row(name: &str, rounds: u32, body: impl Fn()) {
    print(name, mean(rounds, body) - i64::from(EMPTY_LOOP.load(Ordering::Relaxed)));
}

/// An event port of vCPU 0 to itself.
struct Events {
    shared: SharedInfo,
    vcpu: VcpuInfo,
    port: u32,
}

impl Events {
    fn new() -> Self {
        let shared = SharedInfo::map().expect("shared_info");
        gic::enable(platform::get().event_interrupt);
        Events { shared, vcpu: VcpuInfo(shared.0.address()), port: event::bind_ipi(0).expect("an IPI port") }
    }

    #[inline(always)]
    fn take(&self) {
        self.vcpu.take_upcall();
        self.vcpu.take_selector();
        self.shared.clear_pending(self.port);
    }
}

#[unsafe(no_mangle)]
extern "C" fn guest_main() -> ! {
    println!("guest: bench");
    println!("bench reset_to_guest {}", clock::at_entry() * instructions_per_tick());
    CPU_INTERFACE.store(platform::get().cpu_interface, Ordering::Relaxed);
    use_vectors();
    let_background_work_end();

    let empty = mean(16_000, || {
        // SAFETY: nothing; keeps the loop.
        unsafe { asm!("", options(nostack)) }
    });
    EMPTY_LOOP.store(empty as u32, Ordering::Relaxed);
    print("empty_loop", empty);
    hypercalls();
    emulated_registers();
    interrupts();
    timers();
    events();
    grants();
    memory();
    if platform::get().cpus > 1 {
        two_vcpus();
    }
    println!("done: all rows");
    harness::power_off()
}

/// Xen scrubs free memory while a vCPU is idle.
fn let_background_work_end() {
    gic::enable(VIRTUAL_TIMER);
    cp15::enable_interrupts();
    for _ in 0..20 {
        cp15::write_cntv_cval(clock::now() + clock::ticks(100_000));
        until_taken(|| {
            cp15::write_cntv_ctl(1);
            cp15::wfi();
        });
    }
}

fn hypercalls() {
    const XENVER_GET_FEATURES: u32 = 6;
    const UNKNOWN: u32 = 63;
    row("hypercall_xen_version", 8000, || {
        call(hypercall::XEN_VERSION, [0; 5]);
    });
    row("hypercall_unknown", 8000, || {
        call(UNKNOWN, [0; 5]);
    });
    let features = Frame::take();
    row("hypercall_get_features", 8000, || {
        call(hypercall::XEN_VERSION, [XENVER_GET_FEATURES, features.address(), 0, 0, 0]);
    });
    row("hypercall_sched_yield", 4000, || {
        call(hypercall::SCHED_OP, [abi::SCHEDOP_YIELD, 0, 0, 0, 0]);
    });
    let mut text = *b"................................................  64 characters\n";
    let text = address_of(&mut text);
    let console = mean(16, || {
        call(hypercall::CONSOLE_IO, [0, 64, text, 0, 0]);
    });
    print("console_write_64", console);
    row("psci_version", 8000, || {
        psci::call_by_hvc(psci::VERSION, 0, 0, 0);
    });
}

fn emulated_registers() {
    // Of a virtio slot of the virt board: routed to dom0, so that the physical line is switched too.
    const SPI: u32 = 48;
    let typer = distributor(gic::TYPER);
    let isenabler = distributor(gic::ISENABLER);
    let priority = distributor(gic::IPRIORITYR + 20);
    row("gicd_read_typer", 8000, || {
        mmio::read32(typer);
    });
    row("gicd_read_isenabler0", 8000, || {
        mmio::read32(isenabler);
    });
    row("gicd_read_ipriority", 8000, || {
        mmio::read32(priority);
    });
    row("gicd_write_isenabler0_noop", 8000, || mmio::write32(isenabler, 0));
    row("gicd_write_ipriority_byte", 8000, || mmio::write8(priority, 0xa0));
    row("gicd_spi_disable_enable_pair", 4000, || {
        gic::disable(SPI);
        gic::enable(SPI);
    });
    row("cp15_actlr_read", 8000, || {
        cp15::actlr();
    });
    row("cp15_idpfr0_read", 8000, || {
        // SAFETY: reads an identification register.
        unsafe { asm!("mrc p15, 0, {}, c0, c1, 0", out(reg) _, options(nostack)) }
    });
    row("cp15_cntpct_read", 8000, || {
        cp15::cntpct();
    });
}

fn interrupts() {
    const SGI: u32 = 1;
    row("sgi_self_taken", 8000, || until_taken(|| gic::send_sgi(Target::Myself, SGI)));
    row("wfi_irq_pending_masked", 1600, || {
        until_taken(|| {
            cp15::disable_interrupts();
            gic::send_sgi(Target::Myself, SGI);
            cp15::wfi();
            cp15::enable_interrupts();
        })
    });
    cp15::disable_interrupts();
    gic::send_sgi(Target::Myself, SGI);
    row("sgi_self_masked_pending", 4000, || gic::send_sgi(Target::Myself, SGI));
    cp15::enable_interrupts();
}

/// Mean lateness of the handler after the virtual timer's deadline, waiting by `wait`.
#[inline(always)]
fn lateness(name: &str, rounds: u32, microseconds: u64, wait: impl Fn()) {
    let mut late = 0;
    for _ in 0..rounds {
        let deadline = clock::now() + clock::ticks(microseconds);
        cp15::write_cntv_cval(deadline);
        until_taken(|| {
            cp15::write_cntv_ctl(1);
            wait();
        });
        late += STAMP.load(Ordering::Relaxed) - deadline;
    }
    print(name, (late * instructions_per_tick() * 10 / u64::from(rounds)) as i64);
}

fn timers() {
    cp15::write_cntv_cval(0);
    row("vtimer_expired_taken", 8000, || until_taken(|| cp15::write_cntv_ctl(1)));
    lateness("vtimer_latency_running_32us", 1600, 32, || {});
    lateness("vtimer_latency_wfi_32us", 1600, 32, cp15::wfi);
    lateness("vtimer_latency_wfi_1ms", 1600, 1000, cp15::wfi);
    lateness("vtimer_latency_sched_block_1ms", 1600, 1000, || {
        call(hypercall::SCHED_OP, [abi::SCHEDOP_BLOCK, 0, 0, 0, 0]);
    });
}

fn events() {
    let events = Events::new();
    let port = Frame::take();
    port.write(0, events.port);
    let send = || {
        call(hypercall::EVENT_CHANNEL_OP, [event::SEND, port.address(), 0, 0, 0]);
    };
    row("evtchn_send_self_taken", 8000, || {
        until_taken(send);
        events.take();
    });
    send();
    row("evtchn_send_already_pending", 8000, send);
    events.take();
    events.shared.set_mask(events.port);
    row("evtchn_send_masked", 8000, || {
        send();
        events.shared.clear_pending(events.port);
    });
    events.shared.clear_mask(events.port);
    let bind = Frame::take();
    row("evtchn_bind_close_ipi", 1600, || {
        bind.write(0, 0);
        call(hypercall::EVENT_CHANNEL_OP, [event::BIND_IPI, bind.address(), 0, 0, 0]);
        call(hypercall::EVENT_CHANNEL_OP, [event::CLOSE, bind.address() + 4, 0, 0, 0]);
    });
    event::close(events.port);
    abi::remove_from_physmap(events.shared.0.gfn());
}

fn grants() {
    const REFERENCE: u32 = 8;
    let table = Table::map().expect("the grant table");
    let (granted, target) = (Frame::take(), Frame::take());
    table.set(REFERENCE, grant::PERMIT_ACCESS, grant::MYSELF, granted.gfn());
    // A refused call would be measured as a fast one: each is made once with a look at its result.
    assert_eq!(grant::copy(grant::granted(REFERENCE, 0), grant::local(target, 0), 4096, grant::COPY_SOURCE_GREF), 0);
    for (name, length) in [("grant_copy_4096", 4096), ("grant_copy_64", 64)] {
        row(name, 1600, || {
            grant::copy(grant::granted(REFERENCE, 0), grant::local(target, 0), length, grant::COPY_SOURCE_GREF);
        });
    }
    reservation(abi::MEM_DECREASE_RESERVATION, &mut [target.gfn()], 0);
    let mapping = grant::map(REFERENCE, grant::MYSELF, grant::MAP_HOST, target);
    assert_eq!(mapping.status, 0);
    assert_eq!(grant::unmap(mapping.handle, target), 0);
    row("grant_map_unmap", 1600, || {
        let mapping = grant::map(REFERENCE, grant::MYSELF, grant::MAP_HOST, target);
        grant::unmap(mapping.handle, target);
    });
    // The frame is mapped already, so that this is the way to the refusal, like the figure it is compared with.
    assert_eq!(abi::add_to_physmap(abi::SPACE_GRANT_TABLE, 0, table.0.gfn()), EBUSY);
    row("add_to_physmap_gnttab", 1600, || {
        abi::add_to_physmap(abi::SPACE_GRANT_TABLE, 0, table.0.gfn());
    });
}

fn memory() {
    let page = Frame::take();
    row("mem_decrease_populate_4k", 800, || {
        reservation(abi::MEM_DECREASE_RESERVATION, &mut [page.gfn()], 0);
        reservation(abi::MEM_POPULATE_PHYSMAP, &mut [page.gfn()], 0);
    });
    let large = Frame::take_aligned(512);
    assert_eq!(reservation(abi::MEM_DECREASE_RESERVATION, &mut [page.gfn(), large.gfn()], 0), 2);
    assert_eq!(reservation(abi::MEM_POPULATE_PHYSMAP, &mut [page.gfn(), large.gfn()], 0), 2);
    row("mem_decrease_2m", 8, || {
        reservation(abi::MEM_DECREASE_RESERVATION, &mut [large.gfn()], 9);
        reservation(abi::MEM_POPULATE_PHYSMAP, &mut [large.gfn()], 9);
    });
    reservation(abi::MEM_DECREASE_RESERVATION, &mut [page.gfn()], 0);
    let start = clock::now();
    const FAULTS: u32 = 1600;
    // SAFETY: loads from a hole under the vectors that expect it.
    unsafe { bench_faults(FAULTS, page.address()) };
    let ticks = clock::now() - start;
    print("stage2_fault_injected_abort", (ticks * instructions_per_tick() * 10 / u64::from(FAULTS)) as i64);
}

/// One round of a ping-pong is vCPU 0 waking vCPU 1 and being woken by it.
const ROUNDS: u32 = 1000;

static STOP: AtomicU32 = AtomicU32::new(0);
static READY: AtomicU32 = AtomicU32::new(0);

/// How a vCPU waits for its interrupt.
#[derive(Clone, Copy)]
enum Wait {
    Wfi,
    Block,
}

impl Wait {
    /// Waits until this vCPU's count of interrupts moves from `before`. Interrupts are masked between look and wait, so
    /// that none is lost.
    #[inline(always)]
    fn until_taken(self, cpu: usize, before: u32) {
        while TAKEN[cpu].load(Ordering::SeqCst) == before {
            cp15::disable_interrupts();
            if TAKEN[cpu].load(Ordering::SeqCst) == before {
                match self {
                    Wait::Wfi => cp15::wfi(),
                    Wait::Block => {
                        call(hypercall::SCHED_OP, [abi::SCHEDOP_BLOCK, 0, 0, 0, 0]);
                    }
                }
            }
            cp15::enable_interrupts();
        }
    }
}

const PING: u32 = 2;

fn answer_sgis(wait: Wait) {
    use_vectors();
    READY.store(1, Ordering::SeqCst);
    let mut before = 0;
    loop {
        wait.until_taken(1, before);
        before = TAKEN[1].load(Ordering::SeqCst);
        if STOP.load(Ordering::SeqCst) == 1 {
            return;
        }
        gic::send_sgi(Target::List(1), PING);
    }
}

fn sgi_ping_pong(name: &str, wait: Wait, answer: fn()) {
    start_other(answer);
    row(name, ROUNDS, || {
        let before = taken();
        gic::send_sgi(Target::List(2), PING);
        wait.until_taken(0, before);
    });
    STOP.store(1, Ordering::SeqCst);
    gic::send_sgi(Target::List(2), PING);
    assert!(smp::goes_off(1));
}

fn start_other(work: fn()) {
    STOP.store(0, Ordering::SeqCst);
    READY.store(0, Ordering::SeqCst);
    TAKEN[1].store(0, Ordering::SeqCst);
    assert!(smp::start(1, work) == 0);
    while READY.load(Ordering::SeqCst) == 0 {
        call(hypercall::SCHED_OP, [abi::SCHEDOP_YIELD, 0, 0, 0, 0]);
    }
}

/// For the event ping-pong, set before vCPU 1 starts: its vcpu_info, an IPI port of each vCPU, shared_info.
static OTHER_INFO: AtomicU32 = AtomicU32::new(0);
static TO_OTHER: AtomicU32 = AtomicU32::new(0);
static TO_FIRST: AtomicU32 = AtomicU32::new(0);
static SHARED: AtomicU32 = AtomicU32::new(0);

fn answer_events(wait: Wait) {
    use_vectors();
    gic::enable(platform::get().event_interrupt);
    let (info, shared) =
        (VcpuInfo(OTHER_INFO.load(Ordering::SeqCst)), SharedInfo(Frame::at(SHARED.load(Ordering::SeqCst))));
    let (mine, theirs) = (TO_OTHER.load(Ordering::SeqCst), TO_FIRST.load(Ordering::SeqCst));
    READY.store(1, Ordering::SeqCst);
    let mut before = 0;
    loop {
        wait.until_taken(1, before);
        before = TAKEN[1].load(Ordering::SeqCst);
        info.take_upcall();
        info.take_selector();
        shared.clear_pending(mine);
        if STOP.load(Ordering::SeqCst) == 1 {
            return;
        }
        event::send(theirs);
    }
}

fn event_ping_pong(name: &str, wait: Wait, answer: fn()) {
    let (vcpu, shared) =
        (VcpuInfo(SHARED.load(Ordering::SeqCst)), SharedInfo(Frame::at(SHARED.load(Ordering::SeqCst))));
    let (to_other, to_first) = (TO_OTHER.load(Ordering::SeqCst), TO_FIRST.load(Ordering::SeqCst));
    start_other(answer);
    row(name, ROUNDS, || {
        let before = taken();
        event::send(to_other);
        wait.until_taken(0, before);
        vcpu.take_upcall();
        vcpu.take_selector();
        shared.clear_pending(to_first);
    });
    STOP.store(1, Ordering::SeqCst);
    event::send(to_other);
    assert!(smp::goes_off(1));
}

fn two_vcpus() {
    sgi_ping_pong("ipi_sgi_pingpong_wfi", Wait::Wfi, || answer_sgis(Wait::Wfi));
    sgi_ping_pong("ipi_sgi_pingpong_block", Wait::Block, || answer_sgis(Wait::Block));

    assert!(event::reset(DOMID_SELF) == 0);
    let shared = SharedInfo::map().expect("shared_info");
    let info = Frame::take();
    assert!(event::register_vcpu_info(1, info.gfn(), 0) == 0);
    VcpuInfo(info.address()).take_upcall();
    VcpuInfo(info.address()).take_selector();
    TO_OTHER.store(event::bind_ipi(1).expect("an IPI port"), Ordering::SeqCst);
    TO_FIRST.store(event::bind_ipi(0).expect("an IPI port"), Ordering::SeqCst);
    SHARED.store(shared.0.address(), Ordering::SeqCst);
    OTHER_INFO.store(info.address(), Ordering::SeqCst);
    event_ping_pong("evtchn_pingpong_wfi", Wait::Wfi, || answer_events(Wait::Wfi));
    event_ping_pong("evtchn_pingpong_block", Wait::Block, || answer_events(Wait::Block));
}
