//! The generic timer (DDI 0406C.d B8): the counter, the hypervisor's own timer, and a guest's virtual timer.
//!
//! CNTHP belongs to the hypervisor, CNTV to the loaded guest. CNTP is not given to guests: CNTHCTL lets PL1 read the
//! physical counter and traps the physical timer, which is emulated.

use crate::barrier::isb;
use crate::cp15;

const ENABLE: u32 = 1;
const IMASK: u32 = 1 << 1;

/// CNTHCTL: PL1 may read the physical counter (PL1PCTEN), and its accesses to the physical timer trap.
pub const CNTHCTL: u32 = 1;

/// Returns CNTFRQ in Hz; 0 if firmware did not set it.
pub fn frequency() -> u32 {
    cp15::Cntfrq::read()
}

/// Returns the physical counter, in ticks.
pub fn counter() -> u64 {
    isb();
    cp15::Cntpct::read()
}

/// Programs this CPU's hypervisor timer for `deadline`, in ticks; `None` disables it.
pub fn set_deadline(deadline: Option<u64>) {
    // SAFETY: the hypervisor's timer only raises an interrupt.
    unsafe {
        match deadline {
            Some(ticks) => {
                cp15::CnthpCval::write(ticks);
                cp15::CnthpCtl::write(ENABLE);
            }
            None => cp15::CnthpCtl::write(0),
        }
    }
}

/// Returns whether the loaded guest's virtual timer asserts its interrupt: enabled, not masked, condition met.
pub fn guest_signals() -> bool {
    const ISTATUS: u32 = 1 << 2;
    cp15::CntvCtl::read() & (ENABLE | IMASK | ISTATUS) == ENABLE | ISTATUS
}

/// State of a vCPU's virtual timer that is not in the hardware.
#[derive(Clone, Copy, Debug, Default)]
pub struct VirtualTimer {
    ctl: u32,
    cval: u64,
}

impl VirtualTimer {
    /// A timer with this control word, of which enable and mask count, and compare value.
    pub const fn new(ctl: u32, cval: u64) -> Self {
        Self {
            ctl: ctl & (ENABLE | IMASK),
            cval,
        }
    }

    /// Returns the control word without the status, and the compare value.
    pub const fn registers(&self) -> (u32, u64) {
        (self.ctl & (ENABLE | IMASK), self.cval)
    }

    /// Reads the loaded guest's timer without changing it.
    pub fn read() -> Self {
        Self {
            ctl: cp15::CntvCtl::read(),
            cval: cp15::CntvCval::read(),
        }
    }

    /// Saves and disables the loaded guest's timer.
    pub(crate) fn save(&mut self) {
        *self = Self::read();
        // SAFETY: PL1 state of a guest that is being unloaded.
        unsafe { cp15::CntvCtl::write(0) };
        isb();
    }

    /// Loads the timer.
    pub(crate) fn load(&self) {
        // SAFETY: PL1 state of the guest that is being loaded.
        unsafe {
            cp15::CntvCval::write(self.cval);
            cp15::CntvCtl::write(self.ctl & (ENABLE | IMASK));
        }
    }

    /// Returns the timer's deadline, in ticks of the virtual counter; `None` if it is disabled or masked.
    pub fn deadline(&self) -> Option<u64> {
        (self.ctl & (ENABLE | IMASK) == ENABLE).then_some(self.cval)
    }
}

#[cfg(target_arch = "arm")]
/// Sets up this CPU's timers: PL1 may read the physical counter but not access the physical timer (CNTHCTL).
pub(crate) fn init_cpu() {
    // SAFETY: no guest runs yet.
    unsafe {
        cp15::Cnthctl::write(CNTHCTL);
        cp15::CnthpCtl::write(0);
        cp15::CntvCtl::write(0);
        cp15::CntpCtl::write(0);
        cp15::Cntvoff::write(0);
    }
    isb();
}
