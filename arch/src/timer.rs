//! The generic timer (DDI 0406C.d B8): the counter, the hypervisor's own timer, and a guest's virtual timer.
//!
//! CNTHP belongs to the hypervisor, CNTV to the guest that is loaded. CNTP is not given to guests: CNTHCTL lets PL1 read
//! the physical counter and traps the physical timer, which is emulated.

use crate::barrier::isb;
use crate::cp15;

const ENABLE: u32 = 1;
const IMASK: u32 = 1 << 1;

/// CNTHCTL: PL1 may read the physical counter (PL1PCTEN), and its accesses to the physical timer trap.
pub const CNTHCTL: u32 = 1;

/// Returns the ticks per second as firmware left it in CNTFRQ; 0 when it did not.
pub fn frequency() -> u32 {
    cp15::Cntfrq::read()
}

/// Returns the time, in ticks of the physical counter.
#[inline]
pub fn counter() -> u64 {
    isb();
    cp15::Cntpct::read()
}

/// Makes this CPU's hypervisor timer fire at `deadline`, or never.
#[inline]
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

/// Returns whether the loaded guest's virtual timer signals its interrupt: on, not masked, condition met.
#[inline]
pub fn guest_signals() -> bool {
    const ISTATUS: u32 = 1 << 2;
    cp15::CntvCtl::read() & (ENABLE | IMASK | ISTATUS) == ENABLE | ISTATUS
}

/// A vCPU's virtual timer, while it is not in the hardware.
#[derive(Clone, Copy, Debug, Default)]
pub struct VirtualTimer {
    ctl: u32,
    cval: u64,
}

impl VirtualTimer {
    /// The loaded guest's timer, read without disturbing it.
    #[inline]
    pub fn read() -> Self {
        Self {
            ctl: cp15::CntvCtl::read(),
            cval: cp15::CntvCval::read(),
        }
    }

    /// Takes the timer out of the hardware, which stays silent.
    pub(crate) fn save(&mut self) {
        *self = Self::read();
        // SAFETY: PL1 state of a guest that is being unloaded.
        unsafe { cp15::CntvCtl::write(0) };
        isb();
    }

    /// Puts the timer back.
    pub(crate) fn load(&self) {
        // SAFETY: PL1 state of the guest that is being loaded.
        unsafe {
            cp15::CntvCval::write(self.cval);
            cp15::CntvCtl::write(self.ctl & (ENABLE | IMASK));
        }
    }

    /// Returns when the timer fires, in ticks of the virtual counter; `None` when it is off or masked.
    #[inline]
    pub fn deadline(&self) -> Option<u64> {
        (self.ctl & (ENABLE | IMASK) == ENABLE).then_some(self.cval)
    }
}

#[cfg(target_arch = "arm")]
/// Sets up this CPU's timers: PL1 may read the physical counter but not touch the physical timer (CNTHCTL).
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
