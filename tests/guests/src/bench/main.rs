//! Measures the hypervisor's services in executed instructions.
//!
//! Run under `-icount shift=0,sleep=off` with one CPU: an instruction takes one nanosecond of virtual time, so counter
//! ticks are instructions and a figure is exact. Each row is the mean over `n` rounds less the empty loop, and includes
//! what the guest itself executes in a round (its interrupt path is 20 instructions long). Without icount the numbers mean
//! nothing.
//!
//! Boot arguments: `part=one` (default), `part=two` (two vCPUs on one CPU), `part=scale` (many domains); `trace=yes` runs
//! each row of the part once, between marks. Without a hypervisor only rows without hypercalls are measured.
#![no_std]
#![no_main]

mod device;
mod domains;
mod measure;
mod one;
mod two;

use guests::gic::VIRTUAL_TIMER;
use guests::{clock, cp15, gic, harness, platform, println};

#[unsafe(no_mangle)]
extern "C" fn guest_main() -> ! {
    println!("guest: bench");
    println!("bench reset_to_guest {}", clock::at_entry() * measure::instructions_per_tick());
    measure::use_vectors();
    let_background_work_end();
    measure::measure_empty_loop();
    measure::wait_for_trace();
    match platform::get().arguments("part").next() {
        Some("two") => two::rows(),
        Some("scale") => domains::scale(),
        _ => one_vcpu(),
    }
    println!("done: all rows");
    harness::power_off()
}

fn one_vcpu() {
    let guest = platform::get().is_guest();
    if guest {
        one::hypercalls();
    }
    one::firmware();
    one::emulated_registers();
    one::interrupts();
    one::timers();
    one::touch();
    if guest {
        one::blocking();
        one::events();
        one::grants();
        one::memory();
        domains::rows();
    }
    device::rows();
}

/// Xen scrubs free memory while a vCPU is idle.
fn let_background_work_end() {
    gic::enable(VIRTUAL_TIMER);
    cp15::enable_interrupts();
    for _ in 0..20 {
        cp15::write_cntv_cval(clock::now() + clock::ticks(100_000));
        measure::until_taken(|| {
            cp15::write_cntv_ctl(1);
            cp15::wfi();
        });
    }
}
