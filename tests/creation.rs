//! Making a domain when something runs out, at each step in turn: whatever fails, nothing is left of the domain once the
//! toolstack has destroyed what there was of it.
//!
//! One test, as it looks at the memory of the whole machine.

use armv7::heap;
use armv7::host::heap::{fail_after, fail_no_more};
use armv7::host::registers::set_interrupt;
use krypton::mem::memory;

#[path = "support/toolstack.rs"]
mod toolstack;

use toolstack::{Hog, State, Toolstack};

/// A domain's whole life, as far as it gets; whether that was all of it. Allocates nothing ittoolstack.
fn live(toolstack: &Toolstack) -> bool {
    let Ok(id) = toolstack.create() else {
        return false;
    };
    let done = toolstack.furnish(id).is_ok();
    toolstack.patience.set(u32::MAX);
    toolstack.destroy(id);
    done
}

/// Lets each allocation of the heap fail in turn, until none does; answers how many there are.
fn run_out_of_heap(toolstack: &Toolstack, before: &State, for_good: bool, check: impl Fn()) -> u64 {
    for count in 0..1000 {
        fail_after(count, for_good);
        let done = live(toolstack);
        let enough = fail_no_more();
        assert_eq!(&toolstack.state(), before, "allocation {count} fails");
        check();
        if done && enough {
            return count;
        }
    }
    panic!("a domain that needs a thousand allocations");
}

#[test]
fn a_domain_that_cannot_be_made_leaves_no_trace() {
    let toolstack = Toolstack::new();
    let before = toolstack.state();
    // While lists that grow once, for good, have not grown yet.
    let failures = run_out_of_heap(&toolstack, &before, false, || ());
    assert!(failures > 12, "only {failures} allocations");
    // And afterwards, when the heap must be as before, too: one allocation fails, or all from there on.
    let in_use = heap::usage().0;
    for for_good in [false, true] {
        let as_before = || assert_eq!(heap::usage().0, in_use);
        let failures = run_out_of_heap(&toolstack, &before, for_good, as_before);
        assert!(failures > 8, "only {failures} allocations");
    }

    // Frames.
    let mut done = false;
    for left in 0.. {
        let hog = Hog::leave(left);
        done = live(&toolstack);
        drop(hog);
        assert_eq!(toolstack.state(), before, "{left} frames are left");
        if done || left > 2000 {
            break;
        }
    }
    assert!(done);

    // Patience, when an interrupt waits after each piece of each call.
    set_interrupt(true);
    let mut done = false;
    for patience in 0..100 {
        toolstack.patience.set(patience);
        done = live(&toolstack);
        assert_eq!(
            toolstack.state(),
            before,
            "given up after {patience} pieces"
        );
        if done {
            assert!(patience > 10, "only {patience} pieces");
            break;
        }
    }
    assert!(done);
    set_interrupt(false);

    // VMIDs.
    let vmids: Vec<u8> = core::iter::from_fn(|| memory().vmids.take()).collect();
    assert!(!live(&toolstack));
    vmids.into_iter().for_each(|vmid| memory().vmids.give(vmid));
    assert_eq!(toolstack.state(), before);
    assert!(live(&toolstack));
}
