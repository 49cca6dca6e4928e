//! TLB maintenance (DDI 0406C.d B3.10.6).
//!
//! A stage-2 change is complete when the descriptor store is visible to walkers (`dsb ishst`), the broadcast invalidate
//! has finished on every CPU (`dsb ish`), and this CPU has resynchronized (`isb`). With erratum 798181
//! ([`crate::errata::Invalidation`]) another invalidate and barrier follow the first.

use crate::barrier::{dsb_ish, dsb_ishst, isb};
#[cfg(any(target_arch = "arm", test))]
use crate::cp15::{Tlbiallhis, Tlbimvahis};
use crate::cp15::{Tlbiallis, Tlbimvais, Vttbr};
#[cfg(any(target_arch = "arm", test))]
use crate::errata::{self, Invalidation};

/// Invalidates the stage-1 and stage-2 translations of the VMID in `vttbr` on every CPU.
///
/// The operation applies to the current VMID, so `vttbr` is loaded for a moment. Interrupts are masked and no guest
/// access happens in between, so only the invalidate uses it.
pub fn flush_vmid(vttbr: u64) {
    flush_vmid_and(vttbr, || {});
}

/// Does as [`flush_vmid`], with a second invalidate.
pub fn flush_vmid_repeated(vttbr: u64) {
    flush_vmid_and(vttbr, repeat);
}

#[inline(always)]
fn flush_vmid_and(vttbr: u64, finish: impl FnOnce()) {
    dsb_ishst();
    let current = Vttbr::read();
    // SAFETY: `vttbr` is the value of a live stage-2 map, and no access uses it before the current one is restored.
    unsafe {
        if current != vttbr {
            Vttbr::write(vttbr);
            isb();
        }
        Tlbiallis::write(0);
        dsb_ish();
        finish();
        if current != vttbr {
            Vttbr::write(current);
        }
    }
    isb();
}

/// Invalidates again, any translation: only the second one's completion implies the first one's (erratum 798181).
fn repeat() {
    // SAFETY: invalidating translations is always allowed; the tables are the source.
    unsafe { Tlbimvais::write(0) };
    dsb_ish();
}

/// Repeats if the processor needs it. Needs no barrier on other CPUs: they used the hypervisor's old translation under
/// a lock, or before they reported completion, and both imply a barrier.
#[cfg(any(target_arch = "arm", test))]
fn repeat_if_needed() {
    if errata::invalidation() != Invalidation::Plain {
        repeat();
    }
}

#[cfg(any(target_arch = "arm", test))]
/// Invalidates the hypervisor's own translation of the page at `va` on every CPU.
pub(crate) fn flush_hyp_page(va: usize) {
    dsb_ishst();
    // SAFETY: invalidating translations is always allowed; the tables are the source.
    unsafe { Tlbimvahis::write(va as u32 & !0xFFF) };
    dsb_ish();
    repeat_if_needed();
    isb();
}

#[cfg(any(target_arch = "arm", test))]
/// Invalidates all of the hypervisor's own translations on every CPU.
pub(crate) fn flush_hyp() {
    dsb_ishst();
    // SAFETY: as above.
    unsafe { Tlbiallhis::write(0) };
    dsb_ish();
    repeat_if_needed();
    isb();
}

#[cfg(target_arch = "arm")]
/// Does as [`flush_hyp`] for boot, which may run outside HYP until it has reported that: there the image uses PL1
/// translations.
pub(crate) fn flush_boot() {
    use crate::syndrome::psr;
    let cpsr: u32;
    // SAFETY: reads a register.
    unsafe {
        core::arch::asm!("mrs {}, cpsr", out(reg) cpsr, options(nomem, nostack, preserves_flags));
    }
    if cpsr & psr::MODE == psr::MODE_HYP {
        return flush_hyp();
    }
    dsb_ishst();
    // SAFETY: as above.
    unsafe { Tlbiallis::write(0) };
    dsb_ish();
    isb();
}

#[cfg(test)]
mod tests {
    use super::{flush_hyp, flush_hyp_page, flush_vmid, flush_vmid_repeated};
    use crate::cp15;
    use crate::host::cells::steps;

    fn processor(midr: u32) {
        // SAFETY: a cell of a host thread.
        unsafe { cp15::Midr::write(midr) }
    }

    #[test]
    fn another_domains_translations_are_dropped_with_its_vmid_loaded() {
        let plain = steps(|| flush_vmid(5));
        let whole = [
            "dsb_ishst",
            "Vttbr",
            "isb",
            "Tlbiallis",
            "dsb_ish",
            "Vttbr",
            "isb",
        ];
        assert_eq!(plain, whole);
        assert_eq!(cp15::Vttbr::read(), 0);
        let own = steps(|| flush_vmid(0));
        assert_eq!(own, ["dsb_ishst", "Tlbiallis", "dsb_ish", "isb"]);
    }

    #[test]
    fn a_second_invalidate_and_barrier_follow_where_the_first_may_be_late() {
        let repeated = steps(|| flush_vmid_repeated(0));
        let whole = [
            "dsb_ishst",
            "Tlbiallis",
            "dsb_ish",
            "Tlbimvais",
            "dsb_ish",
            "isb",
        ];
        assert_eq!(repeated, whole);
        for (flush, operation) in [
            (flush_hyp as fn(), "Tlbiallhis"),
            (|| flush_hyp_page(0x1000), "Tlbimvahis"),
        ] {
            processor(0x413F_C0F2);
            let late = [
                "dsb_ishst",
                operation,
                "dsb_ish",
                "Tlbimvais",
                "dsb_ish",
                "isb",
            ];
            assert_eq!(steps(flush), late);
            processor(0x414F_C0F0);
            assert_eq!(steps(flush), ["dsb_ishst", operation, "dsb_ish", "isb"]);
        }
    }
}
