//! Flushes of a domain's translations from the TLBs of all CPUs.
//!
//! A broadcast invalidate suffices, except on processors with erratum 798181, where it completes too early. They need a
//! second invalidate. On most of them accesses by the old translation may still be in progress on other CPUs, to a page
//! that may have another owner by then, so all other CPUs must execute a barrier as well ([`armv7::fence`]). The
//! request is made under the lock of the domain's p2m; a CPU that spins on a lock acknowledges it.

use armv7::errata::Invalidation;
use armv7::{fence, tlb};

use super::{interrupt, others};

/// Returns the function that flushes the translations of a VTTBR's VMID.
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
        // Another CPU may be waiting for this one.
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
