//! The emulated physical timer (CNTP) of a vCPU: its registers and its deadline. A software timer stands in for the
//! hardware (`trap`); the interrupt is PPI 30.
//!
//! The virtual timer is not emulated, as guests own it (`armv7::timer`). Guests see the physical counter itself, so
//! CNTP's compare value is in the machine's ticks (DDI 0406C.d B8.1.5).

use super::cp15::TimerAccess;

const ENABLE: u32 = 1;
const IMASK: u32 = 1 << 1;
const ISTATUS: u32 = 1 << 2;

/// State of one vCPU's physical timer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PhysicalTimer {
    ctl: u32,
    cval: u64,
}

impl PhysicalTimer {
    /// A timer with this control word, of which enable and mask count, and compare value.
    pub const fn new(ctl: u32, cval: u64) -> Self {
        Self {
            ctl: ctl & (ENABLE | IMASK),
            cval,
        }
    }

    /// Returns the control word and the compare value.
    pub const fn registers(&self) -> (u32, u64) {
        (self.ctl, self.cval)
    }

    /// Performs an access at `now`. Returns the value of a read.
    pub fn access(&mut self, access: TimerAccess, value: u64, now: u64) -> u64 {
        match access {
            TimerAccess::ReadControl => {
                let status = if self.ctl & ENABLE != 0 && self.cval <= now {
                    ISTATUS
                } else {
                    0
                };
                return (self.ctl | status).into();
            }
            TimerAccess::ReadValue => return self.cval.wrapping_sub(now) & 0xFFFF_FFFF,
            TimerAccess::ReadCompare => return self.cval,
            TimerAccess::WriteControl => self.ctl = value as u32 & (ENABLE | IMASK),
            // TVAL is a signed distance from now.
            TimerAccess::WriteValue => {
                self.cval = now.wrapping_add_signed(i64::from(value as u32 as i32))
            }
            TimerAccess::WriteCompare => self.cval = value,
        }
        0
    }

    /// Returns the deadline in ticks; `None` if the timer is disabled or masked.
    pub fn deadline(&self) -> Option<u64> {
        (self.ctl & (ENABLE | IMASK) == ENABLE).then_some(self.cval)
    }
}

#[cfg(test)]
mod tests {
    use super::{ENABLE, IMASK, ISTATUS, PhysicalTimer};
    use crate::emulate::cp15::TimerAccess;

    #[test]
    fn the_timer_value_is_a_signed_distance_from_now() {
        let mut timer = PhysicalTimer::default();
        timer.access(TimerAccess::WriteValue, 100, 1000);
        assert_eq!(timer.access(TimerAccess::ReadCompare, 0, 1000), 1100);
        assert_eq!(
            timer.access(TimerAccess::ReadValue, 0, 1200),
            u64::from(-100i32 as u32)
        );
        timer.access(TimerAccess::WriteValue, u64::from(-1i32 as u32), 1000);
        assert_eq!(timer.access(TimerAccess::ReadCompare, 0, 1000), 999);
    }

    #[test]
    fn an_interrupt_is_due_only_when_enabled_and_unmasked() {
        let mut timer = PhysicalTimer::default();
        timer.access(TimerAccess::WriteCompare, 50, 0);
        assert_eq!(timer.deadline(), None);
        timer.access(TimerAccess::WriteControl, ENABLE.into(), 0);
        assert_eq!(timer.deadline(), Some(50));
        timer.access(TimerAccess::WriteControl, u64::from(ENABLE | IMASK), 0);
        assert_eq!(timer.deadline(), None);
    }

    #[test]
    fn the_status_bit_tells_whether_the_time_has_come() {
        let mut timer = PhysicalTimer::default();
        timer.access(TimerAccess::WriteCompare, 50, 0);
        timer.access(TimerAccess::WriteControl, u64::from(ENABLE | ISTATUS), 0);
        assert_eq!(
            timer.access(TimerAccess::ReadControl, 0, 49),
            u64::from(ENABLE)
        );
        assert_eq!(
            timer.access(TimerAccess::ReadControl, 0, 50),
            u64::from(ENABLE | ISTATUS)
        );
    }
}
