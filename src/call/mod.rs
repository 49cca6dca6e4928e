//! Arguments and results of hypercall handlers: caller, arguments, reply, budget, guest pointers, target domains.
//!
//! A handler whose work may be long returns [`Args::again`] once it has spent a [`Budget`] or [`must_pause`] returns true: the
//! guest executes the same HVC again with the progress in its arguments, and can take an interrupt in between.

pub mod guest_ptr;
pub mod target;

use alloc::sync::Arc;

use armv7::addr::GuestVa;
use armv7::smp;

use crate::domain::Domain;
use crate::error::Errno;
use crate::latency;
use crate::vcpu::Vcpu;

/// The caller of a hypercall.
pub struct Caller<'a> {
    /// The caller's domain.
    pub domain: &'a Arc<Domain>,
    /// The vCPU, which is loaded on this CPU.
    pub vcpu: &'a Arc<Vcpu>,
}

/// Arguments of a hypercall: r0 to r4.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Args(pub [u32; 5]);

impl Args {
    /// Returns argument `n` as a guest pointer.
    pub fn ptr(&self, n: usize) -> GuestVa {
        GuestVa(self.0.get(n).copied().unwrap_or(0))
    }

    /// Returns the continuation of this call: the same arguments but for `changes`, pairs of an argument's number and its
    /// new value. They hold the call's progress.
    pub fn again<const N: usize>(&self, changes: [(usize, u32); N]) -> Reply {
        let mut next = *self;
        for (n, value) in changes {
            if let Some(arg) = next.0.get_mut(n) {
                *arg = value;
            }
        }
        Reply::Again(next)
    }
}

/// Result of a handler that succeeds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reply {
    /// Value for r0.
    Value(u32),
    /// Not finished: execute the call again with these arguments.
    Again(Args),
    /// Success, and unmask the guest's interrupts (SCHEDOP_block).
    Unmask,
}

impl Reply {
    /// Success without a value.
    pub const OK: Self = Self::Value(0);
}

/// A handler's result.
pub type Outcome = Result<Reply, Errno>;

/// Work that a hypercall may do before it must be continued, in units.
#[derive(Debug)]
pub struct Budget(u32);

impl Budget {
    /// Returns a budget of `units`.
    pub const fn new(units: u32) -> Self {
        Self(units)
    }

    /// Spends `units`. Returns false if the budget is exhausted and the call must be continued.
    pub fn spend(&mut self, units: u32) -> bool {
        match self.0.checked_sub(units) {
            Some(left) => {
                self.0 = left;
                true
            }
            None => false,
        }
    }
}

/// Returns whether to continue the call later, as an interrupt is pending. Check it after each piece of work that
/// bounds the time with interrupts masked.
pub fn must_pause() -> bool {
    let waits = smp::interrupt_waits();
    if !waits {
        latency::split();
    }
    waits
}

#[cfg(test)]
mod tests {
    use super::{Args, Reply};

    #[test]
    fn a_continuation_leaves_the_registers_that_it_does_not_use() {
        let args = Args([0x1000, 9, 2, 3, 4]);
        let next = Args([0x1040, 8, 2, 3, 4]);
        assert_eq!(args.again([(0, 0x1040), (1, 8)]), Reply::Again(next));
    }
}
