//! Identifiers of groups and pools: indices into the scheduler's tables.

pub use crate::id::UnitId;

/// A group: an index into the scheduler's table, reused after [`super::Scheduler::remove_group`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct GroupId(pub(super) u16);

/// Maximum number of CPU pools.
pub const MAX_POOLS: usize = 32;

/// A CPU pool: an index below [`MAX_POOLS`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct PoolId(u8);

impl PoolId {
    /// The pool that contains all CPUs after boot.
    pub const FIRST: Self = Self(0);

    /// Returns the pool with index `n`, or `None` beyond [`MAX_POOLS`].
    pub const fn new(n: usize) -> Option<Self> {
        if n < MAX_POOLS {
            Some(Self(n as u8))
        } else {
            None
        }
    }

    /// Returns the index into a `[T; MAX_POOLS]`.
    pub const fn index(self) -> usize {
        self.0 as usize % MAX_POOLS
    }
}
