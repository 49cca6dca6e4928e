//! Coprocessor registers: each is a cell that reads as last written, initially 0. Each thread has its own set, as a CPU
//! has.

use std::cell::Cell;
use std::thread_local;

thread_local! {
    static NARROW: [Cell<u32>; 1 << 14] = const { [const { Cell::new(0) }; 1 << 14] };
    static WIDE: [Cell<u64>; 1 << 8] = const { [const { Cell::new(0) }; 1 << 8] };
    /// Mode, LR and SPSR of the last [`crate::guest::set_exception_return`].
    static RETURN: Cell<(u32, u32, u32)> = const { Cell::new((0, 0, 0)) };
}

#[cfg(test)]
thread_local! {
    static STEPS: std::cell::RefCell<Vec<&'static str>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Records a barrier or a register write.
#[cfg(test)]
pub(crate) fn record(step: &'static str) {
    STEPS.with_borrow_mut(|steps| steps.push(step));
}

/// Does nothing outside this crate's tests.
#[cfg(not(test))]
#[inline(always)]
pub(crate) fn record(_: &'static str) {}

/// Returns the barriers and register writes of `f` on this CPU, in order.
#[cfg(test)]
pub(crate) fn steps(f: impl FnOnce()) -> Vec<&'static str> {
    STEPS.take();
    f();
    STEPS.take()
}

/// Returns the cell index of an MRC's or MCR's register: three bits per opcode, four per CRn and CRm.
pub(crate) const fn place(opc1: usize, crn: usize, crm: usize, opc2: usize) -> usize {
    opc1 << 11 | crn << 7 | crm << 3 | opc2
}

/// Returns the cell index of an MRRC's or MCRR's register.
pub(crate) const fn wide_place(opc1: usize, crm: usize) -> usize {
    opc1 << 4 | crm
}

pub(crate) fn read(place: usize) -> u32 {
    NARROW.with(|cells| cells[place].get())
}

pub(crate) fn write(place: usize, value: u32) {
    NARROW.with(|cells| cells[place].set(value));
}

pub(crate) fn read_wide(place: usize) -> u64 {
    WIDE.with(|cells| cells[place].get())
}

pub(crate) fn write_wide(place: usize, value: u64) {
    WIDE.with(|cells| cells[place].set(value));
}

pub(crate) fn set_exception_return(mode: u32, lr: u32, spsr: u32) {
    RETURN.set((mode, lr, spsr));
}

/// Returns mode, LR and SPSR of the last [`crate::guest::set_exception_return`].
pub fn exception_return() -> (u32, u32, u32) {
    RETURN.get()
}
