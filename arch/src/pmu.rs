//! Performance monitors given to a guest (DDI 0406C.d C12, B4.1).
//!
//! Accesses trap (HDCR.TPM, TPMCR), except for guests that were given the monitors. Such a guest's counters are saved
//! and stopped with its vCPU, and reset for the next guest, which lowers the line of their interrupt.

use crate::barrier::isb;
use crate::{cp15, features};

/// HDCR.TPM and TPMCR: accesses trap.
const TRAPS: u32 = 1 << 6 | 1 << 5;
/// HDCR.HPMN: number of counters for PL1.
const HPMN: u32 = 0x1F;
/// PMCR.E: enables the counters.
const PMCR_E: u32 = 1;
/// PMCR.DP, X, D and E, which keep their value; P and C act when written.
const PMCR_KEPT: u32 = 0x39;
/// Maximum number of event counters.
const MOST: usize = 31;

/// A guest's access to the performance monitors.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Access {
    /// Accesses trap.
    #[default]
    Traps,
    /// Direct access.
    Native,
}

impl Access {
    /// Returns the access of a guest that is to have monitors, or not; `None` if it is to, and the processor has none.
    pub fn wanted(monitors: bool) -> Option<Self> {
        match monitors {
            false => Some(Self::Traps),
            true => features::has_monitors().then_some(Self::Native),
        }
    }
}

/// State of a vCPU's monitors that is not in the hardware.
#[derive(Clone, Debug, Default)]
pub struct Monitors {
    pmcr: u32,
    pmselr: u32,
    pmuserenr: u32,
    pmcntenset: u32,
    pmintenset: u32,
    pmovsset: u32,
    pmccntr: u32,
    /// Event type and count.
    events: [(u32, u32); MOST],
}

/// Returns whether the loaded guest has access to the monitors.
fn are_open() -> bool {
    cp15::Hdcr::read() & TRAPS == 0
}

impl Monitors {
    /// Words that [`Self::each_word`] shows.
    pub(crate) const WORDS: usize = 7 + 2 * MOST;

    /// Shows the registers, and takes what they are changed to.
    pub(crate) fn each_word(&mut self, show: &mut dyn FnMut(&mut u32)) {
        let Self {
            pmcr,
            pmselr,
            pmuserenr,
            pmcntenset,
            pmintenset,
            pmovsset,
            pmccntr,
            events,
        } = self;
        for register in [
            pmcr, pmselr, pmuserenr, pmcntenset, pmintenset, pmovsset, pmccntr,
        ] {
            show(register);
        }
        for (kind, count) in events {
            show(kind);
            show(count);
        }
    }

    /// Loads the monitors and gives the loaded guest access.
    #[cold]
    pub(crate) fn load(&self) {
        // SAFETY: the counters count PL1's events only, and the hypervisor uses none.
        unsafe {
            cp15::Hdcr::write(cp15::Hdcr::read() & !TRAPS);
            reset();
            cp15::Pmccntr::write(self.pmccntr);
            for (number, (kind, count)) in self.events() {
                cp15::Pmselr::write(number);
                isb();
                cp15::Pmxevtyper::write(*kind);
                cp15::Pmxevcntr::write(*count);
            }
            cp15::Pmselr::write(self.pmselr);
            cp15::Pmuserenr::write(self.pmuserenr);
            cp15::Pmovsset::write(self.pmovsset);
            cp15::Pmintenset::write(self.pmintenset);
            cp15::Pmcntenset::write(self.pmcntenset);
            cp15::Pmcr::write(self.pmcr & PMCR_KEPT);
        }
    }

    /// Saves, stops and resets the monitors if the loaded guest has access, and makes accesses trap.
    pub(crate) fn save(&mut self) {
        if are_open() {
            self.take();
        }
    }

    #[cold]
    fn take(&mut self) {
        self.pmcr = cp15::Pmcr::read();
        // SAFETY: as for the load.
        unsafe { cp15::Pmcr::write(self.pmcr & PMCR_KEPT & !PMCR_E) };
        isb();
        self.pmselr = cp15::Pmselr::read();
        self.pmuserenr = cp15::Pmuserenr::read();
        self.pmcntenset = cp15::Pmcntenset::read();
        self.pmintenset = cp15::Pmintenset::read();
        self.pmovsset = cp15::Pmovsset::read();
        self.pmccntr = cp15::Pmccntr::read();
        for (number, event) in (0..).zip(self.events.iter_mut().take(count())) {
            // SAFETY: as above.
            unsafe { cp15::Pmselr::write(number) };
            isb();
            *event = (cp15::Pmxevtyper::read(), cp15::Pmxevcntr::read());
        }
        // SAFETY: as above.
        unsafe {
            reset();
            cp15::Hdcr::write(cp15::Hdcr::read() | TRAPS);
        }
    }

    fn events(&self) -> impl Iterator<Item = (u32, &(u32, u32))> {
        (0..).zip(self.events.iter().take(count()))
    }
}

/// Returns the number of event counters for PL1.
fn count() -> usize {
    (cp15::Hdcr::read() & HPMN) as usize
}

/// Stops and resets all counters.
///
/// # Safety
/// Counter values in use must have been saved.
unsafe fn reset() {
    /// PMCR.P and C: reset event counters and cycle counter.
    const ZERO: u32 = 1 << 1 | 1 << 2;
    // SAFETY: passed on to the caller.
    unsafe {
        cp15::Pmcr::write(ZERO);
        cp15::Pmcntenclr::write(!0);
        cp15::Pmintenclr::write(!0);
        cp15::Pmovsr::write(!0);
        cp15::Pmuserenr::write(0);
    }
    isb();
}

#[cfg(test)]
mod tests {
    use super::{Monitors, TRAPS, are_open};
    use crate::cp15;

    #[test]
    fn monitors_trap_again_when_their_guest_is_gone_and_keep_its_state() {
        // SAFETY: cells of a host thread.
        unsafe { cp15::Hdcr::write(TRAPS | 6) };
        let mut monitors = Monitors::default();
        monitors.save();
        assert!(!are_open());
        monitors.load();
        assert!(are_open());
        // SAFETY: as above. On the host all event counters share their cells.
        unsafe {
            cp15::Pmccntr::write(77);
            cp15::Pmcntenset::write(0x8000_0001);
            cp15::Pmcr::write(1);
            cp15::Pmxevcntr::write(5);
        }
        monitors.save();
        assert!(!are_open());
        assert_eq!(
            cp15::Hdcr::read(),
            TRAPS | 6,
            "the number of counters stays"
        );
        assert_eq!(cp15::Pmcr::read() & 1, 0, "nothing counts");
        assert_eq!(monitors.events.map(|(_, count)| count)[5..7], [5, 0]);
        let before = format!("{monitors:?}");
        monitors.load();
        assert_eq!((cp15::Pmccntr::read(), cp15::Pmcr::read()), (77, 1));
        monitors.save();
        assert_eq!(format!("{monitors:?}"), before);
    }
}
