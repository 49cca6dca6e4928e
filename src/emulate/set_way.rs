//! Cache maintenance by set and way, which a guest uses before it disables its caches: emulated by cleaning the guest's
//! memory.
//!
//! A guest cannot know which lines hold its memory: by set and way it would reach those of other guests, and only on
//! this CPU. The purpose is to write its memory back, so that is done by address, once per loop over the caches, at the
//! loop's first operation. A loop does each operation once, so the first operation again, or any one after a pause,
//! begins a new loop. Cleaning all memory takes too long for one exit, so the same instruction traps again until it is
//! done.
//!
//! Lines that the guest dirties between the first operation and the end of its loop are not written back. The same
//! holds on hardware, where a line may be dirtied after the loop has passed it.
//!
//! Xen cleans too, and then traps SCTLR (HCR.TVM) to clean again when the caches are switched.

use armv7::addr::Gfn;

/// Pause after which an operation begins a new loop, in ticks of the system counter: 1 ms at 62.5 MHz, 3 ms at 24 MHz.
/// An operation with its exit takes some microseconds.
const PAUSE: u64 = 1 << 16;

/// An operation by set and way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Operation {
    /// CRm: 6 for DCISW, 10 for DCCSW, 14 for DCCISW.
    pub crm: u8,
    /// Value of the core register: level, set and way.
    pub operand: u32,
}

/// Progress of a vCPU's loop.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SetWay {
    /// The operation that began the loop.
    first: Option<Operation>,
    /// Time of the loop's last operation, in ticks.
    last: u64,
    /// Frame at which cleaning continues.
    next: Option<Gfn>,
}

impl SetWay {
    /// Returns the frame from which memory must be cleaned for an operation at `now`; `None` if it is done.
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

    /// Records that memory has been cleaned up to `next`, or entirely.
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
