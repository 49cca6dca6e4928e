//! A guest that does whatever comes to it by chance: hypercalls, registers of the interrupt controller, coprocessors,
//! instructions, firmware calls, memory. Nothing of it may end anything but its own doing.
//!
//! Boot arguments: `seed=` (which steps; 1), `steps=` (how many on each vCPU; 50000), `from=` (the first one; 0), `lanes=` (vCPUs
//! that take steps; all but the last, which comes and goes), `trace=yes` (says each hypercall before it makes it). A step follows
//! from seed, vCPU and number alone: with the last number that a run said, `from=` and `trace=yes` find the step behind it.
//!
//! Left out is what a guest may do to itself: its own end, its image, its translation, the page that it speaks through. In dom0's
//! place those are the machine's end, dom0's own devices and CPUs, and keys of the hypervisor's console too.
#![no_std]
#![no_main]

mod after;
mod argument;
mod steps;

use core::sync::atomic::{AtomicU32, Ordering};

use guests::code::Code;
use guests::harness::{Test, Verdict, expect, run};
use guests::smp::{self, MAX_CPUS};
use guests::{clock, cp15, ensure, ensure_eq, gic, grant, platform, println};

use argument::Ground;
use steps::Lane;

const TESTS: &[Test] = &[
    ("steps_by_chance", steps_by_chance),
    ("calls_are_answered", after::calls_are_answered),
    ("a_port_carries_an_event", after::a_port_carries_an_event),
    ("a_page_is_lent_and_given_back", after::a_page_is_lent_and_given_back),
    ("a_page_comes_and_goes", after::a_page_comes_and_goes),
    ("a_timer_ends_a_wait", after::a_timer_ends_a_wait),
    ("a_vcpu_comes_and_goes", after::a_vcpu_comes_and_goes),
    ("domains_come_and_go_and_all_is_accounted_for", after::domains_come_and_go_and_all_is_accounted_for),
];

/// Steps between two lines of a run.
const LINE: u32 = 10_000;
/// Longer than any run: the emulator may have much else to do.
const PATIENCE_US: u64 = 3_600_000_000 * 24;

fn number(name: &str, usually: u32) -> u32 {
    platform::get().arguments(name).find_map(|text| text.parse().ok()).unwrap_or(usually)
}

static SEED: AtomicU32 = AtomicU32::new(0);
static FROM: AtomicU32 = AtomicU32::new(0);
static STEPS: AtomicU32 = AtomicU32::new(0);
static READY: AtomicU32 = AtomicU32::new(0);

/// Takes this vCPU's steps.
fn lane() {
    let cpu = cp15::cpu_index();
    // Each takes pages of its own, one vCPU after the other.
    let mut lane = Lane::new(SEED.load(Ordering::SeqCst), cpu as u32);
    Code::page();
    READY.store(cpu as u32, Ordering::SeqCst);
    let from = FROM.load(Ordering::SeqCst);
    for step in from..from + STEPS.load(Ordering::SeqCst) {
        if cpu == 0 && step % LINE == 0 {
            lane.calm();
            println!("seed {} step {step}", SEED.load(Ordering::SeqCst));
        }
        lane.step(step);
    }
    lane.calm();
}

fn steps_by_chance() -> Verdict {
    let cpus = platform::get().cpus.min(MAX_CPUS as u32);
    let lanes = number("lanes", cpus.saturating_sub(1)).clamp(1, cpus);
    SEED.store(number("seed", 1), Ordering::SeqCst);
    FROM.store(number("from", 0), Ordering::SeqCst);
    STEPS.store(number("steps", 50_000), Ordering::SeqCst);
    let traces = platform::get().arguments("trace").next().is_some();
    grant::myself();
    after::prepare()?;
    expect(Ground::lay(traces))?;
    for cpu in 1..lanes {
        ensure_eq!(smp::start(cpu as usize, lane), 0, cpu);
        ensure!(clock::poll_for(PATIENCE_US, || READY.load(Ordering::SeqCst) == cpu), cpu);
    }
    if lanes < cpus {
        steps::VISITOR.store(cpus - 1, Ordering::SeqCst);
    }
    lane();
    for cpu in 1..cpus as usize {
        ensure!(clock::poll_for(PATIENCE_US, || smp::is_off(cpu)), cpu);
    }
    // Others have switched the distributor off since.
    gic::quiet();
    let [calls, done] = [&steps::CALLS, &steps::DONE].map(|count| count.load(Ordering::SeqCst));
    println!("{calls} hypercalls, {done} of them without an error");
    Ok(())
}

#[unsafe(no_mangle)]
extern "C" fn guest_main() -> ! {
    run("fuzzer", TESTS)
}
