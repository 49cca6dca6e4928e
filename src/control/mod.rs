//! Managing domains and the machine, for the control domain only.
//!
//! | file | concern |
//! |---|---|
//! | `sysctl`, `domctl` | which operation is it, and may the caller? |
//! | `request` | which domain does a domctl name, and how is its result written back? |
//! | `info` | what do the machine and its domains look like? |
//! | `cpupool`, `scheduler` | who runs where, with which share? |
//! | `create`, `lifecycle`, `destroy` | how does a domain begin, pause and end? |
//! | `devices` | which devices of the machine does a domain get? |
//! | `reap` | when is a dead domain forgotten? |
//! | `pages` | what of its memory does the toolstack manage? |
//! | `context` | what is in a vCPU's registers? |
//! | `save` | what of a domain goes into its image, and comes back from it? |
//! | `bitmap` | how do sets travel? |
//! | `hypfs` | what is in the hypervisor's file system? |
//!
//! Rights are checked before anything is locked or changed, and where Xen checks them: behind the form of what was asked
//! for, and behind that there is such a domain. Operations that change a domain's life exclude one another
//! (`exclusive`); who comes second tries again instead of waiting.

mod bitmap;
mod context;
mod cpupool;
mod create;
mod destroy;
mod devices;
pub mod domctl;
pub mod hypfs;
mod info;
mod lifecycle;
mod pages;
mod reap;
mod request;
mod save;
mod scheduler;
pub mod sysctl;

use crate::call::{Args, Caller, Outcome, Reply};
use crate::error::Errno;
use crate::sync::{Guard, Lock, rank};

pub use create::at_boot;
pub use destroy::undo;
pub use reap::reap;

static CONTROL: Lock<(), { rank::CONTROL }> = Lock::new(());

/// Returns the right to change domains' lives, for as long as it is held; `None` while somebody else has it.
fn exclusive() -> Option<Guard<'static, ()>> {
    CONTROL.try_lock()
}

/// Only the control domain may go on.
fn authorize(caller: &Caller<'_>) -> Result<(), Errno> {
    if caller.domain.is_control() {
        Ok(())
    } else {
        Err(Errno::Perm)
    }
}

/// Marks r1 of a call that is being continued. Callers leave r1 alone or zero; one that says this by itself skips work
/// that it asked for.
const PROGRESS: u32 = 0xC0DE_0000;
const PROGRESS_MASK: u32 = 0xFFFF;

/// Returns how far a call has come that is being continued.
fn progress(args: &Args) -> Option<u32> {
    let mark = args.0[1];
    (mark & !PROGRESS_MASK == PROGRESS).then_some(mark & PROGRESS_MASK)
}

/// Returns the same call again, which has come so far.
fn again_at(args: &Args, progress: u32) -> Outcome {
    let mut next = *args;
    next.0[1] = PROGRESS | progress & PROGRESS_MASK;
    Ok(Reply::Again(next))
}

/// Returns the same call again.
fn again(args: &Args) -> Outcome {
    Ok(Reply::Again(*args))
}

#[cfg(test)]
mod tests {
    use super::{again_at, progress};
    use crate::call::{Args, Reply};

    #[test]
    fn progress_survives_a_continuation() {
        let first = Args([1, 0, 0, 0, 0]);
        assert_eq!(progress(&first), None);
        let Ok(Reply::Again(next)) = again_at(&first, 77) else {
            panic!("a continuation")
        };
        assert_eq!((next.0[0], progress(&next)), (1, Some(77)));
    }
}
