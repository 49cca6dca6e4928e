//! Rows of two vCPUs that share one CPU.

use core::arch::asm;
use core::sync::atomic::{AtomicU32, Ordering};

use guests::abi::{self, DOMID_SELF};
use guests::event::{self, SharedInfo, VcpuInfo};
use guests::gic::{self, Target};
use guests::hypercall::{self, call};
use guests::memory::Frame;
use guests::{cp15, platform, smp};

use crate::measure::{TAKEN, row, taken, use_vectors};

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

/// The vCPU whose turn it is; the other yields until it is its own.
static TURN: AtomicU32 = AtomicU32::new(0);
const OVER: u32 = 2;

/// Nonzero while both vCPUs use their floating-point registers in each turn.
static WITH_VFP: AtomicU32 = AtomicU32::new(0);

fn enable_vfp() {
    // Full access to coprocessors 10 and 11 (DDI 0406C.d B4.1.40), then FPEXC.EN (B4.1.57).
    cp15::write_cpacr(cp15::cpacr() | 0xf << 20);
    cp15::isb();
    // SAFETY: VMSR FPEXC, r0; nothing else here uses these registers.
    unsafe { asm!(".inst 0xeee80a10", in("r0") 1 << 30, options(nostack)) }
}

#[inline(always)]
fn use_vfp() {
    if WITH_VFP.load(Ordering::Relaxed) == 1 {
        // SAFETY: VMOV S0, r0, as above.
        unsafe { asm!(".inst 0xee000a10", in("r0") 0, options(nostack)) }
    }
}

fn answer_turns() {
    if WITH_VFP.load(Ordering::SeqCst) == 1 {
        enable_vfp();
    }
    READY.store(1, Ordering::SeqCst);
    loop {
        match TURN.load(Ordering::SeqCst) {
            OVER => return,
            1 => {
                use_vfp();
                TURN.store(0, Ordering::SeqCst);
            }
            _ => {}
        }
        yield_now();
    }
}

#[inline(always)]
fn yield_now() {
    call(hypercall::SCHED_OP, [abi::SCHEDOP_YIELD, 0, 0, 0, 0]);
}

/// One round is vCPU 0 yielding to vCPU 1 and being yielded to: two switches.
fn turns(name: &str, with_vfp: u32) {
    WITH_VFP.store(with_vfp, Ordering::SeqCst);
    TURN.store(0, Ordering::SeqCst);
    start_other(answer_turns);
    row(name, ROUNDS, || {
        use_vfp();
        TURN.store(1, Ordering::SeqCst);
        while TURN.load(Ordering::SeqCst) == 1 {
            yield_now();
        }
    });
    TURN.store(OVER, Ordering::SeqCst);
    assert!(smp::goes_off(1));
}

pub fn rows() {
    turns("yield_to_other_pair", 0);
    enable_vfp();
    turns("yield_to_other_pair_vfp", 1);
    sgi_ping_pong("ipi_sgi_pingpong_wfi", Wait::Wfi, || answer_sgis(Wait::Wfi));
    sgi_ping_pong("ipi_sgi_pingpong_block", Wait::Block, || answer_sgis(Wait::Block));

    assert!(event::reset(DOMID_SELF) == 0);
    gic::enable(platform::get().event_interrupt);
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
