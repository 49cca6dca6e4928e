//! Errors of event channel operations, and their error numbers.

use alloc::collections::TryReserveError;

use crate::error::Errno;

/// Reason an event channel operation was refused. The state is unchanged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventError {
    /// The port is outside the table, or its state does not allow the operation.
    BadPort,
    /// The remote port is not offered to this domain.
    NotOffered,
    /// All ports are in use.
    NoPort,
    /// Out of memory for ports or pages.
    NoMemory,
    /// The domain has no such vCPU.
    NoVcpu,
    /// The VIRQ does not exist, or a global one was requested for a vCPU other than 0.
    BadVirq,
    /// The VIRQ is already bound.
    VirqBound,
    /// The control block is not aligned to 8 bytes or exceeds its page.
    BadControlOffset,
    /// The `vcpu_info` is not aligned to 8 bytes or exceeds its page.
    BadInfoOffset,
    /// The vCPU already has a control block, or a registered `vcpu_info`.
    AlreadyRegistered,
    /// The domain uses the two-level ABI, which has no event array.
    NoArray,
    /// The event array has all its 128 pages.
    ArrayFull,
    /// The domain uses the two-level ABI, which has no priorities.
    NoPriorities,
    /// The priority is above 15.
    BadPriority,
    /// The port whose priority is to change is closed.
    PriorityOfClosed,
    /// A reset is in progress, or there is none to continue.
    ResetBusy,
    /// Ports were opened during the reset.
    ResetRaced,
    /// The domain is being destroyed.
    Retired,
}

impl From<EventError> for Errno {
    fn from(error: EventError) -> Self {
        match error {
            EventError::BadPort
            | EventError::NotOffered
            | EventError::BadVirq
            | EventError::BadControlOffset
            | EventError::AlreadyRegistered
            | EventError::BadPriority
            | EventError::Retired => Self::Inval,
            EventError::NoPort | EventError::ArrayFull => Self::NoSpc,
            EventError::NoMemory => Self::NoMem,
            EventError::NoVcpu => Self::NoEnt,
            EventError::VirqBound => Self::Exist,
            EventError::BadInfoOffset => Self::NxIo,
            EventError::NoArray => Self::OpNotSupp,
            EventError::NoPriorities => Self::NoSys,
            EventError::PriorityOfClosed => Self::Acces,
            EventError::ResetBusy => Self::Busy,
            EventError::ResetRaced => Self::Again,
        }
    }
}

impl From<TryReserveError> for EventError {
    fn from(_: TryReserveError) -> Self {
        Self::NoMemory
    }
}
