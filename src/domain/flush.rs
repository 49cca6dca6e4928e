//! Flushing a domain's translations from the TLBs of all CPUs.
//!
//! The broadcast invalidate does it. On a Cortex-A15 with erratum 798181 that is complete too early: accesses by the old
//! translation may still be under way on other CPUs, to a page that is somebody else's by now. There all other CPUs are
//! asked for a barrier besides, by [`armv7::fence`]. It is asked under the lock of the domain's map: whoever waits for that
//! lock answers.

use armv7::{errata, fence, tlb};

use super::run;

/// How a processor with this MIDR flushes the translations of the VMID in a VTTBR.
pub fn of(midr: u32) -> fn(vttbr: u64) {
    match errata::invalidates_late(midr) {
        true => flush_and_wait,
        false => tlb::flush_vmid,
    }
}

fn flush_and_wait(vttbr: u64) {
    tlb::flush_vmid(vttbr);
    let others = run::other_cpus();
    let request = fence::ask();
    for cpu in others {
        run::look(cpu);
    }
    while !fence::is_answered(request, others) {
        // One of them may be waiting for this CPU.
        fence::answer();
        core::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::{flush_and_wait, of};

    #[test]
    fn only_a_processor_with_the_erratum_waits() {
        let waits = |midr| core::ptr::fn_addr_eq(of(midr), flush_and_wait as fn(u64));
        // Cortex-A15 r0p4 (Exynos 5250), r2p1 (TC2); r4p0, Cortex-A7 r0p5.
        assert!(waits(0x410F_C0F4) && waits(0x412F_C0F1));
        assert!(!waits(0x414F_C0F0) && !waits(0x410F_C075));
    }
}
