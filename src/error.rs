//! Error numbers of the hypercall ABI.
//!
//! Rooms have small error enums of their own. A hypercall handler converts them to an [`Errno`], and the dispatcher
//! converts that to the negative register value.

use core::fmt;

/// Positive error number as in `xen/include/public/errno.h`; a guest sees it negated in r0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
#[allow(missing_docs)] // the names are the documentation
pub enum Errno {
    Perm = 1,
    NoEnt = 2,
    Srch = 3,
    Intr = 4,
    Io = 5,
    NxIo = 6,
    TooBig = 7,
    NoExec = 8,
    BadF = 9,
    Again = 11,
    NoMem = 12,
    Acces = 13,
    Fault = 14,
    Busy = 16,
    Exist = 17,
    XDev = 18,
    NoDev = 19,
    Inval = 22,
    NoSpc = 28,
    RoFs = 30,
    Dom = 33,
    Range = 34,
    Deadlk = 35,
    NoSys = 38,
    NoData = 61,
    Time = 62,
    Overflow = 75,
    IlSeq = 84,
    OpNotSupp = 95,
    AddrInUse = 98,
    AddrNotAvail = 99,
    NoBufs = 105,
    NotConn = 107,
    TimedOut = 110,
    ConnRefused = 111,
}

/// Displays the number, as names would take more space than they are worth.
impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error {}", *self as i32)
    }
}

impl Errno {
    /// Returns the value for r0.
    pub const fn to_reg(self) -> u32 {
        (-(self as i32)) as u32
    }
}
