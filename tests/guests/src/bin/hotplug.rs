//! CPUs that dom0 switches off and on (sysctl cpu_hotplug): what ran there goes on elsewhere, and what was due there comes.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, Ordering};

use guests::domain::{online_cpus, switch_cpu};
use guests::gic::VIRTUAL_TIMER;
use guests::harness::{Failure, Verdict, expect};
use guests::interrupt::TIMER_ENABLED;
use guests::status::{EEXIST, EINVAL, EOPNOTSUPP};
use guests::{clock, cp15, ensure, ensure_eq, gic, interrupt, smp, suite};

suite! { "hotplug":
    a_cpu_goes_off_and_comes_back,
    both_vcpus_run_while_one_cpu_is_off,
    a_vcpu_that_spins_on_a_cpu_that_goes_off_goes_on,
    a_timer_that_waits_on_a_cpu_that_goes_off_fires,
    the_first_cpu_and_absent_ones_stay_as_they_are,
    a_cpu_is_switched_once,
    threads_are_not_switched,
    cpus_that_are_switched_again_and_again_lose_nothing,
}

const ON: u32 = 0;
const OFF: u32 = 1;
/// The highest operation: SMT_DISABLE.
const THREADS_OFF: u32 = 3;

/// Longer than a CPU needs to go off, also on a loaded host.
const WAIT_US: u64 = 200_000;
const ROUNDS: u32 = 50;

/// Switches CPU 1, which tells the number of CPUs that are on then.
fn switch(op: u32) -> Result<u64, Failure> {
    expect(switch_cpu(1, op))?;
    expect(online_cpus())
}

fn a_cpu_goes_off_and_comes_back() -> Verdict {
    ensure_eq!(expect(online_cpus())?, 2);
    ensure_eq!(switch(OFF)?, 1);
    ensure_eq!(switch(ON)?, 2);
    Ok(())
}

fn both_vcpus_run_while_one_cpu_is_off() -> Verdict {
    ensure_eq!(switch(OFF)?, 1);
    let ran = smp::run_on(1, || {});
    ensure_eq!(switch(ON)?, 2);
    ensure!(ran);
    Ok(())
}

static SPINS: AtomicBool = AtomicBool::new(false);
static ENOUGH: AtomicBool = AtomicBool::new(false);

/// Spins without a trap until it is told to stop.
fn spin() {
    SPINS.store(true, Ordering::SeqCst);
    while !ENOUGH.load(Ordering::SeqCst) {
        core::hint::spin_loop();
    }
}

fn a_vcpu_that_spins_on_a_cpu_that_goes_off_goes_on() -> Verdict {
    SPINS.store(false, Ordering::SeqCst);
    ENOUGH.store(false, Ordering::SeqCst);
    ensure_eq!(smp::start(1, spin), 0);
    ensure!(clock::poll(|| SPINS.load(Ordering::SeqCst)));
    // Both vCPUs are on a CPU each.
    ensure_eq!(switch(OFF)?, 1);
    ENOUGH.store(true, Ordering::SeqCst);
    ensure!(smp::goes_off(1));
    ensure_eq!(switch(ON)?, 2);
    Ok(())
}

static WAITS: AtomicBool = AtomicBool::new(false);

/// Arms this vCPU's virtual timer, and waits for it.
fn wait_for_timer() {
    gic::enable(VIRTUAL_TIMER);
    cp15::write_cntv_cval(clock::now() + clock::ticks(WAIT_US));
    cp15::write_cntv_ctl(TIMER_ENABLED);
    WAITS.store(true, Ordering::SeqCst);
    cp15::wfi();
    cp15::write_cntv_ctl(0);
}

fn a_timer_that_waits_on_a_cpu_that_goes_off_fires() -> Verdict {
    for _ in 0..4 {
        WAITS.store(false, Ordering::SeqCst);
        ensure_eq!(smp::start(1, wait_for_timer), 0);
        ensure!(clock::poll(|| WAITS.load(Ordering::SeqCst)));
        ensure_eq!(switch(OFF)?, 1);
        let woke = smp::goes_off(1);
        ensure_eq!(switch(ON)?, 2);
        ensure!(woke);
    }
    Ok(())
}

fn the_first_cpu_and_absent_ones_stay_as_they_are() -> Verdict {
    ensure_eq!(switch_cpu(0, OFF).err().unwrap_or(0), EINVAL);
    for cpu in [2, 7, 8, u32::MAX] {
        for op in [ON, OFF] {
            ensure_eq!(switch_cpu(cpu, op).err().unwrap_or(0), EINVAL, cpu);
        }
    }
    ensure_eq!(expect(online_cpus())?, 2);
    Ok(())
}

fn a_cpu_is_switched_once() -> Verdict {
    ensure_eq!(switch_cpu(1, ON).err().unwrap_or(0), EEXIST);
    ensure_eq!(switch(OFF)?, 1);
    let again = switch_cpu(1, OFF).err().unwrap_or(0);
    ensure_eq!(switch(ON)?, 2);
    ensure_eq!(again, EEXIST);
    Ok(())
}

fn threads_are_not_switched() -> Verdict {
    for op in ON + 2..=THREADS_OFF + 1 {
        ensure_eq!(switch_cpu(1, op).err().unwrap_or(0), EOPNOTSUPP, op);
    }
    Ok(())
}

fn cpus_that_are_switched_again_and_again_lose_nothing() -> Verdict {
    interrupt::reset();
    for round in 0..ROUNDS {
        ensure_eq!(switch(OFF)?, 1, round);
        ensure!(smp::run_on(1, || {}), round);
        ensure_eq!(switch(ON)?, 2, round);
    }
    Ok(())
}
