//! Scheduler operations (xen/include/public/sched.h).

use crate::abi::handle::GuestHandle;
use crate::abi::layout::Layout;
use crate::{abi_constants, abi_struct};

/// Most ports that one `poll` may name.
pub const POLL_MAX_PORTS: u32 = 128;

abi_constants! {
    /// Gives up the CPU.
    OP_YIELD: u32 = 0, "SCHEDOP_yield";
    /// Waits for an event.
    OP_BLOCK: u32 = 1, "SCHEDOP_block";
    /// Shuts the caller down.
    OP_SHUTDOWN: u32 = 2, "SCHEDOP_shutdown";
    /// Waits for one of some events.
    OP_POLL: u32 = 3, "SCHEDOP_poll";
    /// Shuts another domain down.
    OP_REMOTE_SHUTDOWN: u32 = 4, "SCHEDOP_remote_shutdown";
    /// Records a reason without shutting down.
    OP_SHUTDOWN_CODE: u32 = 5, "SCHEDOP_shutdown_code";
    /// Sets up, kicks or ends a watchdog.
    OP_WATCHDOG: u32 = 6, "SCHEDOP_watchdog";
    /// Pins the caller's vCPU for a while.
    OP_PIN_OVERRIDE: u32 = 7, "SCHEDOP_pin_override";

    /// Reason: off.
    SHUTDOWN_POWEROFF: u32 = 0, "SHUTDOWN_poweroff";
    /// Reason: restart.
    SHUTDOWN_REBOOT: u32 = 1, "SHUTDOWN_reboot";
    /// Reason: suspended.
    SHUTDOWN_SUSPEND: u32 = 2, "SHUTDOWN_suspend";
    /// Reason: crashed.
    SHUTDOWN_CRASH: u32 = 3, "SHUTDOWN_crash";
    /// Reason: a watchdog expired.
    SHUTDOWN_WATCHDOG: u32 = 4, "SHUTDOWN_watchdog";
    /// Reason: reset in place.
    SHUTDOWN_SOFT_RESET: u32 = 5, "SHUTDOWN_soft_reset";
    /// Highest reason.
    SHUTDOWN_MAX: u32 = 5, "SHUTDOWN_MAX";
}

abi_struct! {
    /// Argument of `shutdown` and `shutdown_code`.
    pub struct SchedShutdown: "struct sched_shutdown", 4, align 4 {
        /// `SHUTDOWN_*`.
        0 "reason" => reason: u32,
    }
}

abi_struct! {
    /// Argument of `poll`.
    pub struct SchedPoll: "struct sched_poll", 24, align 8 {
        /// The ports.
        0 "ports" => ports: GuestHandle<u32>,
        /// Their number.
        8 "nr_ports" => nr_ports: u32,
        12 _ => _pad: u32,
        /// System time in ns, or 0 to wait for ever.
        16 "timeout" => timeout: u64,
    }
}

abi_struct! {
    /// Argument of `remote_shutdown`.
    pub struct SchedRemoteShutdown: "struct sched_remote_shutdown", 8, align 4 {
        /// The domain.
        0 "domain_id" => domain_id: u16,
        2 _ => _pad: u16,
        /// `SHUTDOWN_*`.
        4 "reason" => reason: u32,
    }
}

abi_struct! {
    /// Argument of `watchdog`.
    pub struct SchedWatchdog: "struct sched_watchdog", 8, align 4 {
        /// Id; 0 for a new one.
        0 "id" => id: u32,
        /// Seconds; 0 ends it.
        4 "timeout" => timeout: u32,
    }
}

abi_struct! {
    /// Argument of `pin_override`.
    pub struct SchedPinOverride: "struct sched_pin_override", 4, align 4 {
        /// CPU, or negative to undo.
        0 "pcpu" => pcpu: i32,
    }
}

/// All structures of this file.
pub const LAYOUTS: &[Layout] = &[
    SchedShutdown::LAYOUT,
    SchedPoll::LAYOUT,
    SchedRemoteShutdown::LAYOUT,
    SchedWatchdog::LAYOUT,
    SchedPinOverride::LAYOUT,
];
