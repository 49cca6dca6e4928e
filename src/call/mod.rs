//! The arguments and results of a hypercall's handler: caller, arguments, reply, budget; guest pointers and the domains named.
//!
//! A handler whose work may be long spends a [`Budget`] and returns [`Reply::Again`]: the guest executes the same HVC again
//! with the progress in its arguments, after it had a chance to take an interrupt.

pub mod guest_ptr;
pub mod target;

use alloc::sync::Arc;

use armv7::addr::GuestVa;
use armv7::smp;

use crate::domain::Domain;
use crate::error::Errno;
use crate::latency;
use crate::vcpu::Vcpu;

/// Who makes a hypercall.
pub struct Caller<'a> {
    /// Its domain.
    pub domain: &'a Arc<Domain>,
    /// The vCPU, which is loaded on this CPU.
    pub vcpu: &'a Arc<Vcpu>,
}

/// Arguments of a hypercall: r0 to r4.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Args(pub [u32; 5]);

impl Args {
    /// Argument `n` as a guest pointer.
    #[inline]
    pub fn ptr(&self, n: usize) -> GuestVa {
        GuestVa(self.0.get(n).copied().unwrap_or(0))
    }
}

/// The result of a handler that does not fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reply {
    /// The result for r0.
    Value(u32),
    /// Not finished: the same call again, with these arguments.
    Again(Args),
    /// Success, and interrupts are let through to the guest (SCHEDOP_block).
    Unmask,
}

impl Reply {
    /// Success without a value.
    pub const OK: Self = Self::Value(0);
}

/// A handler's result.
pub type Outcome = Result<Reply, Errno>;

/// Work that one hypercall may do before it must let others run: spent unit by unit.
#[derive(Debug)]
pub struct Budget(u32);

impl Budget {
    /// A budget of `units`.
    pub const fn new(units: u32) -> Self {
        Self(units)
    }

    /// Spends `units`; false when the budget is exhausted, and the call is to be continued.
    #[inline]
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

/// Returns whether to continue a call later, asked after each piece of work that bounds how long interrupts stay masked: one
/// waits.
#[inline]
pub fn must_pause() -> bool {
    let waits = smp::interrupt_waits();
    if !waits {
        latency::look();
    }
    waits
}
