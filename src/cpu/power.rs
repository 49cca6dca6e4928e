//! Switching CPUs off and on while the machine runs.
//!
//! A CPU is switched off by itself, once it is in no CPU pool and has no vCPU loaded: another one requests that by
//! [`State::Leaving`]. It is switched on by another one, by firmware, one CPU at a time, and enters as at boot.

use core::sync::atomic::{AtomicU8, Ordering};

use armv7::cpu::{CpuId, CpuSet, MAX_CPUS};
use armv7::smc;
use spin::Once;

/// State of a CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum State {
    /// It has never started.
    Absent = 0,
    /// It runs.
    On = 1,
    /// It is to switch itself off.
    Leaving = 2,
    /// It is off.
    Off = 3,
    /// Firmware starts it.
    Starting = 4,
}

/// Reason a CPU cannot be switched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The machine has no PSCI by SMC, or the CPU was not started by it.
    NoFirmware,
    /// Firmware refuses.
    Firmware(i32),
}

/// The functions of firmware, and of the boot.
#[derive(Debug)]
pub struct Firmware {
    /// CPUs that it can switch.
    pub cpus: CpuSet,
    /// Function id of CPU_OFF.
    pub cpu_off: u32,
    /// Begins to start a CPU that is off. Returns PSCI's result.
    pub start: fn(CpuId) -> i32,
    /// Returns how far the start is.
    pub poll: fn(CpuId) -> Progress,
}

/// Progress of a CPU's start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// It has not arrived.
    Waits,
    /// It runs.
    Arrived,
    /// It has not arrived in time, and may not come any more.
    TimedOut,
}

static FIRMWARE: Once<Firmware> = Once::new();
static STATES: [AtomicU8; MAX_CPUS] = [const { AtomicU8::new(State::Absent as u8) }; MAX_CPUS];

/// Sets the functions. Only the first call has an effect.
pub fn init(firmware: Firmware) {
    FIRMWARE.call_once(|| firmware);
}

/// Returns the functions for a CPU.
fn firmware(cpu: CpuId) -> Result<&'static Firmware, Refusal> {
    FIRMWARE
        .get()
        .filter(|firmware| firmware.cpus.contains(cpu))
        .ok_or(Refusal::NoFirmware)
}

/// Returns whether a CPU can be switched off and on.
pub fn check(cpu: CpuId) -> Result<(), Refusal> {
    firmware(cpu).map(drop)
}

/// Returns the state of a CPU.
pub fn state(cpu: CpuId) -> State {
    match STATES[cpu.index() % MAX_CPUS].load(Ordering::SeqCst) {
        1 => State::On,
        2 => State::Leaving,
        3 => State::Off,
        4 => State::Starting,
        _ => State::Absent,
    }
}

/// Sets the state of a CPU.
fn set(cpu: CpuId, state: State) {
    STATES[cpu.index() % MAX_CPUS].store(state as u8, Ordering::SeqCst);
}

/// Returns the CPUs in a state that `is_wanted`.
pub fn all(is_wanted: impl Fn(State) -> bool) -> CpuSet {
    CpuId::all().filter(|cpu| is_wanted(state(*cpu))).collect()
}

/// Makes a CPU switch itself off. It must be in no CPU pool.
pub fn request_off(cpu: CpuId) {
    set(cpu, State::Leaving);
    super::repick(cpu);
}

/// Returns whether this CPU is to switch itself off.
#[inline(always)]
pub fn is_leaving(cpu: CpuId) -> bool {
    STATES[cpu.index() % MAX_CPUS].load(Ordering::Relaxed) == State::Leaving as u8
}

/// Records that this CPU is off: no other one interrupts it or waits for it from now on. All others are held.
pub fn retire(cpu: CpuId) {
    super::TARGETS.set(cpu, 0);
    set(cpu, State::Off);
}

/// Switches this CPU off, after [`retire`]. Returns if firmware refuses.
pub fn off(cpu: CpuId) -> Refusal {
    match firmware(cpu) {
        Ok(firmware) => Refusal::Firmware(smc::cpu_off(firmware.cpu_off)),
        Err(refusal) => refusal,
    }
}

/// Begins to start a CPU that is off; [`poll_start`] must follow until its state is another.
pub fn start(cpu: CpuId) -> Result<(), Refusal> {
    match (firmware(cpu)?.start)(cpu) {
        0 => {
            set(cpu, State::Starting);
            Ok(())
        }
        result => Err(Refusal::Firmware(result)),
    }
}

/// Updates the state of a CPU that is being started.
pub fn poll_start(cpu: CpuId) {
    match firmware(cpu).map(|firmware| (firmware.poll)(cpu)) {
        Ok(Progress::Waits) => {}
        Ok(Progress::Arrived) => set(cpu, State::On),
        Ok(Progress::TimedOut) | Err(_) => set(cpu, State::Off),
    }
}

/// Records that a CPU runs.
pub fn set_on(cpu: CpuId) {
    set(cpu, State::On);
}

#[cfg(test)]
mod tests {
    use super::{Refusal, State, all, check, set, state};
    use armv7::cpu::CpuId;

    #[test]
    fn a_cpu_that_firmware_did_not_start_is_not_switched() {
        assert_eq!(check(CpuId::BOOT), Err(Refusal::NoFirmware));
    }

    #[test]
    fn states_are_kept_for_each_cpu() {
        let cpu = CpuId::new(5).unwrap();
        for wanted in [State::Leaving, State::Off, State::Starting, State::On] {
            set(cpu, wanted);
            assert_eq!(state(cpu), wanted);
            assert!(all(|state| state == wanted).contains(cpu));
        }
        set(cpu, State::Absent);
        assert_eq!(state(cpu), State::Absent);
    }
}
