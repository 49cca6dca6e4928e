//! Asynchronous aborts: errors of the memory system that arrive after the access that caused them (DDI 0406C.d B3.12.4).
//!
//! While a guest runs they trap to the hypervisor (HCR.AMO). While the hypervisor runs they are masked (CPSR.A) and stay
//! pending, so that one which a guest caused may arrive when another has been loaded. [`settle`] is for that moment.

#[cfg(target_arch = "arm")]
use crate::barrier::dsb_sy;
use crate::cp15;

/// ISR.A: one is pending (DDI 0406C.d B4.1.98).
const ISR_A: u32 = 1 << 8;

/// Returns whether an asynchronous abort is pending on this CPU.
#[inline]
pub fn is_pending() -> bool {
    cp15::Isr::read() & ISR_A != 0
}

/// Waits until every access made so far is complete, and takes the asynchronous abort that is pending then; whether there
/// was one.
#[inline]
pub fn settle() -> bool {
    #[cfg(target_arch = "arm")]
    dsb_sy();
    is_pending() && take()
}

#[cfg(target_arch = "arm")]
#[cold]
fn take() -> bool {
    unsafe extern "C" {
        fn settle_abort() -> u32;
    }
    // SAFETY: the assembly unmasks aborts for a moment; `hyp_fault_report` knows one that arrives there.
    unsafe { settle_abort() != 0 }
}

#[cfg(not(target_arch = "arm"))]
fn take() -> bool {
    crate::host::registers::set_async_abort(false);
    true
}

#[cfg(test)]
mod tests {
    use super::{is_pending, settle};
    use crate::host::registers::set_async_abort;

    #[test]
    fn a_pending_abort_is_taken_once() {
        assert!(!settle());
        set_async_abort(true);
        assert!(is_pending() && settle());
        assert!(!is_pending() && !settle());
    }
}
