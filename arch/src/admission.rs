//! Admission of CPUs that may start too late.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::cpu::CpuId;

/// The CPUs that are expected. A CPU may arrive at the moment the wait for it ends; the first of the two decides.
pub struct Admission(AtomicU32);

impl Admission {
    /// Returns an admission that expects no CPU.
    pub const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Expects `cpu` from now on.
    pub fn expect(&self, cpu: CpuId) {
        self.0.fetch_or(1 << cpu.raw(), Ordering::SeqCst);
    }

    /// Reports that `cpu` has arrived. Returns whether it may stay.
    pub fn arrive(&self, cpu: CpuId) -> bool {
        self.end(cpu)
    }

    /// Stops expecting `cpu`. Returns false if it has already arrived.
    pub fn give_up(&self, cpu: CpuId) -> bool {
        self.end(cpu)
    }

    fn end(&self, cpu: CpuId) -> bool {
        let bit = 1 << cpu.raw();
        self.0.fetch_and(!bit, Ordering::SeqCst) & bit != 0
    }
}

impl Default for Admission {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::Admission;
    use crate::cpu::CpuId;

    #[test]
    fn a_cpu_comes_in_time_or_is_given_up_and_never_both() {
        let (admission, one, two) = (
            Admission::new(),
            CpuId::new(1).unwrap(),
            CpuId::new(2).unwrap(),
        );
        assert!(!admission.arrive(one), "nobody waits for it");
        admission.expect(one);
        assert!(!admission.arrive(two));
        assert!(admission.arrive(one) && !admission.give_up(one));
        admission.expect(two);
        assert!(admission.give_up(two) && !admission.arrive(two));
        for _ in 0..1000 {
            admission.expect(one);
            let (came, gone) = std::thread::scope(|scope| {
                let came = scope.spawn(|| admission.arrive(one));
                (admission.give_up(one), came.join().unwrap())
            });
            assert_ne!(came, gone);
        }
    }
}
