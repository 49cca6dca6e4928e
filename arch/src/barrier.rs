//! Barriers, ordered against the compiler too (DDI 0406C.d A3.8.3, A8.8.43-44, A8.8.53).

#[cfg(target_arch = "arm")]
macro_rules! barrier {
    ($(#[$doc:meta])* $name:ident, $instruction:literal) => {
        $(#[$doc])*
        #[inline(always)]
        pub fn $name() {
            // SAFETY: a barrier changes no state; without `nomem` the compiler keeps memory accesses on their side of it.
            unsafe { core::arch::asm!($instruction, options(nostack, preserves_flags)) }
        }
    };
}
#[cfg(not(target_arch = "arm"))]
macro_rules! barrier {
    ($(#[$doc:meta])* $name:ident, $instruction:literal) => {
        $(#[$doc])*
        #[inline(always)]
        pub fn $name() {
            crate::host::cells::record(stringify!($name));
            core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
        }
    };
}

barrier!(/// Orders memory accesses as all CPUs of the inner shareable domain see them.
    dmb_ish, "dmb ish");
barrier!(/// Waits until all earlier accesses and maintenance are complete in the inner shareable domain.
    dsb_ish, "dsb ish");
barrier!(/// Waits until all earlier stores are complete in the inner shareable domain.
    dsb_ishst, "dsb ishst");
barrier!(/// Waits until all earlier accesses and maintenance are complete in the whole system.
    dsb_sy, "dsb sy");
barrier!(/// Makes earlier context changes visible to the instructions that follow.
    isb, "isb");

#[cfg(target_arch = "arm")]
barrier!(/// Waits for an interrupt, masked or not.
    wfi, "wfi");
#[cfg(target_arch = "arm")]
barrier!(/// Wakes CPUs that wait in WFE.
    sev, "sev");
/// Stands for waiting for an interrupt. A host has none.
#[cfg(not(target_arch = "arm"))]
pub fn wfi() {
    std::thread::yield_now();
}
