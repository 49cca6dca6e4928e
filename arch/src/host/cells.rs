//! Coprocessor 15: every register is a cell that reads as it was written last, 0 before that. Each thread has its own, like
//! a CPU.

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

/// Notes a barrier or a write of a register.
#[cfg(test)]
pub(crate) fn note(step: &'static str) {
    STEPS.with_borrow_mut(|steps| steps.push(step));
}

/// Notes nothing where nobody asks.
#[cfg(not(test))]
#[inline(always)]
pub(crate) fn note(_: &'static str) {}

/// Returns the barriers and writes of registers that `f` makes on this CPU, in order.
#[cfg(test)]
pub(crate) fn steps(f: impl FnOnce()) -> Vec<&'static str> {
    STEPS.take();
    f();
    STEPS.take()
}

/// Returns where the register of an MRC or MCR is: three bits for each opcode, four for CRn and CRm.
pub(crate) const fn place(opc1: usize, crn: usize, crm: usize, opc2: usize) -> usize {
    opc1 << 11 | crn << 7 | crm << 3 | opc2
}

/// Returns where the register of an MRRC or MCRR is.
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

/// Mode, LR and SPSR that the guest was last given for an exception.
pub fn exception_return() -> (u32, u32, u32) {
    RETURN.get()
}
