//! Asynchronous aborts: memory system errors that arrive after the access that caused them (DDI 0406C.d B3.12.4).
//!
//! While a guest runs they trap to the hypervisor (HCR.AMO). While the hypervisor runs they are masked (CPSR.A) and
//! stay pending, so an abort caused by one guest may arrive when another is loaded, unless [`synchronize`] is called in
//! between.

#[cfg(target_arch = "arm")]
use crate::barrier::dsb_sy;
use crate::cp15;

/// ISR.A: an asynchronous abort is pending (DDI 0406C.d B4.1.98).
const ISR_A: u32 = 1 << 8;

/// Returns whether an asynchronous abort is pending on this CPU.
pub fn is_pending() -> bool {
    cp15::Isr::read() & ISR_A != 0
}

/// Completes all accesses made so far (DSB), then takes the asynchronous abort that is pending. Returns whether there
/// was one.
pub fn synchronize() -> bool {
    #[cfg(target_arch = "arm")]
    dsb_sy();
    is_pending() && take()
}

#[cfg(target_arch = "arm")]
#[cold]
fn take() -> bool {
    unsafe extern "C" {
        fn take_pending_abort() -> u32;
    }
    // SAFETY: the assembly unmasks aborts for a few instructions; `hyp_fault_report` recognizes an abort taken there.
    unsafe { take_pending_abort() != 0 }
}

#[cfg(not(target_arch = "arm"))]
fn take() -> bool {
    crate::host::registers::set_async_abort(false);
    true
}

#[cfg(test)]
mod tests {
    use super::{is_pending, synchronize};
    use crate::host::registers::set_async_abort;

    #[test]
    fn a_pending_abort_is_taken_once() {
        assert!(!synchronize());
        set_async_abort(true);
        assert!(is_pending() && synchronize());
        assert!(!is_pending() && !synchronize());
    }
}
