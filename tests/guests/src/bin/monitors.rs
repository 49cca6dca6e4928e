//! The performance monitors of a domain that was given them, and their interrupt (DDI 0406C.d C12). Runs as the only domain,
//! on one CPU, as nobody gives dom0 monitors.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, Ordering};

use guests::gic::MONITORS;
use guests::harness::Verdict;
use guests::{clock, cp15, ensure, ensure_eq, gic, interrupt, smp, suite};

suite! { "monitors":
    cycles_are_counted_while_the_counter_is_on,
    an_overflow_interrupts_once,
    it_interrupts_again_until_it_is_cleared,
    each_overflow_interrupts,
    an_overflow_waits_for_its_interrupt_to_be_enabled,
    an_event_counter_interrupts_too,
    an_overflow_without_its_enable_does_not_interrupt,
    each_vcpu_has_counters_and_interrupts_of_its_own,
}

/// PMCR.E, P and C.
const ENABLED: u32 = 1;
const RESET: u32 = 6;
/// The cycle counter's bit in the registers of sets.
const CYCLES: u32 = 1 << 31;
/// The first event counter's.
const EVENT: u32 = 1;
/// The event of a cycle.
const CPU_CYCLES: u32 = 0x11;
/// Cycles before an overflow.
const SOON: u32 = 100_000;

/// Overflows that the handler leaves as they are.
static LEFT: AtomicU32 = AtomicU32::new(0);
/// Overflows that the handler makes again.
static AGAIN: AtomicU32 = AtomicU32::new(0);

/// Takes one off a number that is not zero.
fn take(from: &AtomicU32) -> bool {
    from.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

fn handler(value: u32) {
    if value & gic::INTID_MASK != MONITORS || take(&LEFT) {
        return;
    }
    cp15::write_pmovsr(cp15::pmovsr());
    match take(&AGAIN) {
        true => cp15::write_pmccntr(0u32.wrapping_sub(SOON)),
        false => cp15::write_pmcr(0),
    }
}

/// Stops and clears everything, and lets the handler see the interrupt.
fn begin() {
    cp15::write_pmcr(RESET);
    cp15::write_pmcntenclr(u32::MAX);
    cp15::write_pmintenclr(u32::MAX);
    cp15::write_pmovsr(u32::MAX);
    LEFT.store(0, Ordering::SeqCst);
    AGAIN.store(0, Ordering::SeqCst);
    interrupt::reset();
    interrupt::set_hook(handler);
    gic::enable(MONITORS);
}

/// Lets the cycle counter overflow in a while.
fn count_down() {
    cp15::write_pmccntr(0u32.wrapping_sub(SOON));
    cp15::write_pmcntenset(CYCLES);
    cp15::write_pmcr(ENABLED);
}

/// Lets it interrupt then.
fn arm() {
    cp15::write_pmintenset(CYCLES);
    count_down();
}

fn cycles_are_counted_while_the_counter_is_on() -> Verdict {
    begin();
    cp15::write_pmcntenset(CYCLES);
    cp15::write_pmcr(ENABLED);
    ensure!(clock::poll(|| cp15::pmccntr() > SOON));
    cp15::write_pmcr(0);
    let stopped = cp15::pmccntr();
    clock::delay(interrupt::SETTLE_US);
    ensure_eq!(cp15::pmccntr(), stopped);
    Ok(())
}

fn an_overflow_interrupts_once() -> Verdict {
    begin();
    arm();
    ensure!(interrupt::comes(MONITORS, 1));
    Ok(())
}

fn it_interrupts_again_until_it_is_cleared() -> Verdict {
    begin();
    LEFT.store(2, Ordering::SeqCst);
    arm();
    ensure!(interrupt::comes(MONITORS, 3));
    Ok(())
}

fn each_overflow_interrupts() -> Verdict {
    begin();
    AGAIN.store(9, Ordering::SeqCst);
    arm();
    ensure!(interrupt::comes(MONITORS, 10));
    Ok(())
}

fn an_overflow_waits_for_its_interrupt_to_be_enabled() -> Verdict {
    begin();
    gic::disable(MONITORS);
    arm();
    ensure!(clock::poll(|| cp15::pmovsr() & CYCLES != 0));
    interrupt::settle();
    ensure_eq!(interrupt::count(MONITORS), 0);
    gic::enable(MONITORS);
    ensure!(interrupt::comes(MONITORS, 1));
    Ok(())
}

fn an_event_counter_interrupts_too() -> Verdict {
    begin();
    cp15::write_pmselr(0);
    cp15::write_pmxevtyper(CPU_CYCLES);
    cp15::write_pmxevcntr(0u32.wrapping_sub(SOON));
    cp15::write_pmintenset(EVENT);
    cp15::write_pmcntenset(EVENT);
    cp15::write_pmcr(ENABLED);
    ensure!(interrupt::comes(MONITORS, 1));
    Ok(())
}

fn an_overflow_without_its_enable_does_not_interrupt() -> Verdict {
    begin();
    count_down();
    ensure!(clock::poll(|| cp15::pmovsr() & CYCLES != 0));
    interrupt::settle();
    ensure_eq!(interrupt::count(MONITORS), 0);
    Ok(())
}

/// Takes ten overflows on another vCPU, while this one takes its own: both are on one CPU, and take turns.
fn each_vcpu_has_counters_and_interrupts_of_its_own() -> Verdict {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    static READY: AtomicU32 = AtomicU32::new(0);
    const ROUNDS: u32 = 10;
    /// Returns the number of overflows that interrupted exactly once.
    fn rounds() -> u32 {
        let once = |round: &u32| {
            arm();
            interrupt::comes(MONITORS, *round as usize)
        };
        (1..=ROUNDS).filter(once).count() as u32
    }
    begin();
    ensure_eq!(
        smp::start(1, || {
            // A vCPU that starts has no handler.
            begin();
            READY.store(1, Ordering::SeqCst);
            TAKEN.store(rounds(), Ordering::SeqCst);
        }),
        0
    );
    ensure!(clock::poll(|| READY.load(Ordering::SeqCst) == 1));
    ensure_eq!(rounds(), ROUNDS);
    ensure!(smp::goes_off(1));
    ensure_eq!(TAKEN.load(Ordering::SeqCst), ROUNDS);
    Ok(())
}
