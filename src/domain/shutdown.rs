//! Shutdown of a domain, by its own request or by a fault of its own. The machine ends with the hardware domain.

use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};

use super::{Domain, Halted, registry, send, uart, virq};
use crate::abi::sched as abi;
use crate::cpu;
use crate::event::{EventVirq, Port};
use crate::id::DomId;
use crate::latency;
use crate::machine;
use crate::vcpu::halt;

/// The reasons for a shutdown (SHUTDOWN_*, xen/include/public/sched.h).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Reason {
    /// It switched itself off.
    Poweroff = abi::SHUTDOWN_POWEROFF,
    /// It asked for a restart.
    Reboot = abi::SHUTDOWN_REBOOT,
    /// It is suspended.
    Suspend = abi::SHUTDOWN_SUSPEND,
    /// It crashed.
    Crash = abi::SHUTDOWN_CRASH,
    /// Its watchdog expired.
    Watchdog = abi::SHUTDOWN_WATCHDOG,
    /// It asked for a reset that keeps its memory.
    SoftReset = abi::SHUTDOWN_SOFT_RESET,
}

impl Reason {
    /// Returns the reason with this number.
    pub const fn new(code: u32) -> Option<Self> {
        Some(match code {
            abi::SHUTDOWN_POWEROFF => Self::Poweroff,
            abi::SHUTDOWN_REBOOT => Self::Reboot,
            abi::SHUTDOWN_SUSPEND => Self::Suspend,
            abi::SHUTDOWN_CRASH => Self::Crash,
            abi::SHUTDOWN_WATCHDOG => Self::Watchdog,
            abi::SHUTDOWN_SOFT_RESET => Self::SoftReset,
            _ => return None,
        })
    }
}

/// Shuts a domain down: none of its vCPUs runs again until the toolstack resumes it. The machine ends with the hardware
/// domain.
pub fn shut_down(domain: &Arc<Domain>, reason: Reason) {
    if domain.rights.hardware {
        hardware_domain_ended(reason);
    }
    let mut state = domain.state.lock();
    if state.shutdown.is_some() {
        return;
    }
    let code = state.shutdown_code.unwrap_or(reason as u32);
    state.shutdown = Some(code);
    let subscribed = state.suspend_port;
    drop(state);
    domain.set_halted_all(halt::SHUTDOWN, Halted::Yes);
    uart::close(domain);
    let is_told =
        code == abi::SHUTDOWN_SUSPEND && subscribed != 0 && send(domain, Port(subscribed)).is_ok();
    if !is_told {
        announce();
    }
    let restarts = domain.restarts_on(code);
    if restarts {
        cpu::request_this(cpu::work::RESTARTS);
    }
    if restarts || !has_dom0() {
        match Reason::new(code) {
            Some(reason) => log::info!("{domain} has ended: {reason:?}"),
            None => log::info!("{domain} has ended: code {code}"),
        }
    }
    say_if_none_runs();
}

fn has_dom0() -> bool {
    registry::get(DomId::DOM0).is_some()
}

/// Domains that have ended and are being made again.
static RETURNING: AtomicU32 = AtomicU32::new(0);

/// Sets the number of domains that have ended and are being made again.
pub fn set_returning(count: u32) {
    RETURNING.store(count, Ordering::Relaxed);
}

/// Logs it when the last domain of a machine without dom0 has ended: the machine stays on.
pub fn say_if_none_runs() {
    let runs = |domain: &Domain| {
        let code = domain.state.lock().shutdown;
        code.is_none_or(|code| domain.restarts_on(code))
    };
    let returning = RETURNING.load(Ordering::Relaxed) != 0;
    if !has_dom0() && !returning && registry::all_that(runs).next().is_none() {
        log::info!("No domain runs any more; the machine stays on");
    }
}

/// Shuts a domain down because of a fault of its own, and logs the first one.
pub fn crash(domain: &Arc<Domain>, why: fmt::Arguments<'_>) {
    if domain.state.lock().shutdown.is_none() {
        log::warn!("{domain} crashed: {why}");
    }
    shut_down(domain, Reason::Crash);
}

/// Raises VIRQ_DOM_EXC: the state of some domain changed.
pub fn announce() {
    virq::raise(EventVirq::DOM_EXC);
}

fn hardware_domain_ended(reason: Reason) -> ! {
    latency::report(|ticks, cause, operation| {
        log::info!("masked for {ticks} ticks: {cause:?}, operation {operation}");
    });
    match reason {
        Reason::Poweroff => {
            log::info!("Hardware Dom0 halted: halting machine");
            machine::off()
        }
        Reason::Crash => {
            log::error!("Hardware Dom0 crashed: rebooting machine in 5 seconds.");
            machine::reboot_after_crash()
        }
        Reason::Watchdog => {
            log::error!("Hardware Dom0 shutdown: watchdog rebooting machine");
            machine::reboot()
        }
        Reason::Reboot | Reason::Suspend | Reason::SoftReset => {
            log::info!("Hardware Dom0 shutdown: rebooting machine");
            machine::reboot()
        }
    }
}
