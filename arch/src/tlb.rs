//! TLB maintenance (DDI 0406C.d B3.10.6).
//!
//! A stage-2 change is complete when: the descriptor store is visible to the walkers (`dsb ishst`), the broadcast
//! invalidate is issued and has finished on every CPU (`dsb ish`), and this CPU has resynchronized (`isb`).

use crate::barrier::{dsb_ish, dsb_ishst, isb};
#[cfg(target_arch = "arm")]
use crate::cp15::{Tlbiallhis, Tlbimvahis};
use crate::cp15::{Tlbiallis, Vttbr};

/// Drops every CPU's stage-1 and stage-2 translations of the VMID in `vttbr`.
///
/// The operation works on the current VMID, so another domain's is loaded for the moment: with interrupts masked and no
/// guest access in between, only the invalidate sees it.
pub fn flush_vmid(vttbr: u64) {
    dsb_ishst();
    let current = Vttbr::read();
    // SAFETY: `vttbr` is the value of a live stage-2 map and is used for no access before the current one is back.
    unsafe {
        if current != vttbr {
            Vttbr::write(vttbr);
            isb();
        }
        Tlbiallis::write(0);
        dsb_ish();
        if current != vttbr {
            Vttbr::write(current);
        }
    }
    isb();
}

#[cfg(target_arch = "arm")]
/// Drops the hypervisor's own translation of the page at `va` on every CPU.
pub(crate) fn flush_hyp_page(va: usize) {
    dsb_ishst();
    // SAFETY: dropping translations is always allowed; the tables are the truth.
    unsafe { Tlbimvahis::write(va as u32 & !0xFFF) };
    dsb_ish();
    isb();
}

#[cfg(target_arch = "arm")]
/// Drops all of the hypervisor's own translations on every CPU.
pub(crate) fn flush_hyp() {
    dsb_ishst();
    // SAFETY: as above.
    unsafe { Tlbiallhis::write(0) };
    dsb_ish();
    isb();
}

#[cfg(target_arch = "arm")]
/// The same for boot, which may run outside HYP until it has said so: there our translations are those of PL1.
pub(crate) fn flush_boot() {
    use crate::guest::{MODE_HYP, MODE_MASK};
    let cpsr: u32;
    // SAFETY: reads a register.
    unsafe {
        core::arch::asm!("mrs {}, cpsr", out(reg) cpsr, options(nomem, nostack, preserves_flags));
    }
    if cpsr & MODE_MASK == MODE_HYP {
        return flush_hyp();
    }
    dsb_ishst();
    // SAFETY: as above.
    unsafe { Tlbiallis::write(0) };
    dsb_ish();
    isb();
}
