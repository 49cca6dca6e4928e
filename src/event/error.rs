//! Faults of an event channel operation, and the error number that a guest sees for it.

use alloc::collections::TryReserveError;

use crate::error::Errno;

/// Why an event channel operation was refused. Nothing changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventError {
    /// The port is beyond the table, or not in a state that allows the operation.
    BadPort,
    /// The remote port is not offered to this domain.
    NotOffered,
    /// No port is left.
    NoPort,
    /// No memory for more ports.
    NoMemory,
    /// The domain has no such vCPU.
    NoVcpu,
    /// There is no such VIRQ, or a global one was asked for on another vCPU than 0.
    BadVirq,
    /// The VIRQ is bound already.
    VirqBound,
    /// The control block is not 8-byte aligned or leaves its page.
    BadControlOffset,
    /// The `vcpu_info` is not 8-byte aligned or leaves its page.
    BadInfoOffset,
    /// The vCPU has a control block, or a registered `vcpu_info`, already.
    AlreadyRegistered,
    /// The domain still uses the two-level ABI, which has no array.
    NoArray,
    /// All 128 pages of the event array are there.
    ArrayFull,
    /// The domain still uses the two-level ABI, which has no priorities.
    NoPriorities,
    /// The priority is beyond 15.
    BadPriority,
    /// The port whose priority is to change is closed.
    PriorityOfClosed,
    /// A reset is under way, or there is none to continue.
    ResetBusy,
    /// Ports were opened while the reset went on.
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
