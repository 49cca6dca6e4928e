//! Cache maintenance by set and way, as a guest does it before it switches its caches off: which of the trapped operations
//! is carried out by cleaning the guest's memory, and how far that is.
//!
//! A guest names lines that it cannot know: by set and way it would reach those of other guests, and only of this CPU. What
//! it wants is its memory written back, so that is done instead, by address, once for each loop over the caches, at the
//! loop's first operation. A loop does each operation once: the first one again, or any one after a pause, begins a new
//! loop. All memory of a guest is too much for one exit, so the same instruction traps again until it is through.
//!
//! Lines that the guest dirties between the first operation and the end of its loop are not written back; nor would they be in
//! hardware, where a line may be dirtied after the loop has passed it.
//!
//! Xen cleans too, and then watches SCTLR (HCR.TVM) for the caches to be switched, to know when to do it again.

use armv7::addr::Gfn;

/// Pause after which an operation begins a new loop, in ticks of the system counter: 1 ms at 62.5 MHz, 3 ms at 24 MHz. An
/// operation that costs an exit takes some microseconds.
const PAUSE: u64 = 1 << 16;

/// An operation by set and way: CRm (which one), and the operand (level, set and way).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Operation {
    /// 6 for DCISW, 10 for DCCSW, 14 for DCCISW.
    pub crm: u8,
    /// Value of the core register.
    pub operand: u32,
}

/// Where a vCPU is in its loops.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SetWay {
    /// The operation that began the loop.
    first: Option<Operation>,
    /// When the last operation of it was done.
    last: u64,
    /// Where to go on cleaning.
    next: Option<Gfn>,
}

impl SetWay {
    /// Returns what an operation at `now` asks for: the frame from which on memory is to be cleaned, or nothing.
    pub fn begin(&mut self, operation: Operation, now: u64) -> Option<Gfn> {
        if self.next.is_some() {
            return self.next;
        }
        let begins = self.first.is_none_or(|first| first == operation)
            || now.saturating_sub(self.last) > PAUSE;
        self.last = now;
        if !begins {
            return None;
        }
        self.first = Some(operation);
        Gfn::new(0)
    }

    /// Says that memory was cleaned up to `next`, or all of it.
    pub fn cleaned(&mut self, next: Option<Gfn>, now: u64) {
        self.next = next;
        self.last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::{Operation, PAUSE, SetWay};
    use armv7::addr::Gfn;

    /// Returns all sets and ways of two levels, as Linux goes through them.
    fn a_loop() -> Vec<Operation> {
        let level = |level: u32, sets: u32, ways: u32| {
            (0..sets).flat_map(move |set| {
                (0..ways).map(move |way| Operation {
                    crm: 14,
                    operand: way << 31 | set << 6 | level << 1,
                })
            })
        };
        level(0, 8, 2).chain(level(1, 16, 2)).collect()
    }

    /// Returns how often memory is cleaned when the operations are done one each tick from `start` on.
    fn cleanings(state: &mut SetWay, operations: &[Operation], start: u64) -> usize {
        let cleanings = (start..).zip(operations).filter(|(now, operation)| {
            let begun = state.begin(**operation, *now).is_some();
            if begun {
                state.cleaned(None, *now);
            }
            begun
        });
        cleanings.count()
    }

    #[test]
    fn a_loop_over_the_caches_cleans_once() {
        let mut state = SetWay::default();
        assert_eq!(cleanings(&mut state, &a_loop(), 5), 1);
    }

    #[test]
    fn the_same_loop_again_cleans_again() {
        let mut state = SetWay::default();
        let thrice = a_loop().repeat(3);
        assert_eq!(cleanings(&mut state, &thrice, 0), 3);
    }

    #[test]
    fn another_loop_after_a_pause_cleans_again() {
        let mut state = SetWay::default();
        let operations = a_loop();
        cleanings(&mut state, &operations, 0);
        let rest = &operations[3..];
        assert_eq!(cleanings(&mut state, rest, 100), 0);
        assert_eq!(cleanings(&mut state, rest, 200 + PAUSE), 1);
    }

    #[test]
    fn cleaning_goes_on_where_it_was_until_it_is_through() {
        let mut state = SetWay::default();
        let operation = a_loop()[0];
        let gfn = |n| Gfn::new(n);
        assert_eq!(state.begin(operation, 0), gfn(0));
        state.cleaned(gfn(64), 0);
        assert_eq!(state.begin(operation, 10 * PAUSE), gfn(64));
        state.cleaned(None, 20 * PAUSE);
        assert_eq!(state.begin(a_loop()[1], 20 * PAUSE + 1), None);
    }
}
