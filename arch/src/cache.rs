//! Cache maintenance by address, to the point of coherency (DDI 0406C.d B2.2.6).
//!
//! Needed for observers that bypass the caches: a guest that starts with its caches off, a table walker, a device.
//! Ranges are walked as (first line, count) in checked arithmetic, so a range that ends at the top of the address space
//! is maintained up to its last line (the cause of two Xen advisories).

use crate::barrier::dsb_sy;
use crate::cp15::{Ctr, Dccimvac, Dccmvac, Icialluis};
use crate::frame::SharedPage;

/// An operation on the lines of a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// Write dirty lines back.
    Clean,
    /// Write dirty lines back and invalidate.
    CleanInvalidate,
}

/// Returns the size in bytes of the smallest data cache line of any level.
fn line_size() -> usize {
    4 << ((Ctr::read() >> 16) & 0xF)
}

/// Returns the first line and number of lines that cover `len` bytes at `start`.
fn lines(start: usize, len: usize, line: usize) -> (usize, usize) {
    let Some(last) = len.checked_sub(1).map(|rest| start.saturating_add(rest)) else {
        return (start, 0);
    };
    (start / line, last / line - start / line + 1)
}

/// Lines maintained per iteration.
const TURN: usize = 8;

#[inline(always)]
fn one(va: u32, op: Op) {
    // SAFETY: cleaning a line changes no memory contents as seen by coherent observers.
    unsafe {
        match op {
            Op::Clean => Dccmvac::write(va),
            Op::CleanInvalidate => Dccimvac::write(va),
        }
    }
}

fn maintain(start: usize, len: usize, op: Op) {
    let line = line_size();
    let (first, count) = lines(start, len, line);
    // Completes earlier writes, so that they are in the lines.
    dsb_sy();
    let mut va = (first * line) as u32;
    // Eight lines per iteration: otherwise the loop is half of a line's cost.
    for _ in 0..count / TURN {
        for _ in 0..TURN {
            one(va, op);
            va = va.wrapping_add(line as u32);
        }
    }
    for _ in 0..count % TURN {
        one(va, op);
        va = va.wrapping_add(line as u32);
    }
    dsb_sy();
}

/// Maintains `len` bytes of `page` at `offset`, clamped to the page.
pub fn page_range(page: &SharedPage, offset: usize, len: usize, op: Op) {
    let offset = offset.min(crate::addr::PAGE_SIZE);
    maintain(
        page.hyp_va() + offset,
        len.min(crate::addr::PAGE_SIZE - offset),
        op,
    );
}

/// Writes a word back to memory, for a CPU whose caches are off.
#[cfg(target_arch = "arm")]
pub(crate) fn clean_word(word: &core::sync::atomic::AtomicU32) {
    maintain(core::ptr::from_ref(word) as usize, 4, Op::Clean);
}

/// Maintains a whole page.
pub fn page(page: &SharedPage, op: Op) {
    page_range(page, 0, crate::addr::PAGE_SIZE, op);
}

/// Invalidates the instruction caches of all CPUs, after code was written.
pub fn invalidate_instruction_caches() {
    dsb_sy();
    // SAFETY: invalidating instruction cache lines is always allowed.
    unsafe { Icialluis::write(0) };
    dsb_sy();
    crate::barrier::isb();
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::AtomicU32;

    use super::{Op, lines, maintain};
    use crate::cp15;
    use crate::host::cells::steps;

    #[test]
    fn maintenance_is_between_barriers() {
        // SAFETY: a cell of a host thread. Lines of 16 words.
        unsafe { cp15::Ctr::write(4 << 16) };
        let words = [const { AtomicU32::new(0) }; 48];
        let start = words.as_ptr() as usize & !63;
        let cleaned = steps(|| maintain(start, 128, Op::Clean));
        assert_eq!(cleaned, ["dsb_sy", "Dccmvac", "Dccmvac", "dsb_sy"]);
        let dropped = steps(|| maintain(start, 64, Op::CleanInvalidate));
        assert_eq!(dropped, ["dsb_sy", "Dccimvac", "dsb_sy"]);
        let code = steps(super::invalidate_instruction_caches);
        assert_eq!(code, ["dsb_sy", "Icialluis", "dsb_sy", "isb"]);
    }

    #[test]
    fn every_line_of_a_range_is_visited_once() {
        assert_eq!(lines(0, 0, 64), (0, 0));
        assert_eq!(lines(63, 1, 64), (0, 1));
        assert_eq!(lines(63, 2, 64), (0, 2));
        assert_eq!(lines(4096, 4096, 64), (64, 64));
    }

    #[test]
    fn a_range_that_ends_at_the_top_is_cleaned_to_its_last_line() {
        let top = usize::MAX;
        assert_eq!(lines(top - 63, 64, 64), (top / 64, 1));
        assert_eq!(lines(top - 64, usize::MAX, 64), (top / 64 - 1, 2));
    }
}
