//! Flushing a domain's translations from the TLBs of all CPUs.
//!
//! The broadcast invalidate does it. On processors with erratum 798181 that is complete too early: another invalidate has to
//! follow, and on most of them accesses by the old translation may still be under way on other CPUs, to a page that is
//! somebody else's by now. There all other CPUs are asked for a barrier besides, by [`armv7::fence`]. It is asked under the
//! lock of the domain's map: whoever waits for that lock acknowledges it.

use armv7::errata::Invalidation;
use armv7::{fence, tlb};

use super::{interrupt, others};

/// Returns what flushes the translations of the VMID in a VTTBR.
pub fn by(invalidation: Invalidation) -> fn(vttbr: u64) {
    match invalidation {
        Invalidation::Plain => tlb::flush_vmid,
        Invalidation::Repeated => tlb::flush_vmid_repeated,
        Invalidation::RepeatedAndFenced => flush_and_wait,
    }
}

fn flush_and_wait(vttbr: u64) {
    tlb::flush_vmid_repeated(vttbr);
    let others = others();
    let request = fence::request();
    for cpu in others {
        interrupt(cpu);
    }
    while !fence::is_acknowledged(request, others) {
        // One of them may be waiting for this CPU.
        fence::acknowledge();
        core::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use armv7::errata::Invalidation;
    use armv7::tlb;

    use super::{by, flush_and_wait};

    #[test]
    fn only_a_processor_with_the_erratum_repeats_or_waits() {
        let is = |invalidation, flush: fn(u64)| core::ptr::fn_addr_eq(by(invalidation), flush);
        assert!(is(Invalidation::Plain, tlb::flush_vmid));
        assert!(is(Invalidation::Repeated, tlb::flush_vmid_repeated));
        assert!(is(Invalidation::RepeatedAndFenced, flush_and_wait));
    }
}
